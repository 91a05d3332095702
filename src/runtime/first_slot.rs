//! The slot of a first start, and the evidence that it is younger than the publication.
//!
//! * In: a publication that is committed; the state schema.
//! * Out: the slot; in the state the xmin floor of a snapshot that was taken while there was no slot.
//! * Never: a slot that somebody else made taken for younger than what it was made before.
//!
//! The server does not tell when a slot was made: `catalog_xmin` is that of the oldest slot. So the order is recorded. A
//! transaction below the recorded floor had ended before any slot of this name was made.

use crate::config::Config;
use crate::model::{Fault, Lsn};
use crate::postgres::catalog::{slot, xmin_barrier};
use crate::postgres::connection::session::Session;
use crate::postgres::setup;
use crate::state::Store;

/// Makes the slot where there is none. Returns its consistent point if it was made now.
pub(crate) async fn make(
    session: &Session,
    config: &Config,
    store: &Store,
    waiting: setup::Waiting<'_>,
) -> Result<Option<Lsn>, Fault> {
    let there = slot::slot(session, &config.source.slot).await.map_err(|error| session.fault(&error))?;
    if there.is_none() {
        let floor = xmin_barrier::xmin(session).await.map_err(|error| session.fault(&error))?;
        store.record_floor_before_slot(floor).await.map_err(|error| error.fault())?;
    }
    setup::ensure_slot(session, config, waiting).await
}
