//! A bound for each test's time, also under plain `cargo test`, where nobody else has one: a hung test ends the whole binary as
//! a failure, with its name and with what its servers and programs have logged. What it started is ended by the watchdog of
//! [`super::scratch`].
//!
//! * In: the first use of the harness on a test's thread, which libtest names after the test.
//! * Never: a word through the print macros: libtest keeps those for the end of a test that does not end.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use super::scratch::run_directory;

/// More than `.config/nextest.toml` gives a test: where nextest runs, its own bound comes first.
const SECONDS: u64 = 300;
/// Sets another bound, in seconds.
pub const VARIABLE: &str = "PG2PLANHAT_TEST_SECONDS";

/// The tests that run now, and since when.
static RUNNING: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());

/// In its thread's local storage, so that it is dropped when the thread ends: then the test has ended.
struct Bounded(Option<String>);

impl Drop for Bounded {
    fn drop(&mut self) {
        if let (Some(name), Ok(mut running)) = (&self.0, RUNNING.lock()) {
            running.remove(name);
        }
    }
}

thread_local! {
    static THIS: Bounded = Bounded(begin());
}

/// Bounds the test that this thread runs; does nothing where it is bounded already, or where the thread runs none.
pub fn bound_this_test() {
    THIS.with(|_| {});
}

fn begin() -> Option<String> {
    static WATCH: Once = Once::new();
    let name = std::thread::current().name()?.to_owned();
    let no_test = ["main", "proxy"].contains(&name.as_str()) || name.starts_with("tokio");
    // Long ones say so, and are run on purpose.
    if no_test || name.contains("soak") {
        return None;
    }
    WATCH.call_once(|| drop(std::thread::Builder::new().name("bound".to_owned()).spawn(watch)));
    RUNNING.lock().unwrap().insert(name.clone(), Instant::now());
    Some(name)
}

fn watch() {
    let told = std::env::var(VARIABLE).ok().map(|text| text.parse().expect("PG2PLANHAT_TEST_SECONDS is a number"));
    let limit = Duration::from_secs(told.unwrap_or(SECONDS));
    loop {
        std::thread::sleep(limit.min(Duration::from_secs(1)));
        let running = RUNNING.lock().unwrap().clone();
        if let Some((name, since)) = running.iter().find(|(_, since)| since.elapsed() > limit) {
            tell(name, since.elapsed());
            std::process::abort();
        }
    }
}

/// Straight to stderr: the print macros are captured here, too.
fn tell(name: &str, after: Duration) {
    let mut text = format!("\ntest {name} ... HUNG: not ended after {} s, so all tests end here\n", after.as_secs());
    let rooms = std::fs::read_dir(run_directory()).into_iter().flatten().flatten();
    for room in rooms {
        for file in ["log", "stderr"] {
            text.push_str(&tail(&room.path().join(file)));
        }
    }
    drop(std::io::stderr().write_all(text.as_bytes()));
}

fn tail(file: &Path) -> String {
    let Ok(bytes) = std::fs::read(file) else { return String::new() };
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().rev().take(30).collect::<Vec<_>>();
    let lines = lines.iter().rev().map(|line| format!("  {line}\n")).collect::<String>();
    format!("the end of {}:\n{lines}", file.display())
}
