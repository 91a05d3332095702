//! A PostgreSQL as far as the core can tell: a WAL in commit order, snapshots, a slot that may forget, a walsender.

use std::collections::BTreeSet;

use pg2planhat::testing::model::{CommitMark, Lsn, Position};

/// A row of one of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRow {
    /// Which table.
    pub table: usize,
    /// Its key: given at the INSERT, so that it may be committed late.
    pub key: i64,
    /// Whether its value is one that the mapping takes.
    pub good: bool,
    /// LSN of its WAL record; several rows of one statement share one.
    pub lsn: Lsn,
    /// Who sends it.
    pub published: Published,
}

/// Which walsenders send a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    Never,
    Always,
    /// The table was published after the row was written and before its transaction committed: whether a walsender sends
    /// the row depends on what that walsender has decoded before.
    BySome,
}

/// A transaction that has committed.
#[derive(Clone, Debug)]
pub struct Committed {
    pub xid: u64,
    pub final_lsn: Lsn,
    pub end_lsn: Lsn,
    pub rows: Vec<TableRow>,
    /// Its commit is in the WAL; snapshots see it only from here on (a synchronous standby makes the difference).
    pub visible: bool,
}

impl Committed {
    /// What its commit has.
    pub fn mark(&self) -> CommitMark {
        CommitMark { xid: self.xid as u32, micros: 0 }
    }

    /// The rows that every walsender sends, each with its position.
    pub fn streamed(&self) -> impl Iterator<Item = (Position, TableRow)> + '_ {
        let mut at = Position { final_lsn: self.final_lsn, ..Position::default() };
        let place = move |row: &TableRow| {
            at = at.next(row.lsn);
            (at, *row)
        };
        self.sent(false).map(place)
    }

    /// The rows that a walsender sends.
    fn sent(&self, by_some: bool) -> impl Iterator<Item = &TableRow> + '_ {
        self.rows.iter().filter(move |row| match row.published {
            Published::Never => false,
            Published::Always => true,
            Published::BySome => by_some,
        })
    }
}

/// A transaction under way.
#[derive(Clone, Debug)]
pub struct Open {
    pub xid: u64,
    pub rows: Vec<TableRow>,
}

/// What the walsender sends.
#[derive(Clone, Copy, Debug)]
pub enum Message {
    Begin(Lsn, CommitMark),
    Insert(TableRow),
    Commit(Lsn),
    Keepalive(Lsn),
}

/// Tables; the last is published and mapped by nothing.
pub const TABLES: usize = 3;

#[derive(Debug)]
pub struct Server {
    pub end: u64,
    pub next_key: [i64; TABLES],
    pub published: [bool; TABLES],
    pub open: Vec<Open>,
    pub log: Vec<Committed>,
    pub next_xid: u64,
    /// The slot's confirmed position, and the one that a crash brings back.
    pub confirmed: Lsn,
    pub remembered: Lsn,
}

impl Server {
    pub fn new() -> Server {
        Server {
            end: 1_000,
            next_key: [1; TABLES],
            published: [true, false, true],
            open: Vec::new(),
            log: Vec::new(),
            next_xid: 1,
            confirmed: Lsn::ZERO,
            remembered: Lsn::ZERO,
        }
    }

    pub fn begin(&mut self) -> usize {
        self.open.push(Open { xid: self.next_xid, rows: Vec::new() });
        self.next_xid += 1;
        self.open.len() - 1
    }

    /// A row; `shared`: in the WAL record of the row before.
    pub fn insert(&mut self, open: usize, table: usize, good: bool, skipped: i64, shared: bool) -> TableRow {
        let key = self.next_key[table] + skipped;
        self.next_key[table] = key + 1;
        let lsn = match self.open[open].rows.last() {
            Some(last) if shared && last.table == table => last.lsn,
            Some(_) | None => Lsn(self.end),
        };
        let published = if self.published[table] { Published::Always } else { Published::Never };
        let row = TableRow { table, key, good, lsn, published };
        self.open[open].rows.push(row);
        self.end += 40;
        row
    }

    pub fn commit(&mut self, open: usize, visible: bool) -> &Committed {
        let Open { xid, mut rows } = self.open.swap_remove(open);
        for row in rows.iter_mut().filter(|row| row.published == Published::Never && self.published[row.table]) {
            row.published = Published::BySome;
        }
        let final_lsn = Lsn(self.end + 8);
        let end_lsn = Lsn(self.end + 48);
        self.end = end_lsn.0;
        self.log.push(Committed { xid, final_lsn, end_lsn, rows, visible });
        self.log.last().unwrap()
    }

