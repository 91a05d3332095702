//! PostgreSQL's server binaries on this machine.
//!
//! * In: `PATH`, `pg_config`, and the places where distributions put them.
//! * Out: the newest server that is new enough, or none.
//! * Never: a server started here.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest server that the product serves.
const OLDEST: u32 = 14;

/// Directories that hold one directory for each major version, and what is behind that.
const BY_VERSION: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/lib", "postgresql", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// A directory with `initdb` and `postgres`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerBinaries {
    /// Where they are.
    pub directory: PathBuf,
    /// As `postgres --version` says it, without the program's name.
    pub version: String,
    /// The major version.
    pub major: u32,
}

/// The newest server that will do.
pub(crate) fn find() -> Option<ServerBinaries> {
    newest(candidates().iter().filter_map(|directory| look(directory)))
}

fn newest(servers: impl Iterator<Item = ServerBinaries>) -> Option<ServerBinaries> {
    servers.filter(|server| server.major >= OLDEST).max_by_key(|server| server.major)
}

fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(told) = Command::new("pg_config").arg("--bindir").output() {
        found.push(PathBuf::from(String::from_utf8_lossy(&told.stdout).trim()));
    }
    found.extend(BY_VERSION.iter().flat_map(|(parent, prefix, behind)| below(Path::new(parent), prefix, behind)));
    found
}

/// `parent/prefix*/behind`, where the star begins with a digit.
fn below(parent: &Path, prefix: &str, behind: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let versions = entries.filter(|entry| {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    });
    versions.map(|entry| entry.path().join(behind)).collect()
}

fn look(directory: &Path) -> Option<ServerBinaries> {
    if !directory.join("initdb").is_file() {
        return None;
    }
    let told = Command::new(directory.join("postgres")).arg("--version").output().ok()?;
    let (version, major) = version(&String::from_utf8_lossy(&told.stdout))?;
    Some(ServerBinaries { directory: directory.to_owned(), version, major })
}

/// `postgres (PostgreSQL) 17.2 (Debian …)` → what is behind the program's name, and 17.
fn version(told: &str) -> Option<(String, u32)> {
    let number = told.trim().strip_prefix("postgres (PostgreSQL) ")?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    Some((format!("PostgreSQL {number}"), number[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("postgres (PostgreSQL) 17.2\n"), Some(("PostgreSQL 17.2".to_owned(), 17)));
        let debian = version("postgres (PostgreSQL) 15.9 (Debian 15.9-0+deb12u1)").unwrap();
        assert_eq!(debian, ("PostgreSQL 15.9 (Debian 15.9-0+deb12u1)".to_owned(), 15));
        assert_eq!(version("postgres (PostgreSQL) 18beta1").unwrap().1, 18);
        assert_eq!(version("psql (PostgreSQL) 17.2"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn the_newest_that_will_do_is_taken() {
        let server = |major| ServerBinaries { directory: PathBuf::new(), version: String::new(), major };
        assert_eq!(newest([13, 15, 17, 16].map(server).into_iter()).unwrap().major, 17);
        assert_eq!(newest([9, 13].map(server).into_iter()), None);
    }

    #[test]
    fn only_versions_are_candidates() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["pgsql-15", "pgsql-x", "15", "other"] {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        assert_eq!(below(parent.path(), "pgsql-", "bin"), [parent.path().join("pgsql-15/bin")]);
        assert_eq!(below(parent.path(), "", "bin"), [parent.path().join("15/bin")]);
        assert!(below(&parent.path().join("none"), "", "bin").is_empty());
    }
}
