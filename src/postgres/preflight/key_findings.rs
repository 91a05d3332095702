//! A section's key: unique, never NULL, and with an index that a range can be read by.
//!
//! * In: a section whose key is known, and its table.
//! * Out: findings; `run` refuses a section for the errors among them, so that the two never judge apart.
//! * Never: a judgement of the columns' being there, which is the mapping's.

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::config::{Section, Start};
use crate::model::{Fault, Finding, Severity};
use crate::postgres::backfill::selection;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::{key_columns, quote, unique_indexes};
use crate::postgres::connection::session::{Session, first_value};

/// Looks at it. `reads`: ranges of the table are read by it.
pub(crate) async fn examine(
    session: &Session,
    section: &Section,
    info: &TableInfo,
    reads: bool,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let there = section.key.iter().all(|name| info.column(name).is_some());
    if section.key.is_empty() || !there || !matches!(info.kind, 'r' | 'p') {
        return Ok(());
    }
    nullable(section, info, findings);
    findings.extend(kept(section, info));
    let is_unique = unique(session, section, info, reads, findings).await?;
    if reads {
        ordered(session, section, info, is_unique, findings).await?;
    }
    Ok(())
}

/// Why `run` refuses a section for its key: the first error that `check` finds.
pub(crate) async fn refusal(
    session: &Session,
    section: &Section,
    info: &TableInfo,
    reads: bool,
) -> Result<Option<Fault>, Error> {
    let mut findings = Vec::new();
    examine(session, section, info, reads, &mut findings).await?;
    Ok(first_error(section, findings))
}

/// Why `run` does not go on with a section that streams: its key does not tell rows apart any more, or they may have none.
pub(crate) async fn meaning_refusal(
    session: &Session,
    section: &Section,
    info: &TableInfo,
) -> Result<Option<Fault>, Error> {
    let mut findings = Vec::new();
    nullable(section, info, &mut findings);
    unique(session, section, info, section.start != Start::Now, &mut findings).await?;
    Ok(first_error(section, findings))
}

fn first_error(section: &Section, findings: Vec<Finding>) -> Option<Fault> {
    let error = findings.into_iter().find(|finding| finding.severity == Severity::Error);
    error.map(|error| Fault::usage(format!("section {}: {}", section.name, error.message), error.remedy))
}

fn nullable(section: &Section, info: &TableInfo, findings: &mut Vec<Finding>) {
    let table = quote::qualified(&info.name);
    for name in &section.key {
        if info.column(name).is_none_or(|column| column.not_null) {
            continue;
        }
        let key = quote::ident(name);
        findings.push(Finding::error(
            "key_nullable",
            subject(section),
            format!(
                "the key {key} of {table} may be NULL: such rows have no place in any range, and are never backfilled"
            ),
            format!("ALTER TABLE {table} ALTER COLUMN {key} SET NOT NULL;"),
        ));
    }
}

/// Bytes of key sets in the state from which on `check` speaks of them.
const MANY: f64 = (1 << 20) as f64;

/// How large the sets of keys grow by which rows are traced and audited, where that is worth a word.
fn kept(section: &Section, info: &TableInfo) -> Option<Finding> {
    let is_integer = |ty: &str| matches!(ty, "bigint" | "integer" | "smallint");
    let ty = |name: &String| info.column(name).map_or("", |column| column.base_type.as_str());
    let (bytes, how) = match section.key.as_slice() {
        [only] if is_integer(ty(only)) => (0.1, "at most 0.1 bytes a row where they are dense"),
        _ => (9.0, "9 bytes a row, for the key is no single integer"),
    };
    let rows = info.rows.max(0.0);
    (rows * bytes >= MANY).then(|| {
        let (table, megabytes) = (quote::qualified(&info.name), (rows * bytes / MANY).ceil());
        Finding::info(
            "key_sets",
            subject(section),
            format!(
                "the keys of about {rows} rows of {table} take about {megabytes} MiB in the state ({how}), with their batches"
            ),
            "they go with the ledger, after state.keep_deliveries; see docs/exactness.md",
        )
    })
}

