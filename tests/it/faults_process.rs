//! tests/FAULTS.md, "Process": signals, kills, a broken state, odd surroundings, secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pg2planhat::testing::sim::{Sim, SimFault, SimOptions, SinkKind};

use crate::delivery_scene::{PATIENCE, Scene, received, seats};
use crate::harness::port::Port;
use crate::harness::scratch::Scratch;
use crate::harness::{App, Cluster, ConfigText, SectionText, Stop, eventually, http};

// ---- 52: the end, asked for ----

#[tokio::test]
async fn case_52_sigterm_waits_for_the_request_under_way_and_checkpoints() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::Slow { millis: 1000 });
    scene.insert(1, 10).await;
    scene.sink(|stats| stats.metrics.under_way == 1 && stats.metrics.items == 10).await;
    app.sigterm();
    app.wait_log("draining").await;
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    assert_eq!(scene.outcomes().await, ["delivered"]);
    let behind = "SELECT pg_wal_lsn_diff(i.checkpoint_lsn, s.confirmed_flush_lsn)::bigint FROM pg2planhat.instance i, pg_replication_slots s";
    let behind = behind.replace("checkpoint_lsn", "checkpoint");
    assert_eq!(scene.cluster.number(&behind).await, 0, "the slot was told of the last checkpoint");
    let app = scene.run().await;
    scene.insert(11, 12).await;
    scene.metrics(12).await;
    scene.assert_received(12, &[], &[]);
    assert_eq!(app.metric("rows_in_doubt_total", &[]).await, Some(0.0));
}

#[tokio::test]
async fn case_52_sigterm_with_a_hung_sink_ends_within_the_grace() {
    let mut scene = Scene::of(&[seats().set("batch", "{ rows: 10 }")]).await;
    scene.config = scene.config.set("planhat.timeout", "60s").set("shutdown_grace", "2s");
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::Hang { store: true });
    scene.insert(1, 25).await;
    scene.sink(|stats| stats.metrics.under_way == 1 && stats.metrics.items == 10).await;
    app.sigterm();
    let began = Instant::now();
    app.wait_log("draining").await;
    let answer = app.get("/readyz").await.unwrap();
    assert_eq!(answer.status, 503, "a draining process takes no traffic");
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    // The grace, and a moment for a loaded machine.
    assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());
    // What was under way is in doubt, and only that.
    let _app = scene.run().await;
    scene.metrics(35).await;
    scene.outcomes().await;
    scene.assert_received(25, &(1..=10).collect::<Vec<_>>(), &[]);
}

#[tokio::test]
async fn case_52_a_sink_that_is_away_does_not_hold_the_end_up() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::status(503).times(0));
    scene.insert(1, 10).await;
    scene.sink(|stats| stats.metrics.requests >= 2).await;
    app.sigterm();
    let began = Instant::now();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "nothing was under way, so nothing is waited for: {:?}",
        began.elapsed()
    );
    scene.sim.clear_faults();
    let app = scene.run().await;
    scene.metrics(10).await;
    scene.assert_received(10, &[], &[]);
    assert_eq!(app.metric("rows_in_doubt_total", &[]).await, Some(0.0));
}

#[tokio::test]
async fn case_52_the_second_signal_ends_at_once() {
    let mut scene = Scene::new().await;
    scene.config = scene.config.set("planhat.timeout", "60s").set("shutdown_grace", "60s");
    let app = scene.run().await;
    scene.sim.queue_fault(SimFault::Hang { store: true });
    scene.insert(1, 10).await;
    scene.sink(|stats| stats.metrics.under_way == 1 && stats.metrics.items == 10).await;
    app.sigterm();
    app.wait_log("draining").await;
    app.sigterm();
    let began = Instant::now();
    assert_eq!(app.wait_exit(PATIENCE).await, 69);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let _app = scene.run().await;
    scene.metrics(20).await;
    scene.assert_received(10, &(1..=10).collect::<Vec<_>>(), &[]);
}

#[tokio::test]
async fn case_52_sigterm_before_anything_has_begun_ends_at_once() {
    let scene = Scene::new().await;
    scene.cluster.stop(Stop::Fast).await;
    let app = App::run(&scene.config);
    app.wait_log("cannot begin yet").await;
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(3)).await, 0);
}

