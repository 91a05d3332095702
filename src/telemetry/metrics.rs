//! Every metric of the process, declared once.
//!
//! * In: observations of the event loop; the status document at each scrape, so that metrics and status never disagree.
//! * Out: the text that Prometheus reads.
//! * Never: a label that data can choose (names of sections and fixed words only); an unknown number shown as 0 (it is
//!   NaN, for which no comparison holds and so no alert fires).
//!
//! The row accounting: `rows_read_total = rows_delivered_total + rows_quarantined_total + rows_filtered_total +
//! rows_unsettled`, for each section, at any scrape: all five are taken from one count of rows.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use prometheus::{
    Gauge, GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use crate::model::{Fault, FilterRule, Phase, RowCounts};
use crate::telemetry::age::Age;
use crate::telemetry::declare::{Declared, PREFIX, declare_metrics, register};
use crate::telemetry::log_writer;
use crate::telemetry::process::Process;
use crate::telemetry::status_document::{InstanceState, SectionState, Status};

// A section at rest has at most 60 series, so that a scrape of hundreds of sections stays small: each bucket here is one.

/// Rows of a batch: up to the most that Planhat takes.
const ROWS: &[f64] = &[100.0, 1e3, 1e4];
/// Bytes of a body: up to the most that Planhat takes; 8 MiB is the default limit.
const BYTES: &[f64] = &[1e5, 1e6, 8_388_608.0];
/// Seconds of a request.
const REQUEST: &[f64] = &[0.1, 1.0, 10.0];
/// Seconds from commit to delivery: half a second to an hour, close together around the default flush of 5 s.
const LATE: &[f64] = &[0.5, 5.0, 10.0, 60.0, 300.0, 3600.0];

/// Messages that carry nothing for a section: each has its series from the start.
const IGNORED: &[&str] =
    &["update", "delete", "truncate", "origin", "type", "message", "unknown", "attached_partition"];

/// The words that quarantine reasons begin with; whatever else there may be is counted as the last.
const QUARANTINES: [&str; 5] = ["refused", "mapping", "too_large", "in_doubt", OTHER];
const OTHER: &str = "other";

/// The phases whose series are there from the start; the others begin with their first row. What alerts are written on is always
/// there: a rate over a series that begins with an event misses that event.
const ALWAYS: [Phase; 2] = [Phase::Backfill, Phase::Stream];

