//! A section's fields against a Relation's columns → the steps that write an item, or everything that does not fit.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{ActivityNames, Constant, Field, Kind, Section};
use crate::mapping::mapping_fault::{MappingFault, Problem, nearest, words};
use crate::mapping::row_filter::RowFilter;
use crate::mapping::value::{Encoder, JsonTarget, target_of};
use crate::mapping::{ColumnStep, FieldStep, Mapping, Presence, json, time, value};
use crate::model::{Column, Type};

type Fields = [(String, Field)];

impl Mapping {
    /// Compiles `section` against the columns of one Relation.
    ///
    /// # Errors
    /// Everything that does not fit, at once: unknown columns, types and constants that could never fit, a field that
    /// is missing or double, an unusable key.
    pub fn compile(section: &Section, names: ActivityNames, columns: &[Column]) -> Result<Mapping, Vec<MappingFault>> {
        Mapping::compiled(section, names, columns, false)
    }

    /// The same for rows that were written before their table had every column that it has now: such a column is NULL, or what
    /// its field has as `default`.
    pub(crate) fn compile_for_older_rows(
        section: &Section,
        names: ActivityNames,
        columns: &[Column],
    ) -> Result<Mapping, Vec<MappingFault>> {
        Mapping::compiled(section, names, columns, true)
    }

    fn compiled(
        section: &Section,
        names: ActivityNames,
        columns: &[Column],
        older: bool,
    ) -> Result<Mapping, Vec<MappingFault>> {
        let mut compiler = Compiler { section, names, columns, older, used: BTreeMap::new(), faults: Vec::new() };
        let key = compiler.key();
        compiler.demand_mandatory();
        let mut steps = compiler.object(&section.fields, None);
        let filter = RowFilter::compile(section, columns).unwrap_or_else(|faults| {
            compiler.faults.extend(faults);
            RowFilter::default()
        });
        for index in filter.columns_used() {
            compiler.used.insert(index, columns[index].name.clone());
        }
        if let Kind::CustomMetric(model) = section.kind {
            let mut literal = lead("model");
            json::escaped(model.as_str(), &mut literal);
            push(&mut steps, FieldStep::Literal(literal));
        }
        if !has(&section.fields, "date") {
            push(&mut steps, FieldStep::CommitTime { lead: lead("date") });
        }
        match key {
            Some(key) if compiler.faults.is_empty() => Ok(Mapping {
                steps,
                key,
                filter,
                columns: compiler.used.into_iter().collect(),
                needs_identity: section.kind == Kind::UserActivity && both_identities_vary(&section.fields),
                zone: section.timezone.clone(),
            }),
            Some(_) | None => Err(compiler.faults),
        }
    }
}

struct Compiler<'a> {
    section: &'a Section,
    names: ActivityNames,
    columns: &'a [Column],
    /// The rows may be older than a column.
    older: bool,
    used: BTreeMap<usize, String>,
    faults: Vec<MappingFault>,
}

