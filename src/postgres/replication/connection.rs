//! The replication connection: start-up, simple queries, and the raw two-way stream of a copy.
//!
//! * In: a [`Source`]; then commands.
//! * Out: a [`ReplicationConnection`] whose session settings are pinned; rows of text; then bytes in [`WireReader::buffer_mut`], cut by
//!   [`next_frame`], and CopyData going the other way at any time.
//! * Never: a password in plaintext to a network; a buffer as large as a header claims; a lost byte when a `select!`
//!   drops a read or a flush half-way.

pub(crate) use crate::postgres::replication::split::{WireReader, WireWriter};

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::config::Source;
use crate::model::{Fault, Lsn};
use crate::postgres::connection::auth::{AuthState, AuthStep, Authenticator};
use crate::postgres::connection::dial::{Link, Socket};
use crate::postgres::connection::locality::Locality;
use crate::postgres::connection::params::{ServerEndpoint, SessionKind};
use crate::postgres::connection::server_error::ServerError;
use crate::postgres::connection::target::Target;
use crate::postgres::connection::{charset, dial, faults};
use crate::postgres::replication::frames::{Frame, FrameError, next_frame, text_row};
use crate::postgres::replication::read_coalescing::NEAR_BUFFER;
use crate::postgres::replication::split::flush;

/// The longest message taken outside a copy.
const REPLY_MAX: usize = 16 << 20;
/// The longest message before the server is authenticated.
const START_MAX: usize = 64 << 10;

/// How long an answer may take, outside a copy.
const ANSWER: Duration = Duration::from_secs(15);

/// Sent at start-up, so that neither a role's nor a database's settings change a row's text or end the session.
const PINNED: [(&str, &str); 8] = [
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO"),
    ("timezone", "UTC"),
    ("intervalstyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "3"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// A replication connection that is not copying.
pub struct ReplicationConnection {
    reader: WireReader<Socket>,
    outbound: BytesMut,
    parameters: HashMap<String, String>,
    place: String,
    user: String,
}

/// Why a command on the wire failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The server refused it. The connection goes on, unless the severity is FATAL.
    #[error("{0}")]
    Server(ServerError),
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server sent a message that the protocol does not allow here.
    #[error("{0}")]
    Protocol(String),
}

impl From<FrameError> for WireError {
    fn from(error: FrameError) -> WireError {
        WireError::Protocol(error.to_string())
    }
}

impl WireError {
    /// The server's refusal, where it is one.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            WireError::Server(error) => Some(error),
            WireError::Io(_) | WireError::Protocol(_) => None,
        }
    }

    /// Whether the same may succeed later, on a new connection, with nobody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            WireError::Server(error) => error.is_transient(),
            WireError::Io(error) => crate::postgres::connection::faults::cause(error).is_none(),
            WireError::Protocol(_) => false,
        }
    }

    /// The fault for a person; `place` names the server, `user` the role.
    pub fn fault(&self, place: &str, user: &str) -> Fault {
        match self {
            WireError::Server(error) => error.fault(place, user),
            WireError::Io(error) => faults::describe_io(place, error),
            WireError::Protocol(what) => Fault::usage(
                format!("{place}: {what}"),
                "check that source.host and source.port are PostgreSQL's own, with no proxy in between",
            ),
        }
    }
}

type TextRows = Vec<Vec<Option<String>>>;

/// The answer to IDENTIFY_SYSTEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Made by `initdb`, and shared by a server and its standbys.
    pub system_identifier: String,
    /// Counts the promotions.
    pub timeline: u32,
    /// The flushed end of the WAL.
    pub xlogpos: Lsn,
    /// The database of this connection.
    pub dbname: Option<String>,
}

impl SystemIdentity {
    /// Reads the one row of the answer.
    fn read(rows: TextRows) -> Result<SystemIdentity, WireError> {
        let odd = || WireError::Protocol("the answer to IDENTIFY_SYSTEM cannot be read".to_owned());
        let row = rows.into_iter().next().ok_or_else(odd)?;
        let [Some(system_identifier), Some(timeline), Some(xlogpos), dbname] =
            <[Option<String>; 4]>::try_from(row).map_err(|_| odd())?
        else {
            return Err(odd());
        };
        let timeline = timeline.parse().map_err(|_| odd())?;
        let xlogpos = xlogpos.parse().map_err(|_| odd())?;
        Ok(SystemIdentity { system_identifier, timeline, xlogpos, dbname })
    }
}

