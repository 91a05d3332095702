//! The publication: carries every table whole, inserts only, and harms no application.

use tokio_postgres::Error;

use crate::config::Config;
use crate::model::Finding;
use crate::postgres::catalog::publication::Publication;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::{defects, publication, quote};
use crate::postgres::connection::session::Session;
use crate::postgres::preflight::server_findings::Facts;
use crate::postgres::setup;

pub(crate) async fn examine(
    session: &Session,
    config: &Config,
    facts: &Facts,
    tables: &[TableInfo],
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let name = &config.source.publication;
    let subject = format!("publication {name}");
    let there = publication::publication(session, name).await?;
    if let Some(publication) = &there {
        form(publication, &subject, findings);
        harm(session, publication, name, &subject, findings).await?;
        partitions(publication, tables, name, &subject, findings);
    }
    let missing: Vec<&TableInfo> = match &there {
        Some(publication) => {
            tables.iter().filter(|table| !publication.tables.iter().any(|known| known.oid == table.oid)).collect()
        }
        None => tables.iter().collect(),
    };
    if there.is_some() && missing.is_empty() {
        let carried = if tables.len() == 1 { "1 table".to_owned() } else { format!("{} tables", tables.len()) };
        findings.push(Finding::ok("publication", &subject, format!("it carries {carried}")));
        return Ok(());
    }
    if missing.is_empty() {
        return Ok(());
    }
    let clauses: Vec<String> = missing.iter().map(|table| table.as_from_clause()).collect();
    let generated = facts.server.version >= 180_000 && setup::generated(config, tables);
    let (code, what, sql) = match there {
        Some(_) => {
            let what = format!("it does not carry {} yet", clauses.join(", ").replace("ONLY ", ""));
            ("publication_tables", what, setup::add_tables(name, &clauses))
        }
        None => {
            ("publication_missing", "there is none yet".into(), setup::create_publication(name, &clauses, generated))
        }
    };
    if config.source.manage {
        findings.push(Finding::info(code, &subject, what, "`pg2planhat setup` does it, and so does `run`"));
        return rights(session, name, &missing, (there.is_some(), &sql), findings).await;
    }
    let message = format!("{what}, and `source.manage` is false");
    findings.push(Finding::error(code, &subject, message, format!("let the tables' owner run: {sql};")));
    Ok(())
}

/// Whether this role may make it carry the tables that it does not carry yet.
async fn rights(
    session: &Session,
    name: &str,
    missing: &[&TableInfo],
    (there, sql): (bool, &str),
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let oids: Vec<u32> = missing.iter().map(|table| table.oid).collect();
    let asked = "SELECT has_database_privilege(current_database(), 'CREATE'), current_database()::text,
        ARRAY(SELECT oid::regclass::text FROM pg_catalog.pg_class
              WHERE oid = ANY($1) AND NOT pg_has_role(relowner, 'USAGE')),
        COALESCE((SELECT pg_has_role(pubowner, 'USAGE') FROM pg_catalog.pg_publication WHERE pubname = $2), true)";
    let row = session.query_one(asked, &[&oids, &name]).await?;
    let (create, database, foreign, owner): (bool, String, Vec<String>, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    let mut why = Vec::new();
    if !there && !create {
        why.push(format!("may not create in database {database}"));
    }
    if !foreign.is_empty() {
        why.push(format!("does not own {}", foreign.join(", ")));
    }
    if !owner {
        why.push("does not own the publication".to_owned());
    }
    if !why.is_empty() {
        let message = format!("the role {} {}, so it cannot do this itself", session.user(), why.join(" and "));
        let remedy = format!("let a DBA run the script of `pg2planhat setup --print-sql`; here: {sql};");
        findings.push(Finding::error("publication_rights", format!("publication {name}"), message, remedy));
    }
    Ok(())
}

/// What makes it bring too little.
fn form(publication: &Publication, subject: &str, findings: &mut Vec<Finding>) {
    let narrowed = publication.tables.iter().flat_map(|table| defects::narrowed(publication, table));
    for defect in defects::of_publication(publication).into_iter().chain(narrowed) {
        let remedy = defect.sql().unwrap_or_default();
        findings.push(Finding::error(defect.code(), subject, defect.to_string(), remedy));
    }
}

/// Updates and deletes published: useless, and on a table without replica identity the application's own UPDATE fails.
async fn harm(
    session: &Session,
    publication: &Publication,
    name: &str,
    subject: &str,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    if !publication.others {
        return Ok(());
    }
    let remedy = format!("ALTER PUBLICATION {} SET (publish = 'insert');", quote::ident(name));
    let oids: Vec<u32> = publication.tables.iter().map(|table| table.oid).collect();
    let sql = "SELECT c.oid::regclass::text FROM pg_catalog.pg_class c WHERE c.oid = ANY($1) AND (c.relreplident = 'n'
        OR c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))";
    let without = session.query(sql, &[&oids]).await?;
    let without: Vec<String> = without.iter().map(|row| row.get(0)).collect();
    findings.push(if without.is_empty() {
        let message = "it publishes updates or deletes too: they are decoded and sent for nothing";
        Finding::warning("publication_others", subject, message, remedy)
    } else {
        let message = format!(
            "it publishes updates or deletes of {}, which has no replica identity: the application's UPDATE and DELETE fail",
            without.join(", ")
        );
        Finding::error("publication_harm", subject, message, remedy)
    });
    Ok(())
}

fn partitions(publication: &Publication, tables: &[TableInfo], name: &str, subject: &str, findings: &mut Vec<Finding>) {
    let Some(table) = tables.iter().find(|table| table.kind == 'p') else { return };
    if !publication.via_root {
        let message = format!(
            "rows of the partitioned table {} would come under their partitions' names, which no section maps",
            quote::qualified(&table.name)
        );
        let remedy = format!("ALTER PUBLICATION {} SET (publish_via_partition_root = true);", quote::ident(name));
        findings.push(Finding::error("publication_via_root", subject, message, remedy));
    }
}
