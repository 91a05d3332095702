//! The network between program and server: a namespace of the server's own, a veth pair of 1 Gbit/s, and a delay.
//!
//! The delay is the kernel's (`tc netem`) where it has one, else a relay's (`relay.rs`). Without the right to make a namespace,
//! relay and server are on the loopback interface. The output says which it was.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::harness::{Cluster, Stop};
use crate::machine;
use crate::relay::Relay;

/// What the veth pair carries each way.
const RATE: &str = "1gbit";

/// How the server is reached.
#[derive(Clone, Debug)]
pub struct Route {
    /// For the table.
    pub name: String,
    /// For names of slots.
    pub short: String,
    pub host: String,
    pub port: u16,
    pub tls: bool,
    /// There and back.
    delay: Duration,
}

impl Route {
    /// By the loopback interface, in plaintext.
    pub fn loopback(cluster: &Cluster) -> Route {
        let (name, short) = ("loopback".to_owned(), "lo".to_owned());
        Route { name, short, host: "127.0.0.1".to_owned(), port: cluster.port(), tls: false, delay: Duration::ZERO }
    }

    /// As libpq and our own `tls` key name it.
    pub fn tls_mode(&self) -> &'static str {
        if self.tls { "require" } else { "disable" }
    }
}

/// A server at the other end of a link.
pub struct Network {
    pub cluster: Cluster,
    place: Option<Namespace>,
    netem: bool,
    relays: Vec<(Duration, Relay)>,
}

impl Network {
    /// Makes namespace, link and server, and says what there is.
    pub async fn start() -> Network {
        let cluster = machine::server().await;
        let place = Namespace::make();
        if let Ok(place) = &place {
            // The namespace of the thread that starts the server becomes the server's.
            cluster.stop(Stop::Fast).await;
            let inside = place.enter();
            cluster.start_again().await;
            drop(inside);
        }
        let netem = place.as_ref().is_ok_and(|place| place.has_netem());
        let delay =
            if netem { "delay by tc netem" } else { "delay by a relay of this bench's own, for want of tc netem" };
        match &place {
            Ok(place) => println!("network: veth pair, {}; {delay}", place.rate),
            Err(reason) => println!("network: a relay on the loopback interface, for want of a namespace: {reason}"),
        }
        Network { cluster, place: place.ok(), netem, relays: Vec::new() }
    }

    /// A way to the server that takes `delay` there and back; the link is that way from now on.
    pub fn route(&mut self, delay: Duration, tls: bool) -> Route {
        let far = self.place.as_ref().map_or("127.0.0.1".to_owned(), |place| place.far.clone());
        let bare = self.place.is_none();
        let millis = delay.as_millis();
        let port = if self.netem || (delay.is_zero() && !bare) { self.cluster.port() } else { self.relay(delay) };
        let link = if delay.is_zero() { "veth".to_owned() } else { format!("{millis} ms") };
        let name = if tls { format!("{link}, TLS") } else { link };
        Route { name, short: format!("n{millis}{}", if tls { "t" } else { "p" }), host: far, port, tls, delay }
    }

    /// Makes the link as slow as this route is said to be.
    pub fn take(&self, route: &Route) {
        if let (Some(place), true) = (&self.place, self.netem) {
            place.delay(route.delay / 2);
        }
    }

    /// A port at the server's end that goes on to the server `delay` later.
    fn relay(&mut self, delay: Duration) -> u16 {
        if let Some((_, relay)) = self.relays.iter().find(|(known, _)| *known == delay) {
            return relay.port();
        }
        let inside = self.place.as_ref().map(Namespace::enter);
        let relay = Relay::start(self.cluster.port(), delay);
        drop(inside);
        self.relays.push((delay, relay));
        self.relays[self.relays.len() - 1].1.port()
    }

    /// A URL for the state that takes `delay` there and back, whatever the source's way is.
    pub fn state_url(&mut self, delay: Duration) -> String {
        let host = self.place.as_ref().map_or("127.0.0.1".to_owned(), |place| place.far.clone());
        format!("postgres://postgres@{host}:{}/postgres?sslmode=disable", self.relay(delay))
    }
}

/// A namespace with a veth pair to ours; gone when dropped.
struct Namespace {
    name: String,
    near_device: String,
    far_device: String,
    far: String,
    rate: String,
}

impl Namespace {
    fn make() -> Result<Namespace, String> {
        let process = std::process::id();
        // 198.18.0.0/15 is kept for measurements (RFC 2544). A network of four for each process.
        let (third, fourth) = (process / 64 % 256, process % 64 * 4);
        let (near, far) = (format!("198.18.{third}.{}", fourth + 1), format!("198.18.{third}.{}", fourth + 2));
        let name = format!("pg2planhat-{process}");
        let (near_device, far_device) = (format!("p2pn{process}"), format!("p2pf{process}"));
        run(&["ip", "netns", "add", &name])?;
        let mut made = Namespace { name, near_device, far_device, far, rate: String::new() };
        let (name, near_device, far_device) = (&made.name, &made.near_device, &made.far_device);
        run(&["ip", "link", "add", near_device, "type", "veth", "peer", "name", far_device, "netns", name])?;
        run(&["ip", "address", "add", &format!("{near}/30"), "dev", near_device])?;
        run(&["ip", "link", "set", near_device, "up"])?;
        run(&["ip", "-n", name, "address", "add", &format!("{}/30", made.far), "dev", far_device])?;
        run(&["ip", "-n", name, "link", "set", far_device, "up"])?;
        run(&["ip", "-n", name, "link", "set", "lo", "up"])?;
        let shape = ["root", "tbf", "rate", RATE, "burst", "256kb", "latency", "50ms"];
        let shaped = made.qdisc(true, &shape).and_then(|()| made.qdisc(false, &shape));
        made.rate = match shaped {
            Ok(()) => "1 Gbit/s by tc tbf".to_owned(),
            Err(reason) => format!("as fast as it goes, for want of tc tbf ({reason})"),
        };
        Ok(made)
    }

    fn qdisc(&self, far: bool, words: &[&str]) -> Result<(), String> {
        let (device, place) = if far { (&self.far_device, Some(&self.name)) } else { (&self.near_device, None) };
        let mut command = vec!["tc"];
        if let Some(name) = place {
            command.extend(["-n", name]);
        }
        command.extend(["qdisc", "replace", "dev", device]);
        command.extend(words);
        run(&command)
    }

    fn has_netem(&self) -> bool {
        self.qdisc(true, &netem("0ms")).and_then(|()| self.qdisc(false, &netem("0ms"))).is_ok()
    }

    /// Delays each way by so much.
    fn delay(&self, one_way: Duration) {
        let text = format!("{}us", one_way.as_micros());
        self.qdisc(true, &netem(&text)).and_then(|()| self.qdisc(false, &netem(&text))).unwrap();
    }

    /// What this thread starts until the guard is dropped is inside.
    fn enter(&self) -> Inside {
        let before = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        move_into(&std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap());
        Inside { before }
    }
}

/// netem's queue must hold what is under way: 1 Gbit/s for 200 ms in packets of 1,500 bytes.
fn netem(delay: &str) -> [&str; 8] {
    ["root", "netem", "delay", delay, "rate", RATE, "limit", "20000"]
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The pair goes with it.
        drop(run(&["ip", "netns", "delete", &self.name]));
    }
}

struct Inside {
    before: std::fs::File,
}

impl Drop for Inside {
    fn drop(&mut self) {
        move_into(&self.before);
    }
}

fn move_into(namespace: &std::fs::File) {
    use std::os::fd::AsFd;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn run(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", words[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{}: {}", words.join(" "), said.trim()))
}
