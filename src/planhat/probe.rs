//! Whether the sink can be reached, without sending anything that counts.
//!
//! * In: the configuration.
//! * Out: findings for `check`.
//! * Never: a tenant in the request, or an item: Planhat keeps whatever it is sent.
//!
//! `GET` on the route of metrics, without a tenant: Planhat has nothing there and says so with some 4xx. What answers with a
//! page, or sends one on, is somebody else.

use crate::config::Planhat;
use crate::model::{Fault, Finding};
use crate::planhat::client::{Client, Looked};
use crate::planhat::request::base;

const SUBJECT: &str = "sink";

/// Probes the sink.
pub(crate) async fn probe(planhat: &Planhat) -> Finding {
    let found = async {
        let client = Client::new(planhat)?;
        if planhat.tenant.reveal()?.trim().is_empty() {
            return Err(Fault::usage("planhat.tenant is empty", "set it to the tenant UUID that Planhat shows"));
        }
        let mut url = base(&planhat.url)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("dimensiondata");
        }
        Ok(client.look(url).await)
    };
    match found.await {
        Ok(looked) => judge(&planhat.url, looked),
        Err(fault) => Finding::of(fault, "sink_settings", SUBJECT),
    }
}

fn judge(url: &str, looked: Result<Looked, String>) -> Finding {
    let looked = match looked {
        Ok(looked) => looked,
        Err(why) => {
            let remedy = unreachable(&why);
            return Finding::error("sink_unreachable", SUBJECT, format!("{url} cannot be reached: {why}"), remedy);
        }
    };
    let page =
        looked.content_type.to_ascii_lowercase().contains("html") || looked.body.trim_ascii_start().starts_with(b"<");
    let status = looked.status;
    match status {
        300..=399 => Finding::error(
            "sink_redirect",
            SUBJECT,
            format!(
                "{url} answers {status} and sends on to {:?}: redirects are never followed",
                host_of(&looked.location)
            ),
            "set planhat.url to where the sink is; or let this machine past the page that stands between",
        ),
        407 => Finding::error(
            "sink_proxy",
            SUBJECT,
            "the proxy wants to know who asks (407)",
            "put user and password into HTTPS_PROXY, or the sink's host into NO_PROXY",
        ),
        200..=299 if page => Finding::error(
            "sink_page",
            SUBJECT,
            format!("{url} answers with a web page: somebody else answers in Planhat's place"),
            "check planhat.url, and what stands between (a proxy, a login page, a firewall)",
        ),
        500..=599 => Finding::warning(
            "sink_failing",
            SUBJECT,
            format!("{url} answers {status}"),
            "wait: while it lasts, rows wait in PostgreSQL",
        ),
        _ => Finding::ok("sink", SUBJECT, format!("{url} answers")),
    }
}

/// What to do about a sink that cannot be reached.
fn unreachable(why: &str) -> &'static str {
    if why.contains("certificate") {
        "if a proxy here opens TLS, or the sink has an authority of your own: put that authority's certificate into the \
         system's store, or name a PEM file with all authorities to trust in the variable SSL_CERT_FILE; rows wait in \
         PostgreSQL meanwhile"
    } else if why.contains("corrupt message") {
        "what answers there does not speak TLS: check the port of planhat.url, and that HTTPS_PROXY names a proxy; rows wait \
         in PostgreSQL meanwhile"
    } else {
        "check planhat.url, DNS, the firewall and the proxy variables (HTTPS_PROXY, NO_PROXY); rows wait in PostgreSQL meanwhile"
    }
}

/// The host alone: the rest of a location may hold anything.
fn host_of(location: &str) -> String {
    let host = reqwest::Url::parse(location).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.unwrap_or_else(|| "another path".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(status: u16, content_type: &str, location: &str, body: &[u8]) -> &'static str {
        let (content_type, location) = (content_type.to_owned(), location.to_owned());
        judge("http://x", Ok(Looked { status, content_type, location, body: body.to_vec() })).code
    }

    #[test]
    fn what_answers_is_told_apart() {
        assert_eq!(code(404, "text/html", "", b"<pre>Cannot GET /dimensiondata</pre>"), "sink");
        assert_eq!(code(200, "text/html; charset=utf-8", "", b"log in"), "sink_page");
        assert_eq!(code(200, "", "", b" <!doctype html>"), "sink_page");
        assert_eq!(code(302, "", "https://portal.example/login?x=secret", b""), "sink_redirect");
        assert_eq!(code(407, "", "", b""), "sink_proxy");
        assert_eq!(code(503, "", "", b""), "sink_failing");
        assert_eq!(judge("http://x", Err("connection refused".into())).code, "sink_unreachable");
        let remedy = |why: &str| judge("https://x", Err(why.to_owned())).remedy;
        assert!(remedy("invalid peer certificate: UnknownIssuer").contains("SSL_CERT_FILE"), "case 259");
        assert!(
            remedy("received corrupt message of type InvalidContentType").contains("does not speak TLS"),
            "case 259"
        );
        assert!(remedy("connection refused").contains("HTTPS_PROXY"), "case 259");
        assert_eq!(host_of("https://portal.example/login?x=secret"), "portal.example");
    }
}
