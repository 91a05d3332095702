//! Trace and audit: every row can be found, every loss that is planted is named, and a healthy history is silent.

use std::time::Duration;

use pg2planhat::testing::sim::{SimFault, SinkKind};
use serde_json::Value;

use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};
use crate::main_job_oracle::*;

const EVENTS: &str =
    "CREATE TABLE event (id bigserial PRIMARY KEY, email text DEFAULT 'a@example.com', n numeric DEFAULT 1,
    at timestamptz DEFAULT now())";

fn events() -> SectionText {
    SectionText::activity("events", "event")
        .without("email")
        .field("externalId", "id")
        .field("weight", "n")
        .field("action", "{ value: login }")
}

async fn audit(config: &ConfigText, arguments: &[&str]) -> (i32, Value) {
    let output = App::command(config, &[&["--json", "audit"], arguments].concat()).await;
    let documents: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    (output.code, documents[0].clone())
}

async fn trace(config: &ConfigText, key: &str) -> Value {
    let output = App::command(config, &["--json", "trace", "events", key]).await;
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr))
}

fn number(document: &Value, field: &str) -> u64 {
    document[field].as_u64().unwrap_or_else(|| panic!("{field} in {document}"))
}

#[tokio::test]
async fn a_healthy_history_is_silent_and_each_row_is_found() {
    let cluster = Cluster::start().await;
    cluster.sql(&format!("{EVENTS}; INSERT INTO event (n) SELECT 1 FROM generate_series(1, 700)")).await;
    let sim = sink().await;
    let config = ConfigText::new(&cluster, &sim.url()).section(events().set("flush", "200ms"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Activity, 700).await;
    for _ in 0..30 {
        cluster.sql("INSERT INTO event (n) VALUES (2), (2)").await;
    }
    cluster.sql("INSERT INTO event (n) VALUES ('NaN')").await;
    arrived(&sim, SinkKind::Activity, 760).await;
    // On its way: no verdict of "missing", however long it stays open.
    let open = cluster.client().await;
    open.batch_execute("BEGIN; INSERT INTO event (n) VALUES (3)").await.unwrap();
    eventually(PATIENCE, "the whole table is accounted for", async || {
        let (code, report) = audit(&config, &["events"]).await;
        let exact = number(&report, "delivered") == 760 && number(&report, "quarantined") == 1;
        let silent = ["missing", "unknown", "doubled", "gone"].iter().all(|field| number(&report, field) == 0);
        (code == 0 && exact && silent && number(&report, "rows_source") == 761).then_some(())
    })
    .await;
    open.batch_execute("COMMIT").await.unwrap();

    let old = trace(&config, "350").await;
    assert_eq!((&old["outcome"], &old["source"]), (&"delivered".into(), &"present".into()), "{old}");
    assert_eq!(
        (&old["deliveries"][0]["phase"], &old["deliveries"][0]["http_status"]),
        (&"backfill".into(), &200.into())
    );
    let new = trace(&config, "755").await;
    assert_eq!((&new["outcome"], &new["deliveries"][0]["phase"]), (&"delivered".into(), &"stream".into()), "{new}");
    assert_eq!(trace(&config, "761").await["outcome"], "quarantined");
    let never = trace(&config, "99999").await;
    assert_eq!((&never["outcome"], &never["source"]), (&"unknown".into(), &"absent".into()), "{never}");
    let refused = App::command(&config, &["trace", "events", "no-number"]).await;
    assert_eq!(refused.code, 64, "{}", refused.stderr);

    // Deleted at the source: gone, which is no error.
    cluster.sql("DELETE FROM event WHERE id BETWEEN 10 AND 19").await;
    let (code, report) = audit(&config, &["events"]).await;
    assert_eq!((code, number(&report, "gone"), number(&report, "missing")), (0, 10, 0), "{report}");
    assert_eq!(trace(&config, "15").await["source"], "absent");
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(20)).await, 0, "{}", app.log());
    // Without an instance, too.
    assert_eq!(audit(&config, &["events"]).await.0, 0);
}

