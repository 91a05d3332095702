//! The server's refusals, and the remedy for each. Pure.
//!
//! * In: an ErrorResponse, from either kind of connection.
//! * Out: a [`ServerError`], its fate (does waiting help?), and a [`Fault`] with its remedy.
//! * Never: a decision by the message's language; only the SQLSTATE decides, the text refines the remedy.

use std::fmt;

use crate::model::{Exit, Fault, washed};

/// An ErrorResponse or NoticeResponse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, or a notice's.
    pub severity: String,
    pub code: String,
    /// The primary message.
    pub message: String,
    /// The DETAIL of the message.
    pub detail: Option<String>,
    /// The server's own advice.
    pub hint: Option<String>,
}

/// The remedy where a server takes no connections just now.
const NOT_NOW: &str = "wait: PostgreSQL is starting up or shutting down; it is tried again";

/// Whether a connection was refused because the server is not up yet, or goes down.
pub(crate) fn is_not_now(fault: &Fault) -> bool {
    fault.remedy == NOT_NOW
}

impl ServerError {
    /// Reads the body of an ErrorResponse or NoticeResponse; what cannot be read is left out.
    pub fn parse(mut body: &[u8]) -> ServerError {
        let mut error = ServerError::default();
        while let Some((&field, rest)) = body.split_first() {
            if field == 0 {
                break;
            }
            let end = memchr::memchr(0, rest).unwrap_or(rest.len());
            let text = String::from_utf8_lossy(&rest[..end]).into_owned();
            body = rest.get(end + 1..).unwrap_or_default();
            match field {
                // V is S untranslated, since 9.6, and follows it.
                b'S' | b'V' => error.severity = text,
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                _ => {}
            }
        }
        error
    }

    /// Whether the same may succeed later with nobody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self.code.get(..2), Some("08" | "40" | "53" | "57"))
            // A slot in use, a lock not got, a server that is (still) a standby, a disk that fails.
            || matches!(&*self.code, "55006" | "55P03" | "25006" | "58030")
            || self.ends_the_session() && self.is_of_the_server()
    }

    /// Whether the server ended the session with it.
    fn ends_the_session(&self) -> bool {
        matches!(&*self.severity, "FATAL" | "PANIC")
    }

    /// Whether it speaks of the server's own state and not of what was asked: a full disk met at the start of a session ("could
    /// not write init file" is XX000), files that are gone, a database that lets nobody in for a while.
    fn is_of_the_server(&self) -> bool {
        matches!(self.code.get(..2), Some("58" | "XX")) || self.code == "55000"
    }

    /// Whether the server is going down or is not up yet.
    pub fn is_shutdown(&self) -> bool {
        matches!(&*self.code, "57P01" | "57P02" | "57P03")
    }

    /// The fault for a person; `place` names the server, `user` the role that asked.
    pub fn fault(&self, place: &str, user: &str) -> Fault {
        let exit = if self.is_transient() { Exit::Unavailable } else { Exit::Usage };
        let mut what = format!("{place}: {self}");
        if let Some(detail) = &self.detail {
            what = format!("{what} ({detail})");
        }
        Fault::new(exit, what, self.remedy(user))
    }

    fn remedy(&self, user: &str) -> String {
        let role = quote_ident(user);
        match &*self.code {
            "28P01" => format!(
                "mend source.password (or PGPASSWORD, or the password file); to set a new one: ALTER ROLE {role} PASSWORD '…'"
            ),
            "28000" => self.authorization_remedy(&role),
            "3D000" => "mend source.database; `psql -l` lists the databases of that server".to_owned(),
            // "must be superuser or replication role to start walsender" until 15, "permission denied to start WAL sender" since.
            "42501" if ["replication", "walsender", "WAL sender"].iter().any(|word| self.message.contains(word)) => format!(
                "ALTER ROLE {role} REPLICATION (Amazon RDS and Aurora: GRANT rds_replication TO {role})"
            ),
            "42501" => format!("grant the right that is named to {role}: `pg2planhat check` prints the exact SQL"),
            "53300" if self.message.contains("max_wal_senders") => {
                "raise max_wal_senders and restart PostgreSQL, or end an unused replication connection: SELECT pid, application_name FROM pg_stat_replication".to_owned()
            }
            "53300" if self.message.contains("for database") => {
                "raise the database's limit (ALTER DATABASE … CONNECTION LIMIT -1), or end idle connections; it is tried again".to_owned()
            }
            "53300" => format!(
                "raise max_connections or the role's limit (ALTER ROLE {role} CONNECTION LIMIT -1), or end idle connections; it is tried again"
            ),
            "57P03" => NOT_NOW.to_owned(),
            "57P01" | "57P02" => "PostgreSQL is being stopped, or someone ended the connection; it is tried again".to_owned(),
            "55006" => "another connection holds it: SELECT slot_name, active_pid FROM pg_replication_slots; it is tried again".to_owned(),
            "25006" => "this server is a standby: point source.host at the primary, or list all servers and set target_session_attrs=read-write".to_owned(),
            "57014" => "the statement ran into its time limit or was cancelled; it is tried again".to_owned(),
            "53100" => "free disk space on the database server; it is tried again".to_owned(),
            _ if self.ends_the_session() && self.is_of_the_server() => {
                "look into the server's log and at its disk; it is tried again".to_owned()
            }
            // A hint is the server's own text: no line of it may pass for this program's.
            _ => self.hint.as_deref().map(|hint| washed(hint).into_owned()).unwrap_or_else(|| {
                format!("look SQLSTATE {} up in PostgreSQL's manual, appendix A, and in the server's log", self.code)
            }),
        }
    }

    fn authorization_remedy(&self, role: &str) -> String {
        let message = &self.message;
        if message.contains("pg_hba.conf") && message.contains("[local]") {
            format!("add to pg_hba.conf on the server: `local DATABASE {role} peer`, then SELECT pg_reload_conf()")
        } else if message.contains("pg_hba.conf") {
            let line = if message.contains("no encryption") || message.contains("SSL off") {
                "the server wants TLS for it: set source.tls to verify-full; or"
            } else {
                "add to pg_hba.conf on the server and reload:"
            };
            // A logical replication connection is matched by its database, not by the word `replication`.
            format!("{line} `hostssl DATABASE {role} ADDRESS/32 scram-sha-256`, then SELECT pg_reload_conf()")
        } else if message.contains("does not exist") {
            format!("CREATE ROLE {role} LOGIN REPLICATION PASSWORD '…', or mend source.user")
        } else if message.contains("not permitted to log in") {
            format!("ALTER ROLE {role} LOGIN")
        } else if message.contains("certificate") {
            "set source.cert and source.key to a client certificate that the server trusts and whose name is the role"
                .to_owned()
        } else if message.contains("eer authentication") {
            format!(
                "run as the system user that pg_hba.conf or pg_ident.conf maps to {role}, or connect by TCP with a password"
            )
        } else {
            format!("the server does not let {role} in this way: look at its log and at pg_hba.conf")
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.code, self.message)
    }
}

