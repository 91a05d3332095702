//! `where` and `on_null` (FAULTS 120–122): PostgreSQL is the oracle of which rows a condition takes, by every way that a row
//! comes; what is left out is counted, found by `trace` and accounted for by `audit`.

use pg2planhat::testing::sim::{SimHandle, SinkKind};
use serde_json::Value;

use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::*;
use crate::versions_main_job::on_some_versions;

on_some_versions!({
    case_140_where_takes_the_rows_that_sql_takes_by_every_way
    case_141_on_null_skip_leaves_out_and_a_retry_leaves_quarantine
});

const TABLE: &str =
    "CREATE TABLE event (id bigint PRIMARY KEY, who text, plan text, amount numeric, ratio float8, big bigint,
    ok boolean, code char(5), at timestamptz, local timestamp, day date, deleted_at timestamptz, meta jsonb)";

/// Rows `from` to `through`, with every kind of value beside every other.
fn rows(from: u32, through: u32) -> String {
    format!(
        "INSERT INTO event SELECT g, CASE WHEN g % 11 > 0 THEN 'u' || g END,
            (ARRAY['free', 'pro', 'Free', '', NULL])[1 + g % 5],
            (ARRAY['0.1', '0.10', '0.09', 'NaN', '100', NULL]::numeric[])[1 + g % 6],
            (ARRAY['0.1', '1e-7', 'Infinity', '-2.5', NULL]::float8[])[1 + g % 5],
            (ARRAY[9007199254740992, 9007199254740993, -1, NULL])[1 + g % 4],
            (ARRAY[true, false, NULL])[1 + g % 3],
            (ARRAY['ab', 'abc', '', NULL])[1 + g % 4],
            (ARRAY['2026-01-31 00:00+00', '2026-01-30 23:59:59.999999+00', 'infinity', '0044-03-15 12:00+00 BC', NULL]::timestamptz[])[1 + g % 5],
            (ARRAY['2026-01-31 12:00', '10000-01-01', NULL]::timestamp[])[1 + g % 3],
            (ARRAY['2026-01-31', '2026-02-01', '-infinity', NULL]::date[])[1 + g % 4],
            CASE WHEN g % 7 = 0 THEN now() END,
            (ARRAY['null', '{{}}', NULL]::jsonb[])[1 + g % 3]
         FROM generate_series({from}, {through}) g"
    )
}

/// `where`, and what a person would write in SQL.
const CONDITIONS: &[(&str, &str)] = &[
    ("{ deleted_at: null }", "deleted_at IS NULL"),
    ("{ deleted_at: { not: null } }", "deleted_at IS NOT NULL"),
    ("{ plan: [free, pro] }", "plan IN ('free', 'pro')"),
    ("{ plan: { not: free } }", "plan <> 'free'"),
    ("{ plan: { not: [free, null] } }", "NOT (plan = 'free' OR plan IS NULL)"),
    ("{ plan: [null, { not: free }] }", "plan IS NULL OR plan <> 'free'"),
    ("{ amount: 0.1 }", "amount = 0.1"),
    ("{ amount: { at_least: 0.1, at_most: 100 } }", "amount BETWEEN 0.1 AND 100"),
    ("{ amount: { not: NaN } }", "amount <> 'NaN'"),
    ("{ ratio: { at_least: 1e-7 } }", "ratio >= 1e-7"),
    ("{ big: 9007199254740993 }", "big = 9007199254740993"),
    ("{ ok: false }", "NOT ok"),
    ("{ ok: { not: true } }", "ok <> true"),
    ("{ code: ab }", "code = 'ab'"),
    ("{ at: { at_least: 2026-01-31 } }", "at >= '2026-01-31 00:00+00'"),
    ("{ local: { at_most: \"2026-01-31 12:00\" } }", "local <= '2026-01-31 12:00'"),
    ("{ day: { not: 2026-01-31 } }", "day <> '2026-01-31'"),
    ("{ meta: { not: null } }", "meta IS NOT NULL"),
    (
        "{ deleted_at: null, plan: { not: free }, amount: { at_least: 0.09 } }",
        "deleted_at IS NULL AND plan <> 'free' AND amount >= 0.09",
    ),
];

fn section(name: &str) -> SectionText {
    SectionText::activity(name, "event")
        .without("email")
        .without("weight")
        .without("date")
        .set("date", "receipt")
        .field("externalId", "id")
        .field("action", &format!("{{ value: {name} }}"))
}

/// The keys that a section has sent, ascending.
fn sent(sim: &SimHandle, section: &str) -> Vec<i64> {
    let items = sim.items(SinkKind::Activity).into_iter().filter(|item| text(item, "action") == section);
    sorted(items.map(|item| key(&item)).collect())
}

fn number(document: &Value, field: &str) -> u64 {
    document[field].as_u64().unwrap_or_else(|| panic!("{field} in {document}"))
}

