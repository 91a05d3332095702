//! The way out against the stand-in: every fault that Planhat may show, and the verdict that it must get.

use std::time::Duration;

use pg2planhat::testing::config::{ActivityNames, Kind, Model, Planhat, Secret};
use pg2planhat::testing::planhat::{Answer, Client, Echo, Endpoint, SinkRejection, Verdict, match_refused};
use pg2planhat::testing::sim::{Sim, SimFault, SimHandle, SimOptions, SinkKind};

const ITEMS: [&str; 2] =
    [r#"{"dimensionId":"d","value":1.50,"externalId":"a"}"#, r#"{"dimensionId":"d","value":2,"externalId":"b"}"#];

#[allow(clippy::unwrap_used, reason = "the lint spares test functions, not their helpers")]
async fn send(sim: &SimHandle, kind: Kind, timeout: Duration) -> Answer {
    let planhat = Planhat {
        tenant: Secret::Inline("7f2c8e0a-1b1d-4c57-9a3e-0d7c5b1f2a33".into()),
        url: sim.url(),
        bulk_activity_names: ActivityNames::Current,
        timeout,
        halt_probe: Duration::from_secs(60),
    };
    let endpoint = Endpoint::new(&planhat, kind).unwrap();
    Client::new(&planhat).unwrap().send(&endpoint, format!("[{}]", ITEMS.join(",")).into()).await
}

async fn metrics(sim: &SimHandle) -> Answer {
    send(sim, Kind::CustomMetric(Model::Company), Duration::from_secs(20)).await
}

#[tokio::test]
async fn batches_arrive_whole_and_in_order() {
    let mut sim = Sim::start(SimOptions::default()).await.unwrap();
    assert_eq!(metrics(&sim).await.verdict, Verdict::Received);
    assert_eq!(send(&sim, Kind::UserActivity, Duration::from_secs(20)).await.verdict, Verdict::Received);
    for kind in [SinkKind::Metric, SinkKind::Activity] {
        let items: Vec<_> = sim.items(kind).into_iter().map(|received| received.raw).collect();
        assert_eq!(items, ITEMS, "the bytes as they were sent");
    }
    sim.stop().await;
    assert_eq!(metrics(&sim).await.verdict, Verdict::NotSent);
    sim.restart().await.unwrap();
    assert_eq!(metrics(&sim).await.verdict, Verdict::Received);
}

#[tokio::test]
async fn a_refused_item_is_found_in_its_batch() {
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    sim.queue_fault(SimFault::Refuse { field: "externalId".into(), equals: "b".into(), error: "unwanted".into() });
    let answer = metrics(&sim).await;
    let Verdict::Partial(refused) = answer.verdict else { panic!("{answer:?}") };
    assert_eq!(refused, [SinkRejection { item: Echo::of(ITEMS[1].as_bytes()), error: "unwanted".into() }]);
    let items: Vec<&[u8]> = ITEMS.iter().map(|item| item.as_bytes()).collect();
    assert_eq!(match_refused(&items, &refused).refused, [(1, "unwanted".to_owned())]);
}

/// Each fault with its verdict, and whether the items were received all the same.
#[tokio::test]
async fn faults_get_their_verdicts() {
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    let busy = SimFault::Status { status: 429, retry_after: Some("2".into()), body: String::new(), store: false };
    let reject = SimFault::Reject { field: "value".into(), equals: 2.into(), status: 422 };
    let redirect = SimFault::Redirect { status: 308, location: "https://login.test/".into() };
    let (soon, now) = (Duration::from_secs(20), Duration::from_millis(400));
    let cases = [
        (busy, soon, "Later { retry_after: Some(2s) }", false),
        (reject, soon, "BadItem", false),
        (SimFault::TooLarge { over: 10 }, soon, "TooLarge", false),
        (SimFault::status(403), soon, "Environment", false),
        (SimFault::Html { status: 200 }, soon, "Environment", false),
        (redirect, soon, "Environment", false),
        (SimFault::Text { body: "thanks".into() }, soon, "Received", true),
        (SimFault::Slow { millis: 1 }, soon, "Received", true),
        (SimFault::ResetAfterStoring, soon, "Unknown", true),
        (SimFault::ResetMidAnswer, soon, "Unreadable", true),
        (SimFault::Endless, soon, "Unreadable", true),
        (SimFault::GzipBomb, soon, "Unreadable", true),
        (SimFault::Hang { store: true }, now, "Unknown", true),
        (SimFault::Hang { store: false }, now, "Unknown", false),
        (SimFault::Drip { millis: 5 }, now, "Unreadable", true),
    ];
    for (fault, timeout, verdict, received) in cases {
        sim.clear();
        sim.queue_fault(fault.clone());
        let answer = send(&sim, Kind::CustomMetric(Model::Company), timeout).await;
        assert!(format!("{:?}", answer.verdict).starts_with(verdict), "{fault:?}: {answer:?}");
        assert_eq!(sim.stats().metrics.items, if received { 2 } else { 0 }, "{fault:?}");
        assert_eq!(sim.stats().faults, 1, "{fault:?}");
    }
    sim.clear();
    sim.queue_fault(SimFault::ResetBeforeReading);
    let answer = metrics(&sim).await;
    assert!(matches!(answer.verdict, Verdict::Unknown | Verdict::NotSent), "{answer:?}");
    assert_eq!(sim.stats().metrics.items, 0);
}
