//! Ordinary SQL connections, by tokio-postgres over a stream of our own.
//!
//! * In: a [`Source`], or the URL of the state's database; what the connection is for.
//! * Out: a [`Session`], its settings pinned, and every error as a [`Fault`] with its remedy.
//! * Never: a connection that outlives its [`Session`]; plaintext where TLS was asked for.

use std::future::poll_fn;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding as Wanted, SslMode, SslNegotiation};
use tokio_postgres::{AsyncMessage, Client, Connection, Error, SimpleQueryMessage};

use crate::config::{Secret, Source};
use crate::model::Fault;
use crate::postgres::connection::charset::Charset;
use crate::postgres::connection::dial::{Link, Socket};
use crate::postgres::connection::params::{Binding, ServerEndpoint, SessionKind};
use crate::postgres::connection::server_error::ServerError;
use crate::postgres::connection::silence::Silence;
use crate::postgres::connection::target::Target;
use crate::postgres::connection::tokio_postgres_adapter::{Established, Guarded, Oversize, oversize, refused_password};
use crate::postgres::connection::{auth, dial, faults};

/// Settings of each session, behind the given options, so that these win. A role's `idle_session_timeout` would end the
/// connections that wait for work.
const PINNED: &str = "-c datestyle=ISO -c timezone=UTC -c intervalstyle=postgres -c bytea_output=hex -c extra_float_digits=3 \
                      -c idle_session_timeout=0";
/// Purposes that only look at the catalog, whose answers are small.
const LOOKING: [&str; 4] = ["check", "check reader", "discover", "setup"];
/// The largest message that these take.
const LARGEST_LOOK: usize = 16 << 20;
const PRODUCT: &str = "pg2planhat";
/// Purposes whose every statement is short, or waits for a lock in short tries. They know no other bound.
const PROMPT: [&str; 8] = ["control", "attach", "reload", "updates", "state", "look", "status", "setup"];
/// Purposes whose statements read much before their first row.
const SLOW: [&str; 3] = ["audit", "trace", "retry"];
/// How long an answer may be owed, in times to connect: a minute, and ten.
const PROMPT_ANSWER: u32 = 6;
const SLOW_ANSWER: u32 = 60;

/// A connection, ended when this is dropped.
pub(crate) struct Session {
    client: Client,
    place: String,
    user: String,
    /// The server's major version, as it says at the start.
    major: u32,
    server_encoding: String,
    /// The characters of the database, where its text is decoded here.
    charset: Option<Arc<Charset>>,
    ended: watch::Receiver<Option<SessionEnd>>,
    silence: Silence,
    /// A minute, where the configuration leaves the time to connect as it is.
    patience: Duration,
    driver: Driver,
}

/// The task that moves the connection's bytes; it ends with the session.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub(crate) struct SessionEnd {
    /// For a person.
    pub fault: Fault,
    /// Whether the server said that it goes down: a walsender must let go at once.
    pub shutdown: bool,
}

/// Connects to the first server of `source` that fits, with passwords read anew. `purpose` becomes part of
/// `application_name`.
///
/// # Errors
/// [`crate::model::Exit::Unavailable`] where waiting may help; another where a person must mend something.
pub(crate) async fn connect_sql(source: &Source, purpose: &str) -> Result<Session, Fault> {
    connect_to(&Target::resolve(source)?, purpose).await
}

/// Connects by a URL that stands alone (`state.url`).
pub(crate) async fn connect_url(url: &Secret, purpose: &str) -> Result<Session, Fault> {
    connect_to(&Target::resolve_url(url)?, purpose).await
}

/// Connects to a target that was resolved already.
pub(crate) async fn connect_to(target: &Target, purpose: &str) -> Result<Session, Fault> {
    dial::first_that_fits(target, &Purpose(purpose)).await
}

struct Purpose<'a>(&'a str);

impl dial::Opening for Purpose<'_> {
    type Made = Session;

    async fn begin(&self, target: &Target, endpoint: &ServerEndpoint, link: Link) -> Result<Session, Fault> {
        Session::begin(target, endpoint, link, self.0).await
    }
}

