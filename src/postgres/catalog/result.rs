//! A result that is compared: what it is read from, and which columns it has.
//!
//! * In: a section with `read: diff`.
//! * Out: its [`TableInfo`], as of a table: whatever reads tables reads this too.
//! * Never: a query run to learn its columns.

use tokio_postgres::{Client, Error};

use crate::config::{Section, TableName};
use crate::model::Fault;
use crate::postgres::catalog::quote;
use crate::postgres::catalog::table;
use crate::postgres::catalog::table::{TableColumn, TableInfo};
use crate::postgres::connection::session::Session;
use crate::sql;

/// Puts the source's schema before the session's search path: a query names its tables as the file does.
pub(crate) const SEARCH_PATH: &str = "SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident($1) || ', ' ||
    pg_catalog.current_setting('search_path'), false)";

/// Types as a cast names them, without a length.
const TYPES: &str = "SELECT coalesce(array_agg(pg_catalog.format_type(ty, -1) ORDER BY place), '{}')
    FROM unnest($1::oid[]) WITH ORDINALITY AS types (ty, place)";

/// Looks at a section's result; `None` where its table is not there.
pub(crate) async fn describe(client: &Client, section: &Section, schema: &str) -> Result<Option<TableInfo>, Error> {
    let Some(query) = section.diff().and_then(|diff| diff.query.as_deref()) else {
        let found = table::by_name(client, &section.table).await?;
        // Children of a table belong to it, as in any SELECT.
        let from = |table: &TableInfo| quote::qualified(&table.name);
        return Ok(found.map(|table| TableInfo { result: Some(from(&table)), ..table }));
    };
    sql::query_one(client, SEARCH_PATH, &[&schema]).await?;
    // On lines of its own: the query may end with a comment.
    let from = format!("(\n{query}\n)");
    let statement = client.prepare(&format!("SELECT * FROM {from} AS t")).await?;
    let types: Vec<u32> = statement.columns().iter().map(|column| column.type_().oid()).collect();
    let named = sql::query_one(client, TYPES, &[&types]).await?.get::<_, Vec<String>>(0);
    let column = |(column, ty): (&tokio_postgres::Column, &String)| TableColumn {
        name: column.name().to_owned(),
        type_oid: column.type_().oid(),
        type_name: column.type_().name().to_owned(),
        base_type: ty.clone(),
        not_null: false,
        generated: false,
        stored: true,
    };
    Ok(Some(TableInfo {
        oid: 0,
        name: TableName { schema: String::new(), name: String::new() },
        kind: 'q',
        persistence: 'p',
        row_security: false,
        rows: -1.0,
        columns: statement.columns().iter().zip(&named).map(column).collect(),
        primary_key: Vec::new(),
        result: Some(from),
    }))
}

/// As [`describe`], where it must be there.
pub(crate) async fn described(session: &Session, section: &Section, schema: &str) -> Result<TableInfo, Fault> {
    match describe(session, section, schema).await {
        Ok(Some(table)) => Ok(table),
        Ok(None) => Err(Fault::usage(
            format!("section {}: there is no table or view {}", section.name, quote::qualified(&section.table)),
            "mend the section's `table` (`pg2planhat discover` lists them)",
        )),
        Err(error) => {
            let fault = session.fault(&error);
            Err(Fault { what: format!("section {}: {}", section.name, fault.what), ..fault })
        }
    }
}

/// Whether the catalog proves that these columns are unique in the table: then no result has to be searched for twins.
pub(crate) async fn is_unique(client: &Client, table: &TableInfo, key: &[String]) -> Result<bool, Error> {
    if !matches!(table.kind, 'r' | 'p' | 'm') {
        return Ok(false);
    }
    let asked = "SELECT NOT (c.relkind = 'r' AND c.relhassubclass) AND EXISTS (
            SELECT FROM pg_catalog.pg_index i
            WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
                AND NOT EXISTS (
                    SELECT FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) AS n (at)
                    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid
                        AND a.attnum = i.indkey[n.at] AND a.attname = ANY ($2::text[]))))
        FROM pg_catalog.pg_class c WHERE c.oid = $1";
    Ok(sql::query_opt(client, asked, &[&table.oid, &key]).await?.is_some_and(|row| row.get(0)))
}
