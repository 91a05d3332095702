//! The two files of the page: the style sheet and the script.

use std::sync::OnceLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::console::people::{digest, hex};

const STYLE: &str = include_str!("static/console.css");
const SCRIPT: &str = include_str!("static/live.js");

/// Returns a word that changes with the files. It stands in their addresses, which browsers keep for a year.
pub(crate) fn build() -> &'static str {
    static BUILD: OnceLock<String> = OnceLock::new();
    BUILD.get_or_init(|| hex(&digest(&format!("{STYLE}{SCRIPT}"))[..6]))
}

/// Returns one of the files.
pub(crate) fn file(name: &str) -> Option<Response> {
    let (kind, text) = match name {
        "console.css" => ("text/css; charset=utf-8", STYLE),
        "live.js" => ("text/javascript; charset=utf-8", SCRIPT),
        _ => return None,
    };
    Some(([(CONTENT_TYPE, kind)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_stay_within_their_budget() {
        assert!(STYLE.len() + SCRIPT.len() <= 80 << 10, "{} bytes", STYLE.len() + SCRIPT.len());
        assert!(SCRIPT.lines().count() <= 400);
    }

    #[test]
    fn nothing_is_assigned_as_markup_and_nothing_is_evaluated() {
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!SCRIPT.contains(word), "{word}");
        }
    }
}