/// The first column of the first row of an answer to a simple query.
pub(crate) fn first_value(messages: &[SimpleQueryMessage]) -> Option<String> {
    messages.iter().find_map(|message| {
        if let SimpleQueryMessage::Row(row) = message { row.get(0).map(ToOwned::to_owned) } else { None }
    })
}

/// Whether the same may succeed later with nobody doing anything.
pub(crate) fn is_transient(error: &Error) -> bool {
    match error.as_db_error() {
        Some(error) => ServerError::from(error).is_transient(),
        None if error.is_closed() => true,
        None => match io_cause(error) {
            Some(cause) => faults::is_transient(cause),
            None => !is_own(error),
        },
    }
}

/// The fault of `error` at `place`, met as the role `user`.
pub(crate) fn describe(error: &Error, place: &str, user: &str) -> Fault {
    if let Some(error) = error.as_db_error() {
        return ServerError::from(error).fault(place, user);
    }
    if let Some(cause) = io_cause(error) {
        return match oversize(cause) {
            Some(Oversize::Message(_)) => {
                Fault::usage(format!("{place}: {cause}"), "ask for less, such as left(column, 1000)")
            }
            Some(Oversize::Start) => Fault::unavailable(format!("{place}: {cause}"), NOT_POSTGRESQL),
            None => faults::describe_io(place, cause),
        };
    }
    if error.is_closed() {
        return Fault::unavailable(
            format!("{place}: the connection is closed"),
            "look into the server's log; it is tried again",
        );
    }
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let what = format!("{place}: {error}{cause}");
    if is_own(error) { Fault::bug(what) } else { Fault::unavailable(what, NOT_POSTGRESQL) }
}

const NOT_POSTGRESQL: &str = "what answers there does not speak PostgreSQL's protocol as it should: check source.host, \
source.port and proxies in between; it is tried again";

/// Whether the error is of this program's own making, and not of what the server sent.
fn is_own(error: &Error) -> bool {
    let text = error.to_string();
    ["error serializing", "error deserializing", "invalid column", "query returned an unexpected", "expected "]
        .iter()
        .any(|own| text.starts_with(own))
}

/// As [`describe`], for what only authentication can say. tokio-postgres gives these as text.
fn describe_start(error: &Error, target: &Target, endpoint: &ServerEndpoint, place: &str) -> Fault {
    if let Some(how) = io_cause(error).and_then(refused_password) {
        return auth::readable_password(place, how);
    }
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    if endpoint.password.is_none() && cause == "password missing" {
        return auth::missing_password(place, target.passfile_note.as_deref());
    }
    if !error.to_string().starts_with("authentication error") {
        return describe(error, place, &target.user);
    }
    match &*cause {
        "server did not use channel binding" => auth::unbound(place),
        "unsupported SASL mechanism" | "unsupported authentication method" => auth::unsupported(place, "a method"),
        cause => auth::scram_failed(place, cause),
    }
}

fn io_cause(error: &Error) -> Option<&io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

impl Session {
    async fn begin(target: &Target, endpoint: &ServerEndpoint, link: Link, purpose: &str) -> Result<Session, Fault> {
        let place = target.at(endpoint);
        let config = settings(target, endpoint, &link, purpose);
        let established = Established { end_point: link.end_point };
        let largest = target.largest_message.or_else(|| LOOKING.contains(&purpose).then_some(LARGEST_LOOK));
        let silence = Silence::new();
        let stream = Guarded::new(link.stream, link.private, largest, silence.clone());
        let (client, connection) = config
            .connect_raw(stream, established)
            .await
            .map_err(|error| describe_start(&error, target, endpoint, &place))?;
        let version = connection.parameter("server_version").unwrap_or_default();
        let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
        let major = version[..digits].parse().unwrap_or_default();
        let server_encoding = connection.parameter("server_encoding").unwrap_or_default().to_owned();
        let (tell, ended) = watch::channel(None);
        let user = target.user.clone();
        let driver = Driver(tokio::spawn(drive(connection, tell, place.clone(), user.clone(), silence.clone())));
        let patience = target.connect_timeout * PROMPT_ANSWER;
        let mut session =
            Session { client, place, user, major, server_encoding, charset: None, ended, silence, patience, driver };
        session.settle(target.session, major).await?;
        if PROMPT.contains(&purpose) {
            session.silence.set_patience(patience);
        } else if SLOW.contains(&purpose) {
            session.silence.set_patience(target.connect_timeout * SLOW_ANSWER);
        }
        Ok(session)
    }

