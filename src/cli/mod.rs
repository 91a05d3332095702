//! The operator's hands: one file a command, with no logic that a room should own.
//!
//! * In: the command line.
//! * Out: a table or text for a person, one JSON document for a machine; an [`Exit`].
//! * Never: a log line on stdout; a destructive act without having been asked.

pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config_watch;
pub(crate) mod console;
pub(crate) mod context;
pub(crate) mod discover;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod pause;
pub(crate) mod plan;
pub(crate) mod preview;
pub(crate) mod quarantine;
pub(crate) mod query;
pub(crate) mod reload;
pub(crate) mod repair;
pub(crate) mod resume;
pub(crate) mod resync;
pub mod run;
pub(crate) mod schema;
pub(crate) mod setup;
pub(crate) mod sim;
pub(crate) mod status;
pub(crate) mod teardown;
pub(crate) mod trace;
pub(crate) mod ui;
pub mod usage;

pub(crate) use crate::cli::context::Context;
pub use crate::cli::usage::usage;

use std::path::PathBuf;
use std::pin::Pin;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::demo;
use crate::model::{Exit, Fault};
use crate::telemetry::log_output::LogFormat;

/// PostgreSQL to Planhat, in near real time, with exact accounting.
#[derive(Debug, Parser)]
#[command(name = "pg2planhat", version, about, max_term_width = 100, after_help = EXITS)]
pub struct Cli {
    /// The configuration
    #[arg(long, short, global = true, help_heading = GLOBAL, value_name = "FILE", default_value = "pg2planhat.yaml")]
    pub config: PathBuf,
    /// One JSON document on stdout instead of text for people
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// error, warn, info, debug, trace, or directives as RUST_LOG takes them
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How log lines look; they go to stderr
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FORMAT", default_value = "text")]
    pub log_format: Lines,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The heading of what every command takes, below its own options.
const GLOBAL: &str = "Global options";

const EXITS: &str = "Exit codes: 0 done or drained, 1 findings, 64 usage or configuration, 69 a server stayed \
unavailable, 70 a bug, 75 stopped in a state that needs a person.";

/// How log lines look.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Lines {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// The commands, in the order in which one meets them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See it work: a throwaway PostgreSQL, a writer, a Planhat stand-in, and a live view
    Demo(demo::Args),
    /// List schemas, tables, columns and candidate keys; with TABLE, write a section
    Discover(discover::Args),
    /// Find out everything that can be known before running, each finding with its remedy
    Check(check::Args),
    /// Make publication, slot and state schema
    Setup(setup::Args),
    /// Show the exact items that real rows become, and what is refused; sends nothing
    Preview(preview::Args),
    /// Backfill and stream until SIGTERM
    Run(run::Args),
    /// Show per section: phase, progress, lag, last delivery, quarantine; and the slot
    Status(status::Args),
    /// Show the ledger: when, rows, key range, outcome, answer
    Logs(logs::Args),
    /// Pause a section; a running instance obeys within 5 s
    Pause(pause::Args),
    /// Resume a paused section
    Resume(resume::Args),
    /// Deliver a section's rows again; Planhat will count them twice
    Resync(resync::Args),
    /// Rows that could not be delivered: list, show, retry, drop
    Quarantine(quarantine::Args),
    /// Show what became of one row: which batch, what was answered, or why it was not delivered
    Trace(trace::Args),
    /// Hold the source against what was settled; exit 1 where anything is missing
    Audit(audit::Args),
    /// Show what this file would change, and what that would do; exit 1 where rows would count twice or be lost
    Plan(plan::Args),
    /// Read from the source: one statement, read-only, with a time-out and a row cap
    Query(query::Args),
    /// Fix a slot that is missing, lost or was moved
    Repair(repair::Args),
    /// Drop slot, publication and state schema
    Teardown(teardown::Args),
    /// The web page in front of an instance that runs elsewhere, or of none; delivers nothing by itself
    Ui(ui::Args),
    /// Make tokens for the web page
    Console(console::Args),
    /// The Planhat stand-in alone, with faults on request
    Sim(sim::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Write the man pages into a directory
    Man(man::Args),
    /// Print the JSON Schema of the configuration
    #[command(hide = true)]
    Schema(schema::Args),
}

impl Command {
    /// Whether it only looks, or says a word to the state: what takes longer than a while never ends.
    fn is_brief(&self) -> bool {
        if let Command::Status(args) = self {
            return !args.watch;
        }
        if let Command::Logs(args) = self {
            return !args.follow;
        }
        matches!(
            self,
            Command::Discover(_) | Command::Check(_) | Command::Preview(_) | Command::Pause(_) | Command::Resume(_)
        )
    }

