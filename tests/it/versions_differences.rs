//! What one PostgreSQL does and another does not, each on real servers.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::Value;

use crate::faults_slot::{in_step, with_synced_slots};
use crate::faults_stream_scene::{PATIENCE, Scene, section};
use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};
use crate::main_job_oracle::drain;

async fn scene(version: Version) -> Option<Scene> {
    Some(Scene::at(Cluster::builder().version(version).start_or_skip().await?).await)
}

/// The findings of `check` by code.
async fn check(config: &ConfigText) -> (i32, BTreeMap<String, Value>) {
    let output = App::command(config, &["--json", "check"]).await;
    let findings = output.json()["findings"].as_array().unwrap().clone();
    (output.code, findings.into_iter().map(|finding| (finding["code"].as_str().unwrap().to_owned(), finding)).collect())
}

/// This finding is there, and its message and remedy hold these words.
fn says(found: &BTreeMap<String, Value>, code: &str, severity: &str, message: &str, remedy: &str) {
    let finding = found.get(code).unwrap_or_else(|| panic!("no {code} among {found:?}"));
    let holds = |key: &str, part: &str| finding[key].as_str().unwrap().contains(part);
    assert!(finding["severity"] == severity && holds("message", message) && holds("remedy", remedy), "{finding}");
}

#[tokio::test]
async fn case_21_a_slot_that_18_gave_up_for_idleness_is_a_named_state() {
    let Some(scene) = scene(Version::V18).await else { return };
    let app = scene.run().await;
    scene.insert(3).await;
    scene.exact().await;
    scene.confirmed().await;
    scene.cluster.set("idle_replication_slot_timeout", "1s").await;
    let (code, found) = check(&scene.config).await;
    assert_eq!(code, 0, "{found:?}");
    says(&found, "idle_slot_timeout", "warning", "is 1 s", "idle_replication_slot_timeout = '0'");
    // A slot in use is not idle.
    scene.cluster.sql("SELECT pg_sleep(1.2); CHECKPOINT").await;
    assert!(app.is_running());
    drain(app, &scene.cluster).await;
    scene.insert(2).await;
    let lost = || async {
        scene.cluster.sql("SELECT pg_switch_wal(); CHECKPOINT").await;
        let reason =
            "SELECT coalesce(invalidation_reason, '') FROM pg_replication_slots WHERE slot_name = 'pg2planhat'";
        (scene.cluster.text(reason).await == "idle_timeout").then_some(())
    };
    eventually(PATIENCE, "the slot to be given up", lost).await;
    let (code, found) = check(&scene.config).await;
    assert_eq!(code, 1);
    says(&found, "slot_lost", "error", "idle_replication_slot_timeout", "repair --gap");
    let app = App::run(&scene.config);
    scene.needs_person(&app, "slot_lost").await;
    assert!(app.log().contains("idle_replication_slot_timeout (idle_timeout)"), "{}", app.log());
    assert_eq!(scene.gaps().await, ["slot_lost"]);
    scene.cluster.set("idle_replication_slot_timeout", "0").await;
    let repaired = App::command(&scene.config, &["--json", "repair", "--gap", "--yes"]).await;
    assert_eq!(repaired.code, 0, "{repaired:?}");
    let app = scene.run().await;
    scene.insert(2).await;
    scene.delivered().await;
    drain(app, &scene.cluster).await;
}

const GENERATED: &str = "CREATE TABLE g (id bigserial PRIMARY KEY, raw int, external_id text, at timestamptz DEFAULT now(),
    twice int GENERATED ALWAYS AS (raw * 2) STORED); INSERT INTO g (raw, external_id) SELECT n, 'c' FROM generate_series(1, 5) n";