/// Looking a name up takes as long as the resolver likes, and a runtime waits for it at its end unless told otherwise. The
/// name server is a socket that never answers; the mount namespace that names it needs root.
#[tokio::test]
async fn case_52_a_name_server_that_never_answers_does_not_hold_the_end_up_needs_root() {
    let _silent = tokio::net::UdpSocket::bind("127.9.9.9:53").await.expect("only root may be a name server");
    let scene = Scene::new().await;
    let scratch = Scratch::new("resolver");
    let (resolver, file) = (scratch.path().join("resolv.conf"), scratch.path().join("pg2planhat.yaml"));
    fs::write(&resolver, "nameserver 127.9.9.9\noptions timeout:20 attempts:3\n").unwrap();
    let config = scene.config.clone().set("planhat.url", "http://planhat.test").set("shutdown_grace", "1s");
    let admin = Port::reserve();
    fs::write(&file, config.set("admin.listen", format!("127.0.0.1:{}", admin.number())).render()).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]).arg(&resolver);
    command.arg(env!("CARGO_BIN_EXE_pg2planhat")).arg("--config").arg(&file).arg("run").current_dir(scratch.path());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    scene.cluster.sql("SELECT").await;
    let ready =
        || async { http::get(admin.number(), "/readyz").await.is_ok_and(|answer| answer.status == 200).then_some(()) };
    eventually(PATIENCE, "the program to be ready", ready).await;
    scene.insert(1, 1).await;
    scene.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'sending'", 1).await;
    // The request is under way, and with it the look-up.
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > Duration::from_secs(8) {
            rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
            child.wait().unwrap();
            panic!("it waits for the name");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.code(), Some(0));
}

// ---- 53: the end, not asked for ----

/// The seeds to run: `PG2PLANHAT_TEST_SEEDS=7` or `1..500` instead of this part of the usual twenty.
fn seeds(usual: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(told) = std::env::var("PG2PLANHAT_TEST_SEEDS") else { return usual };
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or_else(|_| panic!("PG2PLANHAT_TEST_SEEDS={told}"));
    match told.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&told)..number(&told) + 1,
    }
}

