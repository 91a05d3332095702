//! Outages, from the first late row to the last alert that resolves: the program itself, a real PostgreSQL, a real Prometheus
//! with the real rules, and a stand-in that fails.

use crate::dashboard;
use crate::harness::cluster::Stop;
use crate::harness::{App, eventually};
use crate::prometheus::{Pace, Prometheus};
use crate::scene::Scene;
use pg2planhat::testing::sim::SimFault;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Rows that are there before it begins.
const BEFORE: u64 = 20_000;
/// How often a row is committed to each table.
const EVERY: Duration = Duration::from_millis(20);

/// A Prometheus that looks at the program, once it has seen it at work.
async fn watched(app: &App, pace: Pace) -> Prometheus {
    let prometheus = Prometheus::start(&[&format!("127.0.0.1:{}", app.admin_port())], pace);
    app.wait_ready().await;
    // Its first scrape of a process has no rate yet; the second has.
    prometheus.until("min(rate(pg2planhat_rows_delivered_total{phase=\"stream\"}[1m])) > 0", true).await;
    prometheus.until("sum(pg2planhat_section_state{state=\"streaming\"}) == 2", true).await;
    prometheus.until("min(pg2planhat_slot_seconds_until_lost) > 0", true).await;
    // Health is silent.
    prometheus.quiet().await;
    prometheus
}

/// Every panel draws something, and where a number is known it is that number.
async fn panels_show_the_run(prometheus: &Prometheus) {
    for (title, query) in dashboard::queries() {
        let result = prometheus.query(&query).await.unwrap_or_else(|| panic!("{title}: cannot be evaluated: {query}"));
        assert!(!result.is_empty(), "{title}: nothing to draw: {query}");
    }
    let of = |panel: &str, part: &str| {
        let queries = dashboard::queries();
        let found = queries.into_iter().find(|(title, query)| title.trim_matches('"') == panel && query.contains(part));
        found.unwrap_or_else(|| panic!("no {part} on {panel}")).1
    };
    let before = BEFORE as f64;
    for (panel, part, low, high) in [
        ("Ready", "", 1.0, 1.0),
        ("State", "", 1.0, 1.0),
        ("Rows unaccounted for", "", 0.0, 0.0),
        ("Rows in quarantine", "", 0.0, 0.0),
        ("Oldest row not settled", "max by", 0.0, 60.0),
        ("Commit to delivered", "0.95", 0.01, 60.0),
        // And what was written until it attached.
        ("Backfill", "pg2planhat_backfill_rows{", before, 1.5 * before),
        ("Backfill", "estimated", before, 2.0 * before),
        ("Backfill: time to its end", "", 0.0, 0.0),
        ("Time until the slot is lost", "", 60.0, 1e9),
        ("WAL", "retained", 1.0, 1e9),
        ("WAL", "confirmed_lag", 0.0, 1e8),
        ("WAL", "safe_wal", 1e9, 9e9),
        ("Rate of WAL", "", 1.0, 1e8),
        ("Time of a request (95 %)", "", 0.0001, 10.0),
        ("Size of a batch", "rows", 1.0, 500.0),
        ("Memory", "resident", 1e6, 1e9),
        ("CPU", "", 0.0001, 2.0),
    ] {
        let query = of(panel, part);
        // A quantile of what never happened is no number; what did happen has one.
        let shown = prometheus.value(&format!("max(({query}) >= 0)")).await;
        let shown = shown.unwrap_or_else(|| panic!("{panel} shows no number: {query}"));
        assert!((low..=high).contains(&shown), "{panel}: {shown} is not in {low}..{high}: {query}");
    }
    for panel in ["Read", "Delivered"] {
        let streamed = prometheus.value(&format!("max({})", of(panel, ""))).await.unwrap();
        assert!(streamed > 0.1, "{panel}: {streamed} a second");
    }
}

/// `read = delivered + quarantined + filtered + unsettled`, of each section, in each single scrape.
async fn the_books_balance_in_every_scrape(prometheus: &Prometheus) {
    let names = "pg2planhat_rows_(read|delivered|quarantined|filtered)_total|pg2planhat_rows_unsettled";
    let series = prometheus.query(&format!("{{__name__=~\"{names}\"}}[2h]")).await.unwrap();
    let mut books: BTreeMap<(String, String), (usize, f64)> = BTreeMap::new();
    for series in series {
        let (name, section) = (&series["metric"]["__name__"], &series["metric"]["section"]);
        let sign = if name == "pg2planhat_rows_read_total" { 1.0 } else { -1.0 };
        for sample in series["values"].as_array().unwrap() {
            let key = (section.to_string(), sample[0].to_string());
            let book = books.entry(key).or_default();
            *book = (book.0 + 1, book.1 + sign * sample[1].as_str().unwrap().parse::<f64>().unwrap());
        }
    }
    // Two ways in that are always there, two out, five reasons, one rule, and what is unsettled.
    let odd = books.values().map(|(terms, _)| *terms).find(|terms| *terms < 2 + 2 + 5 + 1 + 1);
    assert_eq!(odd, None, "not all series in each scrape");
    let wrong: Vec<_> = books.iter().filter(|(_, (_, sum))| *sum != 0.0).collect();
    assert!(wrong.is_empty(), "unaccounted for: {wrong:?}");
    assert!(books.len() > 12, "{books:?}");
    eprintln!("the books of {} scrapes and sections balance", books.len());
}

