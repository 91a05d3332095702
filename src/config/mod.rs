//! The configuration: what was written → what it means.
//!
//! * In: one YAML file, and the environment where it names it.
//! * Out: a [`Config`] that is whole and consistent, or every error at once with line, column and remedy.
//! * Never: a secret in a `Debug` form or an error; a default that the example file does not show.

pub(crate) mod bounded;
pub(crate) mod condition;
pub(crate) mod config_error;
pub(crate) mod console_keys;
pub(crate) mod console_proxy;
pub(crate) mod cross_checks;
pub(crate) mod decoder;
pub(crate) mod definition;
pub(crate) mod endpoints;
pub(crate) mod fields;
pub(crate) mod json_schema;
pub(crate) mod key_reference;
pub(crate) mod keys;
pub(crate) mod lints;
pub(crate) mod load;
pub(crate) mod names;
pub(crate) mod read_mode;
pub(crate) mod scalar;
pub(crate) mod secret;
pub(crate) mod section;
pub(crate) mod splice;
pub(crate) mod table_name;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod yaml;
pub(crate) mod yaml_says;
pub(crate) mod yaml_spans;

pub use crate::config::condition::{Condition, OnNull};
pub(crate) use crate::config::console_keys::{ConsoleConfig, ConsoleToken, Role, is_loopback};
pub(crate) use crate::config::console_proxy::ConsoleProxy;
pub(crate) use crate::config::fields::is_dimension;
pub(crate) use crate::config::json_schema::json_schema;
pub(crate) use crate::config::key_reference::key_reference;
pub(crate) use crate::config::lints::{advice, tls_advice};
pub(crate) use crate::config::load::load;
pub use crate::config::load::{load_source, parse};
pub(crate) use crate::config::read_mode::RowVersions;
pub use crate::config::read_mode::{DiffMode, ReadMode};
pub use crate::config::secret::Secret;
pub(crate) use crate::config::secret::remember;
pub use crate::config::table_name::TableName;

use std::path::PathBuf;
use std::time::Duration;

use crate::model::SectionName;

/// Reads a table's name as the file has it: `table`, `schema.table`, parts in SQL's double quotes where needed.
pub(crate) fn table_name(text: &str, default_schema: &str) -> Result<TableName, crate::model::Fault> {
    names::table(text, default_schema)
        .map_err(|complaint| crate::model::Fault::usage(complaint.message, complaint.remedy))
}

/// Reads a duration as the file has it: `250ms`, `5s`, `10m`, `1h`, `30d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    scalar::duration(text).map_err(|complaint| format!("{}: {}", complaint.message, complaint.remedy))
}

#[derive(Clone, Debug)]
pub struct Config {
    /// The database that rows are read from.
    pub source: Source,
    /// Where items go.
    pub planhat: Planhat,
    pub state: StateConfig,
    /// How the source is held against what was settled.
    pub audit: Audit,
    pub admin: Admin,
    pub console: ConsoleConfig,
    /// Byte budget of everything buffered.
    pub memory: u64,
    /// How long a drain may take after SIGTERM.
    pub shutdown_grace: Duration,
    /// The mappings, in the order written. Names are unique.
    pub sections: Vec<Section>,
}

