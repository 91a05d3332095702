//! `status`: one look says whether all is well.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look again every two seconds until Ctrl-C
    #[arg(long, short)]
    pub watch: bool,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`status` is not made yet"))
}
