//! The data that a page is drawn from: status, counters and figures at one moment; and the frame around every page.
//!
//! * In: the program, the history, the state.
//! * Out: a [`PageView`]; a [`Shell`].
//! * Never: the tenant, a password, or a secret's text.

use std::sync::Arc;

use askama::Template;
use axum::response::{Html, IntoResponse as _, Response};
use jiff::Timestamp;

use crate::config::{self, Config, Source};
use crate::console::app::Console;
use crate::console::ask::Ask;
use crate::console::counters::Counters;
use crate::console::draw::Markup;
use crate::console::history::Figure;
use crate::console::lock::held;
use crate::console::problem::Refusal;
use crate::console::setup_draft::{SetupDraft, steps};
use crate::console::verdict::PageFigures;
use crate::console::{draw, words};
use crate::telemetry::status_document::{InstanceState, SectionStatus, Status};

/// The status, the counters and the figures at one moment.
pub(crate) struct PageView {
    pub status: Status,
    pub config: Arc<Config>,
    /// The counters; `None` where the program runs elsewhere.
    pub counters: Option<Counters>,
    pub figures: PageFigures,
    pub now: Timestamp,
}

impl Console {
    /// Collects the data of a page.
    pub(crate) async fn view(&self) -> Result<PageView, Refusal> {
        let config = self.config();
        if self.in_set_up() {
            // Nothing runs, and nothing can be asked.
            let status = Status::starting(&*config.source.slot, &*config.source.publication);
            let figures = PageFigures::default();
            return Ok(PageView { status, config, counters: None, figures, now: Timestamp::now() });
        }
        let status = self.program.status(&config).await?;
        let counters = self.program.counters().await;
        let now = Timestamp::now();
        let seconds = now.as_millisecond() as f64 / 1000.0;
        let state_for = Some(self.note_state(&status, seconds));
        let mut figures = PageFigures { state_for, ended: self.program.ended(), ..PageFigures::default() };
        match &counters {
            Some(counters) => {
                let sum = |of: fn(&crate::console::counters::SectionCounters) -> f64| {
                    counters.sections.values().map(of).sum::<f64>()
                };
                figures.quarantined = words::whole(sum(|section| section.quarantine_rows));
                figures.unsettled = words::whole(sum(|section| section.unsettled));
                figures.unaccounted = signed(sum(crate::console::counters::SectionCounters::unaccounted));
            }
            None => {
                if let Ok(store) = self.store().await
                    && let Ok(counts) = store.quarantine_counts().await
                {
                    figures.quarantined = counts.iter().map(|(_, rows)| rows).sum();
                }
            }
        }
        if status.state == InstanceState::Standby
            && let Ok(store) = self.store().await
            && let Ok(Some(instance)) = store.instance().await
        {
            figures.leader = instance.leader;
        }
        let last = |section: &SectionStatus| words::since(section.last_delivered_at.as_deref()?, now);
        figures.quiet = status.sections.iter().filter_map(last).reduce(f64::min);
        let history = held(&self.history);
        figures.late = history.last_known(Figure::LateHalf);
        figures.answer_p99 = history.last_known(Figure::Answer99);
        drop(history);
        Ok(PageView { status, config, counters, figures, now })
    }

    /// Returns for how many seconds the instance has been in its state.
    fn note_state(&self, status: &Status, now: f64) -> f64 {
        let word = status.state.as_str();
        held(&self.history).state_since(word, now)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "counters are whole numbers far below this")]
fn signed(number: f64) -> i64 {
    number.round() as i64
}

impl PageView {
    /// Returns a section's counters.
    pub(crate) fn own(&self, name: &str) -> Option<&crate::console::counters::SectionCounters> {
        self.counters.as_ref()?.sections.get(name)
    }

    /// Returns how many rows of a section are in quarantine now, as far as that is known.
    pub(crate) fn quarantined(&self, section: &SectionStatus) -> u64 {
        self.own(&section.name).map_or(section.rows_quarantined, |own| words::whole(own.quarantine_rows))
    }
}

