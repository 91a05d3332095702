//! Sections with `read: diff`: results that have no log of their own, compared again and again.

use std::time::Duration;

use pg2planhat::testing::sim::{SimHandle, SinkKind};

use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::{PATIENCE, arrived, sink, sorted};

/// A metric section over this result, compared every second.
pub(crate) fn compared(name: &str, table: &str) -> SectionText {
    SectionText::metric(name, table)
        .set("read", "diff")
        .set("every", "1s")
        .field("externalId", "id")
        .field("value", "value")
        .without("date")
        .set("date", "receipt")
}

/// Ends it; it has no slot that could be compared with anything.
pub(crate) async fn drain(app: App, cluster: &Cluster) {
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "{}", app.log());
    assert_eq!(
        cluster
            .number("SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots)")
            .await,
        0
    );
}

/// Comparisons of a section that are settled.
async fn runs(cluster: &Cluster, section: &str) -> i64 {
    if cluster.number("SELECT count(*) FROM pg_class WHERE oid = to_regclass('pg2planhat.diff')").await == 0 {
        return 0;
    }
    let asked = format!("SELECT coalesce(max(run), 0) FROM pg2planhat.diff WHERE section = '{section}'");
    cluster.number(&asked).await
}

/// Waits until a comparison has ended that began after now.
pub(crate) async fn next_run(cluster: &Cluster, section: &str) {
    // The one that may be under way now began before.
    let before = runs(cluster, section).await;
    let look = || async { (runs(cluster, section).await > before + i64::from(before > 0)).then_some(()) };
    eventually(PATIENCE, "another comparison", look).await;
}

/// `externalId` and `value` of everything that was received, in order of acceptance.
pub(crate) fn received(sim: &SimHandle) -> Vec<(i64, i64)> {
    let number = |item: &serde_json::Value, name: &str| {
        item[name].as_str().map_or_else(|| item[name].as_i64().unwrap(), |text| text.parse().unwrap())
    };
    sim.items(SinkKind::Metric)
        .iter()
        .map(|item| item.item())
        .map(|item| (number(&item, "externalId"), number(&item, "value")))
        .collect()
}

async fn clusters() -> Vec<Cluster> {
    let mut clusters = Vec::new();
    // The oldest and the newest differ the most; where neither is asked for, those that are.
    let asked: Vec<Version> = Version::asked().to_vec();
    let ends: Vec<Version> =
        asked.iter().copied().filter(|version| matches!(version, Version::V14 | Version::V18)).collect();
    for version in if ends.is_empty() { asked } else { ends } {
        clusters.extend(Cluster::builder().version(version).start_or_skip().await);
    }
    clusters
}

