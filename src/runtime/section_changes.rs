//! A section that is not what was recorded under its name: another key, another table, or another name. Pure, but for where the
//! tables are.
//!
//! * In: a section as the file has it, what is recorded, and which table each name is.
//! * Out: whose rows the section would deliver again, or whose record it goes on with; the fault, with its ways out.
//! * Never: a difference taken for a new section where rows would be delivered again.

use crate::config::{Config, Section, Start};
use crate::model::{Fault, SectionName};
use crate::postgres::connection::session::Session;
use crate::sql;
use crate::state::{SectionPhase, SectionRow};
use crate::terminal::plural;

/// The OIDs of the tables that the file names, by section.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfiguredTables(Vec<(SectionName, u32)>);

impl ConfiguredTables {
    /// Asks the catalog.
    pub(crate) async fn find(session: &Session, config: &Config) -> Result<ConfiguredTables, tokio_postgres::Error> {
        let (schemas, names): (Vec<&str>, Vec<&str>) =
            config.sections.iter().map(|section| (&*section.table.schema, &*section.table.name)).unzip();
        let sql = "SELECT c.oid FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS f(schema, name, at)
            LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = f.schema
            LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = f.name ORDER BY f.at";
        let rows = sql::query(session, sql, &[&schemas, &names]).await?;
        let oid = |(section, row): (&Section, &tokio_postgres::Row)| {
            Some((section.name.clone(), row.get::<_, Option<u32>>(0)?))
        };
        Ok(ConfiguredTables(config.sections.iter().zip(&rows).filter_map(oid).collect()))
    }

    /// The table of this section; `None` where there is none of the name, or nobody asked.
    pub(crate) fn of(&self, name: &SectionName) -> Option<u32> {
        self.0.iter().find(|(section, _)| section == name).map(|(_, oid)| *oid)
    }
}

/// Why the rows of a section's table are another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A section that the file does not have any more.
    Gone,
    /// The same, and another table took the place of its own, most likely with its rows.
    Replaced,
    /// A section that is switched off.
    Off,
    /// A section that has another table in the file.
    MovedOn,
}

/// A section that has delivered the rows of a table that the file gives to another one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeliveredBefore<'a> {
    pub row: &'a SectionRow,
    pub whose: Whose,
}

/// The file, held against what is recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SectionHistory<'a> {
    pub config: &'a Config,
    pub tables: &'a ConfiguredTables,
    pub sections: &'a [SectionRow],
}

impl DeliveredBefore<'_> {
    /// The section is not in the file any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.whose, Whose::Gone | Whose::Replaced)
    }
}

impl<'a> SectionHistory<'a> {
    /// What is recorded of a section that is attached.
    fn own(&self, section: &Section) -> Option<&'a SectionRow> {
        self.sections.iter().find(|row| row.name == section.name && row.phase != SectionPhase::Waiting)
    }

    /// The table that a section is attached to, where the file gives it another one, by name and in fact.
    pub(crate) fn moved_from(&self, section: &Section) -> Option<&'a SectionRow> {
        let row = self.own(section)?;
        if !section.is_streamed() || row.attachment.attach_lsn.is_none() {
            return None;
        }
        let is_named_so = row.attachment.table_name == section.table.to_string();
        match self.tables.of(&section.name) {
            Some(oid) => oid != row.attachment.table_oid && !is_named_so,
            // Nobody asked. Where it is not there, it was renamed, or dropped.
            None => self.tables.0.is_empty() && !is_named_so,
        }
        .then_some(row)
    }

    /// The section whose rows this one would deliver again.
    pub(crate) fn delivered_before(&self, section: &Section) -> Option<DeliveredBefore<'a>> {
        let is_moved = self.moved_from(section).is_some();
        if !is_moved && (self.own(section).is_some() || section.start == Start::Now) {
            return None;
        }
        let others = self.sections.iter().filter(|row| row.name != section.name && row.totals.delivered > 0);
        others.filter_map(|row| Some(DeliveredBefore { row, whose: self.whose(section, row)? })).next()
    }

    /// The section, gone from the file, whose record this one of `start: now` goes on with under its own name: its table is the
    /// same. It reads the stream from where that one was left.
    pub(crate) fn takes_over(&self, section: &Section) -> Option<&'a SectionRow> {
        let is_fresh = self.sections.iter().filter(|row| row.name == section.name).all(|row| {
            row.phase == SectionPhase::Waiting && row.key.is_none() && row.totals == crate::state::Totals::default()
        });
        if !is_fresh || !section.is_on() || !section.is_streamed() || section.start != Start::Now {
            return None;
        }
        let taken = |row: &&SectionRow| self.whose(section, row) == Some(Whose::Gone);
        self.sections.iter().find(taken)
    }

    /// Whether, and why, the rows of the section's table are those of `row`.
    fn whose(&self, section: &Section, row: &SectionRow) -> Option<Whose> {
        let was_streamed = row.attachment.attach_lsn.is_some();
        let is_like = row.phase != SectionPhase::Waiting
            && was_streamed == section.is_streamed()
            && row.attachment.kind == section.kind.as_str();
        // Of two queries nobody knows whether their results are the same rows.
        let is_named_so = !section.table.name.is_empty() && row.attachment.table_name == section.table.to_string();
        let is_same = was_streamed && self.tables.of(&section.name) == Some(row.attachment.table_oid);
        if !is_like || !(is_named_so || is_same) {
            return None;
        }
        match self.config.sections.iter().find(|other| other.name == row.name) {
            None if is_same || !was_streamed || self.tables.of(&section.name).is_none() => Some(Whose::Gone),
            None => Some(Whose::Replaced),
            Some(other) if !other.is_on() => was_streamed.then_some(Whose::Off),
            Some(other) => (is_same && self.moved_from(other).is_some()).then_some(Whose::MovedOn),
        }
    }
}

