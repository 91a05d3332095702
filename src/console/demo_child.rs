//! The demonstration, as a process of its own that the wizard starts: a database of its own, rows, and a console.
//!
//! * In: the program's own file.
//! * Out: the link that it prints; or why there is none.
//! * Never: more than one at a time; one that outlives this process, however that ends, or half an hour.

use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::model::Fault;

/// Ends the demonstration when the pipe to its standard input closes, which this process holds: by its end of whatever kind.
const KEPT: &str = r#"
exec 3<&0
"$0" "$@" </dev/null & demo=$!
(cat <&3 >/dev/null; kill -TERM $demo 2>/dev/null) & watch=$!
wait $demo
kill $watch 2>/dev/null
"#;
/// It ends by itself after so many seconds.
const SECONDS: &str = "1800";
/// With so many old rows: somebody waits for it.
const ROWS: &str = "20000";
/// Its link is there within so long: an answer takes no longer.
const BEGINS: Duration = Duration::from_secs(40);
/// And it has this long to remove what it made.
const ENDS: Duration = Duration::from_secs(10);

/// A demonstration that was begun.
#[derive(Default)]
pub(crate) struct DemoChild(Option<Child>);

impl DemoChild {
    /// Begins one; what it says goes to `says`.
    ///
    /// # Errors
    /// Where one runs already, or the program cannot be started.
    pub(crate) fn begin(&mut self, says: &Path) -> Result<(), Fault> {
        if self.runs() {
            let remedy = "its link was for one use; stop it with this command's end, and try again";
            return Err(Fault::usage("a demonstration runs already", remedy));
        }
        let begun = || {
            let mut file = std::fs::OpenOptions::new();
            let file = file.write(true).create_new(true).mode(0o600).open(says)?;
            let mut demo = Command::new("sh");
            demo.args(["-c", KEPT]).arg(std::env::current_exe()?).args(["demo", "--seconds", SECONDS, "--rows", ROWS]);
            demo.stdin(Stdio::piped()).stdout(file.try_clone()?).stderr(file);
            // A Ctrl-C here is for this command, which ends that one in its turn.
            demo.process_group(0).spawn()
        };
        let failed = |error: std::io::Error| {
            Fault::unavailable(format!("the demonstration cannot begin: {error}"), "run `pg2planhat demo`")
        };
        self.0 = Some(begun().map_err(failed)?);
        Ok(())
    }

    /// Whether one runs now.
    pub(crate) fn runs(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends it, and waits until it has removed what it made.
    pub(crate) fn end(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        drop(child.stdin.take());
        let began = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && began.elapsed() < ENDS {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The link, once it stands in the file `says`; `runs` says whether there is still something to wait for.
///
/// # Errors
/// Where it ended without one, with its own words.
pub(crate) async fn link(says: &Path, runs: impl Fn() -> bool) -> Result<String, Fault> {
    let began = Instant::now();
    loop {
        // What it has said after its end is all that there is.
        let goes_on = runs() && began.elapsed() < BEGINS;
        let text = std::fs::read_to_string(says).unwrap_or_default();
        if let Some(link) = text.split_whitespace().find(|word| word.contains("/login#k=")) {
            return Ok(link.to_owned());
        }
        if !goes_on {
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            let what = format!("the demonstration has no console: {}", crate::terminal::printable(last));
            return Err(Fault::unavailable(what, "run `pg2planhat demo` in a terminal, which says more"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
