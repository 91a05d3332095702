//! A re-sync that covers a gap closes it: tests/FAULTS.md, case 213.

use pg2planhat::testing::sim::SimFault;
use serde_json::Value;

use crate::cli_ops_look::{json, stop};
use crate::delivery_scene::{PATIENCE, Scene, seats};
use crate::harness::{App, ConfigText, SectionText, eventually};

const OPEN: &str = "SELECT count(*) FROM pg2planhat.gap WHERE closed_at IS NULL";

/// Rows 1 to 5 were delivered, 6 to 25 were committed while the section was off, 26 to 30 were streamed since.
struct Gap {
    scene: Scene,
    off: ConfigText,
    id: i64,
}

fn section() -> SectionText {
    seats().set("batch", "{ rows: 5 }")
}

impl Gap {
    async fn new() -> (Gap, App) {
        let logins = SectionText::activity("logins", "a");
        let scene = Scene::of(&[section(), logins.clone()]).await;
        let off = scene.config.clone().without_sections().section(section().set("sync", "off")).section(logins);
        let app = scene.run().await;
        scene.insert(1, 5).await;
        scene.metrics(5).await;
        // They are older than the gap.
        let floor = "SELECT count(*) FROM pg2planhat.instance, m WHERE m.id = 5 AND xmin_floor > m.xmin::text::bigint";
        scene.number(floor, 1).await;
        stop(&app).await;
        let app = App::run(&off);
        app.wait_ready().await;
        scene.number(OPEN, 1).await;
        scene.insert(6, 25).await;
        // Read and gone by.
        scene.cluster.sql("INSERT INTO a (user_id, action, weight) VALUES ('k1', 'login', 1)").await;
        scene.sink(|stats| stats.activities.items == 1).await;
        stop(&app).await;
        let app = scene.run().await;
        scene.insert(26, 30).await;
        scene.metrics(10).await;
        let id = scene.cluster.number("SELECT id FROM pg2planhat.gap").await;
        (Gap { scene, off, id }, app)
    }

    async fn resync(&self, app: &App, from: &[&str]) -> Value {
        let arguments = [&["--json", "resync", "seats", "--yes"], from].concat();
        let output = App::launch(&self.scene.config).beside(app).arguments(&arguments).output().await;
        assert_eq!(output.code, 0, "{output:?}");
        output.json()
    }

    /// Waits until no re-sync is under way.
    async fn ended(&self) {
        let under_way = "SELECT count(*) FROM pg2planhat.section WHERE phase = 'resyncing'";
        self.scene.number(under_way, 0).await;
    }
}

#[tokio::test]
async fn case_304_an_audit_that_finds_every_row_settled_closes_the_gap() {
    let (gap, app) = Gap::new().await;
    let scene = &gap.scene;
    let audit = async |more: &[&str]| {
        let arguments = [&["audit", "seats"], more].concat();
        App::launch(&scene.config).beside(&app).arguments(&arguments).output().await
    };
    let found = audit(&[]).await;
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.stdout.contains("20 rows are missing"), "{found:?}");
    assert_eq!(scene.cluster.number(OPEN).await, 1, "its rows are not there yet");
    let asked = audit(&["--deliver-missing", "--yes"]).await;
    assert_eq!(asked.code, 1, "{asked:?}");
    // The instance audits by itself behind a repair.
    scene.number(OPEN, 0).await;
    let by = scene.cluster.text("SELECT closed_by FROM pg2planhat.gap").await;
    assert_eq!(by, "an audit that found every row settled");
    scene.metrics(30).await;
    eventually(PATIENCE, "all to be well", async || (status(scene, &app).await == 0).then_some(())).await;
    stop(&app).await;
    let offered = json(&scene.config, &["repair", "--gap"]).await;
    assert_eq!(offered["repaired"], Value::Null, "they would come twice: {offered}");
    scene.assert_received(30, &[], &[]);
}

async fn status(scene: &Scene, app: &App) -> i32 {
    App::launch(&scene.config).beside(app).arguments(&["status"]).output().await.code
}

