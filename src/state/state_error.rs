//! Errors of the state, by what follows: stop, try again, or wait for a person.
//!
//! * In: an error of the connection.
//! * Out: a [`StateError`] with its remedy.
//! * Never: a server's DETAIL (it may quote row data).

use std::error::Error as _;

use tokio_postgres::Error;

use crate::model::{Exit, Fault};
use crate::state::migrations::{Schema, grants, quote};

/// Why the state could not be read or written, by what happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StateError {
    /// Another process took a later epoch: this one stops at once. Nothing was written.
    Fenced,
    /// The server gave no answer, or cannot serve now. The caller connects anew and applies the *same* list again, which is
    /// then applied once.
    Unavailable(Fault),
    /// A person must mend something. Nothing was written. Worth trying again on a new connection once in a while.
    Unwritable(Fault),
}

impl StateError {
    /// The error as people see it.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            StateError::Fenced => Fault::unavailable(
                "another process has taken over: the state schema holds a later epoch than this process's",
                "nothing: this process stops, and waits as standby when it is started again",
            ),
            StateError::Unavailable(fault) | StateError::Unwritable(fault) => fault.clone(),
        }
    }
}

impl std::fmt::Display for StateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.fault().fmt(f)
    }
}

impl std::error::Error for StateError {}

/// The session's server, role and database, which the remedies name.
#[derive(Clone, Debug)]
pub(crate) struct StatePlace {
    pub(crate) schema: Schema,
    pub(crate) user: String,
    pub(crate) database: String,
}

impl StatePlace {
    /// Classifies an error of the connection.
    pub(crate) fn classify(&self, doing: &str, error: &Error) -> StateError {
        let Some(db) = error.as_db_error() else {
            let broken = error.is_closed() || error.source().is_some_and(|source| source.is::<std::io::Error>());
            return match broken {
                true => self.unreachable(doing, &error.to_string()),
                // A value that did not fit its type, say: trying again would not help.
                false => StateError::Unwritable(Fault::bug(format!("{doing}: {error}"))),
            };
        };
        let what = format!("{doing} in state schema {} failed: {} ({})", self.schema, db.message(), db.code().code());
        match db.code().code() {
            // Class 08: connection. 57P0x: the server ends or starts. 25P03, 57P05: it ended an idle session.
            // 53300: no connection left.
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "53300" => self.unreachable(doing, db.message()),
            code if code.starts_with("08") => self.unreachable(doing, db.message()),
            // 40001, 40P01: it lost against another transaction. 55P03, 57014: the bounds of this session's waiting.
            "40001" | "40P01" | "55P03" | "57014" => StateError::Unavailable(Fault::unavailable(what, self.busy())),
            code => StateError::Unwritable(Fault::needs_person(what, self.remedy(code))),
        }
    }

    /// The server does not answer.
    pub(crate) fn unreachable(&self, doing: &str, why: &str) -> StateError {
        StateError::Unavailable(Fault::unavailable(
            format!("{doing}: the connection to the state schema's server broke: {why}"),
            "nothing while the server restarts: the program connects again. If it lasts, see that the server of the \
             state schema runs and can be reached",
        ))
    }

    fn busy(&self) -> String {
        format!(
            "nothing while it passes: the write is tried again. If it lasts, find who holds the lock: SELECT a.pid, \
             a.usename, a.state, a.query FROM pg_locks l JOIN pg_stat_activity a USING (pid) JOIN pg_class c ON c.oid \
             = l.relation WHERE c.relnamespace = '{}'::regnamespace AND a.application_name <> '{}'",
            self.schema.quoted().replace('\'', "''"),
            crate::state::APPLICATION_NAME
        )
    }

    fn remedy(&self, code: &str) -> String {
        let (user, database) = (quote(&self.user), quote(&self.database));
        match code {
            // Insufficient privilege.
            "42501" => format!(
                "as the owner of the schema:\n{}or, where the schema is yet to be made or renewed: GRANT CREATE ON \
                 DATABASE {database} TO {user}, or let a DBA run what `pg2planhat setup --print-sql` prints",
                grants(&self.schema, &self.user)
            ),
            // Undefined schema, table, column; a plan whose table changed under it.
            "3F000" | "42P01" | "42703" | "0A000" => format!(
                "the tables of schema {} are missing or not of this version: put the schema back from its newest \
                 backup. Without one, run `pg2planhat setup`, and then `pg2planhat repair`, which asks from where to go on",
                self.schema
            ),
            // Read-only transaction.
            "25006" => format!(
                "if `SELECT pg_is_in_recovery()` says true, this is a standby: point source.host (or state.url) at the \
                 primary. Else: ALTER DATABASE {database} RESET default_transaction_read_only; ALTER ROLE {user} RESET \
                 default_transaction_read_only; and see default_transaction_read_only in postgresql.conf"
            ),
            // Dependent objects still exist.
            "2BP01" => format!(
                "schema {} holds objects that are not this program's: move or drop them, then try again",
                self.schema
            ),
            // Disk full; out of memory; a limit of the configuration; an I/O error.
            "53100" => "free space on the disk of the state schema's server; the program goes on by itself".to_owned(),
            "53200" | "53400" | "58030" => {
                "see the server's log, and mend its memory, limits or disk; the program goes on by itself".to_owned()
            }
            _ => {
                "see the server's log for the whole message; the program goes on by itself when it is mended".to_owned()
            }
        }
    }

    /// The one row of `instance` is not there.
    pub(crate) fn no_instance(&self) -> StateError {
        StateError::Unwritable(Fault::needs_person(
            format!("state schema {} has lost its row in table instance", self.schema),
            "put the schema back from its newest backup; the row holds the checkpoint, and nothing can go on without it",
        ))
    }

    /// A section's row is not there.
    pub(crate) fn no_section(&self, doing: &str) -> StateError {
        StateError::Unwritable(Fault::needs_person(
            format!("{doing}: state schema {} has lost the row of a section that is running", self.schema),
            "put the row back into table section from the newest backup, or restart: the section then attaches anew, \
             and what its `start` names is delivered again",
        ))
    }

    /// The schema holds less than this process wrote: it was put back from an older copy while it ran.
    pub(crate) fn older_copy(&self, held: i64, expected: i64) -> StateError {
        StateError::Unwritable(Fault::needs_person(
            format!(
                "state schema {} is an older copy: its last write is number {held}, this process's was {expected}",
                self.schema
            ),
            "stop the process and put the newest copy of the schema back. Restarting on the older copy sends all rows \
             since its checkpoint again, and Planhat counts them twice",
        ))
    }

    /// The schema was made by a later version of this program.
    pub(crate) fn newer_schema(&self, held: i32, known: i32) -> StateError {
        StateError::Unwritable(Fault::new(
            Exit::NeedsPerson,
            format!("state schema {} has version {held}; this program knows {known}", self.schema),
            "run the version of pg2planhat that made it, or a later one (column version of table instance says which)",
        ))
    }

    /// The schema is of an earlier version, or not there at all.
    pub(crate) fn not_migrated(&self) -> StateError {
        StateError::Unwritable(Fault::needs_person(
            format!("state schema {} is missing or of an earlier version", self.schema),
            "run `pg2planhat setup`, or let a DBA run what `pg2planhat setup --print-sql` prints",
        ))
    }
}
