//! JSON text: strings out of bytes, and a check of JSON that came from elsewhere.
//!
//! * In: bytes of any kind.
//! * Out: RFC 8259, appended to the caller's buffer.
//! * Never: bytes that are no UTF-8; a whole parsed value.

use serde::de::IgnoredAny;

use crate::mapping::Reason;

/// What follows the backslash, by byte; 0 needs none, `u` is `\u00XX`.
const ESCAPE: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[b'\t' as usize] = b't';
    table[b'\n' as usize] = b'n';
    table[0x0C] = b'f';
    table[b'\r' as usize] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends `text` as a JSON string.
pub(crate) fn string(text: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    if is_plain(text) {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
        return Ok(());
    }
    let text = std::str::from_utf8(text).map_err(|_| Reason::NotUtf8)?;
    escaped(text, out);
    Ok(())
}

/// Appends `text` as a JSON string.
pub(crate) fn escaped(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let text = text.as_bytes();
    let mut copied = 0;
    out.push(b'"');
    for (at, &byte) in text.iter().enumerate() {
        let escape = ESCAPE[usize::from(byte)];
        if escape == 0 {
            continue;
        }
        out.extend_from_slice(&text[copied..at]);
        copied = at + 1;
        out.extend_from_slice(&[b'\\', escape]);
        if escape == b'u' {
            out.extend_from_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    out.extend_from_slice(&text[copied..]);
    out.push(b'"');
}

/// Whether `text` is ASCII that needs no escape: nearly all text is, and is then copied at once.
fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    words.iter().all(|word| is_plain_word(u64::from_le_bytes(*word)))
        && rest.iter().all(|&byte| byte < 0x80 && ESCAPE[usize::from(byte)] == 0)
}

/// The same for eight bytes at once. Each term sets the high bit of some byte exactly if one of the eight is below
/// 0x20, a quote or a backslash ("Bit Twiddling Hacks", determine if a word has a byte less than n); the word itself
/// shows bytes from 0x80 up.
fn is_plain_word(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = word ^ (ONES * 0x22);
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = word ^ (ONES * 0x5C);
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (word | control | quote | backslash) & HIGH == 0
}

/// The one JSON value that `text` holds, less the white space around it.
///
/// PostgreSQL has checked it already; but one bad item spoils its whole batch, and bytes of a `SQL_ASCII` database may
/// be anything. The grammar alone is checked: depth, duplicate keys, and lone surrogates are left as they are.
pub(crate) fn checked(text: &[u8]) -> Result<&[u8], Reason> {
    let text = std::str::from_utf8(text).map_err(|_| Reason::NotUtf8)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| Reason::NotJson)?;
    Ok(text.trim_ascii().as_bytes())
}

/// Whether `text` is the JSON scalar `null`.
pub(crate) fn is_null(text: &[u8]) -> bool {
    text.trim_ascii() == b"null"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(text: &[u8]) -> Result<String, Reason> {
        let mut out = Vec::new();
        string(text, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn characters_are_escaped_as_rfc_8259_says() {
        assert_eq!(encoded(b"").unwrap(), r#""""#);
        assert_eq!(
            encoded(b"a\"b\\c/\x08\x0C\n\r\t\x00\x1F\x7F").unwrap(),
            "\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\\u0000\\u001f\x7F\""
        );
        assert_eq!(encoded("Zoë 😀\u{2028}".as_bytes()).unwrap(), "\"Zoë 😀\u{2028}\"");
        assert_eq!(encoded(b"caf\xE9"), Err(Reason::NotUtf8));
        assert_eq!(encoded(b"\xED\xA0\x80"), Err(Reason::NotUtf8), "a surrogate");
    }

    #[test]
    fn one_byte_in_any_place_is_noticed() {
        for byte in 0..=255u8 {
            for place in 0..19 {
                let mut text = [b'a'; 19];
                text[place] = byte;
                let plain = byte < 0x80 && ESCAPE[usize::from(byte)] == 0;
                assert_eq!(is_plain(&text), plain, "{byte:#x} at {place}");
            }
        }
    }

    #[test]
    fn only_one_whole_json_value_passes() {
        for good in ["{\"a\":1,\"a\":2}", " [1,\n2] ", "1e999", "\"\\u0000\\ud800\"", "null"] {
            assert_eq!(checked(good.as_bytes()), Ok(good.trim().as_bytes()));
        }
        for bad in ["", "{", "1 2", "NaN", "{a:1}", "\"\n\"", "01"] {
            assert_eq!(checked(bad.as_bytes()), Err(Reason::NotJson), "{bad}");
        }
        assert_eq!(checked(b"\"\xFF\""), Err(Reason::NotUtf8));
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(checked(deep.as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn strings_come_back(text in any::<String>()) {
            let json = encoded(text.as_bytes()).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn bytes_are_refused_exactly_if_they_are_no_utf8(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(encoded(&bytes).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
