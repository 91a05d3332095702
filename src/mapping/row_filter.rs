//! Which rows are left out: `where`, and `on_null: skip`. The one function for every way that a row comes.
//!
//! * In: a section's conditions and the columns of a Relation; then rows as text by column.
//! * Out: the rule that leaves a row out, or none.
//! * Never: a number compared as a float; a NULL that equals or differs from anything; a row left out because a value
//!   could not be read (it is refused instead).

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::config::condition::{both, either};
use crate::config::{Condition, Constant, Field, Kind, OnNull, Section};
use crate::mapping::decimal::ExactNumber;
use crate::mapping::mapping_fault::{MappingFault, Problem, nearest, words};
use crate::mapping::value::{Encoder, JsonTarget, boolean, target_of, unpadded};
use crate::mapping::{EncodeError, Reason, moment};
use crate::model::{Column, FilterRule, Row, Type, Value};

/// A section's rules, compiled against the columns of one Relation.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowFilter {
    tests: Vec<ColumnTest>,
    /// Under `on_null: skip`: lists of columns; a row in which all columns of a list are NULL is left out.
    skips: Vec<Vec<(usize, Encoder)>>,
}

#[derive(Clone, Debug)]
struct ColumnTest {
    column: usize,
    ty: Type,
    test: Test,
    /// `where.plan`, for refusals.
    field: Arc<str>,
}

/// A [`Condition`] whose constants are of the column's type.
#[derive(Clone, Debug)]
enum Test {
    Null,
    Is(Operand),
    AtLeast(Operand),
    AtMost(Operand),
    Not(Box<Test>),
    Any(Vec<Test>),
    All(Vec<Test>),
}

#[derive(Clone, Debug)]
enum Operand {
    Text(Box<str>),
    Bool(bool),
    Number(Box<str>),
    /// Microseconds since 1970.
    Time(i128),
}