/// How to reach the source, and what this instance is called there.
#[derive(Clone, Debug)]
pub struct Source {
    /// `postgres://…` connection URL; excludes `host`, `port`, `database`, `user`. May hold a password, so a secret.
    pub url: Option<Secret>,
    /// Host name, address, comma-separated list of them, or directory of a Unix socket.
    pub host: Option<String>,
    pub port: Option<u16>,
    pub database: Option<String>,
    pub user: Option<String>,
    /// The role's password. Read again on every connect.
    pub password: Option<Secret>,
    /// How the connection is protected, where the file says so: the URL and PGSSLMODE count only where it does not.
    pub tls: Option<TlsMode>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate (chain).
    pub cert: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub key: Option<PathBuf>,
    /// Whether the password may go to the server by MD5 or in cleartext where nothing proves who reads it.
    pub readable_password: bool,
    /// Where unqualified tables are.
    pub schema: String,
    /// The replication slot.
    pub slot: String,
    pub publication: String,
    /// The publication of the tables whose updates are sent, where the file names one.
    pub update_publication: Option<String>,
    /// Whether publication, slot and state schema may be created and altered.
    pub manage: bool,
    /// Ask for a failover slot where the server has them (PostgreSQL 17).
    pub failover_slot: bool,
    /// The login of `query`; `query` is off without it.
    pub reader: Option<ReaderLogin>,
}

/// A login that may only read.
#[derive(Clone, Debug)]
pub struct ReaderLogin {
    pub user: String,
    /// The role's password; without one the password file may know it.
    pub password: Option<Secret>,
}

/// libpq's `sslmode`, as far as it is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Encrypted; certificate and host name are verified.
    #[default]
    VerifyFull,
    /// Encrypted; the certificate's chain is verified, not its name.
    VerifyCa,
    /// Encrypted, not verified.
    Require,
    /// Plaintext.
    Disable,
}

#[derive(Clone, Debug)]
pub struct Planhat {
    /// Tenant UUID: the sink's credential.
    pub tenant: Secret,
    /// Base URL of the analytics host, without a trailing slash.
    pub url: String,
    /// Which names bulk activities use.
    pub bulk_activity_names: ActivityNames,
    /// The bound on one whole request.
    pub timeout: Duration,
    /// How often a halted section probes with one batch.
    pub halt_probe: Duration,
}

/// The two sets of names seen in bulk activities (docs/planhat.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ActivityNames {
    /// `externalId`, `companyExternalId`, `weight`.
    #[default]
    Current,
    /// `euExtId`, `cId`, `count`.
    Legacy,
}

/// Where the ledger and the checkpoints live.
#[derive(Clone, Debug)]
pub struct StateConfig {
    pub schema: String,
    /// Another PostgreSQL for the state; by default it is the source.
    pub url: Option<Secret>,
    /// How long ended ledger rows are kept.
    pub keep_deliveries: Duration,
    /// How long rows in quarantine are kept.
    pub keep_quarantine: Duration,
}

/// How the source is held against what was settled.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    /// How often each section is audited by itself.
    pub every: AuditEvery,
}

/// How often a section is audited by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditEvery {
    /// Only when it is asked for, and at the end of a backfill.
    #[default]
    Off,
    /// So long after the last one.
    Every(Duration),
    /// Once a day.
    DailyAt(jiff::civil::Time, jiff::tz::TimeZone),
}

#[derive(Clone, Debug)]
pub struct Admin {
    /// `address:port` to listen on.
    pub listen: String,
    /// Further names that a request's Host header may have, beside those that no stranger can own.
    pub hosts: Vec<String>,
}

/// One mapping of one table to one kind of item.
#[derive(Clone, Debug)]
pub struct Section {
    /// Unique name: 1 to 63 of `[a-zA-Z0-9_-]`.
    pub name: SectionName,
    /// What an item is.
    pub kind: Kind,
    /// The switch of this section.
    pub sync: Sync,
    pub table: TableName,
    /// The key's columns; empty: the columns of the table's primary key.
    pub key: Vec<String>,
    pub start: Start,
    /// How its rows are read.
    pub read: ReadMode,
    /// Which versions of a row are sent, where the file says so.
    pub on: Option<RowVersions>,
    /// When a batch is full.
    pub batch: BatchLimits,
    /// When a batch that is not full goes.
    pub flush: Flush,
    /// What becomes of a batch whose answer never came.
    pub in_doubt: InDoubt,
    /// `where`: column → what it must be, in the order written. A row for which one does not hold is left out.
    pub conditions: Vec<(String, Condition)>,
    /// What becomes of a row in which a mandatory field is NULL.
    pub on_null: OnNull,
    /// Planhat field → where its value comes from, in the order written.
    pub fields: Vec<(String, Field)>,
    /// `date: receipt`: leave `date` out where the commit time is not known; Planhat takes the time of receipt.
    pub date_receipt: bool,
    /// How naive timestamps are read; UTC by default.
    pub timezone: Option<jiff::tz::TimeZone>,
}