/// The frame around a page: its head, the menu and the foot.
pub(crate) struct Shell {
    pub title: String,
    pub theme: String,
    pub build: &'static str,
    /// The parameters of the live stream that the page opens.
    pub live: String,
    pub place: String,
    pub server: String,
    pub slot: String,
    pub nav: Markup,
    pub person: String,
    pub role: &'static str,
    pub foot: String,
    pub clock: String,
    /// Whether the page belongs to the wizard.
    pub in_set_up: bool,
    pub version: &'static str,
}

#[derive(Template)]
#[template(path = "nav.html")]
struct Nav<'a> {
    at: &'a str,
    name: &'a str,
    sections: &'a [SectionStatus],
    quarantined: String,
    /// Whether the configuration has a login for SQL.
    reader: bool,
}

/// Draws the menu.
pub(crate) fn nav(view: &PageView, at: &str, name: &str) -> Markup {
    let quarantined = words::count(view.figures.quarantined);
    let nav =
        Nav { at, name, sections: &view.status.sections, quarantined, reader: view.config.source.reader.is_some() };
    drawn(&nav)
}

/// Draws a template. Writing to a text cannot fail, and a template asks nobody.
pub(crate) fn drawn(template: &impl Template) -> Markup {
    Markup(template.render().unwrap_or_default())
}

impl Shell {
    /// Makes the frame of a page named `title`. The menu marks `at` and the section `name`; the page follows the stream
    /// `live`.
    pub(crate) fn new(ask: &Ask, view: &PageView, title: &str, at: &str, name: &str, live: &str) -> Shell {
        let config = &view.config;
        let listen = &ask.console.listen;
        let plain = !ask.encrypted && !config::is_loopback(listen);
        let state = view.status.instance.timeline.map_or_else(String::new, |timeline| format!("timeline {timeline}"));
        Shell {
            title: title.to_owned(),
            theme: ask.theme.clone(),
            build: crate::console::static_files::build(),
            live: followed(live, at, name),
            place: place(&config.source),
            server: state,
            slot: config.source.slot.clone(),
            nav: nav(view, at, name),
            person: ask.person.name.clone(),
            role: ask.person.role.as_str(),
            foot: if plain { "This page is not encrypted.".to_owned() } else { String::new() },
            clock: view.now.strftime("%H:%M:%S").to_string(),
            in_set_up: false,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// Returns the parameters of the stream, with those by which it draws the menu as the page does.
fn followed(live: &str, at: &str, name: &str) -> String {
    if live.is_empty() || at.is_empty() {
        return live.to_owned();
    }
    let name = if name.is_empty() || live.contains("name=") { String::new() } else { format!("&name={name}") };
    format!("{live}&at={at}{name}")
}

#[derive(Template)]
#[template(path = "shell.html")]
struct FramedPage<'a> {
    shell: &'a Shell,
    content: Markup,
}

impl Shell {
    /// Answers with a page inside the frame. The frame is one template for all pages: each that extended it would hold
    /// its code once more.
    pub(crate) fn around(&self, page: &impl Template) -> Response {
        let framed = FramedPage { shell: self, content: drawn(page) };
        Html(drawn(&framed).0).into_response()
    }
}

#[derive(Template)]
#[template(path = "steps.html")]
struct Steps {
    at: usize,
    steps: [(&'static str, &'static str, &'static str, bool); 6],
    demo: Option<String>,
}

impl Shell {
    /// Makes the frame of a step of the wizard.
    pub(crate) fn of_setup(ask: &Ask, draft: &SetupDraft, title: &str, at: usize) -> Shell {
        let config = ask.console.config();
        let status = Status::starting(&*config.source.slot, &*config.source.publication);
        let figures = PageFigures::default();
        let view = PageView { status, config, counters: None, figures, now: Timestamp::now() };
        let nav = drawn(&Steps { at, steps: steps(draft), demo: draft.demo.clone() });
        Shell { nav, in_set_up: true, ..Shell::new(ask, &view, title, "", "", "") }
    }
}

/// Returns the database in words, such as `app @ db.internal:5432`. It leaves out a connection URL, which may hold a
/// password.
fn place(source: &Source) -> String {
    match (&source.host, &source.url) {
        (Some(host), _) => {
            let database = source.database.as_deref().unwrap_or("postgres");
            format!("{database} @ {host}:{}", source.port.unwrap_or(5432))
        }
        (None, Some(_)) => "by its connection URL".to_owned(),
        (None, None) => "by libpq's environment".to_owned(),
    }
}
