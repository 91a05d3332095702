//! What operators asked for (`event`), and stretches of the log that could not be read (`gap`).
//!
//! * In: requests by commands; gaps, from the part that found them.
//! * Out: the queue through which commands reach the running instance; the record that stays.
//! * Never: an event handled twice; the same gap opened again at every restart.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;

use crate::model::{Lsn, SectionName};
use crate::state::model::{NewGap, signed};
use crate::state::section_rows::lsn;
use crate::state::state_error::StateError;
use crate::state::store::{Store, rfc3339};
use crate::state::write_sql::OPEN_GAP;

/// The action of the events that say where the server was, and where rows were delivered to.
pub(crate) const SERVER_ADDRESS: &str = "server_address";
pub(crate) const SINK_ADDRESS: &str = "sink_address";

/// Something that a person asks of the running instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NewEvent {
    /// The role or user name of the person who asks, as far as it is known.
    pub actor: String,
    /// `resync`, `retry`, `drop`, `pause`, …
    pub action: String,
    pub section: Option<SectionName>,
    /// The request's arguments, a JSON object.
    pub args: serde_json::Value,
}

/// A row of `event`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Event {
    /// Its id; ascending in the order of asking.
    pub id: i64,
    /// RFC 3339, UTC.
    pub at: String,
    pub actor: String,
    pub action: String,
    pub section: Option<String>,
    pub args: serde_json::Value,
    /// RFC 3339, UTC; none while it waits.
    pub handled_at: Option<String>,
    /// The result, for people.
    pub result: Option<String>,
}

/// A row of `gap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Gap {
    pub id: i64,
    /// The section, or all.
    pub section: Option<String>,
    pub reason: String,
    pub detail: String,
    /// Settled up to here (`16/B374D848`).
    pub from_lsn: Option<String>,
    /// Read again from here.
    pub to_lsn: Option<String>,
    /// Every transaction below this 64-bit xid was settled.
    pub xmin_floor: Option<i64>,
    /// RFC 3339, UTC.
    pub opened_at: String,
    /// RFC 3339, UTC; none while it is open.
    pub closed_at: Option<String>,
    /// How and by whom it was closed.
    pub closed_by: Option<String>,
}

impl Store {
    /// Queues a request for the running instance; returns the event's id.
    pub(crate) async fn append_event(&self, event: &NewEvent) -> Result<i64, StateError> {
        let write = "INSERT INTO {schema}.event (actor, action, section, args)
             VALUES ($1, $2, $3, $4::text::jsonb) RETURNING id";
        let section = event.section.as_ref().map(SectionName::as_str);
        let args = event.args.to_string();
        let params: crate::state::store::Params<'_> =
            &[&self.text(&event.actor), &self.text(&event.action), &section, &self.text(&args)];
        Ok(self.one("recording an event", write, params).await?.get(0))
    }

    /// Records something that a person did, with its result: the running instance has nothing to do for it.
    pub(crate) async fn record_event(&self, event: &NewEvent, result: &str) -> Result<i64, StateError> {
        let write = "INSERT INTO {schema}.event (actor, action, section, args, handled_at, result)
             VALUES ($1, $2, $3, $4::text::jsonb, now(), $5) RETURNING id";
        let section = event.section.as_ref().map(SectionName::as_str);
        let args = event.args.to_string();
        let params: crate::state::store::Params<'_> =
            &[&self.text(&event.actor), &self.text(&event.action), &section, &self.text(&args), &self.text(result)];
        Ok(self.one("recording an event", write, params).await?.get(0))
    }

    /// The events that wait to be handled, oldest first, at most `limit`.
    pub(crate) async fn unhandled_events(&self, limit: u32) -> Result<Vec<Event>, StateError> {
        self.events_where("handled_at IS NULL AND $1::bigint IS NOT NULL ORDER BY id", 0, limit).await
    }

    /// The event of this id, for a command that waits for its result.
    pub(crate) async fn event(&self, id: i64) -> Result<Option<Event>, StateError> {
        Ok(self.events_where("id = $1", id, 1).await?.pop())
    }

    /// The last events, newest first.
    pub(crate) async fn events(&self, limit: u32) -> Result<Vec<Event>, StateError> {
        self.events_before(i64::MAX, limit).await
    }

    /// Events with a smaller id than this, at most `limit`, the newest first.
    pub(crate) async fn events_before(&self, id: i64, limit: u32) -> Result<Vec<Event>, StateError> {
        self.events_where("id < $1 ORDER BY id DESC", id, limit).await
    }

