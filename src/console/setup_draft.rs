//! The configuration that the wizard makes: what the person typed about both ends, and the text of the future file.
//! Pure.
//!
//! * In: forms.
//! * Out: the file's text, which names the place of each secret.
//! * Never: a secret in the text.

use std::path::Path;

use crate::config::splice::{scalar, section_text};
use crate::console::form_fields::FormFields;
use crate::model::Finding;

/// The file names these environment variables for the secrets that were typed.
pub(crate) const PASSWORD: &str = "PGPASSWORD";
pub(crate) const TENANT: &str = "PLANHAT_TENANT_UUID";
pub(crate) const URL: &str = "PG2PLANHAT_SOURCE_URL";
/// The files that hold the secrets, where the person wants files.
const FILES: [(&str, &str); 3] =
    [(PASSWORD, "pg2planhat.password"), (TENANT, "pg2planhat.tenant"), (URL, "pg2planhat.source-url")];

/// A section that is off. The file needs one before tables are chosen, because a configuration without sections does
/// not load.
const NONE: &str =
    "sections:\n  - { name: none, kind: user_activity, sync: off, table: none, key: id, fields: { email: e } }\n";

/// The two ends as they were typed. For a secret it only records whether one was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TwoEnds {
    pub host: String,
    pub port: String,
    pub database: String,
    pub user: String,
    pub tls: String,
    pub ca: String,
    /// Whether a URL stands for host, port, database and user.
    pub by_url: bool,
    pub password: bool,
    pub tenant: bool,
    pub planhat_url: String,
    /// The address of the admin port, where the usual one is taken.
    pub admin: Option<String>,
    /// The slot, where the usual one decodes another database of the server.
    pub slot: Option<String>,
}

impl Default for TwoEnds {
    fn default() -> TwoEnds {
        let text = str::to_owned;
        TwoEnds {
            host: text("localhost"),
            port: text("5432"),
            database: text("postgres"),
            user: text("pg2planhat"),
            tls: text("verify-full"),
            ca: String::new(),
            by_url: false,
            password: false,
            tenant: false,
            planhat_url: text("https://analytics.planhat.com"),
            admin: None,
            slot: None,
        }
    }
}

impl TwoEnds {
    /// Returns the ends as a form changes them. A secret that the form leaves empty stays as it was.
    pub(crate) fn sent(&self, form: &FormFields) -> TwoEnds {
        let or = |name: &str, default: &str| {
            let given = form.one(name);
            if given.is_empty() { default.to_owned() } else { given.to_owned() }
        };
        let usual = TwoEnds::default();
        TwoEnds {
            host: or("host", &usual.host),
            port: or("port", &usual.port),
            database: or("database", &usual.database),
            user: or("user", &usual.user),
            tls: or("tls", &usual.tls),
            ca: form.one("ca").to_owned(),
            by_url: !form.one("url").is_empty() || (self.by_url && form.one("host").is_empty()),
            password: self.password || !form.exact("password").is_empty(),
            tenant: self.tenant || !form.one("tenant").is_empty(),
            planhat_url: or("planhat_url", &usual.planhat_url),
            admin: self.admin.clone(),
            // It goes by the database, which the form may change.
            slot: None,
        }
    }

    /// Returns the secrets that the file names, each with its variable and its file.
    pub(crate) fn secrets(&self) -> Vec<(&'static str, &'static str)> {
        let has = |name: &str| match name {
            PASSWORD => self.password && !self.by_url,
            TENANT => self.tenant,
            _ => self.by_url,
        };
        FILES.into_iter().filter(|(name, _)| has(name)).collect()
    }

    /// Returns the head of the file. It names files of this folder for the secrets, or environment variables.
    fn head(&self, folder: Option<&Path>) -> String {
        let secret = |variable: &str| {
            let file = FILES.iter().find(|(name, _)| *name == variable).map_or("", |(_, file)| file);
            match folder {
                Some(folder) => format!("{{ file: {} }}", scalar(&folder.join(file).display().to_string())),
                None => format!("{{ env: {variable} }}"),
            }
        };
        let usual = TwoEnds::default();
        let mut lines =
            vec!["# Made by the console of pg2planhat; docs/configuration.md tells of every key.".to_owned()];
        lines.push("source:".to_owned());
        let mut line = |key: &str, value: String| lines.push(format!("  {key}: {value}"));
        if self.by_url {
            line("url", secret(URL));
        } else {
            line("host", scalar(&self.host));
            // What is no number stays one text, and is refused as such.
            line("port", if self.port.parse::<u16>().is_ok() { self.port.clone() } else { scalar(&self.port) });
            line("database", scalar(&self.database));
            line("user", scalar(&self.user));
            if self.password {
                line("password", secret(PASSWORD));
            }
        }
        if self.tls != usual.tls {
            line("tls", scalar(&self.tls));
        }
        if !self.ca.is_empty() {
            line("ca", scalar(&self.ca));
        }
        if let Some(slot) = &self.slot {
            line("slot", scalar(slot));
        }
        lines.push("planhat:".to_owned());
        // Nothing is sent without a tenant: the last step refuses to run until one is typed.
        lines.push(format!("  tenant: {}", if self.tenant { secret(TENANT) } else { "unknown".to_owned() }));
        if self.planhat_url != usual.planhat_url {
            lines.push(format!("  url: {}", scalar(&self.planhat_url)));
        }
        if let Some(admin) = &self.admin {
            lines.push(format!("admin: {{ listen: {} }}", scalar(admin)));
        }
        lines.join("\n") + "\n"
    }
}

