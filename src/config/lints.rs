//! What a configuration says that is allowed, and probably not meant. Pure.
//!
//! * In: a [`Config`] that is whole.
//! * Out: findings for `check`.
//! * Never: what a server would have to be asked for.

use crate::config::{Config, Flush, Kind, Section, Start, TlsMode};
use crate::model::Finding;

/// Everything that the configuration alone gives away.
pub(crate) fn advice(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.sections.iter().all(|section| !section.is_on()) {
        let remedy = "set `sync: receive` in the sections that are to flow";
        findings.push(Finding::warning("no_section_on", "configuration", "every section is switched off", remedy));
    }
    for section in config.sections.iter().filter(|section| section.is_on()) {
        about(section, &mut findings);
    }
    if config.planhat.tenant.reveal().is_ok_and(|tenant| !is_uuid(tenant.trim())) {
        let remedy = "give the tenant's UUID, from Planhat's settings: 8-4-4-4-12 hexadecimal digits";
        findings.push(Finding::error("tenant_form", "sink", "planhat.tenant is not a UUID", remedy));
    }
    if config.planhat.url.starts_with("http://") && !is_local(&config.planhat.url) {
        let message = "planhat.url is plain http: the tenant's id and every row can be read on the way";
        findings.push(Finding::warning("sink_plaintext", "sink", message, "write https:// in planhat.url"));
    }
    findings
}

/// 8-4-4-4-12 hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn about(section: &Section, findings: &mut Vec<Finding>) {
    let subject = format!("section {}", section.name);
    let field = |name: &str| section.fields.iter().find(|(field, _)| field == name).map(|(_, field)| field);
    if section.start != Start::Now && field("date").is_none() && !section.date_receipt {
        findings.push(Finding::error(
            "date_unmapped",
            &subject,
            "it backfills and maps no date: PostgreSQL does not tell when an old row was committed, so Planhat would \
             date all of them at their receipt",
            "under fields, map `date: COLUMN`; or say `date: receipt` in the section if that is meant",
        ));
    }
    if section.is_streamed() && matches!(section.flush, Flush::DailyAt(..)) {
        findings.push(Finding::info(
            "flush_daily",
            &subject,
            "it sends once a day: until then the slot keeps the WAL of the whole server",
            "see that the disk bears a day of WAL, and that max_slot_wal_keep_size is more than that; or take `read: diff` with \
             `every: { daily_at: … }`, which keeps none",
        ));
    }
    match section.kind {
        Kind::UserActivity if field("action").is_none() => findings.push(Finding::warning(
            "action_unmapped",
            &subject,
            "it maps no action: Planhat shows no event without it",
            "under fields, map `action: COLUMN` or `action: { value: Name of the event }`",
        )),
        Kind::UserActivity
            if field("email").is_none() && field("companyExternalId").is_none() && field("companyId").is_none() =>
        {
            findings.push(Finding::info(
                "company_unmapped",
                &subject,
                "it maps neither email nor a company: Planhat drops activities of end users that it does not know yet",
                "map companyExternalId (or companyId), so that unknown end users can be created",
            ));
        }
        Kind::UserActivity | Kind::CustomMetric(_) => {}
    }
}

fn is_local(url: &str) -> bool {
    let host = url.trim_start_matches("http://");
    host.starts_with("localhost") || host.starts_with("127.") || host.starts_with("[::1]")
}

/// What the protection of a connection to a host that is not this machine lacks.
/// `ca`: the authorities to trust are given.
pub(crate) fn tls_advice(mode: TlsMode, ca: bool, host: &str) -> Option<Finding> {
    let remedy =
        "set `tls: verify-full` in source, and `ca:` to the authority's certificate where the system does not have it";
    match mode {
        TlsMode::VerifyFull => None,
        TlsMode::VerifyCa if !ca => Some(Finding::warning(
            "tls_name_unverified",
            "source",
            format!(
                "the host name {host} is not verified, and every public authority is trusted: anyone with a certificate for \
                 any name passes for it"
            ),
            remedy,
        )),
        TlsMode::VerifyCa => Some(Finding::info(
            "tls_name_unverified",
            "source",
            format!(
                "the host name {host} is not verified: any server with a certificate of that authority passes for it"
            ),
            remedy,
        )),
        TlsMode::Require => Some(Finding::warning(
            "tls_unverified",
            "source",
            format!("the connection to {host} is encrypted, but whose server it is is not verified"),
            remedy,
        )),
        TlsMode::Disable => Some(Finding::warning(
            "tls_off",
            "source",
            format!("the connection to {host} is not encrypted: rows can be read and changed on the way"),
            remedy,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Severity;

    fn codes(sections: &str) -> Vec<&'static str> {
        let text = format!(
            "source: {{host: h, database: d, user: u}}\nplanhat: {{tenant: 7f2c8e0a-1b1d-4c57-9a3e-0d7c5b1f2a33}}\nsections:\n{sections}"
        );
        let config = crate::config::parse(&text, "test").unwrap();
        advice(&config).into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn each_advice_is_given_where_it_fits_and_only_there() {
        let activity = |more: &str| format!("  - {{name: a, kind: user_activity, table: t, key: id, {more}}}\n");
        let metric = |id: &str| {
            format!(
                "  - {{name: m, kind: custom_metric, table: t, key: id, fields: {{dimensionId: {{value: {id}}}, value: v, externalId: e, date: d}}}}\n"
            )
        };
        for (section, expected) in [
            (activity("fields: {email: e, action: a, date: d}"), vec![]),
            (activity("fields: {email: e, action: a}"), vec!["date_unmapped"]),
            (activity("start: now, fields: {email: e, action: a}"), vec![]),
            (activity("date: receipt, fields: {email: e, action: a}"), vec![]),
            (activity("fields: {email: e, date: d}"), vec!["action_unmapped"]),
            (activity("fields: {externalId: e, action: a, date: d}"), vec!["company_unmapped"]),
            (activity("sync: off, fields: {email: e}"), vec!["no_section_on"]),
            (activity("flush: {daily_at: \"02:00\"}, fields: {email: e, action: a, date: d}"), vec!["flush_daily"]),
            (metric("seats_used"), vec![]),
        ] {
            assert_eq!(codes(&section), expected, "{section}");
        }
    }

    #[test]
    fn only_full_verification_is_silent() {
        assert_eq!(tls_advice(TlsMode::VerifyFull, false, "h"), None);
        assert!(tls_advice(TlsMode::Disable, true, "h").is_some_and(|finding| finding.code == "tls_off"));
        let severity = |ca| tls_advice(TlsMode::VerifyCa, ca, "h").map(|finding| finding.severity);
        assert_eq!((severity(true), severity(false)), (Some(Severity::Info), Some(Severity::Warning)));
    }
}
