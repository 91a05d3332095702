//! What PostgreSQL's own programs take for the same work: the limits that everything here is held against.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pg2planhat::testing::postgres::Stream;
use pg2planhat::testing::postgres::{StreamEvent, StreamStart};

use crate::harness::{Cluster, ConfigText};
use crate::network::Route;

/// How long `pg_recvlogical` takes, by TCP, to throw away everything up to `end`.
pub fn recvlogical(cluster: &Cluster, route: &Route, slot: &str, publication: &str, end: &str) -> Duration {
    let mut command = client(cluster, "pg_recvlogical");
    command.args(["-S", slot, "-o", "proto_version=1", "-o"]).arg(format!("publication_names={publication}"));
    command.args(["--start", "--no-loop", "-f", "/dev/null", "--endpos", end]);
    timed(command.args(["-d", &conninfo(route)]))
}

/// How long a COPY of the query takes, by TCP, to nowhere.
pub fn copy(cluster: &Cluster, route: &Route, query: &str) -> Duration {
    let mut command = client(cluster, "psql");
    timed(command.args(["-d", &conninfo(route), "-qAtX", "-c"]).arg(format!("COPY ({query}) TO STDOUT")))
}

fn client(cluster: &Cluster, program: &str) -> Command {
    let path = cluster.program(program);
    assert!(path.exists(), "{} is not here: install the PostgreSQL client programs", path.display());
    let mut command = Command::new(path);
    command.stdout(Stdio::null());
    command
}

fn conninfo(route: &Route) -> String {
    format!("host={} port={} user=postgres dbname=postgres sslmode={}", route.host, route.port, route.tls_mode())
}

fn timed(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    begun.elapsed()
}

/// Our own reader of the wire, with nothing behind it: what mapping, HTTP and ledger can at best come to.
pub async fn wire(cluster: &Cluster, config: &ConfigText, slot: &str, publication: &str, rows: u64) -> Duration {
    let from = format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'");
    let from = cluster.text(&from).await;
    let config =
        pg2planhat::testing::config::parse(&config.render(), "the bench").unwrap_or_else(|errors| panic!("{errors}"));
    let start = StreamStart {
        slot: slot.to_owned(),
        publication: publication.to_owned(),
        updates: None,
        server: None,
        from: from.parse().unwrap(),
        again_from: None,
        max_message: 8 << 20,
        status_interval: Duration::from_secs(5),
        patience: Duration::from_secs(60),
    };
    let begun = Instant::now();
    let mut stream = Stream::open(config.source, start).unwrap();
    let mut read = 0;
    while read < rows {
        match stream.events.recv().await.unwrap() {
            StreamEvent::Run(run) => read += inserts(&run),
            StreamEvent::Started(_) => {}
            StreamEvent::Ended(ended) => panic!("{ended:?}"),
        }
        stream.control.beat();
    }
    let wall = begun.elapsed();
    stream.close(Duration::from_secs(2)).await;
    wall
}

/// Inserts among whole messages: CopyData, XLogData, `I`.
fn inserts(mut run: &[u8]) -> u64 {
    let mut count = 0;
    while let [tag, a, b, c, d, body @ ..] = run {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize - 4;
        count += u64::from(*tag == b'd' && body[0] == b'w' && body[25] == b'I');
        run = &body[length..];
    }
    count
}