/// Whether an index holds it unique.
async fn unique(
    session: &Session,
    section: &Section,
    info: &TableInfo,
    reads: bool,
    findings: &mut Vec<Finding>,
) -> Result<bool, Error> {
    let indexes = unique_indexes::of_tables(session, &[info.oid]).await?;
    let mut fitting = indexes.iter().filter(|index| index.tells_apart(&section.key)).peekable();
    let any = fitting.peek().is_some();
    if fitting.any(|index| index.valid) {
        return Ok(true);
    }
    let (table, key) = (quote::qualified(&info.name), listed(&section.key));
    let subject = subject(section);
    if !reads {
        let message = format!(
            "no index holds {key} of {table} unique: `trace`, `audit` and `quarantine retry` take rows with the same key for one"
        );
        findings.push(Finding::info("key_not_unique", subject, message, "choose a key that an index holds unique"));
        return Ok(false);
    }
    if any {
        let message = format!("the unique index on {key} of {table} is invalid: it was built CONCURRENTLY, and failed");
        findings.push(Finding::error(
            "key_not_unique",
            subject,
            message,
            format!("REINDEX TABLE CONCURRENTLY {table};"),
        ));
        return Ok(false);
    }
    // What people have: the best key that there is, which may hold this one and more.
    let better = indexes.iter().find(|index| index.valid && index.not_null);
    let instead = better.map(|index| format!("set `key: {}`", key_yaml(&section.key, &index.columns)));
    if info.kind == 'p' && section.key.len() == 1 {
        let message = format!(
            "no index holds {key} unique over all partitions of {table}: rows with the same key would be taken for one"
        );
        let sequence = "take the key from one sequence or identity column, and never set it by hand";
        let remedy = instead.map_or_else(|| sequence.to_owned(), |instead| format!("{instead}; or {sequence}"));
        findings.push(Finding::warning("key_not_unique", subject, message, remedy));
        return Ok(false);
    }
    let message = format!("no index holds {key} of {table} unique: rows with the same key would be taken for one");
    let make = match info.kind {
        // A partitioned table's index cannot be built concurrently, and must hold the columns that it is partitioned by.
        'p' => format!("CREATE UNIQUE INDEX ON {table} ({key});"),
        _ => format!("CREATE UNIQUE INDEX CONCURRENTLY ON {table} ({key});"),
    };
    let remedy = match instead {
        Some(instead) => format!("{instead}; or, where no two rows have the same: {make}"),
        None => format!("{make} or choose another key"),
    };
    findings.push(Finding::error("key_not_unique", subject, message, remedy));
    Ok(false)
}

/// `id`, or `[created_at, id]`: the columns configured, made unique by those of the index behind them.
fn key_yaml(configured: &[String], index: &[String]) -> String {
    let first: Vec<&String> = configured.iter().filter(|name| !index.contains(name)).collect();
    let all: Vec<&str> = first.into_iter().chain(index).map(String::as_str).collect();
    if let [only] = all[..] { only.to_owned() } else { format!("[{}]", all.join(", ")) }
}

/// Quoted, separated by commas.
fn listed(columns: &[String]) -> String {
    columns.iter().map(|name| quote::ident(name)).collect::<Vec<_>>().join(", ")
}

/// Asks the planner for the rows in the key's order, as a backfill's session asks.
async fn ordered(
    session: &Session,
    section: &Section,
    info: &TableInfo,
    is_unique: bool,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let columns = key_columns::KeyColumns::new(info, &section.key);
    let explain = format!(
        "EXPLAIN (FORMAT JSON) SELECT {} FROM {} ORDER BY {} LIMIT 1000",
        columns.list(),
        info.as_t(),
        columns.ordered("ASC")
    );
    let settings = selection::SESSION.replace("SET ", "SET LOCAL ");
    // Every section is judged before any of them begins: one that is locked must not hold the others.
    // One message, so one transaction, which the server ends by itself: other sections are asked for on the same session.
    let sql = format!("SET TRANSACTION READ ONLY; {settings}; SET LOCAL lock_timeout = '200ms'; {explain}");
    let messages = match session.simple_query(&sql).await {
        Ok(messages) => messages,
        Err(error) => {
            // A lock is no fault of the key; who holds it is said by whoever reads the table.
            if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
                return Ok(());
            }
            findings.push(Finding::of(session.fault(&error), "key_range", subject(section)));
            return Ok(());
        }
    };
    let plan = first_value(&messages).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    if sorts(&plan) {
        let (table, key) = (quote::qualified(&info.name), listed(&section.key));
        let how = if info.kind == 'p' { "" } else { " CONCURRENTLY" };
        let index = if is_unique { "INDEX" } else { "UNIQUE INDEX" };
        findings.push(Finding::warning(
            "key_index",
            subject(section),
            format!("no index gives the rows of {table} in the order of {key}: every chunk of a backfill would read the whole table"),
            format!("CREATE {index}{how} ON {table} ({key});"),
        ));
    }
    Ok(())
}

/// Whether a plan sorts all rows. An incremental sort, within rows that an index brings in order, and a merge of ordered
/// partitions do not.
pub(crate) fn sorts(plan: &serde_json::Value) -> bool {
    match plan {
        serde_json::Value::Object(members) => {
            members.get("Node Type").is_some_and(|kind| kind == "Sort") || members.values().any(sorts)
        }
        serde_json::Value::Array(items) => items.iter().any(sorts),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => false,
    }
}

/// How findings name a section.
pub(crate) fn subject(section: &Section) -> String {
    format!("section {}", section.name)
}
