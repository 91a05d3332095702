//! The engine's input: the stream's rows and boundaries, and the chunks of backfills. Pure.

use crate::delivery::*;

impl Engine {
    /// A new connection: the stream begins again at the checkpoint.
    pub fn stream_restarts(&mut self) {
        self.stale = false;
        self.transaction = None;
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
        let open = self.transaction.map_or(Lsn::ZERO, |(at, _)| Lsn(at.final_lsn.0 + 1));
        let at = carried_at.max(self.progress.received()).max(open);
        self.sections[section].resume_behind(Position::before_transaction(at));
        at
    }

    /// Takes the beginning of a transaction.
    pub fn begin(&mut self, final_lsn: Lsn, commit_micros: i64) {
        if self.stale {
            return;
        }
        let at = Position { final_lsn, ..Position::default() };
        self.transaction = Some((at, commit_micros));
        self.progress.begin(final_lsn);
    }

    /// Takes a row of the open transaction, whose WAL record is at `change_lsn`.
    #[inline]
    pub fn insert(&mut self, oid: u32, change_lsn: Lsn, row: &Row<'_>, now: Duration) {
        let Some((at, micros)) = &mut self.transaction else { return };
        *at = at.next(change_lsn);
        let position = *at;
        let Some(routes) = self.routes.get(&oid) else { return };
        for route in routes {
            let section = &mut self.sections[route.section];
            match &route.mapping {
                Ok(mapping) if section.takes_rows() => {
                    if section.admit(mapping, row, position, *micros, now) {
                        self.progress.admit(route.section, position);
                    }
                }
                mapping => {
                    if position > section.admitted() {
                        self.progress.hold_back(route.section, position);
                        if let Err(trouble) = mapping
                            && !section.is_stopped()
                        {
                            section.stop(trouble.clone());
                            self.actions.push_back(Action::Stopped(route.section));
                        }
                    }
                }
            }
        }
    }

    /// Takes the end of the open transaction.
    pub fn commit(&mut self, end_lsn: Lsn) {
        self.transaction = None;
        self.progress.commit(end_lsn);
    }

    /// Takes a keepalive: the server has read up to `wal_end`.
    pub fn keepalive(&mut self, wal_end: Lsn) {
        if !self.stale {
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