/// One seed: a writer, a faulty sink, and a program that is killed again and again at random instants.
async fn random_kills(cluster: &Cluster, seed: u64) {
    eprintln!("seed {seed}: replay with PG2PLANHAT_TEST_SEEDS={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let name = format!("s{seed}");
    cluster.sql(&SectionText::metric_table(&name)).await;
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    let section = SectionText::metric("seats", &name).set("batch", format!("{{ rows: {} }}", dice.u32(1..60)));
    let config = ConfigText::new(cluster, &sim.url())
        .set("source.slot", &name)
        .set("source.publication", &name)
        .set("state.schema", &name)
        .set("planhat.halt_probe", "100ms")
        .section(section.set("flush", "10ms"));
    let faults = vec![SimFault::ResetAfterStoring, SimFault::status(503), SimFault::Slow { millis: 30 }];
    sim.set_fault_rate(seed, 0.15, faults);
    let insert = |from: u64, to: u64| {
        format!(
            "INSERT INTO {name} (id, external_id, value) SELECT g, 'k' || g, g FROM generate_series({from}, {to}) g"
        )
    };
    cluster.sql(&insert(1, 300)).await;
    let (mut last, mut kills) = (300, 0);
    for _ in 0..4 {
        let app = App::run(&config);
        let until = Instant::now() + Duration::from_millis(dice.u64(20..900));
        while Instant::now() < until && app.is_running() {
            let rows = dice.u64(1..120);
            cluster.sql(&format!("BEGIN; {}; ROLLBACK", insert(900_000, 900_010))).await;
            cluster.sql(&insert(last + 1, last + rows)).await;
            last += rows;
            tokio::time::sleep(Duration::from_millis(dice.u64(0..20))).await;
        }
        assert!(app.is_running(), "seed {seed}: the program has ended by itself");
        app.kill9().await;
        kills += 1;
    }
    sim.clear_faults();
    let app = App::run(&config);
    let all = || async {
        let keys = received(&sim, SinkKind::Metric);
        (keys.len() as u64 >= last).then_some(())
    };
    eventually(Duration::from_secs(60), &format!("seed {seed}: all {last} rows"), all).await;
    let settled = format!("SELECT count(*) FROM {name}.delivery WHERE outcome IN ('sending', 'in_doubt')");
    let done = || async { (cluster.number(&settled).await == 0).then_some(()) };
    eventually(PATIENCE, &format!("seed {seed}: a quiet ledger"), done).await;
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    let doubted = doubted(cluster, &name).await;
    let keys: BTreeMap<u64, u64> = received(&sim, SinkKind::Metric);
    assert!(keys.keys().all(|key| *key <= last), "seed {seed}: rows that were rolled back were sent");
    let missing = (1..=last).filter(|key| !keys.contains_key(key)).collect::<Vec<_>>();
    assert!(missing.is_empty(), "seed {seed}: missing {missing:?}");
    let unnamed = keys.iter().filter(|(key, times)| **times > 1 && !doubted.contains(key)).collect::<Vec<_>>();
    assert!(unnamed.is_empty(), "seed {seed}: doubled, and not named in the ledger: {unnamed:?}");
    let doubled = keys.values().filter(|times| **times > 1).count();
    eprintln!("seed {seed}: {kills} kills, {last} rows, missing 0, doubled {doubled}, in doubt {}", doubted.len());
    cluster.sql(&format!("SELECT pg_drop_replication_slot('{name}')")).await;
}

/// The keys of the batches that the ledger names as in doubt. One writer: keys and commits have the same order.
async fn doubted(cluster: &Cluster, schema: &str) -> BTreeSet<u64> {
    let query = format!("SELECT first_key, last_key FROM {schema}.delivery WHERE outcome = 'resent'");
    let mut keys = BTreeSet::new();
    for row in cluster.rows(&query).await {
        let key = |at: usize| row[at].as_ref().unwrap().parse::<u64>().unwrap();
        keys.extend(key(0)..=key(1));
    }
    keys
}

async fn kill_seeds(usual: std::ops::Range<u64>) {
    let cluster = Cluster::start().await;
    for seed in seeds(usual) {
        random_kills(&cluster, seed).await;
    }
}

#[tokio::test]
async fn case_53_killed_at_random_instants_seeds_1_to_5() {
    kill_seeds(1..6).await;
}

#[tokio::test]
async fn case_53_killed_at_random_instants_seeds_6_to_10() {
    kill_seeds(6..11).await;
}

#[tokio::test]
async fn case_53_killed_at_random_instants_seeds_11_to_15() {
    kill_seeds(11..16).await;
}

#[tokio::test]
async fn case_53_killed_at_random_instants_seeds_16_to_20() {
    kill_seeds(16..21).await;
}

// ---- 54: the state ----

/// Waits for the end as a state that needs a person, and gives the log.
async fn unwritable(app: &App) -> String {
    assert_eq!(app.wait_exit(PATIENCE).await, 75, "{}", app.log());
    let log = app.log();
    assert!(log.contains("state_unwritable") && log.contains("remedy"), "{log}");
    log
}

#[tokio::test]
async fn case_54_a_dropped_state_schema_stops_everything_before_a_request() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(1, 5).await;
    scene.metrics(5).await;
    scene.outcomes().await;
    scene.cluster.sql("DROP SCHEMA pg2planhat CASCADE").await;
    let dropped = scene.wal().await;
    scene.insert(6, 10).await;
    unwritable(&app).await;
    assert!(!scene.is_confirmed_past(&dropped).await, "no confirmation without a checkpoint");
    // The row of the ledger comes before the request: nothing was sent that nobody would know of.
    scene.assert_received(5, &[], &[]);
    // Started again, it does not begin from nothing in silence.
    let again = App::run(&scene.config);
    assert_eq!(again.wait_exit(PATIENCE).await, 75, "{}", again.log());
    scene.assert_received(5, &[], &[]);
}

#[tokio::test]
async fn case_54_a_read_only_state_stops_and_goes_on_when_mended() {
    let scene = Scene::new().await;
    let app = scene.run().await;
    scene.insert(1, 5).await;
    scene.metrics(5).await;
    scene.outcomes().await;
    scene.cluster.sql("ALTER DATABASE postgres SET default_transaction_read_only = on").await;
    scene
        .cluster
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pg2planhat%state%'")
        .await;
    let before = scene.wal().await;
    let write = "BEGIN READ WRITE; INSERT INTO m (external_id, value) VALUES ('k6', 6); COMMIT";
    scene.cluster.sql(write).await;
    let log = unwritable(&app).await;
    assert!(log.contains("RESET default_transaction_read_only"), "{log}");
    assert!(!scene.is_confirmed_past(&before).await);
    scene.cluster.sql("BEGIN READ WRITE; ALTER DATABASE postgres RESET default_transaction_read_only; COMMIT").await;
    let _app = scene.run().await;
    scene.metrics(6).await;
    scene.assert_received(6, &[], &[]);
}