declare_metrics! {
    /// All metrics of one process, in a registry of their own.
    pub struct Metrics with Core {
        /// Rows that came in, by the way they came (backfill, stream, resync, retry).
        rows_read_total: IntCounterVec [section, phase],
        /// Rows that Planhat received.
        rows_delivered_total: IntCounterVec [section, phase],
        /// Rows put into quarantine, by reason.
        rows_quarantined_total: IntCounterVec [section, reason],
        /// Rows left out by a rule, by the way they came and the rule.
        rows_filtered_total: IntCounterVec [section, phase, reason],
        /// Rows read and not settled yet: waiting in a batch, or under way.
        rows_unsettled: IntGaugeVec [section],
        /// Rows of batches whose request was sent and never answered.
        rows_in_doubt_total: IntCounterVec [section],
        /// Rows sent again after such doubt; Planhat may count them twice.
        rows_resent_total: IntCounterVec [section],
        /// Batches ended, by outcome.
        batches_total: IntCounterVec [section, outcome],
        /// Rows of a batch.
        batch_rows: HistogramVec [section] in ROWS,
        /// Bytes of a batch's body.
        batch_bytes: HistogramVec [section] in BYTES,
        /// Time of one request, by what its answer meant.
        request_duration_seconds: HistogramVec [section, outcome] in REQUEST,
        /// Requests to be made again, by reason.
        retries_total: IntCounterVec [section, reason],
        /// How late data is: time from a streamed row's commit to its delivery.
        commit_to_delivered_seconds: HistogramVec [section] in LATE,
        /// Age of the oldest row that is read and not settled; 0 where all are.
        oldest_unsettled_seconds: GaugeVec [section],
        /// How long rows wait by the section's `flush` at most: what is that old is not late yet.
        flush_seconds: GaugeVec [section],
        /// Since when the section is late by the judgement of `status`, in Unix time: its oldest row waits a minute longer than its
        /// `flush` says, or its comparison has not ended; 0 where it is not late, NaN where nobody knows.
        late_since_timestamp_seconds: GaugeVec [section],
        /// Rows in quarantine now.
        quarantine_rows: IntGaugeVec [section],
        /// Rows ever put into quarantine, as the state has it: it goes on where the last process ended; NaN before the state was read.
        rows_quarantined_ever: GaugeVec [section],
        /// Rows ever in doubt, as the state has it: it goes on where the last process ended; NaN before the state was read.
        rows_in_doubt_ever: GaugeVec [section],
        /// Rows that the last audit found to be missing; NaN before the first.
        audit_missing_rows: GaugeVec [section],
        /// When the last audit ended, in Unix time; NaN before the first.
        audit_timestamp_seconds: GaugeVec [section],
        /// 1 for the state that the section is in, 0 for the others.
        section_state: IntGaugeVec [section, state],
        /// Rows settled by the section's backfill or re-sync.
        backfill_rows: GaugeVec [section],
        /// Rows in the range of the backfill or re-sync, estimated when it began.
        backfill_rows_estimated: GaugeVec [section],
        /// Time to the end of the backfill or re-sync at the present rate; 0 when done, NaN while not known.
        backfill_eta_seconds: GaugeVec [section],
        /// WAL between the slot's confirmed position and the server's end.
        confirmed_lag_bytes: Gauge [],
        /// WAL that the slot keeps on the server's disk.
        slot_retained_bytes: Gauge [],
        /// WAL that may still be written before the slot is lost; NaN where nothing bounds it.
        slot_safe_wal_bytes: Gauge [],
        /// Time until the slot is lost at the present rate of WAL; NaN where nothing bounds it.
        slot_seconds_until_lost: Gauge [],
        /// WAL that the server writes, as the watch sees it.
        wal_bytes_per_second: Gauge [],
        /// Time since the server's last message on the replication connection; NaN before the first.
        last_wire_message_seconds: Gauge [],
        /// Replication connections made again after a loss.
        reconnects_total: IntCounter [],
        /// Messages of the stream that carry nothing for a section, by kind.
        stream_messages_ignored_total: IntCounterVec [kind],
        /// Bytes of everything buffered; bounded by `memory`.
        buffered_bytes: IntGauge [],
        /// Log lines that nobody got: stderr was full, or closed.
        log_lines_lost_total: IntCounter [],
        /// 1 where this process holds the slot.
        leader: IntGauge [],
        /// 1 where this process waits for another one to let the slot go.
        standby: IntGauge [],
        /// 1 where /readyz says yes.
        ready: IntGauge [],
        /// 1 for the state that the instance is in, 0 for the others.
        instance_state: IntGaugeVec [state],
        /// 0 where the file was refused when it was last read again (SIGHUP): the next start ends with it, or changes what counts.
        config_last_reload_successful: IntGauge [],
        /// Always 1; the version is the label.
        build_info: IntGaugeVec [version],
    }
}

/// What [`Metrics`] holds beside the metrics.
struct Core {
    registry: Registry,
    /// Gauges that grow by themselves: set again at each scrape, so that a frozen event loop cannot freeze them.
    ages: Mutex<Vec<Age>>,
    /// Held through a scrape: what it shows is of one status.
    scraping: Mutex<()>,
}

impl Metrics {
    /// Declares and registers everything.
    pub fn new() -> Result<Metrics, Fault> {
        let core = Core { registry: Registry::new(), ages: Mutex::default(), scraping: Mutex::default() };
        let bug = |error| Fault::bug(format!("a metric could not be declared: {error}"));
        let metrics = Metrics::declare(core).map_err(bug)?;
        metrics.core.registry.register(Box::new(Process::new())).map_err(bug)?;
        metrics.config_last_reload_successful.set(1);
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for state in InstanceState::ALL {
            metrics.instance_state.with_label_values(&[state.as_str()]).set(0);
        }
        for kind in IGNORED {
            metrics.stream_messages_ignored_total.with_label_values(&[kind]).reset();
        }
        Ok(metrics)
    }

