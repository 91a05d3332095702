//! The harness itself: what the other tests rely on.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::bound::VARIABLE;
use crate::harness::proxy::Target;
use crate::harness::scratch::{base, inhabitants};
use crate::harness::{App, Cluster, ConfigText, Direction, Proxy, SectionText, Stop, Version, eventually, servers};

/// Says which servers there are, and where they come from. All are fetched at once: two minutes, whatever the network does.
#[test]
fn servers_are_found() {
    std::thread::scope(|threads| Version::ALL.map(|version| drop(threads.spawn(move || servers::find(version)))));
    for version in Version::ALL {
        match servers::find(version) {
            Ok(found) => eprintln!("{version}: {} in {}", found.build, found.directory.display()),
            Err(reason) => servers::skip(version, &reason),
        }
    }
    assert!(servers::find(Version::usual()).is_ok(), "no server at all: install PostgreSQL, or npm");
}

/// Every version starts, decodes by pgoutput, and is the one that was asked for.
async fn decodes(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    assert_eq!(cluster.number("SHOW server_version_num").await / 10_000, i64::from(version.major()));
    cluster.sql("CREATE TABLE t (id int); CREATE PUBLICATION p FOR TABLE t WITH (publish = 'insert')").await;
    cluster.sql("SELECT pg_create_logical_replication_slot('s', 'pgoutput')").await;
    cluster.sql("INSERT INTO t VALUES (1)").await;
    let changes = "SELECT count(*) FROM pg_logical_slot_get_binary_changes('s', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')";
    assert_eq!(cluster.number(changes).await, 4, "begin, relation, insert, commit");
}

#[tokio::test]
async fn version_14_decodes() {
    decodes(Version::V14).await;
}

#[tokio::test]
async fn version_15_decodes() {
    decodes(Version::V15).await;
}

#[tokio::test]
async fn version_16_decodes() {
    decodes(Version::V16).await;
}

#[tokio::test]
async fn version_17_decodes() {
    decodes(Version::V17).await;
}

#[tokio::test]
async fn version_18_decodes() {
    decodes(Version::V18).await;
}

#[tokio::test]
async fn a_cluster_stops_crashes_and_starts_again() {
    let cluster = Cluster::builder().setting("work_mem", "5MB").start().await;
    assert_eq!(cluster.text("SHOW work_mem").await, "5MB");
    cluster.sql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await;
    for stop in [Stop::Fast, Stop::Immediate, Stop::Smart] {
        cluster.stop(stop).await;
        assert!(!cluster.is_running() && cluster.try_sql("SELECT").await.is_err());
        cluster.start_again().await;
    }
    cluster.sql("INSERT INTO t VALUES (2)").await;
    cluster.crash().await;
    assert!(cluster.try_sql("SELECT").await.is_err());
    cluster.start_again().await;
    assert_eq!(cluster.number("SELECT count(*) FROM t").await, 2);
    assert!(cluster.log().contains("automatic recovery in progress"));
    cluster.set("work_mem", "6MB").await;
    assert_eq!(cluster.text("SHOW work_mem").await, "6MB");
}

#[tokio::test]
async fn a_frozen_cluster_is_silent_until_it_thaws() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    cluster.freeze();
    let mut answer = Box::pin(client.simple_query("SELECT 1"));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut answer).await.is_err());
    cluster.thaw();
    answer.await.unwrap();
}

#[tokio::test]
async fn identities_are_shared_unless_asked_for() {
    let identity = "SELECT system_identifier FROM pg_control_system()";
    let (one, other) = (Cluster::start().await, Cluster::start().await);
    let own = Cluster::builder().own_identity().start().await;
    assert_eq!(one.text(identity).await, other.text(identity).await);
    assert_ne!(one.text(identity).await, own.text(identity).await);
}