    /// Whether its log is its output, so that it speaks of the ordinary, too.
    fn is_long_running(&self) -> bool {
        matches!(self, Command::Run(_) | Command::Sim(_) | Command::Ui(_))
    }
}

/// Does what the command line says.
///
/// # Errors
/// What happened and what to do; its exit code is the process's.
// The body of an `async fn` is compiled in each crate that awaits it, with everything that it awaits in turn: this one's type is
// hidden, so that the binary has no second copy of the program.
pub fn run(cli: Cli) -> Pin<Box<dyn Future<Output = Result<Exit, Fault>>>> {
    Box::pin(execute(cli))
}

async fn execute(cli: Cli) -> Result<Exit, Fault> {
    let format = match cli.log_format {
        Lines::Text => LogFormat::Text,
        Lines::Json => LogFormat::Json,
    };
    let told = cli.log_level.is_some() || std::env::var_os("RUST_LOG").is_some_and(|value| !value.is_empty());
    let quiet = (!told && !cli.command.is_long_running()).then_some("warn");
    crate::telemetry::log_output::init(format, cli.log_level.as_deref().or(quiet))?;
    let context = &Context::new(cli.config, cli.json);
    let limit = if cli.command.is_brief() { context.patience() } else { None };
    let command = obey(context, cli.command);
    let Some(limit) = limit else { return command.await };
    tokio::time::timeout(limit, command).await.unwrap_or_else(|_| {
        Err(Fault::unavailable(
            format!("it took longer than {} s: a server does not answer, or something holds a lock", limit.as_secs()),
            "see what waits on the server:\nSELECT pid, wait_event_type, wait_event, pg_blocking_pids(pid), query FROM \
             pg_stat_activity WHERE application_name LIKE 'pg2planhat %';\n\
             PGCONNECT_TIMEOUT (10 s, where it is not set) says how patient a command is: eight times as long",
        ))
    })
}

async fn obey(context: &Context, command: Command) -> Result<Exit, Fault> {
    match command {
        Command::Demo(args) => demo::run(context.output, args).await,
        Command::Discover(args) => discover::run(context, args).await,
        Command::Check(args) => check::run(context, args).await,
        Command::Setup(args) => setup::run(context, args).await,
        Command::Preview(args) => preview::run(context, args).await,
        Command::Run(args) => run::run(context, args).await,
        Command::Status(args) => status::run(context, args).await,
        Command::Logs(args) => logs::run(context, args).await,
        Command::Pause(args) => pause::run(context, args).await,
        Command::Resume(args) => resume::run(context, args).await,
        Command::Resync(args) => resync::run(context, args).await,
        Command::Quarantine(args) => quarantine::run(context, args).await,
        Command::Plan(args) => plan::run(context, args).await,
        Command::Trace(args) => trace::run(context, args).await,
        Command::Audit(args) => audit::run(context, args).await,
        Command::Query(args) => query::run(context, args).await,
        Command::Repair(args) => repair::run(context, args).await,
        Command::Teardown(args) => teardown::run(context, args).await,
        Command::Ui(args) => ui::run(context, args).await,
        Command::Console(args) => console::run(context, args).await,
        Command::Sim(args) => sim::run(context, args).await,
        Command::Completions(args) => completions::run(context, args, Cli::command()).await,
        Command::Man(args) => man::run(context, args, Cli::command()).await,
        Command::Schema(args) => schema::run(context, args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
