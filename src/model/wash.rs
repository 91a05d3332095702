//! The one way in which text that a stranger wrote (a server, a row, Planhat, a file) becomes text that is shown. Pure.
//!
//! * In: any text.
//! * Out: text of one line, or of lines that all stand behind an indent.
//! * Never: a control character, a character that turns the direction of writing, a line that begins by itself: nobody moves
//!   the cursor, and nobody writes an `error:` or a `remedy:` of their own.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Text of one line. Characters that must not be shown are written as JSON writes them, so that JSON stays JSON.
pub(crate) fn washed(text: &str) -> Cow<'_, str> {
    let Some((first, _)) = text.char_indices().find(|(_, character)| is_unfit(*character)) else {
        return Cow::Borrowed(text);
    };
    let mut clean = text[..first].to_owned();
    for character in text[first..].chars() {
        match character {
            '\n' => clean.push_str("\\n"),
            '\r' => clean.push_str("\\r"),
            '\t' => clean.push_str("\\t"),
            // All of them are of the basic plane.
            unfit if is_unfit(unfit) => drop(write!(clean, "\\u{:04x}", u32::from(unfit))),
            fit => clean.push(fit),
        }
    }
    Cow::Owned(clean)
}

/// Text whose line breaks are its own: each line after the first begins with `indent`.
pub(crate) fn washed_lines(text: &str, indent: &str) -> String {
    text.lines().map(washed).collect::<Vec<_>>().join(&format!("\n{indent}"))
}

/// The colours that this program writes itself.
const COLOURS: [&str; 9] =
    ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[33m", "\x1b[1;31m", "\x1b[38;5;", "\x1b[22m", "\x1b[39m"];

/// Whole lines as they may leave: line breaks and colours as they are, every other control character written out.
pub(crate) fn washed_output(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\n', '\x1b']) {
        out.push_str(&washed(&rest[..at]));
        let kept = COLOURS.iter().find(|colour| rest[at..].starts_with(**colour)).map_or(1, |colour| colour.len());
        let piece = &rest[at..at + kept];
        // A lone escape is somebody else's.
        if piece == "\x1b" {
            out.push_str(&washed(piece))
        } else {
            out.push_str(piece)
        }
        rest = &rest[at + kept..];
    }
    out.push_str(&washed(rest));
    out
}

/// Control characters (C0, DEL, C1), line and paragraph separators, and what changes the direction of writing.
fn is_unfit(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn case_103_what_would_move_the_cursor_or_the_eye_is_written_out() {
        assert_eq!(washed("plain — é 😀"), "plain — é 😀");
        assert_eq!(washed("a\x1b[2Jb\nerror: x\r\t"), "a\\u001b[2Jb\\nerror: x\\r\\t");
        assert_eq!(washed("c1 \u{9b}31m, bidi \u{202e}gpj"), "c1 \\u009b31m, bidi \\u202egpj");
        assert_eq!(washed_lines("SELECT 1;\nSELECT '\x07';", "    "), "SELECT 1;\n    SELECT '\\u0007';");
    }

    proptest! {
        #[test]
        fn washed_text_is_one_line_and_json_stays_json(text: String) {
            let clean = washed(&text);
            prop_assert!(!clean.chars().any(is_unfit));
            prop_assert_eq!(washed(&clean), &*clean);
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&washed(&json)).unwrap(), text);
        }
    }
}