#[tokio::test]
async fn an_outage_of_planhat_alerts_and_resolves_and_the_books_balance_in_every_scrape() {
    let scene = Scene::new(BEFORE).await;
    let app = App::run(&scene.config);
    let run = async {
        let prometheus = watched(&app, Pace::HastyAndImpatient).await;
        panels_show_the_run(&prometheus).await;
        outage(&scene, &prometheus).await;
        // The tenant is unknown: halted. It probes, and goes on by itself.
        scene.sim.queue_fault(SimFault::status(404).times(0));
        prometheus.fires("Pg2planhatSectionHalted").await;
        scene.sim.clear_faults();
        prometheus.resolves("Pg2planhatSectionHalted").await;
        prometheus.quiet().await;
        the_books_balance_in_every_scrape(&prometheus).await;
    };
    tokio::select! { never = scene.writes(EVERY) => match never {}, () = run => {} }
    scene.exact().await;
}

/// Planhat is overloaded, and mends: rows are late, and no more than that.
async fn outage(scene: &Scene, prometheus: &Prometheus) {
    scene.sim.queue_fault(SimFault::status(503).times(0));
    prometheus.until("sum(increase(pg2planhat_retries_total{reason=\"later\"}[1m])) > 0", true).await;
    assert_eq!(prometheus.value("min(pg2planhat_ready)").await, Some(1.0), "a restart would mend nothing");
    prometheus.fires("Pg2planhatLate").await;
    let streaming = prometheus.query("pg2planhat_section_state{state=\"streaming\"} == 1").await.unwrap();
    assert_eq!(streaming.len(), 2, "later is no halt");
    assert_eq!(prometheus.value("min(pg2planhat_ready)").await, Some(0.0), "nothing flows for a minute");
    scene.sim.clear_faults();
    prometheus.resolves("Pg2planhatLate").await;
}

#[tokio::test]
async fn an_outage_of_postgresql_alerts_and_resolves_and_so_does_the_end_of_the_process() {
    let scene = Scene::new(100).await;
    let app = App::run(&scene.config);
    let run = async {
        let prometheus = watched(&app, Pace::Hasty).await;
        scene.cluster.stop(Stop::Fast).await;
        prometheus.fires("Pg2planhatStalled").await;
        prometheus.fires("Pg2planhatNotReady").await;
        scene.cluster.start_again().await;
        prometheus.resolves("Pg2planhatStalled").await;
        prometheus.resolves("Pg2planhatNotReady").await;
        // Little room of which nothing is used is no alarm. Used up by an open transaction it is one; with the runbook's remedy
        // it is not.
        scene.cluster.set("max_slot_wal_keep_size", "128MB").await;
        prometheus.until("max(pg2planhat_slot_safe_wal_bytes) < 200 * 1024 * 1024", true).await;
        prometheus.resolves("Pg2planhatSlotNearlyLost").await;
        let open = scene.cluster.client().await;
        open.batch_execute("BEGIN; CREATE TABLE pg_temp.open (n int)").await.unwrap();
        let left = "SELECT (safe_wal_size > 24 * 1024 * 1024)::int::bigint FROM pg_replication_slots";
        while scene.cluster.number(left).await == 1 {
            scene.cluster.sql("SELECT pg_logical_emit_message(false, 'x', 'y'); SELECT pg_switch_wal()").await;
        }
        prometheus.fires("Pg2planhatSlotNearlyLost").await;
        drop(open);
        scene.cluster.set("max_slot_wal_keep_size", "100GB").await;
        prometheus.resolves("Pg2planhatSlotNearlyLost").await;
        // A row that Planhat does not want, and an answer that never comes.
        scene.sim.queue_fault(SimFault::RefuseFirst { count: 1, error: "no such company".into() });
        prometheus.fires("Pg2planhatQuarantineGrowing").await;
        scene.sim.queue_fault(SimFault::ResetAfterStoring);
        prometheus.fires("Pg2planhatInDoubt").await;
        the_books_balance_in_every_scrape(&prometheus).await;
        app.sigterm();
        assert_eq!(app.wait_exit(Duration::from_secs(20)).await, 0);
        prometheus.fires("Pg2planhatAbsent").await;
    };
    tokio::select! { never = scene.writes(EVERY) => match never {}, () = run => {} }
}

