//! The files of the page: the style sheet, and the two scripts.

use std::sync::OnceLock;

use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::response::{IntoResponse, Response};

use crate::console::compress::{gzipped, takes_gzip};
use crate::console::people::{digest, hex};

const STYLE: &str = include_str!("static/console.css");
const LIVE: &str = include_str!("static/live.js");
const ACTS: &str = include_str!("static/acts.js");

/// Returns a word that changes with the files. It stands in their addresses, which browsers keep for a year.
pub(crate) fn build() -> &'static str {
    static BUILD: OnceLock<String> = OnceLock::new();
    BUILD.get_or_init(|| hex(&digest(&format!("{STYLE}{LIVE}{ACTS}"))[..6]))
}

/// Returns one of the files, compressed where the request allows it: over a slow line that is most of the first visit.
/// Nothing in the files is a secret, nor is it made from what somebody sent.
pub(crate) fn file(name: &str, headers: &HeaderMap) -> Option<Response> {
    static SMALL: [OnceLock<Vec<u8>>; 3] = [const { OnceLock::new() }; 3];
    let (kind, text, small) = match name {
        "console.css" => ("text/css; charset=utf-8", STYLE, &SMALL[0]),
        "live.js" => ("text/javascript; charset=utf-8", LIVE, &SMALL[1]),
        "acts.js" => ("text/javascript; charset=utf-8", ACTS, &SMALL[2]),
        _ => return None,
    };
    let kind = [(CONTENT_TYPE, kind), (VARY, "accept-encoding")];
    let small: &[u8] =
        if takes_gzip(headers) { small.get_or_init(|| gzipped(text.as_bytes(), 9).unwrap_or_default()) } else { &[] };
    Some(match small {
        [] => (kind, text).into_response(),
        small => (kind, [(CONTENT_ENCODING, "gzip")], small).into_response(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::header::ACCEPT_ENCODING;

    #[test]
    fn the_files_stay_within_their_budget() {
        let bytes = STYLE.len() + LIVE.len() + ACTS.len();
        assert!(bytes <= 80 << 10, "{bytes} bytes");
    }

    #[test]
    fn case_287_a_file_is_compressed_for_whoever_takes_that() {
        let coding = |takes: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.extend(takes.map(|takes| (ACCEPT_ENCODING, takes.parse().unwrap())));
            let answer = file("console.css", &headers).unwrap();
            assert_eq!(answer.headers()[VARY], "accept-encoding");
            answer.headers().get(CONTENT_ENCODING).map(|coding| coding.to_str().unwrap().to_owned())
        };
        assert_eq!(coding(Some("gzip, deflate, br")).as_deref(), Some("gzip"));
        assert_eq!((coding(None), coding(Some("br")), coding(Some("gzip;q=0"))), (None, None, None));
        let small = [STYLE, LIVE, ACTS].map(|text| gzipped(text.as_bytes(), 9).unwrap().len());
        assert!(small.iter().sum::<usize>() <= 24 << 10, "{small:?}");
        assert!(file("none", &HeaderMap::new()).is_none());
    }

    #[test]
    fn nothing_is_assigned_as_markup_and_nothing_is_evaluated() {
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!LIVE.contains(word) && !ACTS.contains(word), "{word}");
        }
    }
}
