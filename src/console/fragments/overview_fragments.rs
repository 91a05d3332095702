//! The pieces of the Overview.

use askama::Template;

use crate::console::charts::{self, Plot, Series};
use crate::console::draw::{self, Markup};
use crate::console::fragments::pieces::Fragments;
use crate::console::history::{Figure, History, TimeSpan};
use crate::console::page_view::{PageView, drawn};
use crate::console::verdict::{PageLink, PageVerdict, verdict};
use crate::console::words::{self, bytes, count, measured, time};
use crate::state::Event;
use crate::telemetry::status_document::{SectionState, SectionStatus};

/// The plot of the rates shows this many sections.
const PLOTTED: usize = 4;

/// Draws all pieces of the page. `events` is empty where the state cannot be reached.
pub(crate) fn overview(view: &PageView, history: &History, span: TimeSpan, events: &[Event]) -> Fragments {
    let mut pieces = Fragments::default();
    let said = verdict(&view.status, PageLink::Live, &view.figures);
    pieces.add("verdict", drawn(&VerdictCard { v: &said, heading: true }));
    let lost = verdict(&view.status, PageLink::Lost, &view.figures);
    pieces.add("lost-card", drawn(&VerdictCard { v: &lost, heading: true }));
    pieces.add("answers", drawn(&answers(view, history)));
    let rows = view.status.sections.iter().map(|section| row(view, history, section)).collect();
    pieces.add("sections", drawn(&Sections { rows }));
    pieces.add("plots", drawn(&plots(view, history, span)));
    pieces.add("lateness", drawn(&lateness(history, span)));
    pieces.add("events", events_of(events));
    pieces
}

#[derive(Template)]
#[template(path = "verdict.html")]
struct VerdictCard<'a> {
    v: &'a PageVerdict,
    heading: bool,
}

#[derive(Template)]
#[template(path = "answers.html")]
struct Answers {
    rate: String,
    batches: String,
    rate_spark: Markup,
    late: String,
    late_more: String,
    oldest: String,
    late_spark: Markup,
    disk: String,
    disk_class: &'static str,
    disk_more: String,
    kept: String,
    grows: String,
    disk_bar: Markup,
    exact: bool,
    books: String,
    accounts: Vec<(&'static str, String)>,
}

fn answers(view: &PageView, history: &History) -> Answers {
    let slot = &view.status.slot;
    let known = |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| "–".to_owned(), show);
    let batches = known(history.now(Figure::Batches), measured);
    let answered = history.last_known(Figure::Answer).map(|seconds| format!(" · answered in {}", words::took(seconds)));
    let oldest = view.status.sections.iter().filter_map(|section| section.lag_seconds).reduce(f64::max);
    let late99 = history.last_known(Figure::Late99).map(|seconds| format!("half · {} for 99 %", words::fine(seconds)));
    let bound =
        slot.retained_bytes.zip(slot.safe_wal_bytes).map(|(kept, safe)| kept + u64::try_from(safe).unwrap_or(0));
    let (disk, disk_class, disk_more) = match (slot.seconds_until_lost, bound, slot.retained_bytes) {
        (_, _, None) => ("–", "", String::new()),
        (Some(seconds), ..) if seconds < 4.0 * 3600.0 => {
            ("Yes", "is-stop", format!("the slot is lost in {}", time(seconds)))
        }
        (Some(seconds), ..) => ("No", "", format!("· full in {} at the earliest", time(seconds))),
        (None, Some(_), _) => ("No", "", String::new()),
        (None, None, _) => ("Unbounded", "is-warn", "the checks say how to bound it".to_owned()),
    };
    let kept = match (slot.retained_bytes, bound) {
        (Some(kept), Some(bound)) => format!("{} of {} WAL kept for the slot", bytes(kept), bytes(bound)),
        (Some(kept), None) => format!("{} WAL kept for the slot", bytes(kept)),
        (None, _) => "what the slot keeps is not known".to_owned(),
    };
    let percent = slot.retained_bytes.zip(bound).map(|(kept, bound)| kept.saturating_mul(100) / bound.max(1));
    let wal =
        history.now(Figure::Wal).map(|rate| format!("the server writes {} a minute", bytes(words::whole(rate * 60.0))));
    let (books, accounts) = accounts(view);
    Answers {
        rate: known(history.now(Figure::Rows), measured),
        batches: format!("{batches} batches/s{}", answered.unwrap_or_default()),
        rate_spark: charts::spark(
            &history.points(Figure::Rows, TimeSpan::Quarter),
            250,
            34,
            "Rows per second, 15 minutes",
        ),
        late: known(history.last_known(Figure::LateHalf), words::fine),
        late_more: late99.unwrap_or_default(),
        oldest: format!("oldest row not settled: {}", known(oldest, time)),
        late_spark: charts::spark(&history.points(Figure::Late99, TimeSpan::Quarter), 250, 34, "Lateness, 15 minutes"),
        disk: disk.to_owned(),
        disk_class,
        disk_more,
        kept,
        grows: wal.unwrap_or_default(),
        disk_bar: percent
            .map(|percent| draw::progress(percent, "WAL kept of its bound", "is-flow"))
            .unwrap_or_default(),
        exact: books == "Exactly",
        books,
        accounts,
    }
}

