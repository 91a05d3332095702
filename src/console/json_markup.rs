//! JSON with colours for names, texts and numbers.
//!
//! * In: JSON as text, from any source.
//! * Out: markup whose text is the same, character by character.
//! * Never: a number that was parsed: 0.10 stays 0.10, and 9007199254740993 keeps its last digit.

use crate::console::draw::{Markup, escaped};

/// Colours a text. A text that is no JSON keeps its characters, too.
pub(crate) fn json_markup(text: &str) -> Markup {
    let mut out = String::with_capacity(text.len() * 2);
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => string_length(rest),
            '-' | '0'..='9' | 'a'..='z' => {
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len())
            }
            other => other.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        let class = match first {
            '"' if after.trim_start().starts_with(':') => "k",
            '"' => "s",
            '-' | '0'..='9' | 'a'..='z' => "n",
            _ => "",
        };
        if class.is_empty() {
            out.push_str(&escaped(token));
        } else {
            out.push_str(&format!("<span class='{class}'>{}</span>", escaped(token)));
        }
        rest = after;
    }
    Markup(out)
}

/// Returns the length of the string that begins here with a quote.
fn string_length(text: &str) -> usize {
    let mut escape = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escape => escape = false,
            b'\\' => escape = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of markup, as a browser has it.
    fn text_of(markup: &str) -> String {
        let mut text = String::new();
        let mut inside = false;
        for c in markup.chars() {
            match c {
                '<' => inside = true,
                '>' => inside = false,
                c if !inside => text.push(c),
                _ => {}
            }
        }
        for (entity, c) in [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")] {
            text = text.replace(entity, c);
        }
        text
    }

    #[test]
    fn the_text_stays_the_same() {
        for text in [
            r#"{"a":1,"b":[0.10,9007199254740993,1e400,-3],"c":null,"d":"x \"y\" \\","e":{"<img>":"'&"}}"#,
            "no JSON at all: \"open",
            "",
            "{\n  \"ä\": \"ö\"\n}",
        ] {
            assert_eq!(text_of(&json_markup(text).0), text);
        }
        let markup = json_markup(r#"{"a": "<b>", "n": 1.0}"#).0;
        assert!(markup.contains("<span class='k'>&#34;a&#34;</span>") && !markup.contains("<b>"), "{markup}");
        assert!(markup.contains("<span class='n'>1.0</span>"), "{markup}");
    }
}
