//! The log: lines on stderr, and the limit on repeated lines.
//!
//! * In: a level, a form, `RUST_LOG`.
//! * Out: one line an event: text for people, JSON for machines.
//! * Never: anything on stdout; colour into a file; the same line a thousand times a minute.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format;

use crate::model::{Fault, washed};
use crate::telemetry::log_ring::KeepLines;
use crate::telemetry::log_writer;

/// What the lines look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sets the process's log up, once. `level` is `error`, `warn`, `info`, `debug`, `trace` or a filter as `RUST_LOG` takes it;
/// without one `RUST_LOG` decides, and without that `info` does.
///
/// # Errors
/// Where the level or `RUST_LOG` cannot be read, or a log is set up already.
pub(crate) fn init(format: LogFormat, level: Option<&str>) -> Result<(), Fault> {
    let colour =
        colour(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()));
    let filter = filter(level, std::env::var("RUST_LOG").ok().as_deref())?;
    let subscriber = match log_writer::stderr() {
        Some(writer) => subscriber(format, filter, colour, KeepLines(writer.clone())),
        None => subscriber(format, filter, colour, KeepLines(std::io::stderr)),
    };
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Fault::bug("the log was set up twice"))
}

/// <https://no-color.org>: any value that is not empty says no.
fn colour(terminal: bool, no_color: bool) -> bool {
    terminal && !no_color
}

fn filter(level: Option<&str>, rust_log: Option<&str>) -> Result<EnvFilter, Fault> {
    let (origin, directives) = match (level, rust_log.filter(|value| !value.trim().is_empty())) {
        (Some(level), _) => ("the log level", level),
        (None, Some(rust_log)) => ("RUST_LOG", rust_log),
        (None, None) => ("the default log level", "info"),
    };
    EnvFilter::builder().with_default_directive(LevelFilter::ERROR.into()).parse(directives).map_err(|error| {
        Fault::usage(
            format!("{origin} {directives:?} cannot be read: {error}"),
            "give error, warn, info, debug or trace, or directives such as info,crate::postgres=debug",
        )
    })
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    colour: bool,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour);
    // A line that cannot be written is lost: an error about it would go to the same place.
    let lines = lines.log_internal_errors(false);
    match format {
        LogFormat::Text => {
            // Text of servers and rows comes as the message or a field: each is one line, and moves no cursor.
            let fields = format::debug_fn(|writer, field, value| match field.name() {
                "message" => write!(writer, "{}", washed(&format!("{value:?}"))),
                name => write!(writer, "{name}={}", washed(&format!("{value:?}"))),
            });
            Box::new(lines.with_target(false).fmt_fields(fields.delimited(" ")).finish())
        }
        LogFormat::Json => {
            Box::new(lines.json().flatten_event(true).with_current_span(false).with_span_list(false).finish())
        }
    }
}

/// Whether one of many equal events is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Log the event, with the count of equal events held back since the last logged one.
    Log {
        /// Events held back, to be mentioned where it is not 0.
        suppressed: u64,
    },
    /// Do not log the event.
    Suppress,
}

/// Lets the first few events of a kind pass in each window and counts the rest. Pure: `now` is passed.
#[derive(Debug)]
pub(crate) struct Throttle<K> {
    burst: u32,
    window: Duration,
    kinds: HashMap<K, Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    passed: u32,
    suppressed: u64,
}

impl<K: Hash + Eq> Throttle<K> {
    /// The most kinds that are remembered; past it, those whose window is over and who owe no count are forgotten, and a
    /// kind that finds no room passes. Kinds are to be few: a section and a word, never data.
    const KINDS: usize = 1024;

    /// `burst` events of a kind per `window`; at least 1.
    pub(crate) fn new(burst: u32, window: Duration) -> Throttle<K> {
        Throttle { burst: burst.max(1), window, kinds: HashMap::new() }
    }

    /// Whether an event of this kind is to be logged now.
    pub(crate) fn event(&mut self, kind: K, now: Instant) -> Passage {
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= Self::KINDS {
            let window = self.window;
            self.kinds.retain(|_, seen| seen.suppressed > 0 || now.saturating_duration_since(seen.began) < window);
            if self.kinds.len() >= Self::KINDS {
                return Passage::Log { suppressed: 0 };
            }
        }
        let seen = self.kinds.entry(kind).or_insert(Window { began: now, passed: 0, suppressed: 0 });
        if now.saturating_duration_since(seen.began) >= self.window {
            (seen.began, seen.passed) = (now, 0);
        }
        if seen.passed == self.burst {
            seen.suppressed += 1;
            return Passage::Suppress;
        }
        seen.passed += 1;
        Passage::Log { suppressed: std::mem::take(&mut seen.suppressed) }
    }

