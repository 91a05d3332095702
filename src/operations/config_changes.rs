//! What a changed configuration would do, line by line. Pure.
//!
//! * In: what runs, what the file says, and what the state has of the sections.
//! * Out: [`ConfigChange`]s, each with its harm.
//! * Never: a change of a section without a line.

use std::fmt::Debug;

use crate::config::{Config, Section, Start};
use crate::state::SectionRow;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ConfigChange {
    /// The section; empty: another part of the file.
    pub section: String,
    /// `new`, `fields`, `renamed`, `removed`, `off`, `on`, `table`, `settings`, `connection`.
    pub change: &'static str,
    /// What it does, for people.
    pub what: String,
    /// Rows may count twice, or be lost.
    pub danger: bool,
    /// It is not done: the state would no longer be true.
    pub refused: bool,
}

/// Compares.
pub(crate) fn config_changes(now: &Config, next: &Config, rows: &[SectionRow]) -> Vec<ConfigChange> {
    let mut changes = Vec::new();
    let known = |name: &str| rows.iter().find(|row| row.name.as_str() == name);
    let line = |section: &Section, change, what: String| ConfigChange {
        section: section.name.to_string(),
        change,
        what,
        danger: false,
        refused: false,
    };
    for section in &next.sections {
        match now.sections.iter().find(|other| other.name == section.name) {
            Some(before) => compare(before, section, known(section.name.as_str()), &mut changes),
            None => {
                let twin = now.sections.iter().find(|other| {
                    let gone = next.sections.iter().all(|kept| kept.name != other.name);
                    gone && other.table == section.table && other.is_on()
                });
                let start = start_of(section);
                changes.push(match (twin, known(section.name.as_str())) {
                    (Some(twin), _) => ConfigChange {
                        danger: section.start != Start::Now,
                        ..line(section, "renamed", format!(
                            "it reads the table of {}, which goes: {start}. Rows that {} delivered count twice, {} of them; keep the \
                             name, or write `start: now`.",
                            twin.name,
                            twin.name,
                            known(twin.name.as_str()).map_or(0, |row| row.totals.delivered)
                        ))
                    },
                    (None, Some(row)) => line(section, "on", format!(
                        "it was there before, with {} rows delivered; rows written since may not have been delivered.",
                        row.totals.delivered
                    )),
                    (None, None) => line(section, "new", format!("{start}.")),
                });
            }
        }
    }
    for gone in now.sections.iter().filter(|before| next.sections.iter().all(|kept| kept.name != before.name)) {
        if gone.is_on() {
            let what = "rows written from now on are not delivered; what was delivered stays in Planhat.".to_owned();
            changes.push(ConfigChange { danger: true, ..line(gone, "removed", what) });
        }
    }
    rest(now, next, &mut changes);
    changes
}

fn start_of(section: &Section) -> String {
    match &section.start {
        Start::Backfill => format!("every row of {} is delivered, then what is new", section.table),
        Start::Now => "only rows from now on are delivered".to_owned(),
        Start::AfterKey(key) => format!("rows behind the key {key} are delivered, then what is new"),
    }
}

fn differs<T: Debug>(one: &T, other: &T) -> bool {
    format!("{one:?}") != format!("{other:?}")
}

