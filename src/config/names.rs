//! The text of one scalar → a name: of things in a catalog, of sections, of hosts. Pure.
//!
//! * In: text as written.
//! * Out: the name, or a complaint that says how to write it.
//! * Never: a change of case, or a quote that the catalog does not have.

use crate::config::TableName;
use crate::config::config_error::{Complaint, shown};

type NameResult<T> = Result<T, Complaint>;

/// PostgreSQL's longest identifier (NAMEDATALEN - 1).
const LONGEST: usize = 63;

/// Any text but the empty one.
pub(crate) fn text(text: &str) -> NameResult<String> {
    match text {
        "" => Err(Complaint::new("an empty value", "write a value, or remove the key")),
        _ => Ok(text.to_owned()),
    }
}

/// A name as the catalog has it.
pub(crate) fn identifier(name: &str) -> NameResult<String> {
    if name.len() > LONGEST {
        return Err(Complaint::new(
            format!("the name {} is {} bytes long", shown(name), name.len()),
            format!("PostgreSQL's names have at most {LONGEST} bytes: write the name as the catalog has it"),
        ));
    }
    text(name)
}

/// A schema that may be created: PostgreSQL keeps `pg_…` to itself.
pub(crate) fn own_schema(name: &str) -> NameResult<String> {
    if name.starts_with("pg_") {
        return Err(Complaint::new(
            format!("PostgreSQL reserves schema names such as {}", shown(name)),
            "write a name that does not begin with pg_, such as pg2planhat",
        ));
    }
    identifier(name)
}

/// The name of a replication slot.
pub(crate) fn slot(name: &str) -> NameResult<String> {
    let fine = (1..=LONGEST).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if fine {
        return Ok(name.to_owned());
    }
    Err(Complaint::new(
        format!("{} is not a slot name", shown(name)),
        "PostgreSQL allows 1 to 63 of a-z, 0-9 and _, such as pg2planhat",
    ))
}

pub(crate) fn section(name: &str) -> NameResult<String> {
    let fine = (1..=LONGEST).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fine {
        return Ok(name.to_owned());
    }
    Err(Complaint::new(
        format!("{} is not a section name", shown(name)),
        "write 1 to 63 of a-z, A-Z, 0-9, _ and -, such as logins",
    ))
}

/// `table`, `schema.table`, either part in SQL's double quotes where it holds a dot or a quote.
pub(crate) fn table(text: &str, default_schema: &str) -> NameResult<TableName> {
    let complain = |why: &str| {
        Complaint::new(
            format!("{} is not a table name: {why}", shown(text)),
            "write table or schema.table, each as the catalog has it; a part with a dot or a quote like SQL: '\"my.schema\".\"my table\"'",
        )
    };
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_part(quoted).ok_or_else(|| complain("a quote is not closed"))?,
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(complain("a quote in the middle of a part"));
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if part.is_empty() {
            return Err(complain("a part is empty"));
        }
        parts.push(identifier(&part)?);
        match behind.strip_prefix('.') {
            Some(next) => rest = next,
            None if behind.is_empty() => break,
            None => return Err(complain("something follows a closing quote")),
        }
    }
    match <[String; 2]>::try_from(parts) {
        Ok([schema, name]) => Ok(TableName { schema, name }),
        Err(mut parts) if parts.len() == 1 => {
            Ok(TableName { schema: default_schema.to_owned(), name: parts.remove(0) })
        }
        Err(_) => Err(complain("it has more than two parts")),
    }
}

/// Reads up to the closing quote; a doubled quote is one. Returns what is behind it, too.
fn quoted_part(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let (before, behind) = rest.split_once('"')?;
        part.push_str(before);
        match behind.strip_prefix('"') {
            Some(next) => {
                part.push('"');
                rest = next;
            }
            None => return Some((part, behind)),
        }
    }
}

/// `address:port`, `[address]:port` or `name:port`.
pub(crate) fn listen(text: &str) -> NameResult<String> {
    let named = |text: &str| {
        text.rsplit_once(':').is_some_and(|(host, port)| {
            let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
            // Digits and dots alone would be an address, and a good one is a SocketAddr already.
            host.bytes().all(fine) && host.bytes().any(|b| b.is_ascii_alphabetic()) && port.parse::<u16>().is_ok()
        })
    };
    if text.parse::<std::net::SocketAddr>().is_ok() || named(text) {
        return Ok(text.to_owned());
    }
    Err(Complaint::new(
        format!("{} is not an address to listen on", shown(text)),
        "write address:port, such as 127.0.0.1:9187 or \"[::1]:9187\"",
    ))
}

