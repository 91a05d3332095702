//! The process's counters, parsed from the text that Prometheus scrapes: only that form of them is promised.
//!
//! * In: the text of `/metrics`.
//! * Out: what the pages show of it, by section.
//! * Never: a metric that is not there shown as 0 where it means "unknown" (it is NaN).

use std::collections::BTreeMap;

/// The counters of one section that pages show.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SectionCounters {
    pub read: f64,
    pub delivered_stream: f64,
    /// Rows that a backfill, a re-sync or a retry delivered.
    pub delivered_otherwise: f64,
    pub quarantined: f64,
    pub filtered: f64,
    pub unsettled: f64,
    /// Rows that are in quarantine now.
    pub quarantine_rows: f64,
    pub batches: f64,
    /// The time from a row's commit to its delivery.
    pub late: Histogram,
    /// The time that Planhat took to answer a request.
    pub requests: Histogram,
}

impl SectionCounters {
    /// Returns rows read less rows that are settled or under way. It is 0 where the books balance.
    pub(crate) fn unaccounted(&self) -> f64 {
        let delivered = self.delivered_stream + self.delivered_otherwise;
        self.read - delivered - self.quarantined - self.filtered - self.unsettled
    }
}

/// All counters at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counters {
    pub sections: BTreeMap<String, SectionCounters>,
    pub slot_retained_bytes: f64,
    pub wal_bytes_per_second: f64,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { sections: BTreeMap::new(), slot_retained_bytes: f64::NAN, wal_bytes_per_second: f64::NAN }
    }
}

/// A histogram: pairs of an upper bound and the number of observations at or below it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    fn add(&mut self, bound: f64, number: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, sum)) => *sum += number,
            None => {
                let at = self.0.partition_point(|(known, _)| *known < bound);
                self.0.insert(at, (bound, number));
            }
        }
    }

    /// Returns the observations that were made after an earlier state of the histogram.
    pub(crate) fn since(&self, before: &Histogram) -> Histogram {
        let number = |bound: f64| before.0.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, number)| *number);
        Histogram(self.0.iter().map(|(bound, now)| (*bound, (now - number(*bound)).max(0.0))).collect())
    }

    /// Returns the sum of several histograms.
    pub(crate) fn sum(all: &[Histogram]) -> Histogram {
        let mut sum = Histogram::default();
        for (bound, number) in all.iter().flat_map(|one| &one.0) {
            sum.add(*bound, *number);
        }
        sum
    }

    /// Returns the value below which this part of the observations lies, interpolated between two bounds.
    pub(crate) fn quantile(&self, part: f64) -> Option<f64> {
        let total = self.0.last()?.1;
        if total <= 0.0 {
            return None;
        }
        let (mut below, mut from) = (0.0, 0.0);
        for (bound, number) in &self.0 {
            if *number >= total * part {
                if !bound.is_finite() {
                    return Some(from);
                }
                let inside = number - below;
                let share = if inside > 0.0 { (total * part - below) / inside } else { 1.0 };
                return Some(from + (bound - from) * share);
            }
            (below, from) = (*number, *bound);
        }
        Some(from)
    }
}

impl Counters {
    /// Parses the text of `/metrics`.
    pub(crate) fn parse(text: &str) -> Counters {
        let mut counters = Counters::default();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("pg2planhat_") else { continue };
            let Some((series, value)) = rest.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match name {
                "slot_retained_bytes" => counters.slot_retained_bytes = value,
                "wal_bytes_per_second" => counters.wal_bytes_per_second = value,
                _ => {}
            }
            let Some(section) = label(labels, "section") else { continue };
            let own = counters.sections.entry(section.to_owned()).or_default();
            own.add(name, labels, value);
        }
        counters
    }
}

impl SectionCounters {
    fn add(&mut self, name: &str, labels: &str, value: f64) {
        let bound = || label(labels, "le").and_then(|bound| bound.parse().ok());
        match name {
            "rows_read_total" => self.read += value,
            "rows_delivered_total" if label(labels, "phase") == Some("stream") => self.delivered_stream += value,
            "rows_delivered_total" => self.delivered_otherwise += value,
            "rows_quarantined_total" => self.quarantined += value,
            "rows_filtered_total" => self.filtered += value,
            "rows_unsettled" => self.unsettled += value,
            "quarantine_rows" => self.quarantine_rows = value,
            "batches_total" => self.batches += value,
            "commit_to_delivered_seconds_bucket" => bound().into_iter().for_each(|le| self.late.add(le, value)),
            "request_duration_seconds_bucket" => bound().into_iter().for_each(|le| self.requests.add(le, value)),
            _ => {}
        }
    }
}

/// Returns the value of a label. Names of sections hold no quotes and no commas, so splitting is enough.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.trim_end_matches('}').split(',').find_map(|label| {
        let (known, value) = label.split_once('=')?;
        (known == name).then(|| value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP x y\npg2planhat_rows_read_total{phase=\"stream\",section=\"a\"} 10\n\
        pg2planhat_rows_read_total{phase=\"backfill\",section=\"a\"} 5\n\
        pg2planhat_rows_delivered_total{phase=\"stream\",section=\"a\"} 8\n\
        pg2planhat_rows_delivered_total{phase=\"retry\",section=\"a\"} 1\n\
        pg2planhat_rows_quarantined_total{reason=\"refused\",section=\"a\"} 2\n\
        pg2planhat_rows_filtered_total{phase=\"stream\",reason=\"off\",section=\"a\"} 1\n\
        pg2planhat_rows_unsettled{section=\"a\"} 3\n\
        pg2planhat_commit_to_delivered_seconds_bucket{section=\"a\",le=\"0.5\"} 50\n\
        pg2planhat_commit_to_delivered_seconds_bucket{section=\"a\",le=\"1\"} 100\n\
        pg2planhat_commit_to_delivered_seconds_bucket{section=\"a\",le=\"+Inf\"} 100\n\
        pg2planhat_slot_retained_bytes 1024\npg2planhat_wal_bytes_per_second NaN\nprocess_open_fds 9\n";

    #[test]
    fn the_promised_text_is_read() {
        let counters = Counters::parse(TEXT);
        let own = &counters.sections["a"];
        assert_eq!((own.read, own.delivered_stream, own.delivered_otherwise), (15.0, 8.0, 1.0));
        assert_eq!(own.unaccounted(), 0.0);
        assert_eq!(counters.slot_retained_bytes, 1024.0);
        assert!(counters.wal_bytes_per_second.is_nan());
        assert!(Counters::parse("").slot_retained_bytes.is_nan());
    }

    #[test]
    fn quantiles_lie_between_the_bounds() {
        let late = &Counters::parse(TEXT).sections["a"].late.clone();
        assert_eq!(late.quantile(0.5), Some(0.5));
        assert!((late.quantile(0.99).unwrap() - 0.99).abs() < 1e-9);
        assert_eq!(late.since(late).quantile(0.5), None, "nothing since");
        assert_eq!(Histogram::sum(&[late.clone(), late.clone()]).quantile(0.5), Some(0.5));
        assert_eq!(Histogram::default().quantile(0.5), None);
        let beyond = Histogram(vec![(1.0, 0.0), (f64::INFINITY, 5.0)]);
        assert_eq!(beyond.quantile(0.99), Some(1.0), "no more is known than the last bound");
    }
}
