//! What SIGHUP does: the file is read again, and what it would change is said.
//!
//! * In: the configuration that runs, and the file.
//! * Out: log lines.
//! * Never: an end, a pause, a row lost. Nothing is taken over while it runs: that takes a restart, and is said.

use std::fmt::Debug;
use std::path::Path;

use crate::config;
use crate::config::Config;
use crate::model::Fault;

/// Reads the file again, and logs what it would change.
pub(crate) fn reload(running: &Config, path: &Path) {
    let read = match config::load(path) {
        Ok(read) => read,
        Err(errors) => {
            let fault = Fault::from(errors);
            for part in fault.parts.iter().chain(fault.parts.is_empty().then_some(&fault)) {
                tracing::error!(what = part.what, remedy = part.remedy, "reload: the file cannot be used");
            }
            tracing::warn!("reload: nothing was changed; this process goes on with what it has");
            return;
        }
    };
    let changes = changes(running, &read);
    if changes.is_empty() {
        tracing::info!("reload: the file says what is running; secrets in files are read again on every connect");
    }
    for change in &changes {
        tracing::warn!(change, "reload: nothing was changed: this takes a restart");
    }
}

/// What is different, by its name. Pure.
fn changes(running: &Config, read: &Config) -> Vec<String> {
    // Debug forms hide inline secrets, so these are compared by themselves.
    fn differs<T: Debug>(one: &T, other: &T) -> bool {
        format!("{one:?}") != format!("{other:?}")
    }
    let reader = |config: &Config| config.source.reader.as_ref().map(|reader| reader.password.clone());
    let secrets = |config: &Config| (config.source.url.clone(), config.source.password.clone(), reader(config));
    let mut changes = Vec::new();
    let mut note = |name: &str, differs: bool| {
        if differs {
            changes.push(format!("{name} differs"));
        }
    };
    note("source", differs(&running.source, &read.source) || secrets(running) != secrets(read));
    note("planhat", differs(&running.planhat, &read.planhat) || running.planhat.tenant != read.planhat.tenant);
    note("state", differs(&running.state, &read.state) || running.state.url != read.state.url);
    note("admin", differs(&running.admin, &read.admin));
    note("memory", running.memory != read.memory);
    note("shutdown_grace", running.shutdown_grace != read.shutdown_grace);
    for section in &read.sections {
        match running.sections.iter().find(|other| other.name == section.name) {
            None => changes.push(format!("section {} is new", section.name)),
            Some(other) if differs(other, section) => changes.push(format!("section {} differs", section.name)),
            Some(_) => {}
        }
    }
    let gone = running.sections.iter().filter(|section| read.sections.iter().all(|other| other.name != section.name));
    changes.extend(gone.map(|section| format!("section {} is gone", section.name)));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_76_what_differs_is_named() {
        let file = |tenant: &str, extra: &str| {
            let text = format!(
                "planhat: {{ tenant: {tenant} }}\n{extra}sections:\n  - {{ name: a, kind: custom_metric, table: t, key: id, \
                 fields: {{ dimensionId: {{ value: x }}, value: v, externalId: e, date: d }} }}\n"
            );
            config::parse(&text, "test").unwrap()
        };
        let running = file("one", "");
        assert_eq!(changes(&running, &file("one", "")), Vec::<String>::new());
        assert_eq!(changes(&running, &file("two", "memory: 32MiB\n")), ["planhat differs", "memory differs"]);
        let mut other = file("one", "");
        other.sections[0].name = "b".into();
        assert_eq!(changes(&running, &other), ["section b is new", "section a is gone"]);
    }
}
