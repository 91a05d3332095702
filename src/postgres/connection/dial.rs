//! From an address to a stream that the protocol can begin on.
//!
//! * In: a [`Target`] and one of its servers.
//! * Out: [`Link`]s: TCP, Unix or TLS streams, tuned and verified.
//! * Never: plaintext where TLS was asked for.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::config::TlsMode;
use crate::model::{Exit, Fault};
use crate::postgres::connection::faults::{describe_io, describe_unix};
use crate::postgres::connection::locality::Locality;
use crate::postgres::connection::params::{Host, Negotiation, ServerEndpoint};
use crate::postgres::connection::target::Target;
use crate::postgres::connection::tls;

const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged: a server that vanished is noticed while one writes to it, too.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// One address of one server.
#[derive(Clone, Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A stream to a server.
pub enum Socket {
    /// Plaintext over the network.
    Tcp(TcpStream),
    /// Within this machine.
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A stream to a server with its security properties.
pub(crate) struct Link {
    pub stream: Socket,
    /// The `tls-server-end-point` hash, where the stream is TLS and the certificate has one.
    pub end_point: Option<Vec<u8>>,
    /// Whether the server may have the password readable: verified by TLS, or on this machine (a Unix socket, the loopback
    /// interface); or because the configuration says so.
    pub private: bool,
}

/// A protocol that starts on a [`Link`]. It is a trait because the future of an async closure is not known to be `Send`.
pub(crate) trait Opening: Sync {
    type Made: Send;

    fn begin(
        &self,
        target: &Target,
        endpoint: &ServerEndpoint,
        link: Link,
    ) -> impl Future<Output = Result<Self::Made, Fault>> + Send;
}

/// Tries every address of every server in order until something was made of one. A fault that waiting cannot
/// mend ends the search: the next server would only hide it.
pub(crate) async fn first_that_fits<O: Opening>(target: &Target, opening: &O) -> Result<O::Made, Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for endpoint in &target.endpoints {
        let addresses = match addresses(target, endpoint).await {
            Ok(addresses) => addresses,
            Err(fault) => {
                faults.push(fault);
                continue;
            }
        };
        for address in addresses {
            let attempt = async { opening.begin(target, endpoint, open(target, endpoint, &address).await?).await };
            match tokio::time::timeout(target.connect_timeout, attempt).await {
                Ok(Ok(made)) => return Ok(made),
                Ok(Err(fault)) if fault.exit != Exit::Unavailable => return Err(fault),
                Ok(Err(fault)) => faults.push(fault),
                Err(_) => faults.push(too_slow(&target.at(endpoint), &address, target.connect_timeout)),
            }
        }
    }
    let what = faults.iter().map(|fault| &*fault.what).collect::<Vec<_>>().join("; then ");
    let remedy = faults.pop().map(|fault| fault.remedy).unwrap_or_default();
    Err(Fault::unavailable(what, remedy))
}

/// The fault of a standby where the primary is wanted. Waiting may help: a failover may be under way.
pub(crate) fn read_only(place: &str) -> Fault {
    Fault::unavailable(
        format!("{place}: the server accepts no writes (a standby), and target_session_attrs is read-write"),
        "list the primary in source.host; the servers are tried again",
    )
}

async fn addresses(target: &Target, endpoint: &ServerEndpoint) -> Result<Vec<Address>, Fault> {
    let name = match &endpoint.host {
        Host::Unix(directory) => {
            return Ok(vec![Address::Unix(directory.join(format!(".s.PGSQL.{}", endpoint.port)))]);
        }
        Host::Tcp(name) => name,
    };
    let lookup = tokio::net::lookup_host((name.as_str(), endpoint.port));
    let found = match tokio::time::timeout(target.connect_timeout, lookup).await {
        Ok(Ok(found)) => found.map(Address::Tcp).collect::<Vec<_>>(),
        Ok(Err(error)) => return Err(unresolved(name, &error.to_string())),
        Err(_) => return Err(unresolved(name, "the name service did not answer in time")),
    };
    if found.is_empty() { Err(unresolved(name, "the name has no address")) } else { Ok(found) }
}

fn unresolved(name: &str, why: &str) -> Fault {
    Fault::unavailable(
        format!("the host name {name:?} cannot be resolved: {why}"),
        format!("mend source.host, or the name service; `getent hosts {name}` must answer on this machine"),
    )
}

