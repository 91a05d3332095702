//! What of a compared result is read, and what of it is remembered: a longer `within`, rows without a date, results that are never
//! the same twice, replicas that stand still, another database behind the same names.

use pg2planhat::testing::sim::SinkKind;

use crate::diff::{compared, drain, next_run, received};
use crate::harness::{App, Cluster, ConfigText, SectionText};
use crate::main_job_oracle::{arrived, sink, sorted};

/// As if each pair of rows had been settled by a request of its own: it is put together by the next comparison.
async fn in_pieces(cluster: &Cluster) {
    cluster
        .sql(
            "CREATE TEMP TABLE pieces AS
                SELECT section, run, substr(entries, 1 + n * 52, 16) AS first, columns,
                    length(substr(entries, 1 + n * 52, 52)) / 26 AS rows, substr(entries, 1 + n * 52, 52) AS entries
                FROM pg2planhat.seen, generate_series(0, 299) n WHERE n * 52 < length(entries);
             DELETE FROM pg2planhat.seen; INSERT INTO pg2planhat.seen (section, run, first, columns, rows, entries)
                SELECT section, run, first, columns, rows, entries FROM pieces; DROP TABLE pieces",
        )
        .await;
}

/// Rows are sent, grow out of `within`, and are forgotten; then `within` is made longer, taken out, or the date is another
/// column: none of them is sent a second time, and `plan`, the log and `audit` say so. What was never sent and is younger than
/// what is forgotten is sent once. `resync --all` begins anew.
#[tokio::test]
async fn case_290_a_longer_within_sends_nothing_that_was_sent_and_forgotten() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE t (id bigint, value int, at timestamptz, changed timestamptz DEFAULT now());
             INSERT INTO t SELECT g, g, now() - interval '8 days' FROM generate_series(1, 200) g;
             INSERT INTO t VALUES (201, 201, now())",
        )
        .await;
    let dated = compared("t", "t").unset("date").field("date", "at");
    let config = |within: Option<&str>| {
        let section = match within {
            Some(within) => dated.clone().set("within", within),
            None => dated.clone(),
        };
        ConfigText::new(&cluster, &sim.url()).section(section)
    };
    let run = async |config: &ConfigText, rows: u64, told: bool| {
        let app = App::run(config);
        next_run(&cluster, "t").await;
        next_run(&cluster, "t").await;
        assert_eq!(sim.stats().metrics.items, rows, "{}", app.log());
        assert_eq!(app.log().contains("rows of an earlier date are not read"), told, "{}", app.log());
        let audit = App::command(config, &["audit", "t", "--json"]).await.stdout;
        assert_eq!(audit.contains("some of them were sent, and which is forgotten"), told, "{audit}");
        drain(app, &cluster).await;
    };
    run(&config(Some("10d")), 201, false).await;
    in_pieces(&cluster).await;
    run(&config(Some("1d")), 201, false).await;
    assert_eq!(cluster.number("SELECT sum(rows) FROM pg2planhat.seen").await, 1, "the others are forgotten");
    cluster.sql("INSERT INTO t VALUES (202, 202, now() - interval '2 days')").await;
    // Longer than what is remembered.
    let longer = config(Some("10d"));
    let plan = App::command(&longer, &["plan", "--json"]).await;
    run(&longer, 202, true).await;
    assert!(plan.stdout.contains("some of them were sent, and which is forgotten"), "{}", plan.stdout);
    assert_eq!(plan.code, 0, "nothing counts twice, and nothing that was sent before is lost: {}", plan.stdout);
    run(&config(None), 202, true).await;
    // Another date: which rows may have been sent is told by the one that they had then.
    let other = compared("t", "t").unset("date").field("date", "changed").set("within", "10d");
    run(&ConfigText::new(&cluster, &sim.url()).section(other), 202, true).await;
    // No column tells it any more: it halts before it sends anything.
    let query = "\"SELECT id, value, changed FROM t\"";
    let without = compared("t", "x").unset("table").unset("date").set("query", query).field("date", "changed");
    let without = ConfigText::new(&cluster, &sim.url()).section(without);
    let app = App::run(&without);
    app.wait_status("the column to be missed", |status| {
        status["sections"][0]["reason"].to_string().contains("has no column at any more").then_some(())
    })
    .await;
    assert_eq!(sim.stats().metrics.items, 202);
    let begun = App::command(&without, &["resync", "t", "--all", "--yes"]).await;
    assert_eq!(begun.code, 0, "{begun:?}");
    arrived(&sim, SinkKind::Metric, 404).await;
    drain(app, &cluster).await;
}