/// The state as it was some deliveries ago, put back under a running leader, and under one that is down.
#[tokio::test]
async fn case_54_an_older_copy_of_the_state_is_noticed() {
    let scene = Scene::new().await;
    let copy = "CREATE TABLE kept_instance AS TABLE pg2planhat.instance; CREATE TABLE kept_section AS TABLE pg2planhat.section";
    let back = "BEGIN; DELETE FROM pg2planhat.instance; INSERT INTO pg2planhat.instance SELECT * FROM kept_instance; \
                DELETE FROM pg2planhat.section; INSERT INTO pg2planhat.section SELECT * FROM kept_section; COMMIT";
    let app = scene.run().await;
    scene.insert(1, 5).await;
    scene.metrics(5).await;
    scene.outcomes().await;
    scene.cluster.sql(copy).await;
    scene.insert(6, 10).await;
    scene.metrics(10).await;
    scene.outcomes().await;
    let after = scene.wal().await;
    scene.cluster.sql(back).await;
    scene.insert(11, 15).await;
    unwritable(&app).await;
    assert!(!scene.is_confirmed_past(&after).await, "no confirmation without a checkpoint");
    scene.assert_received(10, &[], &[]);
    let again = App::run(&scene.config);
    assert_eq!(again.wait_exit(PATIENCE).await, 75, "the slot is past this checkpoint: {}", again.log());
    scene.assert_received(10, &[], &[]);
}

#[tokio::test]
async fn case_54_a_state_whose_server_restarts_is_waited_for() {
    let mut scene = Scene::new().await;
    let elsewhere = Cluster::start().await;
    scene.config = scene.config.set("state.url", format!("{}?sslmode=disable", elsewhere.dsn()));
    let app = scene.run().await;
    scene.insert(1, 5).await;
    scene.metrics(5).await;
    let quiet = || async {
        let open = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'sending'";
        (elsewhere.number(open).await == 0).then_some(())
    };
    eventually(PATIENCE, "a quiet ledger", quiet).await;
    elsewhere.stop(Stop::Immediate).await;
    let before = scene.wal().await;
    scene.insert(6, 10).await;
    let stalled = |status: &serde_json::Value| {
        let said = status["message"].as_str().is_some_and(|message| message.contains("state"));
        (status["state"] == "stalled" && said).then_some(())
    };
    app.wait_status("the state's absence to be shown", stalled).await;
    assert_eq!(app.get("/readyz").await.unwrap().status, 503);
    assert!(!scene.is_confirmed_past(&before).await);
    scene.assert_received(5, &[], &[]);
    elsewhere.start_again().await;
    scene.metrics(10).await;
    app.wait_ready().await;
    scene.assert_received(10, &[], &[]);
    assert_eq!(elsewhere.number("SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'resent'").await, 0);
}

// ---- 55, 56: surroundings ----

/// Nobody's user, no HOME, a working directory that nobody can write to, no temporary directory.
#[tokio::test]
async fn case_55_any_user_no_home_nothing_writable() {
    let scene = Scene::new().await;
    let (scratch, admin) = (Scratch::new("bare"), Port::reserve());
    let (program, file) = (scratch.path().join("pg2planhat"), scratch.path().join("pg2planhat.yaml"));
    fs::copy(env!("CARGO_BIN_EXE_pg2planhat"), &program).unwrap();
    let config = scene.config.clone().set("admin.listen", format!("127.0.0.1:{}", admin.number()));
    fs::write(&file, config.render()).unwrap();
    let mut command = Command::new(&program);
    command.env_clear().env("TMPDIR", "/nonexistent").current_dir("/proc").arg("--config").arg(&file).arg("run");
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ready =
        || async { http::get(admin.number(), "/readyz").await.is_ok_and(|answer| answer.status == 200).then_some(()) };
    eventually(PATIENCE, "the program to be ready", ready).await;
    scene.insert(1, 5).await;
    scene.metrics(5).await;
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    assert_eq!(tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap().code(), Some(0));
    scene.assert_received(5, &[], &[]);
}

