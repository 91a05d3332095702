//! Configuration files for tests, as the text that a person would write.

use std::fmt::Write as _;

use super::Cluster;

/// A configuration under construction.
#[derive(Clone, Debug)]
pub struct ConfigText {
    /// `(group, key, value)`; the group of a top-level key is empty. Values are YAML.
    entries: Vec<(String, String, String)>,
    sections: Vec<SectionText>,
}

impl ConfigText {
    /// The tenant of every test, unless it sets another.
    pub const TENANT: &str = "11111111-2222-4333-8444-555555555555";

    /// For this cluster, by TCP without TLS as its superuser, and a sink at `url`.
    pub fn new(cluster: &Cluster, url: &str) -> ConfigText {
        ConfigText::for_port(cluster.port(), url)
    }

    /// For whatever listens on this port of 127.0.0.1.
    pub fn for_port(port: u16, url: &str) -> ConfigText {
        let text = ConfigText { entries: Vec::new(), sections: Vec::new() };
        text.set("source.host", "127.0.0.1")
            .set("source.port", port)
            .set("source.database", "postgres")
            .set("source.user", "postgres")
            .set("source.tls", "disable")
            .set("planhat.tenant", ConfigText::TENANT)
            .set("planhat.url", url)
    }

    /// Sets one key, for example `("source.slot", "other")` or `("memory", "1MiB")`; the value is YAML. A key that is
    /// set already is replaced.
    pub fn set(mut self, path: &str, value: impl ToString) -> ConfigText {
        self = self.unset(path);
        let (group, key) = path.split_once('.').unwrap_or(("", path));
        self.entries.push((group.to_owned(), key.to_owned(), value.to_string()));
        self
    }

    /// Leaves one key out.
    pub fn unset(mut self, path: &str) -> ConfigText {
        let wanted = path.split_once('.').unwrap_or(("", path));
        self.entries.retain(|(group, key, _)| (group.as_str(), key.as_str()) != wanted);
        self
    }

    /// Goes to the source through this port, a proxy's.
    pub fn through(self, port: u16) -> ConfigText {
        self.set("source.port", port)
    }

    /// Adds a section.
    pub fn section(mut self, section: SectionText) -> ConfigText {
        self.sections.push(section);
        self
    }

    /// Without the sections so far.
    #[allow(dead_code, reason = "the console's tests use it, the others do not")]
    pub fn without_sections(mut self) -> ConfigText {
        self.sections.clear();
        self
    }

    /// The file.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (_, key, value) in self.entries.iter().filter(|(group, ..)| group.is_empty()) {
            writeln!(text, "{key}: {value}").unwrap();
        }
        let mut groups: Vec<&str> = Vec::new();
        for (group, ..) in &self.entries {
            if !group.is_empty() && !groups.contains(&group.as_str()) {
                groups.push(group);
            }
        }
        for group in groups {
            writeln!(text, "{group}:").unwrap();
            for (_, key, value) in self.entries.iter().filter(|(of, ..)| of == group) {
                writeln!(text, "  {key}: {value}").unwrap();
            }
        }
        if !self.sections.is_empty() {
            text.push_str("sections:\n");
        }
        self.sections.iter().for_each(|section| section.render(&mut text));
        text
    }
}

/// A section under construction.
#[derive(Clone, Debug)]
pub struct SectionText {
    keys: Vec<(String, String)>,
    fields: Vec<(String, String)>,
}

impl SectionText {
    /// A metric section over a table made by [`SectionText::metric_table`]; it flushes at once.
    pub fn metric(name: &str, table: &str) -> SectionText {
        SectionText::new(name, "custom_metric", table)
            .set("model", "Company")
            .field("dimensionId", "{ value: seats_used }")
            .field("value", "value")
            .field("externalId", "external_id")
            .field("date", "at")
    }

    /// An activity section over a table made by [`SectionText::activity_table`]; it flushes at once.
    pub fn activity(name: &str, table: &str) -> SectionText {
        SectionText::new(name, "user_activity", table)
            .field("email", "email")
            .field("externalId", "user_id")
            .field("action", "action")
            .field("weight", "weight")
            .field("date", "at")
    }

    /// SQL for a table that suits [`SectionText::metric`].
    pub fn metric_table(table: &str) -> String {
        format!(
            "CREATE TABLE {table} (id bigserial PRIMARY KEY, external_id text, value float8, at timestamptz DEFAULT now())"
        )
    }

    /// SQL for a table that suits [`SectionText::activity`].
    pub fn activity_table(table: &str) -> String {
        format!(
            "CREATE TABLE {table} (id bigserial PRIMARY KEY, email text, user_id text, action text, weight numeric, \
             at timestamptz DEFAULT now())"
        )
    }

    fn new(name: &str, kind: &str, table: &str) -> SectionText {
        let keys = [("name", name), ("kind", kind), ("table", table), ("key", "id"), ("flush", "50ms")];
        let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        SectionText { keys, fields: Vec::new() }
    }

    /// Sets one key; the value is YAML.
    pub fn set(mut self, key: &str, value: impl ToString) -> SectionText {
        self.keys.retain(|(known, _)| known != key);
        self.keys.push((key.to_owned(), value.to_string()));
        self
    }

    /// Leaves one key out.
    pub fn unset(mut self, key: &str) -> SectionText {
        self.keys.retain(|(known, _)| known != key);
        self
    }

    /// Maps one Planhat field; the value is YAML.
    pub fn field(mut self, field: &str, value: &str) -> SectionText {
        self = self.without(field);
        self.fields.push((field.to_owned(), value.to_owned()));
        self
    }

    /// Leaves one field out.
    pub fn without(mut self, field: &str) -> SectionText {
        self.fields.retain(|(known, _)| known != field);
        self
    }

    fn render(&self, text: &mut String) {
        for (at, (key, value)) in self.keys.iter().enumerate() {
            writeln!(text, "  {} {key}: {value}", if at == 0 { "-" } else { " " }).unwrap();
        }
        text.push_str("    fields:\n");
        for (field, value) in &self.fields {
            writeln!(text, "      {field}: {value}").unwrap();
        }
    }
}
