//! Lists of hosts and ports, as libpq writes them. Pure.
//!
//! * In: `host:port,host:port`, with IPv6 brackets and socket directories.
//! * Out: [`HostPort`]s.
//! * Never: a name resolved.

use std::net::Ipv6Addr;

use crate::model::Fault;

pub(crate) const DEFAULT_PORT: u16 = 5432;

/// One of the hosts of a list, with its own port where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub name: String,
    pub port: Option<u16>,
}

impl HostPort {
    pub(crate) fn named(name: &str) -> HostPort {
        HostPort { name: name.to_owned(), port: None }
    }
}

/// `a`, `a,b:5433`, `[::1]:5433`, `::1`, `/var/run/postgresql`.
pub(crate) fn parse_hosts(text: &str) -> Result<Vec<HostPort>, Fault> {
    text.split(',').map(|host| parse_host(host.trim())).collect()
}

pub(crate) fn parse_host(text: &str) -> Result<HostPort, Fault> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(HostPort::named(text));
    }
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']').ok_or_else(|| bad_host(text))?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':').ok_or_else(|| bad_host(text))?),
            };
            // A zone (`fe80::1%eth0`) is for the resolver to judge.
            (address, port)
        }
        None => text.rsplit_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0).ok_or_else(|| bad_host(text))?),
    };
    let name = if name.is_empty() { "localhost" } else { name };
    Ok(HostPort { name: name.to_owned(), port })
}

pub(crate) fn bad_host(text: &str) -> Fault {
    // A password with an unescaped comma or slash ends up in here, so the text is not shown.
    let length = text.chars().count();
    Fault::usage(
        format!("a host of {length} characters cannot be read"),
        "write host, host:port, [IPv6 address]:port or the directory of a Unix socket; in a URL write special characters of the password as %XX",
    )
}
