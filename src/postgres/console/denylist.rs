//! What may not stand in a statement of the console. Pure.
//!
//! Names are looked for outside of string literals and comments, quoted or not. A name that is spelt by `U&"…"` escapes is
//! refused as such. False alarms are possible for columns of such names; a hole is worse.

use crate::model::Fault;

/// Functions, by name, where they are called. What ends in `*` stands for all names that begin so.
const FORBIDDEN: &[&str] = &[
    // settings, roles
    "set_config",
    // files and programs
    "pg_read_*",
    "pg_ls_*",
    "pg_stat_file",
    "pg_file_*",
    "pg_current_logfile",
    "pg_logdir_*",
    "lo_*",
    "loread",
    "lowrite",
    "pg_execute_*",
    // other servers
    "dblink*",
    "postgres_fdw_*",
    "http*_get",
    "http_*",
    // SQL out of a string
    "query_to_xml*",
    "cursor_to_xml*",
    "table_to_xml*",
    "schema_to_xml*",
    "database_to_xml*",
    "xpath_table",
    "xslt_process",
    "crosstab*",
    "connectby",
    "ts_stat",
    "ts_rewrite",
    // other sessions, locks, the server
    "pg_terminate_*",
    "pg_cancel_*",
    "pg_reload_conf",
    "pg_rotate_logfile*",
    "pg_promote",
    "pg_notify",
    "pg_sleep*",
    "pg_background_*",
    "pg_advisory_*",
    "pg_try_advisory_*",
    "pg_log_*",
    "pg_switch_wal",
    "pg_create_*",
    "pg_drop_*",
    "pg_copy_*",
    "pg_backup_*",
    "pg_start_backup",
    "pg_stop_backup",
    "pg_wal_replay_*",
    "pg_export_snapshot",
    "pg_stat_reset*",
    "pg_stat_clear*",
    "pg_stat_statements_reset",
    "pg_truncate_*",
    "heap_force_*",
    "brin_*",
    "gin_clean_pending_list",
    "binary_upgrade_*",
    "pg_prewarm",
    "pg_import_*",
    "pg_restore_*",
    "pg_clear_*",
    "pg_set_*",
    // slots: moving one loses rows
    "pg_replication_*",
    "pg_logical_*",
    "pg_sync_replication_*",
];

/// Relations that hold secrets, or show files of the server.
const SECRET: &[&str] =
    &["pg_authid", "pg_shadow", "pg_user_mapping*", "pg_hba_file_rules", "pg_ident_file_mappings", "pg_file_settings"];

/// Refuses a statement by its text.
///
/// # Errors
/// The name that may not stand there.
pub(crate) fn text(sql: &str) -> Result<(), Fault> {
    let words = words(sql);
    if words.escaped {
        return Err(refusal("a name spelt by U& escapes"));
    }
    names(&words)
}

/// Refuses an EXPLAIN that would run its statement: what its views do could not be seen before.
///
/// # Errors
/// That it says ANALYZE.
pub(crate) fn explain(sql: &str) -> Result<(), Fault> {
    match words(sql).list.iter().any(|word| matches!(&*word.text, "analyze" | "analyse")) {
        true => Err(Fault::usage("EXPLAIN ANALYZE runs the statement", "ask by EXPLAIN alone, or by psql")),
        false => Ok(()),
    }
}

/// The names that stand before a parenthesis: functions among them.
pub(crate) fn called(text: &str) -> Vec<String> {
    words(text).list.into_iter().filter(|word| word.called).map(|word| word.text).collect()
}

/// A statement up to the semicolon that ends it: where it is known to be one, nothing but comments follows.
pub(crate) fn without_semicolon(sql: &str) -> &str {
    words(sql).semicolon.map_or(sql, |end| &sql[..end])
}

/// Refuses a statement by a line of its plan.
///
/// # Errors
/// As [`text`].
pub(crate) fn plan(line: &str) -> Result<(), Fault> {
    names(&words(line))
}

fn names(words: &Words) -> Result<(), Fault> {
    let among = |list: &[&str], word: &str| {
        list.iter().any(|name| match name.strip_suffix('*') {
            Some(beginning) => word.starts_with(beginning),
            None => word == *name,
        })
    };
    match words.list.iter().find(|word| word.called && among(FORBIDDEN, &word.text) || among(SECRET, &word.text)) {
        Some(word) => Err(refusal(&word.text)),
        None => Ok(()),
    }
}

fn refusal(what: &str) -> Fault {
    Fault::usage(
        format!("{what} is not allowed here: this console reads tables, and nothing else"),
        "ask by a plain SELECT; for anything else use psql with a role that may",
    )
}

/// The first word, in lower case; comments before it are passed over.
pub(crate) fn first_word(sql: &str) -> String {
    words(sql).list.into_iter().next().map(|word| word.text).unwrap_or_default()
}

/// A keyword or a name: in lower case where it is not quoted.
struct Word {
    text: String,
    /// An opening parenthesis follows it.
    called: bool,
}

struct Words {
    list: Vec<Word>,
    /// There was a `U&"` or `U&'`.
    escaped: bool,
    /// Where the first semicolon stands.
    semicolon: Option<usize>,
}

