//! A real Prometheus of our own, with the real rules.

use crate::harness::port::Port;
use crate::harness::scratch::Scratch;
use crate::harness::{eventually, http};
use crate::tools::{text, tool};
use serde_json::Value;
use std::process::{Child, Stdio};
use std::time::Duration;

/// How fast its clock goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A scrape each second; an alert must hold for a second instead of minutes. Expressions stay as they are.
    Hasty,
    /// The same, and what is late by 3 s alerts instead of 300, once the program calls it late: the one expression whose time
    /// cannot be waited for.
    HastyAndImpatient,
    /// The rules as they are, scraped as compose has it.
    Real,
}

impl Pace {
    fn rules(self) -> String {
        let rules = text("deploy/prometheus/rules.yaml");
        if self == Pace::Real {
            return rules;
        }
        let hold = |line: &str| {
            if line.trim().starts_with("for: ") { "        for: 1s\n".into() } else { format!("{line}\n") }
        };
        let hasty: String = rules.lines().map(hold).collect();
        if self == Pace::Hasty {
            return hasty;
        }
        let late = "_since_timestamp_seconds > 0) > 300\n";
        assert_eq!(hasty.matches(late).count(), 1, "the rule for late rows is not the one that is known here");
        hasty.replace(late, "_since_timestamp_seconds > 0) > 3\n")
    }

    fn interval(self) -> &'static str {
        if self == Pace::Real { "5s" } else { "1s" }
    }

    fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Pace::Hasty => 45,
            // The program calls nothing late before a minute has passed.
            Pace::HastyAndImpatient => 120,
            Pace::Real => 15 * 60,
        })
    }
}

/// A running Prometheus; ended by its own process.
pub struct Prometheus {
    child: Child,
    port: Port,
    pace: Pace,
    _folder: Scratch,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Prometheus {
    /// Scrapes `targets`.
    pub fn start(targets: &[&str], pace: Pace) -> Prometheus {
        let mut command = tool("prometheus");
        let (folder, port) = (Scratch::new("prometheus"), Port::reserve());
        std::fs::write(folder.path().join("rules.yaml"), pace.rules()).unwrap();
        let every = pace.interval();
        let config = format!(
            "global: {{ scrape_interval: {every}, evaluation_interval: {every} }}\nrule_files: [rules.yaml]\n\
             scrape_configs:\n  - job_name: pg2planhat\n    static_configs: [{{ targets: {targets:?} }}]\n"
        );
        std::fs::write(folder.path().join("prometheus.yaml"), config).unwrap();
        command.args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address=127.0.0.1:{}", port.number())).current_dir(folder.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Prometheus { child, port, pace, _folder: folder }
    }

    /// An instant query's result; `None` while it cannot be asked.
    pub async fn query(&self, expression: &str) -> Option<Vec<Value>> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = http::get(self.port.number(), &format!("/api/v1/query?query={encoded}")).await.ok()?;
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        assert_ne!(answer["errorType"], "bad_data", "{expression}: {answer}");
        answer["data"]["result"].as_array().cloned()
    }

    /// The first value of a query's result.
    pub async fn value(&self, expression: &str) -> Option<f64> {
        self.query(expression).await?.first()?["value"][1].as_str()?.parse().ok()
    }

    /// Waits until the query has, or has not, a result.
    pub async fn until(&self, expression: &str, some: bool) {
        let look = || async { (self.query(expression).await?.is_empty() != some).then_some(()) };
        eventually(self.pace.patience(), &format!("{} result of {expression}", if some { "a" } else { "no" }), look)
            .await;
    }

    /// Waits until an alert fires.
    pub async fn fires(&self, alert: &str) {
        self.until(&firing(alert), true).await;
    }

    /// Waits until an alert no longer fires.
    pub async fn resolves(&self, alert: &str) {
        self.until(&firing(alert), false).await;
    }

    /// Waits until no alert fires or is about to.
    pub async fn quiet(&self) {
        self.until("ALERTS", false).await;
    }
}

fn firing(alert: &str) -> String {
    format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}")
}
