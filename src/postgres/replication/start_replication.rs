//! Takes the slot. Server, timeline and slot are verified on the same connection that will stream.
//!
//! * In: where the server is, and what is expected there ([`StreamStart`]).
//! * Out: a connection on which the copy has begun, and from where; or why not, by fate.
//! * Never: a copy begun at another server, on another timeline, or on a slot that somebody else moved: the server would
//!   begin at the slot's own position and skip what lies between without a word. (An address may lead to another server
//!   between two connections, and a slot may be made anew between two looks.)

use std::time::Duration;

use crate::config::Source;
use crate::model::{Exit, Fault, Lsn};
use crate::postgres::catalog::quote;
use crate::postgres::connection::server_error::ServerError;
use crate::postgres::replication::connection::{ReplicationConnection, WireError};
use crate::postgres::replication::event::{EndReason, StreamEnd, StreamStart};

/// A server that takes longer to begin the copy counts as away.
const ANSWER: Duration = Duration::from_secs(15);

const WHAT_NEXT: &str = "look into the server's log; it is connected to again by itself";

/// Where a copy begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyStart {
    /// The slot's own position.
    pub slot: Lsn,
    /// What commits from here on is sent.
    pub at: Lsn,
}

/// Connects, verifies and begins the copy.
pub(crate) async fn begin(
    source: &Source,
    start: &StreamStart,
) -> Result<(ReplicationConnection, CopyStart), StreamEnd> {
    let mut wire = ReplicationConnection::connect(source, "pg2planhat stream").await.map_err(|fault| {
        let fate = if fault.exit == Exit::Unavailable { EndReason::Transient } else { EndReason::Refused };
        StreamEnd { fate, fault }
    })?;
    let ended = match tokio::time::timeout(ANSWER, take(&mut wire, start)).await {
        Ok(Ok(begun)) => return Ok((wire, begun)),
        Ok(Err(ended)) => ended,
        Err(_) => StreamEnd {
            fate: EndReason::Transient,
            fault: Fault::unavailable("the server does not begin the replication", WHAT_NEXT),
        },
    };
    wire.close().await;
    Err(ended)
}

async fn take(wire: &mut ReplicationConnection, start: &StreamStart) -> Result<CopyStart, StreamEnd> {
    let asked = format!(
        "SELECT active::text, wal_status, confirmed_flush_lsn::text, restart_lsn::text
         FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
        quote::literal(&start.slot)
    );
    let (system, rows) = wire.identify_and_query(&asked).await.map_err(|error| refused(wire, &error))?;
    if let Some((identifier, timeline)) = &start.server
        && (*identifier != system.system_identifier || *timeline != system.timeline)
    {
        let what = format!(
            "the address leads to another server or timeline now: {} on {}, before it was {identifier} on {timeline}",
            system.system_identifier, system.timeline
        );
        return Err(moved(what));
    }
    if system.xlogpos < start.from {
        return Err(moved(format!(
            "the server's WAL ends at {}, before the checkpoint {}",
            system.xlogpos, start.from
        )));
    }
    let slot = look(rows, start)?;
    let updates = start.named_updates().map(|updates| &updates.publication);
    let publications: Vec<String> =
        std::iter::once(&start.publication).chain(updates).map(|name| quote::ident(name)).collect();
    let sql = format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})",
        quote::ident(&start.slot),
        start.asked_from(),
        quote::replication_literal(&publications.join(",")),
    );
    wire.narrow();
    wire.start_copy_both(&sql).await.map_err(|error| refused(wire, &error))?;
    // The server never begins before the slot's own position.
    Ok(CopyStart { slot, at: start.asked_from().max(slot) })
}

/// Verifies the slot, by its row as text; its position.
fn look(rows: Vec<Vec<Option<String>>>, start: &StreamStart) -> Result<Lsn, StreamEnd> {
    let slot = &start.slot;
    let Some([active, status, confirmed, restart]) =
        rows.into_iter().next().and_then(|row| <[Option<String>; 4]>::try_from(row).ok())
    else {
        let fault = Fault::needs_person(format!("there is no slot {slot}"), WHAT_NEXT);
        return Err(StreamEnd { fate: EndReason::SlotMissing, fault });
    };
    if active.as_deref() == Some("true") {
        let fault = Fault::unavailable(format!("another connection holds the slot {slot}"), "it is tried again");
        return Err(StreamEnd { fate: EndReason::SlotActive, fault });
    }
    if status.as_deref() == Some("lost") {
        let what = format!("the slot {slot} is lost: the server removed WAL that it needed");
        return Err(StreamEnd { fate: EndReason::SlotLost, fault: Fault::needs_person(what, WHAT_NEXT) });
    }
    let [confirmed, restart] =
        [confirmed, restart].map(|at| at.and_then(|lsn| lsn.parse::<Lsn>().ok()).unwrap_or_default());
    for at in [confirmed, restart] {
        if at > start.from {
            return Err(moved(format!("the slot {slot} begins at {at}, past the checkpoint {}", start.from)));
        }
    }
    Ok(confirmed)
}

fn moved(what: String) -> StreamEnd {
    let remedy = "it is compared with what was recorded, and named";
    StreamEnd { fate: EndReason::Moved, fault: Fault::unavailable(what, remedy) }
}

fn refused(wire: &ReplicationConnection, error: &WireError) -> StreamEnd {
    let fate = match error.server() {
        Some(server) => fate_of(server),
        None => EndReason::Transient,
    };
    StreamEnd { fate, fault: wire.fault(error) }
}

/// Classifies a refusal before the copy.
fn fate_of(error: &ServerError) -> EndReason {
    match error.code.as_str() {
        "55006" => EndReason::SlotActive,
        "42704" => EndReason::SlotMissing,
        "55000" => EndReason::SlotLost,
        "57P01" | "57P02" | "57P03" => EndReason::Shutdown,
        _ if error.is_transient() => EndReason::Transient,
        "28000" | "28P01" | "42501" | "3D000" => EndReason::Refused,
        _ => EndReason::Wedged,
    }
}

/// Classifies an error within the copy.
pub(crate) fn broken(error: &ServerError) -> StreamEnd {
    let fate = match error.code.as_str() {
        // The slot was found before the copy began, so the object that decoding does not find is the publication.
        "42704" => EndReason::PublicationMissing,
        "57P01" | "57P02" | "57P03" => EndReason::Shutdown,
        _ if error.is_transient() => EndReason::Transient,
        _ => EndReason::Wedged,
    };
    let fault = error.fault("the replication stream", "");
    let fault = match fate {
        EndReason::Wedged => Fault::needs_person(
            format!("the server cannot send what comes next: {}", fault.what),
            "pg2planhat repair --gap (a new slot behind it; the rows written since the checkpoint are read by SELECT, \
             which leaves out values that are too large and quarantines their rows), or --accept-loss",
        ),
        EndReason::Stopped
        | EndReason::Transient
        | EndReason::Silent
        | EndReason::Moved
        | EndReason::SlotActive
        | EndReason::SlotMissing
        | EndReason::SlotLost
        | EndReason::PublicationMissing
        | EndReason::Shutdown
        | EndReason::Refused => fault,
    };
    StreamEnd { fate, fault }
}
