//! The schema itself: its name, its tables, its versions. Pure.
//!
//! * In: a schema's name as configured.
//! * Out: its quoted form, and the SQL that makes or renews its tables.
//! * Never: an unquoted name; a script that cannot be run twice; a search path (`"$user"` means something there even
//!   when quoted).

use std::fmt;

use crate::model::Fault;

/// Every migration, in order; the version is the number of those that were applied. Each statement of each script can
/// be run twice, so that a DBA may run [`ddl`] again after an upgrade.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_tables.sql"),
    include_str!("migrations/0002_gap_floor.sql"),
    include_str!("migrations/0003_exact.sql"),
    include_str!("migrations/0004_proof.sql"),
    include_str!("migrations/0005_publication_versions.sql"),
    include_str!("migrations/0006_streamed.sql"),
    include_str!("migrations/0007_seen.sql"),
    include_str!("migrations/0008_definition.sql"),
    include_str!("migrations/0009_updates.sql"),
    include_str!("migrations/0010_repair_phase.sql"),
    include_str!("migrations/0011_rules.sql"),
    include_str!("migrations/0012_forgotten.sql"),
    include_str!("migrations/0013_read_at.sql"),
    include_str!("migrations/0014_newest_read.sql"),
];

/// PostgreSQL cuts longer identifiers without a word, and then a look-up by name finds nothing.
const MAX_BYTES: usize = 63;

/// The name of the state schema: known to be usable, quoted wherever it is written into SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schema {
    name: String,
    quoted: String,
}

impl Schema {
    /// Takes a schema's name exactly as the catalog has it.
    ///
    /// # Errors
    /// A usage fault where PostgreSQL could not have a schema of this name.
    pub(crate) fn new(name: &str) -> Result<Schema, Fault> {
        let remedy = "set state.schema to a name of 1 to 63 bytes that does not begin with pg_, such as pg2planhat";
        let refuse = |why: &str| Err(Fault::usage(format!("state.schema {name:?} cannot be used: {why}"), remedy));
        if name.is_empty() {
            return refuse("it is empty");
        }
        if name.len() > MAX_BYTES {
            return refuse("it is longer than 63 bytes");
        }
        if name.contains('\0') {
            return refuse("it holds a NUL");
        }
        if name.starts_with("pg_") {
            return refuse("PostgreSQL keeps names that begin with pg_ for itself");
        }
        Ok(Schema { name: name.to_owned(), quoted: quote(name) })
    }

    /// The name as the catalog has it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The name as an SQL identifier.
    pub(crate) fn quoted(&self) -> &str {
        &self.quoted
    }

    /// SQL with every `{schema}` replaced.
    pub(crate) fn sql(&self, template: &str) -> String {
        template.replace("{schema}", &self.quoted)
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.quoted)
    }
}

/// A name as an SQL identifier.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The version of the schema that this program reads and writes.
pub(crate) fn version() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Writes the version into the one row of `instance`, which it makes where it is missing.
pub(crate) fn record_version() -> String {
    format!(
        "INSERT INTO {{schema}}.instance (id, schema_version) VALUES (1, {v}) \
         ON CONFLICT (id) DO UPDATE SET schema_version = greatest(instance.schema_version, {v});\n",
        v = version()
    )
}

/// What the program's role needs in the schema, and no more.
pub(crate) fn grants(schema: &Schema, role: &str) -> String {
    let role = quote(role);
    format!(
        "GRANT USAGE ON SCHEMA {schema} TO {role};\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};\n"
    )
}

/// The tables, in an order in which they can be dropped.
const TABLES: [&str; 13] = [
    "seen",
    "diff",
    "audit",
    "dropped",
    "tally",
    "delivery_keys",
    "streamed",
    "event",
    "gap",
    "quarantine",
    "delivery",
    "section",
    "instance",
];

/// What drops the tables and the schema. Whatever else somebody put into the schema stays, and is an error.
pub(crate) fn drop_script(schema: &Schema) -> String {
    schema.sql(&drop_template())
}

/// The same, before the schema's name is put in.
pub(crate) fn drop_template() -> String {
    let mut script = String::new();
    for table in TABLES {
        script.push_str(&format!("DROP TABLE IF EXISTS {{schema}}.{table};\n"));
    }
    script.push_str("DROP SCHEMA IF EXISTS {schema};\n");
    script
}

/// The whole script for `setup --print-sql`: may be run again, after an upgrade too. With a role, the grants that it
/// needs where somebody else owns the schema.
pub(crate) fn ddl(schema: &Schema, role: Option<&str>) -> String {
    let mut script = format!("BEGIN;\nCREATE SCHEMA IF NOT EXISTS {schema};\n\n");
    for migration in MIGRATIONS {
        script.push_str(&schema.sql(&again(migration)));
        script.push('\n');
    }
    script.push_str(&schema.sql(&record_version()));
    if let Some(role) = role {
        script.push_str(&grants(schema, role));
    }
    script.push_str("COMMIT;\n");
    script
}

/// A migration as it can be run when later ones were run before it: 0010 lets a phase in that 0007 did not know.
fn again(migration: &str) -> String {
    let before = "'retry', 'diff'));";
    migration.replace(before, &before.replace(';', " NOT VALID;"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_postgresql_would_not_keep_are_refused() {
        let long = "é".repeat(32);
        for name in ["", long.as_str(), "a\0b", "pg_state"] {
            let fault = Schema::new(name).unwrap_err();
            assert!(fault.remedy.contains("state.schema"), "{fault}");
        }
        assert!(Schema::new(&"é".repeat(31)).is_ok());
        assert!(Schema::new("pg2planhat").is_ok());
    }

    #[test]
    fn names_are_quoted_once() {
        let schema = Schema::new("a\"{schema}\"B").unwrap();
        assert_eq!(schema.quoted(), "\"a\"\"{schema}\"\"B\"");
        assert_eq!(schema.sql("SELECT 1 FROM {schema}.x"), "SELECT 1 FROM \"a\"\"{schema}\"\"B\".x");
    }

    #[test]
    fn the_script_names_every_table_in_the_schema() {
        let script = ddl(&Schema::new("State").unwrap(), Some("the role"));
        for table in [
            "instance",
            "section",
            "delivery",
            "quarantine",
            "gap",
            "event",
            "delivery_keys",
            "streamed",
            "tally",
            "dropped",
            "audit",
        ] {
            assert!(script.contains(&format!("CREATE TABLE IF NOT EXISTS \"State\".{table} (")), "{table}");
        }
        assert!(script.contains("TO \"the role\""));
        assert!(!script.contains("{schema}"));
    }
}