/// Rows go into quarantine and into doubt by processes that are gone before anybody has scraped them: the next one's counters
/// begin anew and tell nothing of it.
#[tokio::test]
async fn case_245_what_a_process_showed_in_no_scrape_alerts_when_the_next_one_is_there() {
    let scene = Scene::new(100).await;
    let first = App::run(&scene.config);
    let prometheus = Prometheus::start(&[&format!("127.0.0.1:{}", first.admin_port())], Pace::Hasty);
    first.wait_ready().await;
    prometheus.until("max(pg2planhat_rows_quarantined_ever{section=\"logins\"}) == 0", true).await;
    prometheus.until("max(pg2planhat_rows_in_doubt_ever{section=\"logins\"}) == 0", true).await;
    first.sigterm();
    assert_eq!(first.wait_exit(Duration::from_secs(20)).await, 0);
    let row = "INSERT INTO a (email, user_id, action, weight) VALUES ('a@example.com', 'k', 'login', 1)";
    // At an address that nobody scrapes.
    scene.sim.queue_fault(SimFault::RefuseFirst { count: 1, error: "no such company".into() });
    let second = App::run(&scene.config);
    second.wait_ready().await;
    scene.cluster.sql(row).await;
    let refused = |status: &serde_json::Value| (status["sections"][1]["rows_quarantined"] == 1).then_some(());
    second.wait_status("the row to be in quarantine", refused).await;
    scene.sim.queue_fault(SimFault::Hang { store: true });
    scene.cluster.sql(row).await;
    let asked = || async { (scene.sim.stats().activities.items == 1).then_some(()) };
    eventually(Duration::from_secs(20), "a request under way", asked).await;
    second.kill9().await;
    // At the first one's address.
    let third = App::launch(&scene.config).beside(&first).start();
    for alert in ["Pg2planhatQuarantineGrowing", "Pg2planhatInDoubt"] {
        prometheus.fires(alert).await;
    }
    let told = "max(pg2planhat_rows_quarantined_ever) == 1 and max(pg2planhat_rows_in_doubt_ever) == 1";
    prometheus.until(told, true).await;
    assert_eq!(prometheus.value("sum(pg2planhat_rows_quarantined_total)").await, Some(0.0));
    third.sigterm();
    assert_eq!(third.wait_exit(Duration::from_secs(20)).await, 0);
}

#[tokio::test]
async fn a_lost_slot_is_said_until_a_person_has_mended_it_and_then_it_goes_on() {
    let scene = Scene::new(100).await;
    let app = App::launch(&scene.config).arguments(&["run", "--stay"]).start();
    let run = async {
        let prometheus = watched(&app, Pace::Hasty).await;
        // Rows are read and not settled when it happens: they are read again, and counted once.
        scene.sim.queue_fault(SimFault::status(503).times(0));
        prometheus.until("sum(pg2planhat_rows_unsettled) > 50", true).await;
        let drop = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL; \
                    SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
        let dropped = || async { scene.cluster.try_sql(drop).await.ok() };
        eventually(Duration::from_secs(20), "the slot to be dropped", dropped).await;
        prometheus.fires("Pg2planhatNeedsPerson").await;
        scene.sim.clear_faults();
        assert_eq!(app.get("/livez").await.unwrap().status, 200, "a restart would mend nothing");
        let ready = app.get("/readyz").await.unwrap();
        assert!(
            ready.status == 503 && ready.body.contains("slot_missing") && ready.body.contains("repair"),
            "{ready:?}"
        );
        assert_eq!(prometheus.value("max(pg2planhat_leader)").await, Some(0.0));
        let mended = App::launch(&scene.config).arguments(&["repair", "--gap", "--yes"]).beside(&app).output().await;
        assert_eq!(mended.code, 0, "{}{}", mended.stdout, mended.stderr);
        prometheus.resolves("Pg2planhatNeedsPerson").await;
        app.wait_ready().await;
        let status = app.status().await;
        assert_eq!((&status["state"], &status["reason"]), (&"running".into(), &serde_json::Value::Null), "{status}");
        assert_eq!(app.log().matches("a person must decide").count(), 1, "said once: {}", app.log());
        // The rows that were left have come: nothing is unsettled for long.
        prometheus.until("sum(pg2planhat_rows_unsettled) < 20", true).await;
        the_books_balance_in_every_scrape(&prometheus).await;
    };
    tokio::select! { never = scene.writes(EVERY) => match never {}, () = run => {} }
    scene.nothing_is_missing().await;
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(20)).await, 0);
}

#[tokio::test]
#[ignore = "takes half an hour: cargo test --test deploy -- --ignored"]
async fn soak_an_outage_in_real_time_with_the_rules_as_they_are() {
    let scene = Scene::new(BEFORE).await;
    let app = App::run(&scene.config);
    let run = async {
        let prometheus = watched(&app, Pace::Real).await;
        let began = Instant::now();
        outage(&scene, &prometheus).await;
        eprintln!("late, fired and resolved within {:?}", began.elapsed());
        prometheus.quiet().await;
        the_books_balance_in_every_scrape(&prometheus).await;
    };
    tokio::select! { never = scene.writes(EVERY) => match never {}, () = run => {} }
    scene.exact().await;
}
