//! The throwaway PostgreSQL.
//!
//! * In: server binaries, a place.
//! * Out: a running cluster with `wal_level=logical`, and a [`Source`] that reaches it.
//! * Never: a port that the network reaches; an account without a password, for other users of this machine reach it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::config::Source;
use crate::demo::server_binaries::ServerBinaries;
use crate::demo::workdir::Workdir;
use crate::model::Fault;
use crate::postgres::connection::session::{Session, connect_sql};

/// Below the range that kernels draw outgoing connections from, so that a port that is free stays free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const START_LIMIT: Duration = Duration::from_secs(60);
const LOG: &str = "postgresql.log";

/// A running server. It ends with its place.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Its TCP port on 127.0.0.1.
    pub port: u16,
    /// The superuser's password.
    pub password: String,
    process: Child,
}

impl Cluster {
    /// Makes and starts it, and waits until it takes connections.
    ///
    /// # Errors
    /// Where the cluster cannot be made or does not start; the fault shows the end of its log.
    pub(crate) async fn start(
        server: &ServerBinaries,
        place: &mut Workdir,
        source: impl Fn(u16, &str) -> Result<Source, Fault>,
    ) -> Result<Cluster, Fault> {
        let password = password()?;
        let data = initdb(server, place, &password).await?;
        let socket = place.server_directory("socket")?;
        let mut tries = 0;
        loop {
            let port = free_port()?;
            let process = postgres(server, place, &data, &socket, port)?;
            let mut cluster = Cluster { port, password: password.clone(), process };
            match cluster.ready(place, &source(port, &password)?).await {
                Ok(()) => return Ok(cluster),
                // Someone was faster with this port.
                Err(_) if tries < 3 && place.log_tail(LOG).contains("could not bind") => tries += 1,
                Err(fault) => return Err(fault),
            }
        }
    }

    async fn ready(&mut self, place: &Workdir, source: &Source) -> Result<(), Fault> {
        let begun = Instant::now();
        loop {
            let failed = match connect_sql(source, "demo").await {
                Ok(_session) => return Ok(()),
                Err(fault) => fault,
            };
            let ended = self.process.try_wait().is_ok_and(|status| status.is_some());
            if ended || begun.elapsed() > START_LIMIT {
                return Err(Fault::unavailable(
                    format!("the throwaway PostgreSQL did not start: {}\n{}", failed.what, place.log_tail(LOG)),
                    "mend what its log says; --keep leaves the whole log behind",
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Where the slot stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotPosition {
    /// Its `confirmed_flush_lsn`.
    pub confirmed: Option<String>,
    /// How much WAL is behind it.
    pub lag_bytes: Option<u64>,
    /// Whether it stands at or behind the position asked for.
    pub reached: bool,
}

/// Where the slot stands, and whether that is at `wanted` or behind it.
pub(crate) async fn slot_position(session: &Session, wanted: Option<&str>) -> Result<SlotPosition, Fault> {
    let sql = "SELECT confirmed_flush_lsn::text, \
         greatest(0, pg_wal_lsn_diff(pg_current_wal_flush_lsn(), confirmed_flush_lsn))::int8, \
         confirmed_flush_lsn >= $1::text::pg_lsn \
         FROM pg_replication_slots WHERE slot_name = 'pg2planhat'";
    let row = session.query_opt(sql, &[&wanted]).await.map_err(|error| session.fault(&error))?;
    let Some(row) = row else { return Ok(SlotPosition::default()) };
    Ok(SlotPosition {
        confirmed: row.get(0),
        lag_bytes: row.get::<_, Option<i64>>(1).and_then(|lag| u64::try_from(lag).ok()),
        reached: row.get::<_, Option<bool>>(2).unwrap_or(false),
    })
}

/// A port of the loopback interface that nobody has.
pub(crate) fn free_port() -> Result<u16, Fault> {
    let mut drawn = std::iter::repeat_with(|| fastrand::u16(PORTS)).take(1000);
    let free = drawn.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.ok_or_else(|| Fault::unavailable("no TCP port of 127.0.0.1 is free", "look at what listens: ss -ltn"))
}

async fn initdb(server: &ServerBinaries, place: &mut Workdir, password: &str) -> Result<PathBuf, Fault> {
    let data = place.server_directory("data")?;
    let file = place.secret_file("password", password)?;
    let unusable =
        |error: std::io::Error| Fault::unavailable(format!("initdb: {error}"), "reinstall PostgreSQL's server");
    place.user().own(&file).map_err(unusable)?;
    let mut command = Command::new(server.directory.join("initdb"));
    place.user().apply(&mut command);
    command.current_dir(place.path()).arg("-D").arg(&data).arg("--pwfile").arg(&file);
    command.args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().map_err(unusable)?;
    if let Some(id) = child.id() {
        place.started(id)?;
    }
    let output = child.wait_with_output().await.map_err(unusable)?;
    fs::remove_file(&file).map_err(unusable)?;
    if output.status.success() {
        return Ok(data);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Fault::unavailable(
        format!("initdb failed: {}", words.trim()),
        "mend what it says: the disk's room, or the server's installation",
    ))
}

fn postgres(
    server: &ServerBinaries,
    place: &mut Workdir,
    data: &Path,
    socket: &Path,
    port: u16,
) -> Result<Child, Fault> {
    let unusable =
        |error: std::io::Error| Fault::unavailable(format!("postgres: {error}"), "reinstall PostgreSQL's server");
    let settings = format!(
        "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nwal_level = logical\n\
         max_connections = 40\ntimezone = 'UTC'\ndynamic_shared_memory_type = mmap\n",
        socket.display()
    );
    let conf = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"));
    conf.and_then(|mut conf| conf.write_all(settings.as_bytes())).map_err(unusable)?;
    let log = place.log_file(LOG)?;
    let mut command = Command::new(server.directory.join("postgres"));
    place.user().apply(&mut command);
    command.current_dir(data).arg("-D").arg(data).stdin(Stdio::null());
    command.stdout(log.try_clone().map_err(unusable)?).stderr(log);
    let child = command.spawn().map_err(unusable)?;
    if let Some(id) = child.id() {
        place.started(id)?;
    }
    Ok(child)
}

/// From the system's randomness: other users of this machine reach the port.
fn password() -> Result<String, Fault> {
    let mut bytes = [0_u8; 16];
    let read = fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    read.map_err(|error| Fault::unavailable(format!("/dev/urandom: {error}"), "mount /dev"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