/// The names of the fields that Planhat knows for a kind.
pub(crate) fn known_fields(kind: &str) -> Vec<&'static str> {
    let all = if kind == Kind::UserActivity.as_str() { keys::ACTIVITY } else { keys::METRIC };
    all.iter().map(|field| field.name).collect()
}

impl Section {
    /// The columns that it reads, each once: the key's first, then those of the fields and of `where` in the order written.
    pub fn columns(&self) -> Vec<String> {
        fn visit(fields: &[(String, Field)], columns: &mut Vec<String>) {
            for (_, field) in fields {
                match field {
                    Field::Column { column, .. } if !columns.contains(column) => columns.push(column.clone()),
                    Field::Column { .. } | Field::Constant(_) => {}
                    Field::Object(members) => visit(members, columns),
                }
            }
        }
        let mut columns = self.key.clone();
        visit(&self.fields, &mut columns);
        for (column, _) in &self.conditions {
            if !columns.contains(column) {
                columns.push(column.clone());
            }
        }
        columns
    }

    /// Whether the section's switch is on.
    pub fn is_on(&self) -> bool {
        self.sync == Sync::Receive
    }
}

/// What a row becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    UserActivity,
    /// A custom metric of this model.
    CustomMetric(Model),
}

impl Kind {
    /// The word in the configuration, the state and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::UserActivity => "user_activity",
            Kind::CustomMetric(_) => "custom_metric",
        }
    }
}

/// Whose metric it is; spelt so in the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Model {
    #[default]
    Company,
    EndUser,
    Project,
    Asset,
}

impl Model {
    /// The spelling that Planhat takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Model::Company => "Company",
            Model::EndUser => "EndUser",
            Model::Project => "Project",
            Model::Asset => "Asset",
        }
    }
}

/// A section's switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Sync {
    /// Rows flow.
    #[default]
    Receive,
    /// Nothing is attached, read or sent.
    Off,
}

/// Where a section begins.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Start {
    /// With every row that there is.
    #[default]
    Backfill,
    /// With rows committed after it attached.
    Now,
    /// With rows whose key is greater than this (text form).
    AfterKey(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Items in a batch, at most; at least 1.
    pub rows: u32,
    /// Bytes of a request's body, at most; never over 30,000,000.
    pub bytes: u64,
    /// Requests under way at once, at most: 1 to 8.
    pub in_flight: u8,
}

/// When a batch that is not full goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Flush {
    /// At this age of its first row.
    Every(Duration),
    /// Once a day at this wall-clock time in this zone.
    DailyAt(jiff::civil::Time, jiff::tz::TimeZone),
}

/// What becomes of a batch in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum InDoubt {
    /// Send it again: it may be counted twice, never lost.
    #[default]
    Resend,
    /// Put it in quarantine for a person to decide.
    Hold,
}

/// Where a field's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// A column's value; the default where it is NULL.
    Column {
        /// The column's name, exactly as the catalog has it.
        column: String,
        /// Sent where the column is NULL.
        default: Option<Constant>,
        /// `as: text`: sent as a string, whatever its type.
        as_text: bool,
    },
    /// The same value in every item.
    Constant(Constant),
    /// A nested object (`info`).
    Object(Vec<(String, Field)>),
}

/// A constant of the configuration, as JSON text would have it.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// `true`, `false`
    Bool(bool),
    /// A finite number, with its digits as written.
    Number(String),
    Text(String),
}
