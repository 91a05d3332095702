//! Makes the publication carry one table.
//!
//! * In: a table that a section is about to be attached to.
//! * Out: the SQL that was run, or nothing where the publication carries it; or what is missing, with the SQL for a DBA.
//! * Never: a table put back in silence that the publication carried for another section: rows were skipped meanwhile.

use crate::config::Config;
use crate::model::{Exit, Fault};
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::{publication, quote};
use crate::postgres::connection::session::Session;
use crate::postgres::setup::{PublicationKind, Waiting, add_tables, fits, patiently};

/// Makes the publication carry `table`. `waiting` is told for whom that waits.
pub(crate) async fn carry(
    session: &Session,
    config: &Config,
    table: &TableInfo,
    carried_before: bool,
    waiting: Waiting<'_>,
) -> Result<Option<String>, Fault> {
    let name = &config.source.publication;
    let there = publication::publication(session, name).await.map_err(|error| session.fault(&error))?;
    let Some(there) = there else {
        return Err(Fault::needs_person(format!("there is no publication {name}"), "pg2planhat setup"));
    };
    fits(&PublicationKind::inserts(config), &there)?;
    if there.tables.iter().any(|published| published.oid == table.oid) {
        return Ok(None);
    }
    let sql = add_tables(name, &[table.as_from_clause()]);
    if carried_before {
        return Err(Fault::needs_person(
            format!("{} is no longer in the publication {name}, which carried it for another section", table.name),
            format!("{sql}; then pg2planhat repair --gap"),
        ));
    }
    if !config.source.manage {
        return Err(Fault::needs_person(
            format!(
                "the publication {name} does not carry {}, and `source.manage` is false",
                quote::qualified(&table.name)
            ),
            format!("let the table's owner run: {sql};"),
        ));
    }
    patiently(session, &sql, waiting).await.map_err(|fault| {
        if fault.exit == Exit::Unavailable {
            return fault;
        }
        let remedy =
            format!("let a DBA run the script of `pg2planhat setup --print-sql`, or the table's owner: {sql};");
        Fault::new(fault.exit, fault.what, remedy)
    })?;
    Ok(Some(sql))
}
