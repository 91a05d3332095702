//! The streamer: this very program, as a child, with a configuration of its own.
//!
//! * In: a configuration.
//! * Out: its status document while it runs; its exit code; what an audit finds.
//! * Never: an end that goes unnoticed; a wait for an answer that does not come.

use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::admin::admin_request;
use crate::demo::workdir::Workdir;
use crate::model::{Exit, Fault};
use crate::telemetry::status_document::Status;

const LOG: &str = "streamer.log";
/// The longest wait for the drain: more than the child's `shutdown_grace`.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);
const ASK_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Streamer {
    child: Child,
    admin: u16,
    config: PathBuf,
}

impl Streamer {
    /// Starts `run` with the configuration at `config`, whose admin port is `admin`.
    pub(crate) fn start(place: &mut Workdir, config: &Path, admin: u16) -> Result<Streamer, Fault> {
        let unusable = |error: std::io::Error| {
            Fault::unavailable(
                format!("this program cannot be started again: {error}"),
                "leave it where it is while it runs",
            )
        };
        let mut command = program(config, place.path()).map_err(unusable)?;
        command.arg("run").process_group(0);
        let log = place.log_file(LOG)?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(unusable)?).stderr(log);
        let child = command.spawn().map_err(unusable)?;
        if let Some(id) = child.id() {
            place.started(id)?;
        }
        Ok(Streamer { child, admin, config: config.to_owned() })
    }

    /// Its status; `None` while nobody answers.
    pub(crate) async fn status(&self) -> Option<Status> {
        let address = (Ipv4Addr::LOCALHOST, self.admin).into();
        let page = tokio::time::timeout(ASK_LIMIT, admin_request::get(address, "/status")).await.ok()??;
        serde_json::from_slice(&page).ok()
    }

    /// What `pg2planhat audit --all` finds, section by section.
    ///
    /// # Errors
    /// Where the command brings no reports.
    pub(crate) async fn audit(&self, place: &Workdir) -> Result<Vec<AuditFound>, Fault> {
        let failed = |why: &str| Fault::new(Exit::Bug, format!("no audit: {why}"), "report it; --keep leaves the logs");
        let mut command = program(&self.config, place.path()).map_err(|error| failed(&error.to_string()))?;
        command.args(["--json", "audit", "--all"]).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| failed(&error.to_string()))?;
        serde_json::from_slice(&output.stdout).map_err(|_| failed(&String::from_utf8_lossy(&output.stderr)))
    }

    /// Resolves when the child ends by itself, which is a failure.
    pub(crate) async fn ended(&mut self, place: &Workdir) -> Fault {
        let how = match self.child.wait().await {
            Ok(status) => shown(status),
            Err(error) => error.to_string(),
        };
        fell(&how, place)
    }

    /// SIGTERM, and the end that follows.
    ///
    /// # Errors
    /// Where the program does not drain in time, or does not end with exit code 0.
    pub(crate) async fn drain(&mut self, place: &Workdir) -> Result<(), Fault> {
        let process = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(process) = process {
            // It has not been waited for, so the id is its own; ended already is told by its code below.
            kill_process(process, Signal::TERM).ok();
        }
        let ended = tokio::time::timeout(DRAIN_LIMIT, self.child.wait()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(fell(&shown(status), place)),
            Ok(Err(error)) => Err(fell(&error.to_string(), place)),
            Err(_) => Err(fell(&format!("not within {} s of SIGTERM", DRAIN_LIMIT.as_secs()), place)),
        }
    }
}

/// What an audit found of one section: a part of its JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(crate) struct AuditFound {
    pub section: String,
    pub rows_source: u64,
    pub rows_settled: u64,
    pub missing: u64,
    pub doubled: u64,
    pub gone: u64,
    pub missing_keys: Vec<String>,
    pub took_ms: u64,
}

impl AuditFound {
    /// Whether each row of the source is settled, and once.
    pub(crate) fn is_whole(&self) -> bool {
        self.rows_settled == self.rows_source && (self.missing, self.doubled, self.gone) == (0, 0, 0)
    }
}

/// This program with a configuration, in the demonstration's own directory.
fn program(config: &Path, directory: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    for (name, _) in std::env::vars_os() {
        // libpq's environment variables are meant for another database.
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.arg("--config").arg(config).current_dir(directory);
    Ok(command)
}

/// The link to the console, which the streamer writes at its start; none where it does not come soon.
pub(crate) async fn console_link(place: &Workdir) -> Option<String> {
    for _ in 0..50 {
        let log = place.log_tail(LOG);
        let link = log.split_whitespace().find(|word| word.starts_with("http://") && word.contains("/login#k="));
        if let Some(link) = link {
            return Some(link.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

fn fell(how: &str, place: &Workdir) -> Fault {
    Fault::new(
        Exit::Bug,
        format!("the streamer did not end as it should: {how}. Its log ends:\n{}", place.log_tail(LOG)),
        "if the log does not say what to mend, report it; --keep leaves the whole log behind",
    )
}

fn shown(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
