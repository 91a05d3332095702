//! Everything that can be known before running: what the configuration, the servers and real rows say.
//!
//! * In: a configuration.
//! * Out: findings, the worst first, each with its remedy.
//! * Never: a change.

use std::sync::Arc;

use crate::config::{Config, Section};
use crate::mapping::Mapping;
use crate::model::{Fault, Finding, Severity};
use crate::operations::consistency::{slot_without_state, standing as consistency_of};
use crate::operations::preview::{Becomes, Previewed, preview};
use crate::postgres::catalog::quote;
use crate::postgres::connection::session::{connect_sql, connect_url};
use crate::postgres::preflight;
use crate::postgres::preflight::examination::Examination;
use crate::sql;
use crate::state::{Schema, Store};
use crate::terminal::plural;
use crate::{config, planhat};

pub(crate) async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = config::advice(config);
    let mut examination = preflight::examine(config).await;
    findings.append(&mut examination.findings);
    mappings(config, &examination, &mut findings);
    if examination.role.is_some() || config.state.url.is_some() {
        findings.push(state(config).await);
    }
    if examination.role.is_some() {
        samples(config, &mut findings).await;
        standing(config, &mut findings).await;
    }
    findings.push(planhat::probe(&config.planhat).await);
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Whether the fields of every section fit the columns of its table.
fn mappings(config: &Config, examination: &Examination, findings: &mut Vec<Finding>) {
    for section in config.sections.iter().filter(|section| section.is_on()) {
        let columns = match section.is_streamed() {
            true => examination.columns.get(&section.table),
            false => examination.results.get(&section.name),
        };
        let Some(columns) = columns else { continue };
        let mut section = section.clone();
        if section.key.is_empty() {
            section.key = examination.primary_keys.get(&section.table).cloned().unwrap_or_default();
        }
        if let Err(faults) = Mapping::compile(&section, config.planhat.bulk_activity_names, columns) {
            let subject = format!("section {}", section.name);
            // Drop the `ok` finding: the table can be read, but not mapped.
            findings.retain(|finding| finding.severity != Severity::Ok || finding.subject != subject);
            findings.extend(faults.iter().map(|fault| {
                let text = fault.to_string();
                let message = text.strip_prefix(&format!("{subject}, ")).unwrap_or(&text);
                Finding::error(fault.code(), &subject, message, fault.remedy())
            }));
        }
    }
}

/// Rows that a section is tried with.
const SAMPLE: u32 = 100;

/// Maps the newest rows of each section that has no errors so far.
async fn samples(config: &Config, findings: &mut Vec<Finding>) {
    for section in config.sections.iter().filter(|section| section.is_on()) {
        let subject = format!("section {}", section.name);
        let table = format!("table {}.{}", section.table.schema, section.table.name);
        let faulty = |finding: &Finding| {
            finding.severity == Severity::Error && (finding.subject == subject || finding.subject == table)
        };
        if findings.iter().any(faulty) {
            continue;
        }
        match preview(config, section, true, SAMPLE).await {
            Ok(shown) => findings.extend(sampled(section, &shown)),
            Err(fault) => findings.push(Finding::of(fault, "sample", subject)),
        }
    }
}

