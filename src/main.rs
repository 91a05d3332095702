//! The binary: wiring only.
//!
//! * In: arguments.
//! * Out: an exit code, and for an error two lines on stderr: what happened, what to do.
//! * Never: a panic without a word; noise about a reader that went away.

use std::io::IsTerminal as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use pg2planhat::{Cli, Exit, Fault};

fn main() -> ExitCode {
    let code = begin();
    pg2planhat::flush();
    code
}

fn begin() -> ExitCode {
    // No core of this process for others to read, and none on a disk: the passwords are in its memory. Where the system has
    // no such switch, the unit's LimitCORE=0 stands.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).ok();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(refused(&error).code()),
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("(no text)");
        say(&Fault::bug(format!("internal error{place}: {text}")));
    }));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let remedy = "raise this process's limits of file descriptors and threads (`ulimit -n`, `ulimit -u`)";
            let fault =
                Fault::new(Exit::Unavailable, format!("the operating system gives no event queue: {error}"), remedy);
            say(&fault);
            return ExitCode::from(fault.exit.code());
        }
    };
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(pg2planhat::run(cli))));
    // Dropping a runtime waits for its blocking tasks, and looking a name up takes as long as the resolver likes: longer than
    // `shutdown_grace` where the network is gone.
    runtime.shutdown_background();
    let exit = match ended {
        Ok(Ok(exit)) => exit,
        Ok(Err(fault)) => {
            say(&fault);
            fault.exit
        }
        Err(_) => Exit::Bug,
    };
    ExitCode::from(exit.code())
}

/// What clap has to say: help and version are no errors.
fn refused(error: &clap::Error) -> Exit {
    if let Some(fault) = pg2planhat::usage(error) {
        say(&fault);
        return fault.exit;
    }
    // Where nobody reads it, there is nobody to tell.
    error.print().ok();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) { Exit::Done } else { Exit::Usage }
}

/// Two lines on stderr; nothing where the reader of stdout went away, which is no fault.
fn say(fault: &Fault) {
    if fault.exit == Exit::Done {
        return;
    }
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (red, end) = if colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    pg2planhat::say(&format!("{red}error:{end} {fault}"));
}
