//! The listener of the console: bounded connections, and the sampler beside them.
//!
//! * In: an address.
//! * Out: requests, to the guard; a sample of the counters every five seconds.
//! * Never: more than [`CONNECTIONS`] at once; a client that takes its time with the headers, or with
//!   the answer; a drain that waits for a page.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::console::app::Console;
use crate::console::guard;
use crate::console::history::EVERY;
use crate::console::lock::held;
use crate::console::patient_stream::PatientStream;
use crate::console::tls_port::TlsPort;
use crate::model::{Exit, Fault};

/// At most this many connections are open.
const CONNECTIONS: usize = 64;
/// A client must send its headers, or finish the TLS handshake, within this time.
const HEADERS: Duration = Duration::from_secs(5);
/// A client must read some of its answer within this time.
const READ: Duration = Duration::from_secs(20);

/// Opens the port.
///
/// # Errors
/// The address is none of this machine, or is taken.
pub(crate) async fn bind(listen: &str) -> Result<TcpListener, Fault> {
    TcpListener::bind(listen).await.map_err(|error| {
        let what = format!("the console cannot listen on {listen}: {error}");
        Fault::new(
            Exit::Usage,
            what,
            "set console.listen to an address of this machine and a free port, as in 127.0.0.1:9188",
        )
    })
}

/// Serves requests until it is dropped.
pub(crate) async fn serve(listener: TcpListener, console: Arc<Console>) {
    let router = guard::router(&console);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut sampler = tokio::time::interval(Duration::from_secs(EVERY));
    sampler.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = sampler.tick() => sample(&console).await,
            Some(_ended) = connections.join_next() => {}
            accepted = accept(&listener, &places) => {
                let Some((stream, peer, place)) = accepted else { continue };
                let service = router.clone().layer(axum::Extension(ConnectInfo(peer)));
                let acceptor = console.tls.as_ref().map(TlsPort::acceptor);
                connections.spawn(async move {
                    let stream = PatientStream::new(stream, READ);
                    let mut http = http1::Builder::new();
                    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
                    let service = TowerToHyperService::new(service);
                    // A client that breaks off is no news, so the result is dropped.
                    match acceptor {
                        Some(acceptor) => {
                            let shaken = tokio::time::timeout(HEADERS, acceptor.accept(stream)).await;
                            if let Ok(Ok(stream)) = shaken {
                                http.serve_connection(TokioIo::new(stream), service).await.ok();
                            }
                        }
                        None => {
                            http.serve_connection(TokioIo::new(stream), service).await.ok();
                        }
                    }
                    drop(place);
                });
            }
        }
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

/// Waits for a free place and the next connection.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, std::net::SocketAddr, Place)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            stream.set_nodelay(true).ok();
            Some((stream, peer, place))
        }
        Err(error) => {
            tracing::warn!(%error, "the console could not take a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Takes a sample of the counters, and closes what nobody uses.
async fn sample(console: &Console) {
    if let Some(counters) = console.program.counters().await {
        let now = Timestamp::now().as_microsecond() as f64 / 1e6;
        held(&console.history).sample(now, counters);
    }
    if let Some(tls) = &console.tls {
        tls.renew();
    }
    console.rest();
}
