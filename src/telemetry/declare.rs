//! How a metric is declared: its name is the field's, its help is the doc comment's.
//!
//! * In: the struct in `metrics.rs`, written once.
//! * Out: that struct, its registry filled, and the list of its names and labels.
//! * Never: a metric that is registered but not in the struct, or the other way round.

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};
use prometheus::{Registry, Result};

/// The prefix of every metric's name.
pub(crate) const PREFIX: &str = "pg2planhat_";

/// One metric as declared.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// Its name, without the prefix.
    pub name: &'static str,
    /// Its help text.
    pub help: &'static str,
    pub labels: &'static [&'static str],
    /// A histogram's upper bounds; empty for the others.
    pub buckets: &'static [f64],
}

/// A kind of metric that can be made from its declaration.
pub(crate) trait MetricKind: Collector + Clone + Sized + 'static {
    fn make(declared: Declared) -> Result<Self>;
}

fn opts(declared: Declared) -> Opts {
    Opts::new(format!("{PREFIX}{}", declared.name), declared.help.trim())
}

/// Makes and registers one metric.
pub(crate) fn register<K: MetricKind>(registry: &Registry, declared: Declared) -> Result<K> {
    let metric = K::make(declared)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

impl MetricKind for IntCounter {
    fn make(declared: Declared) -> Result<Self> {
        IntCounter::with_opts(opts(declared))
    }
}

impl MetricKind for IntGauge {
    fn make(declared: Declared) -> Result<Self> {
        IntGauge::with_opts(opts(declared))
    }
}

impl MetricKind for Gauge {
    fn make(declared: Declared) -> Result<Self> {
        let gauge = Gauge::with_opts(opts(declared))?;
        // A value that was not measured yet is NaN, not 0: every comparison with NaN is false, so no alert fires on it.
        gauge.set(f64::NAN);
        Ok(gauge)
    }
}

impl MetricKind for IntCounterVec {
    fn make(declared: Declared) -> Result<Self> {
        IntCounterVec::new(opts(declared), declared.labels)
    }
}

impl MetricKind for IntGaugeVec {
    fn make(declared: Declared) -> Result<Self> {
        IntGaugeVec::new(opts(declared), declared.labels)
    }
}

impl MetricKind for GaugeVec {
    fn make(declared: Declared) -> Result<Self> {
        GaugeVec::new(opts(declared), declared.labels)
    }
}

impl MetricKind for HistogramVec {
    fn make(declared: Declared) -> Result<Self> {
        let opts = HistogramOpts::from(opts(declared)).buckets(declared.buckets.to_vec());
        HistogramVec::new(opts, declared.labels)
    }
}

/// Declares the struct of all metrics. A field reads: doc comment (the help), name, kind, labels, a histogram's buckets.
/// `core` is what the struct holds beside them; `declare` makes it, with everything registered.
macro_rules! declare_metrics {
    ($(#[$meta:meta])* pub struct $name:ident with $core:ident {
        $( $(#[doc = $help:literal])+ $field:ident: $kind:ident [$($label:ident),*] $(in $buckets:expr)?, )+
    }) => {
        $(#[$meta])*
        pub struct $name {
            core: $core,
            $( $(#[doc = $help])+ pub $field: $kind, )+
        }

        impl $name {
            /// Every metric as declared, in the order written.
            pub const DECLARED: &[Declared] = &[
                $( declare_metrics!(@one $field [$($help)+] [$($label)*] [$($buckets)?]), )+
            ];

            fn declare(core: $core) -> ::prometheus::Result<$name> {
                let registry = &core.registry;
                $( let $field = register::<$kind>(
                    registry,
                    declare_metrics!(@one $field [$($help)+] [$($label)*] [$($buckets)?]),
                )?; )+
                Ok($name { core, $($field),+ })
            }
        }
    };
    (@one $field:ident [$($help:literal)+] [$($label:ident)*] [$($buckets:expr)?]) => {
        Declared {
            name: stringify!($field),
            help: concat!($($help),+),
            labels: &[$(stringify!($label)),*],
            buckets: declare_metrics!(@buckets $($buckets)?),
        }
    };
    (@buckets) => { &[] };
    (@buckets $buckets:expr) => { $buckets };
}
pub(crate) use declare_metrics;
