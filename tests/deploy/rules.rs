//! The alert rules, by promtool and in a real Prometheus that scrapes the admin port.

use crate::dashboard;
use crate::prometheus::{Pace, Prometheus};
use crate::tools::{path, succeed, text, tool};
use pg2planhat::testing::admin::{AdminState, Heartbeat, Hosts, RefreshRequests, bind, serve};
use pg2planhat::testing::model::{FilterRule, LeftOut};
use pg2planhat::testing::planhat::Verdict;
use pg2planhat::testing::state::{Outcome, Phase};
use pg2planhat::testing::telemetry::{Backfill, InstanceState, SectionState, SectionStatus, Status};
use pg2planhat::testing::telemetry::{Metrics, SectionMetrics};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn the_rules_and_their_tests_are_accepted_needs_promtool() {
    let folder = path("deploy/prometheus");
    succeed(tool("promtool").args(["check", "rules", "rules.yaml"]).current_dir(&folder));
    succeed(tool("promtool").args(["test", "rules", "rules.test.yaml"]).current_dir(&folder));
    // What it checks are also the configuration's and the rules' paths, so the container's become ours.
    let temp = tempfile::tempdir().unwrap();
    let config = text("deploy/compose/prometheus.yaml").replace("/etc/prometheus/", &format!("{}/", folder.display()));
    std::fs::write(temp.path().join("prometheus.yaml"), config).unwrap();
    succeed(tool("promtool").args(["check", "config", "prometheus.yaml"]).current_dir(temp.path()));
}

fn status() -> Status {
    let mut status = Status::starting("slot", "publication");
    status.state = InstanceState::Running;
    status.ready = true;
    status.instance.leader = true;
    status.slot.confirmed_lag_bytes = Some(1);
    status.slot.retained_bytes = Some(16 << 20);
    status.sections.push(SectionStatus {
        lag_seconds: Some(0.0),
        backfill: Some(Backfill { rows: 1, estimated: Some(2), eta_seconds: Some(3.0) }),
        flows: true,
        late_since: Some(0.0),
        totals_known: true,
        ..SectionStatus::new("logins", "user_activity", "public.app_event", SectionState::Streaming)
    });
    status
}

/// Some of everything, every row accounted for.
fn live(status: &tokio::sync::watch::Sender<Status>, section: &SectionMetrics) {
    status.send_modify(|status| {
        let counts = &mut status.sections[0].counts;
        (0..9).for_each(|_| counts.read(Phase::Stream));
        counts.read(Phase::Backfill);
        let mut left_out = LeftOut::default();
        left_out.add(FilterRule::Streamed);
        counts.settled(Phase::Backfill, 0, &[], &left_out);
        counts.settled(Phase::Stream, 9, &[], &LeftOut::default());
    });
    section.batch(Outcome::Delivered, 9, 900);
    section.request(&Verdict::Received, Duration::from_millis(30));
    section.commit_to_delivered(Duration::from_millis(700));
}

#[tokio::test]
async fn a_real_prometheus_reads_the_port_draws_every_panel_and_fires_and_resolves_needs_prometheus() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let section = metrics.section("logins");
    metrics.last_wire_message().touch();
    let (sender, receiver) = tokio::sync::watch::channel(status());
    let listener = bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let state = AdminState {
        status: receiver,
        metrics: Arc::clone(&metrics),
        heartbeat: Arc::new(Heartbeat::new()),
        hosts: Hosts::new::<&str>(&address, &[]),
        refresh: RefreshRequests::default(),
    };
    let server = tokio::spawn(serve(listener, state, std::future::pending()));
    let prometheus = Prometheus::start(&[&address], Pace::Hasty);
    // Two scrapes before and two after something happened, so that every rate has a value.
    prometheus.until("count_over_time(pg2planhat_leader[1m]) >= 2", true).await;
    live(&sender, &section);
    prometheus.until("increase(pg2planhat_rows_read_total{phase=\"stream\"}[1m]) > 0", true).await;
    prometheus.until("pg2planhat:rows_unaccounted == 0", true).await;
    for (title, query) in dashboard::queries() {
        let result = prometheus.query(&query).await.unwrap_or_else(|| panic!("{title}: cannot be evaluated: {query}"));
        assert!(!result.is_empty(), "{title}: nothing to draw: {query}");
    }
    assert_eq!(prometheus.query("ALERTS").await.unwrap(), Vec::<Value>::new(), "alerts in health");

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    sender.send_modify(|status| {
        status.sections[0].late_since = Some(now.as_secs_f64() - 400.0);
        status.sections[0].counts.in_doubt += 9;
        (status.ready, status.state) = (false, InstanceState::Stalled);
    });
    for alert in ["Pg2planhatLate", "Pg2planhatInDoubt", "Pg2planhatNotReady", "Pg2planhatStalled"] {
        prometheus.fires(alert).await;
    }
    sender.send_modify(|status| {
        status.sections[0].late_since = Some(0.0);
        (status.ready, status.state) = (true, InstanceState::Running);
    });
    for alert in ["Pg2planhatLate", "Pg2planhatNotReady", "Pg2planhatStalled"] {
        prometheus.resolves(alert).await;
    }
    server.abort();
}
