//! `sim`: the Planhat stand-in alone, with faults on request.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `sim`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// A tenant that it knows; may be repeated; without one, any
    #[arg(long, value_name = "UUID")]
    pub tenant: Vec<String>,
    /// Take only these names in activities: current or legacy
    #[arg(long, value_name = "NAMES")]
    pub strict: Option<String>,
    /// Bytes of a body, at most
    #[arg(long, value_name = "BYTES", default_value_t = 32_000_000)]
    pub max_body: u64,
    /// Every answer waits so many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub latency: u64,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`sim` is not made yet"))
}
