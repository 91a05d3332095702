//! The program itself, as a child process: started, watched, stopped and killed like in production.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::sync::watch;

use super::http::{self, Answer};
use super::metrics::Metrics;
use super::port::Port;
use super::scratch::Scratch;
use super::{ConfigText, eventually};

/// How long the waiting functions wait, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    config: ConfigText,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    beside: Option<u16>,
    program: PathBuf,
    without_file: bool,
}

impl Launch {
    /// Arguments after `--config FILE`; `run` is replaced by the first call.
    pub fn arguments(mut self, arguments: &[&str]) -> Launch {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Launch {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another build of the program, to be measured beside this one.
    #[allow(dead_code, reason = "the measurements use it, the tests do not")]
    pub fn program(mut self, program: &Path) -> Launch {
        self.program = program.to_owned();
        self
    }

    /// Without its file: the folder is empty.
    #[allow(dead_code, reason = "the console's tests use it, the others do not")]
    pub fn without_file(mut self) -> Launch {
        self.without_file = true;
        self
    }

    /// With the admin port of this running program in its configuration: as a command is run beside its instance.
    pub fn beside(mut self, running: &App) -> Launch {
        self.beside = Some(running.admin_port());
        self
    }

    /// Starts it.
    pub fn start(self) -> App {
        let (scratch, admin) = (Scratch::new("app"), Port::reserve());
        let listen = self.beside.unwrap_or(admin.number());
        let config = self.config.set("admin.listen", format!("127.0.0.1:{listen}")).render();
        let file = scratch.path().join("pg2planhat.yaml");
        if !self.without_file {
            fs::write(&file, &config).unwrap();
        }
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        // The working directory makes it an inhabitant of its scratch: it ends with it, whatever happens to us.
        command.current_dir(scratch.path()).process_group(0).env("HOME", scratch.path());
        command.envs(self.environment).arg("--config").arg(&file).args(self.arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let process = Pid::from_child(&child);
        let file = |name| fs::File::create(scratch.path().join(name)).unwrap();
        let stdout = Captured::read(stdout, file("stdout"));
        let stderr = Captured::read(stderr, file("stderr"));
        App { process, child: Mutex::new(child), stdout, stderr, admin, _scratch: scratch }
    }

    /// Starts it and waits for its end.
    pub async fn output(self) -> Output {
        let app = self.start();
        let code = app.wait_exit(Duration::from_secs(60)).await;
        let all_read = || async { (app.stdout.ended() && app.stderr.ended()).then_some(()) };
        eventually(PATIENCE, "the end of the program's output", all_read).await;
        Output { code, stdout: app.stdout.text(), stderr: app.stderr.text() }
    }
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code; 128 + the signal where one ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
}

impl Output {
    /// Its standard output as one JSON document.
    pub fn json(&self) -> serde_json::Value {
        let read = serde_json::from_str(&self.stdout);
        read.unwrap_or_else(|error| panic!("{error}, exit code {}\n{}\n{}", self.code, self.stdout, self.stderr))
    }
}

/// A running process; its group is killed when dropped.
pub struct App {
    process: Pid,
    child: Mutex<Child>,
    stdout: Arc<Captured>,
    stderr: Arc<Captured>,
    admin: Port,
    _scratch: Scratch,
}

impl App {
    /// `run`, with this configuration.
    pub fn run(config: &ConfigText) -> App {
        App::launch(config).start()
    }

    /// `run`, with more to say before it starts.
    pub fn launch(config: &ConfigText) -> Launch {
        // Another build of it, to see that a test fails there.
        let other = std::env::var_os("PG2PLANHAT_TEST_PROGRAM").map(PathBuf::from);
        let program = other.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_pg2planhat")));
        let arguments = vec!["run".to_owned()];
        Launch {
            config: config.clone(),
            arguments,
            environment: Vec::new(),
            beside: None,
            program,
            without_file: false,
        }
    }

    /// Another command, to its end: `App::command(&config, &["--json", "check"])`.
    pub async fn command(config: &ConfigText, arguments: &[&str]) -> Output {
        App::launch(config).arguments(arguments).output().await
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        self.process.as_raw_nonzero().get()
    }

    /// Its admin port.
    pub fn admin_port(&self) -> u16 {
        self.admin.number()
    }

    /// Where its configuration is.
    pub fn config_path(&self) -> std::path::PathBuf {
        self._scratch.path().join("pg2planhat.yaml")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// What it has printed so far.
    pub fn out(&self) -> String {
        self.stdout.text()
    }

    /// Waits until its log holds `text`; panics if it ends before.
    pub async fn wait_log(&self, text: &str) {
        self.stderr.wait(text, PATIENCE).await;
    }

    /// Waits until it has printed `text`; panics if it ends before.
    pub async fn wait_out(&self, text: &str) {
        self.stdout.wait(text, PATIENCE).await;
    }

    /// Waits for its end, and until its log has been read; the exit code, or 128 + the signal that ended it.
    pub async fn wait_exit(&self, limit: Duration) -> i32 {
        let ended = || async { self.child.lock().unwrap().try_wait().unwrap() };
        let status = eventually(limit, "the program to end", ended).await;
        let read = || async { self.stderr.ended().then_some(()) };
        eventually(PATIENCE, "the end of the program's log", read).await;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap()
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill9(&self) {
        self.tell(Signal::KILL);
        self.wait_exit(PATIENCE).await;
    }

    /// SIGTERM; does not wait.
    pub fn sigterm(&self) {
        self.tell(Signal::TERM);
    }

    /// Writes this file in place of its own, and SIGHUP.
    pub fn reload(&self, config: &ConfigText) {
        let listen = format!("127.0.0.1:{}", self.admin.number());
        fs::write(self.config_path(), config.clone().set("admin.listen", listen).render()).unwrap();
        self.tell(Signal::HUP);
    }

    /// SIGSTOP: frozen until [`App::sigcont`].
    pub fn sigstop(&self) {
        self.tell(Signal::STOP);
    }

    /// SIGCONT.
    pub fn sigcont(&self) {
        self.tell(Signal::CONT);
    }

    fn tell(&self, signal: Signal) {
        assert!(self.is_running(), "the program has ended:\n{}", self.log());
        kill_process(self.process, signal).unwrap();
    }

    /// What the admin port answers to `GET path`.
    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        http::get(self.admin_port(), path).await
    }

    /// `/status`; panics if nobody answers.
    pub async fn status(&self) -> serde_json::Value {
        let answer = self.get("/status").await.unwrap_or_else(|error| panic!("/status: {error}\n{}", self.log()));
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("/status: {error}\n{}", answer.body))
    }

    /// `/metrics`; panics if nobody answers.
    pub async fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics").await.unwrap_or_else(|error| panic!("/metrics: {error}\n{}", self.log()));
        Metrics::parse(&answer.body)
    }

    /// One metric now: the sum over the samples that have these labels; `None` where there is none, or nobody answers yet.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        assert!(self.is_running(), "the program has ended:\n{}", self.log());
        Metrics::parse(&self.get("/metrics").await.ok()?.body).get(name, labels)
    }

    /// Waits until `/status` shows what is wished, and brings what `look` found there.
    pub async fn wait_status<T>(&self, what: &str, look: impl Fn(&serde_json::Value) -> Option<T>) -> T {
        let shown = || async {
            assert!(self.is_running(), "the program has ended while waiting for {what}:\n{}", self.log());
            let answer = self.get("/status").await.ok()?;
            look(&serde_json::from_str(&answer.body).ok()?)
        };
        eventually(PATIENCE, what, shown).await
    }

    /// Waits until `/readyz` answers 200.
    pub async fn wait_ready(&self) {
        let ready = || async {
            assert!(self.is_running(), "the program has ended before it was ready:\n{}", self.log());
            self.get("/readyz").await.is_ok_and(|answer| answer.status == 200).then_some(())
        };
        eventually(PATIENCE, "the program to be ready", ready).await;
    }

    /// The most memory that it has ever held, in bytes (VmHWM). Panics when it has ended.
    pub fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM of a running process");
        peak.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(40).collect::<Vec<_>>();
            eprintln!("the end of the log of process {}:", self.process);
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        // Not yet waited for, so the id is still its own; ended already is fine.
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if matches!(child.try_wait(), Ok(None)) {
            kill_process_group(self.process, Signal::KILL).ok();
            drop(child.wait());
        }
    }
}

