//! `resync`: deliver again from a key, a time or the start.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `resync`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The section
    pub section: String,
    /// Where to begin
    #[command(flatten)]
    pub from: From,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Where a re-sync begins.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct From {
    /// Rows behind this key
    #[arg(long, value_name = "K", allow_hyphen_values = true)]
    pub from_key: Option<String>,
    /// Rows of this time and later: RFC 3339
    #[arg(long, value_name = "T")]
    pub from_time: Option<String>,
    /// Every row
    #[arg(long)]
    pub all: bool,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`resync` is not made yet"))
}