/// Opens one address. The caller bounds the time.
async fn open(target: &Target, endpoint: &ServerEndpoint, address: &Address) -> Result<Link, Fault> {
    let place = target.at(endpoint);
    let socket = match address {
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| describe_unix(&place, path, &error))?;
            return Ok(Link { stream: Socket::Unix(stream), end_point: None, private: true });
        }
        Address::Tcp(address) => *address,
    };
    let stream = TcpStream::connect(socket).await.map_err(|error| describe_io(&place, &error))?;
    tune(&stream).map_err(|error| describe_io(&place, &error))?;
    let private = target.readable_password || socket.ip().is_loopback();
    let name = match &endpoint.host {
        Host::Tcp(name) if target.tls.mode != TlsMode::Disable => name,
        Host::Tcp(_) | Host::Unix(_) => {
            return Ok(Link { stream: Socket::Tcp(stream), end_point: None, private });
        }
    };
    let stream = ask_for_tls(stream, target.tls.negotiation, &place).await?;
    let (stream, end_point) = tls::begin(stream, &target.tls, name, &place).await?;
    Ok(Link { stream: Socket::Tls(Box::new(stream)), end_point, private: private || target.verifies() })
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_INTERVAL).with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

/// Asks in PostgreSQL's protocol for TLS. Exactly one byte is read: anything that came with it in plaintext would
/// fail as TLS, and is never taken for the server's (CVE-2021-23222).
pub(crate) async fn ask_for_tls(mut stream: TcpStream, how: Negotiation, place: &str) -> Result<TcpStream, Fault> {
    if how == Negotiation::Direct {
        return Ok(stream);
    }
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(|error| describe_io(place, &error))?;
    match stream.read_u8().await.map_err(|error| describe_io(place, &error))? {
        b'S' => Ok(stream),
        b'N' => Err(Fault::usage(
            format!("{place}: the server does not speak TLS, and plaintext was not asked for"),
            "switch TLS on there (ssl = on, ssl_cert_file, ssl_key_file in postgresql.conf); or, on a network that you trust, set source.tls: disable (where there is no file yet: PGSSLMODE=disable)",
        )),
        // What an unauthenticated server says here in plaintext is not shown (CVE-2024-10977).
        b'E' => Err(Fault::unavailable(
            format!("{place}: the server refused before TLS began"),
            "look into the server's log; it may be out of memory or of processes",
        )),
        _ => Err(Fault::unavailable(
            format!("{place}: what answers there is not PostgreSQL"),
            "check source.host and source.port; it is tried again",
        )),
    }
}

/// The fault of an address that took too long.
fn too_slow(place: &str, address: &Address, limit: Duration) -> Fault {
    let address = match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => path.display().to_string(),
    };
    Fault::unavailable(
        format!("{place}: {address} gave no connection that answers within {} s", limit.as_secs()),
        "look at firewalls, security groups and routes between this host and the server, and at its load; it is tried again",
    )
}

impl Socket {
    /// The server's locality, by the address that was reached.
    pub(crate) fn nearness(&self) -> Locality {
        let tcp = match self {
            Socket::Tcp(stream) => stream,
            Socket::Tls(stream) => stream.get_ref().0,
            Socket::Unix(_) => return Locality::Socket,
        };
        match tcp.peer_addr() {
            Ok(address) if address.ip().is_loopback() => Locality::SameHost,
            Ok(_) | Err(_) => Locality::Network,
        }
    }

    /// Sets the kernel's receive buffer (SO_RCVBUF).
    pub(crate) fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => SockRef::from(stream).set_recv_buffer_size(bytes),
            Socket::Tls(stream) => SockRef::from(stream.get_ref().0).set_recv_buffer_size(bytes),
            Socket::Unix(stream) => SockRef::from(stream).set_recv_buffer_size(bytes),
        }
    }
}

/// What the three kinds of connection can do.
trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl Socket {
    fn duplex(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        let stream: &mut dyn Duplex = match self.get_mut() {
            Socket::Tcp(stream) => stream,
            Socket::Unix(stream) => stream,
            Socket::Tls(stream) => stream,
        };
        Pin::new(stream)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.duplex().poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.duplex().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.duplex().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.duplex().poll_shutdown(cx)
    }
}

/// Whether a host is this machine, so that nobody can listen in between.
pub(crate) fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