#[tokio::test]
async fn case_164_planted_losses_are_named_and_delivered_as_a_repair() {
    let cluster = Cluster::start().await;
    cluster.sql(&format!("{EVENTS}; INSERT INTO event (n) SELECT 1 FROM generate_series(1, 400)")).await;
    let sim = sink().await;
    let config =
        ConfigText::new(&cluster, &sim.url()).section(events().set("flush", "100ms").set("batch", "{ rows: 50 }"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Activity, 400).await;
    cluster.sql("INSERT INTO event (n) SELECT 2 FROM generate_series(1, 100)").await;
    arrived(&sim, SinkKind::Activity, 500).await;
    eventually(PATIENCE, "the ledger has ended", async || {
        (audit(&config, &["events"]).await.1["delivered"] == 500).then_some(())
    })
    .await;
    // A skipped chunk and a skipped transaction, as the ledger would look after them.
    let plant = "DELETE FROM pg2planhat.delivery_keys WHERE delivery IN (
            SELECT id FROM pg2planhat.delivery WHERE first_key IN ('101', '451'));
        DELETE FROM pg2planhat.tally";
    let lost: Vec<(i64, i64)> = cluster
        .rows("SELECT first_key, last_key FROM pg2planhat.delivery WHERE first_key IN ('101', '451') ORDER BY id")
        .await
        .iter()
        .map(|row| (row[0].as_ref().unwrap().parse().unwrap(), row[1].as_ref().unwrap().parse().unwrap()))
        .collect();
    assert!(!lost.is_empty(), "{}", app.log());
    let keys: Vec<String> = lost.iter().flat_map(|(first, last)| *first..=*last).map(|key| key.to_string()).collect();
    cluster.sql(plant).await;
    let (code, report) = audit(&config, &["events"]).await;
    let named: Vec<&str> = report["missing_keys"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!((code, named), (1, keys.iter().map(String::as_str).collect::<Vec<_>>()), "{report}");
    assert_eq!(trace(&config, &keys[0]).await["outcome"], "unknown");

    // It ends while the first of them are under way; what is left goes on as a repair, whoever asks for it.
    let later = SimFault::Status { status: 503, retry_after: None, body: String::new(), store: false };
    sim.set_fault_rate(1, 1.0, vec![later]);
    let delivered = App::command(&config, &["audit", "events", "--deliver-missing", "--yes"]).await;
    assert_eq!(delivered.code, 1, "{}", delivered.stderr);
    let under_way = "SELECT count(*) FROM pg2planhat.delivery WHERE phase = 'repair' AND outcome = 'sending'";
    eventually(PATIENCE, "a repair under way", async || (cluster.number(under_way).await > 0).then_some(())).await;
    app.kill9().await;
    sim.clear_faults();
    let app = App::run(&config);
    app.wait_ready().await;
    let retried = App::command(&config, &["quarantine", "retry", "--all", "--yes"]).await;
    assert_eq!(retried.code, 0, "{}", retried.stderr);
    arrived(&sim, SinkKind::Activity, 500 + keys.len()).await;
    eventually(PATIENCE, "nothing is missing any more", async || {
        (audit(&config, &["events"]).await.0 == 0).then_some(())
    })
    .await;
    let found = trace(&config, &keys[0]).await;
    let newest = found["deliveries"].as_array().unwrap().last().unwrap();
    assert_eq!((&newest["phase"], &newest["certain"]), (&"repair".into(), &true.into()), "{found}");
    let phases = "SELECT string_agg(DISTINCT phase, ' ' ORDER BY phase) FROM pg2planhat.delivery";
    assert_eq!(cluster.text(phases).await, "backfill repair stream");
}

#[tokio::test]
async fn an_in_doubt_row_and_a_dropped_one_are_told_apart() {
    let cluster = Cluster::start().await;
    cluster.sql(EVENTS).await;
    let sim = sink().await;
    let config = ConfigText::new(&cluster, &sim.url()).section(events().set("flush", "100ms").set("in_doubt", "hold"));
    let app = App::run(&config);
    app.wait_ready().await;
    cluster.sql("INSERT INTO event (n) VALUES (1)").await;
    arrived(&sim, SinkKind::Activity, 1).await;
    sim.queue_fault(SimFault::ResetAfterStoring);
    cluster.sql("INSERT INTO event (n) VALUES (1), ('NaN')").await;
    eventually(PATIENCE, "both rows wait in quarantine", async || {
        (cluster.rows("SELECT 1 FROM pg2planhat.quarantine").await.len() == 2).then_some(())
    })
    .await;
    let held = trace(&config, "2").await;
    assert_eq!(held["outcome"], "quarantined", "{held}");
    let dropped = App::command(&config, &["quarantine", "drop", "--all", "--yes"]).await;
    assert_eq!(dropped.code, 0, "{}", dropped.stderr);
    let (code, report) = audit(&config, &["events"]).await;
    assert_eq!((code, number(&report, "missing"), number(&report, "quarantined")), (0, 0, 2), "{report}");
    assert!(trace(&config, "3").await["why"].as_str().unwrap().contains("dropped it"));
}

#[tokio::test]
async fn the_end_of_a_backfill_is_audited_by_itself() {
    let cluster = Cluster::start().await;
    cluster.sql(&format!("{EVENTS}; INSERT INTO event (n) SELECT 1 FROM generate_series(1, 300)")).await;
    let sim = sink().await;
    let config = ConfigText::new(&cluster, &sim.url()).section(events().set("flush", "100ms"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Activity, 300).await;
    let labels = [("section", "events")];
    eventually(PATIENCE, "an audit by itself", async || {
        let missing = app.metric("pg2planhat_audit_missing_rows", &labels).await;
        let at = app.metric("pg2planhat_audit_timestamp_seconds", &labels).await;
        (missing == Some(0.0) && at.is_some_and(|at| at > 1.7e9)).then_some(())
    })
    .await;
    let kept = cluster.rows("SELECT cause, result->>'delivered' FROM pg2planhat.audit ORDER BY id LIMIT 1").await;
    assert_eq!(kept[0][1].as_deref(), Some("300"), "{kept:?}");
}

/// By itself the whole after a backfill and after a repair, also one that was done while nothing ran; between them only what
/// is new. What was found missing stays found until a whole audit says otherwise.
#[tokio::test]
async fn case_165_audits_by_themselves_look_at_the_whole_after_a_repair_and_else_at_what_is_new() {
    let cluster = Cluster::start().await;
    cluster.sql(&format!("{EVENTS}; INSERT INTO event (n) SELECT 1 FROM generate_series(1, 300)")).await;
    let sim = sink().await;
    let config =
        ConfigText::new(&cluster, &sim.url()).set("audit.every", "100ms").section(events().set("flush", "100ms"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Activity, 300).await;
    let audits = "SELECT cause, result->>'whole', coalesce(result->>'from', '-'), result->>'rows_source',
        result->>'missing' FROM pg2planhat.audit ORDER BY id DESC LIMIT 1";
    let last = async || {
        let rows = cluster.rows(audits).await;
        rows.first().map(|row| row.iter().map(|one| one.clone().unwrap()).collect::<Vec<_>>().join(" "))
    };
    let becomes = async |wanted: &str| {
        eventually(PATIENCE, wanted, async || (last().await.as_deref() == Some(wanted)).then_some(())).await;
    };
    becomes("schedule false 300 0 0").await;
    let first =
        cluster.text("SELECT cause || ' ' || (result->>'whole') FROM pg2planhat.audit ORDER BY id LIMIT 1").await;
    assert_eq!(first, "backfill true");
    cluster.sql("INSERT INTO event (n) SELECT 2 FROM generate_series(1, 20)").await;
    arrived(&sim, SinkKind::Activity, 320).await;
    becomes("schedule false 300 20 0").await;

    let missing = async || app.metric("pg2planhat_audit_missing_rows", &[("section", "events")]).await;
    cluster.sql("DELETE FROM pg2planhat.delivery_keys; DELETE FROM pg2planhat.tally").await;
    becomes("schedule false 300 20 20").await;
    let (code, _) = audit(&config, &["events"]).await;
    assert_eq!(code, 1);
    eventually(PATIENCE, "the alarm", async || (missing().await == Some(320.0)).then_some(())).await;
    // A person looks at a part that is in order, and the alarm stays.
    let (code, report) = audit(&config, &["events", "--from-key", "320"]).await;
    assert_eq!((code, &report["whole"]), (0, &false.into()), "{report}");
    becomes("schedule true - 320 320").await;
    assert_eq!(missing().await, Some(320.0));
    let delivered = App::command(&config, &["audit", "events", "--deliver-missing", "--yes"]).await;
    assert_eq!(delivered.code, 1, "{}", delivered.stderr);
    becomes("schedule false 320 0 0").await;
    let repaired = "SELECT count(*) FROM pg2planhat.audit WHERE cause = 'repair' AND result->>'whole' = 'true'";
    assert!(cluster.number(repaired).await > 0);
    eventually(PATIENCE, "the end of the alarm", async || (missing().await == Some(0.0)).then_some(())).await;

    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(20)).await, 0, "{}", app.log());
    cluster.sql("INSERT INTO event (n) SELECT 3 FROM generate_series(1, 7)").await;
    cluster.sql("SELECT pg_replication_slot_advance('pg2planhat', pg_current_wal_lsn())").await;
    let mended = App::command(&config, &["repair", "--accept-loss", "--yes"]).await;
    assert_eq!(mended.code, 0, "{}", mended.stderr);
    let _app = App::run(&config);
    let named = "SELECT result->>'missing_keys' FROM pg2planhat.audit
        WHERE cause = 'repair' AND result->>'missing' = '7' ORDER BY id DESC LIMIT 1";
    let keys = eventually(PATIENCE, "an audit by itself after the repair", async || {
        cluster.rows(named).await.into_iter().next().map(|mut row| row.remove(0).unwrap())
    })
    .await;
    assert_eq!(keys, r#"["321", "322", "323", "324", "325", "326", "327"]"#);
}

#[tokio::test]
async fn case_167_check_says_how_large_the_sets_of_keys_grow() {
    let cluster = Cluster::start().await;
    let tables = "CREATE TABLE event (id uuid PRIMARY KEY, n numeric, at timestamptz);
        CREATE TABLE other (id bigint PRIMARY KEY, n numeric, at timestamptz);
        UPDATE pg_class SET reltuples = 10000000, relpages = 100000 WHERE relname IN ('event', 'other')";
    cluster.sql(tables).await;
    let sim = sink().await;
    let other = SectionText::activity("other", "other").without("email").field("externalId", "id");
    let other = other.field("weight", "n").field("action", "{ value: login }");
    let config = ConfigText::new(&cluster, &sim.url()).section(events()).section(other);
    let output = App::command(&config, &["--json", "check"]).await;
    let document: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    let findings = document["findings"].as_array().unwrap();
    let told: Vec<&Value> = findings.iter().filter(|finding| finding["code"] == "key_sets").collect();
    assert_eq!(told.len(), 1, "integers that are dense cost next to nothing: {findings:?}");
    let message = told[0]["message"].as_str().unwrap();
    assert!(message.contains("86 MiB in the state (9 bytes a row"), "{message}");
}

/// An audit is in nobody's way: it holds no snapshot longer than a chunk, and one that is broken off leaves nothing.
#[tokio::test]
async fn case_166_an_audit_holds_no_snapshot_and_leaves_nothing_when_it_is_broken_off() {
    let cluster = Cluster::start().await;
    let fill = "INSERT INTO event (n) SELECT 1 FROM generate_series(1, 600000)";
    cluster.sql(&format!("{EVENTS}; {fill}; CREATE TABLE other (n int)")).await;
    cluster.sql("VACUUM ANALYZE event").await;
    let sim = sink().await;
    let config = ConfigText::new(&cluster, &sim.url()).section(events().set("start", "now"));
    let app = App::run(&config);
    app.wait_ready().await;
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(20)).await, 0, "{}", app.log());

    let running = App::launch(&config).arguments(&["--json", "audit", "events"]).start();
    let sessions = "SELECT pid, coalesce(backend_xmin::text, '-') FROM pg_stat_activity
        WHERE application_name LIKE 'pg2planhat%'";
    let mut horizons = std::collections::BTreeSet::new();
    let (mut looks, mut locked) = (0, 0);
    while running.is_running() {
        // Somebody else's transactions go by, and change the table, too.
        cluster.sql("INSERT INTO other VALUES (1); DELETE FROM other; UPDATE event SET n = 2 WHERE id = 1").await;
        let rows = cluster.rows(sessions).await;
        horizons.extend(rows.iter().map(|row| row[1].clone().unwrap()).filter(|xmin| xmin != "-"));
        locked += cluster
            .number(
                "SELECT count(*) FROM pg_locks WHERE mode LIKE '%Exclusive%' AND relation = 'event'::regclass
            AND pid IN (SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pg2planhat%')",
            )
            .await;
        looks += 1;
    }
    assert_eq!(locked, 0, "it locks nothing");
    assert!(horizons.len() > 2, "{looks} looks saw the horizons {horizons:?}: it held one snapshot");
    let vacuum = cluster.client().await;
    vacuum.batch_execute("VACUUM other").await.unwrap();
    assert_eq!(cluster.number("SELECT pg_relation_size('other')").await, 0, "dead rows were kept");

    let kept = cluster.number("SELECT count(*) FROM pg2planhat.audit").await;
    let broken = App::launch(&config).arguments(&["audit", "events"]).start();
    eventually(PATIENCE, "the audit's session", async || {
        let reading = format!("SELECT count(*) FROM ({sessions} AND query LIKE 'COPY%') s");
        (cluster.number(&reading).await > 0).then_some(())
    })
    .await;
    rustix::process::kill_process(rustix::process::Pid::from_raw(broken.id()).unwrap(), rustix::process::Signal::INT)
        .unwrap();
    let code = broken.wait_exit(Duration::from_secs(20)).await;
    assert!(code != 0, "{code}: {}", broken.log());
    eventually(PATIENCE, "no session is left", async || (cluster.rows(sessions).await.is_empty()).then_some(())).await;
    assert_eq!(cluster.number("SELECT count(*) FROM pg2planhat.audit").await, kept);
    // Who locks the table is waited for within bounds, and told.
    let locker = cluster.client().await;
    locker.batch_execute("BEGIN; LOCK TABLE event").await.unwrap();
    let refused = App::command(&config, &["audit", "events"]).await;
    assert!(refused.code != 0 && refused.stderr.contains("lock"), "{}", refused.stderr);
}
