use super::*;
use proptest::prelude::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn reply(status: u16, body: &[u8]) -> Reply<'_> {
    Reply { status, body, whole: true, ..Reply::default() }
}

fn verdict(status: u16, body: &str) -> Verdict {
    read(&reply(status, body.as_bytes()), NOW).verdict
}

fn refused(body: &str) -> Vec<(Option<Echo>, String)> {
    let Verdict::Partial(items) = verdict(200, body) else { panic!("{body}") };
    items.into_iter().map(|refused| (refused.item, refused.error)).collect()
}

/// The table in docs/planhat.md, and every status that it does not name.
#[test]
fn every_status_has_its_verdict() {
    for status in 0..=1000 {
        let expected = match status {
            200..=299 => "received",
            400 | 409 | 422 => "bad item",
            413 => "too large",
            408 | 425 | 429 | 503 => "later",
            500..=1000 => "unknown",
            _ => "environment",
        };
        let found = match verdict(status, "whatever") {
            Verdict::Received => "received",
            Verdict::BadItem => "bad item",
            Verdict::TooLarge => "too large",
            Verdict::Later { retry_after: None } => "later",
            Verdict::Environment { remedy } => {
                assert!(remedy.contains("planhat."), "{status}: {remedy}");
                "environment"
            }
            Verdict::Unknown => "unknown",
            Verdict::Partial(_)
            | Verdict::Later { retry_after: Some(_) }
            | Verdict::NotSent
            | Verdict::Interrupted
            | Verdict::Unreadable => "wrong",
        };
        assert_eq!(found, expected, "{status}");
    }
}

