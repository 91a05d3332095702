//! Connection URLs and host lists, as libpq writes them. Pure.
//!
//! * In: `postgres://user:password@host:port,host:port/database?keyword=value`, or a host list alone.
//! * Out: the settings that it gives.
//! * Never: the URL itself in an error, for it may hold a password.
//!
//! tokio-postgres's own parser is not used: it refuses `sslmode=verify-full`, `sslrootcert` and their like.

use crate::model::Fault;
use crate::postgres::connection::hosts::parse_hosts;
use crate::postgres::connection::params::Password;
use crate::postgres::connection::settings::ConnectionSettings;

/// Keywords that are legal in a libpq URL and change nothing here.
const IGNORED: [&str; 10] = [
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "sslcompression",
    "tcp_user_timeout",
];

pub(crate) fn parse(text: &str) -> Result<ConnectionSettings, Fault> {
    let text = text.trim();
    let rest = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"))
        .ok_or_else(|| wrong("it does not begin with postgres://"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    // The last `@`: an unescaped one in a password is common, and unambiguous so.
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));

    let mut given = ConnectionSettings::default();
    if !hosts.is_empty() {
        given.hosts = Some(parse_hosts(&decode(hosts)?)?);
    }
    given.database = Some(decode(database)?).filter(|text| !text.is_empty());
    given.user = Some(decode(user)?).filter(|text| !text.is_empty());
    given.password = Some(decode(password)?).filter(|text| !text.is_empty()).map(Password);
    for setting in query.split('&').filter(|setting| !setting.is_empty()) {
        let (keyword, value) = setting.split_once('=').ok_or_else(|| wrong("a parameter has no `=`"))?;
        let (keyword, value) = (decode(keyword)?, decode(value)?);
        // JDBC's and others' short word for it, which libpq takes as well.
        let (keyword, value) =
            if keyword == "ssl" && value == "true" { ("sslmode", "require") } else { (&*keyword, &*value) };
        if !given.set(keyword, value)? && !IGNORED.contains(&keyword) {
            return Err(Fault::usage(
                format!(
                    "the connection URL has the parameter {keyword:?}, which is not one of libpq's that are known here"
                ),
                "take it out of the URL",
            ));
        }
    }
    Ok(given)
}

fn wrong(why: &str) -> Fault {
    Fault::usage(
        format!("the connection URL cannot be read: {why}"),
        "write postgres://user:password@host:port/database?sslmode=verify-full, special characters as %XX",
    )
}

fn decode(text: &str) -> Result<String, Fault> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = digits.filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
        let byte = byte.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|byte| *byte != 0);
        bytes.push(byte.ok_or_else(|| wrong("a `%` is not followed by two hexadecimal digits"))?);
        rest = tail.get(2..).unwrap_or_default();
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use crate::postgres::connection::hosts::HostPort;
    use proptest::prelude::*;

    use super::*;
    use crate::config::TlsMode;

    fn hosts(text: &str) -> Vec<(String, Option<u16>)> {
        parse_hosts(text).unwrap().into_iter().map(|host| (host.name, host.port)).collect()
    }

    #[test]
    fn hosts_of_every_form_are_read() {
        let expected = [("a", None), ("b", Some(1)), ("::1", None), ("::2", Some(2)), ("::3", None), ("/run/pg", None)];
        let expected = expected.map(|(name, port)| (name.to_owned(), port));
        assert_eq!(hosts("a,b:1,::1,[::2]:2,[::3],/run/pg"), expected);
        for wrong in ["a:b", "a:0", "[::1", "[::1]x", "a:70000"] {
            assert!(parse_hosts(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_url_gives_all_that_it_says() {
        let given =
            parse("postgresql://u%40x:p@:%2F@%2Frun%2Fpg,b:1/d%20b?sslmode=verify-ca&options=-c%20a%3Db").unwrap();
        let host = HostPort { name: "b".into(), port: Some(1) };
        assert_eq!(given.hosts, Some(vec![HostPort::named("/run/pg"), host]));
        assert_eq!(given.user.as_deref(), Some("u@x"));
        assert_eq!(given.password, Some(Password("p@:/".into())));
        assert_eq!(given.database.as_deref(), Some("d b"));
        assert_eq!(given.tls, Some(TlsMode::VerifyCa));
        assert_eq!(given.options.as_deref(), Some("-c a=b"));
    }

    #[test]
    fn an_empty_url_says_nothing() {
        let given = parse("postgres://").unwrap();
        assert!(given.hosts.is_none() && given.user.is_none() && given.database.is_none() && given.password.is_none());
    }

    #[test]
    fn no_error_shows_the_password() {
        let urls = [
            "host=a password=hush",
            "postgres://u:hush@a:port/d",
            "postgres://u:hu,sh:hush@a/d?x=y",
            "postgres://u:hush/x@a/d",
            "postgres://u:hush%2@a/d",
            "postgres://u:hush@a/d?sslmode=prefer",
            "postgres://u:hush@a/d?ssl",
        ];
        for url in urls {
            let fault = parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
            assert!(!fault.to_string().contains("hush"), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_without_a_panic(text: String) {
            parse(&format!("postgres://{text}")).ok();
            parse_hosts(&text).ok();
        }
    }
}
