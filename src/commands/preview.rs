//! `preview`: real rows, and the exact items that they become.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `preview`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The section
    pub section: String,
    /// How many rows
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rows: u32,
    /// The oldest rows instead of the newest
    #[arg(long)]
    pub oldest: bool,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`preview` is not made yet"))
}