/// Returns whether the books balance, in words, and the lines of the account.
fn accounts(view: &PageView) -> (String, Vec<(&'static str, String)>) {
    let Some(counters) = &view.counters else {
        let sum = |of: fn(&SectionStatus) -> u64| view.status.sections.iter().map(of).sum::<u64>();
        let lines = vec![
            ("delivered", count(sum(|section| section.rows_delivered))),
            ("quarantined", count(sum(|section| section.rows_quarantined))),
        ];
        return ("As recorded".to_owned(), lines);
    };
    let sum = |of: &dyn Fn(&crate::console::counters::SectionCounters) -> f64| {
        counters.sections.values().map(of).sum::<f64>()
    };
    let lines = [
        ("read", sum(&|s| s.read)),
        ("delivered", sum(&|s| s.delivered_stream + s.delivered_otherwise)),
        ("quarantined", sum(&|s| s.quarantined)),
        ("left out", sum(&|s| s.filtered)),
        ("under way", sum(&|s| s.unsettled)),
    ];
    let books = match view.figures.unaccounted {
        0 => "Exactly".to_owned(),
        off => format!("{} off", words::plural(off.unsigned_abs(), "row is", "rows are")),
    };
    (books, lines.into_iter().map(|(word, number)| (word, count(words::whole(number)))).collect())
}

#[derive(Template)]
#[template(path = "sections.html")]
struct Sections {
    rows: Vec<SectionLine>,
}

struct SectionLine {
    name: String,
    table: String,
    arrow: Markup,
    chip: Markup,
    backfill: Markup,
    reason: String,
    becomes: String,
    late: String,
    rate: String,
    spark: Markup,
    delivered: String,
    quarantined: String,
    last: Markup,
}

fn row(view: &PageView, history: &History, section: &SectionStatus) -> SectionLine {
    let off = section.state == SectionState::Off;
    let dash = || "–".to_owned();
    let (stream, backfill) = history.section(&section.name, TimeSpan::Quarter);
    let both: Vec<f32> = stream.iter().zip(&backfill).map(|(one, other)| one + other).collect();
    let label = format!("{}: rows per second, 15 minutes", section.name);
    let last = section.last_delivered_at.as_deref();
    let last = last.and_then(|at| Some(draw::age(at, words::since(at, view.now)?)));
    SectionLine {
        name: section.name.clone(),
        table: section.table.clone(),
        arrow: draw::arrow(section.state, 64),
        chip: draw::state_chip(section.state),
        backfill: thin_bar(section),
        reason: section.reason.clone().unwrap_or_default(),
        becomes: becomes(view, &section.name),
        late: section.lag_seconds.filter(|_| !off).map_or_else(dash, time),
        rate: history.section_now(&section.name).filter(|_| !off).map_or_else(dash, measured),
        spark: if off { Markup::default() } else { charts::spark(&both, 110, 24, &label) },
        delivered: count(section.rows_delivered),
        quarantined: count(view.quarantined(section)),
        last: last.unwrap_or_else(|| Markup("–".to_owned())),
    }
}

/// Draws the bar below the state of a section that backfills.
fn thin_bar(section: &SectionStatus) -> Markup {
    let Some(backfill) = section.backfill.as_ref().filter(|_| section.state == SectionState::Backfilling) else {
        return Markup::default();
    };
    let Some(percent) = backfill.estimated.filter(|of| *of > 0).map(|of| backfill.rows.min(of) * 100 / of) else {
        return Markup(format!("<div class='sub num'>{} rows so far</div>", count(backfill.rows)));
    };
    let bar = draw::progress(percent, &format!("Backfill of {}", section.name), "meter--thin");
    let left = backfill.eta_seconds.map(|eta| format!(" · {} left", time(eta))).unwrap_or_default();
    Markup(format!("<div class='bar-in'>{bar}<div class='sub num'>{percent} %{left}</div></div>"))
}

/// Returns what a section's rows become in Planhat.
pub(crate) fn becomes(view: &PageView, name: &str) -> String {
    use crate::config::Kind;
    let section = view.config.sections.iter().find(|section| section.name.as_str() == name);
    match section.map(|section| section.kind) {
        Some(Kind::UserActivity) => "User activity".to_owned(),
        Some(Kind::CustomMetric(model)) => format!("Custom metric · {}", model.as_str()),
        None => String::new(),
    }
}

#[derive(Template)]
#[template(path = "plots.html")]
struct Plots {
    rows: Markup,
    wal: Markup,
    spans: Markup,
    bounded: bool,
    /// That the plot does not show all sections; empty where it does.
    left_out: String,
}

#[derive(Template)]
#[template(path = "lateness.html")]
struct LatePlot {
    late: Markup,
    since: String,
}

/// Returns the words below a plot.
pub(crate) fn ticks(span: TimeSpan) -> &'static [&'static str] {
    match span {
        TimeSpan::Quarter => &["−15 min", "−10", "−5", "now"],
        TimeSpan::Hour => &["−60 min", "−40", "−20", "now"],
        TimeSpan::Day => &["−24 h", "−16 h", "−8 h", "now"],
    }
}

