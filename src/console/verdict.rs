//! The verdict: one sentence that says whether all is well.
//!
//! * In: the status document, some figures, and whether the page still hears the program.
//! * Out: the sentence, its second line, its colour, and a link.
//! * Never: two worries in one sentence: the worst one is said, the others stand below it on the page.

use crate::console::words::{bytes, count, plural, time};
use crate::model::Fault;
use crate::telemetry::status_document::{InstanceState, Reason, SectionState, SectionStatus, Status};

/// The colour of the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Flow,
    Warn,
    Stop,
}

impl Tone {
    /// Returns the class of the colour.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Tone::Flow => "is-flow",
            Tone::Warn => "is-warn",
            Tone::Stop => "is-stop",
        }
    }

    /// Returns the icon that goes with the colour.
    pub(crate) fn icon(self) -> &'static str {
        match self {
            Tone::Flow => "ok",
            Tone::Warn => "warn",
            Tone::Stop => "stop",
        }
    }
}

/// Whether the page still hears the program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PageLink {
    Live,
    /// Nothing arrives any more.
    Lost,
}

/// Figures that the status document does not hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageFigures {
    /// How late the newest rows were, in seconds.
    pub late: Option<f64>,
    /// The seconds that 99 % of Planhat's answers stayed below.
    pub answer_p99: Option<f64>,
    /// The number of rows in quarantine now.
    pub quarantined: u64,
    /// Rows read less rows settled and under way. It is 0 where the books balance.
    pub unaccounted: i64,
    /// The number of seconds since Planhat last took rows.
    pub quiet: Option<f64>,
    /// The number of seconds since the state last changed.
    pub state_for: Option<f64>,
    /// The name of the leader, where another process leads.
    pub leader: Option<String>,
    /// The number of rows that were read and are not settled.
    pub unsettled: u64,
    /// Why the instance of this process has ended, where it did not because somebody asked for it.
    pub ended: Option<Fault>,
}

/// The sentence, with its colour and its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageVerdict {
    pub tone: Tone,
    /// A word for the kind of sentence. The page announces the sentence again when this word changes, not when its
    /// seconds do.
    pub class: &'static str,
    pub sentence: String,
    pub detail: String,
    /// The link: its text, and its address.
    pub act: Option<(String, String)>,
}

/// A slot that is lost after fewer bytes of WAL than this is a worry, whatever the rate, where most of its room is used: more than
/// [`USED`] times what is left. An idle one with little room by configuration is none.
const SAFE: i64 = 1 << 30;
const USED: i64 = 4;
/// A slot that is lost within fewer seconds than this is a worry.
const HOURS: f64 = 4.0 * 3600.0;
/// Rows are late from this many seconds on, as in the alert.
const LATE: f64 = 300.0;
/// The verdict tells of rows that Planhat refuses once they are this many seconds late.
const WAITING: f64 = 2.0;

/// Returns the verdict. The first worry that applies is said, and the order is that of badness.
pub(crate) fn verdict(status: &Status, link: PageLink, figures: &PageFigures) -> PageVerdict {
    if link == PageLink::Lost {
        return say(Tone::Warn, "lost", "The console has lost the program.", "What follows may be old.");
    }
    // Another instance may lead meanwhile: what is shown then is that one.
    if let Some(fault) = figures.ended.as_ref().filter(|_| !status.ready) {
        let sentence = format!("The instance that ran here has ended: {}.", fault.what.trim_end_matches('.'));
        return say(Tone::Stop, "ended", sentence, fault.remedy.clone());
    }
    match status.state {
        InstanceState::NeedsPerson => return needs_person(status),
        InstanceState::Stalled => return stalled(status, figures),
        InstanceState::Starting | InstanceState::Standby | InstanceState::Running | InstanceState::Draining => {}
    }
    if let Some(trouble) = troubled(status).or_else(|| slot(status)).or_else(|| accounting(figures)) {
        return trouble;
    }
    if let Some(late) = late(status, figures) {
        return late;
    }
    match status.state {
        InstanceState::Starting => {
            let what = status.message.clone().unwrap_or_else(|| "connecting, and comparing what it finds".to_owned());
            say(Tone::Warn, "starting", format!("Starting: {what}."), status.remedy.as_deref().unwrap_or_default())
        }
        InstanceState::Standby => {
            let leader = figures.leader.as_deref().unwrap_or("another process");
            let sentence = format!("This process waits as standby; {leader} leads.");
            say(Tone::Warn, "standby", sentence, "It takes over when the slot is let go.")
        }
        InstanceState::Draining => {
            let rows = plural(figures.unsettled, "row is", "rows are");
            say(Tone::Warn, "draining", format!("Ending: {rows} still under way."), "")
        }
        InstanceState::Running | InstanceState::Stalled | InstanceState::NeedsPerson => well(status, figures),
    }
}

