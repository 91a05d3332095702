//! `where` and `on_null` written otherwise while a section is attached (FAULTS 273, 274): rows that an earlier rule left out are
//! unknown and never missing; what came since, and is lost, has its name.

use pg2planhat::testing::sim::{SimHandle, SinkKind};
use serde_json::Value;

use crate::cli_ops_look::stop;
use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};
use crate::main_job_oracle::*;
use crate::planted_losses::{FORGET, REMEMBER, floored};

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, st text, who text, value int DEFAULT 1)";

/// Rows of which every other one is left out, by either rule.
fn rows(from: u32, through: u32) -> String {
    format!(
        "INSERT INTO t SELECT g, CASE WHEN g % 2 = 0 THEN 'on' ELSE 'off' END, CASE WHEN g % 2 = 0 THEN 'w' END
         FROM generate_series({from}, {through}) g"
    )
}

fn section() -> SectionText {
    SectionText::metric("t", "t").field("externalId", "id").without("date").set("date", "receipt")
}

async fn scene() -> (Cluster, SimHandle, ConfigText) {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql(&format!("{TABLE}; {}", rows(1, 20))).await;
    let base = ConfigText::new(&cluster, &sim.url()).set("audit", "{ every: off }");
    (cluster, sim, base)
}

/// Waits for an audit's rows, delivered, unknown, missing; returns its caveat.
async fn settles(config: &ConfigText, wanted: [u64; 4]) -> String {
    let last = std::cell::RefCell::new(Value::Null);
    let found = async {
        eventually(PATIENCE, &format!("rows, delivered, unknown, missing: {wanted:?}"), async || {
            let report = App::command(config, &["--json", "audit", "t"]).await.json()[0].clone();
            *last.borrow_mut() = report.clone();
            let counts = ["rows_source", "delivered", "unknown", "missing"].map(|name| report[name].as_u64().unwrap());
            assert!(counts[3] <= wanted[3], "called missing: {report}");
            (counts == wanted).then(|| report["caveat"].as_str().unwrap().to_owned())
        })
        .await
    };
    found.await
}

async fn kinds(config: &ConfigText) -> Vec<String> {
    let plan = App::command(config, &["--json", "plan"]).await.json();
    let all = plan["changes"].as_array().unwrap().iter();
    all.map(|change| change["kind"].as_str().unwrap().to_owned()).collect()
}

/// It is recorded since which transaction the rules hold.
async fn dated(cluster: &Cluster) {
    let sql = "SELECT count(*) FROM pg2planhat.section WHERE rules_since < 9223372036854775807";
    eventually(PATIENCE, "the rules are dated", async || (cluster.number(sql).await == 1).then_some(())).await;
}

#[tokio::test]
async fn case_273_rows_that_an_earlier_rule_left_out_are_not_missing_and_a_loss_is() {
    let skips = section().field("externalId", "who").set("on_null", "skip");
    let defaults = section().field("externalId", "{ column: who, default: nobody }");
    let ways = [(skips, defaults, false), (section().set("where", "{ st: 'on' }"), section(), true)];
    for (before, now, loses) in ways {
        let (cluster, sim, base) = scene().await;
        let (before, now) = (base.clone().section(before), base.section(now));
        let app = App::run(&before);
        arrived(&sim, SinkKind::Metric, 10).await;
        section_is(&app, "t", "streaming").await;
        settles(&before, [20, 10, 0, 0]).await;
        let planned = kinds(&now).await;
        assert!(planned.contains(&"rules".to_owned()), "{planned:?}");
        // The file is ahead of what runs.
        let caveat = settles(&now, [20, 10, 10, 0]).await;
        assert!(caveat.contains("an earlier rule left out"), "{caveat}");
        app.reload(&now);
        app.wait_log("the section goes on as it is written now").await;
        dated(&cluster).await;
        cluster.sql(&rows(21, 30)).await;
        arrived(&sim, SinkKind::Metric, 20).await;
        settles(&now, [30, 20, 10, 0]).await;
        if !loses {
            stop(&app).await;
            continue;
        }
        cluster.sql(REMEMBER).await;
        cluster.sql(&rows(31, 34)).await;
        arrived(&sim, SinkKind::Metric, 24).await;
        settles(&now, [34, 24, 10, 0]).await;
        floored(&cluster).await;
        stop(&app).await;
        cluster.sql(FORGET).await;
        settles(&now, [34, 20, 10, 4]).await;
    }
}

#[tokio::test]
async fn case_274_rules_changed_while_nothing_ran_and_those_that_an_older_version_did_not_record() {
    let (cluster, sim, base) = scene().await;
    let (filtered, all) = (base.clone().section(section().set("where", "{ st: 'on' }")), base.section(section()));
    let app = App::run(&filtered);
    arrived(&sim, SinkKind::Metric, 10).await;
    section_is(&app, "t", "streaming").await;
    settles(&filtered, [20, 10, 0, 0]).await;
    stop(&app).await;
    let app = App::run(&all);
    section_is(&app, "t", "streaming").await;
    dated(&cluster).await;
    cluster.sql(&rows(21, 24)).await;
    arrived(&sim, SinkKind::Metric, 14).await;
    settles(&all, [24, 14, 10, 0]).await;
    stop(&app).await;
    // A state of an older version.
    cluster.sql("UPDATE pg2planhat.section SET rules = NULL, rules_since = NULL").await;
    settles(&all, [24, 14, 10, 0]).await;
    let app = App::run(&all);
    section_is(&app, "t", "streaming").await;
    dated(&cluster).await;
    settles(&all, [24, 14, 10, 0]).await;
    // A rule where none was before leaves nothing open.
    stop(&app).await;
    let app = App::run(&filtered);
    section_is(&app, "t", "streaming").await;
    settles(&filtered, [24, 14, 0, 0]).await;
    stop(&app).await;
}
