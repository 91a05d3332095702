//! A PostgreSQL server by the system's package manager, where there is none.
//!
//! * In: which package manager is here, and whether we may use it.
//! * Out: commands, said and run.
//! * Never: a cluster of the system's own, made or started by the package; a question for a password.

use std::process::Stdio;

use crate::demo::progress::ProgressPrinter;
use crate::demo::server_binaries;
use crate::demo::server_binaries::ServerBinaries;
use crate::model::Fault;

/// A way to install it.
struct Manager {
    /// The program that tells that it is here.
    program: &'static str,
    /// Whether root must run it; Homebrew refuses root.
    as_root: bool,
    /// Commands, by `sh`.
    steps: &'static [&'static str],
}

/// Debian's package makes a cluster and starts it, unless its settings say otherwise; settings that are there count.
const NO_CLUSTER: &str = "test -e /etc/postgresql-common/createcluster.conf || { mkdir -p /etc/postgresql-common && \
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf; }";

const MANAGERS: &[Manager] = &[
    Manager {
        program: "apt-get",
        as_root: true,
        steps: &[
            NO_CLUSTER,
            "apt-get update -q",
            "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql",
        ],
    },
    Manager { program: "dnf", as_root: true, steps: &["dnf install -y -q postgresql-server"] },
    Manager { program: "apk", as_root: true, steps: &["apk add --no-cache postgresql"] },
    Manager { program: "zypper", as_root: true, steps: &["zypper --non-interactive install postgresql-server"] },
    Manager { program: "brew", as_root: false, steps: &["brew install postgresql@17"] },
];

/// How commands get the rights that they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    Enough,
    Sudo,
    Missing,
}

/// The server that is here, or is here after an installation.
pub(crate) async fn find_or_install(voice: ProgressPrinter) -> Result<ServerBinaries, Fault> {
    if let Some(found) = server_binaries::find() {
        return Ok(found);
    }
    let is_root = rustix::process::geteuid().is_root();
    let Some(manager) = MANAGERS.iter().find(|manager| on_path(manager.program)) else {
        return Err(Fault::unavailable(
            "there is no PostgreSQL server (14 or newer) here, and no package manager that the demo knows",
            "install PostgreSQL's server, and put the directory of initdb and postgres on the PATH",
        ));
    };
    let rights = match (manager.as_root, is_root) {
        (true, true) | (false, false) => Rights::Enough,
        (true, false) if on_path("sudo") && succeeds("sudo -n true").await => Rights::Sudo,
        (true | false, _) => Rights::Missing,
    };
    let by_hand = || format!("as {}:\n{}", if manager.as_root { "root" } else { "yourself" }, manager.steps.join("\n"));
    if rights == Rights::Missing {
        return Err(Fault::unavailable("there is no PostgreSQL server (14 or newer) here", by_hand()));
    }
    voice.say("There is no PostgreSQL server here: installing one.");
    for command in commands(manager, rights) {
        voice.say(&format!("  {}", command.join(" ")));
        if !run(&command).await {
            return Err(Fault::unavailable(format!("this failed: {}", command.join(" ")), by_hand()));
        }
    }
    server_binaries::find().ok_or_else(|| {
        Fault::unavailable(
            format!("{} installed no PostgreSQL server of version 14 or newer that is found", manager.program),
            "install one, and put the directory of initdb and postgres on the PATH",
        )
    })
}

fn commands(manager: &Manager, rights: Rights) -> Vec<Vec<&'static str>> {
    let prefix: &[&str] = if rights == Rights::Sudo { &["sudo", "-n"] } else { &[] };
    manager.steps.iter().map(|step| [prefix, &["sh", "-c", *step]].concat()).collect()
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

async fn succeeds(command: &str) -> bool {
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().await.is_ok_and(|status| status.success())
}

/// Its output goes to stderr: stdout is for the document of `--json`.
async fn run(command: &[&str]) -> bool {
    let mut child = tokio::process::Command::new(command[0]);
    child.args(&command[1..]).stdin(Stdio::null()).stdout(std::io::stderr()).kill_on_drop(true);
    child.status().await.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_stands_before_every_step_and_never_asks() {
        let steps = commands(&MANAGERS[0], Rights::Sudo);
        assert_eq!(steps.len(), 3);
        assert!(steps.iter().all(|step| step.starts_with(&["sudo", "-n", "sh", "-c"])), "{steps:?}");
        assert_eq!(commands(&MANAGERS[2], Rights::Enough), [["sh", "-c", "apk add --no-cache postgresql"]]);
    }

    #[test]
    fn the_package_is_told_to_make_no_cluster_before_it_comes() {
        let steps = MANAGERS[0].steps;
        assert!(steps[0].contains("create_main_cluster = false") && steps[2].ends_with("postgresql"));
    }
}
