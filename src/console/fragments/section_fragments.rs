//! The pieces of a section's page, and the rows of the ledger.

use askama::Template;

use crate::config::Section;
use crate::console::charts::{Plot, Series};
use crate::console::draw::{self, Markup};
use crate::console::fragments::overview_fragments::{becomes, both, spans, ticks};
use crate::console::fragments::pieces::Fragments;
use crate::console::history::{History, TimeSpan};
use crate::console::page_view::{PageView, drawn};
use crate::console::words::{self, bytes, count, measured, plural, time};
use crate::state::DeliveryRow;
use crate::telemetry::status_document::{SectionState, SectionStatus};

/// Rows of the ledger, and how they are drawn.
pub(crate) struct Batches<'a> {
    pub rows: &'a [DeliveryRow],
    /// Whether the table has a column for the section.
    pub with_section: bool,
    /// Whether the table shows Planhat's answers.
    pub words: bool,
}

/// Returns a section's key in words.
fn key_of(section: &Section) -> String {
    if section.key.is_empty() { "the primary key".to_owned() } else { section.key.join(", ") }
}

/// Draws all pieces of the page.
pub(crate) fn section(
    view: &PageView,
    history: &History,
    own: &Section,
    status: &SectionStatus,
    span: TimeSpan,
    batches: &Batches<'_>,
) -> Fragments {
    let mut pieces = Fragments::default();
    pieces.add(
        "route",
        drawn(&ConsoleRoute {
            table: &status.table,
            key: key_of(own),
            arrow: draw::arrow(status.state, 120),
            chip: draw::state_chip(status.state),
            becomes: becomes(view, &status.name),
            sink: view.config.planhat.url.split("://").last().unwrap_or_default(),
        }),
    );
    pieces.add("trouble", drawn(&trouble(status, own.is_streamed())));
    pieces.add("backfill", drawn(&backfill(view, history, status)));
    pieces.add("cards", drawn(&cards(view, history, status)));
    let (stream, backfill) = history.section(&status.name, span);
    let series = vec![Series { name: "stream", points: stream }, Series { name: "backfill", points: backfill }];
    let label =
        format!("Rows of {} delivered per second over {}, by the stream and by backfills", status.name, span.label());
    let plot = Plot {
        label: &label,
        width: 1000,
        height: 180,
        ticks: ticks(span),
        across: span.points(),
        every: span.every(),
        series,
        bound: None,
        unit: measured,
        binary: false,
    };
    let spans = spans(&format!("/sections/{}", status.name), span);
    pieces.add("plot", drawn(&SectionPlot { spans, plot: both(&plot) }));
    pieces.add("batches", batches_of(batches));
    pieces
}

#[derive(Template)]
#[template(path = "section_route.html")]
struct ConsoleRoute<'a> {
    table: &'a str,
    key: String,
    arrow: Markup,
    chip: Markup,
    becomes: String,
    sink: &'a str,
}

#[derive(Template)]
#[template(path = "section_acts.html")]
struct SectionActs<'a> {
    name: &'a str,
    on: bool,
    paused: bool,
    waits: bool,
    keeps: String,
}

/// Draws the buttons of an operator. A button is left out while its action is impossible.
pub(crate) fn acts(view: &PageView, status: &SectionStatus) -> Markup {
    let rate = view.counters.as_ref().map_or(f64::NAN, |counters| counters.wal_bytes_per_second);
    let a_day = match rate.is_finite() && rate > 0.0 {
        true => format!(": about {} a day", bytes(words::whole(rate * 86_400.0))),
        false => String::new(),
    };
    drawn(&SectionActs {
        name: &status.name,
        on: status.state != SectionState::Off,
        paused: status.state == SectionState::Paused,
        waits: status.state == SectionState::Halted || status.reason.is_some() && status.state != SectionState::Paused,
        keeps: format!("Nothing of it is sent; the slot keeps WAL meanwhile{a_day}."),
    })
}

#[derive(Template)]
#[template(path = "section_trouble.html")]
struct SectionTrouble<'a> {
    reason: &'a str,
    remedy: &'a str,
    class: &'static str,
    icon: &'static str,
    /// What rows may be missing; empty where none are.
    gaps: String,
    /// The colour and the icon of that: a section is off because somebody wants it.
    gaps_look: (&'static str, &'static str),
}

fn trouble(status: &SectionStatus, streamed: bool) -> SectionTrouble<'_> {
    let halted = status.state == SectionState::Halted;
    let open = status.open_gaps.unwrap_or(0);
    SectionTrouble {
        gaps_look: if status.state == SectionState::Off { ("is-fill", "info") } else { ("is-warn", "warn") },
        gaps: match (status.state, open) {
            (SectionState::Off, _) if streamed => {
                "It is off: rows that are written now are not delivered. Once it is on again, a re-sync brings them."
                    .to_owned()
            }
            (SectionState::Off, _) => "It is off: nothing is compared or delivered.".to_owned(),
            (_, 0) => String::new(),
            (_, open) => format!("{} open: rows of that time may be missing.", plural(open, "gap is", "gaps are")),
        },
        reason: status.reason.as_deref().unwrap_or_default(),
        remedy: status.remedy.as_deref().unwrap_or_default(),
        class: if halted { "is-stop" } else { "is-warn" },
        icon: if halted { "stop" } else { "warn" },
    }
}

#[derive(Template)]
#[template(path = "section_backfill.html")]
struct BackfillCard {
    title: String,
    rest: String,
    bar: Markup,
    beside: String,
}