/// Everything that the wizard holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct SetupDraft {
    pub ends: TwoEnds,
    /// The file's text from `sections` on; empty before a table is chosen.
    sections: String,
    /// The findings about the two ends; `None` before the first look.
    pub findings: Option<Vec<Finding>>,
    /// The databases that the role sees.
    pub databases: Vec<String>,
    /// The address of the demonstration's console.
    pub demo: Option<String>,
    /// What `prepare` made, in words.
    pub made: Vec<String>,
}

impl SetupDraft {
    /// Returns the file's text now.
    pub(crate) fn text(&self) -> String {
        self.with_secrets(None)
    }

    /// Returns the file's text. It names files of a folder for the secrets, or environment variables.
    pub(crate) fn with_secrets(&self, folder: Option<&Path>) -> String {
        let sections = if self.sections.is_empty() { NONE } else { &self.sections };
        format!("{}{sections}", self.ends.head(folder))
    }

    /// Returns whether the database was reached.
    pub(crate) fn is_connected(&self) -> bool {
        self.findings.as_ref().is_some_and(|findings| findings.iter().any(|finding| finding.code == "connected"))
    }

    /// Returns whether tables are chosen.
    pub(crate) fn has_sections(&self) -> bool {
        !self.sections.is_empty()
    }

    /// Replaces the sections by new ones, each given as lines. The sections named in `kept` stay as they are.
    pub(crate) fn choose(&mut self, kept: &[String], new: &[String]) {
        let text = self.text();
        let kept = kept.iter().filter_map(|name| section_text(&text, name));
        let all: String = kept
            .chain(new.iter().map(|lines| lines.trim_end().to_owned()))
            .fold(String::new(), |text, section| text + &section + "\n");
        self.sections = if all.is_empty() { String::new() } else { format!("sections:\n{all}") };
        self.made.clear();
    }

    /// Takes over the text as the Mapping page changed it.
    pub(crate) fn rewritten(&mut self, text: &str) {
        if let Some(at) = text.find("\nsections:") {
            text[at + 1..].clone_into(&mut self.sections);
        }
        self.made.clear();
    }
}

/// Returns the steps: their addresses, titles, subtitles, and whether each can be opened.
pub(crate) fn steps(draft: &SetupDraft) -> [(&'static str, &'static str, &'static str, bool); 6] {
    let (connected, chosen) = (draft.is_connected(), draft.has_sections());
    [
        ("connect", "Connect", "PostgreSQL and Planhat", true),
        ("tables", "Choose tables", "schemas and keys", connected),
        ("map", "Map fields", "guessed, with live preview", chosen),
        ("check", "Check", "everything that can be known", chosen),
        ("prepare", "Prepare the database", "one script, least rights", chosen),
        ("run", "Run", "backfill, then stream", chosen),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn form(fields: &[(&str, &str)]) -> FormFields {
        FormFields(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_text_loads_at_every_step_and_holds_no_secret() {
        let mut draft = SetupDraft::default();
        assert_eq!(config::parse(&draft.text(), "test").unwrap().source.host.as_deref(), Some("localhost"));
        assert!(!draft.has_sections() && !draft.is_connected());
        let sent =
            form(&[("host", "db: 1"), ("port", "6543"), ("password", "s3cret"), ("tenant", "t-1"), ("tls", "disable")]);
        draft.ends = draft.ends.sent(&sent);
        assert!(!draft.text().contains("s3cret") && !draft.text().contains("t-1"), "{}", draft.text());
        assert!(draft.text().contains("password: { env: PGPASSWORD }"));
        assert_eq!(draft.ends.secrets(), [(PASSWORD, "pg2planhat.password"), (TENANT, "pg2planhat.tenant")]);
        let reveal = |_: &config::Secret| Ok("x".to_owned());
        let one =
            "  - name: a # why\n    kind: user_activity\n    table: t\n    key: id\n    fields:\n      email: e # e\n";
        draft.choose(&[], &[one.to_owned(), one.replace("name: a", "name: b")]);
        let config = config::load::parse_with(&draft.with_secrets(Some(Path::new("/etc/x"))), "test", &reveal).unwrap();
        assert_eq!(
            (config.sections.len(), config.source.port, config.source.host.as_deref()),
            (2, Some(6543), Some("db: 1"))
        );
        let changed = draft.text().replace("email: e # e", "email: f # e");
        draft.rewritten(&changed);
        draft.choose(&["a".to_owned()], &[]);
        assert!(draft.text().ends_with("sections:\n  - name: a # why\n    kind: user_activity\n    table: t\n    key: id\n    fields:\n      email: f # e\n"), "{}", draft.text());
        draft.choose(&[], &[]);
        assert!(!draft.has_sections());
    }

    #[test]
    fn what_is_left_empty_stays_and_a_url_stands_alone() {
        let ends = TwoEnds::default().sent(&form(&[("url", "postgres://u:p@h/d"), ("tenant", "t")]));
        assert!(ends.by_url && ends.tenant);
        let again = ends.sent(&form(&[]));
        assert!(again.by_url && again.tenant, "secrets are not sent back to the page");
        let text = SetupDraft { ends: again, ..SetupDraft::default() }.text();
        assert!(text.contains("url: { env: PG2PLANHAT_SOURCE_URL }") && !text.contains("host:"), "{text}");
        assert!(!ends.sent(&form(&[("host", "h")])).by_url);
    }
}