#[tokio::test]
async fn a_standby_streams_holds_commits_and_takes_over() {
    let primary = Cluster::start().await;
    primary.sql("CREATE TABLE t (id int); INSERT INTO t VALUES (1)").await;
    let standby = primary.standby().await;
    primary.set("synchronous_standby_names", "standby").await;
    let synchronous =
        || async { (primary.text("SELECT sync_state FROM pg_stat_replication").await == "sync").then_some(()) };
    eventually(Duration::from_secs(10), "a synchronous standby", synchronous).await;
    standby.freeze();
    let mut insert = Box::pin(primary.sql("INSERT INTO t VALUES (2)"));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut insert).await.is_err());
    assert_eq!(primary.number("SELECT count(*) FROM t").await, 1, "in the WAL, and not visible");
    standby.thaw();
    insert.await;
    primary.crash().await;
    standby.promote().await;
    standby.sql("INSERT INTO t VALUES (3)").await;
    assert_eq!(standby.number("SELECT count(*) FROM t").await, 3);
    // Not pg_control_checkpoint(): that shows the new timeline only after the checkpoint that follows the promotion.
    assert_eq!(standby.text("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").await, "00000002");
}

#[tokio::test]
async fn the_proxy_carries_postgres_by_tcp_and_by_socket() {
    let cluster = Cluster::start().await;
    for target in [Target::Tcp(cluster.port()), Target::Unix(cluster.socket())] {
        let proxy = Proxy::to(target);
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        client.simple_query("SELECT repeat('x', 1000000)").await.unwrap();
        assert!(proxy.counters().to_client > 1_000_000 && proxy.counters().open == 1);
        proxy.cut();
        assert!(connection.await.unwrap().is_err());
        proxy.wait_none_open().await;
    }
}

/// A server that sends back what it gets, and a proxy in front of it.
async fn echo() -> Proxy {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                drop(tokio::io::copy(&mut reader, &mut writer).await);
            });
        }
    });
    Proxy::to_port(port)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap()
}

/// Sends `bytes` bytes and reads them back; how long that took.
async fn round(stream: &mut TcpStream, bytes: usize) -> Duration {
    let begun = Instant::now();
    let (mut reader, mut writer) = stream.split();
    let (sent, mut back) = (vec![7; bytes], vec![0; bytes]);
    let (written, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut back));
    written.unwrap();
    read.unwrap();
    assert_eq!(sent, back);
    begun.elapsed()
}

#[tokio::test]
async fn the_proxy_cuts_at_the_byte() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.wait_connections(1).await;
    round(&mut stream, 100).await;
    proxy.cut_after(Direction::ToClient, 10);
    stream.write_all(&[1; 100]).await.unwrap();
    let mut back = Vec::new();
    let error = stream.read_to_end(&mut back).await.unwrap_err();
    assert_eq!((back.len(), error.kind()), (10, ErrorKind::ConnectionReset));
    round(&mut connect(&proxy).await, 100).await; // once only
    assert_eq!(proxy.counters().to_client, 210);
}

#[tokio::test]
async fn the_proxy_stalls_and_goes_on() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    round(&mut stream, 1).await;
    proxy.stall(Direction::ToTarget);
    let piece = [0; 65_536];
    let mut held = 0;
    loop {
        let full = tokio::time::timeout(Duration::from_millis(300), stream.writable()).await.is_err();
        if full {
            break;
        }
        held += stream.try_write(&piece).unwrap_or(0);
        assert!(held < 64 << 20, "no backpressure");
    }
    assert_eq!(proxy.counters().to_target, 1);
    proxy.pass();
    stream.read_exact(&mut vec![0; held]).await.unwrap();
}

#[tokio::test]
async fn the_proxy_half_opens_and_then_resets() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    round(&mut stream, 1).await;
    proxy.half_open();
    stream.write_all(&[1; 1000]).await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await;
    assert!(silence.is_err() && proxy.counters().to_target == 1);
    proxy.pass();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_proxy_refuses_delays_and_throttles() {
    let proxy = echo().await;
    let mut open = connect(&proxy).await;
    round(&mut open, 1).await;
    proxy.refuse();
    let refused = || async { TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.is_err().then_some(()) };
    eventually(Duration::from_secs(5), "a refusal", refused).await;
    round(&mut open, 1).await;
    proxy.pass();
    let taken = || async { TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.ok() };
    let mut stream = eventually(Duration::from_secs(5), "a connection again", taken).await;
    proxy.delay(Duration::from_millis(50));
    assert!(round(&mut stream, 10).await >= Duration::from_millis(100));
    proxy.pass();
    proxy.rate(100_000);
    assert!(round(&mut stream, 20_000).await >= Duration::from_millis(150));
}