/// Waits until a row's transaction is settled, and `trace` says that a rule left it out: why.
async fn is_filtered(config: &ConfigText, section: &str, key: i64) -> String {
    eventually(PATIENCE, "trace says filtered", async || {
        let traced = App::command(config, &["--json", "trace", section, &key.to_string()]).await.json();
        assert!(traced["outcome"] == "filtered" || traced["outcome"] == "waiting", "{traced}");
        assert_eq!(traced["source"], "present", "{traced}");
        (traced["outcome"] == "filtered").then(|| traced["why"].as_str().unwrap().to_owned())
    })
    .await
}

async fn case_140_where_takes_the_rows_that_sql_takes_by_every_way(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster.sql(&format!("{TABLE}; {}; ANALYZE event", rows(1, 400))).await;
    let sim = sink().await;
    let mut config = ConfigText::new(&cluster, &sim.url()).set("audit", "{ every: off }");
    for (index, (condition, _)) in CONDITIONS.iter().enumerate() {
        config = config.section(section(&format!("s{index}")).set("where", condition));
    }
    let app = App::run(&config);
    app.wait_ready().await;
    for from in [401, 501, 601, 701] {
        cluster.sql(&rows(from, from + 99)).await;
    }
    for (index, (condition, sql)) in CONDITIONS.iter().enumerate() {
        let name = format!("s{index}");
        let wanted = table_keys(&cluster, &format!("SELECT id FROM event WHERE {sql} ORDER BY id")).await;
        assert!(!wanted.is_empty() && wanted.len() < 800, "{condition} tells rows apart");
        eventually(PATIENCE, &format!("{condition} is {sql}"), async || (sent(&sim, &name) == wanted).then_some(()))
            .await;
        // Every row is accounted for, by the way that it came and the rule.
        eventually(PATIENCE, &format!("the books of {condition}"), async || {
            let metrics = app.metrics().await;
            let of = |metric: &str, phase: &str, more: &[(&str, &str)]| {
                let labels = [&[("section", name.as_str()), ("phase", phase)], more].concat();
                metrics.get(&format!("pg2planhat_{metric}"), &labels).unwrap_or_default()
            };
            // The backfill leaves to the stream what that has brought meanwhile.
            let streamed = of("rows_filtered_total", "backfill", &[("reason", "streamed")]);
            let balanced = [("backfill", streamed), ("stream", 0.0)].iter().all(|(phase, streamed)| {
                let filtered = of("rows_filtered_total", phase, &[("reason", "where")]);
                let settled = of("rows_delivered_total", phase, &[]) + filtered + streamed;
                of("rows_read_total", phase, &[]) == settled && filtered > 0.0
            });
            let read = of("rows_read_total", "backfill", &[]) + of("rows_read_total", "stream", &[]);
            (balanced && read - streamed == 800.0).then_some(())
        })
        .await;
    }
    let left_out = table_keys(&cluster, "SELECT id FROM event WHERE deleted_at IS NOT NULL ORDER BY id").await;
    for key in [left_out[0], left_out[left_out.len() - 1]] {
        let why = is_filtered(&config, "s0", key).await;
        assert!(why.contains("where"), "{why}");
    }
    let audited = App::command(&config, &["--json", "audit", "--all"]).await;
    let reports = audited.json();
    for (report, (condition, _)) in reports.as_array().unwrap().iter().zip(CONDITIONS) {
        let delivered = number(report, "delivered");
        assert_eq!(number(report, "filtered"), 800 - delivered, "{condition}: {report}");
        assert_eq!((number(report, "missing"), number(report, "unknown")), (0, 0), "{condition}: {report}");
        assert_eq!(number(report, "rows_settled"), 800, "{condition}: {report}");
    }
    assert_eq!(audited.code, 0, "{reports}");
    // A preview shows the same.
    let shown = App::command(&config, &["--json", "preview", "s0", "-n", "7"]).await.json();
    let filtered = shown["items"].as_array().unwrap().iter().filter(|item| item["filtered"] == "where").count();
    assert_eq!(filtered, 1, "{shown}");
    // What was left out when it came, and would be taken now, is not called missing.
    cluster.sql("UPDATE event SET deleted_at = NULL WHERE id = 7").await;
    eventually(PATIENCE, "the update is in the statistics", async || {
        let report = App::command(&config, &["--json", "audit", "s0"]).await.json();
        let (unknown, missing) = (number(&report[0], "unknown"), number(&report[0], "missing"));
        (unknown == 1 && missing == 0).then_some(())
    })
    .await;
}