#[tokio::test]
async fn case_213_a_resync_that_covers_a_gap_closes_it_and_repair_has_nothing_to_do() {
    let (gap, app) = Gap::new().await;
    let scene = &gap.scene;
    assert_eq!(status(scene, &app).await, 1, "a gap is open");
    // Nothing arrives, so that the re-sync is under way when the program is killed.
    scene.sim.queue_fault(SimFault::status(503).times(0));
    let said = gap.resync(&app, &["--from-key", "5"]).await;
    assert_eq!((&said["closes_gaps"], &said["leaves_gaps"]), (&serde_json::json!([gap.id]), &serde_json::json!([])));
    scene.number("SELECT count(*) FROM pg2planhat.section WHERE phase = 'resyncing'", 1).await;
    app.kill9().await;
    assert_eq!(scene.cluster.number(OPEN).await, 1, "its rows are not there yet");
    let offered = json(&scene.config, &["repair", "--gap"]).await;
    assert_eq!(offered["repaired"], Value::Null, "they would come twice: {offered}");
    scene.sim.clear_faults();
    let app = scene.run().await;
    gap.ended().await;
    scene.number(OPEN, 0).await;
    let by = scene.cluster.text("SELECT closed_by FROM pg2planhat.gap").await;
    assert!(by.starts_with("resync by "), "{by}");
    scene.metrics(35).await;
    scene.assert_received(30, &(26..=30).collect::<Vec<_>>(), &[]);
    let well = async || (status(scene, &app).await == 0).then_some(());
    eventually(PATIENCE, "all to be well", well).await;
    stop(&app).await;
    assert_eq!(json(&scene.config, &["repair", "--gap"]).await["repaired"], Value::Null);
    scene.assert_received(30, &(26..=30).collect::<Vec<_>>(), &[]);
}

/// Kills everywhere: the gap is closed only when its rows are there.
#[tokio::test]
async fn case_213_kills_in_the_middle_close_no_gap_before_its_rows_are_there() {
    let (gap, app) = Gap::new().await;
    let scene = &gap.scene;
    scene.sim.set_fault_rate(1, 1.0, vec![SimFault::Slow { millis: 40 }]);
    gap.resync(&app, &["--all"]).await;
    let mut app = Some(app);
    let mut kills = 0;
    while scene.cluster.number(OPEN).await == 1 {
        let items = scene.sim.stats().metrics.items;
        let running = app.take().unwrap_or_else(|| App::run(&scene.config));
        let more = async || (scene.sim.stats().metrics.items > items).then_some(());
        eventually(PATIENCE, "another batch", more).await;
        running.kill9().await;
        kills += 1;
        let received = scene.received();
        let all = (6..=25).all(|number| received.contains_key(&number));
        assert!(all || scene.cluster.number(OPEN).await == 1, "closed, and its rows are not there: {received:?}");
        assert!(kills < 40, "it never ends");
    }
    assert!(kills > 2, "only {kills}");
    let doubted = "SELECT first_key, last_key FROM pg2planhat.delivery WHERE outcome IN ('in_doubt', 'resent')";
    let doubted = scene.cluster.rows(doubted).await;
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<u64>().unwrap();
    for (key, times) in scene.received().into_iter().filter(|(key, _)| (6..=25).contains(key)) {
        let named = doubted.iter().filter(|row| (number(&row[0])..=number(&row[1])).contains(&key)).count() as u64;
        assert!(times <= 1 + named, "{key} came {times} times, in doubt {named} times");
    }
}

#[tokio::test]
async fn case_213_a_resync_that_does_not_cover_a_gap_says_so_and_leaves_it_open() {
    let (gap, app) = Gap::new().await;
    let scene = &gap.scene;
    let said = gap.resync(&app, &["--from-key", "10"]).await;
    assert_eq!((&said["closes_gaps"], &said["leaves_gaps"]), (&serde_json::json!([]), &serde_json::json!([gap.id])));
    scene.metrics(30).await;
    gap.ended().await;
    assert_eq!((scene.cluster.number(OPEN).await, status(scene, &app).await), (1, 1));
    scene.assert_received(30, &(26..=30).collect::<Vec<_>>(), &[6, 7, 8, 9, 10]);
    // The rest, and then it is closed; nothing of it is offered twice.
    let said = gap.resync(&app, &["--from-key", "5"]).await;
    assert_eq!(said["closes_gaps"], serde_json::json!([gap.id]));
    gap.ended().await;
    scene.number(OPEN, 0).await;
    stop(&app).await;
    assert_eq!(json(&scene.config, &["repair", "--gap"]).await["repaired"], Value::Null);
}