fn gib(number: f64) -> String {
    bytes(words::whole(number))
}

/// Draws a plot, and its points as a table.
pub(crate) fn both(plot: &Plot<'_>) -> Markup {
    Markup(format!("{}{}", charts::plot(plot), charts::table(plot)))
}

fn plots(view: &PageView, history: &History, span: TimeSpan) -> Plots {
    let (across, every) = (span.points(), span.every());
    let line = |name, figure| Series { name, points: history.points(figure, span) };
    let on: Vec<&SectionStatus> = view.status.sections.iter().filter(|s| s.state != SectionState::Off).collect();
    let sections: Vec<Series<'_>> = on
        .iter()
        .take(PLOTTED)
        .map(|section| {
            let (stream, backfill) = history.section(&section.name, span);
            let points = stream.iter().zip(&backfill).map(|(one, other)| one + other).collect();
            Series { name: &section.name, points }
        })
        .collect();
    let label = |what: &str| format!("{what} over {}", span.label());
    let now: Vec<String> = view
        .status
        .sections
        .iter()
        .filter_map(|section| Some(format!("{} {}", section.name, measured(history.section_now(&section.name)?))))
        .collect();
    let (width, height, ticks) = (500, 150, ticks(span));
    let rows_label = format!("{}: now {}", label("Rows delivered per second"), now.join(", "));
    let slot = &view.status.slot;
    let bound = slot
        .retained_bytes
        .zip(slot.safe_wal_bytes)
        .map(|(kept, safe)| (kept as f64 + safe.max(0) as f64, "slot is lost"));
    let wal_label = label("WAL that the slot keeps");
    let plot = |label, width, series, bound, unit| {
        both(&Plot { label, width, height, ticks, across, every, series, bound, unit, binary: label == wal_label })
    };
    Plots {
        rows: plot(&rows_label, width, sections, None, measured),
        wal: plot(&wal_label, width, vec![line("kept", Figure::Kept)], bound, gib),
        spans: spans("/", span),
        bounded: bound.is_some(),
        left_out: match on.len() {
            all if all > PLOTTED => format!("The first {PLOTTED} of {} sections.", count(all as u64)),
            _ => String::new(),
        },
    }
}

