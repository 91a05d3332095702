//! Everything about the source that can be known before running: proved where it can be proved, not only read.
//!
//! * In: a [`Config`].
//! * Out: an [`Examination`]: findings, all of one run, and the columns of the tables for the mapping to be compiled.
//! * Never: a change on the server; the first error alone.

pub(crate) mod activity;
pub(crate) mod examination;
pub(crate) mod failover;
pub(crate) mod key_findings;
pub(crate) mod publication_findings;
pub(crate) mod reader_findings;
pub(crate) mod result_findings;
pub(crate) mod server_findings;
pub(crate) mod slot_findings;
pub(crate) mod table_findings;
pub(crate) mod versions_findings;

use crate::postgres::catalog::locks;
pub(crate) use crate::postgres::catalog::provider::Provider;
use crate::postgres::preflight::examination::Examination;

use crate::config::{Config, tls_advice};
use crate::model::{Fault, Finding};
use crate::postgres::connection::dial;
use crate::postgres::connection::params::Host;
use crate::postgres::connection::session::{Session, connect_sql};
use crate::postgres::connection::target::Target;
use crate::postgres::preflight::server_findings::Facts;
use crate::postgres::replication::connection::ReplicationConnection;

pub(crate) async fn examine(config: &Config) -> Examination {
    let mut found = Examination::default();
    protection(config, &mut found.findings);
    let session = match connect_sql(&config.source, "check").await {
        Ok(session) => session,
        Err(fault) => {
            found.findings.push(unreachable(fault));
            return found;
        }
    };
    found.findings.push(Finding::ok("connected", "source", format!("connected to {}", session.place())));
    found.role = Some(session.user().to_owned());
    if config.streams() {
        replication(config, &session, &mut found.findings).await;
    }
    if let Err(error) = look(config, &session, &mut found).await {
        found.findings.push(Finding::of(session.fault(&error), "look", "source"));
    }
    result_findings::examine(config, &mut found).await;
    reader_findings::examine(config, &mut found.findings).await;
    found
}

async fn look(config: &Config, session: &Session, found: &mut Examination) -> Result<(), tokio_postgres::Error> {
    session.batch_execute(&format!("{}; SET statement_timeout = '60s'", locks::LOCK_TIMEOUT)).await?;
    let facts = Facts::read(session).await?;
    if !config.streams() {
        let apart = config.state.url.is_some();
        found.findings.extend(server_findings::judge_unstreamed(&facts, session.server_encoding(), apart));
        return Ok(());
    }
    found.findings.extend(server_findings::judge(&facts, session.server_encoding()));
    let slot = slot_findings::examine(session, config, &facts, &mut found.findings).await?;
    failover::examine(session, config, &facts, &mut found.findings).await?;
    let tables = table_findings::examine(session, config, &facts, found).await?;
    publication_findings::examine(session, config, &facts, &tables, &mut found.findings).await?;
    activity::examine(session, slot, facts.provider, &mut found.findings).await
}

/// The walsender is asked for in earnest: rights, `pg_hba.conf` and poolers show up here and nowhere else.
async fn replication(config: &Config, session: &Session, findings: &mut Vec<Finding>) {
    let answer = match ReplicationConnection::connect(&config.source, "pg2planhat check").await {
        Ok(mut wire) => {
            let answer = wire.identify_system().await.map_err(|error| wire.fault(&error));
            wire.close().await;
            answer
        }
        Err(fault) => Err(fault),
    };
    match answer {
        Ok(system) => findings.push(Finding::ok(
            "replication",
            "server",
            format!(
                "a replication connection works: system {}, timeline {}",
                system.system_identifier, system.timeline
            ),
        )),
        Err(fault) if is_pooler(&fault) => findings.push(pooler(fault)),
        Err(fault) => {
            let what =
                format!("no replication connection, while ordinary ones to {} work: {}", session.place(), fault.what);
            findings.push(Finding::error("replication", "server", what, fault.remedy));
        }
    }
}

fn unreachable(fault: Fault) -> Finding {
    if is_pooler(&fault) { pooler(fault) } else { Finding::of(fault, "connect", "source") }
}

/// PgBouncer and its like refuse start-up parameters that they do not know.
fn is_pooler(fault: &Fault) -> bool {
    let what = fault.what.to_lowercase();
    what.contains("unsupported startup parameter") || what.contains("pgbouncer") || what.contains("pooler")
}

fn pooler(fault: Fault) -> Finding {
    Finding::error(
        "pooler",
        "source",
        format!("a connection pooler stands in the way, and does not carry replication: {}", fault.what),
        "set source.host and source.port to PostgreSQL itself: PgBouncer listens on 6432 by custom (Crunchy Bridge: 5431); \
         Supabase: db.PROJECT.supabase.co:5432; Neon: the host without `-pooler`; DigitalOcean: not the pool's port",
    )
}

fn protection(config: &Config, findings: &mut Vec<Finding>) {
    // What is wrong with the target itself, connecting tells.
    let Ok(target) = Target::resolve(&config.source) else { return };
    let remote = target.endpoints.iter().find_map(|endpoint| match &endpoint.host {
        Host::Tcp(host) if !dial::is_this_machine(host) => Some(host),
        Host::Tcp(_) | Host::Unix(_) => None,
    });
    findings.extend(remote.and_then(|host| tls_advice(target.tls.mode, target.tls.ca.is_some(), host)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poolers_are_told_from_servers() {
        let fault = |what: &str| Fault::usage(what, "");
        assert_eq!(unreachable(fault("x: FATAL 08P01: unsupported startup parameter: replication")).code, "pooler");
        assert_eq!(unreachable(fault("x: FATAL 28P01: password authentication failed")).code, "connect");
    }
}
