//! What the catalog says of a table: its identity, its columns, and its primary key.

use tokio_postgres::Client;

use crate::config::{Section, TableName};
use crate::model::Column;
use crate::postgres::catalog::quote;
use crate::postgres::catalog::types::Types;
use crate::sql;
use crate::sql::SqlParams;

/// A column, as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub name: String,
    pub type_oid: u32,
    /// Its type, as SQL has it.
    pub type_name: String,
    /// The same without a length, as a cast wants it: a length would cut a value.
    pub base_type: String,
    /// Declared NOT NULL.
    pub not_null: bool,
    /// `GENERATED ALWAYS AS …`: absent from the stream, unless it is stored and PostgreSQL 18 publishes it.
    pub generated: bool,
    /// Its values are stored; a virtual one's (18) are made when it is read, and so never are in the WAL.
    pub stored: bool,
}

/// A table, as the catalog has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableInfo {
    /// Its OID: what the stream and the state know it by.
    pub oid: u32,
    pub name: TableName,
    /// `pg_class.relkind`: `r` a table, `p` a partitioned one; others carry no stream. `q` is a query.
    pub kind: char,
    /// `pg_class.relpersistence`: `u` and `t` write no WAL.
    pub persistence: char,
    /// Row-level security is on.
    pub row_security: bool,
    /// Rows, by the planner's estimate; -1 where it has never been analyzed.
    pub rows: f64,
    /// Its columns, dropped ones left out.
    pub columns: Vec<TableColumn>,
    /// The columns of its primary key; empty where it has none.
    pub primary_key: Vec<String>,
    /// What stands behind FROM, where that is not the table itself: a compared result.
    pub result: Option<String>,
}

impl TableInfo {
    pub(crate) fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The section with its key: the one written, or the table's primary key.
    pub(crate) fn with_key(&self, section: &Section) -> Section {
        let mut section = section.clone();
        if section.key.is_empty() {
            section.key.clone_from(&self.primary_key);
        }
        section
    }

    /// Why the stream does not bring this column, and what to do; `published`: the publication has
    /// `publish_generated_columns = stored`, where there is one yet.
    pub(crate) fn left_out(
        &self,
        name: &str,
        version: i32,
        publication: (&str, Option<bool>),
    ) -> Option<(String, String)> {
        let column = self.column(name).filter(|column| column.generated)?;
        let instead = "map the columns that it is made from; or fill an ordinary column by a trigger";
        let said = |what: &str, remedy: String| Some((format!("the column {name} is generated: {what}"), remedy));
        if version < 180_000 {
            return said("before PostgreSQL 18 the stream does not bring it", instead.to_owned());
        }
        if !column.stored {
            let remedy = format!("make it STORED; or {instead}");
            return said("it is virtual, so its values are nowhere in the WAL", remedy);
        }
        if publication.1 == Some(false) {
            let name = quote::ident(publication.0);
            let remedy = format!("ALTER PUBLICATION {name} SET (publish_generated_columns = stored);");
            return said("the publication does not publish generated columns", remedy);
        }
        None
    }

    /// The columns as rows bring them.
    pub(crate) fn row_columns(&self, types: &Types) -> Vec<Column> {
        self.columns.iter().map(|column| Column { name: column.name.clone(), ty: types.of(column.type_oid) }).collect()
    }

    /// The table in a FROM clause: rows of its own, or of all its partitions.
    pub(crate) fn as_from_clause(&self) -> String {
        if let Some(result) = &self.result {
            return result.clone();
        }
        let only = if self.kind == 'p' { "" } else { "ONLY " };
        format!("{only}{}", quote::qualified(&self.name))
    }

    /// The same, called `t`, so that every column can be named without doubt.
    pub(crate) fn as_t(&self) -> String {
        format!("{} AS t", self.as_from_clause())
    }
}

const TABLE: &str = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text,
    c.relrowsecurity, c.reltuples::float8
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

/// SQL for: the column (of `pg_attribute`, as `a`) is NULL in no row. A constraint that is NOT VALID (18) sets `attnotnull`, whatever the rows before it have.
pub(crate) const NOT_NULL: &str = "(a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint nn
    WHERE nn.conrelid = a.attrelid AND nn.contype = 'n' AND nn.conkey = ARRAY[a.attnum] AND NOT nn.convalidated))";

const COLUMNS: &str = "attgenerated <> '', attgenerated <> 'v', pg_catalog.format_type(atttypid, -1)
 FROM pg_catalog.pg_attribute a WHERE attnum > 0 AND NOT attisdropped AND attrelid =";

const PRIMARY_KEY: &str = "SELECT a.attname::text FROM pg_catalog.pg_index i
        CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indisprimary AND k.place <= i.indnkeyatts AND i.indrelid =";

/// Looks a table up by name.
pub(crate) async fn by_name(client: &Client, name: &TableName) -> Result<Option<TableInfo>, tokio_postgres::Error> {
    read(client, "n.nspname = $1 AND c.relname = $2", &[&name.schema, &name.name]).await
}

