//! Compression of pages and files: over a slow line it is most of the first visit.
//!
//! * In: an answer, and the headers of its request.
//! * Out: the answer, compressed where the browser takes that.
//! * Never: a page compressed that another site made the browser ask for, because its length would tell that site what
//!   stands in it; a stream, which must not be held back.

use std::io::Write as _;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

/// The header by which a browser says which site made it ask.
pub(crate) const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A page of fewer bytes goes by one packet anyway.
const WORTH: u64 = 1200;

/// Returns the page, compressed if the browser takes that, and asked for it by itself.
pub(crate) async fn smaller(headers: &HeaderMap, answer: Response) -> Response {
    let site = headers.get(FETCH_SITE).and_then(|site| site.to_str().ok());
    let own = matches!(site, Some("same-origin" | "none"));
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let page = kind.starts_with("text/html") && answer.body().size_hint().exact().is_some_and(|size| size >= WORTH);
    if !own || !page || !takes_gzip(headers) {
        return answer;
    }
    let (mut head, body) = answer.into_parts();
    // The body is in memory already.
    let Ok(bytes) = to_bytes(body, usize::MAX).await else { return Response::from_parts(head, Body::empty()) };
    let Ok(small) = gzipped(&bytes, 1) else { return Response::from_parts(head, Body::from(bytes)) };
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    Response::from_parts(head, Body::from(small))
}

/// Returns whether the request takes gzip. One that gives it a weight of its own gets the text as it is.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let given = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|given| given.to_str().ok());
    given.flat_map(|given| given.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("gzip"))
}

/// Compresses a text. A page is drawn for each request, and gets the least `effort`; a file once.
pub(crate) fn gzipped(text: &[u8], effort: u32) -> std::io::Result<Vec<u8>> {
    let mut small = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(effort));
    small.write_all(text)?;
    small.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::{Html, IntoResponse as _};
    use std::io::Read as _;

    #[tokio::test]
    async fn case_287_a_page_is_compressed_for_its_own_site_alone() {
        let page = "<p>a page</p>".repeat(200);
        let ask = async |site: Option<&str>, takes: &str, page: Response| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, takes.parse().unwrap());
            headers.extend(site.map(|site| (FETCH_SITE, site.parse().unwrap())));
            let answer = smaller(&headers, page).await;
            let small = answer.headers().get(CONTENT_ENCODING).is_some();
            (small, to_bytes(answer.into_body(), usize::MAX).await.unwrap())
        };
        let html = || Html(page.clone()).into_response();
        for (site, takes, expected) in [
            (Some("same-origin"), "gzip, deflate, br", true),
            (Some("none"), "gzip", true),
            (Some("none"), "br", false),
            (Some("cross-site"), "gzip", false),
            (Some("same-site"), "gzip", false),
            (None, "gzip", false),
        ] {
            let (small, body) = ask(site, takes, html()).await;
            assert_eq!(small, expected, "{site:?} {takes}");
            let mut text = String::new();
            match small {
                true => flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap(),
                false => body.as_ref().read_to_string(&mut text).unwrap(),
            };
            assert_eq!(text, page);
        }
        assert!(!ask(Some("none"), "gzip", page.clone().into_response()).await.0, "no page");
        assert!(!ask(Some("none"), "gzip", Html("short").into_response()).await.0, "not worth it");
    }
}
