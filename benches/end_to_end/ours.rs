//! One run of the program: how long it took, and what it cost.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::app::Launch;
use crate::harness::{App, Cluster, ConfigText, SectionText};
use crate::network::Route;
use crate::relay::Relay;
use crate::sink::{Sink, Taken};

/// What a run cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// From the start of the process to the last item at the sink.
    pub wall: Duration,
    /// User and system time of the process until then.
    pub cpu: Duration,
    /// The most memory that it ever held, in bytes.
    pub peak: u64,
    /// What the sink took.
    pub taken: Taken,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (megabytes, mebibytes) = (self.taken.bytes as f64 / 1e6, self.peak as f64 / (1024.0 * 1024.0));
        write!(f, "{:.2?}, CPU {:.2?}, peak {mebibytes:.1} MiB, ", self.wall, self.cpu)?;
        write!(f, "{megabytes:.0} MB in {} requests", self.taken.requests)
    }
}

/// A configuration whose instance has a slot and a state of its own, so that several can read the same WAL.
pub fn instance(cluster: &Cluster, route: &Route, name: &str) -> ConfigText {
    ConfigText::new(cluster, "http://127.0.0.1:1")
        .set("source.host", &route.host)
        .set("source.port", route.port)
        .set("source.tls", route.tls_mode())
        .set("source.slot", name)
        .set("source.publication", name)
        .set("state.schema", name)
        .set("memory", "64MiB")
}

/// The section of a metric table, as the product would be used at full speed.
pub fn section(name: &str, table: &str) -> SectionText {
    SectionText::metric(name, table).set("flush", "500ms").set("start", "now")
}

/// Makes the instance's slot, so that the WAL from here on is its.
pub async fn set_up(config: &ConfigText) {
    set_up_by(config, None).await;
}

/// The same, by another build of the program where one is given.
pub async fn set_up_by(config: &ConfigText, program: Option<&Path>) {
    let output = launch(config, program).arguments(&["setup"]).output().await;
    assert_eq!(output.code, 0, "{}", output.stderr);
}

fn launch(config: &ConfigText, program: Option<&Path>) -> Launch {
    let launch = App::launch(config);
    program.map_or(launch.clone(), |program| launch.program(program))
}

/// Runs it until the sink has taken so many objects.
pub async fn carry(config: &ConfigText, objects: u64) -> Cost {
    carry_by(config, objects, Duration::ZERO, None).await
}

/// The same with a sink that is so far away, by another build of the program where one is given.
pub async fn carry_by(config: &ConfigText, objects: u64, distance: Duration, program: Option<&Path>) -> Cost {
    let sink = Sink::start().await;
    let relay = (!distance.is_zero()).then(|| Relay::start(sink.port(), distance));
    let url = relay.as_ref().map_or(sink.url(), |relay| format!("http://127.0.0.1:{}", relay.port()));
    let begun = Instant::now();
    let app = launch(&config.clone().set("planhat.url", url), program).start();
    let taken = sink.wait(objects).await;
    let cost = Cost { wall: begun.elapsed(), cpu: cpu(app.id()), peak: app.rss(), taken };
    assert_eq!(taken.objects, objects, "each exactly once");
    app.sigterm();
    assert_eq!(app.wait_exit(Duration::from_secs(30)).await, 0, "{}", app.log());
    cost
}

/// User and system time of a process (proc(5), fields 14 and 15, in ticks of 1/100 s).
pub fn cpu(process: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks = |field: usize| after_name.split_ascii_whitespace().nth(field - 3).unwrap().parse::<u64>().unwrap();
    Duration::from_millis((ticks(14) + ticks(15)) * 10)
}
