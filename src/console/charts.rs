//! Plots as SVG, drawn on the server. A line has some hundred points at most.
//!
//! * In: series of numbers, unknown ones among them.
//! * Out: a picture with a sentence that says what it shows, and its last points as a table.
//! * Never: a line across what is unknown; a label that only a colour explains.

use std::fmt::Write as _;

use crate::console::draw::{Markup, escaped};
use crate::console::words::time;

/// One line of a plot. NaN stands for an unknown point.
pub(crate) struct Series<'a> {
    pub name: &'a str,
    pub points: Vec<f32>,
}

/// A plot and its axes.
pub(crate) struct Plot<'a> {
    /// A sentence that says what the plot shows.
    pub label: &'a str,
    pub width: u32,
    pub height: u32,
    /// The words below the plot, from the oldest time to now.
    pub ticks: &'a [&'a str],
    /// The number of points that fill the plot. A shorter line ends at the right edge.
    pub across: usize,
    pub series: Vec<Series<'a>>,
    /// The number of seconds from one point to the next.
    pub every: f64,
    /// A limit, drawn as a line of its own, and its name.
    pub bound: Option<(f64, &'a str)>,
    /// Writes a number as text.
    pub unit: fn(f64) -> String,
    /// Whether numbers are bytes. The axis then ends at a round multiple of a power of 1024.
    pub binary: bool,
}

/// The width of the numbers at the left.
const LEFT: f64 = 62.0;
/// The width of the names at the right.
const RIGHT: f64 = 96.0;
/// A name beside the plot has at most this many letters.
const NAME: usize = 12;
const TOP: f64 = 10.0;
/// The height of the words below.
const BELOW: f64 = 22.0;
/// The style sheet tells this many lines apart.
const LOOKS: usize = 4;

/// Draws the plot as SVG.
pub(crate) fn plot(plot: &Plot<'_>) -> Markup {
    let (width, height) = (f64::from(plot.width), f64::from(plot.height));
    let known = plot.series.iter().flat_map(|series| &series.points).filter(|value| value.is_finite());
    let highest = known.fold(0.0_f64, |most, value| most.max(f64::from(*value)));
    let highest = highest.max(plot.bound.map_or(0.0, |(bound, _)| bound));
    let scale = if plot.binary { 1024_f64.powf(highest.max(1.0).log(1024.0).floor()) } else { 1.0 };
    let top = scale * round_up(highest / scale);
    let x = |at: usize, of: usize| {
        let missing = plot.across.saturating_sub(of);
        LEFT + (width - LEFT - RIGHT) * (at + missing) as f64 / (plot.across.max(2) - 1) as f64
    };
    let y = |value: f64| TOP + (height - TOP - BELOW) * (1.0 - value / top);
    let mut svg =
        format!("<svg class='chart' viewBox='0 0 {width} {height}' role='img' aria-label='{}'>", escaped(plot.label));
    let (right, bottom) = (width - RIGHT, height - BELOW);
    for step in 0..=2_u32 {
        let value = top * f64::from(step) / 2.0;
        let at = y(value);
        let text = escaped(&(plot.unit)(value));
        add(&mut svg, format_args!("<path class='grid' d='M{LEFT} {at:.1}H{right:.1}'/>"));
        add(&mut svg, format_args!("<text x='{:.0}' y='{:.1}' text-anchor='end'>{text}</text>", LEFT - 8.0, at + 4.0));
    }
    for (place, tick) in plot.ticks.iter().enumerate() {
        let at = LEFT + (right - LEFT) * place as f64 / (plot.ticks.len().max(2) - 1) as f64;
        // The first word begins where the line does: centred there, it would lie on the number of the axis.
        let anchor = if place == 0 { "start" } else { "middle" };
        add(&mut svg, format_args!("<text x='{at:.0}' y='{:.0}' text-anchor='{anchor}'>{tick}</text>", height - 5.0));
    }
    let mut ends: Vec<(f64, usize, &str)> = Vec::new();
    for (index, series) in plot.series.iter().enumerate() {
        let look = index % LOOKS + 1;
        let points = series.points.len();
        for (first, run) in runs(&series.points) {
            let line = path(run.iter().enumerate().map(|(at, value)| (x(first + at, points), y(f64::from(*value)))));
            let (from, to) = (x(first, points), x(first + run.len() - 1, points));
            add(
                &mut svg,
                format_args!("<path class='a a{look}' d='{line}L{to:.1} {bottom:.1}L{from:.1} {bottom:.1}Z'/>"),
            );
            // A path of one point shows nothing: a line of no length draws a dot.
            let dot = if run.len() == 1 { "h.01" } else { "" };
            add(&mut svg, format_args!("<path class='l l{look}' d='{line}{dot}'/>"));
        }
        if let Some(last) = series.points.iter().rev().find(|value| value.is_finite()) {
            ends.push((y(f64::from(*last)), look, series.name));
        }
    }
    if let Some((bound, name)) = plot.bound {
        let at = y(bound);
        add(&mut svg, format_args!("<path class='bound' d='M{LEFT} {at:.1}H{right:.1}'/>"));
        add(
            &mut svg,
            format_args!("<text class='bound-t' x='{:.0}' y='{:.1}'>{}</text>", right + 8.0, at + 4.0, escaped(name)),
        );
    }
    for (at, look, name) in apart(ends, height - BELOW) {
        let name = escaped(&shortened(name));
        add(&mut svg, format_args!("<text class='t{look}' x='{:.0}' y='{:.1}'>{name}</text>", right + 8.0, at + 4.0));
    }
    svg.push_str("</svg>");
    Markup(svg)
}