    /// The kinds whose window is over and that held events back: for one closing line each, "suppressed n". They are
    /// forgotten by this.
    pub(crate) fn owed(&mut self, now: Instant) -> Vec<(K, u64)> {
        let window = self.window;
        let over = self.kinds.extract_if(|_, seen| now.saturating_duration_since(seen.began) >= window);
        over.filter(|(_, seen)| seen.suppressed > 0).map(|(kind, seen)| (kind, seen.suppressed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn captured(format: LogFormat, level: &str, colour: bool) -> String {
        let target = Captured::default();
        let writer = target.clone();
        let subscriber = subscriber(format, filter(Some(level), None).unwrap(), colour, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(section = "logins", remedy = "wait", "the sink is away");
            tracing::debug!("detail");
        });
        let bytes = target.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_are_flat_and_text_lines_are_readable() {
        let json: serde_json::Value = serde_json::from_str(captured(LogFormat::Json, "info", false).trim()).unwrap();
        assert_eq!(json["message"], "the sink is away");
        assert_eq!(json["section"], "logins");
        assert_eq!(json["level"], "INFO");
        let text = captured(LogFormat::Text, "info", false);
        assert!(text.contains("INFO the sink is away section=\"logins\" remedy=\"wait\""), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn case_103_a_strangers_text_makes_no_line_of_its_own() {
        let target = Captured::default();
        let writer = target.clone();
        let subscriber = subscriber(LogFormat::Text, filter(None, None).unwrap(), true, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let text = "x\nerror: forged\x1b[2J\u{9b}2J\u{202e}";
            tracing::info!(error = %text, section = text, "{text}");
        });
        let bytes = target.0.lock().unwrap().clone();
        let line = String::from_utf8(bytes).unwrap();
        assert!(
            line.lines().count() == 1 && !line.contains(['\u{9b}', '\u{202e}']) && !line.contains("\x1b[2J"),
            "{line:?}"
        );
    }

    #[test]
    fn the_level_decides_and_colour_is_only_for_a_terminal() {
        assert_eq!(captured(LogFormat::Text, "warn", false), "");
        assert_eq!(captured(LogFormat::Text, "debug", false).lines().count(), 2);
        assert!(captured(LogFormat::Text, "info", true).contains("\u{1b}["));
        assert!(!captured(LogFormat::Text, "info", false).contains("\u{1b}["));
        assert!(colour(true, false) && !colour(true, true) && !colour(false, false));
    }

    #[test]
    fn a_given_level_goes_before_rust_log_and_nonsense_is_a_usage_fault() {
        assert_eq!(filter(Some("debug"), Some("error")).unwrap().to_string(), "debug");
        assert_eq!(filter(None, Some("warn,hyper=debug")).unwrap().max_level_hint(), Some(LevelFilter::DEBUG));
        assert_eq!(filter(None, Some("")).unwrap().to_string(), "info");
        assert_eq!(filter(Some("a=b=c"), None).unwrap_err().exit, crate::model::Exit::Usage);
    }

    #[test]
    fn a_storm_is_cut_to_its_burst_and_then_told() {
        let start = Instant::now();
        let mut throttle = Throttle::new(2, Duration::from_secs(60));
        let verdicts: Vec<Passage> = (0..5).map(|_| throttle.event("later", start)).collect();
        assert_eq!(verdicts[..2], [Passage::Log { suppressed: 0 }; 2]);
        assert_eq!(verdicts[2..], [Passage::Suppress; 3]);
        assert_eq!(throttle.event("another", start), Passage::Log { suppressed: 0 });
        let later = start + Duration::from_secs(60);
        assert_eq!(throttle.event("later", later), Passage::Log { suppressed: 3 });
        assert_eq!(throttle.owed(later + Duration::from_secs(60)), []);
    }

    #[test]
    fn what_was_held_back_is_owed_once_when_the_storm_is_over() {
        let start = Instant::now();
        let mut throttle = Throttle::new(1, Duration::from_secs(10));
        for _ in 0..4 {
            throttle.event("x", start);
        }
        assert_eq!(throttle.owed(start + Duration::from_secs(9)), []);
        assert_eq!(throttle.owed(start + Duration::from_secs(10)), [("x", 3)]);
        assert_eq!(throttle.owed(start + Duration::from_secs(11)), []);
    }

    proptest! {
        #[test]
        fn every_event_is_logged_or_told_and_never_more_than_the_burst_passes(
            steps in proptest::collection::vec((0u8..3, 0u64..20), 1..200), burst in 1u32..4,
        ) {
            let mut throttle = Throttle::new(burst, Duration::from_secs(10));
            let (mut now, mut accounted, mut in_window) = (Instant::now(), 0, HashMap::<u8, Vec<Instant>>::new());
            for (kind, wait) in &steps {
                now += Duration::from_secs(*wait);
                if let Passage::Log { suppressed } = throttle.event(*kind, now) {
                    accounted += 1 + suppressed;
                    in_window.entry(*kind).or_default().push(now);
                }
            }
            for (_, suppressed) in throttle.owed(now + Duration::from_secs(10)) {
                accounted += suppressed;
            }
            prop_assert_eq!(accounted, steps.len() as u64);
            for passed in in_window.values() {
                for run in passed.windows(2 * burst as usize + 1) {
                    prop_assert!(run[run.len() - 1] - run[0] >= Duration::from_secs(10));
                }
            }
        }

        #[test]
        fn memory_is_bounded_whatever_the_kinds(kinds in proptest::collection::vec(any::<u32>(), 1..3000)) {
            let mut throttle = Throttle::new(1, Duration::from_secs(10));
            let now = Instant::now();
            for kind in kinds {
                throttle.event(kind, now);
                prop_assert!(throttle.kinds.len() <= 1024);
            }
        }
    }
}
