//! What answers at Planhat's address, as the probe of `check` meets it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::server_bytes::serve;
use crate::{Case, judge, right};

fn answers() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let whole = |status: &str, headers: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let evil = "\x1b[2J\u{9b}2J\u{202e}\nerror: forged\n  remedy: forged";
    let none = Vec::new;
    let mut all = vec![
        ("the end at once".to_owned(), none(), none()),
        ("garbage".to_owned(), vec![0xff; 300], none()),
        ("a reason with escapes".to_owned(), whole(&format!("401 {}", evil.replace('\n', " ")), "", ""), none()),
        ("endless headers".to_owned(), b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: y\r\n".to_vec()),
        ("an endless header".to_owned(), b"HTTP/1.1 200 OK\r\nX: ".to_vec(), b"y".to_vec()),
        ("an endless body".to_owned(), b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), b"{\"a\":".to_vec()),
        (
            "an endless chunk".to_owned(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n".to_vec(),
            b"x".to_vec(),
        ),
        ("1xx for ever".to_owned(), none(), b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        ("a wrong length".to_owned(), b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n{}".to_vec(), none()),
        (
            "two lengths".to_owned(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
            none(),
        ),
        ("a negative length".to_owned(), b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}".to_vec(), none()),
        ("no gzip at all".to_owned(), whole("200 OK", "Content-Encoding: gzip\r\n", "no"), none()),
        ("HTTP/0.9".to_owned(), b"<html>".to_vec(), none()),
        ("HTTP/2".to_owned(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), none()),
        ("deep JSON".to_owned(), whole("200 OK", "", &"[".repeat(200_000)), none()),
        ("TLS".to_owned(), vec![0x15, 3, 3, 0, 2, 2, 40], none()),
        ("a redirect".to_owned(), whole("302 Found", "Location: http://\x01/\r\n", ""), none()),
    ];
    let bodies = [
        "",
        "null",
        "[]",
        "0",
        "\"x\"",
        "{\"errors\":1}",
        "{\"errors\":[null]}",
        "{\"errors\":[{\"item\":0,\"error\":0}]}",
        "<html>\x1b[2J</html>",
        evil,
        "{\"error\":\"\\u001b[2J\\nerror: forged\"}",
        "{\"processed\":-1}",
        "\u{0}",
        "{\"errors\":{\"a\":\"\\u009b\"}}",
    ];
    for (status, number) in [
        "200 OK",
        "400 Bad",
        "401 No",
        "403 No",
        "404 No",
        "407 Proxy",
        "413 Big",
        "422 Bad",
        "429 Slow",
        "500 Oh",
        "503 Later",
        "299 X",
        "999 X",
    ]
    .iter()
    .zip(0..)
    {
        for (body, other) in bodies.iter().zip(0..) {
            if (number + other) % 2 == 0 {
                all.push((format!("{status} with {body:?}"), whole(status, "Retry-After: \x1b\r\n", body), none()));
            }
        }
    }
    all
}

#[test]
fn case_102_103_a_sink_that_answers_nonsense() {
    let mut cases = Vec::new();
    for (name, first, again) in answers() {
        let port = serve(move |mut stream: TcpStream| {
            stream.set_read_timeout(Some(Duration::from_secs(12))).unwrap();
            drop(stream.read(&mut [0; 65536]));
            let mut going = stream.write_all(&first).is_ok() && !again.is_empty();
            let again = again.repeat(1 + (64 << 10) / again.len().max(1));
            while going {
                going = stream.write_all(&again).is_ok();
                // Slower than a build without optimization parses on a busy machine: what is waiting already is parsed before the
                // clock is looked at again, and a flood that outruns the parser would measure the parser.
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        cases.push(Case::new(name, right(1, port), &["check"]));
    }
    assert!(cases.len() > 100);
    judge(&cases);
}