struct ApplicationName<'a>(&'a str);

impl dial::Opening for ApplicationName<'_> {
    type Made = ReplicationConnection;

    async fn begin(
        &self,
        target: &Target,
        endpoint: &ServerEndpoint,
        link: Link,
    ) -> Result<ReplicationConnection, Fault> {
        ReplicationConnection::begin(target, endpoint, link, self.0).await
    }
}

impl ReplicationConnection {
    /// Connects to the first server of `source` that fits, with passwords read anew.
    ///
    /// # Errors
    /// [`crate::model::Exit::Unavailable`] where waiting may help; another where a person must mend something.
    pub async fn connect(source: &Source, application_name: &str) -> Result<ReplicationConnection, Fault> {
        ReplicationConnection::connect_to(&Target::resolve(source)?, application_name).await
    }

    /// As [`ReplicationConnection::connect`], to a target that was resolved already.
    pub async fn connect_to(target: &Target, application_name: &str) -> Result<ReplicationConnection, Fault> {
        dial::first_that_fits(target, &ApplicationName(application_name)).await
    }

    async fn begin(
        target: &Target,
        endpoint: &ServerEndpoint,
        link: Link,
        name: &str,
    ) -> Result<ReplicationConnection, Fault> {
        let place = target.at(endpoint);
        let mut wire = ReplicationConnection {
            reader: WireReader { nearness: link.stream.nearness(), stream: link.stream, inbound: BytesMut::new() },
            outbound: BytesMut::new(),
            parameters: HashMap::new(),
            place: place.clone(),
            user: target.user.clone(),
        };
        let mut parameters = vec![
            ("user", &*target.user),
            ("database", &*target.database),
            ("replication", "database"),
            ("application_name", name),
        ];
        parameters.extend(target.options.as_deref().map(|options| ("options", options)));
        parameters.extend(PINNED);
        frontend::startup_message(parameters, &mut wire.outbound).map_err(|_| {
            Fault::usage(format!("{place}: a start-up parameter holds a zero byte"), "mend user, database or options")
        })?;
        let authenticator = Authenticator {
            place,
            user: &target.user,
            password: endpoint.password.as_ref().map(|password| &*password.0),
            passfile_note: target.passfile_note.as_deref(),
            end_point: link.end_point,
            binding: target.channel_binding,
            private: link.private,
            state: AuthState::Start,
        };
        wire.authenticate(authenticator).await?;
        wire.settle(target.session).await?;
        Ok(wire)
    }

    async fn authenticate(&mut self, mut authenticator: Authenticator<'_>) -> Result<(), Fault> {
        loop {
            let frame = self.reply(START_MAX).await.map_err(|error| self.fault(&error))?;
            match frame.tag {
                b'R' => match authenticator.take(&frame.body)? {
                    AuthStep::Send(message) => self.outbound.extend_from_slice(&message),
                    AuthStep::Wait => {}
                    AuthStep::Done => return Ok(()),
                },
                b'E' => return Err(ServerError::parse(&frame.body).fault(&self.place, &self.user)),
                tag => return Err(self.fault(&unexpected(tag))),
            }
        }
    }

    /// Reads the server's parameters and sets the session up.
    async fn settle(&mut self, session: SessionKind) -> Result<(), Fault> {
        self.until_ready().await.map_err(|error| self.fault(&error))?;
        if self.parameter("server_encoding") == Some("SQL_ASCII") {
            // Conversion of a byte that is not UTF-8 would be an error in the decoder, and the slot wedged.
            self.run("SET client_encoding TO 'SQL_ASCII'").await?;
        }
        if session == SessionKind::ReadWrite {
            let rows = self.run("SHOW transaction_read_only").await?;
            if rows.first().and_then(|row| row.first()) != Some(&Some("off".to_owned())) {
                return Err(dial::read_only(&self.place));
            }
        }
        Ok(())
    }

