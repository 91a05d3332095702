//! The process's own metrics, as every exporter has them.
//!
//! * In: `/proc/self`, the clock of the process's CPU time, and the time at which it began.
//! * Out: `process_*` at each scrape.
//! * Never: CPU time in whole seconds, which is what the collector within reads: at 30 ms a second its rate would be 0 for half a
//!   minute, and then a step. A start at 0, which it shows where `/proc/stat` is hidden (systemd's `ProcSubset=pid`).

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, Gauge, MetricFamily};
use rustix::time::{ClockId, clock_gettime};

pub(crate) struct Process {
    inner: ProcessCollector,
    /// Seconds since 1970.
    began: f64,
}

impl Process {
    /// Of this process, which has just begun.
    pub(crate) fn new() -> Process {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Process { inner: ProcessCollector::for_self(), began: began.as_secs_f64() }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.inner.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.inner.collect();
        for family in &mut families {
            let (cpu, start) =
                (family.name() == "process_cpu_seconds_total", family.name() == "process_start_time_seconds");
            for metric in family.mut_metric() {
                if cpu {
                    let mut counter = Counter::default();
                    counter.set_value(cpu_seconds());
                    metric.set_counter(counter);
                } else if start {
                    let mut gauge = Gauge::default();
                    gauge.set_value(self.began);
                    metric.set_gauge(gauge);
                }
            }
        }
        families
    }
}

fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(process: &Process, name: &str) -> MetricFamily {
        process.collect().into_iter().find(|family| family.name() == name).unwrap()
    }

    #[test]
    fn cpu_time_is_finer_than_a_second_and_grows() {
        let process = Process::new();
        let shown = || family(&process, "process_cpu_seconds_total").get_metric()[0].get_counter().get_value();
        let first = shown();
        let mut sum = 0_u64;
        while shown() < first + 0.01 {
            sum = sum.wrapping_add((0..10_000).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n)));
        }
        assert!(first > 0.0 && first.fract() > 0.0, "{first} {sum}");
    }

    #[test]
    fn the_start_is_when_it_was() {
        let process = Process::new();
        let began = family(&process, "process_start_time_seconds").get_metric()[0].get_gauge().get_value();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - 60.0..=now).contains(&began), "{began}");
    }
}
