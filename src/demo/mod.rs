//! `demo`: a throwaway PostgreSQL, a writer, a Planhat stand-in and the streamer, live; and at the end the proof.
//!
//! * In: how long, how many old rows.
//! * Out: a live view, then each key of the source held against what the stand-in received.
//! * Never: a process or a directory left behind, however it ends ([`place`]); a touch of a PostgreSQL that was here before.

pub(crate) mod cluster;
pub(crate) mod environment;
pub(crate) mod install;
pub(crate) mod interrupt;
pub(crate) mod live;
pub(crate) mod progress;
pub(crate) mod reconcile;
pub(crate) mod report;
pub(crate) mod server_binaries;
pub(crate) mod streamer;
pub(crate) mod tables;
pub(crate) mod view;
pub(crate) mod workdir;
pub(crate) mod writer;

use crate::config::Config;
use crate::demo::cluster::Cluster;
pub(crate) use crate::demo::environment::Args;
use crate::demo::environment::Environment;
use crate::demo::interrupt::Interrupts;
use crate::demo::progress::ProgressPrinter;
use crate::demo::streamer::Streamer;
use crate::demo::workdir::Workdir;
use crate::model::{Exit, Fault};
use crate::postgres::connection::session::connect_sql;
use crate::sim::{Sim, SimOptions};
use crate::terminal::Output;

/// Runs the command.
pub(crate) async fn run(output: Output, args: Args) -> Result<Exit, Fault> {
    let voice = ProgressPrinter { json: output.is_json() };
    let mut interrupts = Interrupts::watch()?;
    let stage = tokio::select! {
        biased;
        // 1. An interrupt ends the wait; dropping the future removes what was made.
        () = interrupts.first() => {
            voice.say("Stopped before it began.");
            return Ok(Exit::Findings);
        }
        // 2. The demonstration itself.
        stage = set(&args, voice) => stage?,
    };
    let path = stage.place.path().to_owned();
    let report = live::play(stage, &args, voice, &mut interrupts).await;
    if args.keep {
        voice.say(&format!("Kept: {}", path.display()));
    }
    let report = report?;
    if output.is_json() {
        output.document(&report.document())?;
    } else {
        report.lines().iter().for_each(|line| voice.say(line));
    }
    Ok(if report.kept() { Exit::Done } else { Exit::Findings })
}

async fn set(args: &Args, voice: ProgressPrinter) -> Result<Environment, Fault> {
    let server = install::find_or_install(voice).await?;
    let mut place = Workdir::make(args.keep)?;
    voice.say(&format!("{}, throwaway, in {}", server.version, place.path().display()));
    let (admin, console) = (cluster::free_port()?, cluster::free_port()?);
    let sink = Sim::start(SimOptions::default()).await?;
    let configured = |port, password: &str| tables::configuration(port, password, &sink.url(), admin, console);
    let reach = |port, password: &str| configured(port, password).map(|(_, Config { source, .. })| source);
    let cluster = Cluster::start(&server, &mut place, reach).await?;
    let (text, Config { source, .. }) = configured(cluster.port, &cluster.password)?;
    let session = connect_sql(&source, "demo").await?;
    voice.say(&format!("Two tables with {} old rows", crate::terminal::count(args.rows)));
    tables::create(&session, args.rows).await?;
    let file = place.secret_file("pg2planhat.yaml", &text)?;
    let streamer = Streamer::start(&mut place, &file, admin)?;
    voice.say(&format!("The stand-in at {}, the streamer's pages at http://127.0.0.1:{admin}/status", sink.url()));
    if let Some(link) = streamer::console_link(&place).await {
        voice.say(&format!("The console, for one use within ten minutes: {link}"));
    }
    if args.seconds.is_none() {
        voice.say("Ctrl-C once ends the writing and shows the proof; twice ends at once.");
    }
    Ok(Environment { server: server.version, sink, source, session, streamer, _cluster: cluster, place })
}