/// Before 18 no stream brings them (case 33). 18 does, where the publication says so, and only stored ones.
#[tokio::test]
async fn case_33_a_stored_generated_column_is_streamed_by_18() {
    let Some(mut scene) = scene(Version::V18).await else { return };
    scene.cluster.sql(GENERATED).await;
    let reading = |field: &str| SectionText::metric("g", "g").field("value", field);
    let plain = ConfigText::new(&scene.cluster, &scene.sim.url());
    scene.config = plain.clone().section(reading("twice"));
    let (code, found) = check(&scene.config).await;
    assert_eq!(code, 0, "{found:?}");
    let script = App::command(&scene.config, &["setup", "--print-sql"]).await;
    assert!(script.stdout.contains("publish_generated_columns = stored"), "{script:?}");
    let app = App::run(&scene.config);
    scene.streaming(&app).await;
    scene.cluster.sql("INSERT INTO g (raw, external_id) SELECT n, 'c' FROM generate_series(6, 10) n").await;
    scene.sim.wait_for(|stats| stats.metrics.items >= 10, PATIENCE).await.unwrap();
    assert_eq!(scene.accepted(), (1..=10).map(|n| (n * 2, 1)).collect());
    drain(app, &scene.cluster).await;

    // Somebody's publication without them: refused with the statement that mends it.
    scene.cluster.sql("ALTER PUBLICATION pg2planhat SET (publish_generated_columns = none)").await;
    let (code, found) = check(&scene.config).await;
    assert_eq!(code, 1);
    let mend = "ALTER PUBLICATION \"pg2planhat\" SET (publish_generated_columns = stored);";
    says(&found, "column_generated", "error", "does not publish", mend);
    // It was altered while nothing ran: what it skipped meanwhile nobody knows, so a person decides.
    let app = App::run(&scene.config);
    assert_eq!(app.wait_exit(PATIENCE).await, 75);
    assert!(app.log().contains("publication_changed"), "{}", app.log());
    assert_eq!(scene.accepted().len(), 10);

    // A virtual one has no values in the WAL.
    scene.cluster.sql("ALTER TABLE g ADD thrice int GENERATED ALWAYS AS (raw * 3) VIRTUAL").await;
    let (code, found) = check(&plain.section(reading("thrice"))).await;
    assert_eq!(code, 1);
    says(&found, "column_generated", "error", "virtual", "STORED");
}

#[tokio::test]
async fn case_26_a_failover_slot_is_asked_for_where_there_are_any() {
    join_all([Version::V16, Version::V17, Version::V18].map(async |version| {
        let Some(mut scene) = scene(version).await else { return };
        scene.config = scene.config.set("source.failover_slot", "true");
        let (code, found) = check(&scene.config).await;
        assert_eq!(code, 0, "{found:?}");
        if version < Version::V17 {
            says(&found, "failover_slot_unsupported", "warning", "before PostgreSQL 17", "repair --gap");
        } else {
            says(&found, "failover_standbys", "info", "each standby", "sync_replication_slots = on");
            says(&found, "synchronized_standby_slots", "warning", "is empty", "synchronized_standby_slots");
        }
        let app = scene.run().await;
        scene.insert(3).await;
        scene.exact().await;
        drain(app, &scene.cluster).await;
        if version < Version::V17 {
            return;
        }
        let failover = "SELECT failover FROM pg_replication_slots WHERE slot_name = 'pg2planhat'";
        assert_eq!(scene.cluster.text(failover).await, "t");
        // A standby that is named and not there holds the stream back; `check` says so.
        scene.cluster.sql("SELECT pg_create_physical_replication_slot('s1')").await;
        scene.cluster.set("synchronized_standby_slots", "s1").await;
        let (code, found) = check(&scene.config).await;
        assert_eq!(code, 1);
        says(&found, "standby_awaited", "error", "names s1", "primary_slot_name = 's1'");
    }))
    .await;
}

