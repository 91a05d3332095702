//! Answers that a proxy has compressed, unasked: gzip and deflate, up to a bound. Pure.
//!
//! * In: a body and its `Content-Encoding`.
//! * Out: the body as it was before, or why it cannot be known.
//! * Never: more than the bound held, whatever the body unpacks to.

use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// Encodings laid over one another, at most.
const LAYERS: usize = 3;
const GZIP: &[u8] = b"\x1f\x8b";

/// A body after all encodings were taken off.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inflated {
    pub(crate) body: Vec<u8>,
    /// Whether that is all of it: false where the compressed form broke off, or what it holds is over the bound.
    pub(crate) whole: bool,
}

/// Takes the encodings off. `None`: there are none.
pub(crate) fn inflate(encoding: Option<&str>, body: &[u8], most: usize) -> Option<Result<Inflated, String>> {
    let named = encoding.unwrap_or_default().split(',').map(str::trim);
    let mut layers: Vec<String> = named.map(str::to_ascii_lowercase).collect();
    layers.retain(|layer| !matches!(layer.as_str(), "" | "identity"));
    // No text and no JSON begins so: a proxy has compressed it and does not say it.
    if layers.is_empty() && body.starts_with(GZIP) {
        layers.push("gzip".to_owned());
    }
    if layers.is_empty() {
        return None;
    }
    if layers.len() > LAYERS {
        return Some(Err(format!("it is encoded {} times", layers.len())));
    }
    // No body at all: there is nothing to take off.
    let mut inflated = Inflated { body: body.to_vec(), whole: true };
    for layer in layers.iter().rev().filter(|_| !body.is_empty()) {
        match one(layer, &inflated.body, most) {
            Ok(next) => inflated = Inflated { whole: inflated.whole && next.whole, ..next },
            Err(why) => return Some(Err(why)),
        }
    }
    Some(Ok(inflated))
}

fn one(layer: &str, body: &[u8], most: usize) -> Result<Inflated, String> {
    let read = |decoder: &mut dyn Read| take(decoder, most);
    match layer {
        "gzip" | "x-gzip" => read(&mut MultiGzDecoder::new(body)).ok_or_else(|| "it is no gzip".to_owned()),
        // By the standard with a header of zlib; some servers leave that out.
        "deflate" => read(&mut ZlibDecoder::new(body))
            .or_else(|| read(&mut DeflateDecoder::new(body)))
            .ok_or_else(|| "it is no deflate".to_owned()),
        other => Err(format!("it is encoded ({})", other.chars().take(40).collect::<String>())),
    }
}

/// Reads up to the bound. `None` where not even a beginning can be read.
fn take(decoder: &mut dyn Read, most: usize) -> Option<Inflated> {
    let mut body = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return Some(Inflated { body, whole: true }),
            Ok(read) if body.len() + read > most => {
                body.extend_from_slice(&piece[..most - body.len()]);
                return Some(Inflated { body, whole: false });
            }
            Ok(read) => body.extend_from_slice(&piece[..read]),
            Err(_) if body.is_empty() => return None,
            Err(_) => return Some(Inflated { body, whole: false }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use std::io::Write;

    const TEXT: &[u8] = br#"{"processed":1,"errors":[]}"#;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn read(encoding: &str, body: &[u8]) -> Result<(Vec<u8>, bool), String> {
        inflate(Some(encoding), body, 1 << 20).unwrap().map(|inflated| (inflated.body, inflated.whole))
    }

    #[test]
    fn gzip_and_both_kinds_of_deflate_are_taken_off() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(TEXT).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(TEXT).unwrap();
        let whole = Ok((TEXT.to_vec(), true));
        assert_eq!(read("gzip", &gzip(TEXT)), whole);
        assert_eq!(read("X-GZIP", &gzip(TEXT)), whole);
        assert_eq!(read("identity, gzip", &gzip(TEXT)), whole);
        assert_eq!(read("gzip, gzip", &gzip(&gzip(TEXT))), whole);
        assert_eq!(read("deflate", &zlib.finish().unwrap()), whole);
        assert_eq!(read("deflate", &raw.finish().unwrap()), whole);
        assert_eq!(inflate(None, &gzip(TEXT), 1 << 20).unwrap().unwrap().body, TEXT);
        assert_eq!(inflate(Some("identity"), TEXT, 1 << 20), None);
        assert_eq!(inflate(None, TEXT, 1 << 20), None);
        assert_eq!(read("gzip", b""), Ok((Vec::new(), true)));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(read("br", TEXT).unwrap_err().contains("(br)"));
        assert!(read("gzip", TEXT).is_err());
        assert!(read("gzip,gzip,gzip,gzip", TEXT).is_err());
        let long = gzip(&(0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        let (cut, whole) = read("gzip", &long[..long.len() / 2]).unwrap();
        assert!(!whole && !cut.is_empty());
    }

    #[test]
    fn a_bomb_unpacks_to_no_more_than_the_bound() {
        let bomb = gzip(&vec![0; 50 << 20]);
        let inflated = inflate(Some("gzip"), &bomb, 1 << 20).unwrap().unwrap();
        assert_eq!((inflated.body.len(), inflated.whole), (1 << 20, false));
    }
}
