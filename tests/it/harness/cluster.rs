//! A throwaway PostgreSQL server.
//!
//! `initdb` runs once per build of the server, into a template that all test processes share; a cluster is a copy of it.
//! So clusters share a system identifier, unless one asks for its own ([`Builder::own_identity`]).
//! The server is a direct child in a process group of its own; signals tell it to stop, as `pg_ctl` would.
//!
//! Everything that waits for the server is async and does not block the test's runtime: a sink or a client living there
//! goes on meanwhile.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::bound::bound_this_test;
use super::data_directory::{copy, copy_running, initdb, template};
use super::eventually;
use super::port::Port;
use super::scratch::{Scratch, end_inhabitants, inhabitants, server_user, signal_all};
use super::servers::{self, Binaries, Version};

/// What every cluster has, unless its builder says otherwise. `fsync=off` loses nothing short of a power cut: a killed
/// server recovers from what the kernel has. Shared memory as files in the data directory: a container's `/dev/shm` is small.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("wal_level", "logical"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("max_prepared_transactions", "10"),
    ("max_connections", "50"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("timezone", "UTC"),
    ("dynamic_shared_memory_type", "mmap"),
    ("jit", "off"),
    ("log_line_prefix", "%m [%p] %q%a "),
    ("log_replication_commands", "on"),
];

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// When the last client has gone.
    Smart,
    /// Clients are sent away, walsenders finish first, then a checkpoint.
    Fast,
    /// At once; recovery follows at the next start.
    Immediate,
}

/// What a cluster is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    version: Version,
    settings: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    own_identity: bool,
}

impl Builder {
    /// This version instead of the usual one.
    pub fn version(mut self, version: Version) -> Builder {
        self.version = version;
        self
    }

