//! Secrets: a string, `{env: NAME}` or `{file: PATH}`.

use std::fmt;
use std::path::PathBuf;

use crate::model::Fault;

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
            Secret::Env(name) => std::env::var(name).map_err(|_| {
                Fault::usage(format!("the environment variable {name} is not set"), format!("set {name} to the secret"))
            }),
            Secret::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(text.strip_suffix('\n').map_or(text.as_str(), |t| t.trim_end_matches('\r')).to_owned()),
                Err(error) => Err(Fault::usage(
                    format!("the secret file {} cannot be read: {error}", path.display()),
                    "mount the file, or mend the path or its rights",
                )),
            },
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Inline(_) => f.write_str("Secret(…)"),
            Secret::Env(name) => write!(f, "Secret(env {name})"),
            Secret::File(path) => write!(f, "Secret(file {})", path.display()),
        }
    }
}
