//! A TCP proxy whose network can be made bad while it runs; in front of PostgreSQL or of the sink.
//!
//! It runs on a thread and a runtime of its own: a test that blocks does not freeze the network.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use super::bound::bound_this_test;
use super::port::Port;

/// How long the `wait_` functions wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is behind the proxy.
#[derive(Clone, Debug)]
pub enum Target {
    /// A port on 127.0.0.1.
    Tcp(u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the target.
    ToTarget,
    /// From the target to the client.
    ToClient,
}

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// They arrive.
    Pass,
    /// They are not read: the sender's buffers fill.
    Stall,
    /// They are read and lost: the sender sees nothing wrong.
    Swallow,
}

/// The network as it is now.
#[derive(Clone, Debug)]
struct Network {
    listening: bool,
    flow: [Flow; 2],
    delay: Duration,
    rate: Option<u64>,
    /// Goes up by one to cut every connection.
    cuts: u64,
    /// Goes up by one to forget every connection.
    forgets: u64,
    ended: bool,
}

/// What has happened since the proxy started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections taken.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Bytes passed on to the target.
    pub to_target: u64,
    /// Bytes passed on to the client.
    pub to_client: u64,
}

/// What the connections share.
struct Shared {
    target: Mutex<Target>,
    network: watch::Sender<Network>,
    counters: watch::Sender<Counters>,
    /// Bytes that may still pass before the connection that carries the last of them is cut.
    budget: Mutex<[Option<u64>; 2]>,
}

/// The proxy; ends when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    port: Port,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In front of a port on 127.0.0.1.
    pub fn to_port(port: u16) -> Proxy {
        Proxy::to(Target::Tcp(port))
    }

    /// In front of `target`.
    pub fn to(target: Target) -> Proxy {
        bound_this_test();
        let port = Port::reserve();
        let network = Network {
            listening: true,
            flow: [Flow::Pass; 2],
            delay: Duration::ZERO,
            rate: None,
            cuts: 0,
            forgets: 0,
            ended: false,
        };
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            network: watch::Sender::new(network),
            counters: watch::Sender::default(),
            budget: Mutex::new([None; 2]),
        });
        // Bound here, not over there: who has the proxy can connect.
        let listener = listen(port.number());
        let (number, theirs) = (port.number(), shared.clone());
        let serve = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(accept_all(listener, number, theirs));
        };
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(serve).unwrap();
        Proxy { shared, port, thread: Some(thread) }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// A sound network again: everything passes, at once, at any rate. A connection that lost bytes is cut.
    pub fn pass(&self) {
        *self.shared.budget.lock().unwrap() = [None; 2];
        self.change(|network| {
            let fresh =
                Network { listening: true, flow: [Flow::Pass; 2], delay: Duration::ZERO, rate: None, ..*network };
            *network = fresh;
        });
    }

    /// Resets every open connection (RST, both ways), once.
    pub fn cut(&self) {
        self.change(|network| network.cuts += 1);
    }

    /// Lets `bytes` more pass in this direction, over all connections, then resets the one that carried the last; once.
    /// 0 resets at the next byte, which does not arrive.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.shared.budget.lock().unwrap()[direction as usize] = Some(bytes);
    }

    /// Stops reading in this direction: backpressure.
    pub fn stall(&self, direction: Direction) {
        self.change(|network| network.flow[direction as usize] = Flow::Stall);
    }

    /// Swallows what this direction brings, also its end: nobody is told anything.
    pub fn swallow(&self, direction: Direction) {
        self.change(|network| network.flow[direction as usize] = Flow::Swallow);
    }

    /// Half-open connections: both directions swallow; new connections are taken and hear nothing.
    pub fn half_open(&self) {
        self.change(|network| network.flow = [Flow::Swallow; 2]);
    }

    /// Open connections stay open and nothing comes through them any more; new ones are as good as ever.
    pub fn forget(&self) {
        self.change(|network| network.forgets += 1);
    }

    /// Every piece arrives this much later.
    pub fn delay(&self, delay: Duration) {
        self.change(|network| network.delay = delay);
    }

    /// At most this many bytes a second, for each direction of each connection.
    pub fn rate(&self, bytes_per_second: u64) {
        self.change(|network| network.rate = Some(bytes_per_second.max(1)));
    }

    /// New connections are refused (nobody listens); open ones stay.
    pub fn refuse(&self) {
        self.change(|network| network.listening = false);
    }

    /// New connections go to another port on 127.0.0.1: a virtual address that has moved.
    pub fn retarget(&self, port: u16) {
        *self.shared.target.lock().unwrap() = Target::Tcp(port);
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        *self.shared.counters.borrow()
    }

    /// Waits until `connections` have been taken since the start.
    pub async fn wait_connections(&self, connections: u64) {
        self.wait(&format!("{connections} connections"), |counters| counters.accepted >= connections).await;
    }

    /// Waits until no connection is open.
    pub async fn wait_none_open(&self) {
        self.wait("no open connection", |counters| counters.open == 0).await;
    }

    /// Waits until the counters are as wished.
    pub async fn wait(&self, what: &str, wished: impl FnMut(&Counters) -> bool) {
        let mut counters = self.shared.counters.subscribe();
        // Asked at once: the borrow in it must not live beside the one of `counters`.
        let waited = tokio::time::timeout(PATIENCE, counters.wait_for(wished)).await.is_ok();
        assert!(waited, "waited {PATIENCE:?} in vain for {what} through the proxy: {:?}", self.counters());
    }

    fn change(&self, change: impl FnOnce(&mut Network)) {
        self.shared.network.send_modify(change);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|network| network.ended = true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn listen(port: u16) -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

async fn accept_all(first: std::net::TcpListener, port: u16, shared: Arc<Shared>) {
    let mut network = shared.network.subscribe();
    let mut listener = Some(TcpListener::from_std(first).unwrap());
    loop {
        let now = network.borrow_and_update().clone();
        if now.ended {
            return;
        }
        if !now.listening {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::from_std(listen(port)).unwrap());
        }
        let accept = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // 1. A change first: what is refused from now on must not be taken.
            biased;
            changed = network.changed() => changed.unwrap(),
            // 2. A connection.
            taken = accept => if let Ok((client, _)) = taken {
                shared.counters.send_modify(|counters| { counters.accepted += 1; counters.open += 1; });
                tokio::spawn(serve(client, shared.clone()));
            },
        }
    }
}