/// A name that a request's Host header may have, without its port.
pub(crate) fn host(text: &str) -> NameResult<String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if !text.is_empty() && text.bytes().all(fine) {
        return Ok(text.to_owned());
    }
    Err(Complaint::new(
        format!("{} is not a host name", shown(text)),
        "write the name alone, without scheme, port or wildcard, such as metrics.example.com",
    ))
}

/// The base URL of the sink, without trailing slashes. Its text is in no complaint: it may hold what it should not.
pub(crate) fn base_url(text: &str) -> NameResult<String> {
    const REMEDY: &str = "write the scheme and the host alone, such as https://analytics.planhat.com";
    let complain = |why: &str| Complaint::new(format!("the URL of Planhat {why}"), REMEDY);
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return Err(complain("begins with neither https:// nor http://"));
    };
    if rest.contains(['?', '#']) {
        return Err(complain("has a query or a fragment"));
    }
    if rest.contains('@') {
        return Err(complain("has a user or a password"));
    }
    if rest.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '\\' | '"' | '<' | '>')) {
        return Err(complain("has a character that a URL may not have"));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => match port.parse::<u16>() {
            Ok(_) => host,
            Err(_) => return Err(complain("has a bad port")),
        },
        Some(_) | None => authority,
    };
    if host.is_empty() {
        return Err(complain("has no host"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(schema: &str, name: &str) -> TableName {
        TableName { schema: schema.into(), name: name.into() }
    }

    #[test]
    fn table_names() {
        for (text, expected) in [
            ("app_event", named("public", "app_event")),
            ("App Event", named("public", "App Event")),
            ("s.t", named("s", "t")),
            (r#""My.Schema"."T""x""#, named("My.Schema", "T\"x")),
            (r#"s."a.b""#, named("s", "a.b")),
            (r#""a.b""#, named("public", "a.b")),
        ] {
            assert_eq!(table(text, "public"), Ok(expected), "{text}");
        }
        let long = "x".repeat(64);
        for text in ["", ".", "s.", ".t", "a.b.c", "\"a", "\"a\"b", "a\"b", "\"\"", "s.\"\"", long.as_str()] {
            assert!(table(text, "public").is_err(), "{text}");
        }
    }

    #[test]
    fn slots_sections_and_schemas() {
        let longest = "x".repeat(63);
        assert!(slot("pg2planhat_1").is_ok() && slot(&longest).is_ok() && section("A-b_1").is_ok());
        for bad in ["", "A", "a-b", "ä", "xx\u{0}", &"x".repeat(64)] {
            assert!(slot(bad).is_err(), "{bad}");
        }
        for bad in ["", "a b", "a.b", "é", &"x".repeat(64)] {
            assert!(section(bad).is_err(), "{bad}");
        }
        assert!(identifier("ü").is_ok() && identifier(&"ü".repeat(32)).is_err() && identifier("").is_err());
        assert!(own_schema("pg_mine").is_err() && own_schema("pg2planhat").is_ok());
    }

    #[test]
    fn places_on_the_network() {
        for text in ["127.0.0.1:9187", "[::1]:9187", "0.0.0.0:0", "localhost:9187", "my-host.internal:80"] {
            assert_eq!(listen(text), Ok(text.to_owned()));
        }
        for text in ["", ":9187", "9187", "127.0.0.1", "127.0.0.1:99999", "300.1.1.1:80", "a b:80", "localhost:"] {
            assert!(listen(text).is_err(), "{text}");
        }
        assert_eq!(base_url("https://analytics.planhat.com/"), Ok("https://analytics.planhat.com".into()));
        assert_eq!(base_url("http://127.0.0.1:8080/base//"), Ok("http://127.0.0.1:8080/base".into()));
        assert_eq!(base_url("http://[::1]:8080"), Ok("http://[::1]:8080".into()));
        assert_eq!(base_url("http://[::1]"), Ok("http://[::1]".into()));
        for text in [
            "",
            "ftp://x",
            "analytics.planhat.com",
            "https://",
            "https:///x",
            "https://h?q=1",
            "https://h#f",
            "https://u:hunter2@h",
            "https://h:99999",
            "https://:80",
            "https://a b",
        ] {
            let complaint = base_url(text).unwrap_err();
            assert!(!format!("{complaint:?}").contains("hunter2"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_table_name_reads_back(schema in "[^\u{0}]{1,15}", name in "[^\u{0}]{1,15}") {
            let quote = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
            let text = format!("{}.{}", quote(&schema), quote(&name));
            prop_assert_eq!(table(&text, "public"), Ok(named(&schema, &name)));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,20}") {
            let _ = (table(&text, "public").is_ok(), listen(&text).is_ok(), base_url(&text).is_ok());
        }
    }
}