/// What a pipe has brought.
struct Captured {
    so_far: watch::Sender<(String, bool)>,
}

impl Captured {
    /// Reads `pipe` to its end, on a thread: the program never waits for us. A copy goes to `file`, for whoever must tell of a
    /// test that hangs.
    fn read(mut pipe: impl Read + Send + 'static, mut file: impl Write + Send + 'static) -> Arc<Captured> {
        let captured = Arc::new(Captured { so_far: watch::Sender::default() });
        let theirs = captured.clone();
        std::thread::spawn(move || {
            let (mut buffer, mut open) = ([0; 8192], true);
            while open {
                let read = pipe.read(&mut buffer).unwrap_or(0);
                open = read > 0;
                // A copy: without it the test is none the worse.
                drop(file.write_all(&buffer[..read]));
                theirs.so_far.send_modify(|(text, ended)| {
                    text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                    *ended = !open;
                });
            }
        });
        captured
    }

    fn text(&self) -> String {
        self.so_far.borrow().0.clone()
    }

    fn ended(&self) -> bool {
        self.so_far.borrow().1
    }

    async fn wait(&self, wanted: &str, limit: Duration) {
        let mut so_far = self.so_far.subscribe();
        // The borrow that `wait_for` gives ends here: a second one beside it would wait for a writer that waits for the first.
        let found = tokio::time::timeout(limit, so_far.wait_for(|(text, ended)| text.contains(wanted) || *ended)).await;
        let found = found.is_ok_and(|seen| seen.is_ok_and(|seen| seen.0.contains(wanted)));
        assert!(found, "{wanted:?} did not come in the log:\n{}", self.text());
    }
}

/// A waiter that looks twice in one expression hangs here within a few rounds: a writer comes between its two looks.
#[tokio::test]
async fn case_105_a_waiter_and_a_busy_writer_do_not_block_each_other() {
    for round in 0..300 {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let captured = Captured::read(reader, std::io::sink());
        let write = std::thread::spawn(move || (0..200).for_each(|n| writeln!(writer, "line {n} of {round}").unwrap()));
        captured.wait("line 3 of", PATIENCE).await;
        captured.wait(&format!("line 199 of {round}"), PATIENCE).await;
        write.join().unwrap();
    }
}
