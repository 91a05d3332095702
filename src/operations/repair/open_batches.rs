//! The batches that an instance left open, resolved by a repair: their rows come another way than the ledger says.
//!
//! * In: the ledger's open batches, a section, and how it is mended.
//! * Out: each batch in doubt by the keys that are read again, so that `in_doubt: hold` holds them; or in doubt for good.
//! * Never: a batch left to a stream that does not bring its rows any more.

use crate::config::Section;
use crate::model::{Fault, Key, Phase};
use crate::operations::repair::plan::Mend;
use crate::postgres::catalog::key_columns::KeyColumns;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::connection::session::Session;
use crate::sql;
use crate::state::resolve::Resolved;
use crate::state::{OpenDelivery, Store};

/// Resolves the open batches of one section that is attached anew.
pub(crate) async fn resolve(
    (store, control): (&Store, &Session),
    open: &[OpenDelivery],
    (section, table): (&Section, &TableInfo),
    (how, new_slot): (Mend, bool),
) -> Result<(), Fault> {
    for batch in open.iter().filter(|batch| batch.delivery.section == section.name) {
        let resolved = match (how, batch.delivery.phase) {
            // Its rows are in quarantine still, or a person asked for them there; a compared result is never attached anew.
            (_, Phase::Retry | Phase::Repair | Phase::Diff) => continue,
            (Mend::Gap | Mend::Backfill, Phase::Stream | Phase::Backfill | Phase::Resync) => {
                keys(control, section, table, batch).await.map_err(|error| control.fault(&error))?
            }
            (Mend::AcceptLoss, Phase::Stream) if new_slot => Resolved::Never,
            // They come again where they were.
            (Mend::AcceptLoss, Phase::Stream | Phase::Backfill | Phase::Resync) => continue,
        };
        store.resolve_open(batch, &resolved).await.map_err(crate::operations::fate)?;
    }
    Ok(())
}

/// The keys of a batch, the smaller one first: streamed rows come in the order of their commits, and only the server knows the
/// order of keys. Where neither row is there any more, they stay as they are.
async fn keys(
    control: &Session,
    section: &Section,
    table: &TableInfo,
    batch: &OpenDelivery,
) -> Result<Resolved, tokio_postgres::Error> {
    let (first, last) = (&batch.delivery.first_key, &batch.delivery.last_key);
    if first.is_empty() || last.is_empty() {
        return Ok(Resolved::Never);
    }
    let key = KeyColumns::new(table, &section.key);
    let either = key.one_of([first.as_str(), last.as_str()].into_iter());
    let mut ends = Vec::new();
    for word in ["ASC", "DESC"] {
        let row = sql::query_opt(control, &key.printed_of_first(&table.as_t(), &either, word), &[]).await?;
        ends.extend(row.map(|row| Key::of_parts(&row.get::<_, Vec<String>>(0)).to_string()));
    }
    Ok(match <[String; 2]>::try_from(ends) {
        Ok([smaller, greater]) => Resolved::ReadAgain(smaller, greater),
        Err(_) => Resolved::ReadAgain(first.clone(), last.clone()),
    })
}
