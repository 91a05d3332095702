//! Whether the standby that results are read from replays what its primary writes: where it stands still, every comparison finds
//! nothing new, and all would look well.
//!
//! * In: a connection of its own to the source, queried every few seconds while it is a standby.
//! * Out: [`MonitorEvent::ReplicaStands`]: since when and why, or that it does not.
//! * Never: a standby called still because its primary writes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::config::Config;
use crate::model::{Fault, Lsn};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::runtime::monitor::QUERY_EVERY;
use crate::runtime::monitor_event::MonitorEvent;
use crate::sql;

/// How often a server that is no standby is asked whether it is one by now.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long a query is waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// What one look at a standby shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaLook {
    /// Somebody paused its replay.
    paused: bool,
    /// It receives WAL from another server now.
    receives: bool,
    /// The end of what it received by streaming; `None` where it never did.
    received: Option<Lsn>,
    /// The end of what it replayed.
    replayed: Lsn,
}

/// Looks; `None` where the server is no standby, or does not know (a service's own kind of replica).
pub(crate) async fn look(session: &Session) -> Result<Option<ReplicaLook>, tokio_postgres::Error> {
    let sql = "SELECT pg_catalog.pg_is_in_recovery()";
    if !sql::query_one(session, sql, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let sql = "SELECT pg_catalog.pg_is_wal_replay_paused(), EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver),
        pg_catalog.pg_last_wal_receive_lsn()::text, pg_catalog.pg_last_wal_replay_lsn()::text";
    let row = match sql::query_one(session, sql, &[]).await {
        Ok(row) => row,
        Err(error) if error.as_db_error().is_some() => return Ok(None),
        Err(error) => return Err(error),
    };
    let lsn = |index| row.get::<_, Option<String>>(index).and_then(|lsn| lsn.parse().ok());
    let Some(replayed) = lsn(3) else { return Ok(None) };
    Ok(Some(ReplicaLook { paused: row.get(0), receives: row.get(1), received: lsn(2), replayed }))
}

/// Why a standby may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Paused,
    /// It has received more than it replays.
    Behind,
    /// It streamed, and does not any more.
    Cut,
}

impl ReplicaLook {
    fn why(&self) -> Option<Stands> {
        let received = self.received?;
        match (self.paused, self.receives) {
            (true, _) => Some(Stands::Paused),
            (false, _) if received > self.replayed => Some(Stands::Behind),
            (false, false) => Some(Stands::Cut),
            (false, true) => None,
        }
    }

    /// What an audit says of it, where it may stand still.
    pub(crate) fn caveat(&self) -> Option<String> {
        let what = match self.why()? {
            Stands::Paused => "its replay is paused",
            Stands::Behind => "it has received more than it has replayed",
            Stands::Cut => "it receives nothing from its primary",
        };
        Some(format!("the result is read from a standby, and {what}: what the primary has since is not looked at"))
    }
}

impl Stands {
    /// How long that may last. Replay waits for queries of the standby as long as `max_standby_streaming_delay` says; a primary
    /// that restarts is away for a while.
    fn bound(self) -> Duration {
        match self {
            Stands::Paused => Duration::from_secs(5),
            Stands::Behind => Duration::from_secs(300),
            Stands::Cut => Duration::from_secs(60),
        }
    }

    fn fault(self, replayed: Lsn) -> Fault {
        let (what, remedy) = match self {
            Stands::Paused => ("its replay is paused", "SELECT pg_wal_replay_resume() on the standby"),
            Stands::Behind => (
                "it has received more, and does not replay it",
                "look for queries on the standby that hold replay up (max_standby_streaming_delay), for \
                 recovery_min_apply_delay, and at its log",
            ),
            Stands::Cut => (
                "it receives nothing from its primary",
                "look at the primary, at primary_conninfo and at the standby's log (pg_stat_wal_receiver)",
            ),
        };
        let what = format!(
            "the standby has replayed nothing beyond {replayed}: {what}; rows that were committed on the primary since are not seen"
        );
        Fault::unavailable(what, format!("{remedy}; it is compared on by itself"))
    }
}

