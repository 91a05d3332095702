//! Names and values quoted once, everywhere (documentation, "Lexical Structure").

/// A quoted identifier.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// A string in a replication command, whose grammar knows no escapes: a backslash is a backslash there.
pub(crate) fn replication_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text between dollar quotes, with a tag that is not in it.
pub(crate) fn dollar(text: &str) -> String {
    let tags = std::iter::once("$$".to_owned()).chain((1..=text.len()).map(|number| format!("$q{number}$")));
    // There are fewer dollars in the text than tags to choose from.
    let tag = tags.into_iter().find(|tag| !text.contains(tag.as_str())).unwrap_or_else(|| "$pg2planhat$".to_owned());
    format!("{tag} {text} {tag}")
}

/// A schema-qualified name.
pub(crate) fn qualified(table: &crate::config::TableName) -> String {
    format!("{}.{}", ident(&table.schema), ident(&table.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_and_backslashes_kept() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(replication_literal(r"a\b'"), r"'a\b'''");
        assert_eq!(dollar("a"), "$$ a $$");
        assert_eq!(dollar("a $$ b"), "$q1$ a $$ b $q1$");
        assert_eq!(dollar("a $$ $q1$"), "$q2$ a $$ $q1$ $q2$");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b'"), r" E'a\\b'''");
    }
}