    /// The time since the server's last message, to be touched at each.
    pub fn last_wire_message(&self) -> Age {
        self.age(self.last_wire_message_seconds.clone(), f64::NAN)
    }

    pub(crate) fn age(&self, gauge: Gauge, nothing: f64) -> Age {
        let age = Age::new(gauge, nothing);
        self.core.ages.lock().unwrap_or_else(PoisonError::into_inner).push(age.clone());
        age
    }

    /// The text for a scrape, of this status.
    pub fn scrape(&self, status: &Status) -> String {
        let _scraping = self.core.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        self.reflect(status);
        self.render()
    }

    /// Counts a message of the stream that carries nothing for a section. `kind` is a word of the code, never of the data.
    pub fn ignored(&self, kind: &'static str) {
        self.stream_messages_ignored_total.with_label_values(&[kind]).inc();
    }

    /// Takes over what the status document says, and the counts of rows that stand behind it. What stands in both is set nowhere else.
    pub fn reflect(&self, status: &Status) {
        let known = |value: Option<u64>| value.map_or(f64::NAN, |value| value as f64);
        self.ready.set(status.ready.into());
        self.leader.set(status.instance.leader.into());
        self.standby.set((status.state == InstanceState::Standby).into());
        for state in InstanceState::ALL {
            let is = *state == status.state;
            self.instance_state.with_label_values(&[state.as_str()]).set(is.into());
        }
        self.confirmed_lag_bytes.set(known(status.slot.confirmed_lag_bytes));
        self.slot_retained_bytes.set(known(status.slot.retained_bytes));
        self.slot_safe_wal_bytes.set(status.slot.safe_wal_bytes.map_or(f64::NAN, |bytes| bytes as f64));
        self.slot_seconds_until_lost.set(status.slot.seconds_until_lost.unwrap_or(f64::NAN));
        for section in &status.sections {
            let name = section.name.as_str();
            self.reflect_counts(name, &section.counts);
            for state in SectionState::ALL {
                let is = *state == section.state;
                self.section_state.with_label_values(&[name, state.as_str()]).set(is.into());
            }
            // Another one leads: what this one knew is no longer so.
            let late_since = section.late_since.filter(|_| status.state != InstanceState::Standby);
            self.late_since_timestamp_seconds.with_label_values(&[name]).set(late_since.unwrap_or(f64::NAN));
            let ever = |rows: u64| known(section.totals_known.then_some(rows));
            self.rows_quarantined_ever.with_label_values(&[name]).set(ever(section.rows_quarantined));
            self.rows_in_doubt_ever.with_label_values(&[name]).set(ever(section.rows_in_doubt));
            let backfill = section.backfill.as_ref();
            let rows = backfill.map_or(0.0, |backfill| backfill.rows as f64);
            self.backfill_rows.with_label_values(&[name]).set(rows);
            let estimated = backfill.map_or(Some(0), |backfill| backfill.estimated);
            self.backfill_rows_estimated.with_label_values(&[name]).set(known(estimated));
            let eta = backfill.map_or(Some(0.0), |backfill| backfill.eta_seconds);
            self.backfill_eta_seconds.with_label_values(&[name]).set(eta.unwrap_or(f64::NAN));
        }
    }

