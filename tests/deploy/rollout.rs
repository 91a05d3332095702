//! A rolling update, with two processes instead of two pods, by the manifest's own numbers.

use crate::harness::http::get_as;
use crate::harness::{App, eventually};
use crate::scene::Scene;
use crate::tools::{text, yaml};
use serde_json::Value;
use std::time::{Duration, Instant};

/// What the Deployment says of one pod's life.
struct Manifest {
    ready: String,
    alive: String,
    grace: Duration,
    shutdown_grace: String,
}

impl Manifest {
    fn read() -> Manifest {
        let deployment = yaml(&text("deploy/kubernetes/base/deployment.yaml")).remove(0)["spec"].take();
        let rolling = &deployment["strategy"]["rollingUpdate"];
        assert_eq!((rolling["maxSurge"].as_i64(), rolling["maxUnavailable"].as_i64()), (Some(1), Some(0)));
        let pod = &deployment["template"]["spec"];
        let probe = |probe: &str| pod["containers"][0][probe]["httpGet"]["path"].as_str().unwrap().to_owned();
        let config = yaml(&text("deploy/kubernetes/base/pg2planhat.yaml")).remove(0);
        Manifest {
            ready: probe("readinessProbe"),
            alive: probe("livenessProbe"),
            grace: Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap()),
            shutdown_grace: config["shutdown_grace"].as_str().unwrap().to_owned(),
        }
    }

    async fn is_ready(&self, pod: &App) -> bool {
        pod.get(&self.ready).await.is_ok_and(|answer| answer.status == 200)
    }

    async fn until_ready(&self, pod: &App) {
        let look = || async { self.is_ready(pod).await.then_some(()) };
        eventually(Duration::from_secs(30), "the new pod to be ready", look).await;
    }

    async fn assert_alive(&self, pod: &App) {
        assert_eq!(pod.get(&self.alive).await.unwrap().status, 200, "{}", pod.log());
    }
}

async fn code(pod: &App, path: &str) -> u16 {
    pod.get(path).await.unwrap().status
}

/// One update: surge, wait for the new pod's readiness, end the old one. Gives the new pod and the time that nobody led.
async fn update(manifest: &Manifest, scene: &Scene, old: App) -> (App, Duration) {
    let new = App::run(&scene.config);
    manifest.until_ready(&new).await;
    assert_eq!((code(&old, "/readyz").await, code(&new, "/readyz").await), (200, 503), "the old one leads");
    manifest.assert_alive(&new).await;
    old.sigterm();
    let told = Instant::now();
    let led = async {
        // Looked at more often than a probe would, so that the time is the process's.
        let mut last = told;
        loop {
            match old.get("/status").await.map(|answer| serde_json::from_str::<Value>(&answer.body)) {
                Ok(Ok(status)) if status["state"] == "draining" => {
                    assert!(!manifest.is_ready(&old).await || !old.is_running(), "a draining pod gets no traffic");
                }
                Ok(Ok(_)) => last = Instant::now(),
                Ok(Err(_)) | Err(_) => return last,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (led, code) = tokio::join!(led, old.wait_exit(manifest.grace));
    assert_eq!(code, 0, "drained: {}", old.log());
    new.wait_ready().await;
    let without = led.elapsed();
    manifest.assert_alive(&new).await;
    assert!(manifest.is_ready(&new).await);
    (new, without)
}

#[tokio::test]
async fn a_rolling_update_loses_and_doubles_nothing_and_is_short() {
    let manifest = Manifest::read();
    let mut scene = Scene::new(10).await;
    scene.config = scene.config.set("shutdown_grace", &manifest.shutdown_grace);
    let scene = scene;
    let run = async {
        let mut pod = App::run(&scene.config);
        pod.wait_ready().await;
        for round in 1..=3 {
            let before = scene.sim.stats().metrics.items;
            let flows = |stats: &pg2planhat::testing::sim::Stats| stats.metrics.items > before + 20;
            scene.sim.wait_for(flows, Duration::from_secs(30)).await.unwrap();
            let (new, without) = update(&manifest, &scene, pod).await;
            eprintln!("update {round}: {without:?} without a leader");
            assert!(without < Duration::from_secs(15), "{without:?}");
            pod = new;
        }
        pod
    };
    let pod = tokio::select! { never = scene.writes(Duration::from_millis(10)) => match never {}, pod = run => pod };
    scene.exact().await;
    let sent_again = "SELECT count(*) FROM pg2planhat.delivery WHERE outcome IN ('in_doubt', 'resent', 'held')";
    assert_eq!(scene.cluster.number(sent_again).await, 0);
    drop(pod);
}

#[tokio::test]
async fn an_update_that_cannot_start_stops_nothing() {
    let manifest = Manifest::read();
    let scene = Scene::new(10).await;
    let run = async {
        let pod = App::run(&scene.config);
        pod.wait_ready().await;
        // A configuration with a mistake, and one that names a database that is not there.
        let new = App::run(&scene.config.clone().set("memroy", "64MiB"));
        assert_eq!(new.wait_exit(Duration::from_secs(10)).await, 64);
        let new = App::run(&scene.config.clone().set("source.database", "nonesuch"));
        new.wait_log("nonesuch").await;
        assert!(!manifest.is_ready(&new).await, "it would take the old one's place");
        drop(new);
        let before = scene.sim.stats().metrics.items;
        scene.sim.wait_for(|stats| stats.metrics.items > before + 20, Duration::from_secs(30)).await.unwrap();
        assert_eq!(code(&pod, "/readyz").await, 200);
        pod
    };
    let pod = tokio::select! { never = scene.writes(Duration::from_millis(10)) => match never {}, pod = run => pod };
    scene.exact().await;
    drop(pod);
}

#[tokio::test]
async fn the_port_answers_to_names_that_the_configuration_lists_and_to_no_others() {
    let scene = Scene::new(0).await;
    let pod = App::run(&scene.config.clone().set("admin.hosts", "[Metrics.example.com]"));
    pod.wait_ready().await;
    for (host, status) in [("metrics.example.com", 200), ("metrics.example.com:9187", 200), ("example.com", 421)] {
        assert_eq!(get_as(pod.admin_port(), "/livez", host).await.unwrap().status, status, "{host}");
    }
}

#[tokio::test]
async fn a_process_that_waits_for_a_person_is_alive_not_ready_and_ends_when_told_to() {
    let scene = Scene::new(1).await;
    let pod = App::run(&scene.config);
    pod.wait_ready().await;
    scene.exact().await;
    pod.sigterm();
    assert_eq!(pod.wait_exit(Duration::from_secs(20)).await, 0);
    scene.cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    let pod = App::launch(&scene.config).arguments(&["run", "--stay"]).start();
    pod.wait_status("needs_person", |status| (status["state"] == "needs_person").then_some(())).await;
    let manifest = Manifest::read();
    manifest.assert_alive(&pod).await;
    assert!(!manifest.is_ready(&pod).await);
    pod.sigterm();
    assert_eq!(pod.wait_exit(Duration::from_secs(5)).await, 75);
}