fn backfill(view: &PageView, history: &History, status: &SectionStatus) -> BackfillCard {
    let nothing =
        BackfillCard { title: String::new(), rest: String::new(), bar: Markup::default(), beside: String::new() };
    let Some(backfill) = status.backfill.as_ref().filter(|_| status.state == SectionState::Backfilling) else {
        return nothing;
    };
    let percent = backfill.estimated.filter(|of| *of > 0).map(|of| backfill.rows.min(of) * 100 / of);
    let title = match backfill.estimated {
        Some(of) => format!("Bringing old rows: {} of about {}", count(backfill.rows), count(of.max(backfill.rows))),
        None => format!("Bringing old rows: {} so far", count(backfill.rows)),
    };
    let mut rest: Vec<String> = percent.map(|percent| format!("{percent} %")).into_iter().collect();
    rest.extend(history.backfill_now(&status.name).map(|rate| format!("{} rows/s", measured(rate))));
    if let Some(eta) = backfill.eta_seconds {
        let end = jiff::SignedDuration::try_from_secs_f64(eta).ok().and_then(|eta| view.now.checked_add(eta).ok());
        let clock = end.map(|end| format!(", until {} UTC", end.strftime("%H:%M"))).unwrap_or_default();
        rest.push(format!("about {} left{clock}", time(eta)));
    }
    let late = status.lag_seconds.map(|lag| format!(", {} late", time(lag))).unwrap_or_default();
    BackfillCard {
        title,
        rest: rest.join(" · "),
        bar: draw::progress(percent.unwrap_or(0), "Backfill", ""),
        beside: format!(
            "New rows are not waiting for this: the stream delivers them beside it{late}. A restart goes on here."
        ),
    }
}

#[derive(Template)]
#[template(path = "section_cards.html")]
struct Cards<'a> {
    name: &'a str,
    late: String,
    late_more: String,
    delivered: String,
    last: Markup,
    quarantined: String,
    quarantined_ever: String,
    doubt: String,
    doubt_more: String,
}

fn cards<'a>(view: &PageView, history: &History, status: &'a SectionStatus) -> Cards<'a> {
    let last = status
        .last_delivered_at
        .as_deref()
        .and_then(|at| Some(Markup(format!("last receipt {}", draw::age(at, words::since(at, view.now)?)))));
    Cards {
        name: &status.name,
        late: status.lag_seconds.map_or_else(|| "–".to_owned(), time),
        late_more: history
            .section_late(&status.name)
            .map(|late| format!("p99 {} in 15 min", time(late)))
            .unwrap_or_default(),
        delivered: count(status.rows_delivered),
        last: last.unwrap_or_else(|| Markup("no receipt yet".to_owned())),
        quarantined: count(view.quarantined(status)),
        quarantined_ever: format!("{} ever", count(status.rows_quarantined)),
        doubt: count(status.rows_in_doubt),
        doubt_more: match status.rows_in_doubt {
            0 => "every request was answered".to_owned(),
            _ => format!(
                "requests were sent and never answered; {} sent again",
                plural(status.rows_resent, "row was", "rows were")
            ),
        },
    }
}

#[derive(Template)]
#[template(path = "section_plot.html")]
struct SectionPlot {
    spans: Markup,
    plot: Markup,
}

#[derive(Template)]
#[template(path = "batches.html")]
struct BatchTable<'a> {
    rows: Vec<BatchLine<'a>>,
    with_section: bool,
}

struct BatchLine<'a> {
    row: &'a DeliveryRow,
    words: bool,
}

impl BatchLine<'_> {
    fn html(&self, with_section: &bool) -> Markup {
        batch_row(self.row, *with_section, self.words)
    }
}

/// Draws a table of the ledger.
pub(crate) fn batches_of(batches: &Batches<'_>) -> Markup {
    let rows = batches.rows.iter().map(|row| BatchLine { row, words: batches.words }).collect();
    drawn(&BatchTable { rows, with_section: batches.with_section })
}

#[derive(Template)]
#[template(path = "batch_row.html")]
struct BatchRow<'a> {
    r: &'a DeliveryRow,
    with_section: bool,
    rows: String,
    keys: String,
    size: String,
    took: String,
    chip: Markup,
    answer: String,
    error: &'a str,
}

/// Draws one row of the ledger. Planhat's answers quote rows, and are withheld from people who may not see rows.
pub(crate) fn batch_row(row: &DeliveryRow, with_section: bool, words: bool) -> Markup {
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let (class, icon) = draw::outcome_look(&row.outcome);
    let same = row.first_key == row.last_key;
    let error = match (row.error.as_str(), words) {
        ("", _) => "",
        (error, true) => error,
        (_, false) => "withheld from your role",
    };
    let again = if row.attempts > 1 { format!(" · {} attempts", row.attempts) } else { String::new() };
    let status = row.http_status.map_or_else(|| "–".to_owned(), |status| status.to_string());
    let short: String = error.chars().take(60).collect();
    let more = if error.chars().count() > 60 { "…" } else { "" };
    let said = if short.is_empty() { String::new() } else { format!(" · {short}{more}") };
    let took = row.finished_at.as_ref().and_then(|end| {
        let (begin, end) = (row.started_at.parse::<jiff::Timestamp>().ok()?, end.parse::<jiff::Timestamp>().ok()?);
        Some(words::took(end.duration_since(begin).as_secs_f64()))
    });
    drawn(&BatchRow {
        r: row,
        with_section,
        rows: count(number(row.rows.into())),
        keys: if same { row.first_key.clone() } else { format!("{} – {}", row.first_key, row.last_key) },
        size: bytes(number(row.bytes)),
        took: took.unwrap_or_else(|| "…".to_owned()),
        chip: draw::chip(class, icon, &row.outcome),
        answer: format!("{status}{said}{again}"),
        error,
    })
}
