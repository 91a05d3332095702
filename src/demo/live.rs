//! The performance: everything runs, is looked at a few times a second, ends, and is judged.
//!
//! * In: the stage.
//! * Out: a [`DemoReport`].
//! * Never: an end before everything written has arrived, but where nothing moves any more.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::demo::cluster::{SlotPosition, slot_position};
use crate::demo::environment::{Args, Environment};
use crate::demo::interrupt::Interrupts;
use crate::demo::progress::ProgressPrinter;
use crate::demo::reconcile::{Lateness, RowAccounts};
use crate::demo::report::DemoReport;
use crate::demo::tables::{DemoTable, keys};
use crate::demo::view::{Figures, RowRate, View};
use crate::demo::writer::Writers;
use crate::model::Fault;
use crate::telemetry::status_document::{SectionState, Status};

const TICK: Duration = Duration::from_millis(250);
/// Items taken from the stand-in at a time: it answers requests on the same thread.
const AT_ONCE: usize = 2000;
/// Lateness in the live view is that of so many seconds.
const LATELY: Duration = Duration::from_secs(5);
/// When nothing has arrived and nothing was confirmed for so long, it will not.
const PATIENCE: Duration = Duration::from_secs(45);

/// Plays it to the end.
pub(crate) async fn play(
    stage: Environment,
    args: &Args,
    voice: ProgressPrinter,
    interrupts: &mut Interrupts,
) -> Result<DemoReport, Fault> {
    let mut last_old = Vec::new();
    for table in DemoTable::ALL {
        let share = i64::try_from(table.share(args.rows)).unwrap_or(i64::MAX);
        last_old.push((table, share));
    }
    let mut scene = Scene {
        writers: Writers::start(&stage.source).await?,
        stage,
        accounts: RowAccounts::new(last_old),
        view: View::new(voice),
        old: args.rows,
        begun: Instant::now(),
        seen: 0,
        status: None,
        slot: SlotPosition::default(),
        rates: (RowRate::default(), RowRate::default()),
        backfill_seconds: None,
    };
    scene.write(args.seconds.map(Duration::from_secs), interrupts).await?;
    let seconds = scene.begun.elapsed().as_secs_f64();
    scene.writers.stop().await?;
    let end = scene.settle().await?;
    scene.view.end();
    scene.judge(seconds, end).await
}

struct Scene {
    // Before the stage: their connections go before the server does.
    writers: Writers,
    stage: Environment,
    accounts: RowAccounts,
    view: View,
    old: u64,
    begun: Instant,
    /// The number of the last item that was taken from the stand-in.
    seen: u64,
    status: Option<Status>,
    slot: SlotPosition,
    /// Of all items, and of old rows.
    rates: (RowRate, RowRate),
    backfill_seconds: Option<f64>,
}

impl Scene {
    /// Lets the writers write, until it is time.
    async fn write(&mut self, limit: Option<Duration>, interrupts: &mut Interrupts) -> Result<(), Fault> {
        let ends_at = limit.map(|limit| self.begun + limit);
        loop {
            tokio::select! {
                biased;
                // 1. Who is told to end, ends.
                () = interrupts.first() => {
                    self.view.say("Stopping: what is written is still delivered, then comes the proof. Ctrl-C again ends at once.");
                    return Ok(());
                }
                // 2. Without a streamer or without writers there is nothing to show.
                fault = self.stage.streamer.ended(&self.stage.place) => return Err(fault),
                fault = self.writers.failed() => return Err(fault),
                // 3. A look.
                () = tokio::time::sleep(TICK) => {}
            }
            self.look(None).await?;
            if ends_at.is_some_and(|end| Instant::now() >= end) {
                return Ok(());
            }
        }
    }

