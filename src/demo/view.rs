//! The live view.
//!
//! * In: figures, a few times a second.
//! * Out: on a terminal a panel that is redrawn; elsewhere a line every two seconds.
//! * Never: a figure that was not measured: what is unknown is a dash.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::demo::progress::ProgressPrinter;
use crate::demo::reconcile::Lateness;
use crate::terminal::{bytes, count};

const LINE_EVERY: Duration = Duration::from_secs(2);
const BAR: &str = "  backfill   {bar:30} {msg}";

/// What is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Time since the writers began.
    pub elapsed: Duration,
    /// What the streamer says that it is doing.
    pub state: String,
    /// Old rows, and those of them that have arrived.
    pub old: u64,
    /// See `old`.
    pub backfilled: u64,
    /// Rows committed by the writers.
    pub written: u64,
    /// Items that have arrived.
    pub delivered: u64,
    /// Items a second, lately.
    pub rate: f64,
    /// Old rows a second, lately.
    pub backfill_rate: f64,
    /// How late the rows of the last seconds were.
    pub late: Lateness,
    /// WAL that is not confirmed.
    pub lag_bytes: Option<u64>,
    /// Requests that the stand-in accepted.
    pub batches: u64,
    /// Rows in quarantine.
    pub quarantined: Option<u64>,
}

impl Figures {
    /// The whole percents of the backfill that are done.
    fn percent(&self) -> u64 {
        (self.backfilled * 100).checked_div(self.old).unwrap_or(100)
    }

    /// When the backfill will be done.
    fn eta(&self) -> String {
        let left = self.old.saturating_sub(self.backfilled);
        match left {
            0 => "done".to_owned(),
            _ if self.backfill_rate < 1.0 => "ETA —".to_owned(),
            _ => format!("ETA {} s", (left as f64 / self.backfill_rate).ceil()),
        }
    }

    fn percentiles(&self) -> String {
        format!("p50 {} · p99 {}", seconds(self.late.p50), seconds(self.late.p99))
    }

    fn lag(&self) -> String {
        self.lag_bytes.map_or_else(|| "—".to_owned(), bytes)
    }

    fn quarantine(&self) -> String {
        self.quarantined.map_or_else(|| "—".to_owned(), count)
    }

    fn bar(&self) -> String {
        format!("{} / {} · {}", count(self.backfilled), count(self.old), self.eta())
    }

    fn panel(&self) -> [String; 5] {
        [
            format!("  streamer   {} · {} s", self.state, self.elapsed.as_secs()),
            format!("  written    {} rows, by {} connections", count(self.written), crate::demo::writer::WRITERS),
            format!(
                "  delivered  {} rows · {} rows/s · {} batches · quarantine {}",
                count(self.delivered),
                rounded(self.rate),
                count(self.batches),
                self.quarantine()
            ),
            format!("  late       {} (commit to delivered, last 5 s)", self.percentiles()),
            format!("  slot       {} not confirmed", self.lag()),
        ]
    }

    fn line(&self) -> String {
        format!(
            "{:>4} s  {} · backfill {} % ({}) · written {} · delivered {}, {} rows/s · {} · lag {} · {} batches · quarantine {}",
            self.elapsed.as_secs(),
            self.state,
            self.percent(),
            self.eta(),
            count(self.written),
            count(self.delivered),
            rounded(self.rate),
            self.percentiles(),
            self.lag(),
            count(self.batches),
            self.quarantine()
        )
    }
}