/// A view, a materialized view, an ordinary table, an aggregate and a join: the whole result once, then what is new or
/// changed, and nothing else.
#[tokio::test]
async fn case_120_results_of_all_kinds_are_sent_whole_then_what_is_new_or_changed() {
    for cluster in clusters().await {
        let sim = sink().await;
        cluster
            .sql(
                "CREATE TABLE t (id bigint PRIMARY KEY, value int, other int DEFAULT 0);
                 INSERT INTO t SELECT g, g * 10 FROM generate_series(1, 50) g;
                 CREATE VIEW v AS SELECT * FROM t WHERE id > 40;
                 CREATE MATERIALIZED VIEW m AS SELECT * FROM t WHERE id <= 5;
                 CREATE TABLE e (account int, n int);
                 INSERT INTO e SELECT g % 3, g FROM generate_series(1, 30) g",
            )
            .await;
        let of = |name: &str, table: &str| compared(name, table).field("dimensionId", &format!("{{ value: {name} }}"));
        let query = "\"SELECT account AS id, count(*) AS value FROM e GROUP BY account -- by account\"";
        let totals = of("totals", "x").unset("table").set("query", query);
        let config = ConfigText::new(&cluster, &sim.url())
            .section(of("plain", "t"))
            .section(of("view", "v"))
            .section(of("stored", "m"))
            .section(totals);
        let app = App::run(&config);
        let count = |name: &str| {
            let all = sim.items(SinkKind::Metric);
            let mut of =
                all.iter().map(|item| item.item()).filter(|item| item["dimensionId"] == name).collect::<Vec<_>>();
            of.sort_by_key(|item| item["externalId"].to_string());
            of
        };
        for name in ["plain", "view", "stored", "totals"] {
            next_run(&cluster, name).await;
        }
        assert_eq!(["plain", "view", "stored", "totals"].map(|name| count(name).len()), [50, 10, 5, 3]);
        assert_eq!(count("totals")[0]["value"], 10);
        // A mapped value changes, another does not; a row is new, one is gone; one commits late under a lower key.
        cluster
            .sql(
                "UPDATE t SET value = 1 WHERE id = 45; UPDATE t SET other = 1 WHERE id = 46; DELETE FROM t WHERE id = 50;
                 INSERT INTO t VALUES (60, 600); INSERT INTO t VALUES (-7, 70);
                 INSERT INTO e VALUES (1, 99); UPDATE t SET value = 2 WHERE id = 3",
            )
            .await;
        for name in ["plain", "view", "stored", "totals"] {
            next_run(&cluster, name).await;
        }
        assert_eq!(["plain", "view", "stored", "totals"].map(|name| count(name).len()), [54, 12, 5, 4]);
        assert_eq!(count("totals").iter().filter(|item| item["value"] == 11).count(), 1);
        cluster.sql("REFRESH MATERIALIZED VIEW m").await;
        next_run(&cluster, "stored").await;
        assert_eq!(count("stored").len(), 7, "3 has changed, -7 is new");
        let status = app.status().await;
        let plain = status["sections"].as_array().unwrap().iter().find(|section| section["name"] == "plain").unwrap();
        assert_eq!(
            (&plain["state"], &plain["flows"], &plain["diff"]["gone"]),
            (&"comparing".into(), &true.into(), &1.into())
        );
        assert_eq!((&plain["rows_delivered"], &plain["diff"]["rows"]), (&54.into(), &51.into()), "{plain}");
        app.wait_ready().await;
        // What was found stands in the ledger as what it was, and a restart sends nothing again.
        let phases = "SELECT string_agg(DISTINCT phase, ' ' ORDER BY phase) FROM pg2planhat.delivery";
        assert_eq!(cluster.text(phases).await, "backfill diff");
        drain(app, &cluster).await;
        let again = App::run(&config);
        for name in ["plain", "view", "stored", "totals"] {
            next_run(&cluster, name).await;
        }
        assert_eq!(sim.stats().metrics.items, 54 + 12 + 7 + 4);
        drain(again, &cluster).await;
    }
}

/// `send: new`: a key is sent once, whatever becomes of it.
#[tokio::test]
async fn case_121_what_is_only_sent_new_is_never_sent_again() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql("CREATE TABLE t (id bigint, value int); INSERT INTO t VALUES (1, 1), (2, 2)").await;
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(compared("t", "t").set("send", "new")));
    next_run(&cluster, "t").await;
    cluster.sql("UPDATE t SET value = 9; INSERT INTO t VALUES (3, 3)").await;
    next_run(&cluster, "t").await;
    cluster.sql("DELETE FROM t").await;
    next_run(&cluster, "t").await;
    cluster.sql("INSERT INTO t VALUES (1, 5), (2, 6), (3, 7), (4, 8)").await;
    next_run(&cluster, "t").await;
    assert_eq!(sorted(received(&sim)), [(1, 1), (2, 2), (3, 3), (4, 8)]);
    drain(app, &cluster).await;
}

/// A table that is built anew each night: made beside it and renamed, or emptied and filled. Only what differs is sent.
#[tokio::test]
async fn case_122_a_table_that_is_rebuilt_is_compared_with_what_it_was() {
    for cluster in clusters().await {
        let sim = sink().await;
        cluster
            .sql("CREATE TABLE t (id bigint, value int); INSERT INTO t SELECT g, g FROM generate_series(1, 200) g")
            .await;
        let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(compared("t", "t")));
        next_run(&cluster, "t").await;
        cluster
            .sql(
                "BEGIN; CREATE TABLE t_new AS SELECT id, CASE WHEN id = 7 THEN 70 ELSE value END AS value FROM t;
                 ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t; DROP TABLE t_old; COMMIT",
            )
            .await;
        next_run(&cluster, "t").await;
        cluster
            .sql("BEGIN; CREATE TEMP TABLE k AS SELECT * FROM t; TRUNCATE t; INSERT INTO t SELECT * FROM k; INSERT INTO t VALUES (201, 1); COMMIT")
            .await;
        next_run(&cluster, "t").await;
        // Between two comparisons it is not there at all: the section says so, and goes on by itself.
        cluster.sql("ALTER TABLE t RENAME TO away").await;
        app.wait_status("the table to be missed", |status| {
            let section = &status["sections"][0];
            (section["state"] == "halted")
                .then(|| assert!(section["reason"].to_string().contains("no table"), "{section}"))
        })
        .await;
        cluster.sql("ALTER TABLE away RENAME TO t").await;
        next_run(&cluster, "t").await;
        let all = received(&sim);
        assert_eq!(all.len(), 202, "{:?}", &all[200..]);
        assert_eq!(all[200..], [(7, 70), (201, 1)]);
        drain(app, &cluster).await;
    }
}