    /// The server's major version.
    pub(crate) fn major(&self) -> u32 {
        self.major
    }

    async fn settle(&mut self, wanted: SessionKind, major: u32) -> Result<(), Fault> {
        if self.is_sql_ascii() {
            // Conversion to UTF-8 would make an error of every other byte, and hide the row that has it.
            self.client
                .batch_execute("SET client_encoding TO 'SQL_ASCII'")
                .await
                .map_err(|error| self.fault(&error))?;
        }
        let charset = Charset::load(&self.client, &self.server_encoding).await.map_err(|error| self.fault(&error))?;
        self.charset = charset.map(Arc::new);
        // Asked of every server: one that greets and then says nothing is not connected to.
        // A role's `transaction_timeout` (17) would end a transaction that reads a large table, at each new try.
        let asked =
            format!("SHOW transaction_read_only{}", if major >= 17 { "; SET transaction_timeout = 0" } else { "" });
        let answer = self.client.simple_query(&asked).await.map_err(|error| self.fault(&error))?;
        if wanted == SessionKind::ReadWrite && first_value(&answer).as_deref() != Some("off") {
            return Err(dial::read_only(&self.place));
        }
        Ok(())
    }

    /// The bare client; its connection ends when it is dropped.
    pub(crate) fn into_client(self) -> Client {
        // The driver ends by itself with the client; aborting it here would end the connection.
        std::mem::forget(self.driver);
        self.client
    }

    /// The fault of `error` on this connection.
    pub(crate) fn fault(&self, error: &Error) -> Fault {
        let ended = if error.is_closed() { self.ended() } else { None };
        ended.unwrap_or_else(|| describe(error, &self.place, &self.user))
    }

    /// How long an answer that should be prompt may be owed.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Ends the connection where an answer is owed for longer.
    pub(crate) fn set_patience(&self, patience: Duration) {
        self.silence.set_patience(patience);
    }

    /// How the connection ended, where it has.
    pub(crate) fn ended(&self) -> Option<Fault> {
        self.ended.borrow().as_ref().map(|end| end.fault.clone())
    }

    /// Which server, role and database this is; no secret.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The role that is connected.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// The encoding of the database, as the server names it.
    pub(crate) fn server_encoding(&self) -> &str {
        &self.server_encoding
    }

    /// Whether the database has no encoding: text columns may then hold any bytes.
    pub(crate) fn is_sql_ascii(&self) -> bool {
        self.server_encoding == "SQL_ASCII"
    }

    /// The characters of the database, where it has a single-byte encoding: what reads rows takes its text unconverted.
    pub(crate) fn charset(&self) -> Option<&Arc<Charset>> {
        self.charset.as_ref()
    }

    /// The option of a COPY that reads rows.
    pub(crate) fn copy_option(&self) -> String {
        self.charset.as_ref().map_or_else(String::new, |charset| charset.copy_option())
    }

    /// Waits until the connection has ended.
    pub(crate) async fn closed(&self) -> SessionEnd {
        let mut ended = self.ended.clone();
        let ending = ended.wait_for(Option::is_some).await.ok().and_then(|ending| ending.clone());
        ending.unwrap_or_else(|| SessionEnd {
            fault: Fault::unavailable(format!("{}: the connection is closed", self.place), "it is tried again"),
            shutdown: false,
        })
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

fn settings(target: &Target, endpoint: &ServerEndpoint, link: &Link, purpose: &str) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.user(&target.user).dbname(&target.database);
    let product = target.application_name.as_deref().unwrap_or(PRODUCT);
    config.application_name(format!("{product} {purpose}"));
    config.options(match &target.options {
        Some(options) => format!("{options} {PINNED}"),
        None => PINNED.to_owned(),
    });
    if let Some(password) = &endpoint.password {
        config.password(&password.0);
    }
    config.channel_binding(match target.channel_binding {
        Binding::Disable => Wanted::Disable,
        Binding::Prefer => Wanted::Prefer,
        Binding::Require => Wanted::Require,
    });
    match link.stream {
        // The stream is TLS already: `Direct` makes tokio-postgres take it over without asking the server.
        Socket::Tls(_) => config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct),
        Socket::Tcp(_) | Socket::Unix(_) => config.ssl_mode(SslMode::Disable),
    };
    config
}

