//! The actions that people asked for just now, and their results. No action is called done before it is.

use askama::Template;

use crate::console::ask::Ask;
use crate::console::draw::{self, Markup};
use crate::console::fragments::overview_fragments::sentence;
use crate::console::page_view::drawn;
use crate::console::words::since;
use crate::state::Event;

/// The page looks through this many events.
const EVENTS: u32 = 30;
/// The page shows a result for this many seconds.
const SHOWN: f64 = 90.0;
/// The instance obeys a pause or a resume within this many seconds.
const OBEYED: f64 = 6.0;
/// The page shows an action that no instance has handled for this many seconds.
const WAITS: f64 = 86_400.0;

#[derive(Template)]
#[template(path = "asked.html")]
struct AskedList {
    lines: Vec<AskedLine>,
}

struct AskedLine {
    class: &'static str,
    icon: &'static str,
    what: String,
    result: String,
    by: String,
}

/// Draws the latest events that have one of these actions, of one section or of all.
pub(crate) async fn asked(ask: &Ask, section: Option<&str>, actions: &[&str]) -> Markup {
    let Ok(store) = ask.console.store().await else { return Markup::default() };
    let events = store.events(EVENTS).await.unwrap_or_default();
    let now = jiff::Timestamp::now();
    let ours = |event: &&Event| {
        let of = section.is_none_or(|name| event.section.as_deref() == Some(name));
        of && actions.contains(&event.action.as_str())
    };
    let lines = events.iter().filter(ours).filter_map(|event| line(event, now)).take(3).collect();
    drawn(&AskedList { lines })
}

fn line(event: &Event, now: jiff::Timestamp) -> Option<AskedLine> {
    let waits = event.handled_at.is_none();
    let age = since(event.handled_at.as_deref().unwrap_or(&event.at), now)?;
    if age > if waits { WAITS } else { SHOWN } {
        return None;
    }
    let switch = matches!(event.action.as_str(), "pause" | "resume");
    let result = match &event.result {
        None => "asked…".to_owned(),
        Some(_) if switch && age < OBEYED => "asked; the program obeys within 5 s".to_owned(),
        Some(_) if switch => "done".to_owned(),
        Some(result) => result.clone(),
    };
    let bad = result.starts_with("refused") || result.starts_with("failed");
    let (class, icon) = match (waits, bad) {
        (true, _) => ("is-fill", "info"),
        (_, true) => ("is-stop", "stop"),
        _ => ("is-flow", "ok"),
    };
    Some(AskedLine { class, icon, what: sentence(event), result, by: event.actor.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, at: &str, handled: Option<&str>, result: Option<&str>) -> Event {
        Event {
            id: 1,
            at: at.into(),
            actor: "console:maria".into(),
            action: action.into(),
            section: Some("logins".into()),
            args: serde_json::json!({ "rows": 12 }),
            handled_at: handled.map(Into::into),
            result: result.map(Into::into),
        }
    }

    #[test]
    fn what_is_asked_is_not_said_to_be_done() {
        let now: jiff::Timestamp = "2026-11-26T00:10:00Z".parse().unwrap();
        let shown = |event: &Event| line(event, now).map(|line| (line.class, line.result));
        let asked = event("resync", "2026-11-26T00:09:58Z", None, None);
        assert_eq!(shown(&asked), Some(("is-fill", "asked…".to_owned())));
        let begun = event("resync", "2026-11-26T00:09:58Z", Some("2026-11-26T00:09:59Z"), Some("begun"));
        assert_eq!(shown(&begun), Some(("is-flow", "begun".to_owned())));
        let refused = event("resync", "2026-11-26T00:09:58Z", Some("2026-11-26T00:09:59Z"), Some("refused: off"));
        assert_eq!(shown(&refused).unwrap().0, "is-stop");
        let old = event("resync", "2026-11-26T00:00:00Z", Some("2026-11-26T00:00:01Z"), Some("begun"));
        assert_eq!(shown(&old), None);
        let pause = event("pause", "2026-11-26T00:09:58Z", Some("2026-11-26T00:09:58Z"), Some("done"));
        assert!(shown(&pause).unwrap().1.contains("within 5 s"));
    }
}