    /// Shows the count of a section's rows. Where the count is behind what is shown, the counter stays.
    pub(crate) fn reflect_counts(&self, name: &str, counts: &RowCounts) {
        let raise = |counter: IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        for phase in Phase::ALL {
            let (labels, of) = ([name, phase.as_str()], counts.of(phase));
            if of.read > 0 || ALWAYS.contains(&phase) {
                raise(self.rows_read_total.with_label_values(&labels), of.read);
                raise(self.rows_delivered_total.with_label_values(&labels), of.delivered);
            }
        }
        for (phase, rule) in Phase::ALL.into_iter().flat_map(|phase| FilterRule::ALL.map(|rule| (phase, rule))) {
            let rows = counts.of(phase).filtered.of(rule);
            if rows > 0 || (phase, rule) == (Phase::Backfill, FilterRule::Streamed) {
                raise(self.rows_filtered_total.with_label_values(&[name, phase.as_str(), rule.as_str()]), rows);
            }
        }
        let is_known = |word: &str| QUARANTINES[..QUARANTINES.len() - 1].contains(&word);
        for shown in QUARANTINES {
            let is = |word: &str| word == shown || (shown == OTHER && !is_known(word));
            let rows = counts.quarantined_by_word().iter().filter(|(word, _)| is(word)).map(|(_, rows)| rows).sum();
            raise(self.rows_quarantined_total.with_label_values(&[name, shown]), rows);
        }
        let unsettled = i64::try_from(counts.unsettled()).unwrap_or(i64::MAX);
        self.rows_unsettled.with_label_values(&[name]).set(unsettled);
        raise(self.rows_in_doubt_total.with_label_values(&[name]), counts.in_doubt);
        raise(self.rows_resent_total.with_label_values(&[name]), counts.resent);
    }

