//! `ui`: the console in front of an instance that runs elsewhere, or of none.
//!
//! * In: the configuration, an address.
//! * Out: the web page, and a link to it; by itself it delivers nothing.
//! * Never: a page beyond this machine that anybody may open.

use std::process::Stdio;
use std::sync::Arc;

use crate::cli::console;
use crate::cli::context::Context;
use crate::config;
use crate::console::{Program, web_server};
use crate::model::{Exit, Fault};
use crate::shutdown;

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
/// An address that others can reach, where nobody is named who may use the page; one that is taken.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = Arc::new(context.config()?.clone());
    let named = !config.console.tokens.is_empty() || config.console.proxy.is_some();
    if !named && !config::is_loopback(&args.listen) {
        let what = format!("{} is beyond this machine, and nobody is named who may use the page", args.listen);
        let remedy = "`pg2planhat console token --name NAME --role operator` makes a token and its line for \
                      console.tokens; or listen on 127.0.0.1";
        return Err(Fault::usage(what, remedy));
    }
    let stop = shutdown::on_signals()?;
    let opened = console::open(&config, context.path(), &Program::elsewhere(), Some(&args.listen), &stop).await?;
    let Some((console, listener)) = opened else { return Err(Fault::bug("a console without an address")) };
    let local = config::is_loopback(&args.listen);
    if named
        && local
        && let Some(link) = console.link()
    {
        console::eprint(&format!("The console, for one use within ten minutes: {link}"));
    }
    if let (true, true, Some(link)) = (args.open, local, console.link()) {
        open(&link);
    }
    tokio::select! {
        () = stop.asked() => Ok(Exit::Done),
        () = web_server::serve(listener, console) => Ok(Exit::Done),
    }
}

/// Asks the system for its browser. Where there is none, the link stands on stderr.
fn open(link: &str) {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = tokio::process::Command::new(opener);
    command.arg(link).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.spawn() {
        console::eprint(&format!("No browser could be opened ({opener}: {error}); use the link."));
    }
}
