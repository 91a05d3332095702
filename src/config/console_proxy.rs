//! `proxy` of `console`: a proxy that has asked who somebody is, and says so in headers.
//!
//! * In: its mapping.
//! * Out: a [`ConsoleProxy`].
//! * Never: a proxy that may be anywhere.

use std::net::IpAddr;

use crate::config::decoder::Map;
use crate::config::names;
use crate::config::yaml::{Node, NodeValue};

/// A proxy in front of the console whose headers say who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleProxy {
    /// Where it comes from; headers of everybody else count nothing.
    pub from: Vec<AddressRange>,
    /// The header that has the user's name.
    pub user: String,
    /// The header that has the user's groups, separated by commas.
    pub groups: Option<String>,
    /// Groups, and users, that are operators; everybody else that the proxy lets through is a viewer.
    pub operators: Vec<String>,
}

/// Addresses that begin with the same bits: `10.2.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    address: IpAddr,
    bits: u8,
}

impl AddressRange {
    /// From `address/bits`, or one address.
    pub(crate) fn parse(text: &str) -> Option<AddressRange> {
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = if text.contains('/') { bits.parse().ok()? } else { most };
        (bits > 0 && bits <= most).then_some(AddressRange { address, bits })
    }

    /// Whether this address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let number = |address: IpAddr| match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 4),
            IpAddr::V6(address) => match address.to_ipv4_mapped() {
                Some(address) => (u128::from(u32::from(address)) << 96, 4),
                None => (u128::from(address), 6),
            },
        };
        let ((own, own_family), (other, family)) = (number(self.address), number(address));
        own_family == family && (own ^ other) >> (128 - u32::from(self.bits)) == 0
    }
}

impl ConsoleProxy {
    /// Whether somebody is an operator whom the proxy names.
    pub fn is_operator(&self, user: &str, groups: &str) -> bool {
        let listed = |name: &str| self.operators.iter().any(|known| known == name.trim());
        listed(user) || groups.split(',').any(listed)
    }
}

/// Decodes it.
pub(crate) fn proxy(map: &Map<'_>) -> Option<ConsoleProxy> {
    map.given("proxy")?;
    let own = map.object("proxy");
    let from = list(&own, "from", "write a list of address ranges, such as [10.2.0.0/16]")
        .into_iter()
        .filter_map(|(node, text)| {
            let range = AddressRange::parse(&text);
            if range.is_none() {
                let what = format!("{} has {text:?}, which is no range of addresses", own.path("from"));
                own.report(node.at, what, "write address/bits, such as 10.2.0.0/16 or 10.2.0.7");
            }
            range
        })
        .collect();
    let header = |name: &str| {
        let text = own.read(name, names::text)?;
        let fine = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if let (false, Some(node)) = (fine, own.given(name)) {
            own.report(node.at, format!("{} is no header's name", own.path(name)), "such as X-Forwarded-User");
        }
        fine.then_some(text)
    };
    let (user, groups) = (header("user"), header("groups"));
    let operators = list(&own, "operators", "write a list of groups or users, such as [data-platform]");
    let operators = operators.into_iter().map(|(_, text)| text).collect();
    Some(ConsoleProxy { from, user: user?, groups, operators })
}

/// A list of texts, each with its node.
fn list<'a>(map: &Map<'a>, key: &str, remedy: &str) -> Vec<(&'a Node, String)> {
    let Some(node) = map.given(key) else { return Vec::new() };
    let NodeValue::List(items) = &node.value else {
        map.report(node.at, format!("{} must be a list, not {}", map.path(key), node.describe()), remedy);
        return Vec::new();
    };
    let mut texts = Vec::new();
    for item in items {
        match &item.value {
            NodeValue::Scalar(text, _) => texts.push((item, text.to_string())),
            NodeValue::List(_) | NodeValue::Map(_) => {
                map.report(item.at, format!("{} must hold texts, not {}", map.path(key), item.describe()), remedy)
            }
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_begins_alike() {
        let holds = |range: &str, address: &str| AddressRange::parse(range).unwrap().contains(address.parse().unwrap());
        for (range, address, inside) in [
            ("10.2.0.0/16", "10.2.255.1", true),
            ("10.2.0.0/16", "10.3.0.1", false),
            ("10.2.0.0/16", "::ffff:10.2.0.1", true),
            ("10.2.0.7", "10.2.0.7", true),
            ("10.2.0.7", "10.2.0.8", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.2.0.1", false),
            ("127.0.0.1/32", "::1", false),
        ] {
            assert_eq!(holds(range, address), inside, "{range} {address}");
        }
        for wrong in ["", "10.2.0.0/33", "10.2.0.0/0", "10.2/16", "host", "10.2.0.0/x"] {
            assert!(AddressRange::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_group_or_a_user_is_operator() {
        let proxy = ConsoleProxy {
            from: Vec::new(),
            user: "X".into(),
            groups: Some("Y".into()),
            operators: vec!["data-platform".into(), "maria".into()],
        };
        assert!(proxy.is_operator("ana", "sales, data-platform"));
        assert!(proxy.is_operator("maria", ""));
        assert!(!proxy.is_operator("ana", "data,platform"));
    }
}
