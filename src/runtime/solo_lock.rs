//! Who may run where no slot decides it: a lock in the state's database, held as long as the process leads.
//!
//! * In: the state's database.
//! * Out: the lock, or a return when it may be free; word when it is lost.
//! * Never: two that hold it. What a frozen holder still writes, the epoch refuses.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::Config;
use crate::model::Fault;
use crate::postgres::connection::session::Session;
use crate::runtime::monitor_event::MonitorEvent;
use crate::runtime::standby::FROZEN;
use crate::runtime::start_error::StartError;
use crate::runtime::state_connector::StateConnector;
use crate::sql;

/// How often the holder shows that it lives.
const ALIVE: Duration = Duration::from_secs(2);

/// The lock's two numbers: the database's own advisory locks have two, too; the second is the schema's.
const LOCK: &str = "'pg2planhat run'";

/// The lock, held.
pub(crate) struct SoloLock {
    session: Session,
}

/// Takes the lock; `None` where another process holds it.
pub(crate) async fn take(config: &Arc<Config>) -> Result<Option<SoloLock>, StartError> {
    let session = StateConnector::new(Arc::clone(config)).session().await?;
    let sql = format!("SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext({LOCK}), pg_catalog.hashtext($1))");
    let row = sql::query_one(&session, &sql, &[&config.state.schema]).await.map_err(|error| session.fault(&error))?;
    Ok(row.get::<_, bool>(0).then_some(SoloLock { session }))
}

/// Who holds the lock: its backend, and how long that has said nothing.
pub(crate) async fn holder(
    session: &Session,
    schema: &str,
) -> Result<Option<(i32, Option<f64>)>, tokio_postgres::Error> {
    let sql = format!(
        "SELECT l.pid, extract(epoch FROM clock_timestamp() - a.query_start)::float8
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database() AND l.objsubid = 2
            AND l.classid = pg_catalog.hashtext({LOCK})::bigint::bit(32)::bigint::oid
            AND l.objid = pg_catalog.hashtext($1)::bigint::bit(32)::bigint::oid"
    );
    Ok(sql::query_opt(session, &sql, &[&schema]).await?.map(|row| (row.get(0), row.get(1))))
}

/// Waits as standby until the lock seems free, or its holder shows that it is frozen.
pub(crate) async fn wait(config: &Arc<Config>, every: Duration) -> Result<(), StartError> {
    let session = StateConnector::new(Arc::clone(config)).session().await?;
    let fault = |error: tokio_postgres::Error| session.fault(&error);
    let mut frozen = 0;
    loop {
        tokio::time::sleep(every).await;
        let Some((pid, silent)) = holder(&session, &config.state.schema).await.map_err(fault)? else { return Ok(()) };
        frozen = if silent.is_some_and(|silent| silent > FROZEN.as_secs_f64()) { frozen + 1 } else { 0 };
        if frozen >= 2 {
            tracing::warn!(pid, silent_seconds = silent, "the holder of the lock is frozen: taking over");
            sql::execute(&session, "SELECT pg_catalog.pg_terminate_backend($1)", &[&pid]).await.map_err(fault)?;
            return Ok(());
        }
    }
}

impl SoloLock {
    /// Keeps the lock, and says so when it is lost.
    pub(crate) async fn hold(self, told: mpsc::Sender<MonitorEvent>) {
        let lost = loop {
            tokio::time::sleep(ALIVE).await;
            if told.is_closed() {
                return;
            }
            if let Err(error) = self.session.simple_query("SELECT 1").await {
                break self.session.fault(&error);
            }
        };
        // Where nobody listens, the process has let go already.
        told.send(MonitorEvent::LockLost(Fault::unavailable(lost.what, lost.remedy))).await.ok();
    }
}