/// The words of a statement, without string literals and comments (documentation, "Lexical Structure").
fn words(sql: &str) -> Words {
    let mut words = Words { list: Vec::new(), escaped: false, semicolon: None };
    let mut rest = sql;
    // Whether nothing but space and comments came since the last word.
    let mut just_named = false;
    let word = |text: String| Word { text, called: false };
    while let Some(c) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
        } else if rest.starts_with("/*") {
            rest = behind_comment(rest);
        } else if c == '\'' {
            just_named = false;
            rest = behind_quote(&rest[1..], '\'', false).1;
        } else if c == '"' {
            let (name, behind) = behind_quote(&rest[1..], '"', false);
            words.list.push(word(name.replace("\"\"", "\"")));
            just_named = true;
            rest = behind;
        } else if let Some(behind) = behind_dollar(rest) {
            just_named = false;
            rest = behind;
        } else if is_start(c) {
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            let (name, behind) = rest.split_at(end);
            rest = behind;
            let name = name.to_lowercase();
            just_named = true;
            if name == "e" && behind.starts_with('\'') {
                rest = behind_quote(&behind[1..], '\'', true).1;
            } else if name == "u" && (behind.starts_with("&\"") || behind.starts_with("&'")) {
                words.escaped = true;
            } else {
                words.list.push(word(name));
            }
        } else {
            if c == ';' && words.semicolon.is_none() {
                words.semicolon = Some(sql.len() - rest.len());
            }
            if let (true, '(', Some(last)) = (just_named, c, words.list.last_mut()) {
                last.called = true;
            }
            just_named &= c.is_whitespace();
            rest = &rest[c.len_utf8()..];
        }
    }
    words
}

fn is_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_part(c: char) -> bool {
    is_start(c) || c.is_ascii_digit() || c == '$'
}

/// Comments nest.
fn behind_comment(text: &str) -> &str {
    let (mut depth, mut rest) = (0_usize, text);
    loop {
        if let Some(behind) = rest.strip_prefix("/*") {
            (depth, rest) = (depth + 1, behind);
        } else if let Some(behind) = rest.strip_prefix("*/") {
            (depth, rest) = (depth - 1, behind);
            if depth == 0 {
                return rest;
            }
        } else {
            let Some(c) = rest.chars().next() else { return "" };
            rest = &rest[c.len_utf8()..];
        }
    }
}

/// What stands up to the closing quote, and what behind it. Doubled quotes are one; so are escaped ones in E'…'.
fn behind_quote(text: &str, quote: char, escapes: bool) -> (&str, &str) {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                return (&text[..at], &text[at + 1..]);
            }
        }
    }
    (text, "")
}

/// Behind a dollar-quoted string, where one begins here.
fn behind_dollar(text: &str) -> Option<&str> {
    let tag = text.strip_prefix('$')?;
    let end = tag.find(|c: char| !is_part(c) || c == '$')?;
    if !tag[end..].starts_with('$') || tag.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let delimiter = &text[..end + 2];
    let body = &text[delimiter.len()..];
    Some(body.find(delimiter).map_or("", |at| &body[at + delimiter.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_harms_is_refused_however_it_is_spelt() {
        for sql in [
            "SELECT set_config('transaction_read_only', 'off', false)",
            "SELECT pg_catalog.\"set_config\"('role', 'none', true)",
            "SELECT SET_CONFIG ('role', 'none', true)",
            "SELECT set_config/* hidden */('role', 'none', true)",
            "SELECT /* /* nested */ */ pg_read_file('/etc/passwd')",
            "SELECT $a$ $b$ $a$, pg_terminate_backend(1)",
            "SELECT '--', pg_reload_conf()",
            "SELECT E'\\'', pg_reload_conf() --'",
            "SELECT U&\"set\\005Fconfig\"('role', 'none', true)",
            "SELECT query_to_xml('select 1', true, true, '')",
            "SELECT pg_drop_replication_slot('s')",
            "SELECT pg_replication_slot_advance('s', '0/1')",
            "SELECT lo_import('/etc/passwd')",
            "SELECT * FROM dblink('host=x', 'select 1') AS t (a int)",
            "SELECT a$b, pg_ls_dir('.')",
            "SELECT set_config -- hidden\n ('role', 'none', true)",
            "TABLE pg_authid",
            "SELECT * FROM pg_logical_slot_get_changes('pg2planhat', NULL, NULL)",
            "SELECT pg_logical_emit_message(true, 'a', 'b')",
            "SELECT pg_advisory_lock(1), pg_try_advisory_xact_lock(2)",
            "SELECT lo_export(1, '/tmp/x'), lo_from_bytea(0, '')",
            "SELECT pg_sleep(1000)",
            "SELECT lo_unlink(1) FROM a",
            "SELECT pg_stat_statements_reset()",
        ] {
            assert!(text(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn what_reads_is_allowed() {
        for sql in [
            "SELECT * FROM app_event WHERE note = 'set_config'",
            "SELECT 1 -- pg_read_file",
            "SELECT 1 /* pg_read_file */",
            "SELECT $$set_config$$",
            "SELECT slot_name FROM pg_replication_slots",
            "SELECT status, dblink FROM http_requests",
            "WITH x AS (SELECT 1) SELECT * FROM x",
        ] {
            assert!(text(sql).is_ok(), "{sql}");
        }
        assert_eq!(without_semicolon("SELECT ';' AS \";\" /* ; */; -- ; end"), "SELECT ';' AS \";\" /* ; */");
        assert_eq!(without_semicolon("SELECT $a$;$a$"), "SELECT $a$;$a$");
        assert!(explain("EXPLAIN (VERBOSE, ANALYZE) SELECT 1").is_err() && explain("EXPLAIN SELECT 1").is_ok());
        assert_eq!(first_word("/* a */ -- b\n  ExPLAIN SELECT 1"), "explain");
    }

    proptest! {
        #[test]
        fn never_panics_and_literals_hide_only_themselves(before in "[ -~é\n]{0,30}") {
            drop(text(&before));
            let literal = before.replace('\'', "''");
            let sql = format!("SELECT '{literal}', pg_reload_conf()");
            prop_assert!(text(&sql).is_err(), "{}", sql);
        }
    }
}