impl Compiler<'_> {
    fn fault(&mut self, field: &str, problem: Problem) {
        let Section { name, table, .. } = self.section;
        self.faults.push(MappingFault {
            section: name.clone(),
            table: table.clone(),
            field: field.to_owned(),
            problem,
        });
    }

    /// The column's index and type; its absence is a fault.
    fn column(&mut self, field: &str, name: &str) -> Option<(usize, Type)> {
        let Some((index, column)) = self.columns.iter().enumerate().find(|(_, column)| column.name == name) else {
            let nearest = nearest(name, self.columns).map(str::to_owned);
            self.fault(field, Problem::UnknownColumn { column: name.to_owned(), nearest });
            return None;
        };
        self.used.insert(index, column.name.clone());
        Some((index, column.ty))
    }

    /// The key's columns, of whatever type; where none is written and none is known, that is a fault.
    fn key(&mut self) -> Option<Vec<usize>> {
        let names = &self.section.key;
        if names.is_empty() {
            self.fault("key", Problem::NoKey);
            return None;
        }
        let columns: Vec<_> = names.iter().map(|name| self.column("key", name)).collect();
        columns.into_iter().map(|column| column.map(|(index, _)| index)).collect()
    }

    fn demand_mandatory(&mut self) {
        let fields = &self.section.fields;
        match self.section.kind {
            Kind::UserActivity if !has(fields, "email") && !has(fields, "externalId") => {
                self.fault("email or externalId", Problem::Missing);
            }
            Kind::UserActivity => {}
            Kind::CustomMetric(_) => {
                for name in ["dimensionId", "value", "externalId"] {
                    if !has(fields, name) {
                        self.fault(name, Problem::Missing);
                    }
                }
            }
        }
    }

    /// The steps of one object's members; `within` is the path of the object, `None` for the item itself.
    fn object(&mut self, fields: &Fields, within: Option<&str>) -> Vec<FieldStep> {
        let mut steps = Vec::new();
        let mut names = BTreeSet::new();
        if within.is_none() && matches!(self.section.kind, Kind::CustomMetric(_)) {
            names.insert("model");
        }
        for (name, field) in fields {
            let path = within.map_or_else(|| name.clone(), |within| format!("{within}.{name}"));
            let shown = if within.is_none() { self.output_name(name) } else { name };
            if !names.insert(shown) {
                self.fault(&path, Problem::Twice { name: shown.to_owned() });
            }
            let target = if within.is_none() { target_of(name) } else { JsonTarget::Any };
            let presence = if within.is_none() { self.presence_of(name) } else { Presence::Optional };
            if let Some(step) = self.member(shown, &path, field, target, presence) {
                push(&mut steps, step);
            }
        }
        steps
    }

    fn member(
        &mut self,
        shown: &str,
        path: &str,
        field: &Field,
        target: JsonTarget,
        presence: Presence,
    ) -> Option<FieldStep> {
        match field {
            Field::Constant(constant) => {
                let mut literal = lead(shown);
                literal.extend(self.constant(path, constant, target, presence)?);
                Some(FieldStep::Literal(literal))
            }
            Field::Object(fields) if matches!(target, JsonTarget::Object | JsonTarget::Any) => {
                let steps = self.object(fields, Some(path));
                Some(FieldStep::Object { lead: lead(shown), steps })
            }
            Field::Object(_) => {
                self.fault(path, Problem::Nested { wanted: wanted(target) });
                None
            }
            Field::Column { column: name, default, as_text } => {
                let target = if *as_text { JsonTarget::Text } else { target };
                let default = default.as_ref().map(|default| self.constant(path, default, target, presence));
                let is_there = self.columns.iter().any(|column| column.name == *name);
                if self.older && !is_there && (presence == Presence::Optional || default.is_some()) {
                    let mut literal = lead(shown);
                    literal.extend(default.flatten()?);
                    return Some(FieldStep::Literal(literal));
                }
                let (column, ty) = self.column(path, name)?;
                let Some(encoder) = Encoder::new(ty, target) else {
                    let problem = Problem::ColumnType { column: name.clone(), ty: words(ty), wanted: wanted(target) };
                    self.fault(path, problem);
                    return None;
                };
                let default = default.flatten();
                Some(FieldStep::Column(ColumnStep {
                    lead: lead(shown),
                    column,
                    encoder,
                    presence,
                    default,
                    field: path.into(),
                }))
            }
        }
    }

    /// The constant's JSON text.
    fn constant(&mut self, path: &str, constant: &Constant, target: JsonTarget, presence: Presence) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let text = match constant {
            Constant::Bool(true) => "true",
            Constant::Bool(false) => "false",
            Constant::Number(text) | Constant::Text(text) => text,
        };
        let fits = match (target, constant) {
            (JsonTarget::Text | JsonTarget::Identity | JsonTarget::Dimension, _) => {
                json::escaped(text, &mut out);
                presence == Presence::Optional || !text.is_empty()
            }
            (JsonTarget::Number, Constant::Number(_) | Constant::Text(_)) | (JsonTarget::Any, Constant::Number(_)) => {
                value::number(text.as_bytes(), &mut out).is_ok()
            }
            (JsonTarget::Date, Constant::Text(_)) => {
                time::free_text(text.as_bytes(), self.section.timezone.as_ref(), &mut out).is_ok()
            }
            (JsonTarget::Any, Constant::Bool(_)) => {
                out.extend_from_slice(text.as_bytes());
                true
            }
            (JsonTarget::Any, Constant::Text(_)) => {
                json::escaped(text, &mut out);
                true
            }
            (JsonTarget::Number, Constant::Bool(_))
            | (JsonTarget::Date, Constant::Bool(_) | Constant::Number(_))
            | (JsonTarget::Object, _) => false,
        };
        if !fits {
            self.fault(path, Problem::Constant { constant: text.to_owned(), wanted: wanted(target) });
        }
        fits.then_some(out)
    }

    /// The name that the item shows.
    fn output_name<'n>(&self, name: &'n str) -> &'n str {
        match (self.section.kind, self.names, name) {
            (Kind::UserActivity, ActivityNames::Legacy, "externalId") => "euExtId",
            (Kind::UserActivity, ActivityNames::Legacy, "companyExternalId") => "cId",
            (Kind::UserActivity, ActivityNames::Legacy, "weight") => "count",
            (Kind::UserActivity | Kind::CustomMetric(_), ActivityNames::Current | ActivityNames::Legacy, _) => name,
        }
    }

    fn presence_of(&self, name: &str) -> Presence {
        let fields = &self.section.fields;
        match (self.section.kind, name) {
            (Kind::UserActivity, "email" | "externalId") => {
                let both = has(fields, "email") && has(fields, "externalId");
                if both { Presence::Identity } else { Presence::Mandatory }
            }
            (Kind::CustomMetric(_), "dimensionId" | "value" | "externalId") => Presence::Mandatory,
            (Kind::UserActivity | Kind::CustomMetric(_), _) => Presence::Optional,
        }
    }
}

fn wanted(target: JsonTarget) -> &'static str {
    match target {
        JsonTarget::Text | JsonTarget::Identity => "a column or a constant that is not empty",
        JsonTarget::Dimension => "a text column or a constant",
        JsonTarget::Number => "a number, or a column of an integer, float, numeric, text or json type",
        JsonTarget::Date => "an ISO date or time, or a column of type timestamp, timestamptz, date or text",
        JsonTarget::Object => "a json or jsonb column, or to a nested map of columns",
        JsonTarget::Any => "a column or a finite constant",
    }
}

fn has(fields: &Fields, name: &str) -> bool {
    fields.iter().any(|(field, _)| field == name)
}

/// Whether `email` and `externalId` are both there, and neither is constant. (Where one is alone, it is mandatory.)
fn both_identities_vary(fields: &Fields) -> bool {
    let varies = |wanted| fields.iter().any(|(name, field)| name == wanted && !matches!(field, Field::Constant(_)));
    varies("email") && varies("externalId")
}

/// `,"name":`
fn lead(name: &str) -> Vec<u8> {
    let mut lead = vec![b','];
    json::escaped(name, &mut lead);
    lead.push(b':');
    lead
}

/// Adds a step; neighbouring literals become one.
fn push(steps: &mut Vec<FieldStep>, step: FieldStep) {
    match (steps.last_mut(), step) {
        (Some(FieldStep::Literal(before)), FieldStep::Literal(more)) => before.extend(more),
        (_, step) => steps.push(step),
    }
}
