//! The process's own metrics, as every exporter has them.
//!
//! * In: `/proc/self`, and the clock of the process's CPU time.
//! * Out: `process_*` at each scrape.
//! * Never: CPU time in whole seconds, which is what the collector within reads: at 30 ms a second its rate would be 0 for half a
//!   minute, and then a step.

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, MetricFamily};
use rustix::time::{ClockId, clock_gettime};

/// The collector.
pub(super) struct Process(ProcessCollector);

impl Process {
    /// Of this process.
    pub(super) fn new() -> Process {
        Process(ProcessCollector::for_self())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        for family in families.iter_mut().filter(|family| family.name() == "process_cpu_seconds_total") {
            for metric in family.mut_metric() {
                let mut counter = Counter::default();
                counter.set_value(cpu_seconds());
                metric.set_counter(counter);
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

    #[test]
    fn cpu_time_is_finer_than_a_second_and_grows() {
        let shown = || {
            let families = Process::new().collect();
            let family = families.iter().find(|family| family.name() == "process_cpu_seconds_total").unwrap();
            family.get_metric()[0].get_counter().get_value()
        };
        let first = shown();
        let mut sum = 0_u64;
        while shown() < first + 0.01 {
            sum = sum.wrapping_add((0..10_000).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n)));
        }
        assert!(first > 0.0 && first.fract() > 0.0, "{first} {sum}");
    }
}
