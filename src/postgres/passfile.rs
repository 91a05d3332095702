//! `.pgpass`: one `host:port:database:user:password` a line, the first line that matches counts.
//!
//! * In: a file, and what to look for.
//! * Out: a password.
//! * Never: a password from a file that others may read, as libpq has it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::target::{Endpoint, Host};

/// Reads the file.
///
/// # Errors
/// `None` where there is none, else why it is passed over.
pub(super) fn read(path: &Path) -> Result<String, Option<String>> {
    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => None,
        _ => Some(format!("the password file {shown} cannot be read: {error}")),
    })?;
    if !about.is_file() {
        return Err(Some(format!("the password file {shown} is not a plain file and was passed over")));
    }
    if about.permissions().mode() & 0o077 != 0 {
        return Err(Some(format!(
            "the password file {shown} may be read by others and was passed over: chmod 0600 {shown}"
        )));
    }
    std::fs::read_to_string(path).map_err(|error| Some(format!("the password file {shown} cannot be read: {error}")))
}

/// The password for `user` of `database` at `endpoint`.
pub(super) fn find(text: &str, endpoint: &Endpoint, database: &str, user: &str) -> Option<String> {
    let port = endpoint.port.to_string();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = split(line.strip_suffix('\r').unwrap_or(line));
        let [host, wanted_port, wanted_database, wanted_user, password] = <[String; 5]>::try_from(fields).ok()?;
        let here = host_matches(&host, &endpoint.host)
            && matches(&wanted_port, &port)
            && matches(&wanted_database, database)
            && matches(&wanted_user, user);
        (here && !password.is_empty()).then(|| unescape(&password))
    })
}

/// Splits at unescaped colons into at most five fields, escapes kept.
fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut escaped = false;
    for letter in line.chars() {
        let last = fields.len() - 1;
        // What follows the fourth colon is the password whole: libpq ends it at a fifth.
        if letter == ':' && !escaped {
            if fields.len() == 5 {
                break;
            }
            fields.push(String::new());
            continue;
        }
        escaped = letter == '\\' && !escaped;
        fields[last].push(letter);
    }
    fields
}

fn matches(field: &str, wanted: &str) -> bool {
    field == "*" || unescape(field) == wanted
}

fn host_matches(field: &str, host: &Host) -> bool {
    match host {
        Host::Tcp(name) => matches(field, name),
        Host::Unix(directory) => matches(field, "localhost") || matches(field, &directory.to_string_lossy()),
    }
}

fn unescape(field: &str) -> String {
    let mut plain = String::with_capacity(field.len());
    let mut letters = field.chars();
    while let Some(letter) = letters.next() {
        plain.push(if letter == '\\' { letters.next().unwrap_or('\\') } else { letter });
    }
    plain
}