/// `0.31 s`; a dash where it is not known.
pub(crate) fn seconds(value: Option<f64>) -> String {
    value.map_or_else(|| "—".to_owned(), |value| format!("{value:.2} s"))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is far from the ends of u64")]
fn rounded(rate: f64) -> String {
    count(rate.max(0.0).round() as u64)
}

#[derive(Debug)]
pub(crate) struct View {
    voice: ProgressPrinter,
    panel: Option<Panel>,
    last_line: Option<Instant>,
}

#[derive(Debug)]
struct Panel {
    all: MultiProgress,
    bar: ProgressBar,
    lines: Vec<ProgressBar>,
}

impl View {
    pub(crate) fn new(voice: ProgressPrinter) -> View {
        View { voice, panel: voice.is_terminal().then(|| Panel::new(voice)), last_line: None }
    }

    /// Shows the figures, if it is time.
    pub(crate) fn show(&mut self, figures: &Figures, now: Instant) {
        if let Some(panel) = &self.panel {
            panel.show(figures);
        } else if self.last_line.is_none_or(|last| now.duration_since(last) >= LINE_EVERY) {
            self.last_line = Some(now);
            self.voice.say(&figures.line());
        }
    }

    /// Says a line above what is redrawn.
    pub(crate) fn say(&self, line: &str) {
        match &self.panel {
            Some(panel) => panel.all.suspend(|| self.voice.say(line)),
            None => self.voice.say(line),
        }
    }

    /// Leaves the last figures standing.
    pub(crate) fn end(&self) {
        if let Some(panel) = &self.panel {
            panel.bar.abandon();
            panel.lines.iter().for_each(ProgressBar::abandon);
        }
    }
}

impl Panel {
    fn new(voice: ProgressPrinter) -> Panel {
        let target = if voice.json { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::stdout() };
        let all = MultiProgress::with_draw_target(target);
        let styled =
            |template: &str| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = all.add(ProgressBar::new(0).with_style(styled(BAR)));
        let line = || all.add(ProgressBar::new_spinner().with_style(styled("{msg}")));
        let lines = std::iter::repeat_with(line).take(Figures::default().panel().len()).collect();
        Panel { all, bar, lines }
    }

    fn show(&self, figures: &Figures) {
        self.bar.set_length(figures.old.max(1));
        self.bar.set_position(if figures.old == 0 { 1 } else { figures.backfilled });
        self.bar.set_message(figures.bar());
        for (line, text) in self.lines.iter().zip(figures.panel()) {
            line.set_message(text);
            line.tick();
        }
    }
}

/// How fast a counter grows, over the last few seconds.
#[derive(Debug, Default)]
pub(crate) struct RowRate(std::collections::VecDeque<(Instant, u64)>);

impl RowRate {
    const WINDOW: Duration = Duration::from_secs(3);

    /// Takes a reading; what it grew by a second.
    pub(crate) fn read(&mut self, now: Instant, counter: u64) -> f64 {
        self.0.push_back((now, counter));
        while self.0.len() > 2 && now.duration_since(self.0[0].0) > RowRate::WINDOW {
            self.0.pop_front();
        }
        let (since, first) = self.0[0];
        let seconds = now.duration_since(since).as_secs_f64();
        if seconds > 0.0 { counter.saturating_sub(first) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_forgets_what_is_long_ago() {
        let (begin, mut rate) = (Instant::now(), RowRate::default());
        let second = Duration::from_secs(1);
        assert_eq!(rate.read(begin, 0), 0.0);
        assert_eq!(rate.read(begin + second, 1000), 1000.0);
        assert_eq!(rate.read(begin + second * 10, 1000), 0.0);
        assert_eq!(rate.read(begin + second * 11, 1500), 500.0);
    }

    #[test]
    fn figures_say_what_is_known() {
        let mut figures = Figures { old: 200, backfilled: 50, backfill_rate: 60.0, ..Figures::default() };
        assert_eq!((figures.percent(), figures.eta()), (25, "ETA 3 s".to_owned()));
        assert!(figures.line().contains("p50 — · p99 — · lag —"), "{}", figures.line());
        figures.backfill_rate = 0.0;
        assert_eq!(figures.eta(), "ETA —");
        figures.backfilled = 200;
        assert_eq!(figures.bar(), "200 / 200 · done");
        figures.late.p50 = Some(0.314);
        assert!(figures.panel()[3].contains("p50 0.31 s"));
        assert_eq!(Figures::default().percent(), 100);
    }
}