fn sampled(section: &Section, shown: &[Previewed]) -> Vec<Finding> {
    let (mut findings, subject) = (Vec::new(), format!("section {}", section.name));
    let refused: Vec<&str> = shown.iter().filter_map(Previewed::refused).collect();
    if let Some(why) = refused.first() {
        let message = format!(
            "of the newest {} {} would go into quarantine: {why}",
            plural(shown.len() as u64, "row", "rows"),
            refused.len()
        );
        let remedy =
            format!("`pg2planhat preview {} -n {SAMPLE}` shows them; fix the rows, or the mapping", section.name);
        findings.push(Finding::warning("rows_refused", &subject, message, remedy));
    }
    let dimension = |row: &Previewed| -> Option<String> {
        let item: serde_json::Value = serde_json::from_slice(row.item()?).ok()?;
        item.get("dimensionId").and_then(serde_json::Value::as_str).map(str::to_owned)
    };
    if let Some(odd) = shown.iter().filter_map(dimension).find(|id| !config::is_dimension(id)) {
        let message = format!("dimensionId {odd:?} has spaces or special characters, which Planhat refuses");
        let remedy = "map a column of letters, digits, _, - and . only; a generated name such as seats_used";
        findings.push(Finding::error("dimension_id", &subject, message, remedy));
    }
    findings.extend(left_out(section, shown));
    if let Some((name, digits)) = shown.iter().find_map(|row| imprecise(row.item()?)) {
        let message = format!(
            "info.{name} is {digits}: readers of JSON hold numbers as doubles, which have 53 bits, and its last digits change"
        );
        let remedy = format!("under info, write `{name}: {{ column: COLUMN, as: text }}`");
        findings.push(Finding::warning("integer_precision", &subject, message, remedy));
    }
    findings
}

/// What the section's rules do to the newest rows: all left out is probably not meant.
fn left_out(section: &Section, shown: &[Previewed]) -> Option<Finding> {
    let rows = shown.iter().filter(|row| matches!(row.becomes, Becomes::LeftOut(_))).count();
    let subject = format!("section {}", section.name);
    let newest = plural(shown.len() as u64, "row", "rows");
    if rows == 0 {
        return None;
    }
    let remedy = format!("`pg2planhat preview {} -n {SAMPLE}` shows which", section.name);
    if rows < shown.len() {
        let message = format!("of the newest {newest} {rows} are left out by `where` or `on_null`");
        return Some(Finding::info("rows_left_out", subject, message, remedy));
    }
    let message = format!("the newest {newest} are all left out by `where` or `on_null`");
    Some(Finding::warning(
        "rows_left_out",
        subject,
        message,
        format!("{remedy}; compare `where` with what the table has"),
    ))
}

/// The first member of `info` that is an integer beyond what a double can hold, and its digits.
fn imprecise(item: &[u8]) -> Option<(String, String)> {
    #[derive(serde::Deserialize)]
    struct Informed<'a> {
        #[serde(borrow)]
        info: std::collections::BTreeMap<String, &'a serde_json::value::RawValue>,
    }
    let informed: Informed<'_> = serde_json::from_slice(item).ok()?;
    let beyond = |text: &str| text.parse::<i128>().is_ok_and(|number| number.unsigned_abs() > 1 << 53);
    let (name, value) = informed.info.into_iter().find(|(_, value)| beyond(value.get()))?;
    Some((name, value.get().to_owned()))
}

/// Whether what the state recorded still stands. What it says of slot and publication is truer than that they are not
/// there yet.
async fn standing(config: &Config, findings: &mut Vec<Finding>) {
    let standing = match consistency_of(&Arc::new(config.clone())).await {
        Ok(standing) => standing,
        // The state's own finding says it.
        Err(_) => return,
    };
    if standing.hindrance().is_some() {
        let codes = ["slot_missing", "slot_lost", "publication_missing", "publication_tables", "publication_rights"];
        findings.retain(|finding| !codes.contains(&finding.code));
    }
    findings.extend(standing.findings());
    if let Ok(Some(fault)) = slot_without_state(&Arc::new(config.clone())).await {
        findings.push(Finding::of(fault, "slot_without_state", "instance"));
    }
}

