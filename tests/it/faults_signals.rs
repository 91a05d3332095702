//! tests/FAULTS.md: signals that are no crash, and a stderr that nobody reads.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pg2planhat::testing::sim::SimFault;
use rustix::process::{Pid, Signal, kill_process};

use crate::delivery_scene::{PATIENCE, Scene};
use crate::harness::metrics::Metrics;
use crate::harness::port::Port;
use crate::harness::scratch::Scratch;
use crate::harness::{ConfigText, eventually, http};

/// The program with its standard error in the test's own hands.
struct Bare {
    child: Child,
    admin: Port,
    file: PathBuf,
    _scratch: Scratch,
}

impl Bare {
    fn run(config: &ConfigText, level: &str) -> Bare {
        let (scratch, admin) = (Scratch::new("bare"), Port::reserve());
        let file = scratch.path().join("pg2planhat.yaml");
        let listen = format!("127.0.0.1:{}", admin.number());
        fs::write(&file, config.clone().set("admin.listen", listen).render()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pg2planhat"));
        command.arg("--config").arg(&file).args(["--log-level", level, "run"]).env("HOME", scratch.path());
        let child = command.process_group(0).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Bare { child, admin, file, _scratch: scratch }
    }

    fn tell(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    async fn ready(&self) {
        let port = self.admin.number();
        let ready =
            || async { http::get(port, "/readyz").await.is_ok_and(|answer| answer.status == 200).then_some(()) };
        eventually(PATIENCE, "the program to be ready", ready).await;
    }

    async fn lost_lines(&self) -> f64 {
        let answer = http::get(self.admin.number(), "/metrics").await.unwrap();
        Metrics::parse(&answer.body).get("log_lines_lost_total", &[]).unwrap()
    }

    async fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn case_76_sigquit_drains_like_sigterm() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::Slow { millis: 1000 });
    scene.insert(1, 10).await;
    scene.sink(|stats| stats.metrics.under_way == 1 && stats.metrics.items == 10).await;
    kill_process(Pid::from_raw(app.id()).unwrap(), Signal::QUIT).unwrap();
    assert_eq!(app.wait_exit(PATIENCE).await, 0, "{}", app.log());
    assert_eq!(scene.outcomes().await, ["delivered"]);
}

#[tokio::test]
async fn case_76_sighup_says_what_of_the_file_takes_a_restart_and_ends_nothing() {
    let scene = Scene::new().await;
    let mut app = Bare::run(&scene.config, "info");
    let mut log = std::io::BufReader::new(app.child.stderr.take().unwrap());
    let (tell, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        use std::io::BufRead as _;
        let mut line = String::new();
        while log.read_line(&mut line).is_ok_and(|read| read > 0) {
            tell.send(std::mem::take(&mut line)).ok();
        }
    });
    let said = |wanted: &str| {
        let begun = Instant::now();
        let mut all = String::new();
        while begun.elapsed() < PATIENCE {
            if let Ok(line) = lines.recv_timeout(Duration::from_millis(100)) {
                all.push_str(&line);
                if line.contains(wanted) {
                    return;
                }
            }
        }
        panic!("{wanted:?} was not said:\n{all}");
    };
    app.ready().await;
    scene.sim.queue_fault(SimFault::Slow { millis: 500 });
    scene.insert(1, 10).await;
    app.tell(Signal::HUP);
    said("the file says what is running");
    let text = fs::read_to_string(&app.file).unwrap();
    fs::write(&app.file, format!("memory: 32MiB\n{text}")).unwrap();
    app.tell(Signal::HUP);
    said("memory differs");
    fs::write(&app.file, "nonsense: [").unwrap();
    app.tell(Signal::HUP);
    said("the file cannot be used");
    scene.insert(11, 20).await;
    scene.metrics(20).await;
    app.tell(Signal::TERM);
    assert_eq!(app.ended().await, Some(0));
    scene.assert_received(20, &[], &[]);
}

#[tokio::test]
async fn case_76_a_stderr_whose_reader_has_gone_ends_nothing() {
    let scene = Scene::new().await;
    let mut app = Bare::run(&scene.config, "debug");
    drop(app.child.stderr.take());
    app.ready().await;
    scene.insert(1, 50).await;
    scene.metrics(50).await;
    assert!(app.lost_lines().await > 0.0);
    app.tell(Signal::TERM);
    assert_eq!(app.ended().await, Some(0));
    scene.assert_received(50, &[], &[]);
}

#[tokio::test]
async fn case_88_a_stderr_that_nobody_reads_stops_nothing() {
    let scene = Scene::new().await;
    // Far more than a pipe and the buffer before it hold.
    let mut app = Bare::run(&scene.config, "trace");
    app.ready().await;
    let mut rows = 0;
    let stderr = app.child.stderr.take().unwrap();
    // A pipe holds 64 KiB, and a write that does not fit waits.
    while rustix::io::ioctl_fionread(&stderr).unwrap() < 60 << 10 {
        scene.insert(rows + 1, rows + 50).await;
        rows += 50;
        assert!(rows < 20_000, "too little was logged");
        scene.metrics(rows).await;
    }
    scene.insert(rows + 1, rows + 50).await;
    scene.metrics(rows + 50).await;
    app.tell(Signal::TERM);
    assert_eq!(app.ended().await, Some(0));
    scene.assert_received(rows + 50, &[], &[]);
}
