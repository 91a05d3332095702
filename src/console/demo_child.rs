//! The demonstration that the wizard starts as a process of its own, with a database, rows and a console.
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

/// A shell script that runs the demonstration. This process holds the other end of its standard input: when that pipe
/// closes, because this process ended in whatever way, the script ends the demonstration.
const KEPT: &str = r#"
exec 3<&0
"$0" "$@" </dev/null & demo=$!
(cat <&3 >/dev/null; kill -TERM $demo 2>/dev/null) & watch=$!
wait $demo
kill $watch 2>/dev/null
"#;
/// The demonstration ends by itself after this many seconds.
const SECONDS: &str = "1800";
/// The demonstration starts with this many old rows: few, because a person waits for it.
const ROWS: &str = "20000";
/// The demonstration must print its link within this time, which is shorter than an answer may take.
const BEGINS: Duration = Duration::from_secs(40);
/// The demonstration has this long to remove what it made.
const ENDS: Duration = Duration::from_secs(10);

/// A demonstration that was started, or none.
#[derive(Default)]
pub(crate) struct DemoChild(Option<Child>);

impl DemoChild {
    /// Starts the demonstration. Its output goes to the file `says`.
    ///
    /// # Errors
    /// A demonstration runs already, or the program cannot be started.
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
            // The group keeps a Ctrl-C at the terminal for this command, which then ends the demonstration.
            demo.process_group(0).spawn()
        };
        let failed = |error: std::io::Error| {
            Fault::unavailable(format!("the demonstration cannot begin: {error}"), "run `pg2planhat demo`")
        };
        self.0 = Some(begun().map_err(failed)?);
        Ok(())
    }

    /// Returns whether a demonstration runs now.
    pub(crate) fn runs(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends the demonstration, and waits until it has removed what it made.
    pub(crate) fn end(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        drop(child.stdin.take());
        let began = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && began.elapsed() < ENDS {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Waits for the link in the file `says`, and returns it. `runs` says whether the demonstration still runs.
///
/// # Errors
/// The demonstration ended without a link. The error quotes its last words.
pub(crate) async fn link(says: &Path, runs: impl Fn() -> bool) -> Result<String, Fault> {
    let began = Instant::now();
    loop {
        // Once it has ended, the file holds all that it will ever say.
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
