//! What `demo` starts and owns while it runs.
//!
//! * In: the command line's arguments.
//! * Out: [`Environment`], whose drop ends every process and removes the directory.
//! * Never: a process that outlives it.

use crate::config::Source;
use crate::demo::cluster::Cluster;
use crate::demo::streamer::Streamer;
use crate::demo::workdir::Workdir;
use crate::postgres::connection::session::Session;
use crate::sim::SimHandle;
/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End after so many seconds, and compare keys; otherwise Ctrl-C does
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seconds: Option<u64>,
    /// Rows that are there before it starts
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 200_000)]
    pub rows: u64,
    /// Leave the directory with the logs, the configuration and the data behind
    #[arg(long)]
    pub keep: bool,
}

/// Everything that runs. The place is the last to go, and takes the processes with it.
pub(crate) struct Environment {
    pub(crate) server: String,
    pub(crate) sink: SimHandle,
    pub(crate) source: Source,
    pub(crate) session: Session,
    pub(crate) streamer: Streamer,
    pub(crate) _cluster: Cluster,
    pub(crate) place: Workdir,
}
