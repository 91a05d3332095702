//! Timelines: where the server's history left the one that is known.

use crate::config::Source;
use crate::model::{Fault, Lsn};
use crate::postgres::replication::connection::ReplicationConnection;

/// Where the history of timeline `now` left timeline `before`: up to there both servers wrote the same WAL. `None` where
/// `before` is not in its history.
pub(crate) async fn left(source: &Source, now: i64, before: i64) -> Result<Option<Lsn>, Fault> {
    let mut wire = ReplicationConnection::connect(source, "pg2planhat timeline").await?;
    let now = u32::try_from(now).unwrap_or_default();
    let history = wire.timeline_history(now).await.map_err(|error| wire.fault(&error))?;
    wire.close().await;
    Ok(history.into_iter().find(|(ended, _)| i64::from(*ended) == before).map(|(_, at)| at))
}