/// Looks a table up by OID: it is the same one under whatever name.
pub(crate) async fn by_oid(client: &Client, oid: u32) -> Result<Option<TableInfo>, tokio_postgres::Error> {
    read(client, "c.oid = $1", &[&oid]).await
}

/// The table that was probably meant by a name that is not there.
pub(crate) async fn nearest(client: &Client, name: &TableName) -> Result<Option<TableName>, tokio_postgres::Error> {
    let nearest = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'";
    let tables = sql::query(client, nearest, &[]).await?;
    let tables = tables.iter().map(|row| TableName { schema: row.get(0), name: row.get(1) });
    let fold = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let wanted = fold(&name.name);
    // The right name in another schema comes before a like name in this one.
    let score = |table: &TableName| {
        let likeness = strsim::jaro_winkler(&wanted, &fold(&table.name));
        if table.schema == name.schema { likeness } else { likeness - 0.05 }
    };
    let scored = tables.map(|table| (score(&table), table)).filter(|(score, _)| *score >= 0.8);
    Ok(scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, table)| table))
}

/// How many rows of a table and its partitions were updated, as far as the statistics know.
pub(crate) async fn updates(client: &Client, oid: u32) -> Result<i64, tokio_postgres::Error> {
    let sql = "SELECT coalesce(sum(pg_catalog.pg_stat_get_tuples_updated(part)), 0)::bigint
        FROM (SELECT $1::oid AS part UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree($1)) AS parts";
    Ok(sql::query_one(client, sql, &[&oid]).await?.get(0))
}

/// Asks for the table, its columns and its primary key at once.
async fn read(client: &Client, which: &str, params: SqlParams<'_>) -> Result<Option<TableInfo>, tokio_postgres::Error> {
    let asked = format!("{TABLE} WHERE {which}");
    let oid = "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
    let columns = format!(
        "SELECT attname::text, atttypid, pg_catalog.format_type(atttypid, atttypmod), {NOT_NULL}, {COLUMNS} ({oid} WHERE {which}) ORDER BY attnum"
    );
    let table = sql::query_opt(client, &asked, params);
    let key = format!("{PRIMARY_KEY} ({oid} WHERE {which}) ORDER BY k.place");
    let (row, columns, key) =
        tokio::try_join!(table, sql::query(client, &columns, params), sql::query(client, &key, params))?;
    let Some(row) = row else { return Ok(None) };
    let letter = |index: usize| row.get::<_, String>(index).chars().next().unwrap_or(' ');
    let oid: u32 = row.get(0);
    let column = |row: &tokio_postgres::Row| TableColumn {
        name: row.get(0),
        type_oid: row.get(1),
        type_name: row.get(2),
        not_null: row.get(3),
        generated: row.get(4),
        stored: row.get(5),
        base_type: row.get(6),
    };
    Ok(Some(TableInfo {
        oid,
        name: TableName { schema: row.get(1), name: row.get(2) },
        kind: letter(3),
        persistence: letter(4),
        row_security: row.get(5),
        rows: row.get(6),
        columns: columns.iter().map(column).collect(),
        primary_key: key.iter().map(|row| row.get(0)).collect(),
        result: None,
    }))
}

/// A partition whose rows are not in this server's WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub name: TableName,
    /// `pg_class.relkind`: `f` is foreign, others are unlogged.
    pub kind: char,
}

impl Leaf {
    /// A word for `check`, what that means, and what to do.
    pub(crate) fn without_wal(&self, root: &TableName) -> (&'static str, String, String) {
        let (name, root) = (quote::qualified(&self.name), quote::qualified(root));
        if self.kind == 'f' {
            let what = format!(
                "its partition {name} is a foreign table: its inserts are in another server's WAL, so they are never streamed"
            );
            return ("partition_foreign", what, format!("ALTER TABLE {root} DETACH PARTITION {name};"));
        }
        let what =
            format!("its partition {name} is UNLOGGED: its inserts are not in the WAL, so they are never streamed");
        ("partition_unlogged", what, format!("ALTER TABLE {name} SET LOGGED; (it is rewritten under a lock)"))
    }
}

/// The partitions of a table, however deep, whose rows are not in this server's WAL: unlogged ones and foreign ones.
pub(crate) async fn leaves_without_wal(client: &Client, root: u32) -> Result<Vec<Leaf>, tokio_postgres::Error> {
    let sql = "SELECT n.nspname::text, c.relname::text, c.relkind::text
        FROM pg_catalog.pg_partition_tree($1::oid::regclass) p
            JOIN pg_catalog.pg_class c ON c.oid = p.relid
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE p.isleaf AND (c.relkind = 'f' OR c.relpersistence = 'u') ORDER BY 1, 2";
    let leaf = |row: &tokio_postgres::Row| Leaf {
        name: TableName { schema: row.get(0), name: row.get(1) },
        kind: row.get::<_, String>(2).chars().next().unwrap_or(' '),
    };
    Ok(sql::query(client, sql, &[&root]).await?.iter().map(leaf).collect())
}
