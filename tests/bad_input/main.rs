//! Bad input of four kinds, some seven hundred cases: configurations, command lines and environments, a server's bytes, a
//! sink's answers. Whatever comes: no panic, no exit of 70, no hang, bounded memory, and no control character printed.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::too_many_lines,
    reason = "in a test a panic is the verdict, and stderr its report"
)]

mod command_lines;
mod configurations;
mod server_bytes;
mod sink_answers;

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a case may take: of the processor, and in all, where it has the processor to itself.
const LIMIT: Duration = Duration::from_secs(10);
/// How much longer than its time of the processor a case may take on a machine that others use, too.
const SHARED: u32 = 20;
/// What it may hold, in KiB.
const MEMORY: u64 = 100 << 10;
/// Cases at a time: most of them wait.
const AT_A_TIME: usize = 6;

/// One case.
pub(crate) struct Case {
    pub(crate) name: String,
    /// The file's bytes; `None` where the arguments name another, or none is needed.
    pub(crate) file: Option<Vec<u8>>,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, file: impl Into<Vec<u8>>, arguments: &[&str]) -> Case {
        let arguments = arguments.iter().map(OsString::from).collect();
        Case { name: name.into(), file: Some(file.into()), arguments, environment: Vec::new() }
    }

    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Case {
        self.environment.push((name.into(), value.into()));
        self
    }
}

/// A configuration that is right, with a source at this port and a sink at that one; where nobody listens, 1.
pub(crate) fn right(source: u16, sink: u16) -> String {
    format!(
        "source:\n  host: 127.0.0.1\n  port: {source}\n  database: app\n  user: u\n  password: secret\n  tls: disable\n  \
         reader: {{ user: r, password: other }}\nplanhat:\n  tenant: 11111111-2222-4333-8444-555555555555\n  url: \
         http://127.0.0.1:{sink}\n  timeout: 1s\nsections:\n  - name: seats\n    kind: custom_metric\n    table: usage\n    \
         key: id\n    fields:\n      dimensionId: {{ value: seats }}\n      value: seats\n      externalId: account\n      \
         date: day\n"
    )
}

/// Runs all, several at a time, and fails with every case that went wrong.
pub(crate) fn judge(cases: &[Case]) {
    let (next, wrong, worst) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new((0, Duration::ZERO)));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (problems, memory, took) = run(case);
                    let mut worst = worst.lock().unwrap();
                    *worst = (worst.0.max(memory), worst.1.max(took));
                    drop(worst);
                    if !problems.is_empty() {
                        wrong.lock().unwrap().push(format!("{}: {}", case.name, problems.join("; ")));
                    }
                }
            });
        }
    });
    let (wrong, (memory, took)) = (wrong.into_inner().unwrap(), worst.into_inner().unwrap());
    eprintln!(
        "{} cases, {} wrong; at most {} MiB and {:.1} s",
        cases.len(),
        wrong.len(),
        memory >> 10,
        took.as_secs_f64()
    );
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn run(case: &Case) -> (Vec<String>, u64, Duration) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pg2planhat.yaml");
    if let Some(bytes) = &case.file {
        std::fs::write(&file, bytes).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg2planhat"));
    command.args(&case.arguments).current_dir(directory.path()).env_clear().env("HOME", directory.path());
    command.env("PGCONNECT_TIMEOUT", "1").envs(case.environment.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return (vec![format!("not started: {error}")], 0, Duration::ZERO),
    };
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = |pipe: &mut dyn Read| {
        let mut bytes = Vec::new();
        pipe.take(64 << 20).read_to_end(&mut bytes).ok();
        bytes
    };
    let (out, err) = (std::thread::spawn(move || reader(&mut stdout)), std::thread::spawn(move || reader(&mut stderr)));
    let (begun, mut memory) = (Instant::now(), 0);
    let status = loop {
        memory = memory.max(peak(child.id()));
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        let used = cpu(child.id());
        if used > LIMIT || begun.elapsed() > LIMIT + used * SHARED {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(if begun.elapsed().as_millis() < 200 { 2 } else { 20 }));
    };
    let took = begun.elapsed();
    let (out, err) = (out.join().unwrap(), err.join().unwrap());
    let mut problems = Vec::new();
    match status {
        None => problems.push("it hangs".to_owned()),
        Some(status) => match (status.code(), status.signal()) {
            (Some(0 | 1 | 64 | 69 | 75), _) => {}
            (code, signal) => problems.push(format!("it ended with {code:?}, signal {signal:?}")),
        },
    }
    if memory > MEMORY {
        problems.push(format!("{memory} KiB"));
    }
    for (stream, bytes) in [("stdout", &out), ("stderr", &err)] {
        let text = String::from_utf8_lossy(bytes);
        let control =
            |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if let Some(at) = text.find(control) {
            let around: String = text[at..].chars().take(20).collect();
            problems.push(format!("{stream} has a control character: {around:?}"));
        }
        if text.contains("panicked") || text.contains("internal error") {
            problems.push(format!("a panic: {}", text.chars().take(300).collect::<String>()));
        }
        if text.lines().any(|line| line.starts_with("error: forged") || line.trim_start().starts_with("remedy: forged"))
        {
            problems.push(format!("{stream} has a forged line"));
        }
    }
    if !problems.is_empty() {
        problems.push(String::from_utf8_lossy(&err).chars().take(300).collect());
    }
    (problems, memory, took)
}

/// The time that it has used of the processor; 0 once it has ended.
fn cpu(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: the 12th and the 13th are ticks, of which a second has 100.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// VmHWM in KiB; 0 once it has ended.
fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}
