//! `demo`: a throwaway PostgreSQL, a writer, a Planhat stand-in and the streamer, live; and at the end the proof.
//!
//! * In: how long, how many old rows.
//! * Out: a live view, then each key of the source held against what the stand-in received.
//! * Never: a process or a directory left behind, however it ends ([`place`]); a touch of a PostgreSQL that was here before.

mod books;
mod cluster;
mod install;
mod interrupt;
mod live;
mod place;
mod report;
mod server;
mod streamer;
mod tables;
mod view;
mod voice;
mod writer;

use super::Context;
use crate::config::{Config, Source};
use crate::fault::{Exit, Fault};
use crate::postgres::sql::{Session, connect_sql};
use crate::sim::{Sim, SimHandle, SimOptions};
use cluster::Cluster;
use interrupt::Interrupts;
use place::Place;
use streamer::Streamer;
use voice::Voice;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End after so many seconds, and compare keys; otherwise Ctrl-C does
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// Rows that are there before it starts
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    pub rows: u64,
    /// Leave the directory with the logs, the configuration and the data behind
    #[arg(long)]
    pub keep: bool,
}

/// Everything that runs. The place is the last to go, and takes the processes with it.
struct Stage {
    server: String,
    sink: SimHandle,
    source: Source,
    session: Session,
    streamer: Streamer,
    _cluster: Cluster,
    place: Place,
}

/// Runs the command.
///
/// # Errors
/// Where there is no PostgreSQL and none can be installed, or something of the stage falls over.
pub async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let voice = Voice { json: context.json() };
    let mut interrupts = Interrupts::watch()?;
    let stage = tokio::select! {
        biased;
        // 1. Who does not want it any more need not wait for it. What was made goes with the future.
        () = interrupts.first() => {
            voice.say("Stopped before it began.");
            return Ok(Exit::Findings);
        }
        // 2. The stage.
        stage = set(&args, voice) => stage?,
    };
    let path = stage.place.path().to_owned();
    let report = live::play(stage, &args, voice, &mut interrupts).await;
    if args.keep {
        voice.say(&format!("Kept: {}", path.display()));
    }
    let report = report?;
    if context.json() {
        context.output.document(&report.document())?;
    } else {
        report.lines().iter().for_each(|line| voice.say(line));
    }
    Ok(if report.kept() { Exit::Done } else { Exit::Findings })
}

async fn set(args: &Args, voice: Voice) -> Result<Stage, Fault> {
    let server = install::find_or_install(voice).await?;
    let mut place = Place::make(args.keep)?;
    voice.say(&format!("{}, throwaway, in {}", server.version, place.path().display()));
    let admin = cluster::free_port()?;
    let sink = Sim::start(SimOptions::default()).await?;
    let configured = |port, password: &str| tables::configuration(port, password, &sink.url(), admin);
    let reach = |port, password: &str| configured(port, password).map(|(_, Config { source, .. })| source);
    let cluster = Cluster::start(&server, &mut place, reach).await?;
    let (text, Config { source, .. }) = configured(cluster.port, &cluster.password)?;
    let session = connect_sql(&source, "demo").await?;
    voice.say(&format!("Two tables with {} old rows", super::output::count(args.rows)));
    tables::create(&session, args.rows).await?;
    let file = place.secret_file("pg2planhat.yaml", &text)?;
    let streamer = Streamer::start(&mut place, &file, admin)?;
    voice.say(&format!("The stand-in at {}, the streamer's pages at http://127.0.0.1:{admin}/status", sink.url()));
    if args.seconds.is_none() {
        voice.say("Ctrl-C once ends the writing and shows the proof; twice ends at once.");
    }
    Ok(Stage { server: server.version, sink, source, session, streamer, _cluster: cluster, place })
}