fn compare(before: &Section, section: &Section, row: Option<&SectionRow>, changes: &mut Vec<ConfigChange>) {
    let mut note = |change, what: String, danger, refused| {
        changes.push(ConfigChange { section: section.name.to_string(), change, what, danger, refused });
    };
    let delivered = row.map_or(0, |row| row.totals.delivered);
    match (before.is_on(), section.is_on()) {
        (true, false) => {
            note("off", "rows written from now on are not delivered, and a gap is recorded.".to_owned(), true, false);
        }
        (false, true) => {
            let what = "rows written while it was off were not delivered; a gap says which.".to_owned();
            note("on", what, false, false);
        }
        (true, true) | (false, false) => {}
    }
    if before.table != section.table || differs(&before.key, &section.key) {
        let what = "its place in the table is kept by table and key: make a new section instead.".to_owned();
        note("table", what, false, row.is_some());
    }
    let mapping = |section: &Section| {
        format!("{:?} {:?} {:?} {:?}", section.fields, section.kind, section.date_receipt, section.timezone)
    };
    if mapping(before) != mapping(section) {
        let what = format!(
            "from now on rows are mapped anew. The {delivered} rows already delivered stay as they are in Planhat."
        );
        note("fields", what, false, false);
    }
    let mut plain = section.clone();
    plain.sync = before.sync;
    plain.table = before.table.clone();
    plain.key = before.key.clone();
    plain.fields.clone_from(&before.fields);
    plain.kind = before.kind;
    plain.date_receipt = before.date_receipt;
    plain.timezone.clone_from(&before.timezone);
    if differs(&plain, before) {
        note("settings", "they take effect at once; no row is sent again.".to_owned(), false, false);
    }
}

/// What is not of a section.
fn rest(now: &Config, next: &Config, changes: &mut Vec<ConfigChange>) {
    let mut note = |differs: bool, what: &str, refused| {
        if differs {
            let what = what.to_owned();
            changes.push(ConfigChange { section: String::new(), change: "connection", what, danger: false, refused });
        }
    };
    let secrets = |config: &Config| (config.source.url.clone(), config.source.password.clone());
    note(
        differs(&now.source, &next.source) || secrets(now) != secrets(next),
        "source changes: it is connected anew; another server than before is refused, and said.",
        false,
    );
    note(
        differs(&now.planhat, &next.planhat) || now.planhat.tenant != next.planhat.tenant,
        "planhat changes: requests go there from now on.",
        false,
    );
    note(
        differs(&now.state, &next.state) || now.state.url != next.state.url,
        "state changes: it is read and written there.",
        false,
    );
    note(
        now.console.listen != next.console.listen
            || now.console.cert != next.console.cert
            || now.console.key != next.console.key,
        "console.listen, cert or key change: that takes a restart of the process.",
        false,
    );
    let other = differs(&now.admin, &next.admin)
        || differs(&now.audit, &next.audit)
        || now.memory != next.memory
        || now.shutdown_grace != next.shutdown_grace;
    note(other, "admin, audit, memory or shutdown_grace change.", false);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sections: &str) -> Config {
        let text =
            format!("source: {{ host: h, database: d, user: u }}\nplanhat: {{ tenant: t }}\nsections:\n{sections}");
        crate::config::parse(&text, "test").unwrap()
    }

    fn section(name: &str, extra: &str) -> String {
        format!(
            "  - {{ name: {name}, kind: custom_metric, table: t, key: id, {extra}fields: {{ dimensionId: {{ value: x }}, value: v, \
             externalId: e, date: d }} }}\n"
        )
    }

    fn words(now: &str, next: &str) -> Vec<(&'static str, bool)> {
        config_changes(&config(now), &config(next), &[]).into_iter().map(|line| (line.change, line.danger)).collect()
    }

    #[test]
    fn each_change_has_its_line() {
        let one = section("a", "");
        assert_eq!(words(&one, &one), []);
        assert_eq!(words(&one, &(one.clone() + &section("b", ""))), [("new", false)]);
        assert_eq!(words(&one, &section("b", "")), [("renamed", true), ("removed", true)]);
        assert_eq!(words(&one, &section("b", "start: now, ")), [("renamed", false), ("removed", true)]);
        assert_eq!(words(&one, &section("a", "sync: off, ")), [("off", true)]);
        assert_eq!(words(&section("a", "sync: off, "), &one), [("on", false)]);
        assert_eq!(words(&one, &section("a", "flush: 1m, ")), [("settings", false)]);
        assert_eq!(words(&one, &one.replace("value: v", "value: w")), [("fields", false)]);
        assert_eq!(words(&one, &one.replace("table: t", "table: u")), [("table", false)]);
    }
}
