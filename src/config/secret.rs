//! Secrets: a string, `{env: NAME}` or `{file: PATH}`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::config::bounded;
use crate::model::Fault;

/// Bytes of a secret, at most: a password, a tenant's UUID, a URL.
const LARGEST: usize = 64 << 10;

/// What somebody has typed for variables that the file names: this process has them in memory, the environment has not.
static TYPED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Keeps a secret that was typed, under the variable by which the file names it.
pub(crate) fn remember(variable: &str, secret: &str) {
    TYPED.lock().unwrap_or_else(PoisonError::into_inner).insert(variable.to_owned(), secret.to_owned());
}

fn typed(variable: &str) -> Option<String> {
    TYPED.lock().unwrap_or_else(PoisonError::into_inner).get(variable).cloned()
}

/// A secret, or where it is. Its `Debug` form never shows it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// Written in the file itself.
    Inline(String),
    /// In an environment variable.
    Env(String),
    /// In a file; one trailing line break is not part of it.
    File(PathBuf),
}

impl Secret {
    /// Reads the secret now; call again on each use, for files are rotated.
    ///
    /// # Errors
    /// A usage fault that names the variable or the file, never the content.
    pub fn reveal(&self) -> Result<String, Fault> {
        match self {
            Secret::Inline(text) => Ok(text.clone()),
            Secret::Env(name) => match typed(name).map_or_else(|| std::env::var(name), Ok) {
                Ok(text) => Ok(text),
                Err(_) if looks_like_a_secret(name) => Err(Fault::usage(
                    "the environment variable that env names is not set, and what stands there looks like the secret itself",
                    "write the name of the variable behind env, and renew the secret if others have seen the file",
                )),
                Err(_) => Err(Fault::usage(
                    format!("the environment variable {name} is not set"),
                    format!("set {name} to the secret"),
                )),
            },
            Secret::File(path) => match bounded::read_text(path, LARGEST) {
                Ok(text) => Ok(text.strip_suffix('\n').map_or(text.as_str(), |t| t.trim_end_matches('\r')).to_owned()),
                Err(error) => Err(Fault::usage(
                    format!("the secret file {} cannot be read: {error}", path.display()),
                    "mount the file, or mend the path or its rights",
                )),
            },
        }
    }
}

/// Whether a variable's name is none that people give: then it is not shown. Names are words of capitals, or of small
/// letters, with digits behind them; a token mixes.
fn looks_like_a_secret(name: &str) -> bool {
    let (upper, lower) = (name.bytes().any(|b| b.is_ascii_uppercase()), name.bytes().any(|b| b.is_ascii_lowercase()));
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    let hexadecimal = name.len() >= 16 && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'_');
    (upper && lower && name.len() >= 12) || digits >= 6 || hexadecimal
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Inline(_) => f.write_str("Secret(…)"),
            Secret::Env(name) if looks_like_a_secret(name) => f.write_str("Secret(env …)"),
            Secret::Env(name) => write!(f, "Secret(env {name})"),
            Secret::File(path) => write!(f, "Secret(file {})", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_104_a_secret_in_a_variables_place_is_not_shown() {
        for name in ["PLANHAT_TENANT_UUID", "PGPASSWORD", "pgreader", "DB2_PASSWORD", "MISSING_VARIABLE_1"] {
            assert!(Secret::Env(name.into()).reveal().unwrap_err().what.contains(name), "{name}");
        }
        for name in ["Sup3rSecretPassw0rd", "deadbeefdeadbeefdead", "a1b2c3d4e5f6", "hunter2Hunter2"] {
            let secret = Secret::Env(name.into());
            assert!(!format!("{secret:?} {}", secret.reveal().unwrap_err()).contains(name), "{name}");
        }
    }
}
