//! The results of the sections with `read: diff`: there, readable, with the columns that are mapped, of keys that can be compared.

use std::time::Duration;

use crate::config::{Config, Section};
use crate::model::{Column, Fault, Finding, Severity};
use crate::postgres::backfill::result_reader::ResultSelection;
use crate::postgres::backfill::{result_reader, steadiness};
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::{quote, result};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::postgres::preflight::examination::Examination;
use crate::postgres::preflight::key_findings::subject;
use crate::postgres::setup;

/// A result of more rows than this had better be narrowed, or have its keys' uniqueness proved by an index.
const LARGE: u64 = 5_000_000;

/// Looks at the result of each such section that is on. Each has a session of its own, as when it is compared.
pub(crate) async fn examine(config: &Config, found: &mut Examination) {
    let wanted = |section: &&Section| section.is_on() && !section.is_streamed();
    for section in config.sections.iter().filter(wanted) {
        let findings = match connect_sql(&config.source, "check").await {
            Ok(session) => look(config, &session, section, found).await,
            Err(fault) => vec![Finding::of(fault, "connect", subject(section))],
        };
        found.findings.extend(findings);
    }
}

async fn look(config: &Config, session: &Session, section: &Section, found: &mut Examination) -> Vec<Finding> {
    let fault = |error: tokio_postgres::Error| {
        let fault = result_reader::fault(session, section, &error, Duration::ZERO);
        vec![Finding::of(fault, "result_failed", subject(section))]
    };
    if let Err(error) = result_reader::settle(session).await {
        return fault(error);
    }
    let table = match result::describe(session, section, &config.source.schema).await {
        Ok(Some(table)) => table,
        Ok(None) => return vec![Finding::of(setup::no_table(&section.table), "table_missing", subject(section))],
        Err(error) => return fault(error),
    };
    match Types::load(session).await {
        Ok(types) => found.results.insert(section.name.clone(), table.row_columns(&types)),
        Err(error) => return fault(error),
    };
    let mut findings = keys(section, &table);
    let columns = section.columns();
    if !findings.is_empty() || columns.iter().any(|column| table.column(column).is_none()) {
        return findings;
    }
    let selection = ResultSelection::new(section, &table, &columns, session, None, &[]);
    let read = async {
        let estimated = selection.estimate(session).await?;
        selection.try_out(session).await?;
        Ok::<_, tokio_postgres::Error>((estimated, result::is_unique(session, &table, &section.key_columns()).await?))
    };
    match read.await {
        Err(error) => return fault(error),
        Ok((estimated, false)) if estimated > LARGE && section.diff().is_some_and(|diff| diff.within.is_none()) => {
            findings.push(Finding::info(
                "result_large",
                subject(section),
                format!("its result has about {estimated} rows, and nothing proves that each key is there once: a comparison that finds \
                    much reads it twice"),
                "narrow it by `within`, or read a materialized view with a unique index on the key",
            ));
        }
        Ok(_) => {
            let what = if table.oid == 0 { "its query".to_owned() } else { quote::qualified(&table.name) };
            findings.push(Finding::ok("result", subject(section), format!("{what} can be read and compared")));
        }
    }
    findings.extend(unsteady(config, session, section, &table, found).await);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        findings.retain(|finding| finding.severity != Severity::Ok);
    }
    findings
}

/// That the result is not the same when it is read twice.
async fn unsteady(
    config: &Config,
    session: &Session,
    section: &Section,
    table: &TableInfo,
    found: &Examination,
) -> Option<Finding> {
    let wanted = section.columns();
    let all = found.results.get(&section.name)?;
    let columns: Vec<Column> =
        wanted.iter().filter_map(|name| all.iter().find(|column| column.name == *name).cloned()).collect();
    let unsteady = steadiness::unsteady(&config.source, section, session, table, &columns).await;
    let (Fault { what, remedy, .. }, is_error) = steadiness::judged(section, &unsteady)?;
    let what = what.strip_prefix(&format!("{}: ", subject(section))).unwrap_or(&what).to_owned();
    let code = "result_unsteady";
    Some(match is_error {
        true => Finding::error(code, subject(section), what, remedy),
        false => Finding::warning(code, subject(section), what, remedy),
    })
}

/// What is wrong with the key's columns.
fn keys(section: &Section, table: &TableInfo) -> Vec<Finding> {
    let missing = section.key_columns().into_iter().filter(|name| table.column(name).is_none());
    let finding = |name: String| {
        let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let message = format!("the result has no column {name}, which is to be its key");
        Finding::error("key_missing", subject(section), message, format!("its columns are {}", columns.join(", ")))
    };
    missing.map(finding).collect()
}
