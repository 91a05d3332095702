//! Every key that the file may have: its form, its default, what it is for. The decoder, the JSON Schema and the tests
//! read these tables, so a key, a default or a word of a choice stands once.
//!
//! * In: nothing.
//! * Out: tables of [`KeySpec`].
//! * Never: a default anywhere else.

/// One key of a mapping.
#[derive(Debug)]
pub(crate) struct KeySpec {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// As it would be written in the file.
    pub(crate) default: Option<&'static str>,
    pub(crate) required: bool,
    /// A sentence for the schema and for remedies.
    pub(crate) about: &'static str,
}

/// The form of a key's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    Text,
    /// A name of at most 63 bytes, as the catalog has it.
    Identifier,
    /// One such name, or a list of them.
    Identifiers,
    SlotName,
    SectionName,
    TableName,
    Path,
    Url,
    Listen,
    /// A list of host names.
    Hosts,
    /// A list of texts.
    Texts,
    Secret,
    Bool,
    Port,
    Count,
    /// A number from 1 to 8.
    InFlight,
    Duration,
    Size,
    Zone,
    TimeOfDay,
    /// A single value: number, boolean or text.
    Constant,
    OneOf(&'static [&'static str]),
    Object(&'static [KeySpec]),
    Sections,
    /// A list of mappings.
    List(&'static [KeySpec]),
    /// `backfill`, `now` or [`START`].
    Start,
    /// A duration or [`FLUSH`].
    Flush,
    /// `off`, a duration or [`FLUSH`].
    Every,
    /// Planhat fields, by kind.
    Fields,
    /// Columns, and what each must be.
    Where,
    /// `null`, a value, a list, or [`CONDITION`].
    Condition,
}

const fn key(name: &'static str, shape: Shape, about: &'static str) -> KeySpec {
    KeySpec { name, shape, default: None, required: false, about }
}

impl KeySpec {
    const fn default(self, text: &'static str) -> KeySpec {
        KeySpec { default: Some(text), ..self }
    }

    const fn required(self) -> KeySpec {
        KeySpec { required: true, ..self }
    }
}

pub(crate) const ROOT: &[KeySpec] = &[
    key("source", Shape::Object(SOURCE), "The database that rows are read from."),
    key("planhat", Shape::Object(PLANHAT), "Where items go.").required(),
    key("state", Shape::Object(STATE), "Where the ledger and the checkpoints live."),
    key("audit", Shape::Object(AUDIT), "How often the source is held against what was settled."),
    key("admin", Shape::Object(ADMIN), "Probes, metrics and status over HTTP."),
    key("console", Shape::Object(CONSOLE), "The web page: what the commands show and do, in a browser."),
    key("memory", Shape::Size, "Byte budget of everything buffered.").default("64MiB"),
    key("shutdown_grace", Shape::Duration, "How long a drain may take after SIGTERM.").default("20s"),
    key("sections", Shape::Sections, "The mappings: each carries one table to one kind of item.").required(),
];

pub(crate) const SOURCE: &[KeySpec] = &[
    key("url", Shape::Secret, "postgres://… connection URL, instead of host, port, database and user."),
    key("host", Shape::Text, "Host name, address, comma-separated list of them, or directory of a Unix socket."),
    key("port", Shape::Port, "TCP port."),
    key("database", Shape::Identifier, "Database name."),
    key("user", Shape::Identifier, "Role; it needs REPLICATION, and SELECT on the mapped tables."),
    key("password", Shape::Secret, "The role's password; read again on every connect."),
    key("tls", Shape::OneOf(&["verify-full", "verify-ca", "require", "disable"]), "How the connection is protected.")
        .default("verify-full"),
    key("ca", Shape::Path, "PEM file of the authorities to trust instead of the system's."),
    key("cert", Shape::Path, "PEM file of the client certificate."),
    key("key", Shape::Path, "PEM file of the client certificate's key."),
    key(
        "readable_password",
        Shape::Bool,
        "Whether the password may be sent by MD5 or in cleartext to a server that is not verified.",
    )
    .default("false"),
    key("schema", Shape::Identifier, "Where unqualified tables are.").default("public"),
    key("slot", Shape::SlotName, "The replication slot.").default("pg2planhat"),
    key("publication", Shape::Identifier, "The publication.").default("pg2planhat"),
    key(
        "update_publication",
        Shape::Identifier,
        "The publication of the tables whose updates are sent; by default the other's name and `_updates`.",
    ),
    key("manage", Shape::Bool, "Whether publication, slot and state schema may be created and altered.")
        .default("true"),
    key("failover_slot", Shape::Bool, "Ask for a failover slot where the server has them (PostgreSQL 17).")
        .default("false"),
    key("reader", Shape::Object(READER), "A login of its own for `query`; `query` is off without it."),
];

pub(crate) const READER: &[KeySpec] = &[
    key("user", Shape::Identifier, "Role; it needs SELECT on what `query` may show, and nothing else.").required(),
    key("password", Shape::Secret, "The role's password; read again on every connect."),
];

/// Keys that were, and what to write instead.
pub(crate) const RETIRED: &[(&str, &str)] = &[(
    "query_role",
    "write `reader: { user: ROLE, password: { env: NAME } }`: `query` takes a login of its own, which \
     `pg2planhat setup --print-sql` makes",
)];

pub(crate) const PLANHAT: &[KeySpec] = &[
    key("tenant", Shape::Secret, "Tenant UUID: the credential of the analytics endpoint.").required(),
    key("url", Shape::Url, "Base URL of the analytics host.").default("https://analytics.planhat.com"),
    key("bulk_activity_names", Shape::OneOf(&["current", "legacy"]), "Which names bulk activities are sent with.")
        .default("current"),
    key("timeout", Shape::Duration, "The bound on one whole request.").default("30s"),
    key("halt_probe", Shape::Duration, "How often a halted section probes with one batch.").default("60s"),
];

pub(crate) const STATE: &[KeySpec] = &[
    key("schema", Shape::Identifier, "Schema of the state.").default("pg2planhat"),
    key("url", Shape::Secret, "Another PostgreSQL for the state; by default it is the source."),
    key("keep_deliveries", Shape::Duration, "How long ended ledger rows are kept; what a section delivered since its oldest row in quarantine went there is kept as long as that row.").default("30d"),
    key("keep_quarantine", Shape::Duration, "How long rows in quarantine are kept: they hold personal data.")
        .default("90d"),
];

pub(crate) const AUDIT: &[KeySpec] =
    &[key("every", Shape::Every, "How often each section is audited by itself: off, a duration, or once a day.")
        .default("1d")];

pub(crate) const ADMIN: &[KeySpec] = &[
    key("listen", Shape::Listen, "address:port to listen on.").default("127.0.0.1:9187"),
    key("hosts", Shape::Hosts, "Further names that a request's Host header may have."),
];

pub(crate) const CONSOLE: &[KeySpec] = &[
    key("listen", Shape::Listen, "address:port to listen on; without it there is no console."),
    key("hosts", Shape::Hosts, "Further names that a request's Host header may have."),
    key("cert", Shape::Path, "PEM file of the certificate: the page is served by TLS."),
    key("key", Shape::Path, "PEM file of the certificate's key."),
    key("tokens", Shape::List(TOKEN), "Who may use it; beyond loopback there must be one."),
    key("proxy", Shape::Object(CONSOLE_PROXY), "A proxy that has asked who somebody is, and says so in headers."),
    key("rows", Shape::OneOf(&["operator", "viewer", "nobody"]), "Who sees what stands in rows.").default("operator"),
    key("edit", Shape::Bool, "Whether this file may be written from the page.").default("true"),
];

/// `proxy` of the console
pub(crate) const CONSOLE_PROXY: &[KeySpec] = &[
    key("from", Shape::Texts, "Where the proxy comes from: address ranges; headers of everybody else count nothing.")
        .required(),
    key("user", Shape::Text, "The header that has the user's name, such as X-Forwarded-User.").required(),
    key("groups", Shape::Text, "The header that has the user's groups, separated by commas."),
    key("operators", Shape::Texts, "Groups, and users, that are operators; everybody else is a viewer."),
];

/// One entry of the console's `tokens`
pub(crate) const TOKEN: &[KeySpec] = &[
    key("name", Shape::SectionName, "Who that is, as it is recorded: 1 to 63 of a-z, A-Z, 0-9, _ and -.").required(),
    key("role", Shape::OneOf(&["viewer", "operator"]), "What it may do: look, or do what the commands do.").required(),
    key("sha256", Shape::Secret, "SHA-256 of the token, as `pg2planhat console token` prints it.").required(),
];

/// One entry of `sections`
pub(crate) const SECTION: &[KeySpec] = &[
    key("name", Shape::SectionName, "Unique name: 1 to 63 of a-z, A-Z, 0-9, _ and -.").required(),
    key("kind", Shape::OneOf(&["user_activity", "custom_metric"]), "What a row becomes.").required(),
    key("model", Shape::OneOf(&["Company", "EndUser", "Project", "Asset"]), "Whose metric it is; custom_metric only.")
        .default("Company"),
    key("sync", Shape::OneOf(&["receive", "off"]), "The switch of this section.").default("receive"),
    key("read", Shape::OneOf(&["stream", "diff"]), "How rows are read: from the log, or by comparing a result.")
        .default("stream"),
    key(
        "table",
        Shape::TableName,
        "The table: name or schema.name, as the catalog has it; with read: diff also a view.",
    ),
    key("query", Shape::Text, "One SELECT, instead of a table; read: diff only."),
    key("every", Shape::Flush, "How often the result is compared, or at which time of day; read: diff only."),
    key(
        "send",
        Shape::OneOf(&["new_and_changed", "new"]),
        "Whether a row is sent again when it changes (that is the default); read: diff only.",
    ),
    key("within", Shape::Duration, "Compare only rows whose date is not older than this; read: diff only."),
    key(
        "on",
        Shape::OneOf(&["insert", "insert_and_update"]),
        "Which versions of a row are sent: the inserted one (that is the default), or each one committed.",
    ),
    key(
        "key",
        Shape::Identifiers,
        "The column, or the list of columns, that a unique index has; by default the primary key.",
    ),
    key("start", Shape::Start, "Where to begin: backfill, now, or after a key.").default("backfill"),
    key("batch", Shape::Object(BATCH), "When a batch is full."),
    key("flush", Shape::Flush, "When a batch that is not full goes.").default("5s"),
    key("in_doubt", Shape::OneOf(&["resend", "hold"]), "What becomes of a batch whose answer never came.")
        .default("resend"),
    key(
        "where",
        Shape::Where,
        "Which rows are sent: column: null, a value, a list, or { not | at_least | at_most: … }.",
    ),
    key("on_null", Shape::OneOf(&["quarantine", "skip"]), "What becomes of a row in which a mandatory field is NULL.")
        .default("quarantine"),
    key("date", Shape::OneOf(&["receipt"]), "`receipt`: leave the date out where the commit time is not known."),
    key("timezone", Shape::Zone, "How timestamps without time zone are read.").default("UTC"),
    key("fields", Shape::Fields, "Planhat field: where its value comes from.").required(),
];

/// A section's `start`, written as a mapping
pub(crate) const START: &[KeySpec] =
    &[key("after_key", Shape::Constant, "Begin with rows whose key is greater than this.").required()];

/// A section's `batch`
pub(crate) const BATCH: &[KeySpec] = &[
    key("rows", Shape::Count, "Items in a batch, at most.").default("10000"),
    key("bytes", Shape::Size, "Bytes of a request's body, at most; never over 30,000,000.").default("8MiB"),
    key("in_flight", Shape::InFlight, "Requests under way at once, 1 to 8; user_activity only.").default("1"),
];

/// A section's `flush`, written as a mapping
pub(crate) const FLUSH: &[KeySpec] = &[
    key("daily_at", Shape::TimeOfDay, "Once a day at this wall-clock time.").required(),
    key("timezone", Shape::Zone, "The zone of that time.").default("UTC"),
];

/// One field, written as a mapping: a constant, or a column with a default
pub(crate) const FORM: &[KeySpec] = &[
    key("value", Shape::Constant, "The same value in every item."),
    key("column", Shape::Identifier, "The column's name, as the catalog has it."),
    key("default", Shape::Constant, "Sent where the column is NULL."),
    key("as", Shape::OneOf(&["text"]), "`text`: sent as a string, whatever its type."),
];

/// What a column of `where` must be, written as a mapping
pub(crate) const CONDITION: &[KeySpec] = &[
    key("not", Shape::Condition, "A value, null or a list that it must not be; NULL is neither, as in SQL."),
    key("at_least", Shape::Constant, "A number or a time: this or more."),
    key("at_most", Shape::Constant, "A number or a time: this or less."),
];

/// A secret, written as a mapping
pub(crate) const SECRET: &[KeySpec] = &[
    key("env", Shape::Text, "Name of the environment variable that holds it."),
    key("file", Shape::Path, "Path of the file that holds it."),
];

/// A field that Planhat knows.
#[derive(Debug)]
pub(crate) struct PlanhatField {
    pub(crate) name: &'static str,
    pub(crate) takes: Takes,
    pub(crate) about: &'static str,
}

/// What Planhat takes in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Text,
    /// Text without spaces and special characters.
    Dimension,
    Number,
    Date,
    /// A nested object.
    Object,
}