/// A column's value as it is compared.
enum Seen<'a> {
    Null,
    Text(&'a [u8]),
    Bool(bool),
    Number(ExactNumber<'a>),
    Time(i128),
    /// Larger than any constant.
    Large,
}

impl RowFilter {
    /// Compiles the rules of `section`.
    ///
    /// # Errors
    /// Everything that does not fit: unknown columns, constants of another type. What is wrong with a field is not said
    /// here: the mapping says it.
    pub(crate) fn compile(section: &Section, columns: &[Column]) -> Result<RowFilter, Vec<MappingFault>> {
        let mut filter = RowFilter::default();
        let mut faults = Vec::new();
        for (name, condition) in &section.conditions {
            let field: Arc<str> = format!("where.{name}").into();
            let fault = |problem| MappingFault {
                section: section.name.clone(),
                table: section.table.clone(),
                field: field.to_string(),
                problem,
            };
            let Some((index, ty)) = position(columns, name) else {
                let nearest = nearest(name, columns).map(str::to_owned);
                faults.push(fault(Problem::UnknownColumn { column: name.clone(), nearest }));
                continue;
            };
            match test(condition, name, ty, section.timezone.as_ref()) {
                Ok(test) => filter.tests.push(ColumnTest { column: index, ty, test, field }),
                Err(problem) => faults.push(fault(problem)),
            }
        }
        if section.on_null == OnNull::Skip {
            filter.skips = skips(section, columns);
        }
        if faults.is_empty() { Ok(filter) } else { Err(faults) }
    }

    /// The names of the columns that decide for a section.
    pub(crate) fn columns(section: &Section) -> Vec<String> {
        let mut names: Vec<String> = section.conditions.iter().map(|(name, _)| name.clone()).collect();
        if section.on_null == OnNull::Skip {
            for column in mandatory(section).into_iter().flatten() {
                if !names.iter().any(|name| name == column.name) {
                    names.push(column.name.to_owned());
                }
            }
        }
        names
    }

    /// The index of each column that decides.
    pub(crate) fn columns_used(&self) -> impl Iterator<Item = usize> {
        let skips = self.skips.iter().flatten().map(|(column, _)| *column);
        self.tests.iter().map(|test| test.column).chain(skips)
    }

    /// The rule that leaves this row out, or none.
    ///
    /// # Errors
    /// Why a value cannot be compared.
    #[inline]
    pub(crate) fn judge(&self, row: &Row<'_>) -> Result<Option<FilterRule>, EncodeError> {
        for test in &self.tests {
            if !test.holds(row)? {
                return Ok(Some(FilterRule::Where));
            }
        }
        let is_null = |(column, encoder): &(usize, Encoder)| match row.get(*column) {
            Value::Null => true,
            Value::Text(text) => encoder.reads_as_null(text),
            Value::Oversize | Value::Unknown => false,
        };
        Ok(self.skips.iter().any(|columns| columns.iter().all(is_null)).then_some(FilterRule::Null))
    }
}

impl ColumnTest {
    fn holds(&self, row: &Row<'_>) -> Result<bool, EncodeError> {
        let seen = match row.get(self.column) {
            Value::Null => Seen::Null,
            Value::Oversize => Seen::Large,
            Value::Unknown => return Err(EncodeError::new(&self.field, Reason::Unknown, b"")),
            Value::Text(text) => {
                let refuse = |reason| EncodeError::new(&self.field, reason, text);
                match self.ty {
                    Type::Bool => Seen::Bool(boolean(text).map_err(refuse)? == "true"),
                    Type::Int | Type::Float | Type::Numeric => {
                        Seen::Number(ExactNumber::parse(text).ok_or(Reason::NotANumber).map_err(refuse)?)
                    }
                    Type::Timestamp | Type::TimestampTz | Type::Date => {
                        Seen::Time(moment::of_column(text).ok_or(Reason::NotATime).map_err(refuse)?)
                    }
                    Type::Char => Seen::Text(unpadded(text)),
                    Type::Json | Type::Text => Seen::Text(text),
                }
            }
        };
        Ok(self.test.of(&seen) == Some(true))
    }
}

impl Test {
    /// Whether it holds; `None` where it neither does nor does not, as in SQL.
    fn of(&self, seen: &Seen<'_>) -> Option<bool> {
        match self {
            Test::Null => Some(matches!(seen, Seen::Null)),
            Test::Is(operand) => compare(seen, operand).map(Ordering::is_eq),
            Test::AtLeast(operand) => compare(seen, operand).map(Ordering::is_ge),
            Test::AtMost(operand) => compare(seen, operand).map(Ordering::is_le),
            Test::Not(inner) => inner.of(seen).map(|holds| !holds),
            Test::Any(list) => list.iter().map(|one| one.of(seen)).fold(Some(false), either),
            Test::All(list) => list.iter().map(|one| one.of(seen)).fold(Some(true), both),
        }
    }
}

fn compare(seen: &Seen<'_>, operand: &Operand) -> Option<Ordering> {
    match (seen, operand) {
        (Seen::Text(text), Operand::Text(wanted)) => Some((*text).cmp(wanted.as_bytes())),
        (Seen::Bool(value), Operand::Bool(wanted)) => Some(value.cmp(wanted)),
        (Seen::Number(value), Operand::Number(wanted)) => Some(value.compare(&ExactNumber::parse(wanted.as_bytes())?)),
        (Seen::Time(value), Operand::Time(wanted)) => Some(value.cmp(wanted)),
        (Seen::Large, _) => Some(Ordering::Greater),
        // Constants are of their column's type, since the filter was compiled.
        (Seen::Null | Seen::Text(_) | Seen::Bool(_) | Seen::Number(_) | Seen::Time(_), _) => None,
    }
}

/// A column's index and type.
fn position(columns: &[Column], name: &str) -> Option<(usize, Type)> {
    let (index, column) = columns.iter().enumerate().find(|(_, column)| column.name == name)?;
    Some((index, column.ty))
}

fn test(condition: &Condition, column: &str, ty: Type, zone: Option<&TimeZone>) -> Result<Test, Problem> {
    let unordered = matches!(ty, Type::Bool | Type::Json | Type::Char | Type::Text);
    let misfit = |wanted| Problem::ColumnType { column: column.to_owned(), ty: words(ty), wanted };
    let each = |list: &[Condition]| list.iter().map(|one| test(one, column, ty, zone)).collect::<Result<Vec<_>, _>>();
    Ok(match condition {
        Condition::Null => Test::Null,
        Condition::Not(inner) => Test::Not(Box::new(test(inner, column, ty, zone)?)),
        Condition::Any(list) => Test::Any(each(list)?),
        Condition::All(list) => Test::All(each(list)?),
        Condition::Is(_) if ty == Type::Json => return Err(misfit("null or { not: null }: json has no one text")),
        Condition::Is(constant) => Test::Is(operand(constant, ty, zone)?),
        Condition::AtLeast(_) | Condition::AtMost(_) if unordered => {
            return Err(misfit("a value, a list or { not: … }: only numbers and times have an order here"));
        }
        Condition::AtLeast(constant) => Test::AtLeast(operand(constant, ty, zone)?),
        Condition::AtMost(constant) => Test::AtMost(operand(constant, ty, zone)?),
    })
}

/// A constant in the column's type.
fn operand(constant: &Constant, ty: Type, zone: Option<&TimeZone>) -> Result<Operand, Problem> {
    let text = match constant {
        Constant::Bool(true) => "true",
        Constant::Bool(false) => "false",
        Constant::Number(text) | Constant::Text(text) => text,
    };
    let (operand, wanted) = match ty {
        Type::Bool => {
            let value = match text {
                "true" | "t" => Some(true),
                "false" | "f" => Some(false),
                _ => None,
            };
            (value.map(Operand::Bool), "true or false")
        }
        Type::Int | Type::Float | Type::Numeric => {
            let number = ExactNumber::parse(text.as_bytes()).map(|_| Operand::Number(text.into()));
            (number, "a number")
        }
        Type::Date => (moment::of_constant(text, ty, zone).map(Operand::Time), "a date, such as 2026-01-31"),
        Type::Timestamp => {
            let wanted = "a time without an offset, as the column has it, such as \"2026-01-31 12:00\"";
            (moment::of_constant(text, ty, zone).map(Operand::Time), wanted)
        }
        Type::TimestampTz => {
            (moment::of_constant(text, ty, zone).map(Operand::Time), "a time, such as 2026-01-31T12:00:00Z")
        }
        Type::Char => {
            let text = text.trim_end_matches(' ');
            (Some(Operand::Text(text.into())), "text")
        }
        Type::Json | Type::Text => (Some(Operand::Text(text.into())), "text"),
    };
    operand.ok_or_else(|| Problem::Constant { constant: text.to_owned(), wanted })
}

/// A column of a mandatory field, and what the field takes.
struct MandatoryColumn<'a> {
    name: &'a str,
    target: JsonTarget,
}