#[tokio::test]
async fn case_26_a_slot_made_without_failover_is_named_and_can_be_altered() {
    let Some((mut scene, standby, _network)) = with_synced_slots(Version::V18).await else { return };
    scene.config = scene.config.set("source.failover_slot", "false");
    let app = scene.run().await;
    let (_, found) = check(&scene.config).await;
    says(&found, "failover_slot_off", "info", "there are standbys", "FAILOVER true");
    drain(app, &scene.cluster).await;
    scene.config = scene.config.set("source.failover_slot", "true");
    let (code, found) = check(&scene.config).await;
    assert_eq!(code, 0, "{found:?}");
    says(
        &found,
        "failover_slot_off",
        "warning",
        "made without",
        "ALTER_REPLICATION_SLOT \"pg2planhat\" (FAILOVER true)",
    );
    // As the remedy has it, by the replication protocol.
    let port = scene.cluster.port();
    let source =
        format!("source: {{ host: 127.0.0.1, port: {port}, database: postgres, user: postgres, tls: disable }}");
    let file = standby.socket_directory().join("source.yaml");
    std::fs::write(&file, source).unwrap();
    let source = pg2planhat::testing::config::load_source(&file).unwrap();
    let mut wire = pg2planhat::testing::postgres::ReplicationConnection::connect(&source, "test").await.unwrap();
    wire.simple_query("ALTER_REPLICATION_SLOT \"pg2planhat\" (FAILOVER true)").await.unwrap();
    wire.close().await;
    let app = scene.run().await;
    in_step(&scene, &standby).await;
    drain(app, &scene.cluster).await;
}

/// From 16 on a standby can decode; the publication and the state cannot be written there. Refused, and waited for: the next
/// look may find it promoted.
#[tokio::test]
async fn case_17_a_standby_is_refused_with_its_reason_and_taken_once_it_is_promoted() {
    join_all([Version::V15, Version::V16, Version::V18].map(async |version| {
        let Some(primary) = scene(version).await else { return };
        let standby = primary.cluster.standby().await;
        let config = primary.config.clone().through(standby.port());
        let (code, found) = check(&config).await;
        assert_eq!(code, 1);
        says(&found, "standby", "error", "this server is a standby", "primary");
        let app = App::run(&config);
        let stalled = |status: &Value| {
            (status["state"] == "stalled" && status["message"].as_str()?.contains("standby")).then_some(())
        };
        app.wait_status("the reason", stalled).await;
        assert_eq!(app.get("/readyz").await.unwrap().status, 503);
        primary.cluster.crash().await;
        standby.promote().await;
        let scene = Scene { config, cluster: standby, sim: primary.sim };
        scene.streaming(&app).await;
        scene.insert(3).await;
        scene.exact().await;
        drain(app, &scene.cluster).await;
    }))
    .await;
}

/// What `status` and `check` read of `pg_replication_slots` is there, or known not to be there, in every version.
#[tokio::test]
async fn case_17_what_a_slot_says_of_itself_is_read_in_every_version() {
    join_all(Version::asked().into_iter().map(async |version| {
        let builder = Cluster::builder().version(version).setting("max_slot_wal_keep_size", "2GB");
        let Some(cluster) = builder.start_or_skip().await else { return };
        let scene = Scene::at(cluster).await;
        let (code, found) = check(&scene.config.clone().section(section().set("name", "again"))).await;
        assert_eq!(code, 0, "{version}: {found:?}");
        says(&found, "version", "ok", &version.major().to_string(), "");
        let app = scene.run().await;
        let slot = |status: &Value| status["slot"]["safe_wal_bytes"].is_number().then(|| status["slot"].clone());
        let slot = app.wait_status("the slot's figures", slot).await;
        assert!(slot["retained_bytes"].is_number() && slot["confirmed_flush_lsn"].is_string(), "{version}: {slot}");
        let (code, found) = check(&scene.config).await;
        assert_eq!(code, 0, "{version}: {found:?}");
        says(&found, "slot_active", "info", "in use by pid", "");
        drain(app, &scene.cluster).await;
    }))
    .await;
}

/// A role that may not replicate: the server's words differ, the remedy does not.
#[tokio::test]
async fn case_17_no_right_to_replicate_is_named_in_every_version() {
    join_all(Version::asked().into_iter().map(async |version| {
        let Some(scene) = scene(version).await else { return };
        scene.cluster.sql("CREATE ROLE plain LOGIN; GRANT SELECT ON m TO plain").await;
        let (code, found) = check(&scene.config.clone().set("source.user", "plain")).await;
        assert_eq!(code, 1);
        says(&found, "replication", "error", "no replication connection", "ALTER ROLE \"plain\" REPLICATION");
        says(&found, "role_replication", "error", "may not replicate", "ALTER ROLE \"plain\" REPLICATION");
    }))
    .await;
}