/// Returns a name that fits beside the plot, also where its letters are wide ones.
fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME { name.to_owned() } else { name.chars().take(NAME - 1).chain(['…']).collect() }
}

/// Draws the last points as a table, for readers who do not see the picture.
pub(crate) fn table(plot: &Plot<'_>) -> Markup {
    let mut html =
        "<details class='as-table'><summary>Show as table</summary><div class='scroll' tabindex='0' role='region' \
        aria-label='The plot as a table'><table class='table table--tight num'><thead><tr><th>Ago</th>"
            .to_owned();
    for series in &plot.series {
        add(&mut html, format_args!("<th class='right'>{}</th>", escaped(series.name)));
    }
    html.push_str("</tr></thead><tbody>");
    let most = plot.series.iter().map(|series| series.points.len()).max().unwrap_or(0);
    let step = (most / 12).max(1);
    for ago in (0..most).step_by(step) {
        add(&mut html, format_args!("<tr><td>{}</td>", time(ago as f64 * plot.every)));
        for series in &plot.series {
            let value = series.points.len().checked_sub(ago + 1).map_or(f32::NAN, |at| series.points[at]);
            let text = if value.is_finite() { (plot.unit)(f64::from(value)) } else { "–".to_owned() };
            add(&mut html, format_args!("<td class='right'>{}</td>", escaped(&text)));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div></details>");
    Markup(html)
}

/// Draws a small line without axes. The page shows the current number beside it.
pub(crate) fn spark(points: &[f32], width: u32, height: u32, label: &str) -> Markup {
    let (across, tall) = (f64::from(width), f64::from(height));
    let most = points.iter().copied().filter(|value| value.is_finite()).fold(0.0_f32, f32::max);
    let top = f64::from(most).max(1e-9) * 1.15;
    let mut svg = format!(
        "<svg class='spark' width='{width}' height='{height}' viewBox='0 0 {width} {height}' preserveAspectRatio='none' \
         role='img' aria-label='{}'>",
        escaped(label)
    );
    let last = (points.len().max(2) - 1) as f64;
    for (first, run) in runs(points) {
        let spot = |at: usize, value: f32| {
            let x = across * (first + at) as f64 / last;
            (x, (tall - 1.0) - (tall - 3.0) * f64::from(value) / top)
        };
        let line = path(run.iter().enumerate().map(|(at, value)| spot(at, *value)));
        let (from, to) = (spot(0, 0.0).0, spot(run.len() - 1, 0.0).0);
        add(&mut svg, format_args!("<path class='f' d='{line}L{to:.1} {tall}L{from:.1} {tall}Z'/><path d='{line}'/>"));
    }
    svg.push_str("</svg>");
    Markup(svg)
}

fn add(to: &mut String, piece: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    to.write_fmt(piece).unwrap_or_default();
}

fn path(spots: impl Iterator<Item = (f64, f64)>) -> String {
    let mut line = String::new();
    for (at, (x, y)) in spots.enumerate() {
        add(&mut line, format_args!("{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' }));
    }
    line
}

/// Returns the stretches of known points, each with the index of its first point.
fn runs(points: &[f32]) -> Vec<(usize, &[f32])> {
    let mut runs = Vec::new();
    let mut from = None;
    for (at, value) in points.iter().enumerate() {
        match (value.is_finite(), from) {
            (true, None) => from = Some(at),
            (false, Some(first)) => {
                runs.push((first, &points[first..at]));
                from = None;
            }
            _ => {}
        }
    }
    if let Some(first) = from {
        runs.push((first, &points[first..]));
    }
    runs
}

/// Returns the next larger number that is 1, 2, 3, 5 or 8 times a power of ten. An axis ends there.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 3.0, 5.0, 8.0, 10.0];
    steps.iter().map(|step| step * power).find(|step| *step >= value * 0.999_999).unwrap_or(power * 10.0)
}

/// Moves the names at the ends of lines apart, so that none covers another.
fn apart(mut ends: Vec<(f64, usize, &str)>, bottom: f64) -> Vec<(f64, usize, &str)> {
    const LINE: f64 = 13.0;
    ends.sort_by(|one, other| one.0.total_cmp(&other.0));
    for at in 1..ends.len() {
        ends[at].0 = ends[at].0.max(ends[at - 1].0 + LINE);
    }
    let over = ends.last().map_or(0.0, |last| (last.0 - bottom).max(0.0));
    ends.iter_mut().for_each(|end| end.0 -= over);
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::words;

    fn sample<'a>(series: Vec<Series<'a>>, bound: Option<(f64, &'a str)>) -> Plot<'a> {
        let ticks = &["−15 min", "now"];
        Plot {
            label: "Rows",
            width: 500,
            height: 150,
            ticks,
            across: 4,
            every: 5.0,
            series,
            bound,
            unit: words::measured,
            binary: false,
        }
    }

    #[test]
    fn a_line_is_broken_where_nothing_is_known() {
        let points = vec![1.0, 2.0, f32::NAN, 3.0];
        assert_eq!(runs(&points), [(0, &[1.0, 2.0][..]), (3, &[3.0][..])]);
        let svg = plot(&sample(vec![Series { name: "a", points }], None)).0;
        assert_eq!(svg.matches("class='l l1'").count(), 2);
        assert!(!svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn nothing_at_all_is_drawn_without_a_line() {
        let svg = plot(&sample(vec![Series { name: "a", points: Vec::new() }], None)).0;
        assert!(!svg.contains("class='l") && !svg.contains("NaN") && svg.ends_with("</svg>"));
        assert!(!spark(&[], 10, 10, "x").0.contains("<path"));
        assert!(spark(&[f32::NAN, 0.0], 10, 10, "x").0.contains("<path"));
    }

    #[test]
    fn names_do_not_cover_each_other_and_stay_inside() {
        let placed = apart(vec![(100.0, 1, "a"), (101.0, 2, "b"), (102.0, 3, "c")], 128.0);
        assert!(placed.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 12.9));
        assert!(apart(vec![(127.0, 1, "a"), (127.0, 2, "b")], 128.0).iter().all(|end| end.0 <= 128.0));
    }

    #[test]
    fn case_280_a_long_name_is_shortened_beside_a_plot() {
        let long = "support_ticket_answers";
        let shown = sample(vec![Series { name: long, points: vec![1.0; 13] }], None);
        let svg = plot(&shown).0;
        assert!(svg.contains(">support_tic…<") && !svg.contains(long), "{svg}");
        let table = table(&shown).0;
        assert!(table.contains(long) && table.contains("<td>60 s</td>"), "{table}");
        assert_eq!((shortened("seats"), shortened("twelve_chars")), ("seats".to_owned(), "twelve_chars".to_owned()));
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (value, end) in [(0.0, 1.0), (2.4, 3.0), (2400.0, 3000.0), (8.0, 8.0), (81.0, 100.0), (0.004, 0.005)] {
            assert!((round_up(value) - end).abs() < 1e-9, "{value} {}", round_up(value));
        }
    }

    #[test]
    fn a_bound_is_inside_and_hostile_names_stay_text() {
        let series = vec![Series { name: "<b>'", points: vec![1.0; 4] }];
        let shown = sample(series, Some((50.0, "slot is lost")));
        let svg = plot(&shown).0 + &table(&shown).0;
        assert!(svg.contains("class='bound'") && !svg.contains("<b>"), "{svg}");
    }
}
