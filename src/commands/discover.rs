//! `discover`: what there is to map.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `discover`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this schema
    #[arg(long, value_name = "S")]
    pub schema: Option<String>,
    /// Show its columns, and write a section for it
    pub table: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`discover` is not made yet"))
}
