//! Counts the items of a body as its bytes go by, by their braces. Pure.
//!
//! * In: a JSON array of objects, or one object, in pieces.
//! * Out: the number of items.
//! * Never: a parse, or a byte kept.

/// Where the bytes so far have led.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    depth: u32,
    in_string: bool,
    escaped: bool,
    items: u64,
}

impl Counter {
    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = if self.in_string { self.skip_string(bytes) } else { self.skip_structure(bytes) };
        }
    }

    /// The objects begun so far, at the top or within the top array.
    pub(crate) fn items(&self) -> u64 {
        self.items
    }

    fn skip_string<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.escaped {
            self.escaped = false;
            return &bytes[1..];
        }
        let Some(at) = memchr::memchr2(b'"', b'\\', bytes) else { return &[] };
        self.escaped = bytes[at] == b'\\';
        self.in_string = self.escaped;
        &bytes[at + 1..]
    }

    fn skip_structure<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => {
                    self.in_string = true;
                    return &bytes[at + 1..];
                }
                b'{' | b'[' => {
                    self.items += u64::from(*byte == b'{' && self.depth <= 1);
                    self.depth += 1;
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_what_a_parser_counts(texts in proptest::collection::vec("[a\"\\\\{}\\[\\]]{0,6}", 0..20), piece in 1..9usize) {
            let items: Vec<_> =
                texts.iter().map(|text| serde_json::json!({ text.as_str(): text, "info": {"l": [{}, text]} })).collect();
            let body = serde_json::to_string(&items).unwrap();
            let mut counter = Counter::default();
            body.as_bytes().chunks(piece).for_each(|piece| counter.feed(piece));
            prop_assert_eq!(counter.items(), items.len() as u64);
        }
    }

    #[test]
    fn one_object_is_one_item() {
        let mut counter = Counter::default();
        counter.feed(br#" {"a":"}{","b":[{}]} "#);
        assert_eq!(counter.items(), 1);
    }
}
