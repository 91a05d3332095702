//! Sessions of the server that the stream comes from.
//!
//! * In: the identity that was recorded for the slot.
//! * Out: a session of that server, or a fault that goes away by itself once it is reached again.
//! * Never: rows, positions or transactions of another server that `source` names, too: a chunk that was read there says nothing
//!   of what the stream brings, and its rows are not this server's.

use tokio_postgres::error::SqlState;

use crate::config::Source;
use crate::model::Fault;
use crate::postgres::catalog::server::{ServerIdentity, identity};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::state::Identity;

/// The server that the stream comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SameServer(ServerIdentity);

impl SameServer {
    pub(crate) fn of(identity: &Identity) -> SameServer {
        SameServer(ServerIdentity {
            system_identifier: identity.system_identifier.clone(),
            timeline: identity.timeline.cast_unsigned(),
        })
    }

    /// Connects to that server.
    pub(crate) async fn connect(&self, source: &Source, purpose: &str) -> Result<Session, Fault> {
        let session = connect_sql(source, purpose).await?;
        self.check(&session).await?;
        Ok(session)
    }

    /// Whether the session is of that server.
    pub(crate) async fn check(&self, session: &Session) -> Result<(), Fault> {
        let found = match identity(session).await {
            Ok(found) => found,
            // The role may not ask: then nobody can tell.
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => return Ok(()),
            // A standby has no place of its own in the log.
            Err(error) => {
                let fault = session.fault(&error);
                return Err(Fault::unavailable(fault.what, fault.remedy));
            }
        };
        if found == self.0 {
            return Ok(());
        }
        let ServerIdentity { system_identifier, timeline } = &self.0;
        Err(Fault::unavailable(
            format!(
                "{} is another server ({}, timeline {}) than the one that the stream comes from ({system_identifier}, timeline \
                 {timeline})",
                session.place(),
                found.system_identifier,
                found.timeline
            ),
            "let `source.host` name addresses of one server, or of its standbys; it is tried again",
        ))
    }
}
