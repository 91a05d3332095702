//! What a rehearsal needs: an application that never stops writing, a stand-in for Planhat, and the books of both sides.

use crate::harness::{Cluster, ConfigText, SectionText, eventually};
use pg2planhat::testing::sim::{Sim, SimHandle, SimOptions, SinkKind};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

/// A cluster with the table `m` (section `seats`) and the table `a` (section `logins`), and a sink.
pub struct Scene {
    pub cluster: Cluster,
    pub sim: SimHandle,
    pub config: ConfigText,
}

impl Scene {
    /// With so many rows in `m` already: the backfill's.
    pub async fn new(before: u64) -> Scene {
        // Bounded, so that there is a time until the slot is lost.
        let cluster = Cluster::builder().setting("max_slot_wal_keep_size", "8GB").start().await;
        cluster.sql(&format!("{};{}", SectionText::metric_table("m"), SectionText::activity_table("a"))).await;
        let old =
            format!("INSERT INTO m (external_id, value) SELECT 'old' || g, g FROM generate_series(1, {before}) g");
        cluster.sql(&old).await;
        let sim = Sim::start(SimOptions::default()).await.unwrap();
        let config = ConfigText::new(&cluster, &sim.url())
            .set("planhat.halt_probe", "200ms")
            .section(SectionText::metric("seats", "m").set("batch", "{ rows: 500 }"))
            .section(SectionText::activity("logins", "a"));
        Scene { cluster, sim, config }
    }

    /// Commits a row to each table again and again, also where the server is away for a while; ends with its caller.
    pub async fn writes(&self, every: Duration) -> Infallible {
        let (mut client, mut number) = (None, 0_u64);
        loop {
            tokio::time::sleep(every).await;
            if client.is_none() {
                client = self.cluster.try_client("postgres").await.ok();
            }
            number += 1;
            let insert = format!(
                "INSERT INTO m (external_id, value) VALUES ('k{number}', 1); \
                 INSERT INTO a (email, user_id, action, weight) VALUES ('a@example.com', 'k{number}', 'login', 1)"
            );
            if let Some(connected) = &client
                && connected.batch_execute(&insert).await.is_err()
            {
                client = None;
            }
        }
    }

    /// Waits until every row that was committed has come, and sees that each came once. The writer has ended.
    pub async fn exact(&self) {
        let left = self.left().await;
        assert!(left.is_empty(), "missing (1) or doubled (less than 0): {left:?}");
    }

    /// The same, where rows may come again because a person has said so.
    pub async fn nothing_is_missing(&self) {
        let missing = || async { self.left().await.values().all(|left| *left < 1).then_some(()) };
        eventually(Duration::from_secs(60), "every row", missing).await;
    }

    /// Waits until as many items have come as rows were committed. By table and name: 1 for a row that has not come, less than
    /// 0 for one that came again.
    async fn left(&self) -> BTreeMap<String, i64> {
        let mut all = BTreeMap::new();
        for (table, name, kind) in [("m", "external_id", SinkKind::Metric), ("a", "user_id", SinkKind::Activity)] {
            let rows = self.cluster.rows(&format!("SELECT {name} FROM {table}")).await;
            let came = || async { (self.sim.stats().of(kind).items >= rows.len() as u64).then_some(()) };
            eventually(Duration::from_secs(60), &format!("all {} rows of {table}", rows.len()), came).await;
            let mut left: BTreeMap<String, i64> = rows.into_iter().map(|row| (row[0].clone().unwrap(), 1)).collect();
            for item in self.sim.items(kind) {
                let id = item.item()["externalId"].as_str().unwrap().to_owned();
                *left.entry(id).or_default() -= 1;
            }
            left.retain(|_, left| *left != 0);
            all.extend(left.into_iter().map(|(row, left)| (format!("{table} {row}"), left)));
        }
        all
    }
}
