//! `ui`: the console for an instance that runs elsewhere, or for none. Without a configuration it is the wizard that
//! makes one.
//!
//! * In: the configuration, an address.
//! * Out: the page, and a link to it. Nothing is delivered until somebody asks for it on the page.
//! * Never: a page beyond this machine that anybody may open.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use crate::cli::console;
use crate::cli::context::Context;
use crate::cli::run::again_and_again;
use crate::config;
use crate::console::setup_draft::SetupDraft;
use crate::console::{Console, Program, web_server};
use crate::model::{Exit, Fault};
use crate::shutdown;
use crate::shutdown::Stop;

/// Arguments of `ui`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the page listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9188")]
    pub listen: String,
    /// Open it in the browser of this machine
    #[arg(long)]
    pub open: bool,
}

/// Runs the command.
///
/// # Errors
/// Others can reach the address, and the configuration names nobody who may use the page; or the address is taken.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    // Without a file there is nothing to look at: the wizard makes one.
    let draft = (!context.path().exists()).then(SetupDraft::default);
    let config = Arc::new(match &draft {
        Some(draft) => config::parse(&draft.text(), "nothing yet").map_err(Fault::from)?,
        None => context.config()?.clone(),
    });
    let named = !config.console.tokens.is_empty() || config.console.proxy.is_some();
    let local = config::is_loopback(&args.listen);
    if !named && !local {
        let what = format!("{} is beyond this machine, and nobody is named who may use the page", args.listen);
        let remedy = "`pg2planhat console token --name NAME --role operator` makes a token and its line for \
                      console.tokens; or listen on 127.0.0.1";
        return Err(Fault::usage(what, remedy));
    }
    let stop = shutdown::on_signals()?;
    let program = Program::elsewhere();
    let opened = console::open(&config, context.path(), &program, Some(&args.listen), &stop).await?;
    let Some((console, listener)) = opened else { return Err(Fault::bug("a console without an address")) };
    if let Some(draft) = draft {
        console.set_up_as(draft);
    }
    if named
        && local
        && let Some(link) = console.link()
    {
        console::eprint(&format!("The console, for one use within ten minutes: {link}"));
    }
    if let (true, true, Some(link)) = (args.open, local, console.link()) {
        open(&link);
    }
    let running = when_asked(Arc::clone(&console), context.path(), &program, &stop);
    tokio::select! {
        () = running => {}
        () = web_server::serve(listener, Arc::clone(&console)) => {}
    }
    console.end();
    Ok(Exit::Done)
}

/// Runs an instance in this process once somebody asks for it, as `run --stay` does. It ends with the process.
async fn when_asked(console: Arc<Console>, path: &Path, program: &Program, stop: &Stop) {
    let mut wanted = console.wanted();
    while !stop.is_asked() {
        let config = tokio::select! {
            () = stop.asked() => return,
            changed = wanted.changed() => match changed {
                Ok(()) => wanted.borrow_and_update().clone(),
                Err(_) => return stop.asked().await,
            },
        };
        let Some(config) = config else { continue };
        let ended = again_and_again(config, path, program, stop, true, Some(Arc::clone(&console))).await;
        program.is_gone(ended.as_ref().err().cloned());
        if let Err(fault) = ended {
            tracing::error!(what = fault.what, remedy = fault.remedy, "the instance has ended; the console goes on");
        }
        wanted.mark_unchanged();
    }
}

/// Asks the system for its browser. Where none opens, the link is on stderr.
fn open(link: &str) {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = tokio::process::Command::new(opener);
    command.arg(link).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.spawn() {
        console::eprint(&format!("No browser could be opened ({opener}: {error}); use the link."));
    }
}
