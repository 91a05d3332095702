//! Waiting as standby while another process holds the slot.
//!
//! * In: the control session and the state store.
//! * Out: a return when the slot may be free.
//! * Never: a write before the slot is held.

use std::time::Duration;

use crate::config::Config;
use crate::postgres::catalog::slot;
use crate::runtime::start_error::StartError;
use crate::runtime::startup::Prepared;
use crate::sql;

/// Waits as standby until the slot seems free, or the monitor of its holder shows that it is frozen.
pub(crate) async fn standby(config: &Config, prepared: &Prepared, every: Duration) -> Result<(), StartError> {
    let control = &prepared.control;
    let fault = |error: tokio_postgres::Error| control.fault(&error);
    let mut frozen = 0;
    loop {
        tokio::time::sleep(every).await;
        let Some(slot) = slot::slot(control, &config.source.slot).await.map_err(fault)? else { return Ok(()) };
        let Some(holder) = slot.active_pid.filter(|_| slot.active) else { return Ok(()) };
        // The holder's monitor queries the server every few seconds under a name of its own; a process that does not is frozen, even
        // where its connections still stand.
        let sql = "SELECT COALESCE(min(extract(epoch FROM clock_timestamp() - query_start)), 1e9)::float8
            FROM pg_catalog.pg_stat_activity
            WHERE datname = current_database() AND usename = current_user AND query_start IS NOT NULL
              AND right(application_name, length($1)) = $1";
        let silent: f64 = sql::query_one(control, sql, &[&purpose(config)]).await.map_err(fault)?.get(0);
        frozen = if silent > FROZEN.as_secs_f64() { frozen + 1 } else { 0 };
        if frozen >= 2 {
            tracing::warn!(pid = holder, silent_seconds = silent, "the holder of the slot is frozen: taking over");
            sql::execute(control, "SELECT pg_catalog.pg_terminate_backend($1)", &[&holder]).await.map_err(fault)?;
            return Ok(());
        }
    }
}

/// What the monitor's connection of the slot's holder is for, as its `application_name` ends.
pub(crate) fn purpose(config: &Config) -> String {
    let name = format!("watch {}", config.source.slot);
    // PostgreSQL cuts an application_name after 63 bytes, and the product's name stands before this.
    name.chars().take(40).collect()
}

/// A holder whose monitor has not queried the server for so long is frozen.
pub(crate) const FROZEN: Duration = Duration::from_secs(10);