fn lateness(history: &History, span: TimeSpan) -> LatePlot {
    let line = |name, figure| Series { name, points: history.points(figure, span) };
    let plot = Plot {
        label: &format!("From COMMIT to delivered, half and 99 % over {}", span.label()),
        width: 500,
        height: 150,
        ticks: ticks(span),
        across: span.points(),
        every: span.every(),
        series: vec![line("p99", Figure::Late99), line("p50", Figure::LateHalf)],
        bound: None,
        unit: words::fine,
        binary: false,
    };
    LatePlot { late: both(&plot), since: since(history) }
}

/// Returns since when the plots have points.
pub(crate) fn since(history: &History) -> String {
    let began = history.began.and_then(|at| jiff::Timestamp::from_second(i64::try_from(words::whole(at)).ok()?).ok());
    match began {
        Some(at) => format!("since {} UTC", at.strftime("%Y-%m-%d %H:%M")),
        None => "nothing is kept yet".to_owned(),
    }
}

#[derive(Template)]
#[template(path = "spans.html")]
struct Spans {
    links: Vec<(TimeSpan, String, bool)>,
}

/// Draws the links that choose a span.
pub(crate) fn spans(path: &str, current: TimeSpan) -> Markup {
    let link = |span: &TimeSpan| (*span, format!("{path}?span={}", span.as_str()), *span == current);
    drawn(&Spans { links: TimeSpan::ALL.iter().map(link).collect() })
}

#[derive(Template)]
#[template(path = "events.html")]
struct Events {
    rows: Vec<EventLine>,
}

struct EventLine {
    at: String,
    what: String,
    result: String,
    actor: String,
}

/// Draws the events, the newest first.
pub(crate) fn events_of(events: &[Event]) -> Markup {
    let line = |event: &Event| EventLine {
        at: event.at.clone(),
        what: sentence(event),
        result: event.result.clone().unwrap_or_else(|| "asked…".to_owned()),
        actor: event.actor.clone(),
    };
    drawn(&Events { rows: events.iter().map(line).collect() })
}

/// Returns an event as a sentence.
pub(crate) fn sentence(event: &Event) -> String {
    let of = event.section.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
    let section = event.section.as_deref().unwrap_or("a section");
    let rows = event.args.get("rows").and_then(serde_json::Value::as_u64);
    let ids = event.args.get("ids").and_then(serde_json::Value::as_array).map(|ids| ids.len() as u64);
    match event.action.as_str() {
        "pause" => format!("{section} was paused"),
        "resume" => format!("{section} was resumed"),
        "probe" => format!("{section} was asked to probe now"),
        "resync" => {
            let rows = rows.map_or_else(|| "rows".to_owned(), |rows| words::plural(rows, "row", "rows"));
            format!("{rows}{of} to be delivered again")
        }
        "quarantine_retry" => {
            format!("{}{of} to be sent again from quarantine", words::plural(ids.unwrap_or(0), "row", "rows"))
        }
        "quarantine_drop" => "rows dropped from quarantine".to_owned(),
        "repair" => "repaired".to_owned(),
        "config_save" => format!("the configuration{of} was saved"),
        "query" => "a question was put to the database".to_owned(),
        "server_address" => "the address of the server".to_owned(),
        "config_apply" => "the configuration was applied".to_owned(),
        other => format!("{other}{of}"),
    }
}