#[tokio::test]
async fn the_program_is_run_and_its_output_kept() {
    let cluster = Cluster::start().await;
    let section = SectionText::metric("seats", "usage_daily").set("flush", "1s");
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9").set("memory", "1MiB").section(section);
    let output = App::command(&config, &["--version"]).await;
    assert_eq!(output.code, 0, "{output:?}");
    cluster.sql(&format!("{};{}", SectionText::metric_table("a"), SectionText::activity_table("b"))).await;
}

#[tokio::test]
async fn a_configuration_is_rendered() {
    let cluster = Cluster::start().await;
    let section = SectionText::metric("seats", "usage_daily").set("sync", "off").without("date");
    let config =
        ConfigText::new(&cluster, "http://sink").set("memory", "1MiB").through(5).unset("source.tls").section(section);
    let expected = "memory: 1MiB\nsource:\n  host: 127.0.0.1\n  database: postgres\n  user: postgres\n  port: 5\nplanhat:\n  \
                    tenant: 11111111-2222-4333-8444-555555555555\n  url: http://sink\nsections:\n  - name: seats\n    \
                    kind: custom_metric\n    table: usage_daily\n    key: id\n    flush: 50ms\n    model: Company\n    sync: off\n    \
                    fields:\n      dimensionId: { value: seats_used }\n      value: value\n      externalId: external_id\n";
    assert_eq!(config.render(), expected);
}

/// What the last test starts: says where its cluster lives, and then never ends.
#[tokio::test]
#[ignore = "a child process of another test"]
async fn child_that_hangs() {
    let cluster = Cluster::start().await;
    eprintln!("CLUSTER {}", cluster.socket_directory().display());
    std::future::pending().await
}

/// Starts that child; it, and where its cluster lives.
async fn hanging_child() -> (tokio::process::Child, PathBuf) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "harness_works::child_that_hangs", "--ignored", "--nocapture"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(place) = line.strip_prefix("CLUSTER ") {
            return (child, PathBuf::from(place));
        }
    }
    panic!("the child made no cluster");
}

/// Nothing is left: no directory, no process.
async fn nothing_left(place: &std::path::Path) {
    assert!(place.starts_with(base()));
    let gone = || async { (!place.exists() && inhabitants(place).is_empty()).then_some(()) };
    eventually(Duration::from_secs(20), "the cluster to be cleaned up", gone).await;
}

#[tokio::test]
async fn a_panic_leaves_nothing_behind() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let panicking = tokio::spawn(async move {
        let cluster = Cluster::start().await;
        tell.send(cluster.socket_directory().to_owned()).unwrap();
        panic!("as asked");
    });
    let place = told.await.unwrap();
    assert!(panicking.await.unwrap_err().is_panic());
    nothing_left(&place).await;
}

#[tokio::test]
async fn a_kill_leaves_nothing_behind() {
    let (mut child, place) = hanging_child().await;
    assert!(inhabitants(&place).len() > 3, "a server is running there");
    child.kill().await.unwrap();
    nothing_left(&place).await;
}

/// Hangs, for the test below.
#[tokio::test]
#[ignore = "hangs on purpose; case_105 runs it"]
async fn hangs_on_purpose() {
    let cluster = Cluster::start().await;
    eprintln!("{}", cluster.socket_directory().display());
    cluster.sql("DO $$BEGIN RAISE LOG 'the last words'; END$$").await;
    let (_kept_open, never) = std::sync::mpsc::channel::<()>();
    never.recv().unwrap();
}

#[test]
fn case_105_a_hung_test_ends_as_a_failure_with_its_name_also_without_a_runner() {
    use std::os::unix::process::ExitStatusExt as _;
    let mut command = Command::new(std::env::current_exe().unwrap());
    // What this binary's runner tells its own child is nothing for this one.
    let runner = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NEXTEST"));
    for (name, _) in runner {
        command.env_remove(name);
    }
    command.args(["--exact", "harness_works::hangs_on_purpose", "--ignored"]).env(VARIABLE, "15");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "it was not ended by its bound: {}\n{said}", output.status);
    assert!(said.contains("test harness_works::hangs_on_purpose ... HUNG"), "{said}");
    assert!(said.contains("the last words"), "the server's log is not told:\n{said}");
    let log = said.lines().find_map(|line| line.strip_prefix("the end of ")).unwrap().trim_end_matches("/log:");
    let begun = Instant::now();
    while !inhabitants(&PathBuf::from(log)).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "a server is left in {log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
