//! A question to an admin port, of this instance or of another process on this machine.
//!
//! * In: an address, a path.
//! * Out: the body of an answer of 200.
//! * Never: more than [`LIMIT`] bytes of it; a proxy in between.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The most bytes of an answer: a status document of some thousand sections.
const LIMIT: usize = 4 << 20;

/// The body of what answers there with 200; `None` where nobody does, or with something else. The caller bounds the wait.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<Bytes> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(path).header(header::HOST, address.to_string()).body(Empty::<Bytes>::new()).ok()?;
    let exchange = async move {
        let answer = sender.send_request(request).await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        Limited::new(answer.into_body(), LIMIT).collect().await.ok().map(http_body_util::Collected::to_bytes)
    };
    // The connection ends by itself as soon as its sender and the body are gone.
    let (found, _) = futures_util::future::join(exchange, connection).await;
    found
}
