//! Where the server was when this instance last ran. A clone of its volume has the same identifier, timeline, slot and state:
//! nothing in it tells it from the first one but the address.
//!
//! * In: what the server says of its address; the state.
//! * Out: a warning, once, where it is another than before; in the log, in the state's events, and from `check`.
//! * Never: an end. Servers are moved, and promoted, and most have a new address after a restart of their container.

use crate::model::Fault;
use crate::state::{SERVER_ADDRESS, StateError, Store};

/// Records the address of the server that this process leads at, and says so where it is another than before.
pub(crate) async fn note(store: &Store, address: Option<&str>) -> Result<(), StateError> {
    let Some(address) = address else { return Ok(()) };
    let before = store.noted_address(SERVER_ADDRESS).await?;
    if before.as_deref() == Some(address) {
        return Ok(());
    }
    let moved = moved(before.as_deref(), Some(address));
    if let Some(fault) = &moved {
        tracing::warn!(what = fault.what, remedy = fault.remedy, "the server has another address");
    }
    store
        .note_address(SERVER_ADDRESS, address, &moved.map_or_else(|| "first seen".to_owned(), |fault| fault.what))
        .await
}

/// That the server is elsewhere than before; `None` where it is not, or where one of both is not known.
pub(crate) fn moved(before: Option<&str>, now: Option<&str>) -> Option<Fault> {
    let (before, now) = before.zip(now).filter(|(before, now)| before != now)?;
    let what = format!(
        "the server with this system identifier is at {now}; when this instance last ran, it was at {before}: it was moved or \
         restarted there, or it is a clone of the first one's volume, and then both instances send their rows to Planhat"
    );
    let remedy = "nothing, where it was moved. Where the first server still runs, this is a clone: stop this instance, and give \
                  the clone one of its own: `pg2planhat teardown` there, another tenant, then `pg2planhat setup`";
    Some(Fault::needs_person(what, remedy))
}
