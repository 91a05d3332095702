//! The bounds of proof: what an audit may ask and when, since when it proves what, and where it must say that it cannot.

use std::time::Duration;

use pg2planhat::testing::sim::{SimHandle, SinkKind};
use serde_json::Value;

use crate::harness::cluster::Stop;
use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};
use crate::main_job_oracle::*;

fn section(name: &str) -> SectionText {
    SectionText::metric(name, name)
        .set("flush", "100ms")
        .field("externalId", "n")
        .field("value", "v")
        .field("dimensionId", &format!("{{ value: {name} }}"))
        .without("date")
        .set("date", "receipt")
}

fn table(name: &str, key: &str) -> String {
    format!("CREATE TABLE {name} ({key}, n bigint, v float8 DEFAULT 1)")
}

fn config(cluster: &Cluster, sim: &SimHandle) -> ConfigText {
    ConfigText::new(cluster, &sim.url()).set("audit.every", "off")
}

async fn audit(config: &ConfigText, arguments: &[&str]) -> (i32, Value) {
    let output = App::command(config, &[&["--json", "audit"], arguments].concat()).await;
    let documents: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    (output.code, documents[0].clone())
}

/// Waits until an audit finds so many rows delivered, and nothing else.
async fn delivered(config: &ConfigText, name: &str, rows: u64) -> Value {
    eventually(PATIENCE, "every row is delivered", async || {
        let report = audit(config, &[name]).await.1;
        (report["delivered"] == rows && report["rows_source"] == rows).then_some(report)
    })
    .await
}

/// Waits until what was written so far lies below the floor.
async fn floored(cluster: &Cluster) {
    let xid = cluster.number("SELECT pg_current_xact_id()::text").await;
    let floor = format!("SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor > {xid}");
    eventually(PATIENCE, "the floor", async || (cluster.number(&floor).await == 1).then_some(())).await;
}

async fn ends(app: App) {
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "{}", app.log());
}

#[tokio::test]
async fn case_182_no_connection_is_made_while_no_audit_is_due() {
    let cluster = Cluster::builder().setting("log_connections", "on").start().await;
    cluster.sql(&format!("{}; INSERT INTO quiet SELECT 1, 1", table("quiet", "id bigint PRIMARY KEY"))).await;
    let sim = sink().await;
    let config = ConfigText::new(&cluster, &sim.url()).section(section("quiet"));
    let _app = App::run(&config);
    let audits = "SELECT count(*) FROM pg2planhat.audit";
    let becomes = async |wanted: i64| {
        let made = async || {
            let is_there = cluster.number("SELECT count(to_regclass('pg2planhat.audit'))").await == 1;
            (is_there && cluster.number(audits).await == wanted).then_some(())
        };
        eventually(PATIENCE, "an audit by itself", made).await;
    };
    becomes(1).await;
    // The look that follows an audit, and what else begins with a start.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let connections = || {
        let log = cluster.log();
        let ours = log.lines().filter(|line| line.contains("connection authorized") && line.contains("pg2planhat"));
        ours.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = connections();
    assert!(!before.is_empty(), "the log names them");
    tokio::time::sleep(Duration::from_secs(17)).await;
    let after = connections();
    assert_eq!(after.len(), before.len(), "{:?}", &after[before.len()..]);
    // What is done to the section is a cause all the same.
    let again = App::command(&config, &["resync", "quiet", "--all", "--yes"]).await;
    assert_eq!(again.code, 0, "{}", again.stderr);
    becomes(2).await;
}

