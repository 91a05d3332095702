//! What people see: the text of every command, held by snapshots (`INSTA_UPDATE=always` rewrites them). Times, sizes, positions,
//! ports and process ids are redacted.

use std::time::Duration;

use pg2planhat::testing::sim::{Sim, SimFault, SimHandle, SimOptions};

use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};

/// Words that differ from run to run.
const REDACTED: &[(&str, &str)] = &[
    (r"/\S*/pg2planhat\.yaml", "pg2planhat.yaml"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"--port \d+", "--port PORT"),
    (r"\b[0-9A-F]+/[0-9A-F]{5,}", "LSN"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00)?", "TIME"),
    (r"system \d{10,}", "system ID"),
    (r"\(walsender \d+\)", "(walsender PID)"),
    (r"pg_terminate_backend\(\d+\)", "pg_terminate_backend(PID)"),
    (r"by pid \d+", "by pid PID"),
    (r"an instance \([^)]+\)", "an instance (HOST:PID)"),
    (r"PostgreSQL \d+\.\d+", "PostgreSQL VERSION"),
    (r"\d+(\.\d+)? (B|KiB|MiB) (behind|kept)", "SIZE $3"),
    (r"\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"\(\d+(\.\d+)?\s+(B|KiB|MiB)\s+of\s+WAL\s+up\s+to\s+now\)\.", "(SIZE of WAL up to now)."),
    (r" +\d+(\.\d+)? KiB", " SIZE"),
    (r"\d+ s( ago|  )", "AGE$1"),
    (r"transaction \d+ or", "transaction XID or"),
];

/// A command's output as its person sees it, stderr behind stdout, and how it ended.
async fn shown(config: &ConfigText, beside: Option<&App>, arguments: &[&str]) -> String {
    let launch = App::launch(config).arguments(arguments);
    let output = match beside {
        Some(app) => launch.beside(app),
        None => launch,
    };
    let output = output.output().await;
    for line in output.stdout.lines() {
        let sql = line.contains(';') || line.starts_with("--") || arguments.contains(&"--print-sql");
        // Where there is no terminal a table has one line a row.
        let sql = sql || ["quarantine", "logs", "status", "discover"].contains(&arguments[0]);
        assert!(sql || line.chars().count() <= 80, "{arguments:?}: wider than 80 columns: {line}");
        assert!(!line.contains('\x1b'), "{arguments:?}: colour without a terminal: {line:?}");
    }
    format!("$ pg2planhat {}\n{}{}[exit {}]\n", arguments.join(" "), output.stdout, output.stderr, output.code)
}

fn hold(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    for (pattern, word) in REDACTED {
        settings.add_filter(pattern, *word);
    }
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

async fn stage() -> (Cluster, SimHandle, ConfigText) {
    let cluster = Cluster::start().await;
    cluster
        .sql(
            "CREATE TABLE app_event (id bigserial PRIMARY KEY, user_email text, user_id text, event_name text, amount numeric,
                 created_at timestamptz NOT NULL DEFAULT '2024-05-01 12:00Z', account_id text, payload jsonb);
             INSERT INTO app_event (user_email, user_id, event_name, amount, account_id)
                 SELECT 'u' || i || '@example.com', 'u' || i, 'login', i * 1.50, 'acme' FROM generate_series(1, 120) i;
             UPDATE app_event SET amount = 'NaN' WHERE id = 119;
             CREATE TABLE usage_daily (id bigserial PRIMARY KEY, account_id text, seats int, day date);
             INSERT INTO usage_daily (account_id, seats, day) SELECT 'acme', i, date '2024-01-01' + i FROM generate_series(1, 3) i;
             CREATE ROLE support LOGIN; GRANT SELECT ON usage_daily TO support;
             ANALYZE",
        )
        .await;
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    let logins = SectionText::activity("logins", "app_event")
        .field("email", "user_email")
        .field("action", "event_name")
        .field("weight", "amount")
        .field("date", "created_at")
        // Else `check` counts its updates, whose number the server tells when it likes.
        .set("on", "insert")
        // One batch, however slow the machine is.
        .set("flush", "4s");
    let seats = SectionText::metric("seats", "usage_daily")
        .field("value", "seats")
        .field("externalId", "account_id")
        .field("date", "day");
    let config =
        ConfigText::new(&cluster, &sim.url()).set("source.reader", "{ user: support }").section(logins).section(seats);
    (cluster, sim, config)
}

#[tokio::test]
async fn before_the_first_run() {
    let (cluster, _sim, config) = stage().await;
    let mut text = String::new();
    for arguments in [
        &["discover"][..],
        &["discover", "--schema", "pubic"],
        &["discover", "app_event"],
        &["discover", "usage_daily"],
        &["discover", "app_events"],
        &["check"],
        &["preview", "logins", "-n", "2"],
        &["preview", "seats", "--oldest", "--rows", "1"],
        &["preview", "login"],
        &["status"],
        &["logs"],
        &["quarantine", "list"],
        &["pause", "logins"],
        &["repair", "--gap"],
        &["query", "SELECT * FROM usage_daily ORDER BY id"],
        &["query", "SELECT * FROM app_event"],
        &["query", "DELETE FROM usage_daily"],
        &["query", "--format", "csv", "TABLE usage_daily LIMIT 1"],
        &["setup"],
        &["setup"],
        &["teardown"],
        &["teardown", "--yes"],
        &["teardown"],
    ] {
        text.push_str(&shown(&config, None, arguments).await);
        text.push('\n');
    }
    hold("before_the_first_run", &text);
    // Nobody there, and a section misspelt everywhere.
    let wrong = config
        .clone()
        .section(SectionText::metric("missing", "usage_dayli"))
        .section(SectionText::metric("unfit", "usage_daily").field("value", "seets"));
    let mut text = shown(&wrong, None, &["check"]).await;
    text.push_str(&shown(&wrong, None, &["setup"]).await);
    cluster.stop(crate::harness::Stop::Fast).await;
    for arguments in [&["check"][..], &["preview", "logins"], &["status"], &["setup"]] {
        text.push_str(&shown(&config, None, arguments).await);
        text.push('\n');
    }
    hold("what_is_wrong", &text);
}

#[tokio::test]
async fn beside_an_instance_and_after_it() {
    let (cluster, sim, config) = stage().await;
    // They come by the stream, behind the other section's batch: two backfills have no order.
    cluster.sql("TRUNCATE usage_daily").await;
    sim.queue_fault(
        SimFault::RefuseFirst { count: 1, error: "no such user".into() }.on(pg2planhat::testing::sim::SinkRoute::Bulk),
    );
    let app = App::run(&config);
    app.wait_ready().await;
    let streaming = |status: &serde_json::Value| {
        status["sections"].as_array()?.iter().all(|section| section["state"] == "streaming").then_some(())
    };
    app.wait_status("the stream", streaming).await;
    let first = || async { (cluster.number("SELECT count(*) FROM pg2planhat.delivery").await == 1).then_some(()) };
    eventually(Duration::from_secs(30), "the first batch", first).await;
    cluster
        .sql("INSERT INTO usage_daily SELECT i, 'acme', i, date '2024-01-01' + i FROM generate_series(1, 3) i")
        .await;
    let settled = || async {
        let open = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'sending'";
        let held = "SELECT count(*) FROM pg2planhat.quarantine";
        // A repair reads what is newer than the floor.
        let known = "SELECT count(*) FROM pg2planhat.instance
            WHERE xmin_floor > (SELECT max(xmin::text::bigint) FROM usage_daily)";
        let numbers = (cluster.number(open).await, cluster.number(held).await, cluster.number(known).await);
        let sent = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome = 'delivered'";
        (numbers == (0, 2, 1) && cluster.number(sent).await == 1).then_some(())
    };
    eventually(Duration::from_secs(30), "two rows in quarantine", settled).await;
    // The instance reads that from the state every two seconds.
    let both = |status: &serde_json::Value| {
        status["sections"].as_array()?.iter().any(|section| section["quarantined_now"] == 2).then_some(())
    };
    app.wait_status("both in the status", both).await;
    let mut text = String::new();
    for arguments in [
        &["status"][..],
        &["logs"],
        &["logs", "logins", "--outcome", "partial"],
        &["logs", "--until", "1h"],
        &["quarantine", "list"],
        &["quarantine", "list", "-n", "1"],
        &["quarantine", "show", "1"],
        &["quarantine", "show", "99"],
        &["quarantine", "drop", "1"],
        &["quarantine", "retry", "--section", "seats"],
        &["resync", "logins", "--from-key", "100"],
        &["resync", "seats", "--all"],
        &["resync", "logins", "--from-time", "yesterday"],
        &["pause", "logins"],
        &["resume", "logins"],
        &["check"],
        &["repair", "--gap"],
        &["teardown"],
    ] {
        text.push_str(&shown(&config, Some(&app), arguments).await);
        text.push('\n');
    }
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "{}", app.log());
    text.push_str(&shown(&config, None, &["status"]).await);
    hold("beside_an_instance", &text);

    cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    cluster.sql("INSERT INTO usage_daily (account_id, seats, day) VALUES ('acme', 4, '2024-02-01')").await;
    let mut text = String::new();
    for arguments in [
        &["status"][..],
        &["check"],
        &["setup"],
        &["run"],
        &["repair", "--gap"],
        &["repair", "--backfill"],
        &["repair", "--accept-loss"],
        &["repair", "--gap", "--yes"],
        &["repair", "--gap"],
    ] {
        text.push_str(&shown(&config, None, arguments).await);
        text.push('\n');
    }
    // The log of a run has its own times and places.
    let text: Vec<&str> = text.lines().filter(|line| !line.contains(" ERROR ") && !line.contains(" WARN ")).collect();
    hold("when_the_slot_is_gone", &text.join("\n"));
}

#[tokio::test]
async fn command_lines_that_are_wrong() {
    let cluster = Cluster::start().await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9");
    let mut text = String::new();
    for arguments in [
        &["chek"][..],
        &["preview"],
        &["preview", "logins", "--rows", "0"],
        &["resync", "logins"],
        &["resync", "logins", "--all", "--from-key", "1"],
        &["repair"],
        &["quarantine", "drop"],
        &["query", "SELECT 1", "--format", "jason"],
        &["logs", "--outcome", "lost"],
        &["logs", "--since", "yesterday"],
        &["status", "--watc"],
        &["query", "SELECT 1"],
    ] {
        text.push_str(&shown(&config, None, arguments).await);
        text.push('\n');
    }
    hold("wrong_command_lines", &text);
}
