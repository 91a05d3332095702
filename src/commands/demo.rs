//! `demo`: a throwaway PostgreSQL, a writer, a stand-in and the streamer, with a live view.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End after so many seconds, and compare keys; otherwise Ctrl-C does
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// Rows that are there before it starts
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub rows: u64,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`demo` is not made yet"))
}