#[tokio::test]
async fn case_183_what_a_resync_delivered_again_is_proven_when_the_ledger_has_pruned_both() {
    let cluster = Cluster::start().await;
    for (name, key) in [("integers", "id bigint PRIMARY KEY"), ("uuids", "id uuid PRIMARY KEY")] {
        let value = if name == "uuids" { "md5(n::text)::uuid" } else { "n" };
        let fill = format!("INSERT INTO {name} SELECT {value}, n FROM generate_series(1, 300) n");
        cluster.sql(&format!("{}; {fill}", table(name, key))).await;
    }
    let sim = sink().await;
    let config = config(&cluster, &sim).section(section("integers")).section(section("uuids"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 600).await;
    for name in ["integers", "uuids"] {
        delivered(&config, name, 300).await;
        let again = App::command(&config, &["resync", name, "--all", "--yes"]).await;
        assert_eq!(again.code, 0, "{}", again.stderr);
    }
    arrived(&sim, SinkKind::Metric, 1_200).await;
    for name in ["integers", "uuids"] {
        delivered(&config, name, 300).await;
    }
    ends(app).await;
    cluster
        .sql("DELETE FROM pg2planhat.delivery_keys; DELETE FROM pg2planhat.delivery; DELETE FROM pg2planhat.audit")
        .await;
    for name in ["integers", "uuids"] {
        let (code, report) = audit(&config, &[name]).await;
        let told = ["delivered", "unknown", "missing"].map(|field| report[field].as_u64().unwrap());
        assert_eq!((code, told), (0, [300, 0, 0]), "{report}");
    }
}

/// Old rows of a section that delivers new ones alone, which were written again; and the statistics do not show it, since they
/// come late, or were lost.
#[tokio::test]
async fn case_184_rows_of_before_the_attachment_are_not_called_missing_where_statistics_do_not_tell() {
    let cluster = Cluster::start().await;
    let fill = |name: &str| format!("INSERT INTO {name} SELECT n, n FROM generate_series(1, 20) n");
    for name in ["late", "lost"] {
        cluster.sql(&format!("{}; {}", table(name, "id bigint PRIMARY KEY"), fill(name))).await;
    }
    cluster.sql("CREATE TABLE other (n int)").await;
    let sim = sink().await;
    let config = config(&cluster, &sim);
    let config = config.section(section("late").set("start", "now")).section(section("lost").set("start", "now"));
    let app = App::run(&config);
    app.wait_ready().await;
    // As a section has it that attaches beside the stream.
    cluster
        .sql("UPDATE pg2planhat.section SET attach_xmin = pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        .await;
    let insert = |from: i64| format!("SELECT n, n FROM generate_series({from}, {from} + 4) n");
    cluster.sql(&format!("INSERT INTO late {}; INSERT INTO lost {}", insert(101), insert(101))).await;
    arrived(&sim, SinkKind::Metric, 10).await;
    // A session that has just told what it counted keeps what it counts next to itself.
    let idle = cluster.client().await;
    idle.batch_execute("INSERT INTO other VALUES (1)").await.unwrap();
    idle.batch_execute("UPDATE late SET v = 2 WHERE id <= 5").await.unwrap();
    // Version 14 has an idle session tell nothing before its next statement: there the session ends.
    let stays = cluster.number("SHOW server_version_num").await >= 150_000;
    let idle = stays.then_some(idle);
    let report = eventually(PATIENCE, "the floor passes the update", async || {
        let (code, report) = audit(&config, &["late"]).await;
        assert_eq!((code, &report["missing"]), (0, &0.into()), "{report}");
        (report["waiting"] == 0).then_some(report)
    })
    .await;
    assert_eq!(report["unknown"], 5, "{report}");
    drop(idle);

    cluster.sql("UPDATE lost SET v = 2 WHERE id <= 5").await;
    cluster.sql("SELECT pg_stat_reset()").await;
    floored(&cluster).await;
    let (code, report) = audit(&config, &["lost"]).await;
    assert_eq!((code, &report["missing"], &report["unknown"]), (0, &0.into(), &5.into()), "{report}");
    assert!(report["caveat"].as_str().unwrap().contains("statistics"), "{report}");
    drop(app);
}

/// A row that was frozen so long ago that its transaction seems to come yet is no row on its way.
#[tokio::test]
async fn case_185_a_row_of_before_the_wrap_of_the_transaction_counter_is_missing_and_does_not_wait() {
    let cluster = Cluster::builder().setting("ignore_checksum_failure", "on").start().await;
    let fill = "INSERT INTO old SELECT n, n FROM generate_series(1, 10) n";
    cluster.sql(&format!("{}; {fill}", table("old", "id bigint PRIMARY KEY"))).await;
    let sim = sink().await;
    let config = config(&cluster, &sim).section(section("old"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 10).await;
    delivered(&config, "old", 10).await;
    ends(app).await;
    cluster.sql("VACUUM FREEZE old").await;
    cluster.sql("CHECKPOINT").await;
    let file = cluster.data().join(cluster.text("SELECT pg_relation_filepath('old')").await);
    let next: u32 = cluster.text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").await.parse().unwrap();
    cluster.stop(Stop::Fast).await;
    // The line pointers say where each tuple is; its first four bytes are its xmin.
    let mut page = std::fs::read(&file).unwrap();
    let lower = usize::from(u16::from_le_bytes([page[12], page[13]]));
    for pointer in (24..lower).step_by(4) {
        let bits = u32::from_le_bytes(page[pointer..pointer + 4].try_into().unwrap());
        let tuple = usize::try_from(bits & 0x7FFF).unwrap();
        page[tuple..tuple + 4].copy_from_slice(&(next + 1_000_000).to_le_bytes());
    }
    std::fs::write(&file, page).unwrap();
    cluster.start_again().await;
    assert_eq!(cluster.number("SELECT count(*) FROM old").await, 10, "frozen rows are seen by everybody");
    let (code, report) = audit(&config, &["old"]).await;
    assert_eq!((code, &report["delivered"]), (0, &10.into()), "{report}");
    cluster.sql("DELETE FROM pg2planhat.delivery_keys; DELETE FROM pg2planhat.tally").await;
    let (code, report) = audit(&config, &["old"]).await;
    assert_eq!((code, &report["missing"], &report["waiting"]), (1, &10.into(), &0.into()), "{report}");
}

#[tokio::test]
async fn case_186_a_report_says_since_when_it_proves_by_keys_and_since_when_by_counts() {
    let cluster = Cluster::start().await;
    let fill = "INSERT INTO event SELECT n, n FROM generate_series(1, 100) n";
    cluster.sql(&format!("{}; {fill}", table("event", "id bigint PRIMARY KEY"))).await;
    let sim = sink().await;
    let config = config(&cluster, &sim).section(section("event"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 100).await;
    cluster.sql("INSERT INTO event SELECT n, n FROM generate_series(101, 120) n").await;
    arrived(&sim, SinkKind::Metric, 120).await;
    let report = delivered(&config, "event", 120).await;
    let text = |report: &Value, field: &str| report[field].as_str().unwrap_or_else(|| panic!("{report}")).to_owned();
    let counted = text(&report, "by_count_since");
    assert_eq!(text(&report, "by_key_from"), "1");
    let first = text(&report, "by_key_since");
    assert!(first >= counted, "{report}");
    ends(app).await;
    cluster
        .sql(
            "WITH gone AS (DELETE FROM pg2planhat.delivery WHERE phase = 'backfill' RETURNING id)
             DELETE FROM pg2planhat.delivery_keys k USING gone WHERE k.delivery = gone.id",
        )
        .await;
    let (_, report) = audit(&config, &["event"]).await;
    assert_eq!((text(&report, "by_key_from").as_str(), text(&report, "by_count_since")), ("101", counted), "{report}");
    assert!(text(&report, "by_key_since") > first && report["delivered"] == 120, "{report}");
    let said = App::command(&config, &["audit", "event"]).await;
    let line = said.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(line.contains("from key 101 on") && line.contains("by counts"), "{}", said.stdout);
    let traced = App::command(&config, &["--json", "trace", "event", "5"]).await;
    assert!(traced.stdout.contains(&format!("goes back to {}", text(&report, "by_key_since"))), "{}", traced.stdout);
    // A part says that it is one.
    let (_, part) = audit(&config, &["event", "--from-key", "110"]).await;
    assert!(text(&part, "caveat").contains("only keys greater than 110"), "{part}");
}

/// Keys whose text is not what a cast to text prints, or is text that somebody may take for something else.
#[tokio::test]
async fn case_187_keys_of_hostile_text_are_found_and_missed_by_name() {
    let cluster = Cluster::start().await;
    let tables = [
        ("chars", "id char(6) PRIMARY KEY", "id", ["'a'", "' b'", "'c,\"d'", "'-1'"]),
        (
            "wide",
            "id text COLLATE \"C\" PRIMARY KEY",
            "id",
            ["E'\\x1b[31mred'", "E'a\\n\\tb\\\\N'", "'[1,2]'", "repeat('é', 1200)"],
        ),
        (
            "parts",
            "a boolean, b inet, c text, PRIMARY KEY (a, b, c)",
            "[a, b, c]",
            [
                "true, '10.0.0.1', 'x,y'",
                "false, '::1/64', ''",
                "true, '10.0.0.0/8', '\"'",
                "false, '10.0.0.1', E'\\r\\n'",
            ],
        ),
        (
            "numbers",
            "id numeric PRIMARY KEY",
            "id",
            ["-123456789012345678901234567890.50", "-7", "1.50", "9223372036854775808"],
        ),
    ];
    let sim = sink().await;
    let mut config = config(&cluster, &sim);
    for (name, columns, key, values) in &tables {
        cluster.sql(&format!("{}; INSERT INTO {name} VALUES ({}, 1)", table(name, columns), values[0])).await;
        config = config.section(section(name).set("key", key));
    }
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 4).await;
    for (name, _, _, values) in &tables {
        cluster.sql(&format!("INSERT INTO {name} VALUES ({}, 2)", values[1])).await;
    }
    arrived(&sim, SinkKind::Metric, 8).await;
    for (name, ..) in &tables {
        delivered(&config, name, 2).await;
    }
    cluster
        .sql("CREATE TABLE kept AS TABLE pg2planhat.tally; CREATE TABLE ids AS SELECT id FROM pg2planhat.delivery")
        .await;
    for (name, _, _, values) in &tables {
        cluster.sql(&format!("INSERT INTO {name} VALUES ({}, 3), ({}, 4)", values[2], values[3])).await;
    }
    // Beside the stream: whatever is on its way is not missing.
    for (name, ..) in &tables {
        assert_eq!(audit(&config, &[name]).await.1["missing"], 0);
    }
    arrived(&sim, SinkKind::Metric, 16).await;
    for (name, ..) in &tables {
        delivered(&config, name, 4).await;
    }
    floored(&cluster).await;
    ends(app).await;
    cluster
        .sql(
            "DELETE FROM pg2planhat.delivery_keys WHERE delivery NOT IN (SELECT id FROM ids);
             DELETE FROM pg2planhat.delivery WHERE id NOT IN (SELECT id FROM ids);
             DELETE FROM pg2planhat.tally; INSERT INTO pg2planhat.tally TABLE kept",
        )
        .await;
    for (name, ..) in &tables {
        let (code, report) = audit(&config, &[name]).await;
        assert_eq!((code, &report["missing"], &report["unknown"]), (1, &2.into(), &0.into()), "{report}");
        for key in report["missing_keys"].as_array().unwrap() {
            let traced = App::command(&config, &["--json", "trace", name, key.as_str().unwrap()]).await;
            let found: Value = serde_json::from_str(&traced.stdout).unwrap_or_else(|_| panic!("{}", traced.stderr));
            assert_eq!(
                (&found["outcome"], &found["source"], &found["key"]),
                (&"unknown".into(), &"present".into(), key)
            );
            let told = App::command(&config, &["trace", name, key.as_str().unwrap()]).await;
            assert!(!told.stdout.contains('\u{1b}'), "{:?}", told.stdout);
        }
    }
}

/// The ledger has pruned what came first, and a row of it is deleted: its block is never whole again. What an audit found
/// settled then need not be proven again, and what was lost since has its name.
#[tokio::test]
async fn case_188_a_loss_beside_pruned_batches_has_its_name_whatever_the_key() {
    let cluster = Cluster::start().await;
    let uuids = |from: i64, to: i64| {
        format!("INSERT INTO event SELECT md5(n::text)::uuid, n FROM generate_series({from}, {to}) n")
    };
    cluster.sql(&format!("{}; {}", table("event", "id uuid PRIMARY KEY"), uuids(1, 300))).await;
    let sim = sink().await;
    let config = config(&cluster, &sim).section(section("event").set("batch", "{ rows: 100 }"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 300).await;
    delivered(&config, "event", 300).await;
    cluster.sql(&uuids(301, 320)).await;
    arrived(&sim, SinkKind::Metric, 320).await;
    floored(&cluster).await;
    let report = delivered(&config, "event", 320).await;
    cluster.sql("DELETE FROM event WHERE n = 7").await;
    // The oldest first, as by age.
    let kept = "SELECT min((result->'horizon'->>'delivery')::bigint) FROM pg2planhat.audit
        WHERE (result->'horizon'->>'next')::bigint <= (SELECT max((result->'horizon'->>'settled')::bigint)
            FROM pg2planhat.audit WHERE result->>'unknown' = '0' AND result->>'missing' = '0')";
    let kept = cluster.text(kept).await;
    cluster
        .sql(&format!(
            "WITH gone AS (DELETE FROM pg2planhat.delivery WHERE started_at < (
                    SELECT started_at FROM pg2planhat.delivery WHERE id = {kept}) RETURNING id)
             DELETE FROM pg2planhat.delivery_keys k USING gone WHERE k.delivery = gone.id"
        ))
        .await;
    cluster
        .sql("CREATE TABLE tally AS TABLE pg2planhat.tally; CREATE TABLE ids AS SELECT id FROM pg2planhat.delivery")
        .await;
    cluster.sql(&uuids(401, 410)).await;
    arrived(&sim, SinkKind::Metric, 330).await;
    floored(&cluster).await;
    let (code, healthy) = audit(&config, &["event"]).await;
    let settled = |report: &Value| report["delivered"].as_u64().unwrap() + report["settled_before"].as_u64().unwrap();
    assert_eq!((code, settled(&healthy), &healthy["unknown"]), (0, 329, &0.into()), "{healthy}\nbefore: {report}");
    assert!(healthy["settled_before"].as_u64() > Some(0), "{healthy}");
    ends(app).await;
    cluster
        .sql(
            "DELETE FROM pg2planhat.delivery_keys WHERE delivery NOT IN (SELECT id FROM ids);
             DELETE FROM pg2planhat.delivery WHERE id NOT IN (SELECT id FROM ids);
             DELETE FROM pg2planhat.tally; INSERT INTO pg2planhat.tally TABLE tally;
             DELETE FROM pg2planhat.audit WHERE id = (SELECT max(id) FROM pg2planhat.audit)",
        )
        .await;
    let (code, report) = audit(&config, &["event"]).await;
    let named = report["missing_keys"].as_array().unwrap().len();
    assert_eq!((code, named, &report["unknown"]), (1, 10, &0.into()), "{report}");
    // Where rows may have been updated, nothing tells an old row from a new one, and it says so.
    cluster.sql("UPDATE event SET v = 2 WHERE n = 8").await;
    let (_, report) = audit(&config, &["event"]).await;
    assert_eq!(
        (&report["missing"], report["caveat"].as_str().unwrap().contains("updated")),
        (&0.into(), true),
        "{report}"
    );
}