/// Two rows of one key, a key that is NULL: the section halts with its reason, and nothing of the comparison is sent.
#[tokio::test]
async fn case_123_twins_and_rows_without_a_key_halt_before_anything_is_sent() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql("CREATE TABLE t (id bigint, value int); INSERT INTO t SELECT g, g FROM generate_series(1, 5000) g")
        .await;
    cluster.sql("INSERT INTO t VALUES (2500, 1)").await;
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(compared("t", "t")));
    let halted = async |text: &str| {
        app.wait_status(text, |status| status["sections"][0]["reason"].to_string().contains(text).then_some(())).await;
        assert_eq!(app.get("/readyz").await.unwrap().status, 503);
    };
    halted("two rows of the result have the key (id) = (2500)").await;
    assert_eq!(sim.stats().metrics.items, 0, "the first comparison");
    cluster.sql("DELETE FROM t WHERE id = 2500 AND value = 1").await;
    next_run(&cluster, "t").await;
    assert_eq!(sim.stats().metrics.items, 5000);
    app.wait_ready().await;
    cluster.sql("INSERT INTO t SELECT g, 0 FROM generate_series(5001, 6000) g; INSERT INTO t VALUES (17, 1)").await;
    halted("two rows of the result have the key (id) = (17)").await;
    assert_eq!(sim.stats().metrics.items, 5000, "a later one");
    cluster.sql("DELETE FROM t WHERE id = 17 AND value = 1; INSERT INTO t VALUES (NULL, 1)").await;
    halted("has no key").await;
    assert_eq!(sim.stats().metrics.items, 5000);
    cluster.sql("DELETE FROM t WHERE id IS NULL").await;
    next_run(&cluster, "t").await;
    assert_eq!(sim.stats().metrics.items, 6000);
    drain(app, &cluster).await;
}

/// A statement that runs into the role's time limit halts the section, and it goes on once it is fast enough.
#[tokio::test]
async fn case_124_a_result_that_takes_too_long_halts() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE t (id bigint, value int); INSERT INTO t VALUES (1, 1);
             CREATE VIEW v AS SELECT t.* FROM t, pg_sleep(3);
             ALTER ROLE ALL SET statement_timeout = '1s'",
        )
        .await;
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(compared("v", "v")));
    app.wait_status("the limit", |status| {
        status["sections"][0]["reason"].to_string().contains("within the time limit").then_some(())
    })
    .await;
    cluster.sql("CREATE OR REPLACE VIEW v AS SELECT * FROM t").await;
    arrived(&sim, SinkKind::Metric, 1).await;
    drain(app, &cluster).await;
}

/// The process is killed while its request is under way: that batch is named in doubt and sent again, and no other row is.
#[tokio::test]
async fn case_125_a_kill_sends_the_request_under_way_again_and_names_it() {
    for hold in [false, true] {
        let (cluster, sim) = (Cluster::start().await, sink().await);
        cluster
            .sql("CREATE TABLE t (id bigint, value int); INSERT INTO t SELECT g, g FROM generate_series(1, 1000) g")
            .await;
        let section = compared("t", "t").set("batch", "{ rows: 100 }");
        let section = if hold { section.set("in_doubt", "hold") } else { section };
        let config = ConfigText::new(&cluster, &sim.url()).section(section);
        let app = App::run(&config);
        arrived(&sim, SinkKind::Metric, 300).await;
        sim.queue_fault(pg2planhat::testing::sim::SimFault::Hang { store: true });
        let hangs = || async {
            let asked = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'sending' AND under_way";
            let settled = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'delivered'";
            let before = cluster.number(settled).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            (cluster.number(asked).await == 1 && cluster.number(settled).await == before).then_some(())
        };
        eventually(PATIENCE, "a request that hangs", hangs).await;
        app.kill9().await;
        let again = App::run(&config);
        next_run(&cluster, "t").await;
        let doubts =
            "SELECT string_agg(outcome || ' ' || rows, ',') FROM pg2planhat.delivery WHERE outcome <> 'delivered'";
        assert_eq!(cluster.text(doubts).await, if hold { "held 100" } else { "resent 100" });
        let held = cluster.number("SELECT count(*) FROM pg2planhat.quarantine").await;
        assert_eq!(held, if hold { 100 } else { 0 });
        let mut counts = std::collections::BTreeMap::new();
        received(&sim).into_iter().for_each(|(id, _)| *counts.entry(id).or_insert(0) += 1);
        let doubled = counts.values().filter(|count| **count > 1).count();
        assert!(doubled == 0 || (!hold && doubled == 100), "{doubled} rows were sent twice");
        assert_eq!(counts.len(), 1000, "the request that hung was stored");
        drain(again, &cluster).await;
    }
}

