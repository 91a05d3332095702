//! The tables of the sections: of a kind that can be streamed, readable, with the columns that are mapped.

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use crate::config::{Condition, Config, Section, Start};
use crate::model::{Fault, Finding, Severity};
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::{locks, partition_roots, publication, quote, table};
use crate::postgres::connection::session::Session;
use crate::postgres::preflight::examination::Examination;
use crate::postgres::preflight::key_findings;
use crate::postgres::preflight::key_findings::subject;
use crate::postgres::preflight::server_findings::Facts;
use crate::postgres::preflight::versions_findings;
use crate::postgres::setup;
use crate::sql;

/// Looks at the table of every section that is on; gives those that are there, each once.
pub(crate) async fn examine(
    session: &Session,
    config: &Config,
    facts: &Facts,
    found: &mut Examination,
) -> Result<Vec<TableInfo>, Error> {
    let types = Types::load(session).await?;
    let mut tables: Vec<TableInfo> = Vec::new();
    let published = publication::publication(session, &config.source.publication).await?;
    let published = published.map(|publication| publication.generated);
    for section in config.sections.iter().filter(|section| section.is_on() && section.is_streamed()) {
        let known = tables.iter().find(|table| table.name == section.table);
        let info = match known {
            Some(info) => info.clone(),
            None => match table::by_name(session, &section.table).await? {
                Some(info) => {
                    kind(session, &info, &mut found.findings).await?;
                    leaves(session, &info, &mut found.findings).await?;
                    found.columns.insert(info.name.clone(), info.row_columns(&types));
                    tables.push(info.clone());
                    info
                }
                None => {
                    found.findings.push(missing(session, section).await?);
                    continue;
                }
            },
        };
        let section = &info.with_key(section);
        found.primary_keys.insert(info.name.clone(), info.primary_key.clone());
        let before = found.findings.len();
        let publication = (&*config.source.publication, published);
        for name in section.columns() {
            if let Some((message, remedy)) = info.left_out(&name, facts.server.version, publication) {
                found.findings.push(Finding::error("column_generated", subject(section), message, remedy));
            }
        }
        found.findings.extend(nulls_left_out(section, &info));
        if let Some((message, remedy)) = partition_roots::root_is_mapped(session, config, section, info.oid).await? {
            found.findings.push(Finding::error("partition_beside_root", subject(section), message, remedy));
        }
        versions_findings::identity(session, config, (section, &info), &mut found.findings).await?;
        if readable(session, section, &info, &mut found.findings).await? {
            key_findings::examine(session, section, &info, section.start != Start::Now, &mut found.findings).await?;
        }
        if found.findings.len() == before {
            let message = format!("{} can be read and streamed", quote::qualified(&info.name));
            found.findings.push(Finding::ok("table", subject(section), message));
        }
        versions_findings::examine(session, section, &info, &mut found.findings).await?;
    }
    Ok(tables)
}

async fn missing(session: &Session, section: &Section) -> Result<Finding, Error> {
    let name = &section.table;
    let near = table::nearest(session, name).await?;
    let remedy = match near {
        Some(near) => format!("did you mean `table: {}.{}`?", near.schema, near.name),
        None => "`pg2planhat discover` lists the tables; upper and lower case differ".to_owned(),
    };
    let message = format!("there is no table {}", quote::qualified(name));
    Ok(Finding::error("table_missing", subject(section), message, remedy))
}

