//! A throwaway PostgreSQL for this room's tests: one cluster for the whole test binary, a schema for each test.
//!
//! A shell keeps the server, and reads from a pipe that the test process holds: when the process ends, however it ends,
//! the pipe closes, and the shell stops the server and removes its files.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio_postgres::{Client, Config, NoTls};

use crate::state::{Schema, Store};

pub(crate) struct Cluster {
    directory: PathBuf,
    _keeper: Child,
}

/// The cluster, started by whoever asks first.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

fn programs() -> PathBuf {
    let of_path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = std::env::split_paths(&of_path).collect();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    found.extend(versions.map(|version| version.path().join("bin")));
    found
        .into_iter()
        .find(|dir| dir.join("initdb").exists())
        .expect("PostgreSQL's initdb, in PATH or /usr/lib/postgresql")
}

impl Cluster {
    fn start() -> Cluster {
        let directory = tempfile::Builder::new().prefix("state-").tempdir().unwrap().keep();
        let root = std::fs::metadata(&directory).unwrap().uid() == 0;
        if root {
            assert!(Command::new("chown").arg("postgres").arg(&directory).status().unwrap().success());
        }
        let script = r#"
            cd "$2"
            "$1/initdb" -D data -U postgres -A trust -E UTF8 --locale=C -N >initdb.log 2>&1 || exit 1
            echo "listen_addresses='' unix_socket_directories='$2' fsync=off" | tr ' ' '\n' >> data/postgresql.conf
            "$1/pg_ctl" -D data -w -l server.log start >pg_ctl.log 2>&1 || exit 1
            echo ready
            read -r _
            "$1/pg_ctl" -D data -m immediate stop >/dev/null 2>&1
            cd / && rm -rf "$2"
        "#;
        let mut command = if root { Command::new("runuser") } else { Command::new("sh") };
        if root {
            command.args(["-u", "postgres", "--", "sh"]);
        }
        command.args(["-c", script, "sh"]).arg(programs()).arg(&directory);
        let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let stdout = keeper.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut said).unwrap();
        assert_eq!(said, "ready\n", "see {}", directory.display());
        Cluster { directory, _keeper: keeper }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join(".s.PGSQL.5432")
    }

    pub(crate) async fn client(&self, user: &str) -> Client {
        client_on(UnixStream::connect(self.socket()).await.unwrap(), user).await
    }
}

/// A client that speaks over `stream`.
pub(crate) async fn client_on<S>(stream: S, user: &str) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = Config::new().user(user).dbname("postgres").connect_raw(stream, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A schema name that no other test has, made of `name`.
pub(crate) fn schema(name: &str) -> Schema {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    Schema::new(&format!("{name}{}", COUNT.fetch_add(1, Ordering::Relaxed))).unwrap()
}

/// A store of the superuser's.
pub(crate) async fn store(schema: &Schema) -> Store {
    Store::new(cluster().client("postgres").await, schema.clone()).await.unwrap()
}

/// A store behind a relay that loses a COMMIT: before the server sees it, or only its answer.
pub(crate) async fn store_losing_commit(schema: &Schema, server_sees_it: bool) -> Store {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    tokio::spawn(relay(theirs, cluster().socket(), server_sees_it));
    Store::new(client_on(ours, "postgres").await, schema.clone()).await.unwrap()
}

/// Whether these bytes hold the statement, or its answer.
fn commits(bytes: &[u8]) -> bool {
    bytes.windows(7).any(|window| window == b"COMMIT\0")
}

async fn relay(mut client: tokio::io::DuplexStream, server: impl AsRef<Path>, server_sees_it: bool) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut server = UnixStream::connect(server).await.unwrap();
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(n @ 1..) = read else { return };
                if commits(&up[..n]) {
                    if server_sees_it {
                        server.write_all(&up[..n]).await.unwrap();
                        // Its answer means that it is done; the client never hears of it. The answers before it come first.
                        while !commits(&down) {
                            let read = server.read(&mut up).await.unwrap();
                            down.extend_from_slice(&up[..read]);
                        }
                    }
                    return;
                }
                server.write_all(&up[..n]).await.unwrap();
            }
            read = server.read(&mut down) => {
                let Ok(n @ 1..) = read else { return };
                client.write_all(&down[..n]).await.unwrap();
            }
        }
    }
}