/// A transaction that commits late, under a lower key and an earlier time than what was compared meanwhile, is found; of
/// rows that change more than once between two comparisons the last values are sent.
#[tokio::test]
async fn case_126_late_commits_are_found() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql("CREATE TABLE t (id bigint PRIMARY KEY, value int); INSERT INTO t VALUES (1, 1), (100, 100)").await;
    let late = cluster.client().await;
    late.batch_execute("BEGIN; INSERT INTO t VALUES (50, 50)").await.unwrap();
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(compared("t", "t")));
    next_run(&cluster, "t").await;
    cluster.sql("INSERT INTO t VALUES (200, 200)").await;
    next_run(&cluster, "t").await;
    late.batch_execute("COMMIT").await.unwrap();
    cluster.sql("BEGIN; UPDATE t SET value = 7 WHERE id = 1; UPDATE t SET value = 8 WHERE id = 1; COMMIT").await;
    next_run(&cluster, "t").await;
    assert_eq!(sorted(received(&sim)), [(1, 1), (1, 8), (50, 50), (100, 100), (200, 200)]);
    drain(app, &cluster).await;
}

/// A read replica whose primary has `wal_level = replica`, and a role that may do nothing but read the view: `check` is
/// content, `setup` makes the state elsewhere, and the instance runs.
#[tokio::test]
async fn case_127_a_standby_without_logical_decoding_and_the_least_rights_suffice() {
    let primary = Cluster::builder().setting("wal_level", "replica").own_identity().start().await;
    let (home, sim) = (Cluster::start().await, sink().await);
    primary
        .sql(
            "CREATE TABLE t (id bigint, value int, secret text); INSERT INTO t SELECT g, g, 'x' FROM generate_series(1, 20) g;
             CREATE VIEW v AS SELECT id, value FROM t; CREATE ROLE reads LOGIN; GRANT SELECT (id, value) ON v TO reads",
        )
        .await;
    let standby = primary.standby().await;
    standby.catch_up_with(&primary).await;
    let config = ConfigText::new(&standby, &sim.url()).set("source.user", "reads").section(compared("v", "v"));
    let check = App::command(&config, &["check", "--json"]).await;
    assert!(check.stdout.contains("standby_state"), "{}", check.stdout);
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", home.port());
    let config = config.set("state.url", format!("\"{url}\""));
    let check = App::command(&config, &["check", "--json"]).await;
    let errors: Vec<&str> = check.stdout.split('{').filter(|finding| finding.contains("\"error\"")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let script = App::command(&config, &["setup", "--print-sql"]).await.stdout;
    assert!(!script.contains("PUBLICATION") && !script.contains("ROLE reads REPLICATION"), "{script}");
    let made = App::command(&config, &["setup", "--json"]).await;
    assert_eq!(made.json()["steps"].as_array().unwrap().len(), 1, "{}", made.stdout);
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 20).await;
    app.wait_ready().await;
    primary.sql("UPDATE t SET value = 99 WHERE id = 9").await;
    arrived(&sim, SinkKind::Metric, 21).await;
    // A second process waits, and takes over when the first is gone.
    let second = App::run(&config);
    second.wait_status("a standby", |status| (status["state"] == "standby").then_some(())).await;
    app.kill9().await;
    second.wait_ready().await;
    primary.sql("INSERT INTO t VALUES (21, 21)").await;
    arrived(&sim, SinkKind::Metric, 22).await;
    next_run(&home, "v").await;
    assert_eq!(sim.stats().metrics.items, 22);
    drain(second, &home).await;
}