async fn kind(session: &Session, info: &TableInfo, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let qualified = quote::qualified(&info.name);
    let subject = format!("table {}.{}", info.name.schema, info.name.name);
    let mut refuse =
        |code, message: String, remedy: String| findings.push(Finding::error(code, &subject, message, remedy));
    match info.kind {
        'r' | 'p' => {}
        'v' | 'm' => refuse(
            "table_view",
            "it is a view: nothing is inserted into it, so nothing is streamed".into(),
            format!(
                "map the table that it reads: SELECT pg_get_viewdef('{}'::regclass);",
                qualified.replace('\'', "''")
            ),
        ),
        'f' => refuse(
            "table_foreign",
            "it is a foreign table: its inserts are in another server's WAL".into(),
            "point an instance at that server".into(),
        ),
        other => refuse("table_kind", format!("it is no table (relkind {other})"), "map a table".into()),
    }
    match info.persistence {
        'u' => refuse(
            "table_unlogged",
            "it is UNLOGGED: its inserts are not in the WAL, so they are never streamed".into(),
            format!("ALTER TABLE {qualified} SET LOGGED; (it is rewritten under a lock)"),
        ),
        't' => {
            refuse("table_temporary", "it is temporary: it is not in the WAL".into(), "map a permanent table".into())
        }
        _ => {}
    }
    if info.kind == 'r' {
        let sql = "SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhparent = $1";
        let children: i64 = sql::query_one(session, sql, &[&info.oid]).await?.get(0);
        if children > 0 {
            let message = format!(
                "{children} tables inherit from it: rows inserted into those are not its own, and are left out"
            );
            findings.push(Finding::warning(
                "table_inherited",
                &subject,
                message,
                "map each child in a section of its own",
            ));
        }
        if info.primary_key.is_empty() {
            let message = "it has no primary key: harmless here, for only inserts are published";
            findings.push(Finding::info("table_no_primary_key", &subject, message, "never publish its updates"));
        }
    }
    replaced(session, info, &subject, findings).await?;
    if info.kind == 'p' {
        let message = "it is partitioned: an UPDATE that moves a row to another partition arrives as an insert, and rows of a \
                       partition that is attached later never arrive";
        findings.push(Finding::info("table_partitioned", &subject, message, "INSERT into the table itself"));
    }
    Ok(())
}

/// Why `run` refuses a section for its table: the first error that `check` finds in its kind and in its partitions.
pub(crate) async fn refusal(
    session: &Session,
    config: &Config,
    (section, info): (&Section, &TableInfo),
) -> Result<Option<Fault>, Error> {
    let mut findings = Vec::new();
    kind(session, info, &mut findings).await?;
    leaves(session, info, &mut findings).await?;
    versions_findings::identity(session, config, (section, info), &mut findings).await?;
    let error = findings.into_iter().find(|finding| finding.severity == Severity::Error);
    let table = quote::qualified(&info.name);
    let fault =
        |error: Finding| Fault::usage(format!("section {}: {table}: {}", section.name, error.message), error.remedy);
    Ok(error.map(fault))
}

/// Partitions whose rows are not in this server's WAL: what holds of the root need not hold of them.
async fn leaves(session: &Session, info: &TableInfo, findings: &mut Vec<Finding>) -> Result<(), Error> {
    if info.kind != 'p' {
        return Ok(());
    }
    let subject = format!("table {}.{}", info.name.schema, info.name.name);
    for leaf in table::leaves_without_wal(session, info.oid).await? {
        let (code, message, remedy) = leaf.without_wal(&info.name);
        findings.push(Finding::error(code, &subject, message, remedy));
    }
    Ok(())
}

/// Whether the table is emptied and filled anew: then every row comes again by the stream each time.
async fn replaced(
    session: &Session,
    info: &TableInfo,
    subject: &str,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    // TRUNCATE gives the table another file, and counts as no deletion. A rewrite does the same, once.
    let sql = "SELECT s.n_tup_ins, s.n_live_tup FROM pg_catalog.pg_stat_all_tables s
        JOIN pg_catalog.pg_class c ON c.oid = s.relid
        WHERE s.relid = $1 AND c.relfilenode <> c.oid AND s.n_live_tup >= 10
          AND s.n_tup_ins - s.n_tup_del - s.n_live_tup - s.n_dead_tup >= 2 * s.n_live_tup";
    let Some(row) = sql::query_opt(session, sql, &[&info.oid]).await? else { return Ok(()) };
    let (inserted, live): (i64, i64) = (row.get(0), row.get(1));
    let message = format!(
        "the server counts {inserted} inserted rows and only {live} that are there, and the others were not deleted: it seems to be \
         emptied by TRUNCATE and filled anew, and then every row is delivered again each time"
    );
    findings.push(Finding::warning(
        "table_replaced",
        subject,
        message,
        "read it by comparison instead of the stream (`read: diff`), or insert only what is new",
    ));
    Ok(())
}