impl std::error::Error for ServerError {}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> ServerError {
        ServerError {
            // Not in the server's language, where it says so (since 9.6).
            severity: error
                .parsed_severity()
                .map_or_else(|| error.severity().to_owned(), |severity| severity.to_string()),
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    }
}

fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(code: &str, message: &str) -> ServerError {
        ServerError { severity: "FATAL".into(), code: code.into(), message: message.into(), ..ServerError::default() }
    }

    #[test]
    fn fields_are_read() {
        let error = ServerError::parse(b"SFATAL\0VFATAL\0C28P01\0Mwrong\0Dd\0Hh\0Rauth\0\0");
        let expected = ServerError {
            severity: "FATAL".into(),
            code: "28P01".into(),
            message: "wrong".into(),
            detail: Some("d".into()),
            hint: Some("h".into()),
        };
        assert_eq!(error, expected);
    }

    #[test]
    fn what_waiting_mends_is_transient() {
        for code in ["57P03", "57P01", "53300", "55006", "08006", "40001"] {
            assert!(error(code, "").is_transient(), "{code}");
            assert_eq!(error(code, "").fault("there", "me").exit, Exit::Unavailable);
        }
        for code in ["XX000", "XX001", "58000", "58P01", "55000"] {
            assert!(error(code, "").is_transient(), "{code} that ends the session");
            assert!(error(code, "").remedy("me").contains("tried again"), "{code}");
            let of_a_statement = ServerError { severity: "ERROR".into(), ..error(code, "") };
            assert!(!of_a_statement.is_transient(), "{code} of a statement");
        }
        for code in ["28P01", "28000", "3D000", "42501", "0A000", "", "é"] {
            assert!(!error(code, "").is_transient(), "{code}");
            assert_eq!(error(code, "").fault("there", "me").exit, Exit::Usage);
        }
    }

    #[test]
    fn remedies_name_the_role_quoted() {
        let fault = error("28000", "role \"o\"\"x\" does not exist").fault("there", "o\"x");
        assert!(fault.remedy.starts_with("CREATE ROLE \"o\"\"x\" LOGIN"), "{}", fault.remedy);
        let fault = error("42501", "must be superuser or replication role to start walsender").fault("there", "u");
        assert!(fault.remedy.starts_with("ALTER ROLE \"u\" REPLICATION"), "{}", fault.remedy);
        let fault = error("42501", "permission denied to start WAL sender").fault("there", "u");
        assert!(fault.remedy.starts_with("ALTER ROLE \"u\" REPLICATION"), "{}", fault.remedy);
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_a_panic(body: Vec<u8>) {
            let error = ServerError::parse(&body);
            error.fault("there", "me");
        }
    }
}