    /// Waits until everything has arrived and is confirmed, or nothing moves; the end of what was written.
    async fn settle(&mut self) -> Result<String, Fault> {
        let session = &self.stage.session;
        let row = session.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await;
        let end: String = row.map_err(|error| session.fault(&error))?.get(0);
        let mut wanted = 0;
        for table in DemoTable::ALL {
            wanted += keys(&self.stage.session, table).await?.len() as u64;
        }
        let mut moved = (Instant::now(), (0, None));
        loop {
            self.look(Some(&end)).await?;
            if self.accounts.distinct() >= wanted && self.slot.reached {
                return Ok(end);
            }
            let now = (self.accounts.delivered, self.slot.confirmed.clone());
            if now != moved.1 {
                moved = (Instant::now(), now);
            }
            if moved.0.elapsed() > PATIENCE {
                self.view.say(&format!("Nothing has moved for {} s.", PATIENCE.as_secs()));
                return Ok(end);
            }
            tokio::select! {
                biased;
                // 1. Nothing more comes without a streamer.
                fault = self.stage.streamer.ended(&self.stage.place) => return Err(fault),
                // 2. The next look.
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Takes in what has happened, and shows it.
    async fn look(&mut self, end: Option<&str>) -> Result<(), Fault> {
        self.take_in().await;
        if let Some(status) = self.stage.streamer.status().await {
            self.attached(&status);
            self.status = Some(status);
        }
        self.slot = slot_position(&self.stage.session, end).await?;
        let figures = self.figures(Instant::now());
        self.view.show(&figures, Instant::now());
        Ok(())
    }

    async fn take_in(&mut self) {
        for commit in self.writers.commits() {
            self.accounts.committed(&commit);
        }
        loop {
            let items = self.stage.sink.items_after(self.seen, AT_ONCE);
            let Some(last) = items.last() else { break };
            self.seen = last.seq;
            for item in &items {
                let table = DemoTable::of(item.kind);
                self.accounts.arrived(table, table.key(&item.raw), item.at);
            }
            // The stand-in has requests to answer.
            tokio::task::yield_now().await;
        }
        if self.backfill_seconds.is_none() && self.accounts.backfilled >= self.old {
            self.backfill_seconds = Some(self.begun.elapsed().as_secs_f64());
        }
    }

    fn attached(&mut self, status: &Status) {
        let attached = |state| matches!(state, SectionState::Backfilling | SectionState::Streaming);
        for table in DemoTable::ALL {
            if status.sections.iter().any(|section| section.name == table.section() && attached(section.state)) {
                self.accounts.attached(table, Timestamp::now());
            }
        }
    }

    fn figures(&mut self, now: Instant) -> Figures {
        let stats = self.stage.sink.stats();
        let since = Timestamp::now().checked_sub(LATELY).unwrap_or(Timestamp::UNIX_EPOCH);
        Figures {
            elapsed: self.begun.elapsed(),
            state: self.status.as_ref().map_or_else(|| "starting".to_owned(), state),
            old: self.old,
            backfilled: self.accounts.backfilled,
            written: self.accounts.written,
            delivered: self.accounts.delivered,
            rate: self.rates.0.read(now, self.accounts.delivered),
            backfill_rate: self.rates.1.read(now, self.accounts.backfilled),
            late: self.accounts.lateness(since),
            lag_bytes: self.slot.lag_bytes,
            batches: stats.activities.accepted + stats.metrics.accepted,
            quarantined: self.status.as_ref().map(quarantined),
        }
    }

    /// Lets the streamer drain, audits, and holds what the stand-in received against the source.
    async fn judge(mut self, seconds: f64, end: String) -> Result<DemoReport, Fault> {
        let drained = self.stage.streamer.drain(&self.stage.place).await;
        self.take_in().await;
        let audits = self.stage.streamer.audit(&self.stage.place).await?;
        let mut verdicts = Vec::new();
        for table in DemoTable::ALL {
            verdicts.push(self.accounts.compare(table, &keys(&self.stage.session, table).await?));
        }
        let stats = self.stage.sink.stats();
        let late = self.accounts.lateness(Timestamp::UNIX_EPOCH);
        Ok(DemoReport {
            server: self.stage.server.clone(),
            seconds,
            old: self.old,
            backfill_seconds: self.backfill_seconds,
            written: self.accounts.written,
            rolled_back: self.accounts.rolled_back,
            held: self.accounts.held,
            audits,
            verdicts,
            unnamed: self.accounts.unnamed(),
            quarantined: self.status.as_ref().map_or(0, quarantined),
            batches: stats.activities.accepted + stats.metrics.accepted,
            late: if self.accounts.all_attached() { late } else { Lateness::default() },
            slot: slot_position(&self.stage.session, Some(&end)).await?,
            end,
            not_drained: drained.err().map(|fault| fault.what),
        })
    }
}

fn quarantined(status: &Status) -> u64 {
    status.sections.iter().map(|section| section.rows_quarantined).sum()
}

/// `running, events streaming, usage backfilling`; and what is wrong, where something is.
fn state(status: &Status) -> String {
    let sections = status.sections.iter().map(|section| format!(", {} {}", section.name, section.state));
    let wrong = status.message.iter().map(|message| format!(": {message}"));
    [status.state.to_string()].into_iter().chain(sections).chain(wrong).collect()
}