/// `resync --all` of a section with `within`: what that leaves out was sent before, and does not come with a longer one later.
#[tokio::test]
async fn case_290_what_a_resync_leaves_out_is_not_sent_by_a_longer_within() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE t (id bigint, value int, at date);
             INSERT INTO t VALUES (1, 1, current_date - 20), (2, 2, current_date)",
        )
        .await;
    let of = |within: &str| {
        let section = compared("t", "t").unset("date").field("date", "at").set("within", within);
        ConfigText::new(&cluster, &sim.url()).section(section)
    };
    let run = async |within: &str| {
        let app = App::run(&of(within));
        next_run(&cluster, "t").await;
        app
    };
    drain(run("30d").await, &cluster).await;
    let app = run("10d").await;
    let begun = App::command(&of("10d"), &["resync", "t", "--all", "--yes"]).await;
    assert_eq!(begun.code, 0, "{begun:?}");
    arrived(&sim, SinkKind::Metric, 3).await;
    next_run(&cluster, "t").await;
    drain(app, &cluster).await;
    drain(run("30d").await, &cluster).await;
    assert_eq!(sorted(received(&sim)), [(1, 1), (2, 2), (2, 2)]);
}

/// A result with `now()` in a mapped column: `check` names the column, an error where Planhat counts and a warning for a metric; the
/// section halts before it sends anything, and goes on by itself once the view is mended. One that becomes so later is sent once
/// more, and halts.
#[tokio::test]
async fn case_291_a_result_that_is_never_the_same_twice_is_not_sent_for_ever() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    let view = |at: &str| format!("CREATE OR REPLACE VIEW v AS SELECT id, value, {at}::timestamptz AS at FROM t");
    cluster
        .sql(&format!(
            "CREATE TABLE t (id bigint, value int); INSERT INTO t SELECT g, g FROM generate_series(1, 50) g; {};
             CREATE VIEW fresh AS SELECT gen_random_uuid() AS id, value FROM t",
            view("now()")
        ))
        .await;
    let activity = SectionText::activity("v", "v").set("read", "diff").set("key", "id").set("every", "1s");
    let activity =
        activity.without("email").field("externalId", "id").field("action", "{ value: seen }").field("weight", "value");
    let metric = compared("m", "v").unset("date").field("date", "at").set("sync", "off");
    let config = ConfigText::new(&cluster, &sim.url()).section(activity);
    let found = |config: ConfigText| async move {
        let document = App::command(&config, &["--json", "check"]).await.json();
        let found = document["findings"].as_array().unwrap().iter().find(|one| one["code"] == "result_unsteady");
        found.map(|one| (one["severity"].as_str().unwrap().to_owned(), one["message"].to_string()))
    };
    let (severity, message) = found(config.clone()).await.unwrap();
    assert!(severity == "error" && message.contains("twice: at of most rows"), "{severity} {message}");
    let (severity, _) = found(config.clone().without_sections().section(metric.unset("sync"))).await.unwrap();
    assert_eq!(severity, "warning");
    let (severity, message) = found(config.clone().without_sections().section(compared("f", "fresh"))).await.unwrap();
    assert!(severity == "error" && message.contains("twice: id of most rows"), "{severity} {message}");
    let app = App::run(&config);
    let halted = async || {
        app.wait_status("the halt", |status| {
            status["sections"][0]["reason"].to_string().contains("never the same twice: at of").then_some(())
        })
        .await;
    };
    halted().await;
    assert_eq!(sim.stats().activities.items, 0);
    cluster.sql(&view("'2026-01-01'")).await;
    arrived(&sim, SinkKind::Activity, 50).await;
    app.wait_ready().await;
    next_run(&cluster, "v").await;
    assert_eq!(found(config.clone()).await, None);
    cluster.sql(&view("clock_timestamp()")).await;
    halted().await;
    assert_eq!(sim.stats().activities.items, 100, "once more, and no further");
    drain(app, &cluster).await;
}

/// `within`: a row without a date is not older. It is compared as any other; `preview` and `check` look at what a comparison reads.
#[tokio::test]
async fn case_292_a_row_without_a_date_is_within_and_preview_shows_what_is_read() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster
        .sql(
            "CREATE TABLE t (id bigint, value int, at timestamptz);
             INSERT INTO t VALUES (1, 1, now()), (2, 2, NULL), (3, 3, now()), (4, 4, now() - interval '30 days')",
        )
        .await;
    let section = compared("t", "t").unset("date").field("date", "at").set("within", "7d");
    let config = ConfigText::new(&cluster, &sim.url()).section(section);
    let shown = App::command(&config, &["--json", "preview", "t"]).await.json();
    let keys: Vec<&str> = shown["items"].as_array().unwrap().iter().filter_map(|one| one["key"].as_str()).collect();
    assert_eq!(sorted(keys), ["1", "2", "3"], "{shown}");
    let app = App::run(&config);
    next_run(&cluster, "t").await;
    assert_eq!(sorted(received(&sim)), [(1, 1), (2, 2), (3, 3)]);
    cluster.sql("UPDATE t SET value = 20 WHERE id IN (2, 4)").await;
    next_run(&cluster, "t").await;
    assert_eq!(received(&sim)[3..], [(2, 20)]);
    let audit = App::command(&config, &["--json", "audit", "t"]).await.json();
    assert_eq!((&audit[0]["rows_source"], &audit[0]["delivered"]), (&3.into(), &3.into()), "{audit}");
    drain(app, &cluster).await;
}