    async fn run(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Fault> {
        self.simple_query(sql).await.map_err(|error| self.fault(&error))
    }

    /// The fault of `error` on this connection.
    pub fn fault(&self, error: &WireError) -> Fault {
        error.fault(&self.place, &self.user)
    }

    /// A parameter that the server reported, e.g. `server_version`, `server_encoding`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Makes the receive buffer fit the bursts of [`crate::postgres::replication::read_coalescing`], where that is known to help.
    pub fn narrow(&self) {
        if self.reader.nearness == Locality::SameHost
            && let Err(error) = self.reader.stream.set_receive_buffer(NEAR_BUFFER)
        {
            tracing::debug!(%error, "the receive buffer stays as it is");
        }
    }

    /// Runs `sql` by the simple protocol, and gives the rows of all its results as text.
    pub async fn simple_query(&mut self, sql: &str) -> Result<TextRows, WireError> {
        frontend::query(sql, &mut self.outbound)?;
        in_time(self.until_ready()).await
    }

    /// Runs IDENTIFY_SYSTEM.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, WireError> {
        SystemIdentity::read(self.simple_query("IDENTIFY_SYSTEM").await?)
    }

    /// Runs IDENTIFY_SYSTEM and a query in one round trip.
    pub async fn identify_and_query(&mut self, sql: &str) -> Result<(SystemIdentity, TextRows), WireError> {
        frontend::query("IDENTIFY_SYSTEM", &mut self.outbound)?;
        frontend::query(sql, &mut self.outbound)?;
        // Both answers are read, whatever the first says.
        let (system, rows) = (in_time(self.until_ready()).await, in_time(self.until_ready()).await?);
        Ok((SystemIdentity::read(system?)?, rows))
    }

    /// Where each timeline before this one ended (TIMELINE_HISTORY); nothing on the first.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<Vec<(u32, Lsn)>, WireError> {
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let rows = self.simple_query(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let text = rows.into_iter().next().and_then(|row| row.into_iter().nth(1)?).unwrap_or_default();
        Ok(crate::postgres::replication::timeline_history::parse(&text))
    }

    /// Runs a command that begins a copy both ways (START_REPLICATION). From then on only the reading and the sending
    /// side are of use: [`ReplicationConnection::split`]. Where the server refuses, the connection stays usable.
    pub async fn start_copy_both(&mut self, sql: &str) -> Result<(), WireError> {
        if let Some(set) = charset::unconverted(sql, self.parameter("server_encoding")) {
            self.simple_query(&set).await?;
        }
        frontend::query(sql, &mut self.outbound)?;
        let frame = self.reply(REPLY_MAX).await?;
        match frame.tag {
            b'W' => Ok(()),
            b'E' => {
                let error = ServerError::parse(&frame.body);
                if error.severity != "FATAL" {
                    self.until_ready().await?;
                }
                Err(WireError::Server(error))
            }
            tag => Err(unexpected(tag)),
        }
    }

    /// Parts the two directions, so that one can be written while the other is read, or while nobody reads.
    pub fn split(self) -> (WireReader, WireWriter) {
        let (read, write) = tokio::io::split(self.reader.stream);
        let reader = WireReader { stream: read, inbound: self.reader.inbound, nearness: self.reader.nearness };
        (reader, WireWriter { stream: write, outbound: self.outbound })
    }

    /// Says goodbye to the server, within a second.
    pub async fn close(self) {
        let (_reader, writer) = self.split();
        writer.close().await;
    }

    /// Sends what is queued and returns the next answer; parameters and notices are handled on the way.
    async fn reply(&mut self, max: usize) -> Result<Frame, WireError> {
        flush(&mut self.reader.stream, &mut self.outbound).await?;
        loop {
            let Some(frame) = next_frame(&mut self.reader.inbound, max)? else {
                if self.reader.read_more().await? == 0 {
                    return Err(WireError::Io(io::ErrorKind::UnexpectedEof.into()));
                }
                continue;
            };
            match frame.tag {
                b'S' => self.take_parameter(&frame.body),
                b'N' => tracing::debug!(notice = %ServerError::parse(&frame.body), "PostgreSQL says"),
                // Cancel key and asynchronous notifications are not used.
                b'K' | b'A' => {}
                _ => return Ok(frame),
            }
        }
    }

