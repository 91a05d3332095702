//! YAML with colours for keys and comments.
//!
//! * In: the file's text, without its secrets.
//! * Out: markup whose text is the same, character by character.
//! * Never: a change of the text: a wrong colour leaves every character as it was.

use crate::console::draw::{Markup, escaped};

/// Colours a text.
pub(crate) fn yaml_markup(text: &str) -> Markup {
    Markup(text.split_inclusive('\n').map(line).collect())
}

fn line(line: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(line.len() * 2), line);
    while let Some(first) = rest.chars().next() {
        let open = out.is_empty() || line[..line.len() - rest.len()].ends_with([' ', '\t', '{', '[', ',']);
        let (length, class) = match first {
            '#' if open => (rest.trim_end_matches(['\r', '\n']).len(), "c"),
            '"' | '\'' if open => (quoted(rest, first), ""),
            _ if open && is_word(first) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let after = &rest[length..];
                let key = after.starts_with(':') && after[1..].chars().next().is_none_or(char::is_whitespace);
                (length, if key { "k" } else { "" })
            }
            other => (other.len_utf8(), ""),
        };
        let (token, after) = rest.split_at(length);
        match class {
            "" => out.push_str(&escaped(token)),
            class => out.push_str(&format!("<span class='{class}'>{}</span>", escaped(token))),
        }
        rest = after;
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Returns the length of the text that begins here with a quote. The end of the line closes it.
fn quoted(text: &str, quote: char) -> usize {
    let mut escape = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escape => escape = false,
            '\\' if quote == '"' => escape = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_comments_are_told_apart_and_the_text_stays() {
        let text = "# a: b\nsource: { host: db, \"x\": '# no', url: http://h#no } # why\n  - name: a:b\r\n\t<b>: ü\"";
        let markup = yaml_markup(text).0;
        for part in [
            "<span class='c'># a: b</span>\n",
            "<span class='k'>source</span>: { <span class='k'>host</span>: db",
            "<span class='k'>url</span>: http://h#no } <span class='c'># why</span>\n",
            "- <span class='k'>name</span>: a:b\r\n",
        ] {
            assert!(markup.contains(part), "{part}\n{markup}");
        }
        let plain = markup.replace("</span>", "").replace("<span class='c'>", "").replace("<span class='k'>", "");
        assert_eq!(plain, escaped(text));
    }
}