    /// A table joins the publication.
    pub fn publish(&mut self, table: usize) {
        self.published[table] = true;
        self.end += 100;
    }

    /// Transactions that have written to a table and hold its lock: until their rows are seen.
    pub fn writers(&self, table: usize) -> BTreeSet<u64> {
        let wrote = |rows: &[TableRow]| rows.iter().any(|row| row.table == table);
        let invisible = self.log.iter().filter(|committed| !committed.visible && wrote(&committed.rows));
        let open = self.open.iter().filter(|open| wrote(&open.rows)).map(|open| open.xid);
        open.chain(invisible.map(|committed| committed.xid)).collect()
    }

    /// Transactions whose rows no snapshot sees yet: what the xmin barrier must wait for.
    pub fn unseen(&self) -> BTreeSet<u64> {
        let invisible = self.log.iter().filter(|committed| !committed.visible).map(|committed| committed.xid);
        self.open.iter().map(|open| open.xid).chain(invisible).collect()
    }

    /// What a snapshot shows of a table, in key order, within the range.
    pub fn select(&self, table: usize, after: Option<i64>, through: i64, limit: usize) -> Vec<TableRow> {
        let rows = self.log.iter().filter(|committed| committed.visible).flat_map(|committed| &committed.rows);
        let within =
            |row: &&TableRow| row.table == table && row.key <= through && after.is_none_or(|after| row.key > after);
        let mut rows: Vec<TableRow> = rows.filter(within).copied().collect();
        rows.sort_by_key(|row| row.key);
        rows.truncate(limit);
        rows
    }

    /// The machine died: open transactions are gone, everything in the WAL is visible, the slot is where it was.
    pub fn crash(&mut self) {
        self.open.clear();
        self.log.iter_mut().for_each(|committed| committed.visible = true);
        self.confirmed = self.remembered;
    }
}

/// The sending side of one replication connection.
#[derive(Debug)]
pub struct Walsender {
    /// The next transaction of the log, and how much of it is sent: BEGIN, its rows, COMMIT.
    next: usize,
    sent: usize,
    start: Lsn,
    /// Whether it sends the rows of tables that were published beside their transaction.
    by_some: bool,
}

impl Walsender {
    /// `START_REPLICATION` at `from`: the slot never goes behind what it has confirmed.
    pub fn start(server: &Server, from: Lsn) -> Walsender {
        let start = from.max(server.confirmed);
        let next = server.log.partition_point(|committed| committed.final_lsn < start);
        // Each connection has a cache of its own.
        Walsender { next, sent: 0, start, by_some: (server.end / 20).is_multiple_of(2) }
    }

    pub fn has_more(&self, server: &Server) -> bool {
        self.next < server.log.len()
    }

    /// The next message that is not a keepalive.
    pub fn message(&mut self, server: &Server) -> Option<Message> {
        let committed = server.log.get(self.next)?;
        let rows = committed.sent(self.by_some).count();
        let message = match self.sent {
            0 => Message::Begin(committed.final_lsn, committed.mark()),
            n if n <= rows => Message::Insert(*committed.sent(self.by_some).nth(n - 1).unwrap()),
            _ => Message::Commit(committed.end_lsn),
        };
        if matches!(message, Message::Commit(_)) {
            (self.next, self.sent) = (self.next + 1, 0);
        } else {
            self.sent += 1;
        }
        Some(message)
    }

    /// From where it sends.
    pub fn begins(&self) -> Lsn {
        self.start
    }

    /// A keepalive: how far it has read. Within a transaction that may lie past the transaction's own commit.
    pub fn keepalive(&self, server: &Server, share: u64) -> Message {
        let at = |index: usize| server.log.get(index).map_or(server.end, |next| next.final_lsn.0);
        let (low, high) = if self.sent > 0 {
            (server.log[self.next].end_lsn.0, at(self.next + 1))
        } else {
            let before = self.next.checked_sub(1).map_or(self.start.0, |index| server.log[index].end_lsn.0);
            (before.max(self.start.0), at(self.next))
        };
        Message::Keepalive(Lsn(low + (high.saturating_sub(low)) * share / 4))
    }
}