/// The columns of mandatory fields, as lists in each of which one column must not be NULL. A list with a constant or a
/// default is never wholly NULL, and left out.
fn mandatory(section: &Section) -> Vec<Vec<MandatoryColumn<'_>>> {
    let lists: &[&[&str]] = match section.kind {
        Kind::UserActivity => &[&["email", "externalId"]],
        Kind::CustomMetric(_) => &[&["dimensionId"], &["value"], &["externalId"]],
    };
    let columns = |list: &&[&str]| {
        let mapped = section.fields.iter().filter(|(field, _)| list.contains(&field.as_str()));
        mapped.map(mandatory_column).collect::<Option<Vec<_>>>().filter(|columns| !columns.is_empty())
    };
    lists.iter().filter_map(columns).collect()
}

fn mandatory_column((field, source): &(String, Field)) -> Option<MandatoryColumn<'_>> {
    match source {
        Field::Column { column, default: None, as_text } => {
            let target = if *as_text { JsonTarget::Text } else { target_of(field) };
            Some(MandatoryColumn { name: column, target })
        }
        Field::Column { default: Some(_), .. } | Field::Constant(_) | Field::Object(_) => None,
    }
}

fn skips(section: &Section, columns: &[Column]) -> Vec<Vec<(usize, Encoder)>> {
    let of = |column: MandatoryColumn<'_>| {
        let (index, ty) = position(columns, column.name)?;
        Some((index, Encoder::new(ty, column.target)?))
    };
    mandatory(section).into_iter().filter_map(|list| list.into_iter().map(of).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::mapping::tests::Cells;
    use crate::model::Type as T;

    const COLUMNS: &[(&str, Type)] = &[
        ("id", T::Int),
        ("plan", T::Text),
        ("amount", T::Numeric),
        ("ratio", T::Float),
        ("ok", T::Bool),
        ("code", T::Char),
        ("at", T::TimestampTz),
        ("local", T::Timestamp),
        ("day", T::Date),
        ("meta", T::Json),
        ("email", T::Text),
    ];

    fn section(keys: &str) -> Section {
        let text = format!(
            "source: {{host: h, database: d, user: u}}\nplanhat: {{tenant: t}}\nsections:\n  - {{name: a, kind: user_activity, \
             table: t, key: id, fields: {{externalId: plan, email: email}}, {keys}}}\n"
        );
        config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}")).sections.remove(0)
    }

    fn compile(keys: &str) -> Result<RowFilter, Vec<MappingFault>> {
        let columns: Vec<_> = COLUMNS.iter().map(|(name, ty)| Column { name: (*name).to_owned(), ty: *ty }).collect();
        RowFilter::compile(&section(keys), &columns)
    }

    /// Whether the row passes in which only `column` is not NULL.
    fn passes(condition: &str, column: &str, value: Option<&str>) -> bool {
        let filter = compile(&format!("where: {{ {column}: {condition} }}")).unwrap();
        let cells: Vec<_> =
            COLUMNS.iter().map(|(name, _)| value.filter(|_| *name == column).map(str::as_bytes)).collect();
        filter.judge(&Cells::new(&cells).row()).unwrap().is_none()
    }

    #[test]
    fn values_are_compared_in_their_columns_type() {
        for (column, condition, in_, out) in [
            ("plan", "free", &["free"][..], &["Free", "free ", ""][..]),
            ("plan", "12", &["12"], &["12.0"]),
            ("plan", "[a, b]", &["a", "b"], &["c"]),
            ("plan", "{ not: [a, b] }", &["c", ""], &["a", "b"]),
            ("id", "9007199254740993", &["9007199254740993"], &["9007199254740992", "9007199254740994"]),
            ("id", "{ at_least: 9007199254740993 }", &["9007199254740993"], &["9007199254740992"]),
            ("id", "\"7\"", &["7"], &["70"]),
            ("amount", "0.1", &["0.10", "0.1"], &["0.100000000000000000000000000001"]),
            ("amount", "{ at_least: 0.10, at_most: 1e1 }", &["0.1", "10.000"], &["0.09", "10.0001", "NaN", "Infinity"]),
            ("amount", "NaN", &["NaN"], &["0"]),
            ("ratio", "{ at_most: -1e-07 }", &["-1e-07", "-Infinity"], &["0", "-1e-08"]),
            ("ok", "true", &["t", "true"], &["f", "false"]),
            ("ok", "\"f\"", &["f"], &["t"]),
            ("ok", "{ not: true }", &["f"], &["t"]),
            ("code", "ab", &["ab   ", "ab"], &["abc  ", "a"]),
            (
                "at",
                "{ at_least: 2026-01-31 }",
                &["2026-01-31 00:00:00+00", "10000-01-01 00:00:00+00", "infinity"],
                &["2026-01-30 23:59:59.999999+00", "-infinity", "0044-03-15 12:00:00+00 BC"],
            ),
            ("local", "{ at_most: \"2026-01-31 12:00\" }", &["2026-01-31 12:00:00"], &["2026-01-31 12:00:00.000001"]),
            ("day", "2026-01-31", &["2026-01-31"], &["2026-02-01"]),
            ("meta", "{ not: null }", &["null", "{}"], &[]),
        ] {
            for value in in_ {
                assert!(passes(condition, column, Some(value)), "{column}: {condition} takes {value}");
            }
            for value in out {
                assert!(!passes(condition, column, Some(value)), "{column}: {condition} leaves out {value}");
            }
            let not_null =
                section(&format!("where: {{ {column}: {condition} }}")).conditions[0].1.of_null() == Some(true);
            assert_eq!(passes(condition, column, None), not_null, "{column}: {condition} and NULL");
        }
        assert!(passes("[null, { not: free }]", "plan", None) && passes("null", "meta", None));
        assert!(!passes("null", "plan", Some("")), "an empty text is no NULL");
    }

    #[test]
    fn what_does_not_fit_is_said_with_the_column() {
        for (condition, code, wanted) in [
            ("pln: free", "column_unknown", "`plan` instead of `pln`"),
            ("nowhere_at_all: 1", "column_unknown", "discover public.t"),
            ("id: many", "constant_type", "where.id to a number"),
            ("ok: 1", "constant_type", "where.ok to true or false"),
            ("day: \"2026-01-31 12:00\"", "constant_type", "where.day to a date"),
            ("local: \"2026-01-31T12:00:00Z\"", "constant_type", "without an offset"),
            ("at: soon", "constant_type", "where.at to a time"),
            ("plan: { at_least: 1 }", "column_type", "only numbers and times have an order"),
            ("meta: x", "column_type", "null or { not: null }"),
            ("id: { not: [1, x] }", "constant_type", "where.id to a number"),
        ] {
            let faults = compile(&format!("where: {{ {condition} }}")).unwrap_err();
            assert_eq!(faults[0].code(), code, "{condition}");
            assert!(faults[0].remedy().contains(wanted), "{condition}: {}", faults[0].remedy());
        }
    }

    #[test]
    fn a_value_that_cannot_be_compared_is_refused_not_left_out() {
        let filter = compile("where: { day: 2026-01-31 }").unwrap();
        let cells: Vec<_> = COLUMNS.iter().map(|(name, _)| (*name == "day").then_some(&b"31/01/2026"[..])).collect();
        let refusal = filter.judge(&Cells::new(&cells).row()).unwrap_err();
        assert_eq!(refusal.to_string(), "where.day: not an ISO date or RFC 3339 time: \"31/01/2026\"");
    }

    #[test]
    fn a_mandatory_null_is_skipped_only_where_the_section_says_so() {
        let judged = |keys: &str, plan: Option<&str>, email: Option<&str>| {
            let value = |name: &str| match name {
                "plan" => plan,
                "email" => email,
                _ => Some("1"),
            };
            let cells: Vec<_> = COLUMNS.iter().map(|(name, _)| value(name).map(str::as_bytes)).collect();
            compile(keys).unwrap().judge(&Cells::new(&cells).row()).unwrap()
        };
        assert_eq!(judged("on_null: skip", None, None), Some(FilterRule::Null));
        assert_eq!(judged("on_null: skip", None, Some("")), None, "an empty text is refused, as ever");
        assert_eq!(judged("on_null: skip", Some("u"), None), None);
        assert_eq!(judged("on_null: quarantine", None, None), None);
        let both = "on_null: skip, where: { ok: { not: null } }";
        assert_eq!(RowFilter::columns(&section(both)), ["ok", "plan", "email"]);
        assert_eq!(RowFilter::columns(&section("sync: receive")), [""; 0]);
    }
}
