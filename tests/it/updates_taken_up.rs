//! `on: insert_and_update` that begins or ends otherwise than at a start: tables mended while the program runs (FAULTS 295), and
//! tables of which no section sends updates any more (296); and what an update stands for that is read from its table (297).

use std::collections::BTreeMap;

use pg2planhat::testing::sim::{Keep, Sim, SimHandle, SimOptions, SinkKind};

use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::*;
use crate::versions_main_job::on_some_versions;

on_some_versions!({
    case_295_a_table_that_gets_its_replica_identity_while_it_runs_flows_without_a_restart
    case_295_a_second_table_that_is_mended_loses_no_update
    case_295_a_section_of_inserts_that_cannot_turn_to_updates_is_halted_until_its_table_is_mended
    case_296_a_table_of_which_no_section_sends_updates_any_more_is_published_no_longer
    case_296_where_the_publication_is_not_managed_the_harm_is_said_and_watched
});

fn table(name: &str, more: &str) -> String {
    format!(
        "CREATE TABLE {name} (id bigint NOT NULL, external_id text, value int, at timestamptz DEFAULT now(){more});
         CREATE UNIQUE INDEX {name}_id ON {name} (id);
         INSERT INTO {name} SELECT g, '{name}' || g, g FROM generate_series(1, 10) g;"
    )
}

fn updated(name: &str) -> SectionText {
    SectionText::metric(name, name).set("key", "id").set("on", "insert_and_update")
}

fn config(cluster: &Cluster, sim: &SimHandle) -> ConfigText {
    ConfigText::new(cluster, &sim.url()).set("audit", "{ every: off }")
}

/// The last value that was received of each `externalId`.
fn last(sim: &SimHandle) -> BTreeMap<String, i64> {
    let items = sim.items(SinkKind::Metric);
    items.iter().map(|item| (text(item, "externalId"), item.item()["value"].as_i64().unwrap())).collect()
}

/// Waits until the last values that were received are those of the tables.
async fn settles(cluster: &Cluster, sim: &SimHandle, tables: &[&str]) {
    let selects: Vec<String> = tables.iter().map(|name| format!("SELECT external_id, value FROM {name}")).collect();
    let rows = cluster.rows(&selects.join(" UNION ALL ")).await;
    let wanted: BTreeMap<String, i64> =
        rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].as_ref().unwrap().parse().unwrap())).collect();
    eventually(PATIENCE, "the last values to be the tables'", async || (last(sim) == wanted).then_some(())).await;
}

/// The tables that the publication of updates carries.
async fn carried(cluster: &Cluster) -> String {
    let sql = "SELECT coalesce(string_agg(tablename, ',' ORDER BY tablename), '') FROM pg_publication_tables
        WHERE pubname = 'pg2planhat_updates'";
    cluster.text(sql).await
}

async fn gaps(cluster: &Cluster) -> i64 {
    cluster.number("SELECT count(*) FROM pg2planhat.gap").await
}

async fn case_295_a_table_that_gets_its_replica_identity_while_it_runs_flows_without_a_restart(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster.sql(&table("bare", "")).await;
    let sim = sink().await;
    let config = config(&cluster, &sim).section(updated("bare"));
    let app = App::run(&config);
    section_is(&app, "bare", "halted").await;
    assert_eq!(carried(&cluster).await, "", "published, it would make the application's UPDATE fail");
    cluster
        .sql("UPDATE bare SET value = 100 WHERE id = 1; ALTER TABLE bare REPLICA IDENTITY USING INDEX bare_id")
        .await;
    section_is(&app, "bare", "streaming").await;
    cluster.sql("UPDATE bare SET value = value + 1000 WHERE id < 5; INSERT INTO bare VALUES (11, 'bare11', 11)").await;
    settles(&cluster, &sim, &["bare"]).await;
    assert_eq!(sim.items(SinkKind::Metric).len(), 15, "ten older rows, four updates and an insert");
    assert_eq!(app.log().matches("leading").count(), 1, "{}", app.log());
    // The next process takes it up where this one ended.
    drain(app, &cluster).await;
    cluster.sql("UPDATE bare SET value = value + 1 WHERE id = 7").await;
    let app = App::run(&config);
    settles(&cluster, &sim, &["bare"]).await;
    assert_eq!((sim.items(SinkKind::Metric).len(), gaps(&cluster).await), (16, 0));
    drain(app, &cluster).await;
}