/// Whether the state schema is there, or can be made.
async fn state(config: &Config) -> Finding {
    let subject = format!("state schema {}", config.state.schema);
    let looked = async {
        let session = match &config.state.url {
            Some(url) => connect_url(url, "check").await?,
            None => connect_sql(&config.source, "check").await?,
        };
        let asked = "SELECT has_database_privilege(current_database(), 'CREATE'), current_database()::text,
            (SELECT pg_has_role(nspowner, 'USAGE') OR has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace
             WHERE nspname = $1), current_setting('transaction_read_only')::boolean AND NOT pg_is_in_recovery(),
            current_user::text";
        let row =
            sql::query_one(&session, asked, &[&config.state.schema]).await.map_err(|error| session.fault(&error))?;
        let (create, database, schema): (bool, String, Option<bool>) = (row.get(0), row.get(1), row.get(2));
        if row.get(3) {
            let (database, user) = (quote::ident(&database), quote::ident(row.get(4)));
            let remedy = format!(
                "ALTER DATABASE {database} RESET default_transaction_read_only; ALTER ROLE {user} RESET \
                 default_transaction_read_only; and see default_transaction_read_only in postgresql.conf"
            );
            return Err(Fault::needs_person("it cannot be written: transactions of this role only read", remedy));
        }
        let store = Store::new(session.into_client(), Schema::new(&config.state.schema)?).await;
        let there = store.map_err(|error| error.fault())?.is_there().await.map_err(|error| error.fault())?;
        Ok::<_, Fault>((there, schema.unwrap_or(create), database))
    };
    let by_hand = "let a DBA run the script of `pg2planhat setup --print-sql`";
    match looked.await {
        Ok((true, ..)) => Finding::ok("state", subject, "it is there, in this program's version"),
        Ok((false, ..)) if !config.source.manage => {
            Finding::error("state_missing", subject, "it is not there, and `source.manage` is false", by_hand)
        }
        Ok((false, true, _)) => Finding::info(
            "state_missing",
            subject,
            "it is not there, or of an earlier version",
            "`pg2planhat setup` makes it, and so does `run`",
        ),
        Ok((false, false, database)) => {
            let message = format!("it is not there, and the role may not make it in database {database}");
            Finding::error("state_rights", subject, message, by_hand)
        }
        Err(fault) => Finding::of(fault, "state", subject),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FilterRule;

    #[test]
    fn a_sample_tells_of_refusals_and_of_names_that_planhat_refuses() {
        let text = "source: {host: h, database: d, user: u}\nplanhat: {tenant: t}\nsections:\n  - {name: m, kind: \
            custom_metric, table: t, key: id, fields: {dimensionId: n, value: v, externalId: e, date: d}}\n";
        let config = config::parse(text, "test").unwrap();
        let row = |item: Result<&str, &str>| Previewed {
            key: "1".into(),
            becomes: item.map_or_else(|why| Becomes::Refused(why.into()), |item| Becomes::Item(item.into())),
        };
        let codes = |rows: &[Previewed]| {
            sampled(&config.sections[0], rows).into_iter().map(|finding| finding.code).collect::<Vec<_>>()
        };
        assert_eq!(codes(&[]), [""; 0]);
        assert_eq!(codes(&[row(Ok(r#"{"dimensionId":"seats_used"}"#))]), [""; 0]);
        assert_eq!(
            codes(&[row(Ok(r#"{"dimensionId":"seats used"}"#)), row(Err("value is NULL"))]),
            ["rows_refused", "dimension_id"]
        );
        let left_out = || Previewed { key: "2".into(), becomes: Becomes::LeftOut(FilterRule::Where) };
        let severity = |rows: &[Previewed]| {
            let findings = sampled(&config.sections[0], rows);
            findings.iter().find(|finding| finding.code == "rows_left_out").map(|finding| finding.severity)
        };
        assert_eq!(severity(&[left_out(), left_out()]), Some(Severity::Warning));
        assert_eq!(severity(&[left_out(), row(Ok("{}"))]), Some(Severity::Info));
        for (digits, expected) in [
            ("9007199254740992", &[][..]),
            ("9007199254740993", &["integer_precision"]),
            ("-9007199254740993", &["integer_precision"]),
            ("9007199254740993.5", &[]),
            ("\"9007199254740993\"", &[]),
        ] {
            assert_eq!(codes(&[row(Ok(&format!(r#"{{"info":{{"a":1,"order":{digits}}}}}"#)))]), expected, "{digits}");
        }
    }
}