/// Everything that decides when something happens takes `now` as a [`Duration`] of the monotonic clock: the types leave no
/// room for the wall clock, which may jump. Here: a back-off that is due by the monotonic clock is not touched by any date.
/// The one exception is meant so: `flush: { daily_at: … }` is a time of the wall clock, and `Retry-After` as a date is
/// read once, against the answer's own `Date`.
#[test]
fn case_56_a_retry_after_date_is_read_against_the_servers_own_clock() {
    use pg2planhat::testing::planhat::{Reply, Verdict, read};
    let reply = |retry_after: &'static str| Reply {
        status: 503,
        content_type: None,
        content_encoding: None,
        retry_after: Some(retry_after),
        date: Some("Thu, 01 Jan 2015 00:00:00 GMT"),
        location: None,
        body: b"",
        whole: true,
    };
    // Our clock jumps by years in both directions: the server's difference of 30 s stays 30 s.
    for jump in [0, 1_000_000_000, 4_000_000_000] {
        let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(jump);
        let answer = read(&reply("Thu, 01 Jan 2015 00:00:30 GMT"), now);
        assert_eq!(answer.verdict, Verdict::Later { retry_after: Some(Duration::from_secs(30)) }, "{jump}");
    }
}

// ---- 57: configuration ----

#[tokio::test]
async fn case_57_every_error_of_a_configuration_at_once_with_its_place() {
    let scratch = Scratch::new("config");
    let file = scratch.path().join("bad.yaml");
    let text = "source:\n  host: 127.0.0.1\n  database: app\n  user: u\n  pasword: x\n\
                planhat:\n  tenant: { env: PG2PLANHAT_TEST_NO_SUCH_VARIABLE }\n  timeout: soon\n\
                memory: lots\n\
                sections:\n  \
                - name: a\n    kind: custom_metric\n    table: t\n    key: id\n    fields: { dimensionId: { value: d }, value: v, externalId: e }\n  \
                - name: a\n    kind: custom_metric\n    table: t\n    key: id\n    fields: { dimensionId: { value: d }, value: v, externalId: e }\n  \
                - name: b\n    kind: custom_metric\n    key: id\n    fields: { dimensionId: { value: d }, value: v, externalId: e }\n";
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg2planhat"));
    let output = command.arg("--config").arg(&file).arg("run").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    for wanted in
        ["5:3", "password", "8:12", "\"soon\"", "9:9", "\"lots\"", "16:11", "PG2PLANHAT_TEST_NO_SUCH_VARIABLE", "table"]
    {
        assert!(said.contains(wanted), "{wanted:?} is not in:\n{said}");
    }
}

// ---- 58: secrets ----

const PASSWORD: &str = "p4ss-Wörd/&%planted";
const STATE_PASSWORD: &str = "st4te-planted-secret";
const TENANT: &str = "5ec2e7aa-0000-4000-8000-91a47ed00001";

/// Every spelling in which a secret may show up.
fn spellings() -> Vec<String> {
    let percent = |text: &str| {
        text.bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect::<String>()
    };
    let debug = |text: &str| format!("{text:?}").trim_matches('"').to_owned();
    let bytes = |text: &str| text.as_bytes().iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    [PASSWORD, STATE_PASSWORD, TENANT]
        .iter()
        .flat_map(|secret| [(*secret).to_owned(), percent(secret), debug(secret), bytes(secret)])
        .collect()
}

fn assert_silent(place: &str, text: &str) {
    for secret in spellings() {
        if let Some(at) = text.find(&secret) {
            let around = text[..at].rsplit('\n').next().unwrap_or_default();
            panic!("{place} shows a secret after: {around:?}");
        }
    }
}

/// Every row of every state table, as text.
async fn state(cluster: &Cluster) -> String {
    let mut all = String::new();
    for table in ["instance", "section", "delivery", "quarantine", "gap", "event"] {
        let rows = cluster.rows(&format!("SELECT t::text FROM pg2planhat.{table} t")).await;
        rows.into_iter().flatten().flatten().for_each(|row| all.push_str(&row));
    }
    all
}