/// Whether the transaction that wrote a row can be read: a repair and an audit tell rows apart by it.
async fn xmin(
    session: &Session,
    section: &Section,
    info: &TableInfo,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    if !matches!(info.kind, 'r' | 'p') {
        return Ok(());
    }
    let sql = "SELECT has_column_privilege($1::oid, 'xmin', 'SELECT')";
    if sql::query_one(session, sql, &[&info.oid]).await?.get(0) {
        return Ok(());
    }
    let (qualified, user) = (quote::qualified(&info.name), session.user());
    let message =
        format!("the role {user} may not read xmin of {qualified}: `repair --gap`, `audit` and `trace` need it");
    let remedy = format!("GRANT SELECT (xmin) ON {qualified} TO {};", quote::ident(user));
    findings.push(Finding::warning("select_xmin", subject(section), message, remedy));
    Ok(())
}

/// Conditions that say what a column must not be, of a column that may be NULL: as in SQL, a NULL does not meet them.
fn nulls_left_out(section: &Section, info: &TableInfo) -> Vec<Finding> {
    let said = |(name, condition): &(String, Condition)| {
        let nullable = info.column(name).is_some_and(|column| !column.not_null);
        let is_silent = matches!(condition, Condition::Not(_)) && condition.of_null().is_none();
        let message =
            format!("where: rows in which {name} is NULL are left out, as in SQL: NULL is neither equal nor unequal");
        let remedy = format!("write `{name}: [null, {{ not: … }}]` if they are to be sent");
        (nullable && is_silent).then(|| Finding::info("where_null", subject(section), message, remedy))
    };
    section.conditions.iter().filter_map(said).collect()
}

/// Tries to read the mapped columns, as a backfill would.
async fn readable(
    session: &Session,
    section: &Section,
    info: &TableInfo,
    findings: &mut Vec<Finding>,
) -> Result<bool, Error> {
    let role = quote::ident(session.user());
    let qualified = quote::qualified(&info.name);
    let columns: Vec<String> = section.columns().into_iter().filter(|name| info.column(name).is_some()).collect();
    let sql = "SELECT has_schema_privilege($1::text, 'USAGE'),
        ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = $2 AND attname = ANY($3)
              AND NOT has_column_privilege(attrelid, attnum, 'SELECT') ORDER BY attnum), row_security_active($2)";
    let row = sql::query_one(session, sql, &[&info.name.schema, &info.oid, &columns]).await?;
    let (usage, denied, policies): (bool, Vec<String>, bool) = (row.get(0), row.get(1), row.get(2));
    if !usage {
        let schema = &info.name.schema;
        let message = format!("the role {} may not use the schema {schema}", session.user());
        let remedy = format!("GRANT USAGE ON SCHEMA {} TO {role};", quote::ident(schema));
        findings.push(Finding::error("schema_usage", subject(section), message, remedy));
    }
    if !denied.is_empty() {
        let message = format!("the role {} may not read {} of {qualified}", session.user(), denied.join(", "));
        let list: Vec<String> = columns.iter().map(|name| quote::ident(name)).collect();
        let remedy = format!("GRANT SELECT ({}) ON {qualified} TO {role};", list.join(", "));
        findings.push(Finding::error("select_denied", subject(section), message, remedy));
    }
    if policies {
        findings.push(Finding::error(
            "row_security",
            subject(section),
            format!("row-level security would hide rows of {qualified} from a backfill, while the stream brings them all"),
            format!("ALTER ROLE {role} BYPASSRLS; or a policy for it: CREATE POLICY pg2planhat ON {qualified} FOR SELECT TO {role} USING (true) is not enough, for PostgreSQL cannot know that it hides nothing"),
        ));
    }
    if !usage || !denied.is_empty() || policies || columns.is_empty() {
        return Ok(false);
    }
    xmin(session, section, info, findings).await?;
    // Said so far by the catalog; now in earnest. Errors of partitions, of functions in views and of policies show here.
    let list: Vec<String> = columns.iter().map(|name| quote::ident(name)).collect();
    let sql = format!(
        "SET TRANSACTION READ ONLY; SET LOCAL row_security = off; SELECT {} FROM {} LIMIT 0",
        list.join(", "),
        info.as_from_clause()
    );
    if let Err(error) = session.batch_execute(&sql).await {
        if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
            let held = locks::holders(session, info.oid).await?;
            let message = format!("{qualified} is locked, so it cannot be read: {}", setup::names(&held));
            let remedy = "let that end, or: SELECT pg_terminate_backend(PID); then check again";
            findings.push(Finding::error("table_locked", subject(section), message, remedy));
            return Ok(false);
        }
        findings.push(Finding::of(session.fault(&error), "select_failed", subject(section)));
        return Ok(false);
    }
    Ok(true)
}