    async fn events_where(&self, which: &str, id: i64, limit: u32) -> Result<Vec<Event>, StateError> {
        let sql = format!(
            "SELECT id, {} AS at, actor, action, section, args::text, {} AS handled_at, result
             FROM {{schema}}.event WHERE {which} LIMIT $2",
            rfc3339("at"),
            rfc3339("handled_at")
        );
        Ok(self.query("reading the events", &sql, &[&id, &i64::from(limit)]).await?.iter().map(event_of).collect())
    }

    /// The address that was noted last, by the action of its events.
    pub(crate) async fn noted_address(&self, action: &str) -> Result<Option<String>, StateError> {
        let asked = "SELECT args ->> 'address' FROM {schema}.event WHERE action = $1 ORDER BY id DESC LIMIT 1";
        let rows = self.query("reading an address", asked, &[&self.text(action)]).await?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    /// Notes an address as it is now.
    pub(crate) async fn note_address(&self, action: &str, address: &str, result: &str) -> Result<(), StateError> {
        let event = NewEvent {
            actor: "pg2planhat".to_owned(),
            action: action.to_owned(),
            section: None,
            args: serde_json::json!({ "address": address }),
        };
        self.record_event(&event, result).await.map(drop)
    }

    /// Records a gap; its id. Where one of the same section and reason is open, that one's id (and
    /// its end, where it is known now).
    pub(crate) async fn open_gap(&self, gap: &NewGap) -> Result<i64, StateError> {
        let section = gap.section.as_ref().map(SectionName::as_str);
        let at = |lsn: Option<Lsn>| lsn.map(|lsn| PgLsn::from(lsn.0));
        let params: crate::state::store::Params<'_> = &[
            &section,
            &gap.reason,
            &self.text(&gap.detail),
            &at(gap.from_lsn),
            &at(gap.to_lsn),
            &gap.xmin_floor.map(signed),
        ];
        Ok(self.one("recording a gap", OPEN_GAP, params).await?.get(0))
    }

    /// Closes a gap: how, and by whom. `false` where it was not open.
    pub(crate) async fn close_gap(&self, id: i64, closed_by: &str) -> Result<bool, StateError> {
        let write = "UPDATE {schema}.gap SET closed_at = now(), closed_by = $2 WHERE id = $1 AND closed_at IS NULL";
        Ok(self.execute("closing a gap", write, &[&id, &self.text(closed_by)]).await? > 0)
    }

    /// Closes the gaps of a section that were opened before an audit began, which ended now and found every row settled. Not
    /// where the section does not stream: what made the gap may go on; nor where its rows are older than the section.
    pub(crate) async fn close_proven_gaps(&self, section: &SectionName, took_ms: u64) -> Result<u64, StateError> {
        let write = "UPDATE {schema}.gap g SET closed_at = now(), closed_by = 'an audit that found every row settled'
             FROM {schema}.section s
             WHERE g.section = $1 AND g.closed_at IS NULL AND g.reason <> 'replaced' AND g.opened_at < now() - make_interval(secs => $2)
                AND s.name = g.section AND s.phase = 'streaming' AND s.halted_reason IS NULL";
        let took = Duration::from_millis(took_ms).as_secs_f64();
        self.execute("closing gaps", write, &[&section.as_str(), &took]).await
    }

    /// All gaps, newest first; with `open_only`, only the open ones.
    pub(crate) async fn gaps(&self, open_only: bool) -> Result<Vec<Gap>, StateError> {
        let sql = format!(
            "SELECT id, section, reason, detail, from_lsn, to_lsn, xmin_floor, {} AS opened_at, {} AS closed_at,
                closed_by
             FROM {{schema}}.gap WHERE closed_at IS NULL OR NOT $1 ORDER BY id DESC",
            rfc3339("opened_at"),
            rfc3339("closed_at")
        );
        Ok(self.query("reading the gaps", &sql, &[&open_only]).await?.iter().map(gap_of).collect())
    }
}

fn event_of(row: &Row) -> Event {
    Event {
        id: row.get("id"),
        at: row.get("at"),
        actor: row.get("actor"),
        action: row.get("action"),
        section: row.get("section"),
        // The column is jsonb, so the text is valid JSON.
        args: serde_json::from_str(row.get("args")).unwrap_or_default(),
        handled_at: row.get("handled_at"),
        result: row.get("result"),
    }
}

fn gap_of(row: &Row) -> Gap {
    Gap {
        id: row.get("id"),
        section: row.get("section"),
        reason: row.get("reason"),
        detail: row.get("detail"),
        from_lsn: lsn(row, "from_lsn").map(|lsn| lsn.to_string()),
        to_lsn: lsn(row, "to_lsn").map(|lsn| lsn.to_string()),
        xmin_floor: row.get("xmin_floor"),
        opened_at: row.get("opened_at"),
        closed_at: row.get("closed_at"),
        closed_by: row.get("closed_by"),
    }
}
