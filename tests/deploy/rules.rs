//! The alert rules, by promtool and in a real Prometheus that scrapes the admin port.

use crate::dashboard;
use crate::tools::{path, succeed, text, tool};
use pg2planhat::admin::{AdminState, Heartbeat, Hosts, Looks, bind, serve};
use pg2planhat::planhat::Verdict;
use pg2planhat::state::{Outcome, Phase};
use pg2planhat::telemetry::status::{Backfill, InstanceState, SectionState, SectionStatus, Status};
use pg2planhat::telemetry::{Filtered, Metrics, SectionMetrics};
use serde_json::Value;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    let folder = path("deploy/prometheus");
    if let Some(mut promtool) = tool("promtool") {
        succeed(promtool.args(["check", "rules", "rules.yaml"]).current_dir(&folder));
    }
    if let Some(mut promtool) = tool("promtool") {
        succeed(promtool.args(["test", "rules", "rules.test.yaml"]).current_dir(&folder));
    }
    if let Some(mut promtool) = tool("promtool") {
        // What it checks are also the configuration's and the rules' paths, so the container's become ours.
        let temp = tempfile::tempdir().unwrap();
        let config =
            text("deploy/compose/prometheus.yaml").replace("/etc/prometheus/", &format!("{}/", folder.display()));
        std::fs::write(temp.path().join("prometheus.yaml"), config).unwrap();
        succeed(promtool.args(["check", "config", "prometheus.yaml"]).current_dir(temp.path()));
    }
}

/// A Prometheus of our own, ended by its own process.
struct Prometheus {
    child: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Prometheus {
    /// Scrapes `target` each second, with the rules as they are but for the time that an alert must hold.
    fn start(target: &str) -> Option<Prometheus> {
        let mut command = tool("prometheus")?;
        let folder = tempfile::tempdir().unwrap();
        let rules = text("deploy/prometheus/rules.yaml");
        let hasty = rules.lines().map(|l| if l.trim().starts_with("for: ") { "        for: 1s" } else { l });
        std::fs::write(folder.path().join("rules.yaml"), hasty.collect::<Vec<_>>().join("\n")).unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [rules.yaml]\n\
             scrape_configs:\n  - job_name: pg2planhat\n    static_configs: [{{ targets: [\"{target}\"] }}]\n"
        );
        std::fs::write(folder.path().join("prometheus.yaml"), config).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        command.args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address={free}")).current_dir(folder.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some(Prometheus { child, url: format!("http://{free}"), _folder: folder })
    }

    /// A query's result; `None` while it cannot be asked.
    fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let mut promtool = tool("promtool")?;
        let output = promtool.args(["query", "-o", "json", "instant", &self.url, expression]).output().unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Waits until the query has, or has not, a result.
    fn until(&self, expression: &str, some: bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.query(expression).is_none_or(|result| result.is_empty() == some) {
            assert!(Instant::now() < end, "not within a minute: {expression} (some: {some})");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn status() -> Status {
    let mut status = Status::starting("slot", "publication");
    status.state = InstanceState::Running;
    status.ready = true;
    status.instance.leader = true;
    status.slot.confirmed_lag_bytes = Some(1);
    status.slot.retained_bytes = Some(16 << 20);
    status.sections.push(SectionStatus {
        name: "logins".into(),
        kind: "user_activity".into(),
        table: "public.app_event".into(),
        state: SectionState::Streaming,
        reason: None,
        remedy: None,
        rows_delivered: 0,
        rows_quarantined: 0,
        rows_in_doubt: 0,
        rows_resent: 0,
        lag_seconds: Some(0.0),
        last_delivered_at: None,
        backfill: Some(Backfill { rows: 1, estimated: Some(2), eta_seconds: Some(3.0) }),
    });
    status
}

/// Some of everything, with balanced books.
fn live(metrics: &Metrics, section: &SectionMetrics) {
    metrics.in_one_step(|| {
        section.read(Phase::Stream, 10);
        section.delivered(Phase::Stream, 9);
        section.filtered(Phase::Stream, Filtered::Settled, 1);
    });
    section.batch(Outcome::Delivered, 9, 900);
    section.request(&Verdict::Received, Duration::from_millis(30));
    section.commit_to_delivered(Duration::from_millis(700));
    metrics.ignored("update");
}

#[test]
fn a_real_prometheus_reads_the_port_draws_every_panel_and_fires_and_resolves() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let section = metrics.section("logins");
    metrics.last_wire_message().touch();
    let (sender, receiver) = tokio::sync::watch::channel(status());
    let listener = runtime.block_on(bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let state = AdminState {
        status: receiver,
        metrics: Arc::clone(&metrics),
        heartbeat: Arc::new(Heartbeat::new()),
        hosts: Hosts::new::<&str>(&address, &[]),
        looks: Looks::default(),
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        runtime.block_on(serve(listener, state, async { stopped.await.unwrap_or(()) })).unwrap();
    });
    if let (Some(prometheus), Some(_)) = (Prometheus::start(&address), tool("promtool")) {
        // Two scrapes before and two after something happened, so that every rate has a value.
        prometheus.until("count_over_time(pg2planhat_leader[1m]) >= 2", true);
        live(&metrics, &section);
        prometheus.until("increase(pg2planhat_rows_read_total{phase=\"stream\"}[1m]) > 0", true);
        prometheus.until("pg2planhat:rows_unaccounted == 0", true);
        for (title, query) in dashboard::queries() {
            let result = prometheus.query(&query).unwrap_or_else(|| panic!("{title}: cannot be evaluated: {query}"));
            assert!(!result.is_empty(), "{title}: nothing to draw: {query}");
        }
        assert_eq!(prometheus.query("ALERTS").unwrap(), Vec::<Value>::new(), "alerts in health");

        let firing = |name: &str| format!("ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}");
        section.oldest_unsettled(Some(Duration::from_secs(400)));
        section.in_doubt(9);
        sender.send_modify(|status| (status.ready, status.state) = (false, InstanceState::Stalled));
        for alert in ["Pg2planhatLate", "Pg2planhatInDoubt", "Pg2planhatNotReady", "Pg2planhatStalled"] {
            prometheus.until(&firing(alert), true);
        }
        section.oldest_unsettled(None);
        sender.send_modify(|status| (status.ready, status.state) = (true, InstanceState::Running));
        for alert in ["Pg2planhatLate", "Pg2planhatNotReady", "Pg2planhatStalled"] {
            prometheus.until(&firing(alert), false);
        }
    }
    stop.send(()).unwrap();
    server.join().unwrap();
}
