//! The engine's input: the stream's rows and boundaries, and the chunks of backfills. Pure.

use crate::delivery::*;
use crate::model::{CommitMark, CommitTime};

impl Engine {
    /// A new connection: the stream begins again at the checkpoint.
    pub fn stream_restarts(&mut self) {
        self.stale = false;
        self.transaction = None;
        self.verification = Verification::Awaited;
        self.progress.restart();
    }

    /// The sections of a table, as the table is from here on.
    pub fn set_routes(&mut self, oid: u32, routes: Vec<Route>) {
        self.routes.insert(oid, routes);
    }

    /// Attaches a section beside the running stream. `carried_at` is a WAL position behind which the stream carries every row
    /// of its table. Rows of what was received before, and of the transaction that is being received, went by: so it begins
    /// behind those. Returns where it begins.
    pub fn attach(&mut self, section: SectionId, carried_at: Lsn) -> Lsn {
        let open = self.open_transaction().map_or(Lsn::ZERO, |final_lsn| Lsn(final_lsn.0 + 1));
        let at = carried_at.max(self.progress.received()).max(open);
        self.sections[section].resume_behind(Position::before_transaction(at));
        at
    }

    /// The `final_lsn` of the transaction that is being received.
    pub fn open_transaction(&self) -> Option<Lsn> {
        self.transaction.map(|open| open.at.final_lsn)
    }

    /// Takes the beginning of a transaction.
    pub fn begin(&mut self, final_lsn: Lsn, commit: CommitMark) {
        if self.stale || self.comes_again(final_lsn, commit) {
            return;
        }
        let at = Position { final_lsn, ..Position::default() };
        self.transaction = Some(ReceivedTransaction { at, commit });
        self.progress.begin(final_lsn);
    }

    /// Takes an inserted row of the open transaction, whose WAL record is at `change_lsn`.
    #[inline]
    pub fn insert(&mut self, oid: u32, change_lsn: Lsn, row: &Row<'_>, now: Duration) {
        self.version(oid, change_lsn, (row, None), false, now);
    }

    /// Takes an updated row of the open transaction, and how it was before, where that is known.
    pub fn update(&mut self, oid: u32, change_lsn: Lsn, rows: (&Row<'_>, Option<&Row<'_>>), now: Duration) {
        self.version(oid, change_lsn, rows, true, now);
    }

    #[inline]
    fn version(
        &mut self,
        oid: u32,
        change_lsn: Lsn,
        (row, old): (&Row<'_>, Option<&Row<'_>>),
        is_update: bool,
        now: Duration,
    ) {
        let Some(ReceivedTransaction { at, commit }) = &mut self.transaction else {
            return self.row_again(oid, change_lsn, is_update);
        };
        *at = at.next(change_lsn);
        let (position, commit) = (*at, *commit);
        let Some(routes) = self.routes.get(&oid) else { return };
        for route in routes {
            let section = &mut self.sections[route.section];
            if is_update && !section.sends_updates() {
                continue;
            }
            match &route.mapping {
                Ok(mapping) if section.takes_rows() => {
                    let is_unchanged = old.is_some_and(|old| mapping.reads_the_same(row, old));
                    let is_new = position > section.admitted() && !is_unchanged;
                    let time = CommitTime::Micros(commit.micros);
                    if is_new && let Some(trouble) = section.keeps_back(mapping, row, time) {
                        self.progress.hold_back(route.section, position);
                        section.stop_by_mapping(trouble);
                        self.actions.push_back(Action::Stopped(route.section));
                    } else if section.admit_version((mapping, is_unchanged), row, position, commit.micros, now) {
                        self.progress.admit(route.section, position);
                        let read = NewestRead { at: position.final_lsn, commit: Some(commit) };
                        self.newest = self.newest.filter(|newest| newest.at > read.at).or(Some(read));
                    }
                }
                mapping => {
                    if position > section.admitted() {
                        self.progress.hold_back(route.section, position);
                        if let Err(trouble) = mapping
                            && !section.is_stopped()
                        {
                            section.stop_unfit(trouble.clone());
                            self.actions.push_back(Action::Stopped(route.section));
                        }
                    }
                }
            }
        }
    }

    /// For each section that takes this updated row: its key, and the columns that are read and that the update did not
    /// bring. Nothing where it brought all of them, or where the row is settled already.
    pub fn not_brought(&self, oid: u32, change_lsn: Lsn, row: &Row<'_>) -> Vec<(SectionId, String, Vec<usize>)> {
        let (Some(open), Some(routes)) = (self.transaction, self.routes.get(&oid)) else { return Vec::new() };
        let position = open.at.next(change_lsn);
        let of = |route: &Route| {
            let section = &self.sections[route.section];
            let mapping = route.mapping.as_ref().ok()?;
            let takes = section.sends_updates() && section.takes_rows() && position > section.admitted();
            let unknown = |column: &usize| takes && row.get(*column) == Value::Unknown;
            let columns: Vec<usize> = mapping.columns_used().filter(unknown).collect();
            let key = || String::from_utf8_lossy(&mapping.key_text(row)).into_owned();
            (!columns.is_empty()).then(|| (route.section, key(), columns))
        };
        routes.iter().filter_map(of).collect()
    }

    /// Stops a section before a row of which values cannot be read now: the others go on.
    pub(crate) fn stop_unreadable(&mut self, id: SectionId, trouble: Trouble) {
        if self.sections[id].stop_unfit(trouble) {
            self.actions.push_back(Action::Stopped(id));
        }
    }

    /// Whether a section sends the updates of this table.
    pub fn takes_updates(&self, oid: u32) -> bool {
        let routes = self.routes.get(&oid);
        routes.is_some_and(|routes| routes.iter().any(|route| self.sections[route.section].sends_updates()))
    }

    /// Takes the end of the open transaction.
    pub fn commit(&mut self, end_lsn: Lsn) {
        self.transaction = None;
        if !self.ends_again() {
            self.progress.commit(end_lsn);
        }
    }

    /// Takes a keepalive: the server has read up to `wal_end`.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        if !self.stale && self.keepalive_counts(wal_end) {
            self.progress.keepalive(wal_end);
        }
    }

    // ---- backfills ----

    /// Takes a chunk of a section's backfill.
    pub fn chunk(&mut self, section: SectionId, chunk: Chunk) {
        self.sections[section].push_chunk(chunk);
    }

    /// The smallest WAL position that a chunk waits for and that the stream has not passed: worth a ping.
    pub fn waits_for(&self) -> Option<Lsn> {
        let waits = self.sections.iter().filter_map(|section| section.backfill()?.waits_for());
        waits.filter(|lsn| *lsn > self.progress.received()).min()
    }
}
