//! What must hold between keys of different rooms of the file.
//!
//! * In: decoded parts.
//! * Out: reports.
//! * Never: a value changed to fit.

use crate::config::Section;
use crate::config::config_error::Mark;
use crate::config::decoder::Map;

/// The least memory that is of any use.
const LEAST_MEMORY: u64 = 4 << 20;

/// Memory must hold what a section has under way, and one batch more, which is filled meanwhile.
pub(crate) fn memory(map: &Map<'_>, memory: Option<(Mark, u64)>, sections: &[Section]) {
    let Some((at, memory)) = memory else { return };
    if memory < LEAST_MEMORY {
        map.report(
            at,
            format!("memory of {memory} bytes is less than 4MiB ({LEAST_MEMORY} bytes)"),
            "write at least 4MiB; 64MiB is the default",
        );
    }
    let batches = |section: &Section| u64::from(section.batch.in_flight) + 1;
    let held = |section: &&Section| section.batch.bytes.saturating_mul(batches(section));
    let Some(largest) = sections.iter().max_by_key(held) else { return };
    let (bytes, batches, needed) = (largest.batch.bytes, batches(largest), held(&largest));
    if memory < needed {
        map.report(
            at,
            format!(
                "memory is {memory} bytes, less than {} of section \"{}\": {batches} × {bytes} = {needed} bytes",
                if batches == 2 {
                    "two batches".to_owned()
                } else {
                    format!("the {batches} batches (batch.in_flight + 1)")
                },
                largest.name
            ),
            format!("write `memory: {}MiB` or more, or a smaller batch.bytes there", needed.div_ceil(1 << 20)),
        );
    }
}

/// The admin port and the console listen each at an address of its own.
pub(crate) fn listeners(console: &Map<'_>, admin: &str, listen: Option<&str>) {
    let (Some(listen), Some(node)) = (listen, console.given("listen")) else { return };
    if clash(admin, listen) {
        let message = format!("{} is {listen}, where the admin port listens ({admin})", console.path("listen"));
        console.report(node.at, message, "give each a port of its own: 9188 for the console, 9187 for admin.listen");
    }
}

/// Whether only one of two can listen: one port, at one address or at all of them. Port 0 is any free one.
fn clash(one: &str, other: &str) -> bool {
    let parts = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        Some((host.replace("localhost", "127.0.0.1"), port.parse::<u16>().ok().filter(|port| *port != 0)?))
    };
    let all = |host: &str| matches!(host, "0.0.0.0" | "[::]");
    match (parts(one), parts(other)) {
        (Some((host, port)), Some((beside, same))) => port == same && (host == beside || all(&host) || all(&beside)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_259_two_ports_do_not_listen_at_one_address() {
        for (one, other, expected) in [
            ("127.0.0.1:9187", "127.0.0.1:9187", true),
            ("127.0.0.1:9187", "localhost:9187", true),
            ("0.0.0.0:9187", "127.0.0.1:9187", true),
            ("127.0.0.1:9187", "[::]:9187", true),
            ("127.0.0.1:9187", "127.0.0.1:9188", false),
            ("127.0.0.1:9187", "10.0.0.1:9187", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            assert_eq!(clash(one, other), expected, "{one} {other}");
        }
        let text = "planhat: { tenant: t }\nadmin: { listen: 127.0.0.1:9187 }\nconsole: { listen: 127.0.0.1:9187 }\nsections:\n  - \
            { name: a, kind: user_activity, table: t, key: id, fields: { email: e } }\n";
        let errors = crate::config::parse(text, "test").unwrap_err().to_string();
        assert!(errors.contains("where the admin port listens"), "{errors}");
    }
}