async fn case_295_a_second_table_that_is_mended_loses_no_update(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster.sql(&(table("keyed", ", PRIMARY KEY (id)") + &table("bare", ""))).await;
    let sim = sink().await;
    let app = App::run(&config(&cluster, &sim).section(updated("keyed")).section(updated("bare")));
    section_is(&app, "bare", "halted").await;
    section_is(&app, "keyed", "streaming").await;
    cluster.sql("UPDATE keyed SET value = value + 1 WHERE id = 1").await;
    arrived(&sim, SinkKind::Metric, 11).await;
    cluster.sql("ALTER TABLE bare REPLICA IDENTITY USING INDEX bare_id").await;
    // A transaction that wrote before the publication carried the table.
    let open = cluster.client().await;
    open.batch_execute("BEGIN; UPDATE bare SET value = -1 WHERE id = 9").await.unwrap();
    let is_carried = async || (carried(&cluster).await == "bare,keyed").then_some(());
    eventually(PATIENCE, "the publication to carry the table", is_carried).await;
    cluster.sql("UPDATE bare SET value = value + 1000 WHERE id <= 5; INSERT INTO bare VALUES (11, 'bare11', 11)").await;
    open.batch_execute("COMMIT").await.unwrap();
    section_is(&app, "bare", "streaming").await;
    cluster.sql("UPDATE bare SET value = value + 1000 WHERE id <= 5; UPDATE keyed SET value = value + 1").await;
    settles(&cluster, &sim, &["bare", "keyed"]).await;
    // The monitor has looked since: nothing was skipped.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    section_is(&app, "bare", "streaming").await;
    assert_eq!((gaps(&cluster).await, app.log().matches("leading").count()), (0, 1), "{}", app.log());
    drain(app, &cluster).await;
}

async fn case_295_a_section_of_inserts_that_cannot_turn_to_updates_is_halted_until_its_table_is_mended(
    version: Version,
) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster.sql(&table("bare", "")).await;
    let sim = sink().await;
    let inserts = config(&cluster, &sim).section(updated("bare").set("on", "insert"));
    let app = App::run(&inserts);
    arrived(&sim, SinkKind::Metric, 10).await;
    section_is(&app, "bare", "streaming").await;
    drain(app, &cluster).await;
    let app = App::run(&config(&cluster, &sim).section(updated("bare")));
    let said = app
        .wait_status("the section to say why", |status| {
            let section = &status["sections"][0];
            (section["state"] == "halted").then(|| section.to_string())
        })
        .await;
    assert!(said.contains("no replica identity") && said.contains("REPLICA IDENTITY FULL"), "{said}");
    cluster.sql("UPDATE bare SET value = 0 WHERE id = 1; INSERT INTO bare VALUES (11, 'bare11', 11)").await;
    cluster.sql("ALTER TABLE bare REPLICA IDENTITY USING INDEX bare_id").await;
    section_is(&app, "bare", "streaming").await;
    let named = "SELECT count(*) FROM pg2planhat.instance WHERE checkpoint >= updates_from";
    eventually(PATIENCE, "a stream with updates", async || (cluster.number(named).await == 1).then_some(())).await;
    cluster.sql("UPDATE bare SET value = value + 1000").await;
    settles(&cluster, &sim, &["bare"]).await;
    assert_eq!((sim.items(SinkKind::Metric).len(), gaps(&cluster).await), (22, 0));
    drain(app, &cluster).await;
}

/// Waits until the state knows that the publication of updates carries the section's table.
async fn is_known(cluster: &Cluster, section: &str) {
    let known =
        format!("SELECT count(*) FROM pg2planhat.section WHERE name = '{section}' AND publication_entry LIKE '% | %'");
    eventually(PATIENCE, "the entry to be recorded", async || (cluster.number(&known).await == 1).then_some(())).await;
}

/// Takes the primary key away, so that the table has no replica identity, and updates a row; then puts the key back.
async fn is_updated_without_a_key(cluster: &Cluster, table: &str) -> bool {
    cluster.sql(&format!("ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")).await;
    let updated = cluster.try_sql(&format!("UPDATE {table} SET value = value + 1 WHERE id = 1")).await.is_ok();
    cluster.sql(&format!("ALTER TABLE {table} ADD PRIMARY KEY (id)")).await;
    updated
}