/// `trace`, `audit`, `preview`, `resync`, `pause` and the quarantine know a compared result for what it is.
#[tokio::test]
async fn case_128_the_commands_know_a_compared_result() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql("CREATE TABLE t (id bigint, value int); INSERT INTO t SELECT g, g FROM generate_series(1, 30) g; UPDATE t SET value = NULL WHERE id = 13")
        .await;
    let config = ConfigText::new(&cluster, &sim.url()).section(compared("t", "t").set("every", "1h"));
    let json = async |arguments: &[&str]| {
        let said = App::command(&config, &[arguments, &["--json"]].concat()).await;
        serde_json::from_str::<serde_json::Value>(&said.stdout)
            .unwrap_or_else(|_| panic!("{arguments:?}: {}{}", said.stdout, said.stderr))
    };
    let app = App::run(&config);
    next_run(&cluster, "t").await;
    assert_eq!(sim.stats().metrics.items, 29);
    assert_eq!(json(&["preview", "t", "-n", "3"]).await["items"].as_array().unwrap().len(), 3);
    assert_eq!(json(&["trace", "t", "7"]).await["outcome"], "delivered");
    assert_eq!(json(&["trace", "t", "13"]).await["outcome"], "quarantined");
    cluster
        .sql("INSERT INTO t VALUES (31, 31); UPDATE t SET value = 70 WHERE id = 7; DELETE FROM t WHERE id = 30")
        .await;
    let traced = json(&["trace", "t", "31"]).await;
    assert_eq!((&traced["outcome"], &traced["source"]), (&"waiting".into(), &"present".into()), "{traced}");
    assert_eq!(json(&["trace", "t", "99"]).await["source"], "absent");
    let audited = json(&["audit", "t"]).await;
    let report = &audited[0];
    let figures = ["rows_source", "rows_settled", "waiting", "gone", "missing"].map(|name| report[name].clone());
    assert_eq!(figures, [30, 28, 2, 1, 0].map(serde_json::Value::from), "{audited}");
    // The row in quarantine is mended, and sent by its key.
    cluster.sql("UPDATE t SET value = 13 WHERE id = 13").await;
    json(&["quarantine", "retry", "--all", "--yes"]).await;
    arrived(&sim, SinkKind::Metric, 30).await;
    assert!(received(&sim).contains(&(13, 13)));
    // Everything once more: what was settled is forgotten, and the count is told.
    let refused = App::command(&config, &["resync", "t", "--from-key", "5", "--yes"]).await;
    assert!(refused.stderr.contains("delivered again whole"), "{}", refused.stderr);
    let begun = json(&["resync", "t", "--all", "--yes"]).await;
    assert!(begun["result"].to_string().contains("30 settled rows are forgotten"), "{begun}");
    arrived(&sim, SinkKind::Metric, 60).await;
    eventually(PATIENCE, "the end of it", || async { (runs(&cluster, "t").await == 2).then_some(()) }).await;
    let phases = "SELECT string_agg(DISTINCT phase, ' ' ORDER BY phase) FROM pg2planhat.delivery";
    assert_eq!(cluster.text(phases).await, "backfill resync retry");
    drain(app, &cluster).await;
}

/// Other columns are mapped: rows that are settled are not sent again for that, a row that changed meanwhile is, and from
/// then on the new columns count. Another key halts.
#[tokio::test]
async fn case_129_a_changed_mapping_sends_nothing_twice() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql("CREATE TABLE t (id bigint, value int, at timestamptz DEFAULT '2024-01-01', other int); INSERT INTO t SELECT g, g FROM generate_series(1, 40) g").await;
    let config = |section| ConfigText::new(&cluster, &sim.url()).section(section);
    let app = App::run(&config(compared("t", "t")));
    next_run(&cluster, "t").await;
    drain(app, &cluster).await;
    cluster.sql("UPDATE t SET value = 50 WHERE id = 5").await;
    let dated = compared("t", "t").unset("date").field("date", "at");
    let app = App::run(&config(dated.clone()));
    next_run(&cluster, "t").await;
    assert_eq!((sim.stats().metrics.items, received(&sim)[40]), (41, (5, 50)));
    cluster.sql("UPDATE t SET at = '2024-02-02' WHERE id = 6; UPDATE t SET other = 1 WHERE id = 7").await;
    next_run(&cluster, "t").await;
    assert_eq!((sim.stats().metrics.items, received(&sim)[41]), (42, (6, 6)));
    drain(app, &cluster).await;
    let app = App::run(&config(dated.set("key", "value")));
    app.wait_status("the key", |status| {
        status["sections"][0]["reason"].to_string().contains("its key was (id)").then_some(())
    })
    .await;
    assert_eq!(sim.stats().metrics.items, 42);
    drain(app, &cluster).await;
}

