//! `on: insert_and_update`: each committed version of a row becomes an item, beside whatever the application does, and the
//! table's last version of a row is the last that Planhat received of it.

use std::collections::BTreeMap;
use std::time::Duration;

use pg2planhat::testing::sim::{SimFault, SimHandle, SinkKind};
use serde_json::Value;

use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::*;
use crate::versions_main_job::on_some_versions;

on_some_versions!({
    case_150_each_version_is_sent_and_the_last_of_a_batch_stands_for_it
    case_151_values_that_an_update_does_not_bring_are_read_or_said_to_be_unknown
    case_152_a_table_without_replica_identity_is_refused_and_never_published
    case_153_a_running_instance_turns_to_updates_without_losing_a_row
    case_154_the_last_value_stands_after_a_kill_refusals_and_doubt
    case_155_updates_that_were_not_streamed_are_a_gap_that_repair_reads
    case_156_a_backfill_sends_no_version_behind_a_newer_one
});

const TOTALS: &str = "CREATE TABLE totals (account text, day date, value int, note text, PRIMARY KEY (account, day))";

/// A metric over the daily totals, whose `externalId` is the account.
fn totals() -> SectionText {
    SectionText::metric("totals", "totals")
        .set("key", "[account, day]")
        .set("on", "insert_and_update")
        .field("externalId", "account")
        .field("date", "day")
}

fn config(cluster: &Cluster, sim: &SimHandle, section: SectionText) -> ConfigText {
    ConfigText::new(cluster, &sim.url()).set("audit", "{ every: off }").section(section)
}

/// `externalId` and `value` of every metric that was received, in order of acceptance.
fn received(sim: &SimHandle) -> Vec<(String, i64)> {
    let items = sim.items(SinkKind::Metric);
    items.iter().map(|item| (text(item, "externalId"), item.item()["value"].as_i64().unwrap())).collect()
}

/// The last value that was received of each `externalId`.
fn last(sim: &SimHandle) -> BTreeMap<String, i64> {
    received(sim).into_iter().collect()
}

/// What a query of two columns says: key and value.
async fn stands(cluster: &Cluster, query: &str) -> BTreeMap<String, i64> {
    let rows = cluster.rows(query).await;
    rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].as_ref().unwrap().parse().unwrap())).collect()
}

/// Waits until the sink's last value of each key is the table's.
async fn settles(cluster: &Cluster, sim: &SimHandle, query: &str) {
    let wanted = stands(cluster, query).await;
    eventually(PATIENCE, "the last values to be the table's", async || (last(sim) == wanted).then_some(())).await;
}

async fn json(config: &ConfigText, arguments: &[&str]) -> Value {
    App::command(config, &[&["--json"], arguments].concat()).await.json()
}

/// Waits until the stream brings updates.
async fn carries_updates(app: &App, cluster: &Cluster) {
    app.wait_ready().await;
    let named = "SELECT count(*) FROM pg2planhat.instance WHERE updates_from IS NOT NULL";
    eventually(PATIENCE, "the updates' beginning", async || (cluster.number(named).await == 1).then_some(())).await;
    eventually(PATIENCE, "a stream with updates", async || {
        let passed = "SELECT count(*) FROM pg2planhat.instance WHERE checkpoint >= updates_from";
        (cluster.number(passed).await == 1).then_some(())
    })
    .await;
}

