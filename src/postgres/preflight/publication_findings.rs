//! The publications: they carry every table whole, inserts only but where updates are wanted, and harm no application.

use tokio_postgres::Error;

use crate::config::Config;
use crate::model::Finding;
use crate::postgres::catalog::publication::Publication;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::{defects, publication, quote, replica_identity};
use crate::postgres::connection::session::Session;
use crate::postgres::preflight::server_findings::Facts;
use crate::postgres::setup;
use crate::postgres::setup::PublicationKind;
use crate::sql;

pub(crate) async fn examine(
    session: &Session,
    config: &Config,
    facts: &Facts,
    tables: &[TableInfo],
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    for kind in PublicationKind::wanted(config) {
        let mut carried = Vec::new();
        for table in tables.iter().filter(|table| kind.tables(config).contains(&table.name)) {
            // What lacks an identity is an error of its table, and is never published.
            if !kind.updates || replica_identity::missing(session, config, table).await?.is_none() {
                carried.push(table.clone());
            }
        }
        examine_one(session, config, facts, (&kind, &carried), findings).await?;
    }
    let unused = PublicationKind::updates(config);
    if !config.sends_updates()
        && let Some(there) = publication::publication(session, &unused.name).await?
    {
        let subject = format!("publication {}", unused.name);
        harm(session, &unused, &there, &subject, findings).await?;
        findings.push(nobodys(&there, subject));
    }
    Ok(())
}

/// A publication of updates that no section wants any more.
fn nobodys(publication: &Publication, subject: String) -> Finding {
    let remedy = format!("DROP PUBLICATION {};", quote::ident(&publication.name));
    if publication.tables.is_empty() {
        let message = "no section sends updates any more: it carries no table, and harms nobody";
        return Finding::info("publication_unused", subject, message, remedy);
    }
    let tables: Vec<String> = publication.tables.iter().map(|table| quote::qualified(&table.name)).collect();
    let message = format!(
        "no section sends updates any more, and as long as it carries {} PostgreSQL refuses the application's own UPDATE and \
         DELETE where a replica identity is lost",
        tables.join(", ")
    );
    Finding::warning("publication_unused", subject, message, remedy)
}

async fn examine_one(
    session: &Session,
    config: &Config,
    facts: &Facts,
    (kind, tables): (&PublicationKind, &[TableInfo]),
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let name = &kind.name;
    let subject = format!("publication {name}");
    let there = publication::publication(session, name).await?;
    if let Some(publication) = &there {
        form(kind, publication, &subject, findings);
        harm(session, kind, publication, &subject, findings).await?;
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
    let generated = setup::generated(session, config, facts.server.version).await?;
    let (code, what, sql) = match there {
        Some(_) => {
            let what = format!("it does not carry {} yet", clauses.join(", ").replace("ONLY ", ""));
            ("publication_tables", what, setup::add_tables(name, &clauses))
        }
        None => {
            ("publication_missing", "there is none yet".into(), setup::create_publication(kind, &clauses, generated))
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
    let row = sql::query_one(session, asked, &[&oids, &name]).await?;
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
fn form(kind: &PublicationKind, publication: &Publication, subject: &str, findings: &mut Vec<Finding>) {
    let narrowed = publication.tables.iter().flat_map(|table| defects::narrowed(publication, table));
    for defect in kind.defect(publication).into_iter().chain(narrowed) {
        let remedy = defect.sql().unwrap_or_default();
        findings.push(Finding::error(defect.code(), subject, defect.to_string(), remedy));
    }
}

/// Updates and deletes published that nobody wants: useless, and on a table without replica identity the application's own
/// UPDATE fails.
async fn harm(
    session: &Session,
    kind: &PublicationKind,
    publication: &Publication,
    subject: &str,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let is_useless = publication.removals || (publication.update && !kind.updates);
    if !is_useless && !publication.update {
        return Ok(());
    }
    let set = format!("ALTER PUBLICATION {} SET (publish = '{}');", quote::ident(&kind.name), kind.publishes());
    let remedy = match kind.updates {
        true => {
            "give it a replica identity, ALTER TABLE … REPLICA IDENTITY FULL; or take it out of the publication".into()
        }
        false => set.clone(),
    };
    let oids: Vec<u32> = publication.tables.iter().map(|table| table.oid).collect();
    let sql = "SELECT c.oid::regclass::text FROM pg_catalog.pg_class c WHERE c.oid = ANY($1) AND (c.relreplident = 'n'
        OR c.relreplident = 'd' AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))";
    let without = sql::query(session, sql, &[&oids]).await?;
    let without: Vec<String> = without.iter().map(|row| row.get(0)).collect();
    if without.is_empty() {
        if is_useless {
            let message = "it publishes updates or deletes too: they are decoded and sent for nothing";
            findings.push(Finding::warning("publication_others", subject, message, set));
        }
    } else {
        let message = format!(
            "it publishes updates or deletes of {}, which has no replica identity: the application's UPDATE and DELETE fail",
            without.join(", ")
        );
        findings.push(Finding::error("publication_harm", subject, message, remedy));
    }
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
