//! `demo`, as a person runs it: the proof at the end, and nothing that stays behind, however it ends.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::harness::scratch::{Scratch, inhabitants};
use super::harness::{Version, eventually, servers};

/// A running demo.
struct Demo {
    child: Child,
    /// Its working directory, with what it said.
    own: Scratch,
    /// The temporary directory that it is given: all its own.
    temporary: Scratch,
}

impl Demo {
    /// Starts it; `None` where there is no server to run.
    fn start(arguments: &[&str]) -> Option<Demo> {
        let version = Version::usual();
        let found = servers::find(version).inspect_err(|reason| servers::skip(version, reason)).ok()?;
        let (own, temporary) = (Scratch::new("own"), Scratch::new("demo"));
        let path = format!("{}:{}", found.directory.display(), std::env::var("PATH").unwrap_or_default());
        let file = |name: &str| fs::File::create(own.path().join(name)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pg2planhat"));
        let rows = if arguments.contains(&"--rows") { &[][..] } else { &["--rows", "5000"][..] };
        command.args(["--json", "demo"]).args(rows).args(arguments).current_dir(own.path()).process_group(0);
        command.env("TMPDIR", temporary.path()).env("PATH", path).env_remove("RUST_LOG");
        let child = command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).spawn().unwrap();
        Some(Demo { child, own, temporary })
    }

    fn said(&self, name: &str) -> String {
        fs::read_to_string(self.own.path().join(name)).unwrap()
    }

    async fn wait_said(&self, wanted: &str) {
        let said = async || self.said("err").contains(wanted).then_some(());
        eventually(Duration::from_secs(60), &format!("{wanted:?} on the demo's stderr"), said).await;
    }

    fn tell(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit code, or 128 + the signal that ended it.
    async fn exit(&mut self) -> i32 {
        let ended = || std::future::ready(self.child.try_wait().unwrap());
        let status = eventually(Duration::from_secs(90), "the demo to end", ended).await;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap()
    }

    fn remains(&self) -> usize {
        fs::read_dir(self.temporary.path()).unwrap().count() + inhabitants(self.temporary.path()).len()
    }

    /// Waits until neither a process nor a file is left.
    async fn nothing_remains(&self) {
        let empty = async || (self.remains() == 0).then_some(());
        eventually(Duration::from_secs(20), "the demo to leave nothing behind", empty).await;
    }

    /// Every row came exactly once, by the demo's own document.
    fn holds(&self) {
        let report: serde_json::Value = serde_json::from_str(&self.said("out")).unwrap();
        assert_eq!(report["kept"], true, "{report:#}");
        for none in ["missing", "doubled", "never_committed", "quarantined"] {
            assert_eq!(report[none], 0, "{none}: {report:#}");
        }
        let rows = &report["rows"];
        let written = rows["written"].as_u64().unwrap();
        assert!(written > 0, "{report:#}");
        assert_eq!(rows["delivered"], 5000 + written, "{report:#}");
        assert_eq!(report["slot"]["at_end"], true, "{report:#}");
    }
}

#[tokio::test]
async fn the_proof_holds_and_nothing_remains() {
    let Some(mut demo) = Demo::start(&["--seconds", "3"]) else { return };
    assert_eq!(demo.exit().await, 0, "{}", demo.said("err"));
    // The demo has waited for its own end: there is nothing to wait for here.
    assert_eq!(demo.remains(), 0);
    demo.holds();
}

#[tokio::test]
async fn an_interrupt_brings_the_proof_forward() {
    let Some(mut demo) = Demo::start(&[]) else { return };
    demo.wait_said("written").await;
    demo.tell(Signal::INT);
    assert_eq!(demo.exit().await, 0, "{}", demo.said("err"));
    assert_eq!(demo.remains(), 0);
    demo.holds();
}

#[tokio::test]
async fn a_second_interrupt_ends_at_once_and_leaves_nothing() {
    // So many rows that their delivery outlasts both.
    let Some(mut demo) = Demo::start(&["--rows", "100000"]) else { return };
    demo.wait_said("written").await;
    demo.tell(Signal::INT);
    demo.wait_said("Stopping").await;
    demo.tell(Signal::INT);
    assert_eq!(demo.exit().await, 130, "{}", demo.said("err"));
    demo.nothing_remains().await;
}

#[tokio::test]
async fn a_killed_demo_leaves_nothing() {
    let Some(mut demo) = Demo::start(&[]) else { return };
    demo.wait_said("written").await;
    demo.tell(Signal::KILL);
    assert_eq!(demo.exit().await, 128 + 9);
    demo.nothing_remains().await;
}
