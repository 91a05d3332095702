//! The check of a request's Host header: the guard against DNS rebinding.
//!
//! A stranger's web page can make a browser inside the network ask this port, once the stranger's DNS name resolves to it.
//! Such a request carries the stranger's *name*. So addresses pass, and names only if no stranger can own them.
//!
//! * In: the address that the port listens on, names given in the configuration, and a request's Host.
//! * Out: yes or no.
//! * Never: a look-up.
//!
//! What asks in practice: the kubelet and a PodMonitor send `IP:port`; a Service is scraped as `name.namespace.svc`; compose and
//! a local Prometheus send a single label; a person sends `localhost`. `name.namespace`, the short form of a Service, is refused:
//! it cannot be told from a public name.

use std::net::IpAddr;

/// The Host names that are accepted.
#[derive(Clone, Debug)]
pub struct Hosts {
    named: Vec<String>,
    /// Whether names are accepted that only a private network resolves, beside those of the loopback interface.
    private_names: bool,
}

impl Hosts {
    /// For a port that listens on `listen` (`host:port`), with further names of it.
    pub fn new<S: AsRef<str>>(listen: &str, further: &[S]) -> Hosts {
        let own = without_port(listen).unwrap_or(listen);
        let loopback = address(own).map_or_else(|| own.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback());
        let further = further.iter().map(|name| name.as_ref());
        let named = further.chain([own]).filter(|name| !name.is_empty()).map(normal).collect();
        Hosts { named, private_names: !loopback }
    }

    /// Whether a request with this Host (or authority) is for us.
    pub fn allow(&self, host: &str) -> bool {
        let Some(host) = without_port(host) else { return false };
        if address(host).is_some() {
            return true;
        }
        let host = normal(host);
        if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
            return false;
        }
        let local = host == "localhost" || host.ends_with(".localhost");
        // Nobody can register these: names without a dot and `.svc` are not public domains, and `.local` is reserved.
        let private = !host.contains('.') || host.ends_with(".svc") || host.ends_with(".svc.cluster.local");
        local || self.named.contains(&host) || (self.private_names && private)
    }
}

fn normal(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn address(host: &str) -> Option<IpAddr> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.map_or_else(|| host.parse().ok(), |v6| v6.parse().ok().filter(IpAddr::is_ipv6))
}

/// The host of `host`, `host:port` or `[v6]:port`; `None` where the rest is no port.
fn without_port(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (host, rest) = host.split_at(end);
    let port = rest.strip_prefix(':').map_or(rest.is_empty(), |port| port.parse::<u16>().is_ok());
    port.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &[&str] = &[];

    #[test]
    fn addresses_and_localhost_pass_everywhere() {
        for listen in ["127.0.0.1:9187", "[::1]:9187", "0.0.0.0:9187"] {
            let hosts = Hosts::new(listen, NONE);
            for host in [
                "127.0.0.1",
                "127.0.0.1:9187",
                "10.2.3.4:9187",
                "[::1]:9187",
                "[fd00::7]",
                "LocalHost:9187",
                "a.localhost",
            ] {
                assert!(hosts.allow(host), "{listen} {host}");
            }
        }
    }

    #[test]
    fn names_that_a_stranger_can_own_never_pass() {
        for listen in ["127.0.0.1:9187", "0.0.0.0:9187"] {
            let hosts = Hosts::new(listen, NONE);
            for host in [
                "evil.example",
                "evil.example:9187",
                "pg2planhat.monitoring",
                "svc.evil.example",
                "127.0.0.1.evil.example",
                "localhost.evil.example",
                "",
                ":9187",
                "localhost:x",
                "localhost:9187@evil.example",
                "evil.example:80:80",
                "[::1",
                "[evil.example]",
                "a b",
            ] {
                assert!(!hosts.allow(host), "{listen} {host:?}");
            }
        }
    }

    #[test]
    fn names_of_a_private_network_pass_only_where_one_listens_to_it() {
        let names =
            ["pg2planhat:9187", "pg2planhat.monitoring.svc:9187", "p.m.svc.cluster.local.", "P.M.SVC.cluster.local"];
        for name in names {
            assert!(Hosts::new("0.0.0.0:9187", NONE).allow(name), "{name}");
            assert!(!Hosts::new("127.0.0.1:9187", NONE).allow(name), "{name}");
            assert!(!Hosts::new("localhost:9187", NONE).allow(name), "{name}");
        }
    }

    #[test]
    fn configured_names_and_the_bound_one_pass() {
        let hosts = Hosts::new("streamer.example.com:9187", &["metrics.example.com"]);
        assert!(hosts.allow("streamer.example.com:9187"));
        assert!(hosts.allow("Metrics.example.com"));
        assert!(!hosts.allow("other.example.com"));
    }
}
