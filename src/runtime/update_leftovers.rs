//! Tables that the publication of updates carries though no section sends updates of them any more.
//!
//! * In: a configuration; what the state recorded; the publication.
//! * Out: such tables, and none of them left where `source.manage` lets them be taken out.
//! * Never: a table taken out that this instance did not send updates of, or while another slot streams from the publication;
//!   a start held up.
//!
//! PostgreSQL refuses the application's own UPDATE of a published table that loses its replica identity, whoever reads it. So
//! what nobody reads is not to be published.

use crate::config::{Config, TableName};
use crate::model::Fault;
use crate::postgres::catalog::publication;
use crate::postgres::catalog::publication::{Publication, PublishedTable};
use crate::postgres::connection::session::Session;
use crate::postgres::setup;
use crate::postgres::setup::PublicationKind;
use crate::runtime::start_error::StartError;
use crate::runtime::update_stream::{BESIDE, entries};
use crate::state::{SectionRow, Store};

/// The tables that this instance sent updates of, that the publication carries, and of which no section sends any. Pure.
fn leftovers<'a>(config: &Config, rows: &[SectionRow], publication: &'a Publication) -> Vec<&'a PublishedTable> {
    let wanted = PublicationKind::updates(config).tables(config);
    // A table that was renamed is followed by its OID.
    let sends = |row: &&SectionRow| {
        let mut sections = config.sections.iter().filter(|section| section.is_on() && section.sends_updates());
        sections.any(|section| section.name == row.name && section.table.to_string() == row.attachment.table_name)
    };
    let is_sent = |oid: u32| rows.iter().filter(sends).any(|row| row.attachment.table_oid == oid);
    let was_ours = |oid: u32| {
        let mut of_table = rows.iter().filter(|row| row.attachment.table_oid == oid);
        of_table.any(|row| entries(row.publication_entry.as_deref()).1.is_some())
    };
    let tables = publication.tables.iter();
    tables.filter(|table| was_ours(table.oid) && !is_sent(table.oid) && !wanted.contains(&table.name)).collect()
}

/// What such a table means, and what is to be done.
fn harm(name: &str, tables: &[TableName]) -> Fault {
    let said: Vec<String> = tables.iter().map(ToString::to_string).collect();
    Fault::needs_person(
        format!(
            "the publication {name} still carries {}, of which no section sends updates: once such a table loses its replica \
             identity, PostgreSQL refuses the application's own UPDATE and DELETE of it",
            said.join(", ")
        ),
        format!("let the publication's owner run: {};", setup::drop_tables(name, tables)),
    )
}

/// Such tables, as they are now: their OIDs and names.
async fn look(
    config: &Config,
    session: &Session,
    rows: &[SectionRow],
) -> Result<(Vec<u32>, Vec<TableName>), tokio_postgres::Error> {
    let there = publication::publication(session, &config.source.update_publication()).await?;
    let found = there.iter().flat_map(|there| leftovers(config, rows, there));
    Ok(found.map(|table| (table.oid, table.name.clone())).unzip())
}

/// What `plan` and `check` say of such tables; `None` where there are none.
pub(crate) async fn said(
    config: &Config,
    session: &Session,
    rows: &[SectionRow],
) -> Result<Option<Fault>, tokio_postgres::Error> {
    let (_, tables) = look(config, session, rows).await?;
    if tables.is_empty() {
        return Ok(None);
    }
    let fault = harm(&config.source.update_publication(), &tables);
    let by_run = format!("the next start takes it out; or {}", fault.remedy);
    Ok(Some(if config.source.manage { Fault::needs_person(fault.what, by_run) } else { fault }))
}

/// Takes such tables out of the publication; where that cannot be done it is said, and nothing waits for it.
pub(crate) async fn take_out(config: &Config, control: &Session, store: &Store) -> Result<(), StartError> {
    let name = config.source.update_publication();
    let at = |error: tokio_postgres::Error| control.fault(&error);
    let rows = store.sections().await?;
    let (oids, tables) = look(config, control, &rows).await.map_err(at)?;
    if tables.is_empty() {
        return Ok(());
    }
    let Fault { what, remedy, .. } = harm(&name, &tables);
    let others = publication::streamed_by(control, &name, &config.source.slot).await.map_err(at)?;
    if !config.source.manage || !others.is_empty() {
        tracing::warn!(what, remedy, streamed_by = others.join(", "), "the application may be harmed");
        return Ok(());
    }
    let sql = setup::drop_tables(&name, &tables);
    match setup::once(control, &sql).await {
        Ok(()) => {
            tracing::info!(
                sql,
                "took tables out of the publication of updates: no section sends updates of them any more"
            );
            store.forget_update_entries(&oids, BESIDE).await?;
        }
        Err(error) => {
            let why = control.fault(&error).what;
            tracing::warn!(what, why, remedy, "the application may be harmed; the next start tries again");
        }
    }
    Ok(())
}