/// What is said of such a section, and its ways out.
pub(crate) fn delivered_again(before: DeliveredBefore<'_>, section: &Section, moved: Option<&SectionRow>) -> Fault {
    let (name, other) = (&section.name, &before.row.name);
    let rows = plural(before.row.totals.delivered, "row", "rows");
    let whose = match before.whose {
        Whose::Gone => format!("{other} is gone from the file and reads the same table"),
        Whose::Replaced => {
            format!(
                "{other} is gone from the file, and delivered a table in whose place {} is",
                before.row.attachment.table_name
            )
        }
        Whose::Off => format!("{other} is switched off and reads the same table"),
        Whose::MovedOn => format!("{other} delivered that table's rows, and has another table in the file"),
    };
    let what = format!("section {name}: {whose}: under the name {name} {rows} would be delivered again");
    let table = &before.row.attachment.table_name;
    let remedy = match (moved, before.whose) {
        (Some(own), Whose::Gone | Whose::Replaced | Whose::Off | Whose::MovedOn) => format!(
            "sections are known by their names: put `table: {}` back in {name}, and in {other} `table: {table}`",
            own.attachment.table_name
        ),
        (None, Whose::Gone) if !section.is_streamed() => format!(
            "keep the name {other}; or, to deliver all of it again on purpose, leave {other} in the file with `sync: off`"
        ),
        (None, Whose::Gone) => format!(
            "keep the name {other}, or write `start: now`: {name} then goes on with what is recorded of {other}, from where it was \
             left (and `pg2planhat resync {name}` delivers older rows, on purpose)"
        ),
        (None, Whose::Replaced) => format!(
            "keep the name {other}, and `pg2planhat repair --gap`; or write `start: now`: {name} then begins with new rows, and what was \
             committed since {other} was left is an open gap of it, for `pg2planhat repair --gap`"
        ),
        (None, Whose::Off) => format!(
            "switch {other} on again, or write `start: now` in {name} (then `pg2planhat resync {name}` delivers older rows, on \
             purpose)"
        ),
        (None, Whose::MovedOn) => format!(
            "put `table: {table}` back in {other}, or write `start: now` in {name} (then `pg2planhat resync {name}` delivers older \
             rows, on purpose)"
        ),
    };
    Fault::needs_person(what, remedy)
}

/// The fault of a section whose key is not the one that its cursor, its ledger and its quarantine were recorded with.
pub(crate) fn key_changed(section: &Section, row: &SectionRow) -> Option<Fault> {
    let (before, now) = (row.key.as_ref()?, &section.key);
    if now.is_empty() || before == now {
        return None;
    }
    let (before, now) = (before.join(", "), now.join(", "));
    Some(Fault::needs_person(
        format!("section {}: its key is {now} in the file, and what is recorded of it goes by {before}", section.name),
        format!("put `key: {before}` back; or give the section a new name, with `start: now`"),
    ))
}