/// The replay of the standby that is read stands still: within 15 s it is not ready, `status` says why and since when, and `audit`,
/// too; what was committed meanwhile comes once it goes on.
#[tokio::test]
async fn case_293_a_standby_that_stands_still_is_not_ready() {
    let primary = Cluster::builder().own_identity().start().await;
    let (home, sim) = (Cluster::start().await, sink().await);
    primary.sql("CREATE TABLE t (id bigint, value int); INSERT INTO t SELECT g, g FROM generate_series(1, 20) g").await;
    let standby = primary.standby().await;
    standby.catch_up_with(&primary).await;
    let url = format!("\"postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable\"", home.port());
    let config = ConfigText::new(&standby, &sim.url()).set("state.url", url).section(compared("t", "t"));
    let app = App::run(&config);
    arrived(&sim, SinkKind::Metric, 20).await;
    app.wait_ready().await;
    let clean = App::command(&config, &["audit", "t"]).await.stdout;
    assert!(!clean.contains("standby"), "{clean}");
    standby.sql("SELECT pg_wal_replay_pause()").await;
    primary.sql("INSERT INTO t SELECT g, g FROM generate_series(21, 40) g").await;
    let begun = std::time::Instant::now();
    app.wait_status("the standstill", |status| {
        let section = &status["sections"][0];
        let said = status["message"].as_str().is_some_and(|message| message.contains("its replay is paused"));
        (said
            && status["state"] == "stalled"
            && section["flows"] == false
            && section["lag_seconds"].as_f64() > Some(4.0))
        .then_some(())
    })
    .await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(app.get("/readyz").await.unwrap().status, 503);
    let audit = App::command(&config, &["audit", "t"]).await.stdout;
    assert!(audit.contains("standby, and its replay is paused"), "{audit}");
    standby.sql("SELECT pg_wal_replay_resume()").await;
    app.wait_ready().await;
    arrived(&sim, SinkKind::Metric, 40).await;
    drain(app, &home).await;
}

/// The address leads to a standby that has replayed less than the server that was compared last: nothing old is sent again.
#[tokio::test]
async fn case_243_a_server_that_is_behind_the_last_one_is_not_compared() {
    let primary = Cluster::builder().own_identity().start().await;
    let (home, sim) = (Cluster::start().await, sink().await);
    primary.sql("CREATE TABLE t (id bigint, value int); INSERT INTO t SELECT g, 1 FROM generate_series(1, 20) g").await;
    let standby = primary.standby().await;
    standby.catch_up_with(&primary).await;
    standby.sql("SELECT pg_wal_replay_pause()").await;
    let url = format!("\"postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable\"", home.port());
    let of =
        |cluster: &Cluster| ConfigText::new(cluster, &sim.url()).set("state.url", &url).section(compared("t", "t"));
    let app = App::run(&of(&primary));
    arrived(&sim, SinkKind::Metric, 20).await;
    primary.sql("UPDATE t SET value = 2").await;
    arrived(&sim, SinkKind::Metric, 40).await;
    drain(app, &home).await;
    let app = App::run(&of(&standby));
    app.wait_log("it would bring old values back").await;
    assert_eq!(sim.stats().metrics.items, 40, "{}", app.log());
    primary.sql("UPDATE t SET value = 3").await;
    standby.sql("SELECT pg_wal_replay_resume()").await;
    let items = arrived(&sim, SinkKind::Metric, 60).await;
    let values: Vec<i64> = items.iter().map(|item| item.item()["value"].as_i64().unwrap()).collect();
    assert!(values.is_sorted(), "{values:?}");
    drain(app, &home).await;
}

/// Compared sections alone, and `source.database` names another database: `plan` calls it a danger, `check` warns of it, and the log
/// names both. A database that was renamed is the same.
#[tokio::test]
async fn case_294_another_database_under_compared_sections_is_told_of() {
    let (cluster, home, sim) = (Cluster::start().await, Cluster::start().await, sink().await);
    for name in ["one", "two"] {
        cluster.sql(&format!("CREATE DATABASE {name}")).await;
        let client = cluster.client_of(name).await;
        client.batch_execute("CREATE TABLE t (id bigint, value int); INSERT INTO t VALUES (1, 1)").await.unwrap();
    }
    let url = format!("\"postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable\"", home.port());
    let config = ConfigText::new(&cluster, &sim.url()).set("state.url", url).section(compared("t", "t"));
    let of = |name: &str| config.clone().set("source.database", name);
    let said = "this is another database";
    let told = async |config: &ConfigText| {
        let plan = App::command(config, &["plan"]).await;
        let check = App::command(config, &["--json", "check"]).await.stdout;
        (plan.stdout.contains(said), plan.code == 1, check.contains("other_database"))
    };
    let app = App::run(&of("one"));
    next_run(&home, "t").await;
    assert_eq!(told(&of("one")).await, (false, false, false));
    drain(app, &home).await;
    assert_eq!(told(&of("two")).await, (true, true, true));
    cluster.sql("ALTER DATABASE one RENAME TO three").await;
    assert_eq!(told(&of("three")).await, (false, false, false));
    let app = App::run(&of("two"));
    next_run(&home, "t").await;
    let log = app.log();
    assert!(
        log.contains("another database or server") && log.contains("database one,") && log.contains("database two,"),
        "{log}"
    );
    drain(app, &home).await;
}