fn say(tone: Tone, class: &'static str, sentence: impl Into<String>, detail: impl Into<String>) -> PageVerdict {
    PageVerdict { tone, class, sentence: sentence.into(), detail: detail.into(), act: None }
}

fn needs_person(status: &Status) -> PageVerdict {
    let (class, sentence) = match status.reason {
        Some(reason) => (reason.as_str(), headline(reason)),
        None => ("needs_person", "Stopped: a person must decide."),
    };
    let detail = status.message.clone().unwrap_or_default();
    let act = status.reason.is_some_and(Reason::leaves_a_gap);
    let mut verdict = say(Tone::Stop, class, sentence, detail);
    verdict.act = act.then(|| ("How to go on".to_owned(), "/repair".to_owned()));
    verdict
}

/// Returns the headline of the repair page for a reason.
pub(crate) fn headline(reason: Reason) -> &'static str {
    match reason {
        Reason::SlotMissing => "Stopped: the replication slot is gone.",
        Reason::SlotRecreated => "Stopped: there is a slot of this name, and it is another one.",
        Reason::SlotMoved => "Stopped: something else has moved the slot past what was delivered.",
        Reason::SlotLost => "Stopped: the server dropped the WAL that the slot still needed.",
        Reason::Wedged => "Stopped: the server cannot decode a change.",
        Reason::PublicationChanged => "Stopped: the publication no longer carries what is mapped.",
        Reason::OtherServer => "Stopped: this is another server than before.",
        Reason::RestoredBackup => "Stopped: the server is an older state of itself.",
        Reason::TimelineChanged => "Stopped: the server was promoted, or set back in time.",
        Reason::StateUnwritable => "Stopped: what was delivered cannot be written down.",
    }
}

fn stalled(status: &Status, figures: &PageFigures) -> PageVerdict {
    let time = figures.state_for.map(|seconds| format!(", for {}", time(seconds))).unwrap_or_default();
    let what = status.message.as_deref().unwrap_or("nothing moves");
    let sentence = format!("Nothing is delivered{time}: {}.", what.trim_end_matches('.'));
    say(Tone::Stop, "stalled", sentence, status.remedy.as_deref().unwrap_or_default())
}

/// Returns the verdict on a section that is halted, or whose rows Planhat does not take now.
fn troubled(status: &Status) -> Option<PageVerdict> {
    let halted: Vec<&SectionStatus> = of(status, SectionState::Halted).collect();
    if let Some(first) = halted.first() {
        let reason = first.reason.as_deref().unwrap_or("its surroundings must be mended");
        let others = on(status).count() > halted.len();
        let rest = match (halted.len(), others) {
            (1, true) => "The others go on.".to_owned(),
            (1, false) => "It goes on by itself once that is mended.".to_owned(),
            (more, true) => format!("{} sections are halted; the others go on.", count(more as u64)),
            (more, false) => format!("{} sections are halted.", count(more as u64)),
        };
        let sentence = format!("{} is halted: {}.", first.name, reason.trim_end_matches('.'));
        let detail = first.remedy.as_ref().map_or_else(|| rest.clone(), |remedy| format!("{rest} {remedy}"));
        let mut verdict = say(Tone::Stop, "halted", sentence, detail);
        verdict.act = Some((format!("Look at {}", first.name), format!("/sections/{}", first.name)));
        return Some(verdict);
    }
    let waits = |section: &&SectionStatus| {
        use SectionState::{Backfilling, Comparing, Streaming};
        let flows = matches!(section.state, Streaming | Comparing | Backfilling);
        flows && section.reason.is_some() && section.lag_seconds.is_some_and(|lag| lag > WAITING)
    };
    let waiting = status.sections.iter().find(waits)?;
    let reason = waiting.reason.as_deref().unwrap_or_default().trim_end_matches('.');
    let lag = time(waiting.lag_seconds.unwrap_or_default());
    let sentence = format!("Planhat does not take rows now ({reason}, for {lag}).");
    let mut verdict = say(Tone::Warn, "planhat_away", sentence, "They wait in PostgreSQL; nothing is lost.");
    verdict.act = Some((format!("Look at {}", waiting.name), format!("/sections/{}", waiting.name)));
    Some(verdict)
}

