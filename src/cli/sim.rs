//! `sim`: the Planhat stand-in alone, with faults on request.

use std::time::Duration;

use clap::ValueEnum;

use crate::cli::context::Context;
use crate::model::{Exit, Fault};
use crate::shutdown;
use crate::sim::{Keep, Names, Sim, SimFault, SimOptions};

/// The faults, as `--help` tells of them.
const FAULTS: &str = "\
Faults, one or a list, go to POST /sim/faults as JSON; DELETE /sim/faults forgets them:
  {\"fault\":\"status\",\"status\":504,\"store\":true,\"times\":3,\"route\":\"metrics\"}
times: for so many requests (0: until forgotten; default 1); route: bulk, single, metrics (default: all).

Nothing is stored:
  status               answers \"status\"; also \"retry_after\", \"body\"; stores with \"store\":true (a gateway's 5xx)
  reject               \"status\" for a request with an item whose \"field\" \"equals\" this
  too_large            413 for a body \"over\" so many bytes
  too_large_reset      the same by the head alone, then a reset
  reset_before_reading resets without reading
  html, redirect       a page with \"status\"; \"status\" with a \"location\"
  hang                 never answers; stores with \"store\":true
The rest is stored, and some items are refused:
  refuse               those whose \"field\" \"equals\" this, with \"error\"
  refuse_first         the first \"count\", with \"error\"
  refuse_without_echo  the same, without saying which
  refuse_twice         the first item, once for each of \"errors\"
Stored, and then:
  slow                 answers after \"millis\": after the client's time-out, if that is shorter
  reset_after_storing, reset_mid_answer
  text                 200 with this \"body\"
  encoded              compressed as \"encoding\": gzip, deflate; anything else cannot be read
  truncated            half of the JSON, as if that were all
  wrong_length         a Content-Length that is off \"by\" so much
  many_headers         \"count\" headers before the answer
  endless, drip, gzip_bomb   JSON without end, a blank each \"millis\", 1 MB of gzip that unpacks to 160

POST /sim/rate {\"seed\":1,\"probability\":0.1,\"faults\":[…]} draws them by chance.";

/// Arguments of `sim`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = FAULTS)]
pub struct Args {
    /// Where it listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// A tenant that it knows; may be repeated; without one, any
    #[arg(long, value_name = "UUID")]
    pub tenant: Vec<String>,
    /// Take only these names in activities
    #[arg(long, value_name = "NAMES")]
    pub strict: Option<Strict>,
    /// Bytes of a body, at most
    #[arg(long, value_name = "BYTES", default_value_t = 32_000_000)]
    pub max_body: u64,
    /// What it keeps of what it receives
    #[arg(long, value_name = "WHAT", default_value = "items")]
    pub keep: KeepArg,
    /// Every answer waits so many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub latency: u64,
    /// A fault at each request with this probability, from 0 to 1: 503, reset before reading, reset after storing, in turn
    /// by chance
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = probability)]
    pub fault_rate: f64,
    /// The seed of that chance: the same seed and order of requests give the same faults
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1)]
    pub seed: u64,
}

/// Names in activities.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Strict {
    /// externalId, companyExternalId, weight
    Current,
    /// euExtId, cId, count
    Legacy,
}

/// What is kept.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeepArg {
    /// Items, to be read at /sim/received
    Items,
    /// Only how many there were
    Counts,
    /// Only requests and bytes
    Bytes,
}

/// Runs the command, until SIGTERM or SIGINT.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let stop = shutdown::on_signals()?;
    let options = SimOptions {
        listen: args.listen,
        tenants: args.tenant,
        names: match args.strict {
            None => Names::Any,
            Some(Strict::Current) => Names::Current,
            Some(Strict::Legacy) => Names::Legacy,
        },
        max_body: args.max_body,
        keep: match args.keep {
            KeepArg::Items => Keep::Items,
            KeepArg::Counts => Keep::Counts,
            KeepArg::Bytes => Keep::Bytes,
        },
        latency: Duration::from_millis(args.latency),
        token: None,
    };
    let mut sim = Sim::start(options).await?;
    if args.fault_rate > 0.0 {
        let faults = vec![SimFault::status(503), SimFault::ResetBeforeReading, SimFault::ResetAfterStoring];
        sim.set_fault_rate(args.seed, args.fault_rate, faults);
    }
    if context.json() {
        context.output.document(&serde_json::json!({ "url": sim.url() }))?;
    } else {
        context.output.line(format!(
            "A stand-in for Planhat at {0}\n  planhat.url: {0}\n  {0}/sim/stats shows what came, {0}/sim/received each item,\n  \
             POST {0}/sim/faults queues faults; Ctrl-C ends it",
            sim.url()
        ))?;
    }
    stop.asked().await;
    sim.stop().await;
    Ok(Exit::Done)
}

fn probability(text: &str) -> Result<f64, String> {
    let within = |p: &f64| (0.0..=1.0).contains(p);
    text.parse().ok().filter(within).ok_or_else(|| "a number from 0 to 1".to_owned())
}