async fn case_296_a_table_of_which_no_section_sends_updates_any_more_is_published_no_longer(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster.sql(&(table("one", ", PRIMARY KEY (id)") + &table("two", ", PRIMARY KEY (id)"))).await;
    let sim = sink().await;
    let config = || config(&cluster, &sim);
    let both = config().section(updated("one")).section(updated("two"));
    let app = App::run(&both);
    arrived(&sim, SinkKind::Metric, 20).await;
    is_known(&cluster, "one").await;
    is_known(&cluster, "two").await;
    drain(app, &cluster).await;
    // Somebody else's table stays.
    cluster
        .sql("CREATE TABLE other (id bigint PRIMARY KEY); ALTER PUBLICATION pg2planhat_updates ADD TABLE other")
        .await;
    // Taken back: its inserts are still sent.
    let inserts = config().section(updated("one").set("on", "insert")).section(updated("two"));
    let planned = App::command(&inserts, &["plan"]).await;
    assert!(planned.stdout.contains("still carries public.one"), "{}{}", planned.stdout, planned.stderr);
    assert_eq!(carried(&cluster).await, "one,other,two", "`plan` changes nothing");
    let app = App::run(&inserts);
    app.wait_ready().await;
    section_is(&app, "two", "streaming").await;
    assert_eq!(carried(&cluster).await, "other,two");
    assert!(is_updated_without_a_key(&cluster, "one").await);
    cluster.sql("INSERT INTO one VALUES (11, 'one11', 11); UPDATE two SET value = 100 WHERE id = 2").await;
    arrived(&sim, SinkKind::Metric, 22).await;
    drain(app, &cluster).await;
    // Taken out of the file: the last one.
    let app = App::run(&config().section(updated("one").set("on", "insert")));
    app.wait_ready().await;
    assert_eq!(carried(&cluster).await, "other");
    assert!(is_updated_without_a_key(&cluster, "two").await);
    drain(app, &cluster).await;
    // And back again: nothing halts, and each version from then on is sent.
    let app = App::run(&both);
    app.wait_ready().await;
    let named = "SELECT count(*) FROM pg2planhat.instance WHERE checkpoint >= updates_from";
    eventually(PATIENCE, "a stream with updates", async || (cluster.number(named).await == 1).then_some(())).await;
    is_known(&cluster, "one").await;
    assert_eq!(carried(&cluster).await, "one,other,two");
    cluster.sql("UPDATE one SET value = value + 1000; UPDATE two SET value = value + 1000").await;
    settles(&cluster, &sim, &["one", "two"]).await;
    section_is(&app, "one", "streaming").await;
    section_is(&app, "two", "streaming").await;
    drain(app, &cluster).await;
}

async fn case_296_where_the_publication_is_not_managed_the_harm_is_said_and_watched(version: Version) {
    let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { return };
    cluster.sql(&table("one", ", PRIMARY KEY (id)")).await;
    let sim = sink().await;
    let app = App::run(&config(&cluster, &sim).section(updated("one")));
    arrived(&sim, SinkKind::Metric, 10).await;
    is_known(&cluster, "one").await;
    drain(app, &cluster).await;
    let inserts = config(&cluster, &sim).set("source.manage", "false").section(updated("one").set("on", "insert"));
    let found = App::command(&inserts, &["--json", "check"]).await.json();
    let finding = found["findings"].as_array().unwrap().iter().find(|one| one["code"] == "publication_unused");
    let finding = finding.unwrap_or_else(|| panic!("{found}"));
    assert_eq!(finding["severity"], "warning", "{finding}");
    assert!(finding["message"].as_str().unwrap().contains("refuses the application's own UPDATE"), "{finding}");
    let app = App::run(&inserts);
    app.wait_ready().await;
    app.wait_log("still carries public.one").await;
    assert_eq!(carried(&cluster).await, "one");
    section_is(&app, "one", "streaming").await;
    cluster.sql("ALTER TABLE one REPLICA IDENTITY NOTHING").await;
    assert!(cluster.try_sql("UPDATE one SET value = 7").await.is_err(), "PostgreSQL refuses it");
    section_is(&app, "one", "halted").await;
    let said = app.status().await["sections"][0].to_string();
    assert!(said.contains("DROP TABLE") && !said.contains("repair"), "{said}");
    cluster.sql("ALTER PUBLICATION pg2planhat_updates DROP TABLE one; UPDATE one SET value = 7 WHERE id = 1").await;
    section_is(&app, "one", "streaming").await;
    drain(app, &cluster).await;
}

/// Updates of a few bytes each, whose rows hold megabytes that the log does not bring: 160 MB in one message of the stream.
#[tokio::test]
async fn case_297_large_values_that_are_read_from_the_table_stay_within_the_memory() {
    const MIB: u64 = 1 << 20;
    let cluster = Cluster::start().await;
    cluster
        .sql(
            "CREATE TABLE wide (id bigint PRIMARY KEY, who text, n int, note text, at timestamptz DEFAULT now());
             ALTER TABLE wide ALTER note SET STORAGE EXTERNAL;
             INSERT INTO wide SELECT g, 'u' || g, 0, repeat('x', 4000000) FROM generate_series(1, 40) g",
        )
        .await;
    let options = SimOptions { keep: Keep::Counts, ..SimOptions::default() };
    let sim = Sim::start(options).await.unwrap();
    let section = SectionText::activity("wide", "wide")
        .set("on", "insert_and_update")
        .set("start", "now")
        .without("email")
        .without("weight")
        .field("externalId", "who")
        .field("action", "{ value: seen }")
        .field("info", "{ n: n, note: note }");
    let config = config(&cluster, &sim).set("memory", "16MiB").section(section);
    let app = App::run(&config);
    app.wait_ready().await;
    section_is(&app, "wide", "streaming").await;
    cluster.sql("UPDATE wide SET n = n + 1").await;
    let all = sim.wait_for(|stats| stats.activities.items >= 40, PATIENCE).await;
    assert_eq!(all.unwrap().activities.items, 40, "each once");
    let held = app.rss();
    eprintln!("VmHWM {} MiB", held / MIB);
    assert!(held < (32 + 4 * 16) * MIB, "VmHWM {} MiB", held / MIB);
    drain(app, &cluster).await;
    assert_eq!(sim.stats().activities.items, 40, "each once");
}
