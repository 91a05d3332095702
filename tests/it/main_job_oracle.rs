//! What the tests of the main job ask of both ends: the sink's items by key, the slot, the checkpoint, the ledger.

use std::collections::BTreeMap;
use std::time::Duration;

use pg2planhat::testing::sim::{Received, Sim, SimHandle, SimOptions, SinkKind};

use crate::harness::{App, Cluster, ConfigText, eventually};

/// How long a test waits for rows.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A stand-in that knows the tests' tenant.
pub async fn sink() -> SimHandle {
    sink_like(SimOptions::default()).await
}

/// A stand-in like this one, for the tests' tenant.
pub async fn sink_like(options: SimOptions) -> SimHandle {
    Sim::start(SimOptions { tenants: vec![ConfigText::TENANT.to_owned()], ..options }).await.unwrap()
}

/// Waits until the sink has accepted at least so many items of this kind, and brings them.
pub async fn arrived(sim: &SimHandle, kind: SinkKind, items: usize) -> Vec<Received> {
    sim.wait_for(|stats| stats.of(kind).items >= items as u64, PATIENCE).await.unwrap();
    sim.items(kind)
}

/// A text field of an item.
pub fn text(item: &Received, field: &str) -> String {
    let value = item.item();
    value.get(field).and_then(|value| value.as_str()).unwrap_or_else(|| panic!("no {field}: {value}")).to_owned()
}

/// An item's `externalId` as the number that it is in these tests.
pub fn key(item: &Received) -> i64 {
    text(item, "externalId").parse().unwrap()
}

/// The `externalId`s in order of acceptance.
pub fn keys(items: &[Received]) -> Vec<i64> {
    items.iter().map(key).collect()
}

/// Sorted.
pub fn sorted<T: Ord>(mut keys: Vec<T>) -> Vec<T> {
    keys.sort_unstable();
    keys
}

/// The keys that a table holds, in order.
pub async fn table_keys(cluster: &Cluster, query: &str) -> Vec<i64> {
    let rows = cluster.rows(query).await;
    sorted(rows.into_iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect())
}

/// Fails with the keys that are missing and those that are there too often.
pub fn assert_each_once(expected: &[i64], got: Vec<i64>) {
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    expected.iter().for_each(|key| *counts.entry(*key).or_default() -= 1);
    got.into_iter().for_each(|key| *counts.entry(key).or_default() += 1);
    let missing = counts.iter().filter(|(_, n)| **n < 0).map(|(key, _)| *key).collect::<Vec<_>>();
    let doubled = counts.iter().filter(|(_, n)| **n > 0).map(|(key, _)| *key).collect::<Vec<_>>();
    assert!(
        missing.is_empty() && doubled.is_empty(),
        "{} missing {:?}…, {} doubled or unknown {:?}…",
        missing.len(),
        &missing[..missing.len().min(10)],
        doubled.len(),
        &doubled[..doubled.len().min(10)]
    );
}

/// Waits until `/status` shows this state for the section.
pub async fn section_is(app: &App, section: &str, state: &str) {
    let look = |status: &serde_json::Value| {
        let sections = status["sections"].as_array()?;
        let found = sections.iter().find(|one| one["name"] == section)?;
        (found["state"] == state).then_some(())
    };
    app.wait_status(&format!("section {section} to be {state}"), look).await;
}

/// The slot's confirmed position, as text.
pub async fn confirmed(cluster: &Cluster) -> String {
    cluster.text("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'pg2planhat'").await
}

/// The durable checkpoint, as text.
pub async fn checkpoint(cluster: &Cluster) -> String {
    cluster.text("SELECT checkpoint FROM pg2planhat.instance").await
}

/// Waits until the slot is confirmed up to at least this position.
pub async fn wait_confirmed(cluster: &Cluster, lsn: &str) {
    let query = format!("SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn >= '{lsn}'");
    let reached = || async { (cluster.number(&query).await > 0).then_some(()) };
    eventually(PATIENCE, &format!("the slot to be confirmed up to {lsn}"), reached).await;
}

/// SIGTERM, a drain, exit 0; then slot and checkpoint are one.
pub async fn drain(app: App, cluster: &Cluster) -> String {
    app.sigterm();
    let code = app.wait_exit(Duration::from_secs(30)).await;
    assert_eq!(code, 0, "{}", app.log());
    let (slot, checkpoint) = (confirmed(cluster).await, checkpoint(cluster).await);
    assert_eq!(slot, checkpoint, "the slot is not where the checkpoint is");
    slot
}

/// The auditor, beside the sink's truth: it must find every row of each section settled, and none twice. Rows in doubt for good
/// are where they are; what a section of `start: now` does not deliver, it cannot always tell.
pub async fn audited(config: &ConfigText) {
    let output = App::command(config, &["--json", "audit", "--all"]).await;
    let reports: Vec<serde_json::Value> =
        serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.stderr));
    assert_eq!(output.code, 0, "{reports:?}");
    for report in reports {
        let of = |field: &str| report[field].as_u64().unwrap();
        let old = of("before_attach") + of("unknown");
        assert_eq!(of("rows_settled") + of("in_doubt") + old, of("rows_source"), "{report}");
        assert_eq!((of("missing"), of("waiting"), of("doubled")), (0, 0, 0), "{report}");
    }
}

/// Ledger rows of these outcomes.
pub async fn ledger(cluster: &Cluster, outcomes: &str) -> i64 {
    cluster.number(&format!("SELECT count(*) FROM pg2planhat.delivery WHERE outcome IN ({outcomes})")).await
}
