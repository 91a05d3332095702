//! `source`, `planhat`, `state`, `admin`: the two ends and what stands beside them.
//!
//! * In: their mappings.
//! * Out: their types, with the checks that need one of them alone.
//! * Never: a connection; whether a server is there is for `check` to say.

use std::path::PathBuf;

use crate::config::config_error::Complaint;
use crate::config::decoder::{GivenSecret, Map};
use crate::config::keys::FLUSH;
use crate::config::yaml::{Node, NodeValue};
use crate::config::{
    ActivityNames, Admin, Audit, AuditEvery, Planhat, ReaderLogin, Secret, Source, StateConfig, TlsMode, names, scalar,
    section,
};

pub(crate) fn source(map: &Map<'_>) -> Source {
    let url = map.secret("url");
    let password = map.secret("password");
    check_url(map, url.as_ref());
    if url.is_some() {
        for name in ["host", "port", "database", "user"] {
            if let (Some(_), Some(at)) = (map.given(name), map.key_mark(name)) {
                let message = format!("{} stands beside url", map.path(name));
                map.report(at, message, format!("keep one: url, or {name} with its like"));
            }
        }
    }
    let holds_password = url.as_ref().and_then(|url| url.text.as_deref()).is_some_and(url_holds_password);
    if let (true, Some(password)) = (holds_password, &password) {
        let message = "password in source is given, and url holds one, too";
        map.report(password.at, message, "keep one of the two: better the password, out of the url");
    }
    let source = Source {
        url: url.map(|given| given.secret),
        host: map.read("host", names::text),
        port: map.read("port", scalar::port),
        database: map.read("database", names::identifier),
        user: map.read("user", names::identifier),
        password: password.map(|given| given.secret),
        // The default stands last, behind the URL's sslmode and PGSSLMODE.
        tls: map.given("tls").and_then(|_| map.choice("tls", tls)),
        ca: map.read("ca", path),
        cert: map.read("cert", path),
        key: map.read("key", path),
        readable_password: map.read("readable_password", scalar::boolean).unwrap_or_default(),
        schema: map.read("schema", names::identifier).unwrap_or_default(),
        slot: map.read("slot", names::slot).unwrap_or_default(),
        publication: map.read("publication", names::identifier).unwrap_or_default(),
        update_publication: map.read("update_publication", names::identifier),
        manage: map.read("manage", scalar::boolean).unwrap_or_default(),
        failover_slot: map.read("failover_slot", scalar::boolean).unwrap_or_default(),
        reader: reader(map),
    };
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if let (Some(at), None) = (map.given(one).map(|node| node.at), map.given(other)) {
            let message = format!("{} is given without {other}", map.path(one));
            map.report(at, message, format!("add `{other}: PATH`, or remove {one}"));
        }
    }
    source
}

fn reader(map: &Map<'_>) -> Option<ReaderLogin> {
    map.given("reader")?;
    let inner = map.object("reader");
    let (user, password) = (inner.read("user", names::identifier), inner.secret("password"));
    Some(ReaderLogin { user: user?, password: password.map(|given| given.secret) })
}

fn path(text: &str) -> Result<PathBuf, Complaint> {
    names::text(text).map(PathBuf::from)
}

pub(crate) fn tls(word: &str) -> Option<TlsMode> {
    match word {
        "verify-full" => Some(TlsMode::VerifyFull),
        "verify-ca" => Some(TlsMode::VerifyCa),
        "require" => Some(TlsMode::Require),
        "disable" => Some(TlsMode::Disable),
        _ => None,
    }
}

pub(crate) fn activity_names(word: &str) -> Option<ActivityNames> {
    match word {
        "current" => Some(ActivityNames::Current),
        "legacy" => Some(ActivityNames::Legacy),
        _ => None,
    }
}

/// Reports a connection URL that is none. Its text is never shown.
fn check_url(map: &Map<'_>, url: Option<&GivenSecret>) {
    let Some((at, text)) = url.and_then(|url| Some((url.at, url.text.as_deref()?))) else { return };
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        let message = format!("{} is not a connection URL", map.path("url"));
        map.report(at, message, "write postgres://user@host:5432/database");
    }
}

