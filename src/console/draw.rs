//! Small pieces of markup that templates insert unescaped: icons, the arrow, chips, bars, ages.
//!
//! * In: words of the code, numbers, and text from anywhere.
//! * Out: [`Markup`].
//! * Never: text that is not escaped; an inline style (the page's policy forbids it).

use std::fmt;

use askama::filters::{Escaper as _, Html, HtmlSafe};

use crate::telemetry::status_document::SectionState;

/// Markup that is safe to insert unescaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Markup(pub(crate) String);

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Markup {}

/// Returns a text with its special characters escaped.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    // Writing to a String cannot fail.
    Html.write_escaped_str(&mut safe, text).ok();
    safe
}

/// Returns an icon, `size` pixels wide. The page says its meaning in words beside it.
pub(crate) fn icon(name: &str, size: u32) -> Markup {
    icon_of(name, size, "")
}

/// Returns an icon in the colour of a class.
pub(crate) fn icon_of(name: &str, size: u32, class: &str) -> Markup {
    let path = match name {
        "overview" => "<path d='M2.5 13.5V9M6.2 13.5V5M9.8 13.5V7.5M13.5 13.5V2.5'/>",
        "arrow" => "<path d='M1.5 8h11M9 4.5 12.5 8 9 11.5'/>",
        "back" => "<path d='M14 8H3.5M7 4.5 3.5 8 7 11.5'/>",
        "down" => "<path d='M8 2v8M4.5 7 8 10.5 11.5 7M3 13.5h10'/>",
        "pause" => "<path d='M5.5 3.5v9M10.5 3.5v9'/>",
        "lines" => "<path d='M2.5 4h11M2.5 8h11M2.5 12h7'/>",
        "box" => "<path d='M2 5.5 8 2.5l6 3v5l-6 3-6-3zM2 5.5l6 3 6-3M8 8.5v5'/>",
        "check" => "<path d='M3 8.5l3.2 3.2L13 4.8'/>",
        "ok" => "<circle cx='8' cy='8' r='6.2'/><path d='M5.2 8.2l2 2 3.7-4.2'/>",
        "code" => "<path d='M5 5 2 8l3 3M11 5l3 3-3 3M9 3.5l-2 9'/>",
        "file" => "<path d='M4 1.8h5.2L12.5 5v9.2H4zM9 2v3.2h3.3'/>",
        "again" => "<path d='M13.2 6.5A5.5 5.5 0 1 0 13.5 9M13.5 2.8v3.9H9.6'/>",
        "warn" => "<path d='M8 2.2 14.4 13.4H1.6zM8 6.4v3.2M8 11.6v.1'/>",
        "stop" => "<path d='M5.3 1.8h5.4l3.5 3.5v5.4l-3.5 3.5H5.3l-3.5-3.5V5.3zM8 5v3.6M8 11v.1'/>",
        "info" => "<circle cx='8' cy='8' r='6.2'/><path d='M8 7.4v3.4M8 5v.1'/>",
        "copy" => "<path d='M5.5 5.5V2.5h8v8h-3M2.5 5.5h8v8h-8z'/>",
        "plus" => "<path d='M8 3v10M3 8h10'/>",
        "lock" => "<path d='M3.5 7.5h9v6h-9zM5.2 7.5V5a2.8 2.8 0 0 1 5.6 0v2.5'/>",
        "save" => "<path d='M2.5 2.5h9l2 2v9h-11zM5 2.5v3.5h5V2.5M5 13.5V9.5h6v4'/>",
        "play" => "<path d='M4.5 3l8 5-8 5z'/>",
        "dots" => "<path d='M3 8h.1M8 8h.1M13 8h.1'/>",
        "broken" => "<path d='M1.5 8h4M10 8h3M10.5 5.5 13 8l-2.5 2.5M6.5 5l3 6'/>",
        "person" => "<circle cx='8' cy='5.4' r='2.6'/><path d='M3 13.6c.6-2.8 2.5-4.2 5-4.2s4.4 1.4 5 4.2'/>",
        _ => "<circle cx='8' cy='8' r='2.2'/>",
    };
    Markup(format!(
        "<svg class='ico {class}' width='{size}' height='{size}' viewBox='0 0 16 16' fill='none' stroke='currentColor' \
         stroke-width='1.6' stroke-linecap='round' stroke-linejoin='round' aria-hidden='true'>{path}</svg>"
    ))
}

/// Returns the class and the icon of a section's state.
pub(crate) fn state_look(state: impl std::borrow::Borrow<SectionState>) -> (&'static str, &'static str) {
    match *state.borrow() {
        SectionState::Streaming | SectionState::Comparing => ("is-flow", "arrow"),
        SectionState::Backfilling => ("is-fill", "down"),
        SectionState::Paused => ("is-warn", "pause"),
        SectionState::Halted => ("is-stop", "broken"),
        SectionState::Waiting => ("is-rest", "dots"),
        SectionState::Off => ("is-rest", "dots"),
    }
}

/// Returns the class and the icon of a batch's outcome.
pub(crate) fn outcome_look(outcome: &str) -> (&'static str, &'static str) {
    match outcome {
        "delivered" => ("is-flow", "check"),
        "sending" => ("is-fill", "arrow"),
        "partial" => ("is-warn", "warn"),
        "resent" | "in_doubt" | "held" => ("is-doubt", "again"),
        _ => ("is-stop", "box"),
    }
}

