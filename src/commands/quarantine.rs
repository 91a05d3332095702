//! `quarantine`: rows that could not be delivered.

use super::Context;
use crate::fault::{Exit, Fault};

/// Arguments of `quarantine`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do with them
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with held rows.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// List them, oldest first
    List {
        /// Which
        #[command(flatten)]
        filter: Filter,
        /// The most rows to show
        #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// Show one with its item
    Show {
        /// Its id
        id: i64,
    },
    /// Send them again, by the ordinary way
    Retry(Chosen),
    /// Forget them: they will never be delivered
    Drop(Chosen),
}

/// Which rows.
#[derive(Debug, clap::Args)]
pub struct Filter {
    /// Only this section's
    #[arg(long, short)]
    pub section: Option<String>,
    /// Only those whose reason contains this
    #[arg(long, short)]
    pub reason: Option<String>,
}

/// Which rows, said expressly.
#[derive(Debug, clap::Args)]
pub struct Chosen {
    /// Their ids
    #[arg(required_unless_present_any = ["section", "reason", "all"])]
    pub ids: Vec<i64>,
    /// Which
    #[command(flatten)]
    pub filter: Filter,
    /// All of them
    #[arg(long)]
    pub all: bool,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Runs the command.
///
/// # Errors
/// Not made yet.
pub async fn run(_context: &Context, _args: Args) -> Result<Exit, Fault> {
    Err(Fault::bug("`quarantine` is not made yet"))
}