/// A partition that came with its rows, which are older than the gap: a re-sync from before the first of them covers it.
#[tokio::test]
async fn case_213_a_resync_from_before_an_attached_partitions_rows_closes_its_gap() {
    let scene = Scene::of(&[section().set("table", "p")]).await;
    let columns = "(id bigint NOT NULL, external_id text, value float8, at timestamptz DEFAULT now())";
    let made = format!(
        "CREATE TABLE p {columns} PARTITION BY RANGE (id);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (1) TO (100); CREATE TABLE p_2 {columns};
         ALTER TABLE p ADD PRIMARY KEY (id);
         INSERT INTO p_2 SELECT g, 'k' || g, g FROM generate_series(100, 120) g"
    );
    scene.cluster.sql(&made).await;
    let app = scene.run().await;
    let insert = async |from: u64, to: u64| {
        let sql = format!("INSERT INTO p SELECT g, 'k' || g, g FROM generate_series({from}, {to}) g");
        scene.cluster.sql(&sql).await;
    };
    insert(1, 20).await;
    scene.metrics(20).await;
    let floor = "SELECT count(*) FROM pg2planhat.instance, p WHERE p.id = 20 AND xmin_floor > p.xmin::text::bigint";
    scene.number(floor, 1).await;
    // Once the monitor has seen its partitions.
    scene.number("SELECT count(*) FROM pg2planhat.section WHERE publication_entry IS NOT NULL", 1).await;
    scene.cluster.sql("ALTER TABLE p ATTACH PARTITION p_2 FOR VALUES FROM (100) TO (200)").await;
    scene.number(OPEN, 1).await;
    let id = scene.cluster.number("SELECT id FROM pg2planhat.gap").await;
    let resync = async |from: &str| {
        let arguments = ["--json", "resync", "seats", "--yes", "--from-key", from];
        let output = App::launch(&scene.config).beside(&app).arguments(&arguments).output().await;
        assert_eq!(output.code, 0, "{output:?}");
        scene.number("SELECT count(*) FROM pg2planhat.section WHERE phase = 'resyncing'", 0).await;
        output.json()
    };
    assert_eq!(resync("110").await["leaves_gaps"], serde_json::json!([id]));
    assert_eq!(scene.cluster.number(OPEN).await, 1);
    assert_eq!(resync("99").await["closes_gaps"], serde_json::json!([id]));
    scene.number(OPEN, 0).await;
    let twice: Vec<u64> = (111..=120).collect();
    let expected = |number: &u64| 1 + u64::from(twice.contains(number));
    let received = scene.received();
    assert!((1..=20).chain(100..=120).all(|number| received.get(&number) == Some(&expected(&number))), "{received:?}");
}

/// Switched off again in the middle, the re-sync does not have what is committed meanwhile.
#[tokio::test]
async fn case_213_a_gap_that_grows_meanwhile_stays_open() {
    let (gap, app) = Gap::new().await;
    let scene = &gap.scene;
    scene.sim.queue_fault(SimFault::status(503).times(0));
    gap.resync(&app, &["--all"]).await;
    scene.number("SELECT count(*) FROM pg2planhat.section WHERE phase = 'resyncing'", 1).await;
    app.kill9().await;
    scene.sim.clear_faults();
    let app = App::run(&gap.off);
    app.wait_ready().await;
    scene.insert(31, 40).await;
    scene.cluster.sql("INSERT INTO a (user_id, action, weight) VALUES ('k1', 'login', 1)").await;
    scene.sink(|stats| stats.activities.items == 2).await;
    stop(&app).await;
    let app = scene.run().await;
    gap.ended().await;
    assert_eq!(scene.cluster.number(OPEN).await, 1, "rows 31 to 40 were never read");
    let said = gap.resync(&app, &["--from-key", "30"]).await;
    assert_eq!(said["leaves_gaps"], serde_json::json!([gap.id]), "its floor is that of the first time: {said}");
    gap.ended().await;
    let received = scene.received();
    assert!((1..=40).all(|number| received.contains_key(&number)), "{received:?}");
    stop(&app).await;
    // Whoever knows that all is there closes it without another row sent.
    let repaired = json(&scene.config, &["repair", "--accept-loss", "--yes"]).await;
    assert!(repaired["repaired"].is_object(), "{repaired}");
    assert_eq!(scene.cluster.number(OPEN).await, 0);
    let app = scene.run().await;
    scene.insert(41, 41).await;
    eventually(PATIENCE, "the next row", async || scene.received().contains_key(&41).then_some(())).await;
    assert_eq!(scene.received().range(..=40).map(|(_, times)| times).sum::<u64>(), received.values().sum::<u64>());
    drop(app);
}