/// One connection, from its acceptance to its end.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    // The borrowed halves of `split` close nothing when dropped; the owned ones would say a polite FIN before the RST.
    let target = shared.target.lock().unwrap().clone();
    let outcome = match target {
        Target::Tcp(port) => match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(mut target) => {
                let outcome = carry(client.split(), target.split(), &shared).await;
                outcome.inspect_err(|()| reset_at_close(&target))
            }
            Err(_nobody_there) => Err(()),
        },
        Target::Unix(path) => match UnixStream::connect(path).await {
            Ok(mut target) => carry(client.split(), target.split(), &shared).await,
            Err(_nobody_there) => Err(()),
        },
    };
    if outcome.is_err() {
        reset_at_close(&client);
    }
    drop(client);
    shared.counters.send_modify(|counters| counters.open -= 1);
}

fn reset_at_close(stream: &TcpStream) {
    drop(socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

/// Both directions until both have ended; an error is a cut. A connection that is forgotten stays, as long as the proxy.
async fn carry(
    (reader, writer): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    (back, forth): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    shared: &Shared,
) -> Result<(), ()> {
    let mut network = shared.network.subscribe();
    let (cuts, forgets) = (network.borrow().cuts, network.borrow().forgets);
    let forward = pump(Direction::ToTarget, reader, forth, shared);
    let backward = pump(Direction::ToClient, back, writer, shared);
    let outcome = tokio::select! {
        biased;
        _ = network.wait_for(|network| network.cuts != cuts) => Some(Err(())),
        () = wait_forgotten(shared.network.subscribe(), forgets) => None,
        outcome = async { tokio::try_join!(forward, backward) } => Some(outcome.map(drop)),
    };
    match outcome {
        Some(outcome) => outcome,
        None => std::future::pending().await,
    }
}

async fn wait_forgotten(mut network: watch::Receiver<Network>, known: u64) {
    drop(network.wait_for(|network| network.forgets != known).await);
}

/// One direction until its end. An error on either side is a cut, and so resets the other side too.
async fn pump(
    direction: Direction,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
) -> Result<(), ()> {
    let mut network = shared.network.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    let mut lost = false;
    loop {
        let now = network.borrow_and_update().clone();
        let flow = now.flow[direction as usize];
        if lost && flow != Flow::Swallow {
            return Err(());
        }
        if flow == Flow::Stall {
            network.changed().await.map_err(drop)?;
            continue;
        }
        let most = now.rate.map_or(buffer.len(), |rate| buffer.len().min(usize::try_from(rate / 20).unwrap().max(1)));
        let read = tokio::select! {
            // 1. A change first: what stalls from now on must not be read.
            biased;
            changed = network.changed() => { changed.map_err(drop)?; continue }
            // 2. Bytes.
            read = from.read(&mut buffer[..most]) => read.map_err(drop)?,
        };
        if flow == Flow::Swallow {
            lost = true;
            if read == 0 {
                network.wait_for(|network| network.flow[direction as usize] != Flow::Swallow).await.map_err(drop)?;
            }
            continue;
        }
        if read == 0 {
            return to.shutdown().await.map_err(drop);
        }
        tokio::time::sleep(now.delay).await;
        let (allowed, cut) = shared.spend(direction, read);
        // Counted first: who has read a byte finds it counted.
        shared.count(direction, allowed);
        to.write_all(&buffer[..allowed]).await.map_err(drop)?;
        if cut {
            return Err(());
        }
        if let Some(rate) = now.rate {
            tokio::time::sleep(Duration::from_secs(1).mul_f64(allowed as f64 / rate as f64)).await;
        }
    }
}

impl Shared {
    /// How many of `wanted` bytes may pass, and whether the connection is cut after them.
    fn spend(&self, direction: Direction, wanted: usize) -> (usize, bool) {
        let mut budgets = self.budget.lock().unwrap();
        let budget = &mut budgets[direction as usize];
        let Some(left) = *budget else { return (wanted, false) };
        let allowed = wanted.min(usize::try_from(left).unwrap());
        let rest = left - allowed as u64;
        let cut = rest == 0;
        *budget = if cut { None } else { Some(rest) };
        (allowed, cut)
    }

    fn count(&self, direction: Direction, bytes: usize) {
        self.counters.send_modify(|counters| match direction {
            Direction::ToTarget => counters.to_target += bytes as u64,
            Direction::ToClient => counters.to_client += bytes as u64,
        });
    }
}
