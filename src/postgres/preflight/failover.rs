//! What a failover to a standby does to the slot, and what both servers need for it to survive (PostgreSQL 17).

use tokio_postgres::Error;

use crate::config::Config;
use crate::model::Finding;
use crate::postgres::catalog::slot::Slot;
use crate::postgres::catalog::{quote, slot};
use crate::postgres::connection::session::Session;
use crate::postgres::preflight::server_findings::Facts;
use crate::sql;

/// A physical slot: a standby's.
#[derive(Debug)]
struct Standby {
    name: String,
    attached: bool,
}

/// Looks at it, where it matters: it is asked for, or there are standbys.
pub(crate) async fn examine(
    session: &Session,
    config: &Config,
    facts: &Facts,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let sql = "SELECT slot_name::text, active FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical'
        AND NOT temporary ORDER BY slot_name";
    let standbys = sql::query(session, sql, &[]).await?;
    let standbys: Vec<Standby> =
        standbys.iter().map(|row| Standby { name: row.get(0), attached: row.get(1) }).collect();
    let there = slot::slot(session, &config.source.slot).await?;
    judge(config.source.failover_slot, &config.source.slot, there.as_ref(), facts, &standbys, findings);
    Ok(())
}

fn judge(
    wanted: bool,
    name: &str,
    there: Option<&Slot>,
    facts: &Facts,
    standbys: &[Standby],
    findings: &mut Vec<Finding>,
) {
    let subject = format!("slot {name}");
    let able = facts.server.version >= 170_000;
    if wanted && !able {
        let message = "source.failover_slot is true, and before PostgreSQL 17 there are no failover slots: after a promotion \
                       the slot is missing, and the instance stops and says so";
        let remedy = "upgrade to PostgreSQL 17; until then, after a promotion: pg2planhat repair --gap";
        findings.push(Finding::warning("failover_slot_unsupported", subject, message, remedy));
        return;
    }
    let has = there.is_some_and(|slot| slot.failover == Some(true));
    if !wanted && !has {
        if able && !standbys.is_empty() {
            let message = "there are standbys, and the slot does not go with a promotion: it would be a gap";
            let remedy = format!(
                "set source.failover_slot: true before the slot is made; for one that is there: {}",
                alter(name, facts)
            );
            findings.push(Finding::info("failover_slot_off", subject, message, remedy));
        }
        return;
    }
    if there.is_some() && !has {
        let message = "source.failover_slot is true, and the slot was made without: it does not go with a promotion";
        findings.push(Finding::warning("failover_slot_off", &subject, message, alter(name, facts)));
    }
    let message = "a failover slot: each standby that may be promoted copies it, if it is set up for that";
    let remedy = "on each standby: sync_replication_slots = on, hot_standby_feedback = on, primary_slot_name = 'ITS SLOT', and \
                  dbname=… in primary_conninfo; there, SELECT slot_name, synced, temporary FROM pg_replication_slots must \
                  show it as synced and not temporary";
    findings.push(Finding::info("failover_standbys", &subject, message, remedy));
    waits(facts, standbys, findings);
}

/// `synchronized_standby_slots`: the walsender sends nothing that these standbys do not have yet.
fn waits(facts: &Facts, standbys: &[Standby], findings: &mut Vec<Finding>) {
    const NAME: &str = "synchronized_standby_slots";
    let Some(setting) = facts.settings.get(NAME) else { return };
    let named: Vec<&str> = setting.split(',').map(|name| name.trim().trim_matches('"')).collect();
    let named: Vec<&str> = named.into_iter().filter(|name| !name.is_empty()).collect();
    if named.is_empty() {
        let slots: Vec<&str> = standbys.iter().map(|standby| &*standby.name).collect();
        let slots = if slots.is_empty() { "THE STANDBY'S SLOT".to_owned() } else { slots.join(", ") };
        let message = "synchronized_standby_slots is empty: rows can be delivered that a standby does not have yet, and after \
                       its promotion the checkpoint is past its history (timeline_changed)";
        findings.push(Finding::warning(NAME, "server", message, facts.provider.set(NAME, &slots, false)));
        return;
    }
    for name in named {
        if standbys.iter().any(|standby| standby.name == name && standby.attached) {
            continue;
        }
        let message = format!(
            "synchronized_standby_slots names {name}, and no standby is attached to it: the stream waits for that standby"
        );
        let remedy = format!(
            "start that standby with primary_slot_name = {}; or take the name out of synchronized_standby_slots, then SELECT \
             pg_reload_conf();",
            quote::literal(name)
        );
        findings.push(Finding::error("standby_awaited", "server", message, remedy));
    }
}

/// Only the replication protocol can change it, and only while nobody reads from the slot.
fn alter(name: &str, facts: &Facts) -> String {
    format!(
        "while `run` is stopped: psql \"dbname={} replication=database\" -c 'ALTER_REPLICATION_SLOT {} (FAILOVER true)'",
        facts.server.database.1,
        quote::ident(name)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Severity;
    use crate::postgres::preflight::server_findings::tests::facts;

    fn slot(failover: Option<bool>) -> Slot {
        let row = serde_json::json!({ "active": false, "failover": failover, "confirmed_flush_lsn": "0/1" });
        serde_json::from_value(row).unwrap()
    }

    fn codes(wanted: bool, version: i32, awaited: Option<&str>, slot: Option<Slot>, attached: &[bool]) -> Vec<String> {
        let mut facts = facts();
        facts.server.version = version;
        if let Some(awaited) = awaited {
            facts.settings.insert("synchronized_standby_slots".into(), awaited.into());
        }
        let standbys: Vec<Standby> =
            attached.iter().map(|attached| Standby { name: "s1".into(), attached: *attached }).collect();
        let mut findings = Vec::new();
        judge(wanted, "ours", slot.as_ref(), &facts, &standbys, &mut findings);
        assert!(findings.iter().all(|finding| !finding.remedy.is_empty()));
        let code = |finding: Finding| {
            format!("{}{}", finding.code, if finding.severity == Severity::Error { "!" } else { "" })
        };
        findings.into_iter().map(code).collect()
    }

    #[test]
    fn each_way_to_lose_the_slot_at_a_promotion_is_said() {
        let none: [&str; 0] = [];
        assert_eq!(codes(false, 160_000, None, None, &[true]), none);
        assert_eq!(codes(true, 160_000, None, None, &[]), ["failover_slot_unsupported"]);
        assert_eq!(codes(false, 170_000, Some(""), None, &[]), none);
        assert_eq!(codes(false, 170_000, Some(""), Some(slot(Some(false))), &[true]), ["failover_slot_off"]);
        let asked = |awaited, attached: &[bool]| codes(true, 180_000, Some(awaited), Some(slot(Some(true))), attached);
        assert_eq!(asked("", &[true]), ["failover_standbys", "synchronized_standby_slots"]);
        assert_eq!(asked("s1", &[true]), ["failover_standbys"]);
        assert_eq!(asked("s1", &[false]), ["failover_standbys", "standby_awaited!"]);
        assert_eq!(asked("\"s1\", s2", &[true]), ["failover_standbys", "standby_awaited!"]);
        let off = codes(true, 170_000, Some("s1"), Some(slot(Some(false))), &[true]);
        assert_eq!(off, ["failover_slot_off", "failover_standbys"]);
    }
}
