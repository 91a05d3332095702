//! The slot: there, ours, alive; or room for it.

use tokio_postgres::Error;

use crate::config::Config;
use crate::model::Finding;
use crate::postgres::catalog::slot::Slot;
use crate::postgres::catalog::{quote, slot};
use crate::postgres::connection::session::Session;
use crate::postgres::preflight::server_findings::Facts;
use crate::postgres::setup;

/// Looks at the slot; whether there is one.
pub(crate) async fn examine(
    session: &Session,
    config: &Config,
    facts: &Facts,
    findings: &mut Vec<Finding>,
) -> Result<bool, Error> {
    let name = &config.source.slot;
    let subject = format!("slot {name}");
    let there = slot::slot(session, name).await?;
    match &there {
        None => missing(config, facts, &subject, findings),
        Some(slot) => judge(slot, name, &facts.server.database.1, &subject, findings),
    }
    Ok(there.is_some())
}

fn missing(config: &Config, facts: &Facts, subject: &str, findings: &mut Vec<Finding>) {
    if let Some(max) = facts.number("max_replication_slots").filter(|max| facts.slots >= *max) {
        let message = format!("there is no slot, and all {max} (max_replication_slots) are in use");
        let raise = facts.provider.set("max_replication_slots", &(max + 5).to_string(), true);
        let remedy =
            format!("{raise}; or drop one that nobody uses: SELECT slot_name, active FROM pg_replication_slots");
        findings.push(Finding::error("replication_slots", "server", message, remedy));
    }
    let failover = config.source.failover_slot && facts.server.version >= 170_000;
    let sql = setup::create_slot(&config.source.slot, failover);
    findings.push(if config.source.manage {
        Finding::info("slot_missing", subject, "there is none yet", "`pg2planhat setup` makes it, and so does `run`")
    } else {
        let message = "there is none, and `source.manage` is false";
        Finding::error("slot_missing", subject, message, format!("make it after the publication: {sql};"))
    });
}

fn judge(slot: &Slot, name: &str, database: &str, subject: &str, findings: &mut Vec<Finding>) {
    let own = "give this instance a slot of its own: `slot: NAME` in source";
    let drop = format!("SELECT pg_drop_replication_slot({});", quote::literal(name));
    if slot.plugin.as_deref() != Some("pgoutput") {
        let plugin = slot.plugin.as_deref().unwrap_or("none: it is physical");
        findings.push(Finding::error("slot_plugin", subject, format!("its plugin is not pgoutput ({plugin})"), own));
        return;
    }
    if slot.database.as_deref() != Some(database) {
        let other = slot.database.as_deref().unwrap_or("?");
        findings.push(Finding::error("slot_database", subject, format!("it decodes another database: {other}"), own));
        return;
    }
    if slot.two_phase == Some(true) {
        let fault = setup::two_phase(name);
        let message = "it was made with two_phase: it brings prepared transactions before they are committed";
        findings.push(Finding::error("slot_two_phase", subject, message, fault.remedy));
        return;
    }
    if slot.is_lost() {
        let message = format!(
            "it is lost, for {}: rows since {} cannot be streamed",
            slot.why_lost(),
            slot.confirmed_flush_lsn.as_deref().unwrap_or("?")
        );
        findings.push(Finding::error("slot_lost", subject, message, "pg2planhat repair --gap"));
        return;
    }
    match (slot.confirmed(), slot.active_pid) {
        (None, _) => findings.push(Finding::warning(
            "slot_half_made",
            subject,
            "it is half-made: its maker waits for open transactions, or vanished while it did",
            format!("wait a moment; if it stays: {drop}"),
        )),
        (Some(_), Some(pid)) => {
            let message = format!("it is in use by pid {pid}: an instance is running; another would wait as standby");
            findings.push(Finding::info("slot_active", subject, message, ""));
        }
        (Some(confirmed), None) => {
            findings.push(Finding::ok("slot", subject, format!("it is there, confirmed up to {confirmed}")));
        }
    }
    if slot.wal_status.as_deref() == Some("unreserved") {
        findings.push(Finding::warning(
            "slot_unreserved",
            subject,
            "it is about to be lost: it needs more WAL than max_slot_wal_keep_size keeps",
            "raise max_slot_wal_keep_size now, and let `pg2planhat run` catch up",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_a_slot_has_its_finding() {
        let good = Slot {
            plugin: Some("pgoutput".into()),
            database: Some("app".into()),
            active: false,
            active_pid: None,
            restart_lsn: Some("0/1".into()),
            confirmed_flush_lsn: Some("0/2".into()),
            wal_status: Some("reserved".into()),
            safe_wal_size: None,
            two_phase: Some(false),
            failover: None,
            invalidation_reason: None,
        };
        let codes = |slot: Slot| {
            let mut findings = Vec::new();
            judge(&slot, "s", "app", "slot s", &mut findings);
            findings.into_iter().map(|finding| finding.code).collect::<Vec<_>>()
        };
        assert_eq!(codes(good.clone()), ["slot"]);
        assert_eq!(codes(Slot { plugin: None, ..good.clone() }), ["slot_plugin"]);
        assert_eq!(codes(Slot { database: Some("other".into()), ..good.clone() }), ["slot_database"]);
        assert_eq!(codes(Slot { wal_status: Some("lost".into()), ..good.clone() }), ["slot_lost"]);
        assert_eq!(codes(Slot { two_phase: Some(true), ..good.clone() }), ["slot_two_phase"]);
        assert_eq!(codes(Slot { confirmed_flush_lsn: None, ..good.clone() }), ["slot_half_made"]);
        assert_eq!(codes(Slot { active_pid: Some(1), ..good.clone() }), ["slot_active"]);
        assert_eq!(codes(Slot { wal_status: Some("unreserved".into()), ..good }), ["slot", "slot_unreserved"]);
    }
}