    /// The text for a scrape.
    pub fn render(&self) -> String {
        let now = Instant::now();
        for age in self.core.ages.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            age.show(now);
        }
        self.log_lines_lost_total.inc_by(log_writer::lost().saturating_sub(self.log_lines_lost_total.get()));
        let families = self.core.registry.gather();
        // An empty scrape would look like health: say that it failed.
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| format!("# not encoded: {error}\n"))
    }

    /// The full names of all metrics, as Prometheus knows them.
    pub fn names() -> impl Iterator<Item = String> {
        Metrics::DECLARED.iter().map(|declared| format!("{PREFIX}{}", declared.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LeftOut;
    use crate::planhat::Verdict;
    use crate::state::Outcome;
    use crate::telemetry::status_document::{Backfill, SectionStatus};
    use std::sync::Arc;
    use std::time::Duration;

    /// The names that dashboards and alerts are written against, less the process metrics.
    const PROMISED: &str = "rows_read_total{section,phase} rows_delivered_total{section,phase} \
        rows_quarantined_total{section,reason} rows_in_doubt_total{section} rows_resent_total{section} \
        batches_total{section,outcome} batch_rows{section} batch_bytes{section} \
        request_duration_seconds{section,outcome} retries_total{section,reason} commit_to_delivered_seconds{section} \
        oldest_unsettled_seconds{section} flush_seconds{section} late_since_timestamp_seconds{section} quarantine_rows{section} \
        rows_quarantined_ever{section} rows_in_doubt_ever{section} audit_missing_rows{section} \
        audit_timestamp_seconds{section} section_state{section,state} backfill_rows{section} \
        backfill_rows_estimated{section} backfill_eta_seconds{section} confirmed_lag_bytes slot_retained_bytes \
        slot_safe_wal_bytes slot_seconds_until_lost last_wire_message_seconds buffered_bytes leader config_last_reload_successful \
        build_info{version}";

    fn value(text: &str, series: &str) -> f64 {
        let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn sum(text: &str, prefix: &str) -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    fn section_status(state: SectionState) -> SectionStatus {
        let backfill = Some(Backfill { rows: 3, estimated: Some(9), eta_seconds: None });
        let section = SectionStatus::new("logins", "user_activity", "public.app_event", state);
        SectionStatus { backfill, flows: true, ..section }
    }

    #[test]
    fn every_promised_metric_is_declared_with_its_labels() {
        let declared: Vec<String> = Metrics::DECLARED
            .iter()
            .map(|d| if d.labels.is_empty() { d.name.into() } else { format!("{}{{{}}}", d.name, d.labels.join(",")) })
            .collect();
        for promised in PROMISED.split_whitespace() {
            assert!(declared.iter().any(|name| name == promised), "{promised} is not declared");
        }
    }

    #[test]
    fn every_metric_is_shown_with_prefix_help_and_type_once_a_section_is_there() {
        let metrics = Metrics::new().unwrap();
        let _section = metrics.section("logins");
        let mut status = Status::starting("s", "p");
        status.sections.push(section_status(SectionState::Streaming));
        metrics.reflect(&status);
        let text = metrics.render();
        for (name, declared) in Metrics::names().zip(Metrics::DECLARED) {
            assert!(name.starts_with("pg2planhat_"));
            assert!(declared.help.trim().ends_with('.'), "{name} has no help: {:?}", declared.help);
            assert!(text.contains(&format!("# HELP {name} {}\n", declared.help.trim())), "no help of {name}");
            assert!(text.contains(&format!("# TYPE {name} ")), "no type of {name}");
        }
        for process in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
            assert!(text.contains(process), "{process}");
        }
    }

    fn left_out(rule: FilterRule) -> LeftOut {
        let mut left_out = LeftOut::default();
        left_out.add(rule);
        left_out
    }

    #[test]
    fn rows_are_accounted_for_at_every_scrape_while_another_thread_counts() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut status = Status::starting("s", "p");
        status.sections.push(section_status(SectionState::Streaming));
        let (sender, receiver) = tokio::sync::watch::channel(status);
        let counter = std::thread::spawn(move || {
            for round in 0..20_000 {
                sender.send_modify(|status| {
                    let counts = &mut status.sections[0].counts;
                    (0..7).for_each(|_| counts.read(Phase::Stream));
                    counts.read(Phase::Backfill);
                    counts.settled(Phase::Backfill, 0, &[], &left_out(FilterRule::Streamed));
                });
                sender.send_modify(|status| {
                    let word = if round % 2 == 0 { "refused" } else { "neither known" };
                    status.sections[0].counts.settled(
                        Phase::Stream,
                        2,
                        &[(word.to_owned(), 2)],
                        &left_out(FilterRule::Where),
                    );
                });
            }
        });
        // A second scraper beside the first, as Prometheus has them.
        let (beside, other) = (receiver.clone(), Arc::clone(&metrics));
        let second = std::thread::spawn(move || {
            while beside.has_changed().is_ok() {
                other.scrape(&beside.borrow().clone());
            }
        });
        let mut scrapes = 0;
        while receiver.has_changed().is_ok() || scrapes == 0 {
            let text = metrics.scrape(&receiver.borrow().clone());
            let total = |name: &str| sum(&text, &format!("pg2planhat_{name}{{"));
            let settled =
                total("rows_delivered_total") + total("rows_quarantined_total") + total("rows_filtered_total");
            assert_eq!(total("rows_read_total"), settled + total("rows_unsettled"));
            scrapes += 1;
        }
        counter.join().unwrap();
        second.join().unwrap();
        let text = metrics.scrape(&receiver.borrow().clone());
        assert_eq!(value(&text, "pg2planhat_rows_quarantined_total{reason=\"other\",section=\"logins\"}"), 20_000.0);
    }

    #[test]
    fn a_section_at_rest_has_at_most_sixty_series() {
        let metrics = Metrics::new().unwrap();
        let _section = metrics.section("logins");
        let mut status = Status::starting("s", "p");
        status.sections.push(section_status(SectionState::Streaming));
        let text = metrics.scrape(&status);
        let series: Vec<&str> = text.lines().filter(|line| line.contains("section=\"logins\"")).collect();
        assert!((40..=60).contains(&series.len()), "{} series:\n{}", series.len(), series.join("\n"));
    }

    #[test]
    fn an_age_grows_by_itself_and_can_be_nothing() {
        let metrics = Metrics::new().unwrap();
        let section = metrics.section("logins");
        let wire = metrics.last_wire_message();
        let text = metrics.render();
        assert!(value(&text, "pg2planhat_last_wire_message_seconds").is_nan());
        assert_eq!(value(&text, "pg2planhat_oldest_unsettled_seconds{section=\"logins\"}"), 0.0);

        wire.touch();
        section.oldest_unsettled(Some(Duration::from_secs(3600)));
        let first = value(&metrics.render(), "pg2planhat_last_wire_message_seconds");
        let text = metrics.render();
        assert!(value(&text, "pg2planhat_last_wire_message_seconds") > first);
        assert!(value(&text, "pg2planhat_oldest_unsettled_seconds{section=\"logins\"}") >= 3600.0);

        section.oldest_unsettled(None);
        assert_eq!(value(&metrics.render(), "pg2planhat_oldest_unsettled_seconds{section=\"logins\"}"), 0.0);
    }

    #[test]
    fn states_are_reflected_one_at_a_time_and_unknown_numbers_are_nan() {
        let metrics = Metrics::new().unwrap();
        let mut status = Status::starting("s", "p");
        status.sections.push(section_status(SectionState::Backfilling));
        metrics.reflect(&status);
        status.state = InstanceState::Running;
        status.ready = true;
        status.instance.leader = true;
        status.sections[0].state = SectionState::Halted;
        metrics.reflect(&status);
        let text = metrics.render();
        assert_eq!(value(&text, "pg2planhat_instance_state{state=\"running\"}"), 1.0);
        assert_eq!(sum(&text, "pg2planhat_instance_state{"), 1.0);
        assert_eq!(value(&text, "pg2planhat_section_state{section=\"logins\",state=\"halted\"}"), 1.0);
        assert_eq!(sum(&text, "pg2planhat_section_state{"), 1.0);
        assert_eq!(value(&text, "pg2planhat_leader"), 1.0);
        assert_eq!(value(&text, "pg2planhat_backfill_rows{section=\"logins\"}"), 3.0);
        assert!(value(&text, "pg2planhat_backfill_eta_seconds{section=\"logins\"}").is_nan());
        assert!(value(&text, "pg2planhat_slot_retained_bytes").is_nan());
    }

    #[test]
    fn case_245_totals_go_on_from_the_state_and_lateness_is_the_leaders() {
        let metrics = Metrics::new().unwrap();
        let mut status = Status::starting("s", "p");
        let section = SectionStatus { rows_quarantined: 7, rows_in_doubt: 9, ..section_status(SectionState::Waiting) };
        status.sections.push(section);
        let ever = ["rows_quarantined_ever", "rows_in_doubt_ever", "late_since_timestamp_seconds"];
        let shown = |status: &Status| {
            let text = metrics.scrape(status);
            ever.map(|name| value(&text, &format!("pg2planhat_{name}{{section=\"logins\"}}")))
        };
        assert!(shown(&status).iter().all(|value| value.is_nan()), "the state was not read yet");
        (status.sections[0].totals_known, status.sections[0].late_since) = (true, Some(1_700_000_000.5));
        assert_eq!(shown(&status), [7.0, 9.0, 1_700_000_000.5]);
        status.state = InstanceState::Standby;
        assert!(shown(&status)[2].is_nan(), "another process leads");
        status.state = InstanceState::Stalled;
        status.forget_source();
        assert_eq!(shown(&status)[2], 1_700_000_000.5, "it does not get on time by a server that is away");
        status.sections[0].late_since = Some(0.0);
        status.forget_source();
        assert!(shown(&status)[2].is_nan(), "nobody knows what waits there");
    }

    #[test]
    fn a_section_counts_batches_requests_and_retries_under_its_words() {
        let metrics = Metrics::new().unwrap();
        let section = metrics.section("seats");
        section.batch(Outcome::Sending, 1, 1);
        section.batch(Outcome::InDoubt, 10, 100);
        section.request(&Verdict::Later { retry_after: None }, Duration::from_millis(20));
        section.retry(&Verdict::NotSent);
        section.commit_to_delivered(Duration::from_secs(2));
        let text = metrics.render();
        assert_eq!(value(&text, "pg2planhat_batches_total{outcome=\"in_doubt\",section=\"seats\"}"), 1.0);
        assert_eq!(value(&text, "pg2planhat_batch_rows_count{section=\"seats\"}"), 1.0);
        assert_eq!(value(&text, "pg2planhat_request_duration_seconds_count{outcome=\"later\",section=\"seats\"}"), 1.0);
        assert_eq!(value(&text, "pg2planhat_retries_total{reason=\"not_sent\",section=\"seats\"}"), 1.0);
        assert_eq!(value(&text, "pg2planhat_commit_to_delivered_seconds_bucket{section=\"seats\",le=\"5\"}"), 1.0);
        assert_eq!(value(&text, "pg2planhat_commit_to_delivered_seconds_bucket{section=\"seats\",le=\"0.5\"}"), 0.0);
    }
}
