//! `.pgpass`: one `host:port:database:user:password` a line, the first line that matches counts.
//!
//! * In: a file, and what to look for.
//! * Out: a password.
//! * Never: a password from a file that others may read, as libpq has it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::bounded;
use crate::postgres::connection::params::{Host, ServerEndpoint};

/// Reads the file.
///
/// # Errors
/// `None` where there is no such file, else the reason why the file is ignored.
pub(crate) fn read(path: &Path) -> Result<String, Option<String>> {
    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|error| {
        let there = error.kind() != std::io::ErrorKind::NotFound;
        there.then(|| format!("the password file {shown} cannot be read: {error}"))
    })?;
    if !about.is_file() {
        return Err(Some(format!("the password file {shown} is not a plain file and was passed over")));
    }
    if about.permissions().mode() & 0o077 != 0 {
        return Err(Some(format!(
            "the password file {shown} may be read by others and was passed over: chmod 0600 {shown}"
        )));
    }
    bounded::read_text(path, 1 << 20)
        .map_err(|error| Some(format!("the password file {shown} cannot be read: {error}")))
}

/// The password for `user` of `database` at `endpoint`.
pub(crate) fn find(text: &str, endpoint: &ServerEndpoint, database: &str, user: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(host: Host) -> ServerEndpoint {
        ServerEndpoint { host, port: 5432, password: None }
    }

    fn password(text: &str, host: &str) -> Option<String> {
        find(text, &at(Host::Tcp(host.into())), "app", "me")
    }

    #[test]
    fn the_first_line_that_matches_counts() {
        let text = "# a:5432:app:me:comment\nnonsense\na:1:app:me:port\na:5432:b:me:database\n*:*:*:you:user\na:*:*:me:right\n*:*:*:*:later\r\n";
        assert_eq!(password(text, "a").as_deref(), Some("right"));
        assert_eq!(password(text, "b").as_deref(), Some("later"));
        assert_eq!(password("", "a"), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        assert_eq!(password(r"\:\:1:*:*:*:p\:a\\ss", "::1").as_deref(), Some(r"p:a\ss"));
        assert_eq!(password(r"\*:*:*:*:p", "a"), None, "an escaped star is a star");
    }

    #[test]
    fn a_socket_goes_by_localhost_or_its_directory() {
        let here = at(Host::Unix("/run/pg".into()));
        assert_eq!(find("localhost:*:*:*:p", &here, "app", "me").as_deref(), Some("p"));
        assert_eq!(find("/run/pg:*:*:*:p", &here, "app", "me").as_deref(), Some("p"));
    }

    #[test]
    fn a_file_that_others_may_read_is_passed_over() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let allow = |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        allow(0o640);
        assert!(read(file.path()).unwrap_err().unwrap().contains("chmod 0600"));
        allow(0o600);
        assert_eq!(read(file.path()), Ok(String::new()));
        assert_eq!(read(Path::new("/nowhere/at/all")), Err(None));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_without_a_panic(text: String) {
            password(&text, "a");
        }
    }
}