/// What was seen of a standby so far. Pure.
#[derive(Debug, Default)]
pub(crate) struct ReplicaWatch {
    /// What it had replayed, and since when that has not moved though it should.
    still: Option<(Lsn, Instant)>,
}

impl ReplicaWatch {
    /// Takes in another look. Returns since when and why it stands still, where that lasts for too long.
    fn observe(&mut self, look: &ReplicaLook, now: Instant) -> Option<(Instant, Fault)> {
        let Some(why) = look.why() else {
            self.still = None;
            return None;
        };
        let (_, since) = match self.still {
            Some(still) if still.0 == look.replayed => still,
            Some(_) | None => *self.still.insert((look.replayed, now)),
        };
        (now.duration_since(since) >= why.bound()).then(|| (since, why.fault(look.replayed)))
    }
}

/// Watches the server until the event loop is gone.
pub(crate) async fn watch(configs: watch::Receiver<Arc<Config>>, seen: mpsc::Sender<MonitorEvent>) {
    let mut watched = ReplicaWatch::default();
    while !seen.is_closed() {
        let config = Arc::clone(&configs.borrow());
        // That the server is away, the comparisons say.
        if let Ok(session) = connect_sql(&config.source, "watch").await {
            let asked_again = while_standby(&session, &mut watched, &seen).await;
            drop(session);
            tokio::time::sleep(asked_again).await;
        } else {
            tokio::time::sleep(QUERY_EVERY).await;
        }
    }
}

/// Looks again and again, as long as it is a standby that answers. Returns how long it is let alone then.
async fn while_standby(session: &Session, watched: &mut ReplicaWatch, seen: &mpsc::Sender<MonitorEvent>) -> Duration {
    loop {
        let (stands, next) = match tokio::time::timeout(ANSWER, look(session)).await {
            Ok(Ok(Some(look))) => (watched.observe(&look, Instant::now()), None),
            Ok(Ok(None)) => (None, Some(ASK_AGAIN)),
            Ok(Err(_)) | Err(_) => return QUERY_EVERY,
        };
        if seen.send(MonitorEvent::ReplicaStands(stands)).await.is_err() {
            return Duration::ZERO;
        }
        match next {
            Some(next) => return next,
            None => tokio::time::sleep(QUERY_EVERY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(paused: bool, receives: bool, received: Option<u64>, replayed: u64) -> ReplicaLook {
        ReplicaLook { paused, receives, received: received.map(Lsn), replayed: Lsn(replayed) }
    }

    #[test]
    fn case_293_a_standby_stands_still_where_it_does_not_move_though_it_should() {
        let (mut watch, begin) = (ReplicaWatch::default(), Instant::now());
        let mut after = |seconds, look: &ReplicaLook| {
            let stands = watch.observe(look, begin + Duration::from_secs(seconds));
            stands.map(|(_, fault)| fault.what)
        };
        // Its primary writes nothing, for hours; one that is fed from an archive tells nothing.
        assert_eq!(after(0, &look(false, true, Some(10), 10)), None);
        assert_eq!(after(7200, &look(false, true, Some(10), 10)), None);
        assert_eq!(after(14_400, &look(false, false, None, 10)), None);
        // It moves on, behind what it receives.
        assert_eq!(after(20_000, &look(false, true, Some(20), 11)), None);
        assert_eq!(after(20_299, &look(false, true, Some(30), 12)), None);
        assert_eq!(after(20_598, &look(false, true, Some(30), 12)), None);
        assert!(after(20_599, &look(false, true, Some(40), 12)).is_some_and(|what| what.contains("does not replay")));
        assert_eq!(after(20_602, &look(false, true, Some(40), 40)), None);
        // Paused; cut off.
        assert_eq!(after(30_000, &look(true, true, Some(40), 40)), None);
        assert!(after(30_005, &look(true, true, Some(40), 40)).is_some_and(|what| what.contains("paused")));
        assert_eq!(after(30_006, &look(false, true, Some(40), 40)), None);
        assert_eq!(after(40_000, &look(false, false, Some(40), 40)), None);
        assert!(
            after(40_060, &look(false, false, Some(40), 40))
                .is_some_and(|what| what.contains("nothing from its primary"))
        );
    }
}
