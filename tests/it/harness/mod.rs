//! The harness: throwaway PostgreSQL servers, a faulty network, and the program itself as a child process.
//!
//! * In: nothing but this machine; server binaries are found or fetched ([`servers`]).
//! * Out: [`Cluster`], [`Proxy`], [`App`], [`ConfigText`], and [`eventually`] for state that nobody announces.
//! * Never: a process or a directory left behind, also after a panic or a SIGKILL ([`scratch`]); a fixed port; a sleep
//!   that a test's outcome depends on.

pub mod app;
pub mod bound;
pub mod cluster;
pub mod config_text;
mod data_directory;
pub mod http;
pub mod metrics;
pub mod port;
pub mod proxy;
pub mod scratch;
pub mod servers;
mod sql;

pub use app::App;
pub use cluster::{Cluster, Stop};
pub use config_text::{ConfigText, SectionText};
pub use proxy::{Direction, Proxy};
pub use servers::Version;

use std::time::{Duration, Instant};

/// Asks `look` again and again until it brings something; panics after `limit`, naming `what` was waited for.
///
/// Only for state that has no event to wait for: a catalog row, a file, a metric.
pub async fn eventually<T, F>(limit: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    bound::bound_this_test();
    let begun = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
