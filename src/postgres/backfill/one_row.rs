//! One row of a query, as a backfill would read it.

use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::Error;

use crate::model::Cell;
use crate::postgres::backfill::copy_text;
use crate::postgres::connection::session::Session;

/// The text and the cells of a row that `select` gives; `None` where it gives none.
pub(crate) async fn one_row(client: &Session, select: &str) -> Result<Option<(Vec<u8>, Vec<Cell>)>, Error> {
    let sql = format!("COPY ({select} LIMIT 1) TO STDOUT{}", client.copy_option());
    let mut lines = pin!(client.copy_out(&sql).await?);
    let mut found = None;
    while let Some(line) = lines.try_next().await? {
        let (mut data, mut cells) = (Vec::new(), Vec::new());
        copy_text::sent_line(&line, client.charset().map(Arc::as_ref), &mut data, &mut cells);
        found = Some((data, cells));
    }
    Ok(found)
}