/// Whether a connection URL carries a password: in front of its host, or among its parameters.
fn url_holds_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = before.split('/').next().unwrap_or_default();
    // A password may hold a stray @; the last one parts it from the host. A stray / would have cut it short.
    let user = authority.rsplit_once('@').or_else(|| before.rsplit_once('@')).map(|(user, _)| user);
    user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
        || query.split('&').any(|pair| pair.strip_prefix("password=").is_some_and(|password| !password.is_empty()))
}

pub(crate) fn planhat(map: &Map<'_>) -> Planhat {
    let tenant = map.secret("tenant");
    if let Some((at, text)) = tenant.as_ref().and_then(|tenant| Some((tenant.at, tenant.text.as_deref()?)))
        && !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        // It becomes a part of the request's path.
        let message = format!("{} has characters that a tenant's UUID does not have", map.path("tenant"));
        map.report(at, message, "give the UUID alone, from Planhat's settings, without a URL, quotes or line breaks");
    }
    Planhat {
        tenant: tenant.map_or(Secret::Inline(String::new()), |given| given.secret),
        url: map.read("url", names::base_url).unwrap_or_default(),
        bulk_activity_names: map.choice("bulk_activity_names", activity_names).unwrap_or_default(),
        timeout: map.read("timeout", scalar::positive_duration).unwrap_or_default(),
        halt_probe: map.read("halt_probe", scalar::positive_duration).unwrap_or_default(),
    }
}

pub(crate) fn state(map: &Map<'_>) -> StateConfig {
    let url = map.secret("url");
    check_url(map, url.as_ref());
    StateConfig {
        schema: map.read("schema", names::own_schema).unwrap_or_default(),
        url: url.map(|given| given.secret),
        keep_deliveries: map.read("keep_deliveries", scalar::kept_for).unwrap_or_default(),
        keep_quarantine: map.read("keep_quarantine", scalar::kept_for).unwrap_or_default(),
    }
}

pub(crate) fn audit(map: &Map<'_>) -> Audit {
    let every = match map.given("every").map(|node| (node, &node.value)) {
        Some((node, NodeValue::Map(_))) => {
            let (time, zone) = section::daily(&map.within(node, FLUSH, "every"));
            AuditEvery::DailyAt(time, zone)
        }
        Some((_, NodeValue::Scalar(word, _))) if word == "off" => AuditEvery::Off,
        Some(_) | None => AuditEvery::Every(map.read("every", scalar::positive_duration).unwrap_or_default()),
    };
    Audit { every }
}

pub(crate) fn admin(map: &Map<'_>) -> Admin {
    Admin { listen: map.read("listen", names::listen).unwrap_or_default(), hosts: hosts(map) }
}

pub(crate) fn hosts(map: &Map<'_>) -> Vec<String> {
    const REMEDY: &str = "write a list of names, such as [metrics.example.com]";
    let Some(node) = map.given("hosts") else { return Vec::new() };
    let NodeValue::List(items) = &node.value else {
        map.report(node.at, format!("{} must be a list, not {}", map.path("hosts"), node.describe()), REMEDY);
        return Vec::new();
    };
    let name = |item: &Node| {
        let NodeValue::Scalar(text, _) = &item.value else {
            let what = format!("{} must hold names, not {}", map.path("hosts"), item.describe());
            map.report(item.at, what, REMEDY);
            return None;
        };
        let complain = |Complaint { message, remedy }| {
            map.report(item.at, format!("{}: {message}", map.path("hosts")), remedy);
        };
        names::host(text).map_err(complain).ok()
    };
    items.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_found() {
        for url in [
            "postgres://u:p@h/db",
            "postgresql://u:p@h:5432",
            "postgres://u:p@x@h/db",
            "postgres://u:p/w@h/db",
            "postgres://u@h/db?sslmode=require&password=x",
            "postgres:///db?password=x",
        ] {
            assert!(url_holds_password(url), "{url}");
        }
        for url in ["postgres://u@h:5432/db", "postgres://h:5432/db", "postgres://u:@h/db", "postgres:///db?password="]
        {
            assert!(!url_holds_password(url), "{url}");
        }
    }
}
