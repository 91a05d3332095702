//! The Repair page: what happened, what is known, and the ways to go on, each with its lost and doubled rows.

use askama::Template;
use axum::response::{IntoResponse, Response};

use crate::config::{Config, Kind};
use crate::console::ask::Ask;
use crate::console::draw;
use crate::console::page_view::{PageView, Shell};
use crate::console::plans::{Confirmation, Deed};
use crate::console::problem::Refusal;
use crate::console::repair_texts::{RepairText, text_of, way, way_again};
use crate::console::sheets::stored;
use crate::console::verdict::headline;
use crate::console::words::{bytes, count, moment, plural};
use crate::operations::{Mend, RepairPlan, RepairWay, repair_ways};
use crate::state::Gap;
use crate::telemetry::status_document::{InstanceState, Reason};

#[derive(Template)]
#[template(path = "repair.html")]
struct RepairPage {
    shell: Shell,
    class: &'static str,
    icon: &'static str,
    headline: String,
    story: String,
    message: String,
    reason: String,
    /// Why the ways could not be examined.
    trouble: String,
    /// Why no way is offered.
    closed: String,
    counted: String,
    ways: Vec<WayLine>,
    sure: String,
    word: String,
    meaning: &'static str,
    known: Vec<(&'static str, String)>,
    after: String,
    sql: String,
    sections: Vec<GapRows>,
    gaps: Vec<GapLine>,
}

struct WayLine {
    plan: String,
    how: &'static str,
    title: &'static str,
    text: String,
    class: &'static str,
    count: String,
    word: String,
    recommended: bool,
    chosen: bool,
    open: bool,
}

struct GapRows {
    name: String,
    keys: String,
    rows: String,
    twice: &'static str,
}

struct GapLine {
    since: String,
    section: String,
    reason: String,
    detail: String,
    href: String,
    /// Why nothing brings its rows now; empty where something does.
    shut: &'static str,
}

/// `GET /repair`
pub(crate) async fn page(ask: Ask) -> Result<Response, Refusal> {
    let view = ask.console.view().await?;
    let gaps = match ask.console.store().await {
        Ok(store) => store.gaps(true).await.map_err(|error| error.fault())?,
        // The page must open while the state cannot be reached: that may be what happened.
        Err(_) => Vec::new(),
    };
    let reason = view.status.reason.filter(|_| view.status.state == InstanceState::NeedsPerson);
    let text = reason.map(text_of);
    let mends = text.is_some_and(|text| text.recommended.is_some());
    let (ways, trouble) = match (mends || (reason.is_none() && !gaps.is_empty()), ask.is_operator()) {
        (true, true) => {
            let _leave = ask.console.question()?;
            match repair_ways(&ask.console.config()).await {
                Ok(ways) => (ways, String::new()),
                // An instance runs, and its gaps are delivered section by section.
                Err(_) if reason.is_none() => (Vec::new(), String::new()),
                Err(fault) => (Vec::new(), format!("{}: {}", fault.what, fault.remedy)),
            }
        }
        (true, false) | (false, _) => (Vec::new(), String::new()),
    };
    if ask.json {
        // No way that is open is not the same as none that was looked at.
        let trouble = if ask.is_operator() { &trouble } else { "the ways are looked at for an operator" };
        let plans: Vec<&RepairPlan> = ways.iter().filter_map(|way| way.plan.as_ref().ok()).collect();
        let document = serde_json::json!({
            "state": view.status.state, "reason": reason, "ways": plans, "trouble": trouble, "gaps": gaps,
        });
        return Ok(axum::Json(document).into_response());
    }
    let page = drawn_page(&ask, &view, reason, text, &ways, trouble, &gaps)?;
    Ok(page.shell.around(&page))
}

fn drawn_page(
    ask: &Ask,
    view: &PageView,
    reason: Option<Reason>,
    text: Option<RepairText>,
    ways: &[RepairWay],
    trouble: String,
    gaps: &[Gap],
) -> Result<RepairPage, Refusal> {
    let gap_rows = ways.iter().find(|way| way.how == Mend::Gap).and_then(RepairWay::rows);
    let lines = lines(ask, ways, text, gap_rows)?;
    let gap_plan = ways.iter().find(|way| way.how == Mend::Gap).and_then(|way| way.plan.as_ref().ok());
    let plan = ways.iter().find_map(|way| way.plan.as_ref().ok());
    let word = lines.iter().find(|line| line.chosen).map(|line| line.word.clone()).unwrap_or_default();
    Ok(RepairPage {
        shell: Shell::new(ask, view, "Repair", "overview", "", "page=repair"),
        class: if reason.is_some() {
            "is-stop"
        } else if gaps.is_empty() {
            "is-flow"
        } else {
            "is-warn"
        },
        icon: if reason.is_some() {
            "stop"
        } else if gaps.is_empty() {
            "ok"
        } else {
            "warn"
        },
        headline: match (reason, gaps.len()) {
            (Some(reason), _) => headline(reason).to_owned(),
            (None, 0) => "Nothing is to be repaired.".to_owned(),
            (None, open) => {
                format!("{} open: rows were skipped that somebody may want.", plural(open as u64, "gap is", "gaps are"))
            }
        },
        story: text.map_or_else(String::new, |text| text.story.to_owned()),
        message: view.status.message.clone().filter(|_| reason.is_some()).unwrap_or_default(),
        reason: reason.map(|reason| reason.to_string()).unwrap_or_default(),
        trouble,
        closed: match text {
            Some(RepairText { recommended: None, .. }) => {
                "Nothing is repaired here: mend what is named above, and it goes on by itself."
            }
            _ if !ask.is_operator() => "This needs the role operator.",
            _ => "The ways could not be looked at now; load this page again.",
        }
        .to_owned(),
        counted: format!("counted just now, {} UTC", view.now.strftime("%H:%M:%S")),
        sure: text.and_then(|text| text.sure).unwrap_or_default().to_owned(),
        meaning: "what the chosen way is about",
        word,
        known: if reason.is_some() { known(view, plan, gaps) } else { Vec::new() },
        after: text.map_or_else(String::new, |text| text.after.0.to_owned()),
        sql: text.map_or_else(String::new, |text| text.after.1.to_owned()),
        sections: gap_plan.map(|plan| rows_of(&view.config, plan)).unwrap_or_default(),
        gaps: gaps.iter().map(|gap| gap_line(ask, gap)).collect(),
        ways: lines,
    })
}

/// Returns the ways, the recommended one first, each with a plan of its own.
fn lines(
    ask: &Ask,
    ways: &[RepairWay],
    text: Option<RepairText>,
    gap_rows: Option<u64>,
) -> Result<Vec<WayLine>, Refusal> {
    let wanted = text.and_then(|text| text.recommended).unwrap_or(Mend::Gap);
    let open = |how: Mend| ways.iter().any(|way| way.how == how && way.plan.is_ok());
    let again = ways.iter().find(|way| way.plan.as_ref().is_ok_and(RepairPlan::brings_again)).map(|way| way.how);
    let recommended = [Some(wanted), again, Some(Mend::Backfill)].into_iter().flatten().find(|how| open(*how));
    let sure = text.is_some_and(|text| text.sure.is_some());
    let mut lines = Vec::new();
    for way in ways {
        let line = match &way.plan {
            Ok(plan) => {
                let rows = if way.how == Mend::AcceptLoss { gap_rows } else { way.rows() };
                let confirmation = match rows {
                    Some(rows) => Confirmation::Number(rows),
                    None => Confirmation::Name(ask.console.config().source.slot.clone()),
                };
                let word = confirmation.word();
                let plan_id = stored(ask, Deed::Repair { how: way.how, sure }, confirmation)?;
                WayLine {
                    plan: plan_id,
                    word,
                    recommended: recommended == Some(way.how),
                    ..line(way.how, plan, rows, gap_rows)
                }
            }
            Err(fault) => closed_way(way.how, &fault.what),
        };
        lines.push(line);
    }
    lines.sort_by_key(|line| (!line.recommended, !line.open));
    if let Some(first) = lines.iter_mut().find(|line| line.open) {
        first.chosen = true;
    }
    Ok(lines)
}

fn line(how: Mend, plan: &RepairPlan, rows: Option<u64>, gap_rows: Option<u64>) -> WayLine {
    let (title, text) = if plan.brings_again() { way_again() } else { way(how, plan.new_slot, plan.xmin_floor) };
    let unknown = || "more rows than could be counted".to_owned();
    let (class, count) = match how {
        Mend::Gap => {
            let rows = rows.map_or_else(unknown, |rows| plural(rows, "row is", "rows are"));
            ("is-flow", format!("none lost · {rows} read again"))
        }
        Mend::Backfill => {
            let twice = match rows.zip(gap_rows) {
                Some((all, gap)) => format!(", of which about {} count twice", count(all.saturating_sub(gap))),
                None => ", and those that Planhat has count twice".to_owned(),
            };
            let rows = rows.map_or_else(unknown, |rows| plural(rows, "row is", "rows are"));
            ("is-doubt", format!("none lost · {rows} delivered{twice}"))
        }
        Mend::AcceptLoss if plan.brings_again() => {
            let twice = plan.sections.iter().filter_map(|section| section.rows).sum();
            ("is-doubt", format!("none lost · up to {} twice", plural(twice, "row counts", "rows count")))
        }
        Mend::AcceptLoss => match gap_rows {
            Some(rows) => ("is-stop", format!("up to {} lost · none count twice", plural(rows, "row is", "rows are"))),
            None => ("is-stop", "nobody knows how many rows are lost · none count twice".to_owned()),
        },
    };
    WayLine {
        plan: String::new(),
        how: how.as_str(),
        title,
        text,
        class,
        count,
        word: String::new(),
        recommended: false,
        chosen: false,
        open: true,
    }
}

/// Returns the line of a way that cannot keep its promise, and why.
fn closed_way(how: Mend, why: &str) -> WayLine {
    let (title, _) = way(how, true, None);
    WayLine {
        plan: String::new(),
        how: how.as_str(),
        title,
        text: why.to_owned(),
        class: "",
        count: String::new(),
        word: String::new(),
        recommended: false,
        chosen: false,
        open: false,
    }
}

fn known(view: &PageView, plan: Option<&RepairPlan>, gaps: &[Gap]) -> Vec<(&'static str, String)> {
    let mut known = Vec::new();
    if let Some(plan) = plan {
        known.push(("Settled up to", plan.from_lsn.clone()));
        if let Some(wal) = plan.wal_bytes {
            known.push(("WAL written since", bytes(wal)));
        }
        known.push((
            "Slot",
            format!("{}, {}", view.config.source.slot, if plan.new_slot { "made anew" } else { "kept" }),
        ));
    } else {
        known.push(("Slot", view.config.source.slot.clone()));
    }
    let status = &view.status;
    if let (Some(identifier), Some(timeline)) = (&status.instance.system_identifier, status.instance.timeline) {
        known.push(("Server", format!("{identifier}, timeline {timeline}")));
    }
    known.push(("Open gaps", count(gaps.len() as u64)));
    if let Some(remedy) = &status.remedy {
        known.push(("Remedy", remedy.clone()));
    }
    known
}

fn rows_of(config: &Config, plan: &RepairPlan) -> Vec<GapRows> {
    let row = |part: &crate::operations::SectionPlan| {
        let own = config.sections.iter().find(|section| section.name.as_str() == part.section);
        GapRows {
            name: part.section.clone(),
            keys: part.keys.as_ref().map_or_else(|| "–".to_owned(), |(first, last)| format!("{first} – {last}")),
            rows: part.rows.map_or_else(|| "not counted in time".to_owned(), count),
            twice: match own.map(|section| section.kind) {
                Some(Kind::CustomMetric(_)) => "LAST stays right; SUM counts twice",
                Some(Kind::UserActivity) | None => "an activity counts twice",
            },
        }
    };
    plan.sections.iter().map(row).collect()
}

fn gap_line(ask: &Ask, gap: &Gap) -> GapLine {
    let section = gap.section.clone().unwrap_or_default();
    let config = ask.console.config();
    let own = config.sections.iter().find(|own| own.name.as_str() == section);
    let on = own.is_some_and(|own| own.is_on());
    GapLine {
        since: moment(&gap.opened_at),
        shut: match own {
            Some(own) if !own.is_on() => "once the section is on again",
            None if !section.is_empty() => "the section is not in the configuration any more",
            Some(_) | None => "",
        },
        href: if on && ask.is_operator() { format!("/sections/{section}/resync") } else { String::new() },
        section: if section.is_empty() { "all".to_owned() } else { section },
        reason: gap.reason.clone(),
        detail: gap.detail.clone(),
    }
}
