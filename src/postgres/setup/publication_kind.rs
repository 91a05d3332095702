//! The two publications: of inserts, and of updates. Pure.
//!
//! * In: a configuration.
//! * Out: the name of each, what it publishes, which tables it carries; what is wrong with one.
//! * Never: a table whose updates no section sends in the publication of updates.

use crate::config::{Config, TableName};
use crate::postgres::catalog::defects;
use crate::postgres::catalog::defects::Defect;
use crate::postgres::catalog::publication::Publication;

/// One of the two publications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicationKind {
    pub name: String,
    /// It carries the updates of some tables; the other carries the inserts of all.
    pub updates: bool,
}

impl PublicationKind {
    /// The publication of every streamed table.
    pub(crate) fn inserts(config: &Config) -> PublicationKind {
        PublicationKind { name: config.source.publication.clone(), updates: false }
    }

    /// The publication of the tables whose updates are sent.
    pub(crate) fn updates(config: &Config) -> PublicationKind {
        PublicationKind { name: config.source.update_publication(), updates: true }
    }

    /// Those that this configuration wants.
    pub(crate) fn wanted(config: &Config) -> Vec<PublicationKind> {
        let updates = config.sends_updates().then(|| PublicationKind::updates(config));
        std::iter::once(PublicationKind::inserts(config)).chain(updates).collect()
    }

    /// What it publishes, as `publish` has it.
    pub(crate) fn publishes(&self) -> &'static str {
        if self.updates { "insert, update" } else { "insert" }
    }

    /// The tables that it carries, each once, in the order written.
    pub(crate) fn tables(&self, config: &Config) -> Vec<TableName> {
        let is_of = |table: &TableName| {
            let mut sections = config.sections.iter().filter(|section| section.is_on() && section.table == *table);
            !self.updates || sections.any(|section| section.sends_updates())
        };
        tables(config).into_iter().filter(is_of).collect()
    }

    /// What is wrong with it as a whole.
    pub(crate) fn defect(&self, publication: &Publication) -> Option<Defect> {
        if self.updates { defects::of_update_publication(publication) } else { defects::of_publication(publication) }
    }
}

/// The tables of the sections that are on and streamed, each once, in the order written.
pub(crate) fn tables(config: &Config) -> Vec<TableName> {
    let mut tables = Vec::new();
    for section in config.sections.iter().filter(|section| section.is_on() && section.is_streamed()) {
        if !tables.contains(&section.table) {
            tables.push(section.table.clone());
        }
    }
    tables
}
