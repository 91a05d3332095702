//! What is open on the server now, and would be waited for.

use tokio_postgres::{Client, Error};

use crate::model::Finding;
use crate::postgres::catalog::xmin_barrier;
use crate::postgres::preflight::Provider;
use crate::sql;

/// Names the open write transactions: the making of the slot and each backfill's xmin barrier wait for their end.
pub(crate) async fn examine(
    client: &Client,
    slot: bool,
    provider: Provider,
    findings: &mut Vec<Finding>,
) -> Result<(), Error> {
    let waits = if slot { "a backfill that begins now waits for its end" } else { "making the slot waits for its end" };
    for blocker in xmin_barrier::blockers(client).await? {
        let remedy = match blocker.who.strip_prefix("pid ") {
            Some(pid) => format!("let it end, or:\nSELECT pg_terminate_backend({pid});"),
            None => "let its owner say COMMIT PREPARED or ROLLBACK PREPARED".to_owned(),
        };
        findings.push(Finding::info("open_transaction", "server", format!("{blocker}; {waits}"), remedy));
    }
    synchronous(client, provider, findings).await
}

/// The `application_name` of the connection that streams.
const STREAM: &str = "pg2planhat stream";

async fn synchronous(client: &Client, provider: Provider, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let sql =
        "SELECT setting, ARRAY(SELECT DISTINCT quote_ident(application_name) FROM pg_catalog.pg_stat_replication r
            WHERE application_name IS NOT NULL AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
            ORDER BY 1)
        FROM pg_catalog.pg_settings WHERE name = 'synchronous_standby_names' AND setting <> ''";
    let Some(row) = sql::query_opt(client, sql, &[]).await? else { return Ok(()) };
    let (setting, standbys): (String, Vec<String>) = (row.get(0), row.get(1));
    if !names_stream(&setting) {
        let message = "commits wait for a synchronous standby: rows can reach Planhat before their own session is told";
        findings.push(Finding::info(
            "synchronous_standby",
            "server",
            message,
            "nothing: each backfill waits until such commits are visible",
        ));
        return Ok(());
    }
    let message = format!(
        "synchronous_standby_names ({setting}) takes this program's stream ({STREAM}) for a standby: every commit of the \
         application could wait until Planhat has received its rows"
    );
    let named = if standbys.is_empty() { "FIRST 1 (standby1)".to_owned() } else { standbys.join(", ") };
    let set = provider.set("synchronous_standby_names", &named, false);
    let remedy = format!("name the standbys alone (application_name in pg_stat_replication):\n{set}");
    findings.push(Finding::error("synchronous_stream", "server", message, remedy));
    Ok(())
}

/// Whether `synchronous_standby_names` (`a, b`, `2 (a, b)`, `FIRST 2 (a, b)`, `ANY 1 (*)`) holds for the stream: by its name,
/// in whatever case, or by `*`.
fn names_stream(setting: &str) -> bool {
    let list = match (setting.find('('), setting.rfind(')')) {
        // A quoted name may hold a parenthesis; then the whole is looked at.
        (Some(open), Some(close)) if open < close && !setting[..open].contains('"') => &setting[open + 1..close],
        _ => setting,
    };
    let name = |text: &str| {
        let text = text.trim();
        let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        quoted.map_or_else(|| text.to_owned(), |text| text.replace("\"\"", "\""))
    };
    list.split(',').map(name).any(|name| name == "*" || name.eq_ignore_ascii_case(STREAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_takes_the_stream_for_a_standby_is_seen() {
        for taken in ["*", "FIRST 1 (*)", "ANY 2 (a, *)", "2 (a, \"PG2planhat Stream\")", " a , * ", "\"*\""] {
            assert!(names_stream(taken), "{taken}");
        }
        for free in ["a", "FIRST 1 (a, b)", "\"pg2planhat\"", "\"a (*)\", b", "pg2planhat_stream"] {
            assert!(!names_stream(free), "{free}");
        }
    }
}