/// What many comparisons left behind is put together: as the latest of them left it, and nothing is sent again for that.
#[tokio::test]
async fn case_130_what_is_remembered_is_put_together() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql("CREATE TABLE t (id bigint, value int); INSERT INTO t SELECT g, g FROM generate_series(1, 300) g")
        .await;
    let config = ConfigText::new(&cluster, &sim.url()).section(compared("t", "t"));
    let app = App::run(&config);
    next_run(&cluster, "t").await;
    cluster
        .sql(
            "UPDATE t SET value = -value WHERE id % 10 = 0; INSERT INTO t SELECT g, g FROM generate_series(301, 330) g",
        )
        .await;
    next_run(&cluster, "t").await;
    assert_eq!(sim.stats().metrics.items, 360);
    drain(app, &cluster).await;
    // As if each pair of rows had been settled by a request of its own.
    cluster
        .sql(
            "CREATE TEMP TABLE pieces AS
                SELECT section, run, substr(entries, 1 + n * 52, 16) AS first, columns, length(substr(entries, 1 + n * 52, 52)) / 26 AS rows,
                    substr(entries, 1 + n * 52, 52) AS entries
                FROM pg2planhat.seen, generate_series(0, 149) n WHERE n * 52 < length(entries);
             DELETE FROM pg2planhat.seen; INSERT INTO pg2planhat.seen (section, run, first, columns, rows, entries)
                SELECT section, run, first, columns, rows, entries FROM pieces",
        )
        .await;
    assert_eq!(cluster.number("SELECT count(*) FROM pg2planhat.seen").await, 180);
    let app = App::run(&config);
    next_run(&cluster, "t").await;
    assert_eq!(sim.stats().metrics.items, 360, "nothing was sent again");
    let held = cluster.rows("SELECT sum(rows)::text, count(*)::text FROM pg2planhat.seen").await;
    assert_eq!(held, [[Some("330".to_owned()), Some("1".to_owned())]]);
    drain(app, &cluster).await;
}

/// `within`: rows whose date is older are neither sent nor missed.
#[tokio::test]
async fn case_131_only_rows_of_a_recent_date_are_compared() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql("CREATE TABLE t (id bigint, value int, at timestamptz); INSERT INTO t SELECT g, g, now() - g * interval '1 day' FROM generate_series(1, 30) g")
        .await;
    let section = compared("t", "t").unset("date").field("date", "at").set("within", "10d");
    let app = App::run(&ConfigText::new(&cluster, &sim.url()).section(section));
    next_run(&cluster, "t").await;
    assert_eq!(sorted(received(&sim)).len(), 9);
    cluster.sql("UPDATE t SET value = 0 WHERE id IN (2, 20)").await;
    next_run(&cluster, "t").await;
    assert_eq!(received(&sim)[9..], [(2, 0)]);
    drain(app, &cluster).await;
}

