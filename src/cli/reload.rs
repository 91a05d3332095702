//! What SIGHUP does: the file is read again and judged as `plan` judges it; what harms nobody is taken over while it runs.
//!
//! * In: the configuration that runs, and the file.
//! * Out: the configuration that counts from here on, or none; log lines.
//! * Never: an end, a pause, a row lost or sent twice: where the file would do that, nothing of it is taken over.

use std::path::Path;
use std::sync::Arc;

use crate::config::definition::differs;
use crate::config::{self, Config, Section};
use crate::model::{Fault, SectionName};
use crate::operations::plan::{PlannedChange, elsewhere, misfits, plan};

/// What became of a file that was read again.
pub(crate) enum Reloaded {
    /// Nothing of it counts.
    Nothing,
    /// This counts from here on; `whole`: it is all that the file says.
    TakenOver { config: Arc<Config>, whole: bool },
}

/// Reads the file again, and says what becomes of it.
pub(crate) async fn reload(running: &Arc<Config>, path: &Path) -> Reloaded {
    let read = match config::load(path) {
        Ok(read) => read,
        Err(errors) => {
            let fault = Fault::from(errors);
            let faults: Vec<Fault> = if fault.parts.is_empty() { vec![fault] } else { fault.parts };
            return refused(&faults, "reload: the file cannot be used");
        }
    };
    let elsewhere: Vec<String> = elsewhere(running, &read).into_iter().map(|name| format!("{name} differs")).collect();
    let (sections, later) = merged(running, &read);
    let next = Arc::new(Config { sections, ..Config::clone(running) });
    let written = |section: &&Section| match running.sections.iter().find(|was| was.name == section.name) {
        Some(was) => differs(was, section),
        None => true,
    };
    let changed: Vec<SectionName> = next.sections.iter().filter(written).map(|section| section.name.clone()).collect();
    // Against what runs: another server is another matter.
    let judged = Arc::new(Config { sections: read.sections, ..Config::clone(running) });
    let dangers = match plan(&judged).await {
        Ok(changes) => dangers(&changes),
        Err(fault) => return refused(&[fault], "reload: the file cannot be held against what is recorded"),
    };
    if !dangers.is_empty() {
        return refused(&dangers, "reload: refused: rows would count twice or be lost");
    }
    if !changed.is_empty() {
        match misfits(&next, &changed).await {
            Ok(faults) if faults.is_empty() => {}
            Ok(faults) => return refused(&faults, "reload: refused: a section would not fit its table"),
            Err(fault) => return refused(&[fault], "reload: the file cannot be held against its tables"),
        }
    }
    for change in elsewhere.iter().chain(&later) {
        tracing::warn!(change, "reload: this takes a restart, and is as it was");
    }
    let whole = elsewhere.is_empty() && later.is_empty();
    if changed.is_empty() && whole {
        tracing::info!("reload: the file says what is running; secrets in files are read again on every connect");
    }
    Reloaded::TakenOver { config: next, whole }
}

fn refused(faults: &[Fault], said: &str) -> Reloaded {
    for Fault { what, remedy, .. } in faults {
        tracing::error!(what, remedy, "{said}");
    }
    tracing::warn!("reload: nothing was changed; this process goes on with what it has");
    Reloaded::Nothing
}

fn dangers(changes: &[PlannedChange]) -> Vec<Fault> {
    let fault = |change: &PlannedChange| {
        let whose = if change.section.is_empty() { String::new() } else { format!("section {}: ", change.section) };
        if !change.danger {
            return Fault::usage(
                format!("{whose}{}: {}", change.kind, change.said),
                "restart: a record changes its name at a start only",
            );
        }
        Fault::usage(
            format!("{whose}{}: {}", change.kind, change.said),
            "mend the file; `pg2planhat plan` says the same",
        )
    };
    changes.iter().filter(|change| change.danger || change.is_refused()).map(fault).collect()
}

/// The sections as they count from here on, and what of the file takes a restart. Pure.
fn merged(running: &Config, read: &Config) -> (Vec<Section>, Vec<String>) {
    let (mut sections, mut later) = (Vec::new(), Vec::new());
    for section in &read.sections {
        let was = running.sections.iter().find(|was| was.name == section.name);
        let ends = was.is_some_and(|was| was.is_on() && !section.is_on());
        let compared = !section.is_streamed() || was.is_some_and(|was| !was.is_streamed());
        let alone = section.is_on() && !running.streams();
        // Updates come by a publication of their own, and from where the slot can decode it: the start finds that.
        let updated = section.is_on() && section.sends_updates() != was.is_some_and(Section::sends_updates);
        match was {
            Some(was) if !differs(was, section) => sections.push(section.clone()),
            Some(was) if ends || compared || alone || updated => {
                later.push(format!("section {} differs", section.name));
                sections.push(was.clone());
            }
            None if section.is_on() && (compared || alone || updated) => {
                later.push(format!("section {} is new", section.name))
            }
            Some(_) | None => sections.push(section.clone()),
        }
    }
    for was in running.sections.iter().filter(|was| read.sections.iter().all(|section| section.name != was.name)) {
        if was.is_on() {
            later.push(format!("section {} is gone", was.name));
            sections.push(was.clone());
        }
    }
    (sections, later)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tenant: &str, extra: &str, section: &str) -> Config {
        let text = format!(
            "planhat: {{ tenant: {tenant} }}\n{extra}sections:\n  - {{ name: {section}kind: custom_metric, table: t, key: id, \
             fields: {{ dimensionId: {{ value: x }}, value: v, externalId: e, date: d }} }}\n"
        );
        config::parse(&text, "test").unwrap()
    }

    #[test]
    fn case_76_what_takes_a_restart_is_named() {
        let running = file("one", "", "a, ");
        assert_eq!(elsewhere(&running, &file("one", "", "a, ")), [""; 0]);
        assert_eq!(elsewhere(&running, &file("two", "memory: 32MiB\n", "a, ")), ["planhat", "memory"]);
    }

    #[test]
    fn sections_that_cannot_be_taken_over_while_it_runs_stay_as_they_were() {
        let running = file("one", "", "a, ");
        let names = |config: Config| {
            let (sections, later) = merged(&running, &config);
            (sections.iter().map(|section| section.name.to_string()).collect::<Vec<_>>().join(" "), later.join(", "))
        };
        assert_eq!(names(file("one", "", "a, flush: 1m, ")), ("a".to_owned(), String::new()));
        assert_eq!(names(file("one", "", "a, sync: off, ")), ("a".to_owned(), "section a differs".to_owned()));
        assert_eq!(names(file("one", "", "b, ")), ("b a".to_owned(), "section a is gone".to_owned()));
        assert_eq!(names(file("one", "", "a, sync: off, ")).0, "a");
        let (sections, _) = merged(&running, &file("one", "", "a, flush: 1m, "));
        assert!(differs(&sections[0], &running.sections[0]));
        let (sections, _) = merged(&running, &file("one", "", "a, sync: off, "));
        assert!(sections[0].is_on());
    }
}
