//! Makes a publication carry one table.
//!
//! * In: a table that a section is about to be attached to, and which of the two publications.
//! * Out: the SQL that was run, or nothing where the publication carries it; or what is missing, with the SQL for a DBA.
//! * Never: a table put back in silence that the publication carried for another section: rows were skipped meanwhile.

use crate::config::Config;
use crate::model::{Exit, Fault};
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::{publication, quote, server};
use crate::postgres::connection::session::Session;
use crate::postgres::setup::{
    PublicationKind, Ran, Waiting, add_tables, create_publication, fits, generated, patiently,
};

/// Makes the publication carry `table`; the one of updates is made where it is not there, for no start made one while none of
/// its tables could be published. `waiting` is told for whom that waits.
pub(crate) async fn carry(
    session: &Session,
    config: &Config,
    (kind, table): (&PublicationKind, &TableInfo),
    carried_before: bool,
    waiting: Waiting<'_>,
) -> Result<Option<String>, Fault> {
    let name = &kind.name;
    let at = |error: tokio_postgres::Error| session.fault(&error);
    let there = publication::publication(session, name).await.map_err(at)?;
    let sql = match &there {
        None if !kind.updates => {
            return Err(Fault::needs_person(format!("there is no publication {name}"), "pg2planhat setup"));
        }
        None => {
            let version = server::server(session).await.map_err(at)?.version;
            let generated = generated(session, config, version).await.map_err(at)?;
            create_publication(kind, &[table.as_from_clause()], generated)
        }
        Some(there) => {
            fits(kind, there)?;
            if there.tables.iter().any(|published| published.oid == table.oid) {
                return Ok(None);
            }
            add_tables(name, &[table.as_from_clause()])
        }
    };
    if carried_before {
        return Err(Fault::needs_person(
            format!("{} is no longer in the publication {name}, which carried it for another section", table.name),
            format!("{sql}; then pg2planhat repair --gap"),
        ));
    }
    if !config.source.manage {
        let table = quote::qualified(&table.name);
        let what = match there {
            None => format!("there is no publication {name} for {table}, and `source.manage` is false"),
            Some(_) => format!("the publication {name} does not carry {table}, and `source.manage` is false"),
        };
        return Err(Fault::needs_person(what, format!("let the table's owner run: {sql};")));
    }
    let ran = patiently(session, &sql, waiting).await.map_err(|fault| {
        if fault.exit == Exit::Unavailable {
            return fault;
        }
        let remedy =
            format!("let a DBA run the script of `pg2planhat setup --print-sql`, or the table's owner: {sql};");
        Fault::new(fault.exit, fault.what, remedy)
    })?;
    match ran {
        // Another section's attacher was quicker, and made the publication for its own table.
        Ran::ThereAlready if there.is_none() => Err(Fault::unavailable(
            format!("the publication {name} was made by another at the same moment"),
            "nothing: it is looked at again",
        )),
        Ran::Done(_) | Ran::ThereAlready => Ok(Some(sql)),
    }
}