async fn case_141_on_null_skip_leaves_out_and_a_retry_leaves_quarantine(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster.sql(&format!("{TABLE}; {}", rows(1, 22))).await;
    let sim = sink().await;
    let with =
        |section: SectionText| ConfigText::new(&cluster, &sim.url()).set("audit", "{ every: off }").section(section);
    let who = section("s").field("externalId", "who").field("info", "{ id: id }");
    let held = async |rows: usize| {
        let there = cluster.rows("SELECT 1 FROM pg2planhat.quarantine").await.len();
        (there == rows).then_some(())
    };
    let app = App::run(&with(who.clone()));
    arrived(&sim, SinkKind::Activity, 20).await;
    eventually(PATIENCE, "mandatory NULLs wait in quarantine", async || held(2).await).await;
    drain(app, &cluster).await;

    let skip = with(who.set("on_null", "skip"));
    let app = App::run(&skip);
    app.wait_ready().await;
    cluster.sql(&rows(23, 44)).await;
    arrived(&sim, SinkKind::Activity, 40).await;
    let filtered = async |phase: &str| {
        let labels = [("section", "s"), ("phase", phase), ("reason", "null")];
        app.metric("pg2planhat_rows_filtered_total", &labels).await
    };
    eventually(PATIENCE, "NULLs of the stream are left out", async || {
        (filtered("stream").await == Some(2.0)).then_some(())
    })
    .await;
    is_filtered(&skip, "s", 33).await;
    let retried = App::command(&skip, &["quarantine", "retry", "--all", "--yes"]).await;
    assert_eq!(retried.code, 0, "{}", retried.stderr);
    eventually(PATIENCE, "what is left out now has left the quarantine", async || held(0).await).await;
    eventually(PATIENCE, "a retry is counted", async || (filtered("retry").await == Some(2.0)).then_some(())).await;
    let report = App::command(&skip, &["--json", "audit", "s"]).await.json();
    assert_eq!((number(&report[0], "delivered"), number(&report[0], "filtered")), (40, 4), "{report}");

    let again = App::command(&skip, &["resync", "s", "--all", "--yes"]).await;
    assert_eq!(again.code, 0, "{}", again.stderr);
    arrived(&sim, SinkKind::Activity, 80).await;
    eventually(PATIENCE, "a re-sync is counted", async || (filtered("resync").await == Some(4.0)).then_some(())).await;
}

#[tokio::test]
async fn case_142_check_and_setup_know_the_columns_of_where() {
    let cluster = Cluster::start().await;
    cluster
        .sql(&format!(
            "{TABLE}; {}; CREATE ROLE least LOGIN REPLICATION; GRANT SELECT (id, at) ON event TO least",
            rows(1, 44)
        ))
        .await;
    let sim = sink().await;
    let config = |section: SectionText| ConfigText::new(&cluster, &sim.url()).section(section);
    let findings = async |config: &ConfigText| -> Vec<Value> {
        App::command(config, &["--json", "check"]).await.json()["findings"].as_array().unwrap().clone()
    };
    let all = [
        ("{ pln: free }", "column_unknown", "error", "`plan` instead of `pln`"),
        ("{ big: many }", "constant_type", "error", "where.big to a number"),
        ("{ plan: { at_least: 1 } }", "column_type", "error", "only numbers and times"),
        ("{ plan: { not: free } }", "where_null", "info", "[null, { not: … }]"),
        ("{ plan: gone }", "rows_left_out", "warning", "compare `where` with what the table has"),
        ("{ deleted_at: null }", "rows_left_out", "info", "preview s"),
    ];
    for (condition, code, severity, remedy) in all {
        let found = findings(&config(section("s").set("where", condition))).await;
        let finding =
            found.iter().find(|finding| finding["code"] == code).unwrap_or_else(|| panic!("{code} in {found:?}"));
        assert_eq!(finding["severity"], severity, "{finding}");
        assert!(finding["remedy"].as_str().unwrap().contains(remedy), "{finding}");
    }
    let found = findings(&config(section("s").field("info", "{ big: big }"))).await;
    let finding = found.iter().find(|finding| finding["code"] == "integer_precision").unwrap();
    assert!(finding["remedy"].as_str().unwrap().contains("as: text"), "{finding}");
    let found = findings(&config(section("s").field("info", "{ big: { column: big, as: text } }"))).await;
    assert!(found.iter().all(|finding| finding["code"] != "integer_precision"), "{found:?}");

    let least = config(section("s").set("where", "{ plan: pro }")).set("source.user", "least");
    let denied = findings(&least).await;
    let denied = denied.iter().find(|finding| finding["code"] == "select_denied").unwrap();
    assert!(denied["message"].as_str().unwrap().contains("may not read plan"), "{denied}");
    let script = App::command(&least, &["setup", "--print-sql"]).await.stdout;
    let grant = script.lines().find(|line| line.contains("GRANT SELECT (")).unwrap_or_else(|| panic!("{script}"));
    assert!(grant.contains("plan"), "{grant}");
    // A column that is not there stops the section when it runs, too, and says the same.
    let app = App::run(&config(section("s").set("where", "{ pln: free }")));
    app.wait_status("the section to say why", |status| {
        let halted = status["sections"][0]["state"] == "halted";
        let remedy = status["sections"][0]["remedy"].as_str()?;
        (halted && remedy.contains("`plan` instead of `pln`")).then_some(())
    })
    .await;
}
