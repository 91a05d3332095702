//! The answers of the sink's routes: Planhat's own, and broken ones.
//!
//! * In: what was accepted and refused, or the fault to commit.
//! * Out: HTTP answers, some of which never end.
//! * Never: more memory than one piece for an answer without end.

use std::io::Write;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use crate::sim::http_server::RawConnection;
use crate::sim::received::SinkKind;

/// Planhat's answer: metrics always say what became of them, activities only where some were refused.
pub(crate) fn processed(kind: SinkKind, accepted: u64, refused: &[(Option<Bytes>, String)]) -> Response {
    match kind {
        SinkKind::Activity if refused.is_empty() => StatusCode::OK.into_response(),
        SinkKind::Activity | SinkKind::Metric => json(200, processed_body(accepted, refused)),
    }
}

fn processed_body(accepted: u64, refused: &[(Option<Bytes>, String)]) -> Bytes {
    let mut body = BytesMut::from(format!("{{\"processed\":{accepted},\"errors\":[").as_bytes());
    for (n, (item, error)) in refused.iter().enumerate() {
        body.put_slice(if n == 0 { b"{" } else { b",{" });
        if let Some(item) = item {
            body.put_slice(b"\"item\":");
            body.put_slice(item);
            body.put_slice(b",");
        }
        body.put_slice(format!("\"error\":{}}}", Value::from(error.as_str())).as_bytes());
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

/// The same answer with a header, where the text is a valid header value.
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

/// The head of an answer, then a reset.
pub(crate) fn head_then_reset(status: u16, wire: RawConnection) -> Response {
    let never = stream::once(async move {
        wire.reset();
        std::future::pending::<Result<Bytes, std::io::Error>>().await
    });
    with_header(json(status, Body::from_stream(never)), header::CONTENT_LENGTH, "100")
}

/// The whole answer, as a proxy compresses it.
pub(crate) fn encoded(accepted: u64, encoding: &str) -> Response {
    let whole = processed_body(accepted, &[]);
    let packed = match encoding {
        "gzip" => compress(GzEncoder::new(Vec::new(), Compression::fast()), &whole),
        "deflate" => compress(ZlibEncoder::new(Vec::new(), Compression::fast()), &whole),
        _ => whole.iter().map(|byte| byte.rotate_left(3) ^ 0xa5).collect(),
    };
    with_header(json(200, packed), header::CONTENT_ENCODING, encoding)
}

fn compress(mut encoder: impl Compressing, whole: &[u8]) -> Vec<u8> {
    // Into memory: it cannot fail.
    encoder.write_all(whole).unwrap_or_default();
    encoder.done()
}

trait Compressing: Write {
    fn done(self) -> Vec<u8>;
}

impl Compressing for GzEncoder<Vec<u8>> {
    fn done(self) -> Vec<u8> {
        self.finish().unwrap_or_default()
    }
}

impl Compressing for ZlibEncoder<Vec<u8>> {
    fn done(self) -> Vec<u8> {
        self.finish().unwrap_or_default()
    }
}

/// Half of the answer, as if that were all.
pub(crate) fn truncated(accepted: u64) -> Response {
    let whole = processed_body(accepted, &[]);
    json(200, whole.slice(..whole.len() / 2))
}

/// The whole answer under another length than its own; where less comes than was promised, the connection ends.
pub(crate) fn wrong_length(accepted: u64, by: i64) -> Response {
    let whole = processed_body(accepted, &[]);
    let promised = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(by).max(1);
    // The pause lets hyper flush the bytes before it notices that they are too few.
    let pause = stream::once(async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(Bytes::new())
    });
    let body = stream::once(async move { Ok::<_, std::io::Error>(whole) }).chain(pause);
    with_header(json(200, Body::from_stream(body)), header::CONTENT_LENGTH, &promised.to_string())
}

/// The same answer behind many headers.
pub(crate) fn many_headers(mut response: Response, count: u16) -> Response {
    for number in 0..count {
        let name = header::HeaderName::try_from(format!("x-proxy-{number}"));
        if let Ok(name) = name {
            response = with_header(response, name, "x");
        }
    }
    response
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
        let body = processed_body(1, &[(Some(item), "dimensionId must be specified".to_owned())]);
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