async fn case_150_each_version_is_sent_and_the_last_of_a_batch_stands_for_it(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster
        .sql(&format!(
            "{TOTALS}; ALTER TABLE totals REPLICA IDENTITY FULL;
             INSERT INTO totals SELECT 'a' || g, '2026-01-01', g FROM generate_series(1, 20) g;
             CREATE TABLE plain (id bigint PRIMARY KEY, account text, value int, at timestamptz DEFAULT now())"
        ))
        .await;
    let sim = sink().await;
    let plain = SectionText::metric("plain", "plain").field("externalId", "account").set("sync", "receive");
    let config = config(&cluster, &sim, totals()).section(plain);
    let app = App::run(&config);
    app.wait_ready().await;
    arrived(&sim, SinkKind::Metric, 20).await;
    let publishes =
        "SELECT string_agg(pubname || ' ' || pubinsert || ' ' || pubupdate || ' ' || pubdelete, ', ' ORDER BY pubname)
        FROM pg_publication";
    let said = cluster.text(publishes).await;
    assert_eq!(said, "pg2planhat true false false, pg2planhat_updates true true false");
    let carried = "SELECT string_agg(tablename, ',') FROM pg_publication_tables WHERE pubname = 'pg2planhat_updates'";
    assert_eq!(cluster.text(carried).await, "totals", "the others stay insert-only");
    // 10 → 25 on the same day; a column that nobody maps; the same value written again; an upsert.
    cluster
        .sql(
            "UPDATE totals SET value = 25 WHERE account = 'a1'; UPDATE totals SET note = 'x' WHERE account = 'a2';
             UPDATE totals SET value = value WHERE account = 'a3'; UPDATE plain SET value = 1;
             INSERT INTO plain VALUES (1, 'p1', 7); UPDATE plain SET value = 8;
             INSERT INTO totals VALUES ('a4', '2026-01-01', 44) ON CONFLICT (account, day) DO UPDATE SET value = EXCLUDED.value;
             DELETE FROM totals WHERE account = 'a20'",
        )
        .await;
    arrived(&sim, SinkKind::Metric, 23).await;
    let news = sorted(received(&sim)[20..].to_vec());
    assert_eq!(news, [("a1".to_owned(), 25), ("a4".to_owned(), 44), ("p1".to_owned(), 7)]);
    // Of the versions of one batch only the last goes; another key is another row.
    cluster
        .sql(
            "BEGIN; UPDATE totals SET value = 1 WHERE account = 'a5'; UPDATE totals SET value = 2 WHERE account = 'a5';
             UPDATE totals SET value = 3 WHERE account = 'a5'; UPDATE totals SET account = 'b6' WHERE account = 'a6'; COMMIT",
        )
        .await;
    arrived(&sim, SinkKind::Metric, 25).await;
    assert_eq!(sorted(received(&sim)[23..].to_vec()), [("a5".to_owned(), 3), ("b6".to_owned(), 6)]);
    let count = async |metric: &str, more: &[(&str, &str)]| {
        let labels = [&[("section", "totals"), ("phase", "stream")], more].concat();
        app.metric(&format!("pg2planhat_{metric}"), &labels).await.unwrap_or_default()
    };
    eventually(PATIENCE, "balanced books", async || {
        let reasons = ["unchanged", "superseded"].map(|reason| [("reason", reason)]);
        let unchanged = count("rows_filtered_total", &reasons[0]).await;
        let superseded = count("rows_filtered_total", &reasons[1]).await;
        let (read, delivered) = (count("rows_read_total", &[]).await, count("rows_delivered_total", &[]).await);
        ((read, delivered, unchanged, superseded) == (8.0, 4.0, 2.0, 2.0)).then_some(())
    })
    .await;
    // Each by its own meaning: versions are no doubles, and an older version says nothing of a newer one.
    let report = json(&config, &["audit", "totals"]).await;
    let figures =
        ["rows_source", "delivered", "missing", "doubled", "unknown"].map(|name| report[0][name].as_u64().unwrap());
    assert_eq!(figures, [19, 19, 0, 0, 0], "{report}");
    assert!(report[0]["caveat"].as_str().unwrap().contains("version"), "{report}");
    let traced = eventually(PATIENCE, "the newest version to be settled", async || {
        let traced = json(&config, &["trace", "totals", "a1,2026-01-01"]).await;
        (traced["outcome"] == "delivered").then_some(traced)
    })
    .await;
    assert_eq!(traced["deliveries"].as_array().unwrap().len(), 2, "{traced}");
    assert!(traced["why"].as_str().unwrap().contains("newest of 2 versions"), "{traced}");
    // A re-sync sends each row once, as it is.
    json(&config, &["resync", "totals", "--all", "--yes"]).await;
    arrived(&sim, SinkKind::Metric, 44).await;
    settles_but(&cluster, &sim, "a20").await;
    drain(app, &cluster).await;
    let before = sim.stats().metrics.items;
    let app = App::run(&config);
    app.wait_ready().await;
    cluster.sql("UPDATE totals SET value = 100 WHERE account = 'a1'").await;
    arrived(&sim, SinkKind::Metric, usize::try_from(before).unwrap() + 1).await;
    assert_eq!(sim.stats().metrics.items, before + 1, "a restart sends nothing again");
    assert_eq!(
        json(&config, &["check"]).await["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["severity"] == "error")
            .count(),
        0
    );
    drain(app, &cluster).await;
    let torn = App::command(&config, &["teardown", "--yes"]).await;
    assert_eq!(torn.code, 0, "{}", torn.stderr);
    assert_eq!(cluster.number("SELECT count(*) FROM pg_publication").await, 0);
}

/// The last values are the table's, but for rows that are gone, or that another section sends.
async fn settles_but(cluster: &Cluster, sim: &SimHandle, gone: &str) {
    let wanted = stands(cluster, "SELECT account, value FROM totals").await;
    eventually(PATIENCE, "the last values to be the table's", async || {
        let last = last(sim);
        let is_there = |(key, value): (&String, &i64)| last.get(key) == Some(value);
        (wanted.iter().all(is_there) && last.contains_key(gone)).then_some(())
    })
    .await;
}

async fn case_151_values_that_an_update_does_not_bring_are_read_or_said_to_be_unknown(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster
        .sql(
            "CREATE TABLE event (id bigint PRIMARY KEY, who text, note text, n int, at timestamptz DEFAULT now());
             ALTER TABLE event ALTER COLUMN note SET STORAGE EXTERNAL, ALTER COLUMN who SET STORAGE EXTERNAL",
        )
        .await;
    let sim = sink().await;
    let section = SectionText::activity("s", "event")
        .set("on", "insert_and_update")
        .without("email")
        .without("weight")
        .field("externalId", "who")
        .field("action", "{ value: seen }")
        .field("info", "{ n: n, note: note }");
    let config = config(&cluster, &sim, section);
    let app = App::run(&config);
    app.wait_ready().await;
    let wide = "repeat('x', 5000)";
    cluster
        .sql(&format!(
            "INSERT INTO event VALUES (1, 'u1', {wide}, 1), (2, 'u2', {wide}, 1), (3, {wide}, 'short', 1);
             UPDATE event SET n = 2 WHERE id = 1"
        ))
        .await;
    let items = arrived(&sim, SinkKind::Activity, 4).await;
    let info = |at: usize| items[at].item()["info"].clone();
    assert_eq!((info(3)["n"].as_i64(), info(3)["note"].as_str().map(str::len)), (Some(2), Some(5000)), "{}", info(3));
    // Gone when it is looked for: without the optional value; and into quarantine without the mandatory one. While nothing runs:
    // the stream may bring a commit an instant before a snapshot shows it.
    app.sigterm();
    assert_eq!(app.wait_exit(PATIENCE).await, 0, "{}", app.log());
    cluster
        .sql(
            "BEGIN; UPDATE event SET n = 3 WHERE id = 2; DELETE FROM event WHERE id = 2;
             UPDATE event SET n = 3 WHERE id = 3; DELETE FROM event WHERE id = 3; COMMIT",
        )
        .await;
    let app = App::run(&config);
    let items = arrived(&sim, SinkKind::Activity, 5).await;
    let info = items[4].item()["info"].clone();
    assert_eq!((info["n"].as_i64(), info.get("note")), (Some(3), None), "{info}");
    eventually(PATIENCE, "the row without its identity in quarantine", async || {
        let held = cluster.rows("SELECT key, reason FROM pg2planhat.quarantine").await;
        (held.len() == 1).then(|| assert_eq!(held[0][0].as_deref(), Some("3"), "{held:?}"))
    })
    .await;
    // A lock on the table: the stream waits, says so, and goes on. Nothing is taken for gone.
    let locker = cluster.client().await;
    cluster.sql(&format!("INSERT INTO event VALUES (4, 'u4', {wide}, 1)")).await;
    arrived(&sim, SinkKind::Activity, 6).await;
    locker.batch_execute("BEGIN; UPDATE event SET n = 2 WHERE id = 4; COMMIT; BEGIN; LOCK TABLE event").await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(sim.stats().activities.items, 6);
    locker.batch_execute("ROLLBACK").await.unwrap();
    let items = arrived(&sim, SinkKind::Activity, 7).await;
    assert_eq!(items[6].item()["info"]["note"].as_str().map(str::len), Some(5000));
    // With the whole row in the log nothing needs to be read.
    cluster
        .sql("ALTER TABLE event REPLICA IDENTITY FULL; BEGIN; UPDATE event SET n = 9 WHERE id = 4; DELETE FROM event WHERE id = 4; COMMIT")
        .await;
    let items = arrived(&sim, SinkKind::Activity, 8).await;
    assert_eq!(items[7].item()["info"]["note"].as_str().map(str::len), Some(5000));
    drain(app, &cluster).await;
}

async fn case_152_a_table_without_replica_identity_is_refused_and_never_published(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster
        .sql(&format!(
            "{TOTALS}; CREATE TABLE bare (id bigint NOT NULL, account text, value int, at timestamptz DEFAULT now());
             CREATE UNIQUE INDEX ON bare (id); INSERT INTO bare VALUES (1, 'x', 1);
             INSERT INTO totals VALUES ('a', '2026-01-01', 1)"
        ))
        .await;
    let sim = sink().await;
    let bare = SectionText::metric("bare", "bare").field("externalId", "account");
    let both = config(&cluster, &sim, totals()).section(bare.clone().set("on", "insert_and_update"));
    let found = json(&both, &["check"]).await;
    let finding = found["findings"].as_array().unwrap().iter().find(|one| one["code"] == "replica_identity");
    let finding = finding.unwrap_or_else(|| panic!("{found}"));
    assert_eq!((&finding["severity"], &finding["subject"]), (&"error".into(), &"section bare".into()), "{finding}");
    assert!(finding["remedy"].as_str().unwrap().contains("REPLICA IDENTITY FULL"), "{finding}");
    let script = App::command(&both, &["setup", "--print-sql"]).await.stdout;
    assert!(
        script.contains("insert, update")
            && !script.contains("pg2planhat_updates\" ADD TABLE ONLY \"public\".\"bare\""),
        "{script}"
    );
    let app = App::run(&both);
    let why = app
        .wait_status("the section to say why", |status| {
            let sections = status["sections"].as_array()?;
            let bare = sections.iter().find(|one| one["name"] == "bare")?;
            (bare["state"] == "halted").then(|| bare["remedy"].as_str().unwrap_or_default().to_owned())
        })
        .await;
    assert!(why.contains("REPLICA IDENTITY FULL"), "{why}");
    // The application's own UPDATE and DELETE go on, and so does the other section.
    cluster.sql("UPDATE bare SET value = 2; UPDATE totals SET value = 2; DELETE FROM bare").await;
    settles(&cluster, &sim, "SELECT account, value FROM totals").await;
    drain(app, &cluster).await;
    // With an identity it runs.
    cluster.sql("ALTER TABLE bare REPLICA IDENTITY FULL; INSERT INTO bare VALUES (2, 'y', 1)").await;
    let app = App::run(&both);
    carries_updates(&app, &cluster).await;
    section_is(&app, "bare", "streaming").await;
    cluster.sql("UPDATE bare SET value = 5").await;
    settles(&cluster, &sim, "SELECT account, value FROM totals UNION ALL SELECT account, value FROM bare").await;
    // What is not written out is asked for, where the table's rows are updated.
    let asked = config(&cluster, &sim, totals().unset("on"));
    eventually(PATIENCE, "the statistics", async || {
        let found = json(&asked, &["check"]).await;
        found["findings"].as_array().unwrap().iter().any(|one| one["code"] == "updates_not_sent").then_some(())
    })
    .await;
    drain(app, &cluster).await;
}

async fn case_153_a_running_instance_turns_to_updates_without_losing_a_row(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster
        .sql(&format!(
            "{TOTALS}; INSERT INTO totals SELECT 'a' || g, '2026-01-01', g FROM generate_series(1, 50) g;
             CREATE TABLE plain (id bigserial PRIMARY KEY, external_id text, value int, at timestamptz DEFAULT now())"
        ))
        .await;
    let sim = sink().await;
    let plain = SectionText::metric("plain", "plain");
    let before = config(&cluster, &sim, plain.clone());
    let app = App::run(&before);
    app.wait_ready().await;
    cluster.sql("INSERT INTO plain (external_id, value) SELECT 'p' || g, g FROM generate_series(1, 10) g").await;
    arrived(&sim, SinkKind::Metric, 10).await;
    drain(app, &cluster).await;
    // The slot stands behind WAL that was written when there was no publication of updates, and a transaction is open.
    let open = cluster.client().await;
    open.batch_execute(
        "BEGIN; INSERT INTO plain (external_id, value) VALUES ('late', 1); UPDATE totals SET value = -1 WHERE account = 'a1'",
    )
    .await
    .unwrap();
    cluster.sql("INSERT INTO plain (external_id, value) SELECT 'q' || g, g FROM generate_series(1, 10) g").await;
    let after = before.clone().section(totals());
    let app = App::run(&after);
    arrived(&sim, SinkKind::Metric, 20).await;
    cluster.sql("INSERT INTO plain (external_id, value) VALUES ('meanwhile', 1); UPDATE totals SET value = -2 WHERE account = 'a2'").await;
    arrived(&sim, SinkKind::Metric, 21).await;
    assert!(!last(&sim).contains_key("a2"), "older rows wait for the stream to bring updates");
    let waits = app
        .wait_status("the reason", |status| {
            let sections = status["sections"].as_array()?;
            let reason = sections.iter().find(|one| one["name"] == "totals")?["reason"].as_str()?;
            (reason != "it is being attached").then(|| reason.to_owned())
        })
        .await;
    assert!(waits.contains("transaction"), "{waits}");
    open.batch_execute("COMMIT").await.unwrap();
    carries_updates(&app, &cluster).await;
    section_is(&app, "totals", "streaming").await;
    cluster.sql("UPDATE totals SET value = value + 1000 WHERE value % 2 = 0").await;
    let all = "SELECT account, value FROM totals UNION ALL SELECT external_id, value FROM plain";
    settles(&cluster, &sim, all).await;
    let plain = received(&sim).into_iter().filter(|(key, _)| !key.starts_with('a')).count();
    assert_eq!(plain, 22, "each inserted row once");
    // Killed, and begun again: the publication is named from the start.
    app.kill9().await;
    cluster.sql("UPDATE totals SET value = value + 1").await;
    let app = App::run(&after);
    settles(&cluster, &sim, all).await;
    drain(app, &cluster).await;
    // No section sends updates any more, and then again.
    let app = App::run(&before);
    app.wait_ready().await;
    cluster.sql("UPDATE totals SET value = value + 1").await;
    drain(app, &cluster).await;
    let app = App::run(&after);
    carries_updates(&app, &cluster).await;
    cluster.sql("UPDATE totals SET value = value + 1").await;
    settles(&cluster, &sim, all).await;
    drain(app, &cluster).await;
}

async fn case_154_the_last_value_stands_after_a_kill_refusals_and_doubt(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster
        .sql(&format!("{TOTALS}; INSERT INTO totals SELECT 'a' || g, '2026-01-01', g FROM generate_series(1, 40) g"))
        .await;
    let sim = sink().await;
    let config = config(&cluster, &sim, totals().set("batch", "{ rows: 7 }").set("flush", "10ms"));
    let mut app = App::run(&config);
    app.wait_ready().await;
    arrived(&sim, SinkKind::Metric, 40).await;
    let mut dice = fastrand::Rng::with_seed(154);
    for round in 0..4 {
        for _ in 0..30 {
            let (key, value, more) = (dice.u32(1..=40), dice.i32(1..1_000_000), dice.u32(1..=40));
            cluster
                .sql(&format!(
                    "UPDATE totals SET value = {value} WHERE account = 'a{key}';
                     BEGIN; UPDATE totals SET value = value + 1 WHERE account IN ('a{more}', 'a{key}'); COMMIT"
                ))
                .await;
        }
        match round {
            0 => sim.queue_fault(SimFault::ResetAfterStoring),
            1 => {
                sim.queue_fault(SimFault::Status { status: 503, retry_after: None, body: String::new(), store: false })
            }
            _ => {}
        }
        cluster.sql("UPDATE totals SET value = value + 1").await;
        if round < 3 {
            app.kill9().await;
            cluster.sql("UPDATE totals SET value = value + 1 WHERE account < 'a2'").await;
            app = App::run(&config);
        }
    }
    settles(&cluster, &sim, "SELECT account, value FROM totals").await;
    // One refused version is in quarantine, and its row's next version is not held by it.
    sim.queue_fault(SimFault::Refuse {
        field: "externalId".into(),
        equals: "a7".into(),
        error: "no such company".into(),
    });
    cluster.sql("UPDATE totals SET value = 1 WHERE account IN ('a7', 'a8')").await;
    eventually(PATIENCE, "the refused version in quarantine", async || {
        (cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await == 1).then_some(())
    })
    .await;
    cluster.sql("UPDATE totals SET value = 2 WHERE account = 'a7'").await;
    settles(&cluster, &sim, "SELECT account, value FROM totals").await;
    let open = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome IN ('sending', 'in_doubt')";
    eventually(PATIENCE, "no batch left open", async || (cluster.number(open).await == 0).then_some(())).await;
    let resent = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome IN ('resent', 'in_doubt')";
    assert!(cluster.number(resent).await >= 1, "what was in doubt is named");
    // The row in quarantine was delivered since, in a newer version: it does not come again.
    let items = sim.stats().metrics.items;
    let retried = App::command(&config, &["--json", "quarantine", "retry", "--all", "--yes"]).await;
    assert!(retried.stdout.contains("delivered since"), "{}{}", retried.stdout, retried.stderr);
    assert_eq!(App::command(&config, &["quarantine", "drop", "--all", "--yes"]).await.code, 0);
    assert_eq!((sim.stats().metrics.items, last(&sim)["a7"]), (items, 2));
    drain(app, &cluster).await;
}

async fn case_155_updates_that_were_not_streamed_are_a_gap_that_repair_reads(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster
        .sql(&format!("{TOTALS}; INSERT INTO totals SELECT 'a' || g, '2026-01-01', g FROM generate_series(1, 9) g"))
        .await;
    let sim = sink().await;
    let config = config(&cluster, &sim, totals());
    let all = "SELECT account, value FROM totals";
    let steps = [
        ("DROP PUBLICATION pg2planhat_updates", "publication of updates"),
        ("ALTER PUBLICATION pg2planhat_updates SET (publish = 'insert')", "does not publish inserts and updates"),
        ("ALTER PUBLICATION pg2planhat_updates DROP TABLE totals", "no longer in the publication pg2planhat_updates"),
    ];
    let mut app = App::run(&config);
    carries_updates(&app, &cluster).await;
    settles(&cluster, &sim, all).await;
    for (step, (harm, said)) in steps.into_iter().enumerate() {
        eventually(PATIENCE, "the entries to be recorded", async || {
            let noted = "SELECT count(*) FROM pg2planhat.section WHERE publication_entry LIKE '% | %'";
            (cluster.number(noted).await == 1).then_some(())
        })
        .await;
        cluster.sql(&format!("{harm}; UPDATE totals SET value = value + 100 WHERE account < 'a4'")).await;
        let is_whole = step < 2;
        if is_whole {
            assert_eq!(app.wait_exit(Duration::from_secs(60)).await, 75, "{}", app.log());
            assert!(app.log().contains(said) || app.log().contains("does not exist"), "{}", app.log());
        } else {
            app.wait_status("the section to halt", |status| {
                status["sections"][0]["reason"].as_str().filter(|reason| reason.contains(said)).map(|_| ())
            })
            .await;
            // It is recorded by a task of its own, which an end in the same moment would take along.
            eventually(PATIENCE, "the gap to be recorded", async || {
                let open = "SELECT count(*) FROM pg2planhat.gap WHERE closed_at IS NULL";
                (cluster.number(open).await > 0).then_some(())
            })
            .await;
            app.sigterm();
            app.wait_exit(Duration::from_secs(30)).await;
        }
        if step == 1 {
            cluster.sql("ALTER PUBLICATION pg2planhat_updates SET (publish = 'insert, update')").await;
        }
        let mended = App::command(&config, &["repair", "--gap", "--yes"]).await;
        assert_eq!(mended.code, 0, "{}{}", mended.stdout, mended.stderr);
        app = App::run(&config);
        settles(&cluster, &sim, all).await;
        carries_updates(&app, &cluster).await;
        cluster.sql("UPDATE totals SET value = value + 1").await;
        settles(&cluster, &sim, all).await;
    }
    drain(app, &cluster).await;
}

async fn case_156_a_backfill_sends_no_version_behind_a_newer_one(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster
        .sql(&format!("{TOTALS}; INSERT INTO totals SELECT 'a' || g, '2026-01-01', 0 FROM generate_series(1, 3000) g"))
        .await;
    let sim = sink().await;
    let config = config(&cluster, &sim, totals().set("batch", "{ rows: 50 }").set("flush", "5ms"));
    let app = App::run(&config);
    let writer = cluster.client().await;
    let mut dice = fastrand::Rng::with_seed(156);
    let mut value = 0;
    while sim.stats().metrics.items < 3000 {
        value += 1;
        let from = dice.u32(1..3000);
        let keys: Vec<String> = (from..from + 20).map(|key| format!("'a{key}'")).collect();
        writer
            .batch_execute(&format!("UPDATE totals SET value = {value} WHERE account IN ({})", keys.join(",")))
            .await
            .unwrap();
        // A writer that outruns batches of 50 rows a thousandfold would only measure how long its backlog takes.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    settles(&cluster, &sim, "SELECT account, value FROM totals").await;
    section_is(&app, "totals", "streaming").await;
    // No key's values ever went back.
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    for (key, value) in received(&sim) {
        let before = newest.insert(key.clone(), value);
        assert!(before.is_none_or(|before| before <= value), "{key}: {before:?}, then {value}");
    }
    drain(app, &cluster).await;
}
