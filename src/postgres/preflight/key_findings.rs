//! A section's key: unique, never NULL, short enough, and with an index that a range can be read by.

use tokio_postgres::{Error, SimpleQueryMessage};

use crate::config::{Section, Start};
use crate::model::{Finding, KEY_MAX_CHARS, KeyType};
use crate::postgres::catalog::quote;
use crate::postgres::catalog::table::{TableInfo, key_type};
use crate::postgres::catalog::types::Types;
use crate::postgres::connection::session::Session;

/// Looks at it. Whether the column is there and of a good type is the mapping's to say.
pub(crate) async fn examine(
    session: &Session,
    section: &Section,
    info: &TableInfo,
    types: &Types,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let Some(column) = info.column(&section.key) else { return Ok(()) };
    let Some(ty) = key_type(types.of(column.type_oid)) else { return Ok(()) };
    if !matches!(info.kind, 'r' | 'p') {
        return Ok(());
    }
    let (table, key) = (quote::qualified(&info.name), quote::ident(&section.key));
    unique(session, section, info, findings).await?;
    if !column.not_null {
        findings.push(Finding::error(
            "key_nullable",
            subject(section),
            format!(
                "the key {key} of {table} may be NULL: such rows have no place in any range, and are never backfilled"
            ),
            format!("ALTER TABLE {table} ALTER COLUMN {key} SET NOT NULL;"),
        ));
    }
    if section.start != Start::Now {
        range(session, section, info, findings).await?;
    }
    if ty == KeyType::Numeric {
        length(session, section, info, findings).await?;
    }
    Ok(())
}

async fn unique(
    session: &Session,
    section: &Section,
    info: &TableInfo,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let sql = "SELECT count(*) FILTER (WHERE indisvalid), count(*) FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = $1 AND i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
          AND i.indnkeyatts = 1 AND a.attname = $2";
    let row = session.query_one(sql, &[&info.oid, &section.key]).await?;
    let (valid, all): (i64, i64) = (row.get(0), row.get(1));
    if valid > 0 {
        return Ok(());
    }
    let (table, key) = (quote::qualified(&info.name), quote::ident(&section.key));
    if info.kind == 'p' {
        let message = format!(
            "no index holds {key} unique over all partitions of {table}: rows with the same key would be taken for one"
        );
        let remedy = "take the key from one sequence or identity column, and never set it by hand";
        findings.push(Finding::warning("key_not_unique", subject(section), message, remedy));
        return Ok(());
    }
    let message = match all {
        0 => format!("no index holds {key} of {table} unique: rows with the same key would be taken for one"),
        _ => format!("the unique index on {key} of {table} is invalid: it was built CONCURRENTLY, and failed"),
    };
    let remedy = match all {
        0 => format!("CREATE UNIQUE INDEX CONCURRENTLY ON {table} ({key}); or choose another key"),
        _ => format!("REINDEX TABLE CONCURRENTLY {table};"),
    };
    findings.push(Finding::error("key_not_unique", subject(section), message, remedy));
    Ok(())
}

/// Asks the planner for the backfill's own query, with all that it could do instead made dear.
async fn range(
    session: &Session,
    section: &Section,
    info: &TableInfo,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let (table, key) = (quote::qualified(&info.name), quote::ident(&section.key));
    let sql = format!(
        "BEGIN READ ONLY; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off; \
         EXPLAIN (FORMAT TEXT) SELECT {key} FROM {} WHERE {key} > (SELECT min({key}) FROM {0}) ORDER BY {key} LIMIT 1000; ROLLBACK",
        info.as_from_clause()
    );
    let messages = match session.simple_query(&sql).await {
        Ok(messages) => messages,
        Err(error) => {
            session.batch_execute("ROLLBACK").await?;
            findings.push(Finding::of(session.fault(&error), "key_range", subject(section)));
            return Ok(());
        }
    };
    let sorts = messages.iter().any(|message| {
        matches!(message, SimpleQueryMessage::Row(row) if row.get(0).is_some_and(|line| line.contains("Sort Key:")))
    });
    if sorts {
        findings.push(Finding::warning(
            "key_index",
            subject(section),
            format!("no index gives the rows of {table} in the order of {key}: every chunk of a backfill would read the whole table"),
            format!("CREATE UNIQUE INDEX CONCURRENTLY ON {table} ({key});"),
        ));
    }
    Ok(())
}

/// Looks at both ends of the key only: the whole table would take too long.
async fn length(
    session: &Session,
    section: &Section,
    info: &TableInfo,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let (key, from) = (quote::ident(&section.key), info.as_from_clause());
    let end = |order: &str| {
        format!("(SELECT {key}::text FROM {from} WHERE {key} IS NOT NULL ORDER BY {key} {order} LIMIT 1)")
    };
    let sql = format!(
        "BEGIN READ ONLY; SET LOCAL row_security = off; SET LOCAL statement_timeout = '5s'; SELECT {}, {}; ROLLBACK",
        end("ASC"),
        end("DESC")
    );
    let messages = match session.simple_query(&sql).await {
        Ok(messages) => messages,
        // Without an index this takes long; that there is none is said elsewhere.
        Err(_) => return session.batch_execute("ROLLBACK").await,
    };
    for message in messages {
        let SimpleQueryMessage::Row(row) = message else { continue };
        for value in (0..row.len()).filter_map(|index| row.get(index)) {
            if value.len() > KEY_MAX_CHARS || value == "NaN" || value.ends_with("Infinity") {
                findings.push(Finding::error(
                    "key_value",
                    subject(section),
                    format!("the key {value} cannot be used: a numeric key is finite and has at most {KEY_MAX_CHARS} characters"),
                    "choose another key; a bigint identity column is best",
                ));
            }
        }
    }
    Ok(())
}

/// How findings name a section.
pub(crate) fn subject(section: &Section) -> String {
    format!("section {}", section.name)
}