impl Takes {
    /// Whether a string is taken.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Takes::Text | Takes::Dimension)
    }

    /// In words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Takes::Text | Takes::Dimension => "text",
            Takes::Number => "a number",
            Takes::Date => "a date",
            Takes::Object => "an object",
        }
    }
}

const fn field(name: &'static str, takes: Takes, about: &'static str) -> PlanhatField {
    PlanhatField { name, takes, about }
}

/// The fields of a user activity
pub(crate) const ACTIVITY: &[PlanhatField] = &[
    field("email", Takes::Text, "The end user's e-mail address; this or externalId is mandatory."),
    field("externalId", Takes::Text, "The end user's id in your system; this or email is mandatory."),
    field("action", Takes::Text, "Name of the event; Planhat shows no event without it."),
    field("date", Takes::Date, "When it happened; the row's commit time where it is not mapped."),
    field("weight", Takes::Number, "What the activity counts; 1 where it is not mapped."),
    field("info", Takes::Object, "A nested object of columns, or one json or jsonb column given whole."),
    field("companyExternalId", Takes::Text, "The company's id in your system."),
    field("companyId", Takes::Text, "The company's id in Planhat."),
    field("name", Takes::Text, "The end user's name."),
    field("firstName", Takes::Text, "The end user's first name."),
    field("lastName", Takes::Text, "The end user's last name."),
];

/// The fields of a custom metric
pub(crate) const METRIC: &[PlanhatField] = &[
    field("dimensionId", Takes::Dimension, "Which metric it is; without spaces and special characters. Mandatory."),
    field("value", Takes::Number, "The metric's value. Mandatory."),
    field("externalId", Takes::Text, "Id, in your system, of the object that the metric belongs to. Mandatory."),
    field("date", Takes::Date, "The day that it is for; the row's commit time where it is not mapped."),
];

/// Each table of keys, with a name for messages of tests.
#[cfg(test)]
pub(crate) const TABLES: &[(&str, &[KeySpec])] = &[
    ("", ROOT),
    ("source", SOURCE),
    ("reader", READER),
    ("planhat", PLANHAT),
    ("state", STATE),
    ("audit", AUDIT),
    ("admin", ADMIN),
    ("console", CONSOLE),
    ("token", TOKEN),
    ("console proxy", CONSOLE_PROXY),
    ("section", SECTION),
    ("start", START),
    ("batch", BATCH),
    ("flush", FLUSH),
    ("form", FORM),
    ("condition", CONDITION),
    ("secret", SECRET),
];