    fn take_parameter(&mut self, body: &[u8]) {
        let mut parts = body.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        if let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            self.parameters.insert(name, value);
        }
    }

    async fn until_ready(&mut self) -> Result<TextRows, WireError> {
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            let frame = self.reply(REPLY_MAX).await?;
            match frame.tag {
                b'D' => {
                    let odd = || WireError::Protocol("the server sent a row that cannot be read".to_owned());
                    rows.push(text_row(&frame.body).ok_or_else(odd)?);
                }
                // Row description, command complete, empty query.
                b'T' | b'C' | b'I' => {}
                b'E' => {
                    let error = ServerError::parse(&frame.body);
                    if error.severity == "FATAL" {
                        return Err(WireError::Server(error));
                    }
                    refused.get_or_insert(error);
                }
                b'Z' => return refused.map_or(Ok(rows), |error| Err(WireError::Server(error))),
                tag => return Err(unexpected(tag)),
            }
        }
    }
}

/// A server that greets and then says nothing is not waited for without end.
async fn in_time<T>(answer: impl Future<Output = Result<T, WireError>>) -> Result<T, WireError> {
    tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| {
        Err(WireError::Io(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", ANSWER.as_secs()))))
    })
}

fn unexpected(tag: u8) -> WireError {
    WireError::Protocol(format!("the server sent a message of the type {:?}, which has no place here", char::from(tag)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::TlsMode;
    use crate::postgres::connection::session::connect_sql;
    use crate::postgres::fixture::cluster;

    /// Begins a copy from a slot of its own: they are shared by all databases of the cluster.
    async fn start(wire: &mut ReplicationConnection, slot: &str) {
        wire.simple_query(&format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput")).await.unwrap();
        let options = "(proto_version '1', publication_names 'p')";
        wire.start_copy_both(&format!("START_REPLICATION SLOT {slot} LOGICAL 0/0 {options}")).await.unwrap();
    }

    fn source(user: &str, database: &str) -> Source {
        Source { database: Some(database.to_owned()), ..cluster().source(user) }
    }

    async fn value(wire: &mut ReplicationConnection, sql: &str) -> String {
        wire.simple_query(sql).await.unwrap().remove(0).remove(0).unwrap()
    }

    /// Reads until a CopyData message begins with `kind`.
    async fn until(reader: &mut WireReader, kind: u8) -> Frame {
        loop {
            while let Some(frame) = next_frame(reader.buffer_mut(), 1 << 20).unwrap() {
                assert_eq!(frame.tag, b'd');
                if frame.body[0] == kind {
                    return frame;
                }
            }
            assert_ne!(reader.read_more().await.unwrap(), 0, "the server has closed");
        }
    }

    #[tokio::test]
    async fn the_system_is_identified_by_every_way_in() {
        let plain = |user| Source { tls: Some(TlsMode::Disable), ca: None, ..cluster().source(user) };
        let (cert, key) = (Some(cluster().path("client.crt")), Some(cluster().path("client.key")));
        let by_cert = Source { cert, key, password: None, ..cluster().source("by_cert") };
        let unix = Some(cluster().directory.display().to_string());
        let unix = Source { host: unix, password: None, ..cluster().source("admin") };
        let tls = ["by_scram", "by_md5", "by_clear"].map(|user| cluster().source(user));
        let ways = ["by_scram_plain", "by_md5", "by_clear"].map(plain).into_iter().chain(tls).chain([by_cert, unix]);
        for source in ways {
            let mut wire = ReplicationConnection::connect(&source, "test").await.unwrap();
            let identity = wire.identify_system().await.unwrap();
            assert_eq!((identity.timeline, identity.dbname.as_deref()), (1, Some("app")));
            assert!(identity.system_identifier.parse::<u64>().is_ok() && identity.xlogpos > Lsn::ZERO);
            wire.close().await;
        }
    }

    #[tokio::test]
    async fn binding_can_be_required() {
        let mut target = Target::resolve(&cluster().source("by_scram")).unwrap();
        target.channel_binding = crate::postgres::connection::params::Binding::Require;
        assert!(ReplicationConnection::connect_to(&target, "test").await.is_ok());
        target.tls.mode = TlsMode::Disable;
        target.user = "by_scram_plain".to_owned();
        let fault = ReplicationConnection::connect_to(&target, "test").await.err().expect("refused");
        assert!(fault.what.contains("channel binding"), "{fault}");
    }

    #[tokio::test]
    async fn a_roles_settings_do_not_come_through() {
        let mut wire = ReplicationConnection::connect(&cluster().source("by_scram"), "wire test").await.unwrap();
        assert_eq!(value(&mut wire, "SHOW datestyle").await, "ISO, MDY");
        assert_eq!(value(&mut wire, "SHOW timezone").await, "UTC");
        assert_eq!(value(&mut wire, "SHOW statement_timeout").await, "0");
        assert_eq!(value(&mut wire, "SHOW client_encoding").await, "UTF8");
        assert_eq!(value(&mut wire, "SHOW application_name").await, "wire test");
    }

    #[tokio::test]
    async fn a_refusal_leaves_the_connection_of_use() {
        let mut wire = ReplicationConnection::connect(&cluster().source("by_scram"), "test").await.unwrap();
        let error = wire.start_copy_both("START_REPLICATION SLOT not_there LOGICAL 0/0").await.unwrap_err();
        assert_eq!(error.server().unwrap().code, "42704");
        let error = wire.simple_query("SELECT 1/0").await.unwrap_err();
        assert!(!error.is_transient() && wire.fault(&error).what.contains("22012"));
        assert_eq!(wire.simple_query("SELECT NULL, 'b'").await.unwrap(), [[None, Some("b".to_owned())]]);
    }

    #[tokio::test]
    async fn a_status_is_sent_while_a_read_waits() {
        let mut wire = ReplicationConnection::connect(&cluster().source("by_scram"), "test").await.unwrap();
        start(&mut wire, "wire_status").await;
        let (mut reader, mut writer) = wire.split();
        let reading = tokio::spawn(async move {
            until(&mut reader, b'k').await;
            until(&mut reader, b'k').await
        });
        // Written, flushed and applied up to nothing, at no time, reply requested.
        let mut status = [0; 34];
        (status[0], status[33]) = (b'r', 1);
        while !reading.is_finished() {
            writer.send_copy_data(&status).await.unwrap();
            // Not as fast as it goes: the server answers each, and others want the machine.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(reading.await.unwrap().body.len(), 18);
        writer.close().await;
    }

    #[tokio::test]
    async fn bytes_of_a_database_without_encoding_come_as_they_are() {
        let mut wire = ReplicationConnection::connect(&source("by_scram", "ascii"), "test").await.unwrap();
        assert_eq!(value(&mut wire, "SHOW client_encoding").await, "SQL_ASCII");
        start(&mut wire, "wire_ascii").await;
        let unix = Some(cluster().directory.display().to_string());
        let admin = Source { host: unix, password: None, ..source("admin", "ascii") };
        let admin = connect_sql(&admin, "test").await.unwrap();
        admin.batch_execute("INSERT INTO t VALUES (E'a\\xffz')").await.unwrap();
        let (mut reader, writer) = wire.split();
        loop {
            let frame = until(&mut reader, b'w').await;
            if frame.body[25] == b'I' {
                assert!(frame.body.ends_with(b"a\xffz"));
                break;
            }
        }
        writer.close().await;
    }

    #[tokio::test]
    async fn connecting_may_be_spawned() {
        let source = cluster().source("by_scram");
        let wire = tokio::spawn(async move { ReplicationConnection::connect(&source, "test").await.map(|_| ()) });
        wire.await.unwrap().unwrap();
        let source = cluster().source("by_scram");
        tokio::spawn(async move { connect_sql(&source, "test").await.map(|_| ()) }).await.unwrap().unwrap();
    }

    proptest! {
        #[test]
        fn any_row_is_taken_without_a_panic(body: Vec<u8>) {
            drop(text_row(&body));
        }
    }
}
