//! `logs`: the ledger, newest last.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this section
    pub section: Option<String>,
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// Only this outcome: sending, delivered, partial, in_doubt, resent, held, quarantined; may be repeated
    #[arg(long, value_name = "OUTCOME")]
    pub outcome: Vec<String>,
    /// Only from this time on: RFC 3339, or an age such as 2h
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only before this time: RFC 3339, or an age such as 2h
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// The most rows to show
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub limit: u32,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`logs` is not made yet"))
}
