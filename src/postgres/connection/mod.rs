//! Connections to PostgreSQL: where to, how, as whom.
//!
//! * In: a [`crate::config::Source`], and libpq's environment variables and password file.
//! * Out: an SQL session, or an authenticated socket for replication.
//! * Never: a password in an error; an unverified server unless the configuration says so.

pub(crate) mod auth;
pub(crate) mod charset;
pub(crate) mod dial;
pub(crate) mod faults;
pub(crate) mod hosts;
pub(crate) mod locality;
pub(crate) mod params;
pub(crate) mod passfile;
pub(crate) mod server_error;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod silence;
pub(crate) mod target;
pub(crate) mod tls;
pub(crate) mod tokio_postgres_adapter;
pub(crate) mod url;
pub(crate) mod verifier;
pub(crate) mod x509;
