//! The answers of the sink's routes: Planhat's, and the broken ones.
//!
//! * In: what was accepted and refused, or the fault to commit.
//! * Out: HTTP answers, some of which never end.
//! * Never: more memory than one piece for an answer without end.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::sim::http_server::RawConnection;
use crate::sim::received::SinkKind;

/// Planhat's answer: metrics always say what became of them, activities only where some were refused.
pub(crate) fn processed(kind: SinkKind, accepted: u64, refused: &[(Bytes, String)]) -> Response {
    match kind {
        SinkKind::Activity if refused.is_empty() => StatusCode::OK.into_response(),
        SinkKind::Activity | SinkKind::Metric => json(200, processed_body(accepted, refused)),
    }
}

fn processed_body(accepted: u64, refused: &[(Bytes, String)]) -> Bytes {
    let mut body = BytesMut::from(format!("{{\"processed\":{accepted},\"errors\":[").as_bytes());
    for (n, (item, error)) in refused.iter().enumerate() {
        body.put_slice(if n == 0 { b"{\"item\":" } else { b",{\"item\":" });
        body.put_slice(item);
        body.put_slice(format!(",\"error\":{}}}", Value::from(error.as_str())).as_bytes());
    }
    body.put_slice(b"]}");
    body.freeze()
}

/// A JSON answer.
pub(crate) fn json(status: u16, body: impl Into<Body>) -> Response {
    with_type(status, "application/json; charset=utf-8", body)
}

/// An answer of this type; a status that is none is 500.
pub(crate) fn with_type(status: u16, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An error in Planhat's manner.
pub(crate) fn error(status: u16, error: &str) -> Response {
    json(status, serde_json::json!({ "error": error }).to_string())
}

/// The same answer with a header, where its text can be one.
pub(crate) fn with_header(mut response: Response, name: header::HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Half of an answer, then a reset.
pub(crate) fn cut(accepted: u64, wire: RawConnection) -> Response {
    let whole = processed_body(accepted, &[]);
    let half = whole.slice(..whole.len() / 2);
    // The first poll gives the half; the next asks for the reset and never ends, so that hyper flushes and waits.
    let rest = stream::once(async move {
        wire.reset();
        std::future::pending().await
    });
    let body = stream::once(async move { Ok::<_, std::io::Error>(half) }).chain(rest);
    with_header(json(200, Body::from_stream(body)), header::CONTENT_LENGTH, &whole.len().to_string())
}

/// JSON that never ends.
pub(crate) fn endless() -> Response {
    let piece = Bytes::from(vec![b'x'; 64 * 1024]);
    let beginning = stream::once(async { Bytes::from_static(b"{\"processed\":\"") });
    let body = beginning.chain(stream::repeat(piece)).map(Ok::<_, std::io::Error>);
    json(200, Body::from_stream(body))
}

/// One blank at a time.
pub(crate) fn drip(between: Duration) -> Response {
    let body = stream::repeat(()).then(move |()| async move {
        tokio::time::sleep(between).await;
        Ok::<_, std::io::Error>(Bytes::from_static(b" "))
    });
    json(200, Body::from_stream(body))
}

/// A megabyte of gzip that unpacks to 160 MB of zeros, and does not end then.
pub(crate) fn gzip_bomb() -> Response {
    with_header(json(200, bomb(1 << 20)), header::CONTENT_ENCODING, "gzip")
}

/// RFC 1952 header, then one RFC 1951 block with fixed codes: a zero, then "258 bytes from 1 back", 13 bits each.
fn bomb(bytes: usize) -> Vec<u8> {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut out = HEADER.to_vec();
    let (mut pending, mut count) = (0u32, 0u32);
    let mut push = |out: &mut Vec<u8>, code: u32, bits: u32| {
        // Huffman codes go most significant bit first, into bytes filled from the least significant bit.
        for bit in (0..bits).rev() {
            pending |= (code >> bit & 1) << count;
            count += 1;
            if count == 8 {
                out.push(u8::try_from(pending).unwrap_or_default());
                (pending, count) = (0, 0);
            }
        }
    };
    push(&mut out, 0b1, 1); // the last block
    push(&mut out, 0b10, 2); // fixed codes (01, least significant bit first)
    push(&mut out, 0b0011_0000, 8); // literal 0
    while out.len() < bytes {
        push(&mut out, 0b1100_0101, 8); // length 258
        push(&mut out, 0, 5); // distance 1
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_planhats_own_words() {
        let item = Bytes::from_static(br#"{"value":1,"externalId":"my_id","model":"Company"}"#);
        let body = processed_body(1, &[(item, "dimensionId must be specified".to_owned())]);
        assert_eq!(
            body,
            r#"{"processed":1,"errors":[{"item":{"value":1,"externalId":"my_id","model":"Company"},"error":"dimensionId must be specified"}]}"#
        );
        assert_eq!(processed_body(2, &[]), r#"{"processed":2,"errors":[]}"#);
    }

    #[test]
    fn the_bomb_is_gzip() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let Ok(mut gzip) = Command::new("gzip")
            .args(["-dc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
        else {
            return; // a machine without gzip
        };
        gzip.stdin.take().unwrap().write_all(&bomb(1000)).unwrap();
        let out = gzip.wait_with_output().unwrap().stdout;
        assert!(out.len() > 150_000 && out.iter().all(|byte| *byte == 0), "{}", out.len());
    }
}
