//! Whether the file is what runs: a restart reads it, whenever that comes.
//!
//! * In: the configuration that runs, and the file.
//! * Out: a note on the status board, for as long as the two differ.
//! * Never: anything taken over.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::definition::differs;
use crate::config::{self, Config, Section};
use crate::model::Fault;
use crate::operations::plan::elsewhere;
use crate::runtime::Board;

/// How often the file is read.
const EVERY: Duration = Duration::from_secs(10);

/// Holds the file against what runs, from time to time.
pub(crate) async fn watch(boards: Arc<Mutex<Board>>, path: &Path) -> Infallible {
    loop {
        let text = tokio::fs::read_to_string(path).await;
        // Those of now: another file may have been taken over while this one was read.
        let board = boards.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let note = match text {
            Ok(text) => note(&board.config(), &text, path),
            Err(error) => Some(unusable(&error.to_string())),
        };
        board.set_file_note(note);
        tokio::time::sleep(EVERY).await;
    }
}

fn unusable(why: &str) -> Fault {
    let what = format!("this runs on, and the next start will not: the file cannot be used: {why}");
    Fault::usage(what, "mend the file; `pg2planhat plan` names everything that is wrong with it")
}

/// What a restart would do otherwise than what runs; `None` where the file is what runs.
fn note(running: &Config, text: &str, path: &Path) -> Option<Fault> {
    let read = match config::parse(text, &path.display().to_string()) {
        Ok(read) => read,
        Err(errors) => {
            let fault = Fault::from(errors);
            return Some(unusable(fault.parts.first().map_or(&fault.what, |part| &part.what)));
        }
    };
    let differing = differing(running, &read);
    let what = format!("the file is not what runs, and the next start takes it: {}", differing.join(", "));
    (!differing.is_empty()).then(|| Fault::usage(what, "`pg2planhat plan` says what that would do"))
}

/// What differs, by name: nothing of it is shown. Pure.
fn differing(running: &Config, read: &Config) -> Vec<String> {
    let mut names: Vec<String> = elsewhere(running, read).into_iter().map(|name| format!("{name} differs")).collect();
    fn named<'a>(config: &'a Config, like: &Section) -> Option<&'a Section> {
        config.sections.iter().find(|section| section.name == like.name)
    }
    for section in &read.sections {
        match named(running, section) {
            None => names.push(format!("section {} is new", section.name)),
            Some(was) if differs(was, section) => names.push(format!("section {} differs", section.name)),
            Some(_) => {}
        }
    }
    let gone = running.sections.iter().filter(|was| named(read, was).is_none());
    names.extend(gone.map(|was| format!("section {} is gone", was.name)));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tenant: &str, section: &str) -> Config {
        let text = format!(
            "planhat: {{ tenant: {tenant} }}\nsections:\n  - {{ name: {section}, kind: custom_metric, table: t, key: id, \
             fields: {{ dimensionId: {{ value: x }}, value: v, externalId: e, date: d }} }}\n"
        );
        config::parse(&text, "test").unwrap()
    }

    #[test]
    fn case_242_what_differs_is_named_and_no_secret_shown() {
        let running = file("one", "a");
        assert_eq!(differing(&running, &file("one", "a")), [""; 0]);
        assert_eq!(differing(&running, &file("two", "a, flush: 1m")), ["planhat differs", "section a differs"]);
        assert_eq!(differing(&running, &file("one", "b")), ["section b is new", "section a is gone"]);
    }

    #[test]
    fn case_242_a_file_that_cannot_be_used_is_told_of() {
        let said = note(&file("one", "a"), "sections: [", Path::new("f.yaml")).unwrap();
        assert!(said.what.contains("the next start will not"), "{}", said.what);
    }
}