    /// A line of `postgresql.conf`; the last one of a name counts.
    pub fn setting(mut self, name: &str, value: &str) -> Builder {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file in the data directory: a certificate, a `pg_hba.conf` (see [`Builder::hba`]).
    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Builder {
        self.files.push((name.to_owned(), content.into()));
        self
    }

    /// Who may connect by TCP, and how: the lines of `pg_hba.conf`. The harness itself comes by the socket, as always.
    pub fn hba(self, lines: &str) -> Builder {
        self.file("pg_hba.conf", format!("local all postgres trust\n{lines}\n"))
    }

    /// A system identifier of its own: `initdb` (a second or two) instead of a copy.
    pub fn own_identity(mut self) -> Builder {
        self.own_identity = true;
        self
    }

    /// Starts it. Panics where there is no such server: for a test that any version serves.
    pub async fn start(self) -> Cluster {
        let version = self.version;
        let found = self.try_start().await;
        found.unwrap_or_else(|reason| panic!("{version} cannot be had: {reason}\ninstall a PostgreSQL server, or npm"))
    }

    /// Starts it, or says loudly that the test is skipped because this version cannot be had.
    pub async fn start_or_skip(self) -> Option<Cluster> {
        let version = self.version;
        self.try_start().await.inspect_err(|reason| servers::skip(version, reason)).ok()
    }

    /// The error is only ever that there are no binaries; whatever else fails is a panic.
    async fn try_start(self) -> Result<Cluster, String> {
        bound_this_test();
        let cluster = tokio::task::spawn_blocking(move || {
            let binaries = servers::find(self.version)?;
            let cluster = Cluster::laid_out(self.version, binaries, |binaries, data| match self.own_identity {
                true => initdb(binaries, data),
                false => copy(&template(binaries), data),
            });
            cluster.configure(SETTINGS.iter().copied());
            cluster.configure(self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            for (name, content) in &self.files {
                cluster.write(name, content);
            }
            Ok::<_, String>(cluster)
        });
        let cluster = cluster.await.unwrap()?;
        cluster.start_again().await;
        Ok(cluster)
    }
}

/// A running server with a directory of its own; gone when dropped.
#[derive(Debug)]
pub struct Cluster {
    version: Version,
    binaries: Binaries,
    port: Port,
    server: Mutex<Option<Child>>,
    scratch: Scratch,
}

impl Cluster {
    /// What it is to be.
    pub fn builder() -> Builder {
        Builder { version: Version::usual(), settings: Vec::new(), files: Vec::new(), own_identity: false }
    }

    /// One as it comes.
    pub async fn start() -> Cluster {
        Cluster::builder().start().await
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where a program of its distribution is; npm's binaries come without the clients.
    #[allow(dead_code, reason = "the measurements use it, the tests do not")]
    pub fn program(&self, name: &str) -> PathBuf {
        self.binaries.directory.join(name)
    }

    /// The directory of its Unix socket.
    pub fn socket_directory(&self) -> &Path {
        self.scratch.path()
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.scratch.path().join(format!(".s.PGSQL.{}", self.port()))
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// A connection URL for the superuser, by TCP.
    pub fn dsn(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port())
    }

    /// What the server has logged so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// Waits until the server's log holds `text`.
    pub async fn wait_log(&self, text: &str) {
        let seen = || async { self.log().contains(text).then_some(()) };
        eventually(Duration::from_secs(30), &format!("{text:?} in the server's log"), seen).await;
    }

    /// Stops it and waits for its end; how long that took.
    pub async fn stop(&self, how: Stop) -> Duration {
        let signal = match how {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        self.tell(signal);
        self.stopped(Duration::from_secs(60)).await
    }

    /// Sends the server (its postmaster) a signal and does not wait.
    pub fn tell(&self, signal: Signal) {
        let process = self.postmaster().expect("the server is not running");
        kill_process(process, signal).unwrap();
    }

    /// Waits until the server has ended; how long that took.
    pub async fn stopped(&self, limit: Duration) -> Duration {
        let begun = Instant::now();
        let ended = || async { (!self.is_running()).then_some(()) };
        eventually(limit, "the server to stop", ended).await;
        begun.elapsed()
    }

    /// Whether the postmaster is there.
    pub fn is_running(&self) -> bool {
        let mut server = self.server.lock().unwrap();
        let ended = server.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
        if ended {
            *server = None;
        }
        !ended
    }

    /// SIGKILL to every process of the server at once: as if the machine had died.
    pub async fn crash(&self) {
        self.freeze();
        signal_all(&inhabitants(&self.data()), Signal::KILL);
        self.stopped(Duration::from_secs(10)).await;
        // The backends are not our children: gone from /proc once init has reaped them.
        let gone = || async { inhabitants(&self.data()).is_empty().then_some(()) };
        eventually(Duration::from_secs(10), "the backends to be gone", gone).await;
    }

    /// Freezes every process of the server (SIGSTOP): connections stay open and nothing answers.
    pub fn freeze(&self) {
        // The postmaster first, so that no process is made behind our back.
        self.tell(Signal::STOP);
        signal_all(&inhabitants(&self.data()), Signal::STOP);
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        signal_all(&inhabitants(&self.data()), Signal::CONT);
    }

    /// Starts the stopped server again, on its port, and waits until it takes connections.
    pub async fn start_again(&self) {
        self.start_unready();
        let ready = || async {
            assert!(self.is_running(), "the server did not start:\n{}", self.log());
            self.is_ready().then_some(())
        };
        eventually(Duration::from_secs(60), "the server to start", ready).await;
    }

    /// Starts the stopped server again and does not wait until it is ready.
    pub fn start_unready(&self) {
        assert!(!self.is_running(), "the server is running already");
        let log = fs::File::options().create(true).append(true).open(self.scratch.path().join("log")).unwrap();
        let mut command = Command::new(self.binaries.directory.join("postgres"));
        server_user().apply(&mut command);
        command.current_dir(self.data()).arg("-D").arg(self.data());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        *self.server.lock().unwrap() = Some(command.spawn().unwrap());
    }

    /// A hot standby of this server, made by a base backup and streaming from it under the application name `standby`.
    /// For a synchronous one: `primary.set("synchronous_standby_names", "standby")` after it has started.
    pub async fn standby(&self) -> Cluster {
        let client = self.client().await;
        let old = self.version <= Version::V14;
        let begin = if old { "pg_start_backup('standby', true, false)" } else { "pg_backup_start('standby', true)" };
        client.batch_execute(&format!("SELECT {begin}")).await.unwrap();
        let (version, binaries, from) = (self.version, self.binaries.clone(), self.data());
        let copied = move || Cluster::laid_out(version, binaries, |_, data| copy_running(&from, data));
        let standby = tokio::task::spawn_blocking(copied).await.unwrap();
        let end = if old { "pg_stop_backup(false, false)" } else { "pg_backup_stop(false)" };
        let label = client.query_one(&format!("SELECT labelfile FROM {end}"), &[]).await.unwrap();
        standby.write("backup_label", label.get::<_, String>(0).as_bytes());
        standby.write("standby.signal", b"");
        let primary = format!("host=127.0.0.1 port={} user=postgres application_name=standby", self.port());
        standby.configure([("primary_conninfo", primary.as_str())]);
        standby.start_again().await;
        let streaming =
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'standby' AND state = 'streaming'";
        let attached = || async { (self.number(streaming).await > 0).then_some(()) };
        eventually(Duration::from_secs(30), "the standby to stream", attached).await;
        standby
    }

    /// Another server on a copy of this stopped one's volume: the same identity, slots and all.
    pub async fn clone_of_volume(&self) -> Cluster {
        assert!(!self.is_running(), "a running server's volume is no consistent copy");
        let (version, binaries, from) = (self.version, self.binaries.clone(), self.data());
        let copied = move || Cluster::laid_out(version, binaries, |_, data| copy(&from, data));
        let clone = tokio::task::spawn_blocking(copied).await.unwrap();
        clone.start_again().await;
        clone
    }

    /// Waits until this standby has replayed everything that `primary` has written by now.
    #[allow(dead_code, reason = "the measurements have no standby")]
    pub async fn catch_up_with(&self, primary: &Cluster) {
        let end = primary.text("SELECT pg_current_wal_lsn()").await;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
        let caught_up = || async { (self.text(&replayed).await == "t").then_some(()) };
        super::eventually(std::time::Duration::from_secs(40), "the standby to catch up", caught_up).await;
    }

    /// Makes a standby the primary, and waits until it is.
    pub async fn promote(&self) {
        assert_eq!(self.text("SELECT pg_promote(true, 60)").await, "t", "promotion failed:\n{}", self.log());
    }

    /// A directory with data in it and the settings that depend on where it is; not started.
    fn laid_out(version: Version, binaries: Binaries, fill: impl FnOnce(&Binaries, &Path)) -> Cluster {
        let (port, scratch) = (Port::reserve(), Scratch::new("pg"));
        let data = scratch.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        server_user().own(&data);
        fill(&binaries, &data);
        let cluster = Cluster { version, binaries, port, server: Mutex::new(None), scratch };
        let (port, socket) = (cluster.port().to_string(), cluster.socket_directory().display().to_string());
        cluster.configure([("port", port.as_str()), ("unix_socket_directories", socket.as_str())]);
        cluster
    }

    /// Adds lines to `postgresql.conf`; the last one of a name counts.
    fn configure<'a>(&self, settings: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let mut file = fs::File::options().append(true).open(self.data().join("postgresql.conf")).unwrap();
        for (name, value) in settings {
            writeln!(file, "{name} = '{}'", value.replace('\'', "''")).unwrap();
        }
    }

    /// Writes a file into the data directory, readable by the server alone.
    fn write(&self, name: &str, content: &[u8]) {
        let path = self.data().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        server_user().own(&path);
    }

    /// A killed server could not free its System V segment (56 bytes, but there are only 4,096 on a machine). Its pid file,
    /// which is left behind too, names the segment: line 7, key and id.
    fn free_shared_memory(&self) {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        if let Some(id) = file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            drop(Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status());
        }
    }

    fn postmaster(&self) -> Option<Pid> {
        self.server.lock().unwrap().as_ref().map(Pid::from_child)
    }

    /// What `pg_ctl` waits for: the postmaster's own word in its pid file. A killed one leaves its file behind.
    fn is_ready(&self) -> bool {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let lines = file.lines().map(str::trim).collect::<Vec<_>>();
        let ours = self.postmaster().map(|process| process.as_raw_nonzero().to_string());
        lines.len() > 7 && Some(lines[0]) == ours.as_deref() && lines[7] == "ready"
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(30).collect::<Vec<_>>();
            eprintln!("the end of the log of {} on port {}:", self.version, self.port());
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        end_inhabitants(self.scratch.path());
        if let Some(mut child) = self.server.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            drop(child.wait());
        }
        self.free_shared_memory();
    }
}
