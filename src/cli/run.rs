//! `run`: backfill and stream until SIGTERM, SIGINT or SIGQUIT; SIGHUP takes over what of the file harms nobody.
//!
//! Somebody at the console may have the file applied: then the event loop drains, and begins anew with it in this process.

use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::cli::config_watch;
use crate::cli::console;
use crate::cli::context::Context;
use crate::cli::reload::{Reloaded, reload};
use crate::config::Config;
use crate::console::{Console, Program, web_server};
use crate::model::{Exit, Fault};
use crate::runtime::Board;
use crate::shutdown::Stop;
use crate::{runtime, shutdown};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where a person must decide: stay, say so on the admin port and go on once it is mended, instead of ending with 75
    #[arg(long)]
    pub stay: bool,
}

/// Runs the command.
///
/// # Errors
/// As [`runtime::run`]; a console that cannot listen.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let config = Arc::new(context.config()?.clone());
    let stop = shutdown::on_signals()?;
    let program = Program::elsewhere();
    let opened = console::open(&config, context.path(), &program, config.console.listen.as_deref(), &stop).await?;
    let console = opened.as_ref().map(|(console, _)| Arc::clone(console));
    let running = again_and_again(config, context.path(), &program, &stop, args.stay, console);
    match opened {
        // The console ends with the program: a drain does not wait for it.
        Some((console, listener)) => tokio::select! {
            ended = running => ended,
            () = web_server::serve(listener, console) => Ok(Exit::Done),
        },
        None => running.await,
    }
}

/// Runs with one configuration after the other, for as long as somebody applies a new one.
pub(crate) async fn again_and_again(
    mut config: Arc<Config>,
    path: &Path,
    program: &Program,
    stop: &Stop,
    stays: bool,
    console: Option<Arc<Console>>,
) -> Result<Exit, Fault> {
    let mut wanted = console.as_ref().map(|console| console.wanted());
    // The board of what runs has the configuration that counts.
    let boards = Arc::new(Mutex::new(Board::new(&config)?));
    let watched = config_watch::watch(Arc::clone(&boards), path);
    let (of_reload, file) = (Arc::clone(&boards), path.to_owned());
    shutdown::on_hangup(move || {
        let board = held(&of_reload).clone();
        let (file, console) = (file.clone(), console.clone());
        async move {
            let reloaded = reload(&board.config(), &file).await;
            let is_taken_over = matches!(reloaded, Reloaded::TakenOver { .. });
            board.metrics.config_last_reload_successful.set(i64::from(is_taken_over));
            let Reloaded::TakenOver { config, whole } = reloaded else { return };
            if let Some(console) = console {
                console.taken_over(&config, whole);
            }
            board.set_config(config);
            if whole {
                board.set_file_note(None);
            }
        }
    })?;
    let running = async {
        loop {
            let board = Board::new(&config)?;
            *held(&boards) = board.clone();
            program.runs_here(runtime::shown(&config, &board));
            let (stopper, own) = shutdown::pair();
            let mut running = pin!(runtime::run(Arc::clone(&config), board, own, stays));
            let next = tokio::select! {
                biased;
                ended = &mut running => return ended,
                () = stop.asked() => None,
                config = applied(&mut wanted) => Some(config),
            };
            if next.is_some() {
                tracing::info!("the configuration is applied: draining, to begin anew with it");
            }
            stopper.stop();
            let ended = running.await;
            // The tasks of what has ended let its admin port go when they are polled next.
            tokio::time::sleep(Duration::from_millis(50)).await;
            // The end may have been asked for meanwhile: then nothing begins anew.
            let stopped = stop.is_asked();
            match (ended, next) {
                (Ok(_), Some(applied)) if !stopped => config = applied,
                (Err(fault), Some(applied)) if !stopped && fault.exit == Exit::NeedsPerson && stays => config = applied,
                (ended, _) => return ended,
            }
        }
    };
    tokio::select! {
        ended = running => ended,
        never = watched => match never {},
    }
}

fn held(boards: &Mutex<Board>) -> MutexGuard<'_, Board> {
    boards.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next configuration that somebody applies.
async fn applied(wanted: &mut Option<watch::Receiver<Option<Arc<Config>>>>) -> Arc<Config> {
    if let Some(wanted) = wanted {
        while wanted.changed().await.is_ok() {
            if let Some(config) = wanted.borrow_and_update().clone() {
                return config;
            }
        }
    }
    std::future::pending().await
}