/// Returns a word in a colour, with an icon.
pub(crate) fn chip(class: &str, icon_name: &str, word: &str) -> Markup {
    Markup(format!("<span class='chip {class}'>{}{}</span>", icon(icon_name, 12), escaped(word)))
}

/// Returns a section's state as a chip.
pub(crate) fn state_chip(state: SectionState) -> Markup {
    let (class, icon) = state_look(state);
    chip(class, icon, state.as_str())
}

/// Returns the arrow of a section's state. Its shape says the state, and its colour repeats it.
pub(crate) fn arrow(state: SectionState, width: u32) -> Markup {
    let (class, _) = state_look(state);
    let (head, end, half) = (width - 9, width - 4, width / 2);
    let point = format!("<path d='M{head} 3l6 5-6 5'/>");
    let shaft = match state {
        SectionState::Streaming => format!("<path class='run' d='M2 8H{end}'/>"),
        // Two lines held against each other stand for a comparison.
        SectionState::Comparing => {
            format!(
                "<path d='M2 5H{half}M2 11H{half}M{} 3v10'/><path class='run' d='M{} 8H{end}'/>",
                half + 2,
                half + 6
            )
        }
        SectionState::Backfilling => {
            format!("<path d='M2 5H{half}M2 11H{half}'/><path class='run' d='M{} 8H{end}'/>", half + 5)
        }
        SectionState::Paused => {
            let bars = format!("M{} 3v10M{} 3v10", half - 3, half + 4);
            format!("<path d='M2 8H{}M{} 8H{end}{bars}'/>", half - 9, half + 10)
        }
        SectionState::Halted => {
            format!("<path d='M2 8H{}M{} 3l6 10M{} 8H{end}'/>", half - 7, half - 3, half + 8)
        }
        SectionState::Waiting | SectionState::Off => {
            let dots: String = (0..(width - 12) / 7).map(|dot| format!("M{} 8h1", 2 + dot * 7)).collect();
            format!("<path d='{dots}'/>")
        }
    };
    Markup(format!(
        "<svg class='flow {class}' width='{width}' height='16' viewBox='0 0 {width} 16' aria-hidden='true'>{shaft}{point}\
         </svg><span class='sr'>{state}</span>"
    ))
}

/// Returns a bar that is full to this percentage.
pub(crate) fn progress(percent: u64, label: &str, class: &str) -> Markup {
    let percent = percent.min(100);
    Markup(format!(
        "<svg class='meter {class}' viewBox='0 0 100 8' preserveAspectRatio='none' role='progressbar' \
         aria-valuenow='{percent}' aria-valuemin='0' aria-valuemax='100' aria-label='{}'>\
         <rect class='meter__full' width='100' height='8'/><rect class='meter__part' width='{percent}' height='8'/></svg>",
        escaped(label)
    ))
}

/// Returns a bar that shows how many rows are good, left out, or bad. The page says the numbers beside it.
pub(crate) fn tally(good: usize, left: usize, bad: usize) -> Markup {
    let all = (good + left + bad).max(1);
    let part = |from: usize, rows: usize, class: &str| {
        let (x, width) = (from as f64 * 100.0 / all as f64, rows as f64 * 100.0 / all as f64);
        format!("<rect class='{class}' x='{x:.2}' width='{width:.2}' height='8'/>")
    };
    let parts = part(0, good, "tally__good") + &part(good, left, "tally__left") + &part(good + left, bad, "tally__bad");
    Markup(format!(
        "<svg class='meter' viewBox='0 0 100 8' preserveAspectRatio='none' aria-hidden='true'>{parts}</svg>"
    ))
}

/// Returns an age, such as `0.4 s ago`, which the page goes on counting.
pub(crate) fn age(at: &str, seconds: f64) -> Markup {
    let text = crate::console::words::time(seconds);
    Markup(format!("<time datetime='{}' data-age>{text} ago</time>", escaped(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "<img src=x onerror=alert(1)>'\"&";

    #[test]
    fn text_stays_text_wherever_it_is_put() {
        for markup in [chip("is-flow", "arrow", HOSTILE), progress(3, HOSTILE, ""), age(HOSTILE, 1.0)] {
            assert!(!markup.0.contains("<img"), "{markup}");
            assert!(!markup.0.contains("'\"&"), "{markup}");
        }
    }

    #[test]
    fn each_state_has_an_arrow_of_its_own_shape() {
        let shapes: Vec<String> = SectionState::ALL
            .iter()
            .filter(|state| **state != SectionState::Waiting)
            .map(|state| {
                let svg = arrow(*state, 64).0;
                svg[svg.find("<path").unwrap()..svg.find("</svg>").unwrap()].to_owned()
            })
            .collect();
        let mut different = shapes.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), shapes.len());
    }

    #[test]
    fn no_markup_has_an_inline_style() {
        let all =
            [icon("ok", 16), arrow(SectionState::Halted, 120), progress(40, "x", ""), chip("is-stop", "stop", "x")];
        assert!(all.iter().all(|markup| !markup.0.contains("style=")));
    }
}