/// `where` and `on_null` on a compared result: what is left out is remembered and counted, `trace` and `audit` tell it apart,
/// and it comes when it changes so that it is wanted.
#[tokio::test]
async fn case_144_rules_leave_rows_of_a_compared_result_out() {
    for cluster in clusters().await {
        let sim = sink().await;
        cluster
            .sql(
                "CREATE TABLE t (id bigint, value int, gone timestamptz);
                 INSERT INTO t SELECT g, NULLIF(g, 39), CASE WHEN g % 4 = 0 THEN now() END FROM generate_series(1, 40) g",
            )
            .await;
        let section = compared("t", "t").set("where", "{ gone: null }").set("on_null", "skip");
        let config = ConfigText::new(&cluster, &sim.url()).section(section);
        let json = async |arguments: &[&str]| App::command(&config, &[&["--json"], arguments].concat()).await.json();
        let app = App::run(&config);
        next_run(&cluster, "t").await;
        let filtered = async |phase: &str, reason: &str| {
            let labels = [("section", "t"), ("phase", phase), ("reason", reason)];
            app.metric("pg2planhat_rows_filtered_total", &labels).await.unwrap_or_default()
        };
        assert_eq!(sim.stats().metrics.items, 29);
        assert_eq!((filtered("backfill", "where").await, filtered("backfill", "null").await), (10.0, 1.0));
        let traced = json(&["trace", "t", "8"]).await;
        assert_eq!((&traced["outcome"], &traced["source"]), (&"filtered".into(), &"present".into()), "{traced}");
        assert!(traced["why"].as_str().unwrap().contains("`where`"), "{traced}");
        assert!(json(&["trace", "t", "39"]).await["why"].as_str().unwrap().contains("on_null"));
        let figures = async || {
            let report = json(&["audit", "t"]).await;
            ["rows_settled", "delivered", "filtered", "waiting"].map(|name| report[0][name].as_u64().unwrap())
        };
        assert_eq!(figures().await, [40, 29, 11, 0]);
        // What is wanted now is sent; what is wanted no more is not, and was delivered before.
        cluster
            .sql(
                "UPDATE t SET gone = NULL WHERE id = 8; UPDATE t SET gone = now() WHERE id = 9;
                 UPDATE t SET value = 39 WHERE id = 39; UPDATE t SET gone = now() + interval '1 h' WHERE id = 12",
            )
            .await;
        next_run(&cluster, "t").await;
        assert_eq!(sorted(received(&sim)[29..].to_vec()), [(8, 8), (39, 39)]);
        assert_eq!((filtered("diff", "where").await, filtered("diff", "null").await), (2.0, 0.0));
        assert_eq!(json(&["trace", "t", "8"]).await["outcome"], "delivered");
        assert_eq!(json(&["trace", "t", "9"]).await["outcome"], "delivered");
        assert_eq!(figures().await, [40, 30, 10, 0]);
        drain(app, &cluster).await;
        let again = App::run(&config);
        next_run(&cluster, "t").await;
        assert_eq!(sim.stats().metrics.items, 31, "nothing is sent again");
        drain(again, &cluster).await;
    }
}

/// A rule that is taken out of the file takes the rows that it left out, once; written in again and taken out once more, it brings
/// nothing twice. Both where the rule's column is mapped and where it is not; and what the audit calls delivered was.
#[tokio::test]
async fn case_268_rows_that_a_rule_left_out_are_sent_when_it_takes_them_and_none_twice() {
    for (rule, value) in [("where", "{ kept: true }"), ("on_null", "skip")] {
        for cluster in clusters().await {
            let sim = sink().await;
            cluster
                .sql(
                    "CREATE TABLE t (id bigint, value int, kept bool);
                     INSERT INTO t SELECT g, CASE WHEN g % 4 = 0 THEN NULL ELSE g END, g % 4 <> 0
                     FROM generate_series(1, 40) g",
                )
                .await;
            let wide = compared("t", "t").field("value", "{ column: value, default: 0 }");
            let narrow = match rule {
                "where" => wide.clone().set("where", value),
                _ => compared("t", "t").set(rule, value),
            };
            let run = async |section: &SectionText, items: u64| {
                let config = ConfigText::new(&cluster, &sim.url()).section(section.clone());
                let app = App::run(&config);
                next_run(&cluster, "t").await;
                next_run(&cluster, "t").await;
                let stats = sim.stats().metrics;
                assert_eq!((stats.items, stats.requests > 0), (items, true), "{rule}");
                let report = App::command(&config, &["--json", "audit", "t"]).await.json();
                let figures = ["delivered", "filtered", "waiting"].map(|name| report[0][name].as_u64().unwrap());
                let left_out = 40 - items.min(40);
                let plan = App::command(&config, &["plan"]).await;
                assert_eq!(plan.code, 0, "what runs is no danger to itself: {}", plan.stdout);
                assert_eq!(figures[0] + figures[1], 40, "{rule}: {report}");
                assert!(figures[1] >= left_out, "{rule}: more is called delivered than was: {report}");
                drain(app, &cluster).await;
            };
            run(&narrow, 30).await;
            run(&wide, 40).await;
            run(&narrow, 40).await;
            run(&wide, 40).await;
            let keys: std::collections::BTreeSet<i64> = received(&sim).into_iter().map(|(key, _)| key).collect();
            assert_eq!(keys.len(), 40, "{rule}: each once");
        }
    }
}
