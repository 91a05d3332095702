//! The server's settings, rights and versions: read once, judged purely.

use std::collections::HashMap;

use tokio_postgres::{Client, Error};

use crate::model::Finding;
use crate::postgres::catalog::server;
use crate::postgres::connection::charset;
use crate::postgres::preflight::Provider;
use crate::sql;

const SUBJECT: &str = "server";

/// What the server says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// As the rest of the room reads it.
    pub server: server::Server,
    pub provider: Provider,
    /// Settings by name, in their base units; absent where the version does not have them.
    pub settings: HashMap<String, String>,
    /// Slots in use.
    pub slots: i64,
    /// Walsenders at work.
    pub senders: i64,
}

const SETTINGS: &[&str] = &[
    "wal_level",
    "max_replication_slots",
    "max_wal_senders",
    "wal_sender_timeout",
    "max_slot_wal_keep_size",
    "idle_replication_slot_timeout",
    "synchronized_standby_slots",
];

impl Facts {
    pub(crate) async fn read(client: &Client) -> Result<Facts, Error> {
        let server = server::server(client).await?;
        let provider = Provider::detect(client).await?;
        let sql = "SELECT name::text, setting FROM pg_catalog.pg_settings WHERE name = ANY($1)";
        let settings = sql::query(client, sql, &[&SETTINGS]).await?;
        let settings = settings.iter().map(|row| (row.get(0), row.get(1))).collect();
        let sql = "SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots),
            (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walsender')";
        let row = sql::query_one(client, sql, &[]).await?;
        Ok(Facts { server, provider, settings, slots: row.get(0), senders: row.get(1) })
    }

    /// A setting as a number in its base unit.
    pub(crate) fn number(&self, name: &str) -> Option<i64> {
        self.settings.get(name)?.parse().ok()
    }
}

/// Findings about the server as a whole.
pub(crate) fn judge(facts: &Facts, server_encoding: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    version(facts, &mut findings);
    if facts.server.in_recovery {
        findings.push(Finding::error(
            "standby",
            SUBJECT,
            "this server is a standby: neither the publication nor the state schema can be made or written there, although \
             PostgreSQL 16 and later could decode on it",
            facts.provider.primary(),
        ));
    }
    wal_level(facts, &mut findings);
    if !facts.server.replication && facts.provider != Provider::Rds {
        findings.push(Finding::error(
            "role_replication",
            format!("role {}", facts.server.role),
            "the role may not replicate",
            facts.provider.replication(&facts.server.role),
        ));
    }
    senders(facts, &mut findings);
    if facts.provider == Provider::Neon {
        findings.push(Finding::info(
            "neon",
            SUBJECT,
            "a running instance keeps the compute from scaling to zero; a slot that nobody reads from for about 40 hours is \
             removed where another one is in use, and restoring a branch removes all",
            "keep it running; after a removal: pg2planhat repair --gap",
        ));
    }
    kept_wal(facts, &mut findings);
    encoding(facts, server_encoding, &mut findings);
    findings
}

/// Findings about the server where nothing is streamed: any server will do, a standby where the state is elsewhere.
pub(crate) fn judge_unstreamed(facts: &Facts, server_encoding: &str, state_is_apart: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    version(facts, &mut findings);
    if facts.server.in_recovery && !state_is_apart {
        findings.push(Finding::error(
            "standby_state",
            SUBJECT,
            "this server is a standby, and the state cannot be written there",
            "set `state.url` to a database that can be written; sections with `read: diff` then read from the standby",
        ));
    } else if facts.server.in_recovery {
        findings.push(Finding::ok("standby", SUBJECT, "it is a standby, which suffices: no section is streamed"));
    }
    encoding(facts, server_encoding, &mut findings);
    findings
}

fn encoding(facts: &Facts, server_encoding: &str, findings: &mut Vec<Finding>) {
    if server_encoding == "SQL_ASCII" {
        findings.push(Finding::warning(
            "sql_ascii",
            format!("database {}", facts.server.database.1),
            "its encoding is SQL_ASCII, so text may hold any bytes: rows that are not UTF-8 go into quarantine",
            "move to a UTF8 database with time: pg_dump --encoding=…, CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        ));
    } else if server_encoding != "UTF8" && !charset::is_single_byte(server_encoding) {
        findings.push(Finding::warning(
            "database_encoding",
            format!("database {}", facts.server.database.1),
            format!(
                "its encoding is {server_encoding}, and the server converts it: one character that UTF-8 has no equivalent for \
                 stops the stream (SQLSTATE 22P05)"
            ),
            "move to a UTF8 database with time: pg_dump --encoding=UTF8, CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        ));
    }
}

/// ALTER PUBLICATION while others write lost their rows until these minors.
const INVALIDATION_FIXED: &[(i32, i32)] = &[(14, 18), (15, 13), (16, 9), (17, 5)];

fn version(facts: &Facts, findings: &mut Vec<Finding>) {
    let (major, minor) = (facts.server.version / 10_000, facts.server.version % 10_000);
    let name = facts.provider.name();
    if major < 14 {
        let message = format!("{name} {major}.{minor} is not supported: 14 is the oldest that is");
        findings.push(Finding::error("version", SUBJECT, message, "upgrade the server to 14 or later"));
        return;
    }
    match INVALIDATION_FIXED.iter().find(|(of, fixed)| *of == major && minor < *fixed) {
        Some((_, fixed)) => findings.push(Finding::warning(
            "version_minor",
            SUBJECT,
            format!(
                "{name} {major}.{minor} can lose rows of transactions that are open while a table is added to a publication"
            ),
            format!("upgrade to {major}.{fixed} or later; until then add sections while nobody writes to their tables"),
        )),
        None => findings.push(Finding::ok("version", SUBJECT, format!("{name} {major}.{minor}"))),
    }
}

fn wal_level(facts: &Facts, findings: &mut Vec<Finding>) {
    let level = &facts.server.wal_level;
    findings.push(if level == "logical" {
        Finding::ok("wal_level", SUBJECT, "wal_level is logical")
    } else {
        let message = format!("wal_level is {level}: there is nothing to decode rows from");
        Finding::error("wal_level", SUBJECT, message, facts.provider.logical())
    });
}

fn senders(facts: &Facts, findings: &mut Vec<Finding>) {
    let set = |name: &str, value: i64| facts.provider.set(name, &value.to_string(), true);
    if let Some(max) = facts.number("max_wal_senders") {
        if facts.senders >= max {
            let message = format!("all {max} walsenders (max_wal_senders) are in use");
            findings.push(Finding::error("wal_senders", SUBJECT, message, set("max_wal_senders", max + 5)));
        } else if facts.senders + 1 >= max {
            let message = format!(
                "{} of {max} walsenders are in use: a hand-over between two instances may have to wait",
                facts.senders
            );
            findings.push(Finding::info("wal_senders", SUBJECT, message, set("max_wal_senders", max + 5)));
        }
    }
    match facts.server.wal_sender_timeout {
        0 => findings.push(Finding::info(
            "wal_sender_timeout",
            SUBJECT,
            "wal_sender_timeout is 0: the server never notices a client that is gone, and keeps its slot busy",
            facts.provider.set("wal_sender_timeout", "60s", false),
        )),
        1..5_000 => findings.push(Finding::warning(
            "wal_sender_timeout",
            SUBJECT,
            format!(
                "wal_sender_timeout is {} ms: short pauses of the network end the stream",
                facts.server.wal_sender_timeout
            ),
            facts.provider.set("wal_sender_timeout", "60s", false),
        )),
        _ => {}
    }
}

/// Below this the WAL of an ordinary outage is lost (MiB).
const SMALL_KEEP: i64 = 1024;

fn kept_wal(facts: &Facts, findings: &mut Vec<Finding>) {
    let set = |value: &str| facts.provider.set("max_slot_wal_keep_size", value, false);
    match facts.number("max_slot_wal_keep_size") {
        Some(-1) => findings.push(Finding::warning(
            "slot_wal_unbounded",
            SUBJECT,
            "max_slot_wal_keep_size is -1: while this program or Planhat is away, WAL is kept until the disk is full, and a \
             full disk stops the database",
            format!("as much as the disk can spare, with an alert on slot_retained_bytes:\n{}", set("50GB")),
        )),
        Some(mib) if mib < SMALL_KEEP => findings.push(Finding::warning(
            "slot_wal_small",
            SUBJECT,
            format!("max_slot_wal_keep_size is {mib} MB: an outage that sees more WAL than this loses the slot, and with it rows"),
            format!("some days of WAL:\n{}", set("50GB")),
        )),
        Some(mib) => {
            findings.push(Finding::ok("slot_wal", SUBJECT, format!("up to {mib} MB of WAL are kept for a slot")));
        }
        None => {}
    }
    if let Some(seconds @ 1..) = facts.number("idle_replication_slot_timeout") {
        findings.push(Finding::warning(
            "idle_slot_timeout",
            SUBJECT,
            format!(
                "idle_replication_slot_timeout is {seconds} s: the slot is lost when this program is down for longer"
            ),
            facts.provider.set("idle_replication_slot_timeout", "0", false),
        ));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::Severity;
    use crate::postgres::catalog::server::Server;

    pub(crate) fn facts() -> Facts {
        let settings =
            [("max_wal_senders", "10"), ("max_slot_wal_keep_size", "51200"), ("max_replication_slots", "10")];
        Facts {
            server: Server {
                version: 150_018,
                database: (5, "app".into()),
                wal_level: "logical".into(),
                in_recovery: false,
                wal_sender_timeout: 60_000,
                role: "r".into(),
                replication: true,
                address: None,
            },
            provider: Provider::Own,
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            slots: 0,
            senders: 0,
        }
    }

    /// The codes of what is not as it should be.
    fn codes(change: impl FnOnce(&mut Facts)) -> Vec<&'static str> {
        let mut facts = facts();
        change(&mut facts);
        let bad = judge(&facts, "UTF8").into_iter().filter(|finding| finding.severity != Severity::Ok);
        bad.inspect(|finding| assert!(!finding.remedy.is_empty(), "{finding:?}")).map(|finding| finding.code).collect()
    }

    fn set(name: &'static str, value: &'static str) -> impl FnOnce(&mut Facts) {
        move |facts| {
            facts.settings.insert(name.to_owned(), value.to_owned());
        }
    }

    #[test]
    fn a_good_server_has_no_findings_and_each_bad_setting_its_own() {
        assert_eq!(codes(|_| ()), [""; 0]);
        assert_eq!(codes(|f| f.server.version = 130_020), ["version"]);
        assert_eq!(codes(|f| f.server.version = 150_012), ["version_minor"]);
        assert_eq!(codes(|f| f.server.version = 180_000), [""; 0]);
        assert_eq!(codes(|f| f.server.wal_level = "replica".into()), ["wal_level"]);
        assert_eq!(codes(|f| f.server.in_recovery = true), ["standby"]);
        assert_eq!(codes(|f| f.server.replication = false), ["role_replication"]);
        assert_eq!(codes(|f| f.provider = Provider::Neon), ["neon"]);
        assert_eq!(codes(|f| f.senders = 10), ["wal_senders"]);
        assert_eq!(codes(|f| f.senders = 9), ["wal_senders"]);
        assert_eq!(codes(|f| f.server.wal_sender_timeout = 0), ["wal_sender_timeout"]);
        assert_eq!(codes(|f| f.server.wal_sender_timeout = 1000), ["wal_sender_timeout"]);
        assert_eq!(codes(set("max_slot_wal_keep_size", "-1")), ["slot_wal_unbounded"]);
        assert_eq!(codes(set("max_slot_wal_keep_size", "64")), ["slot_wal_small"]);
        assert_eq!(codes(set("idle_replication_slot_timeout", "3600")), ["idle_slot_timeout"]);
    }
}
