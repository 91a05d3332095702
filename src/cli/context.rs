//! What every command has: the configuration, read when it is first asked for, and the way out.

use std::cell::OnceCell;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use crate::config;
use crate::config::{Config, Section, Source};
use crate::model::Fault;
use crate::postgres::connection::target::Target;
use crate::terminal::Output;

/// What every command has.
#[derive(Debug)]
pub struct Context {
    path: PathBuf,
    config: OnceCell<Config>,
    /// Where results go.
    pub output: Output,
}

impl Context {
    /// For the configuration at `path`, which is not read yet.
    pub fn new(path: PathBuf, json: bool) -> Context {
        Context { path, config: OnceCell::new(), output: Output::new(json) }
    }

    /// Whether one JSON document is wanted.
    pub fn json(&self) -> bool {
        self.output.is_json()
    }

    /// The configuration's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration.
    pub fn config(&self) -> Result<&Config, Fault> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        self.exists()?;
        let config = config::load(&self.path).map_err(Fault::from)?;
        Ok(self.config.get_or_init(|| config))
    }

    /// The source alone: a file that has no sections yet will do, and so will libpq's environment variables.
    pub fn source(&self) -> Result<Source, Fault> {
        config::load_source(&self.path).map_err(Fault::from)
    }

    /// How long a command waits for its servers altogether; `None` where no source can be named.
    pub(crate) fn patience(&self) -> Option<std::time::Duration> {
        let target = Target::resolve(&self.source().ok()?).ok()?;
        let patience = target.connect_timeout.max(std::time::Duration::from_secs(1)) * 8;
        Some(patience.max(std::time::Duration::from_secs(8)))
    }

    /// A fault where there is no file.
    fn exists(&self) -> Result<(), Fault> {
        if self.path.exists() {
            return Ok(());
        }
        Err(Fault::usage(
            format!("there is no configuration {}", self.path.display()),
            "name it with --config FILE, or begin with `pg2planhat ui` or `pg2planhat discover`; `pg2planhat demo` needs none",
        ))
    }

    /// A section by its name.
    ///
    /// # Errors
    /// Where no section has this name; the remedy names the one that was probably meant.
    pub fn section(&self, name: &str) -> Result<&Section, Fault> {
        let sections = &self.config()?.sections;
        sections.iter().find(|section| section.name.as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = sections.iter().map(|section| section.name.as_str()).collect();
            let remedy = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("choose one of {}", names.join(", ")),
            };
            Fault::usage(format!("{} has no section {name}", self.path.display()), remedy)
        })
    }

    /// Whether a person says yes to `question`, which tells what will happen. `yes`: they have said so already.
    pub fn confirm(&self, question: &str, yes: bool) -> Result<bool, Fault> {
        if yes {
            return Ok(true);
        }
        let (mut stderr, stdin) = (std::io::stderr(), std::io::stdin());
        let nobody =
            |what: &str| Fault::usage(format!("nothing was done: {what}"), "pass --yes to skip the confirmation");
        let failed = |error: std::io::Error| nobody(&error.to_string());
        writeln!(stderr, "{question}").map_err(failed)?;
        if !stdin.is_terminal() {
            return Err(nobody("there is no terminal to ask at"));
        }
        let mut answer = String::new();
        write!(stderr, "Go on? [y/N] ")
            .and_then(|()| stderr.flush())
            .and_then(|()| stdin.lock().read_line(&mut answer))
            .map_err(failed)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

/// The one of `known` that was probably meant by `name`.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let wanted = fold(name);
    let scored = known.map(|other| (strsim::jaro_winkler(&wanted, &fold(other)), other));
    scored.filter(|(score, _)| *score >= 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        let known = ["app_event", "usage_daily"];
        assert_eq!(nearest("AppEvents", known.into_iter()), Some("app_event"));
        assert_eq!(nearest("daily_usage", ["orders"].into_iter()), None);
    }

    #[test]
    fn a_missing_file_says_where_to_begin() {
        let fault = Context::new("/nowhere/x.yaml".into(), false).config().unwrap_err();
        assert!(fault.what.contains("/nowhere/x.yaml") && fault.remedy.contains("pg2planhat ui"), "{fault}");
        assert_eq!(fault.exit.code(), 64);
    }
}