async fn drive(
    mut connection: Connection<Guarded, Guarded>,
    tell: watch::Sender<Option<SessionEnd>>,
    place: String,
    user: String,
    silence: Silence,
) {
    let ending = loop {
        let message = tokio::select! {
            biased;
            message = poll_fn(|cx| connection.poll_message(cx)) => message,
            silent = silence.too_long() => {
                let what = format!("{place}: the server has owed an answer for {} s", silent.as_secs());
                let remedy = "look at the server, and at proxies between it and this host; it is connected to again";
                break SessionEnd { fault: Fault::unavailable(what, remedy), shutdown: false };
            }
        };
        match message {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::debug!(notice = %ServerError::from(&notice), "PostgreSQL says");
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let shutdown = error.as_db_error().is_some_and(|error| ServerError::from(error).is_shutdown());
                break SessionEnd { fault: describe(&error, &place, &user), shutdown };
            }
            None => {
                let fault = Fault::unavailable(format!("{place}: the connection is closed"), "it is tried again");
                break SessionEnd { fault, shutdown: false };
            }
        }
    };
    tell.send_replace(Some(ending));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsMode;
    use crate::model::Exit;
    use crate::postgres::connection::params::ServerEndpoint;
    use crate::postgres::fixture::{PASSWORD, cluster};

    fn unix(user: &str) -> Source {
        let host = Some(cluster().directory.display().to_string());
        Source { host, password: None, ..cluster().source(user) }
    }

    async fn text(session: &Session, sql: &str) -> String {
        session.query_one(sql, &[]).await.unwrap().get(0)
    }

    async fn fault(source: &Source) -> Fault {
        let fault = connect_sql(source, "test").await.err().expect("refused");
        assert!(!fault.to_string().contains(PASSWORD));
        fault
    }

    #[tokio::test]
    async fn a_session_is_encrypted_pinned_and_named() {
        let session = connect_sql(&cluster().source("by_scram"), "test").await.unwrap();
        assert_eq!(text(&session, "SHOW datestyle").await, "ISO, MDY");
        assert_eq!(text(&session, "SHOW timezone").await, "UTC");
        assert_eq!(text(&session, "SHOW application_name").await, "pg2planhat test");
        assert_eq!(text(&session, "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await, "true");
    }

    #[tokio::test]
    async fn every_way_in_is_taken() {
        for user in ["by_scram", "by_md5", "by_clear"] {
            assert!(connect_sql(&cluster().source(user), "test").await.is_ok(), "{user}");
        }
        let plain = |user| Source { tls: Some(TlsMode::Disable), ca: None, ..cluster().source(user) };
        for user in ["by_scram_plain", "by_md5", "by_clear"] {
            assert!(connect_sql(&plain(user), "test").await.is_ok(), "{user} by the loopback interface");
        }
        let (cert, key) = (Some(cluster().path("client.crt")), Some(cluster().path("client.key")));
        let by_cert = Source { cert, key, password: None, ..cluster().source("by_cert") };
        assert!(connect_sql(&by_cert, "test").await.is_ok());
        assert!(connect_sql(&unix("admin"), "test").await.is_ok());
    }

    #[tokio::test]
    async fn refusals_come_with_their_remedy() {
        let source = |user| cluster().source(user);
        let wrong = Source { password: Some(Secret::Inline("wrong".into())), ..source("by_scram") };
        let none = Source { password: None, ..source("by_scram") };
        let lost = Source { database: Some("lost".into()), ..source("by_scram") };
        let cases = [
            (wrong, Exit::Usage, "28P01", "ALTER ROLE \"by_scram\" PASSWORD"),
            (none, Exit::Usage, "none is given", "source.password"),
            (lost, Exit::Usage, "3D000", "source.database"),
            (source("not_in_hba"), Exit::Usage, "28000", "pg_hba.conf"),
            (source("by_cert"), Exit::Usage, "certificate", "source.cert"),
            (unix("nobody_at_all"), Exit::Usage, "28000", "local DATABASE"),
            (unix("by_peer"), Exit::Usage, "eer authentication failed", "system user"),
            (Source { port: Some(1), ..source("by_scram") }, Exit::Unavailable, "refused", "listen_addresses"),
            (Source { port: Some(1), ..unix("admin") }, Exit::Unavailable, ".s.PGSQL.1", "unix_socket_directories"),
            (
                Source { host: Some("no.such.invalid".into()), ..source("by_scram") },
                Exit::Unavailable,
                "cannot be resolved",
                "source.host",
            ),
        ];
        for (source, exit, what, remedy) in cases {
            let fault = fault(&source).await;
            assert_eq!(fault.exit, exit, "{fault}");
            assert!(fault.what.contains(what) && fault.remedy.contains(remedy), "{what}: {fault}");
        }
    }

    #[tokio::test]
    async fn a_readable_password_is_not_sent_over_a_network() {
        for (user, how) in [("by_clear", "cleartext"), ("by_md5", "MD5")] {
            let source = Source { tls: Some(TlsMode::Disable), ca: None, ..cluster().source(user) };
            let target = Target::resolve(&source).unwrap();
            let endpoint: &ServerEndpoint = &target.endpoints[0];
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", cluster().port)).await.unwrap();
            let link = Link { stream: Socket::Tcp(stream), end_point: None, private: false };
            let fault = Session::begin(&target, endpoint, link, "test").await.err().expect("refused");
            assert!(fault.what.contains(how) && fault.what.contains("not sent"), "{fault}");
        }
    }

    #[tokio::test]
    async fn the_next_host_is_tried_and_a_url_will_do() {
        let hosts = Some("localhost:1,localhost".to_owned());
        let session = connect_sql(&Source { host: hosts, ..cluster().source("by_scram") }, "test").await.unwrap();
        assert!(session.place().contains(&cluster().port.to_string()));
        let password = "pass%20word%3A%5C%27%25";
        let (port, ca) = (cluster().port, cluster().path("ca.crt"));
        let url = format!("postgres://by_scram:{password}@localhost:{port}/app?sslrootcert={}", ca.display());
        let session = connect_url(&Secret::Inline(url), "state").await.unwrap();
        assert_eq!(text(&session, "SHOW application_name").await, "pg2planhat state");
    }

    #[tokio::test]
    async fn a_session_tells_of_its_end() {
        let session = connect_sql(&unix("admin"), "test").await.unwrap();
        let admin = connect_sql(&unix("admin"), "test").await.unwrap();
        // By the simple protocol: a prepared statement's farewell, unread by a server that goes, would end in a reset.
        let rows = session.simple_query("SELECT pg_backend_pid()").await.unwrap();
        let row = rows.iter().find_map(|message| {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message { row.get(0) } else { None }
        });
        let pid: i32 = row.unwrap().parse().unwrap();
        admin.query_one("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
        let ending = session.closed().await;
        assert!(ending.shutdown && ending.fault.what.contains("57P01"), "{}", ending.fault);
        let error = session.query_one("SELECT 1", &[]).await.unwrap_err();
        assert!(is_transient(&error), "{error}");
    }

    #[tokio::test]
    async fn a_dropped_session_is_gone_from_the_server() {
        let admin = connect_sql(&unix("admin"), "test").await.unwrap();
        let session = connect_sql(&unix("admin"), "to be dropped").await.unwrap();
        drop(session);
        let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg2planhat to be dropped'";
        while admin.query_one(left, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_standby_is_refused_where_writes_are_wanted() {
        let mut target = Target::resolve(&unix("admin")).unwrap();
        target.session = SessionKind::ReadWrite;
        assert!(connect_to(&target, "test").await.is_ok());
        target.options = Some("-c default_transaction_read_only=on".to_owned());
        let fault = connect_to(&target, "test").await.err().expect("refused");
        assert!(fault.exit == Exit::Unavailable && fault.what.contains("accepts no writes"), "{fault}");
    }

    #[tokio::test]
    async fn a_database_without_encoding_is_not_converted() {
        let source = Source { database: Some("ascii".into()), ..cluster().source("by_scram") };
        let session = connect_sql(&source, "test").await.unwrap();
        assert!(session.is_sql_ascii());
        assert_eq!(text(&session, "SHOW client_encoding").await, "SQL_ASCII");
    }
}