fn slot(status: &Status) -> Option<PageVerdict> {
    let slot = &status.slot;
    let soon = slot.seconds_until_lost.is_some_and(|seconds| seconds < HOURS);
    let kept = slot.retained_bytes.unwrap_or(0);
    let is_used = |safe: i64| i64::try_from(kept).is_ok_and(|kept| safe.saturating_mul(USED) < kept);
    let full = slot.safe_wal_bytes.is_some_and(|safe| safe < SAFE && is_used(safe));
    if !soon && !full {
        return None;
    }
    let safe = u64::try_from(slot.safe_wal_bytes.unwrap_or(0)).unwrap_or(0);
    let when = match slot.seconds_until_lost {
        Some(seconds) => format!("in {}", time(seconds)),
        None => format!("after {} more of WAL", bytes(safe)),
    };
    let sentence = format!("The slot will be lost {when}: the server keeps {} of {}.", bytes(kept), bytes(kept + safe));
    let mut verdict =
        say(Tone::Stop, "disk", sentence, "Raise max_slot_wal_keep_size, or mend what keeps rows waiting.");
    verdict.act = Some(("Look at the checks".to_owned(), "/checks".to_owned()));
    Some(verdict)
}

fn accounting(figures: &PageFigures) -> Option<PageVerdict> {
    let rows = figures.unaccounted.unsigned_abs();
    (rows > 0).then(|| {
        let sentence = format!("The books do not balance: {} unaccounted for.", plural(rows, "row is", "rows are"));
        say(Tone::Stop, "books", sentence, "Please report this with the log.")
    })
}

fn late(status: &Status, figures: &PageFigures) -> Option<PageVerdict> {
    let worst = status.sections.iter().filter_map(|section| section.lag_seconds).fold(0.0, f64::max);
    if worst <= LATE {
        return None;
    }
    let why = match figures.answer_p99.filter(|seconds| *seconds > 2.0) {
        Some(seconds) => format!("Planhat answers slowly (p99 {})", time(seconds)),
        None => "the server sends slower than it writes".to_owned(),
    };
    Some(say(
        Tone::Warn,
        "late",
        format!("Rows flow, {} late: {why}.", time(worst)),
        "Nothing is lost: they wait in PostgreSQL.",
    ))
}

fn well(status: &Status, figures: &PageFigures) -> PageVerdict {
    let old: Vec<&str> = of(status, SectionState::Backfilling).map(|section| section.name.as_str()).collect();
    let paused: Vec<&str> = of(status, SectionState::Paused).map(|section| section.name.as_str()).collect();
    use SectionState::{Backfilling, Comparing, Streaming};
    let flows = on(status).filter(|section| matches!(section.state, Streaming | Comparing | Backfilling)).count();
    let quiet = figures.unsettled == 0 && figures.quiet.is_none_or(|seconds| seconds > 60.0) && old.is_empty();
    let (class, sentence) = match (quiet, figures.quiet, figures.late) {
        (true, Some(seconds), _) => ("quiet", format!("All is delivered. The last row came {} ago.", time(seconds))),
        (true, None, _) => ("quiet", "All is delivered. No row has come yet.".to_owned()),
        (false, _, Some(late)) => {
            ("flow", format!("Rows flow. The newest commit reached Planhat {} later.", time(late)))
        }
        (false, ..) => ("flow", "Rows flow.".to_owned()),
    };
    let mut detail =
        vec![format!("{flows} of {} that are on deliver", plural(on(status).count() as u64, "section", "sections"))];
    if !old.is_empty() {
        detail.push(format!("old rows of {} are coming beside the new ones", old.join(", ")));
    }
    if !paused.is_empty() {
        let (rest, them) = if paused.len() == 1 { ("rests", "it") } else { ("rest", "them") };
        detail.push(format!("{} {rest}, and the slot keeps WAL for {them}", paused.join(", ")));
    }
    if let Some(message) = &status.message {
        detail.push(message.trim_end_matches('.').to_owned());
    }
    // The gap of a section that is off is meant; its page tells of it.
    let gaps: u64 = on(status).filter_map(|section| section.open_gaps).sum();
    if gaps > 0 {
        detail.push(format!("{} open: rows of that time may be missing", plural(gaps, "gap is", "gaps are")));
    }
    if figures.quarantined > 0 {
        let rows = plural(figures.quarantined, "row waits", "rows wait");
        detail.push(format!("{rows} in quarantine for a decision"));
    }
    let tone = if paused.is_empty() && gaps == 0 { Tone::Flow } else { Tone::Warn };
    let mut verdict = say(tone, class, sentence, detail.join("; ") + ".");
    // Rows in quarantine have a number in the menu, which leads to them; a gap has no other place.
    if gaps > 0 {
        let label = if gaps == 1 { "Look at the gap".to_owned() } else { format!("Look at the {} gaps", count(gaps)) };
        verdict.act = Some((label, "/repair".to_owned()));
    } else if figures.quarantined > 0 {
        let label = format!("Look at the {}", plural(figures.quarantined, "row", "rows"));
        verdict.act = Some((label, "/quarantine".to_owned()));
    }
    verdict
}