#[tokio::test]
async fn case_58_planted_secrets_are_shown_nowhere() {
    let cluster =
        Cluster::builder().hba("host all all all scram-sha-256\nhost replication all all scram-sha-256").start().await;
    cluster.sql(&format!("CREATE ROLE planted LOGIN REPLICATION SUPERUSER PASSWORD '{PASSWORD}'")).await;
    cluster.sql(&format!("CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '{STATE_PASSWORD}'")).await;
    let mut scene =
        Scene::on(cluster, SimOptions::default(), &[seats().set("in_doubt", "hold").set("batch", "{ rows: 5 }")]).await;
    let scratch = Scratch::new("secret");
    let file = scratch.path().join("password");
    fs::write(&file, PASSWORD).unwrap();
    let keeper =
        format!("postgres://keeper:{STATE_PASSWORD}@127.0.0.1:{}/postgres?sslmode=disable", scene.cluster.port());
    scene.config = scene
        .config
        .clone()
        .set("source.user", "planted")
        .set("source.password", format!("{{ file: {} }}", file.display()))
        .set("planhat.tenant", "{ env: PLANTED_TENANT }")
        .set("planhat.timeout", "500ms")
        .set("state.url", &keeper);
    let launch = || App::launch(&scene.config).env("PLANTED_TENANT", TENANT).env("RUST_LOG", "trace");
    let app = launch().start();
    app.wait_ready().await;
    // Every fault, with answers that echo the tenant wherever an answer can.
    let echo = |status| SimFault::Status {
        status,
        retry_after: None,
        body: format!("POST /dimensiondata/{TENANT} is unknown"),
        store: false,
    };
    let mut last = 0;
    let faults = [
        echo(404),
        echo(500),
        echo(422),
        SimFault::Redirect { status: 302, location: format!("https://login.test/{TENANT}") },
        SimFault::RefuseFirst { count: 2, error: format!("tenant {TENANT} does not want it") },
        SimFault::ResetAfterStoring,
        SimFault::Hang { store: false },
        SimFault::Html { status: 200 },
        SimFault::Text { body: format!("hello {TENANT}") },
    ];
    for fault in faults {
        scene.sim.queue_fault(fault);
        scene.insert(last + 1, last + 5).await;
        last += 5;
        let settled =
            format!("SELECT (SELECT sum(rows_delivered + rows_quarantined) FROM pg2planhat.section) - {last}");
        scene.number(&settled, 0).await;
        for path in ["/status", "/metrics", "/readyz", "/livez", "/"] {
            let answer = app.get(path).await.unwrap();
            assert_silent(path, &answer.head);
            assert_silent(path, &answer.body);
        }
    }
    // The connections break, and the password is wrong for a while.
    scene.cluster.sql("ALTER ROLE planted PASSWORD 'other'").await;
    scene
        .cluster
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('planted', 'keeper')")
        .await;
    app.wait_log("password authentication failed").await;
    scene.cluster.sql(&format!("ALTER ROLE planted PASSWORD '{PASSWORD}'")).await;
    scene.insert(last + 1, last + 5).await;
    let settled =
        format!("SELECT (SELECT sum(rows_delivered + rows_quarantined) FROM pg2planhat.section) - {}", last + 5);
    scene.number(&settled, 0).await;
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0);
    assert!(app.log().contains("TRACE") && app.log().contains("DEBUG"), "the log was not at its loudest");
    assert_silent("the log", &app.log());
    assert_silent("the state", &state(&scene.cluster).await);
    // The commands, also where they fail.
    for arguments in [
        ["--json", "check"],
        ["--json", "status"],
        ["--json", "logs"],
        ["quarantine", "list"],
        ["setup", "--print-sql"],
    ] {
        let output = launch().arguments(&arguments).output().await;
        assert_silent(&arguments.join(" "), &(output.stdout + &output.stderr));
    }
}

/// Secrets given inline, and wrong: the errors name the key, never the value.
#[tokio::test]
async fn case_58_errors_about_secrets_do_not_show_them() {
    let scene = Scene::new().await;
    let url = format!("postgres://keeper:{STATE_PASSWORD}@127.0.0.1:1/postgres?sslmode=nonsense");
    let cases = [
        scene.config.clone().set("state.url", &url),
        scene.config.clone().set("planhat.tenant", format!("\"{TENANT}/../x\"")),
        scene
            .config
            .clone()
            .set("planhat.url", format!("\"http://user:{STATE_PASSWORD}@127.0.0.1:1/{TENANT}?x={PASSWORD}\"")),
        scene.config.clone().set("source.password", format!("{{ file: \"/nonexistent/x\", env: \"{TENANT}\" }}")),
        scene.config.clone().set("source.password", format!("[ \"{PASSWORD}\" ]")),
        scene.config.clone().set("planhat.tenant", format!("{{ value: \"{TENANT}\" }}")),
    ];
    for config in cases {
        let app = App::launch(&config).env("RUST_LOG", "trace").start();
        let code = app.wait_exit(PATIENCE).await;
        assert_eq!(code, 64, "{}", app.log());
        assert_silent("the error", &app.log());
    }
}
