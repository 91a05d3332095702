//! What is open on the server now, and would be waited for.

use tokio_postgres::{Client, Error};

use crate::fault::Finding;
use crate::postgres::fence;

/// Names the open write transactions: making the slot, and every backfill's fence, wait for their end.
pub(super) async fn examine(client: &Client, slot: bool, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let waits = if slot { "a backfill that begins now waits for its end" } else { "making the slot waits for its end" };
    for blocker in fence::blockers(client).await? {
        let remedy = match blocker.who.strip_prefix("pid ") {
            Some(pid) => format!("let it end, or: SELECT pg_terminate_backend({pid});"),
            None => "let its owner say COMMIT PREPARED or ROLLBACK PREPARED".to_owned(),
        };
        findings.push(Finding::info("open_transaction", "server", format!("{blocker}; {waits}"), remedy));
    }
    let sql = "SELECT count(*) FROM pg_catalog.pg_settings WHERE name = 'synchronous_standby_names' AND setting <> ''";
    if client.query_one(sql, &[]).await?.get::<_, i64>(0) > 0 {
        let message = "commits wait for a synchronous standby: rows can reach Planhat before their own session is told";
        findings.push(Finding::info("synchronous_standby", "server", message, "nothing: the fence takes care of it"));
    }
    Ok(())
}