fn of(status: &Status, state: SectionState) -> impl Iterator<Item = &SectionStatus> {
    status.sections.iter().filter(move |section| section.state == state)
}

fn on(status: &Status) -> impl Iterator<Item = &SectionStatus> {
    status.sections.iter().filter(|section| section.state != SectionState::Off)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(name: &str, state: SectionState) -> SectionStatus {
        let text = format!(
            r#"{{"name":"{name}","kind":"user_activity","table":"public.t","state":"{state}","reason":null,"remedy":null,
            "rows_delivered":5,"rows_quarantined":0,"rows_in_doubt":0,"rows_resent":0,"lag_seconds":0.2,
            "last_delivered_at":null,"backfill":null}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn running() -> Status {
        let mut status = Status::starting("slot", "publication");
        (status.state, status.ready) = (InstanceState::Running, true);
        status.sections = vec![section("logins", SectionState::Streaming), section("seats", SectionState::Streaming)];
        status
    }

    fn flowing() -> PageFigures {
        PageFigures { late: Some(0.17), quiet: Some(0.4), unsettled: 3, ..PageFigures::default() }
    }

    fn class(status: &Status, figures: &PageFigures) -> &'static str {
        verdict(status, PageLink::Live, figures).class
    }

    #[test]
    fn every_state_has_a_sentence_of_its_own() {
        for state in InstanceState::ALL {
            let status = Status { state: *state, ..running() };
            let said = verdict(&status, PageLink::Live, &flowing());
            let (class, tone) = match state {
                InstanceState::Starting => ("starting", Tone::Warn),
                InstanceState::Standby => ("standby", Tone::Warn),
                InstanceState::Running => ("flow", Tone::Flow),
                InstanceState::Stalled => ("stalled", Tone::Stop),
                InstanceState::Draining => ("draining", Tone::Warn),
                InstanceState::NeedsPerson => ("needs_person", Tone::Stop),
            };
            assert_eq!((said.class, said.tone), (class, tone), "{state}: {}", said.sentence);
            assert!(said.sentence.ends_with('.') && !said.sentence.contains(".."), "{}", said.sentence);
        }
    }

    #[test]
    fn case_257_an_instance_that_has_ended_is_said_with_its_remedy() {
        let mut status = Status::starting("slot", "publication");
        let ended = Fault::usage("the slot s is another's", "give this instance a slot of its own");
        let figures = PageFigures { ended: Some(ended), ..PageFigures::default() };
        let said = verdict(&status, PageLink::Live, &figures);
        assert_eq!((said.class, said.tone), ("ended", Tone::Stop));
        assert_eq!(said.sentence, "The instance that ran here has ended: the slot s is another's.");
        assert_eq!(said.detail, "give this instance a slot of its own");
        (status.state, status.ready) = (InstanceState::Running, true);
        assert_ne!(class(&status, &figures), "ended", "another one leads");
    }

    #[test]
    fn every_reason_has_a_headline_and_only_a_gap_leads_to_repair() {
        let mut headlines = Vec::new();
        for reason in Reason::ALL {
            let mut status = running();
            (status.state, status.reason) = (InstanceState::NeedsPerson, Some(*reason));
            let said = verdict(&status, PageLink::Live, &flowing());
            assert_eq!(said.class, reason.as_str());
            assert!(said.sentence.starts_with("Stopped: "), "{}", said.sentence);
            assert_eq!(said.act.is_some(), reason.leaves_a_gap(), "{reason}");
            headlines.push(said.sentence);
        }
        headlines.dedup();
        assert_eq!(headlines.len(), Reason::ALL.len());
    }

    #[test]
    fn the_worst_is_said_first() {
        let mut status = running();
        let mut figures = flowing();
        assert_eq!(class(&status, &figures), "flow");
        status.sections[0].lag_seconds = Some(301.0);
        assert_eq!(class(&status, &figures), "late");
        figures.unaccounted = -2;
        assert_eq!(class(&status, &figures), "books");
        status.slot.seconds_until_lost = Some(4.0 * 3600.0 - 1.0);
        assert_eq!(class(&status, &figures), "disk");
        status.sections[1].reason = Some("503".into());
        status.sections[1].lag_seconds = Some(20.0);
        assert_eq!(class(&status, &figures), "planhat_away");
        status.sections[1].state = SectionState::Halted;
        assert_eq!(class(&status, &figures), "halted");
        status.state = InstanceState::Stalled;
        assert_eq!(class(&status, &figures), "stalled");
        status.state = InstanceState::NeedsPerson;
        assert_eq!(class(&status, &figures), "needs_person");
        assert_eq!(verdict(&status, PageLink::Lost, &figures).class, "lost");
    }

    #[test]
    fn every_state_of_a_section_is_told_of() {
        for state in SectionState::ALL {
            let mut status = running();
            status.sections[0].state = *state;
            let said = verdict(&status, PageLink::Live, &flowing());
            let expected = match state {
                SectionState::Halted => ("halted", Tone::Stop),
                SectionState::Paused => ("flow", Tone::Warn),
                SectionState::Off
                | SectionState::Waiting
                | SectionState::Backfilling
                | SectionState::Comparing
                | SectionState::Streaming => ("flow", Tone::Flow),
            };
            assert_eq!((said.class, said.tone), expected, "{state}");
        }
    }

    #[test]
    fn thresholds_are_those_of_the_alerts() {
        let mut status = running();
        status.slot.safe_wal_bytes = Some(SAFE);
        status.sections[0].lag_seconds = Some(300.0);
        assert_eq!(class(&status, &flowing()), "flow");
        status.slot.safe_wal_bytes = Some(SAFE - 1);
        assert_eq!(class(&status, &flowing()), "flow", "little room, of which nothing is used");
        status.slot.retained_bytes = Some(5 << 30);
        let said = verdict(&status, PageLink::Live, &flowing());
        assert_eq!((said.class, said.sentence.contains("1024 MiB")), ("disk", true), "{}", said.sentence);
    }

    #[test]
    fn case_242_what_is_said_of_an_instance_that_runs_stands_below() {
        let status = Status { message: Some("the file is not what runs.".into()), ..running() };
        let said = verdict(&status, PageLink::Live, &flowing());
        assert!(said.class == "flow" && said.detail.ends_with("; the file is not what runs."), "{}", said.detail);
    }

    #[test]
    fn case_286_an_open_gap_is_told_of_and_leads_to_repair() {
        let (mut status, mut figures) = (running(), flowing());
        status.sections[0].open_gaps = Some(1);
        status.sections[1].open_gaps = Some(2);
        status.sections[1].state = SectionState::Off;
        figures.quarantined = 3;
        let said = verdict(&status, PageLink::Live, &figures);
        assert_eq!((said.class, said.tone), ("flow", Tone::Warn));
        assert!(
            said.detail.contains("; 1 gap is open: rows of that time may be missing; 3 rows wait"),
            "{}",
            said.detail
        );
        assert_eq!(said.act, Some(("Look at the gap".to_owned(), "/repair".to_owned())));
    }

    #[test]
    fn those_that_rest_are_told_of_by_number() {
        let mut status = running();
        status.sections[0].state = SectionState::Paused;
        let detail = |status: &Status| verdict(status, PageLink::Live, &flowing()).detail;
        assert!(detail(&status).ends_with("; logins rests, and the slot keeps WAL for it."), "{}", detail(&status));
        status.sections[1].state = SectionState::Paused;
        assert!(detail(&status).ends_with("; logins, seats rest, and the slot keeps WAL for them."));
    }

    #[test]
    fn when_nothing_is_written_it_is_quiet_and_not_late() {
        let figures = PageFigures { quiet: Some(600.0), ..PageFigures::default() };
        assert_eq!(class(&running(), &figures), "quiet");
        assert!(verdict(&running(), PageLink::Live, &figures).sentence.contains("10 min ago"));
        assert_eq!(class(&running(), &PageFigures::default()), "quiet");
    }
}
