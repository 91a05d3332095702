//! The accepting loop, and connections that can be reset under a request.
//!
//! * In: a listener, the routes.
//! * Out: HTTP/1.1 over TCP.
//! * Never: a task that outlives the loop. The loop ends when it is told to, or when its handle is gone.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::sim::shared::Shared;

/// A request's hold on the connection beneath it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawConnection(Arc<Notify>);

impl RawConnection {
    /// Asks for a reset: the peer gets RST, and what was not flushed is lost.
    pub(crate) fn reset(&self) {
        self.0.notify_one();
    }
}

/// Accepts and serves until `stop` changes or its sender is gone.
pub(crate) async fn serve(listener: TcpListener, router: Router, shared: Arc<Shared>, mut stop: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // 1. Being told to stop comes before all work.
            _ = stop.changed() => break,
            // 2. Ended connections are let go, so that the set stays small.
            Some(_) = connections.join_next() => {}
            // 3. New ones.
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    shared.store.connected();
                    connections.spawn(connection(tcp, router.clone()));
                }
                // Out of file descriptors: the next accept may succeed when some were closed.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    connections.shutdown().await;
}

async fn connection(tcp: TcpStream, router: Router) {
    // A second handle on the socket: the first is hyper's, and gone when the reset is due.
    let Ok(socket) = socket2::SockRef::from(&tcp).try_clone() else { return };
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    let wire = RawConnection::default();
    let service = TowerToHyperService::new(router.layer(Extension(wire.clone())));
    let served = http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
    tokio::select! {
        biased;
        // 1. HTTP first: what a handler wrote before it asked for the reset is flushed. How a connection ends is its
        //    client's affair.
        _ = served => {}
        // 2. With no time to linger, closing the last handle sends RST.
        () = wire.0.notified() => {
            if socket.set_linger(Some(Duration::ZERO)).is_err() {
                return;
            }
        }
    }
    drop(socket);
}