#[test]
fn planhats_own_example_names_its_item() {
    let body = r#"{"processed":1,"errors":[{"item":{"value":1,"externalId":"my_id","model":"Company"},"error":"dimensionId must be specified"}]}"#;
    let answer = read(&reply(200, body.as_bytes()), NOW);
    assert_eq!(answer.message, "200: 1 refused: dimensionId must be specified");
    let item = Echo::of(br#"{"model":"Company","value":1,"externalId":"my_id"}"#);
    assert_eq!(
        answer.verdict,
        Verdict::Partial(vec![SinkRejection { item, error: "dimensionId must be specified".into() }])
    );
}

#[test]
fn any_other_success_is_acceptance() {
    for body in [
        "",
        "  \r\n",
        "OK",
        "null",
        "true",
        "[]",
        r#"["errors"]"#,
        "{}",
        r#"{"processed":3}"#,
        r#"{"processed":3,"errors":[]}"#,
        r#"{"errors":null}"#,
        r#"{"errors":""}"#,
        r#"{"errors":{ }}"#,
        r#"{"errors":false}"#,
        r#"{"errors":0}"#,
        "{not json}",
        "<3 it",
        "\u{feff}{\"processed\":1}",
    ] {
        let answer = read(&reply(200, body.as_bytes()), NOW);
        assert_eq!((answer.verdict, answer.message), (Verdict::Received, String::new()), "{body}");
    }
    let express = Reply { content_type: Some("text/html; charset=utf-8"), ..reply(200, b"OK") };
    assert_eq!(read(&express, NOW).verdict, Verdict::Received);
    let said = read(&reply(200, br#"{"error":"slow down"}"#), NOW);
    assert_eq!((said.verdict, said.message.as_str()), (Verdict::Received, "200, saying: slow down"));
}

#[test]
fn odd_errors_are_still_refusals() {
    let none = "no reason was given".to_owned();
    let cases = [
        (r#"{"errors":["bad"]}"#, vec![(None, "bad".into())]),
        (r#"{"errors":[null]}"#, vec![(None, none.clone())]),
        (r#"{"errors":[{}]}"#, vec![(None, "{}".into())]),
        (r#"{"errors":[{"item":{"a":1}}]}"#, vec![(Echo::of(br#"{"a":1}"#), none.clone())]),
        (r#"{"errors":[{"item":null,"error":""}]}"#, vec![(None, none)]),
        (r#"{"errors":[{"error":{"code":7}}]}"#, vec![(None, r#"{"code":7}"#.into())]),
        (r#"{"errors":[{"item":[1e999],"error":"big"}]}"#, vec![(None, "big".into())]),
        (r#"{"errors":"all wrong"}"#, vec![(None, "all wrong".into())]),
        (r#"{"errors":{"0":"bad"}}"#, vec![(None, r#"{"0":"bad"}"#.into())]),
        (r#"{"errors":2}"#, vec![(None, "2".into())]),
    ];
    for (body, expected) in cases {
        assert_eq!(refused(body), expected, "{body}");
    }
    let deep = format!(r#"{{"errors":[{{"item":{}{},"error":"deep"}}]}}"#, "[".repeat(5000), "]".repeat(5000));
    assert_eq!(refused(&deep), [(None, "deep".into())]);
    let latin = b"{\"errors\":[{\"item\":{\"a\":\"\xE4\"},\"error\":\"bad\"}]}";
    assert!(matches!(read(&reply(200, latin), NOW).verdict, Verdict::Partial(items) if items.len() == 1));
}

#[test]
fn a_page_is_the_environment() {
    for body in ["<!DOCTYPE html><p>", "\u{feff} \n<HTML lang=en>", "<?xml version='1.0'?>\n<!-- x --><html>"] {
        assert!(matches!(verdict(200, body), Verdict::Environment { .. }), "{body}");
    }
    let page = Reply { content_type: Some("Text/HTML;charset=x"), ..reply(200, b"<p>Sign in</p>") };
    assert!(matches!(read(&page, NOW).verdict, Verdict::Environment { .. }));
    let cut = Reply { whole: false, ..reply(200, b"<!doctype html>") };
    assert!(matches!(read(&cut, NOW).verdict, Verdict::Environment { .. }));
    // The status speaks first where it says anything.
    assert_eq!(verdict(400, "<html>"), Verdict::BadItem);
    assert_eq!(verdict(503, "<html>"), Verdict::Later { retry_after: None });
}

#[test]
fn case_66_a_2xx_that_may_still_refuse_items_is_unreadable() {
    for body in ["", " ", "{", r#"{"processed":1,"errors":[]"#, "<"] {
        let cut = Reply { whole: false, ..reply(200, body.as_bytes()) };
        assert_eq!(read(&cut, NOW).verdict, Verdict::Unreadable, "{body}");
    }
    for body in ["OK so far", "[1,", "\u{feff}xx"] {
        let cut = Reply { whole: false, ..reply(200, body.as_bytes()) };
        assert_eq!(read(&cut, NOW).verdict, Verdict::Received, "{body}");
    }
    for body in [r#"{"processed":1,"errors":[{"it"#, r#"{"processed":1,"errors":[{"item":{"value":NaN},"error":"x"}]}"#]
    {
        assert_eq!(verdict(200, body), Verdict::Unreadable, "{body}");
    }
    for encoding in ["gzip", "br", "zstd", "compress", "gzip, br", "aes128gcm"] {
        let encoded = Reply { content_encoding: Some(encoding), ..reply(200, b"\x0b\x02\x80{}\x03") };
        let answer = read(&encoded, NOW);
        assert_eq!(answer.verdict, Verdict::Unreadable, "{encoding}");
        assert!(answer.message.starts_with("200: the answer cannot be read: it is"), "{}", answer.message);
    }
    let cut = Reply { whole: false, ..reply(400, b"{") };
    assert_eq!(read(&cut, NOW).verdict, Verdict::BadItem);
}

#[test]
fn case_66_a_whole_document_is_an_answer_whatever_was_promised_and_whatever_follows() {
    let accepts = r#"{"processed":1,"errors":[]}"#;
    let refuses = r#"{"processed":0,"errors":[{"error":"no"}]}"#;
    for (before, after) in [("", ""), ("", "\r\n\0\0"), ("\u{feff}", "<!-- proxy -->"), (" ", "{\"a\":"), ("", "}")] {
        for whole in [true, false] {
            let read = |document: &str| {
                let body = format!("{before}{document}{after}");
                super::read(&Reply { whole, ..reply(200, body.as_bytes()) }, NOW).verdict
            };
            assert_eq!(read(accepts), Verdict::Received, "{after:?} {whole}");
            let no = SinkRejection { item: None, error: "no".into() };
            assert_eq!(read(refuses), Verdict::Partial(vec![no]), "{after:?} {whole}");
        }
    }
    assert_eq!(refused(&format!("{accepts}{refuses}")).len(), 1, "a second document is read, too");
}

#[test]
fn case_66_what_a_proxy_compressed_is_read() {
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let refuses = gzip(r#"{"processed":0,"errors":[{"error":"no"}]}"#);
    for encoding in [Some("gzip"), None] {
        let answer = read(&Reply { content_encoding: encoding, ..reply(200, &refuses) }, NOW);
        assert!(matches!(answer.verdict, Verdict::Partial(_)), "{answer:?}");
    }
    let page = gzip("<!doctype html>");
    let answer = read(&Reply { content_encoding: Some("gzip"), ..reply(200, &page) }, NOW);
    assert!(matches!(answer.verdict, Verdict::Environment { .. }), "{answer:?}");
    let bad = gzip(r#"{"error":"value must be a number"}"#);
    let answer = read(&Reply { content_encoding: Some("gzip"), ..reply(400, &bad) }, NOW);
    assert_eq!((answer.verdict, answer.message.contains("must be a number")), (Verdict::BadItem, true));
}

#[test]
fn case_65_a_page_of_a_gateway_proves_nothing() {
    for status in [500, 501, 502, 504, 507, 520, 522, 524, 525, 530, 561, 598, 599] {
        let page = Reply { content_type: Some("text/html"), ..reply(status, b"<html>Bad gateway</html>") };
        let answer = read(&page, NOW);
        assert_eq!((answer.verdict, answer.status), (Verdict::Unknown, Some(status)));
    }
}

#[test]
fn retry_after_in_every_form() {
    let cases = [
        ("0", None),
        ("7", Some(7)),
        (" 120 ", Some(120)),
        ("3600", Some(900)),
        ("86401", None),
        ("99999999999999999999999999", None),
        ("-5", None),
        ("", None),
        (".", None),
        ("soon", None),
        ("NaN", None),
        ("Thu, 01 Jan 1970 00:01:00 GMT", Some(60)),
        ("Thursday, 01-Jan-70 00:01:00 GMT", Some(60)),
        ("Thu Jan  1 00:01:00 1970", Some(60)),
        ("Thu, 01 Jan 1970 05:00:00 GMT", Some(900)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
    ];
    for (text, seconds) in cases {
        let later = Reply { retry_after: Some(text), ..reply(503, b"") };
        let expected = Verdict::Later { retry_after: seconds.map(Duration::from_secs) };
        assert_eq!(read(&later, NOW).verdict, expected, "{text:?}");
    }
    // Our clock is wrong by years: the server's own date decides.
    let later = Reply {
        retry_after: Some("Fri, 07 Nov 2025 10:00:30 GMT"),
        date: Some("Fri, 07 Nov 2025 10:00:00 GMT"),
        ..reply(429, b"")
    };
    assert_eq!(read(&later, NOW).verdict, Verdict::Later { retry_after: Some(Duration::from_secs(30)) });
}

#[test]
fn a_redirect_names_its_host_only() {
    for (location, host) in [
        (Some("https://login.corp.test/sso?next=/analytics/bulk/TENANT"), "to login.corp.test,"),
        (Some("//other.test/TENANT"), "to other.test,"),
        (Some("/elsewhere/TENANT"), "another path of the same host"),
        (None, "nowhere"),
    ] {
        let answer = read(&Reply { location, ..reply(307, b"") }, NOW);
        let Verdict::Environment { remedy } = answer.verdict else { panic!("{answer:?}") };
        assert!(remedy.contains(host) && !remedy.contains("TENANT"), "{remedy}");
    }
}

#[test]
fn messages_are_short_and_on_one_line() {
    let body = format!("first\n\tsecond\u{1b}[31m {}", "ä".repeat(5000));
    let message = read(&reply(500, body.as_bytes()), NOW).message;
    assert!(message.starts_with("500: first second [31m ä"), "{message}");
    assert!(message.chars().count() < 220 && !message.contains('\u{1b}'));
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(status: u16, body: Vec<u8>, whole: bool, header in "\\PC{0,30}") {
        let reply = Reply {
            status,
            content_type: Some(&header),
            retry_after: Some(&header),
            date: Some(&header),
            location: Some(&header),
            body: &body,
            whole,
            ..Reply::default()
        };
        prop_assert_eq!(read(&reply, NOW).status, Some(status));
    }

    #[test]
    fn every_named_item_is_found(errors in proptest::collection::vec(("[a-z]{1,5}", "\\PC{1,9}"), 1..20)) {
        let list: Vec<_> = errors.iter().map(|(id, error)| serde_json::json!({"item": {"id": id}, "error": error})).collect();
        let body = serde_json::json!({"processed": 0, "errors": list}).to_string();
        prop_assert_eq!(refused(&body).len(), errors.len());
    }

    /// However an answer with errors is cut, nothing is taken as received.
    #[test]
    fn a_cut_answer_is_never_acceptance(cut in 0..100usize, whole: bool) {
        let body = r#"{"processed":1,"errors":[{"item":{"value":1,"externalId":"x","model":"Company"},"error":"no dimension"}]}"#;
        let body = &body.as_bytes()[..cut];
        // An empty whole body is a legal acceptance; it cannot be told from one cut at nought.
        prop_assume!(cut > 0 || !whole);
        let verdict = read(&Reply { whole, ..reply(200, body) }, NOW).verdict;
        prop_assert_eq!(verdict, Verdict::Unreadable);
    }
}
