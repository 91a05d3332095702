//! What one row costs in the pure core, over messages recorded from PostgreSQL 15.18: `cargo bench --bench core`.
//!
//! Decoding alone; then the whole way (decode, map, encode, batch, progress, ledger entries) with an engine whose writes are
//! durable and whose requests are answered at once; then progress and the reading of answers by themselves.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use pg2planhat::testing::config::{Config, Section};
use pg2planhat::testing::delivery::Progress;
use pg2planhat::testing::delivery::SectionDelivery;
use pg2planhat::testing::delivery::{Action, Engine, Route, Settings};
use pg2planhat::testing::mapping::Mapping;
use pg2planhat::testing::model::{CommitMark, Lsn, Position, SectionId};
use pg2planhat::testing::planhat::{Answer, Reply, Verdict, read};
use pg2planhat::testing::postgres::Types;
use pg2planhat::testing::postgres::{DecodedItem, Decoder};

const METRIC: &[u8] = include_bytes!("recorded/metric.pgoutput");
const ACTIVITY: &[u8] = include_bytes!("recorded/activity.pgoutput");
/// So often a recording is repeated, with later LSNs each time.
const COPIES: u64 = 30;

const CONFIG: &str = "
source: { host: localhost, database: bench, user: bench }
planhat: { tenant: 11111111-2222-4333-8444-555555555555 }
sections:
  - name: seats
    kind: custom_metric
    model: Company
    table: usage_daily
    key: id
    fields: { dimensionId: dimension_id, value: value, externalId: external_id, date: at }
  - name: logins
    kind: user_activity
    table: app_event
    key: id
    fields:
      email: user_email
      externalId: user_id
      action: event_name
      weight: amount
      date: created_at
      companyExternalId: account_id
      info: { plan: plan, ip: client_ip, trial: trial, properties: properties }
";

fn main() {
    divan::main();
}

/// The recording, `COPIES` times: the LSNs of BEGIN and COMMIT go on, as a slot's do.
fn recording(bytes: &[u8]) -> (Bytes, usize) {
    let (mut all, mut rows) = (Vec::new(), 0);
    for copy in 0..COPIES {
        let mut at = all.len();
        all.extend_from_slice(bytes);
        while at < all.len() {
            let length = u32::from_be_bytes(all[at + 1..at + 5].try_into().expect("four bytes")) as usize + 1;
            if all[at] == b'd' && all[at + 5] == b'w' {
                let message = at + 30;
                // Where the LSN is: after the tag, or after tag, flags and the commit's own LSN.
                let lsn = match all[message] {
                    b'B' => Some(message + 1),
                    b'C' => Some(message + 10),
                    b'I' => {
                        rows += 1;
                        None
                    }
                    _ => None,
                };
                if let Some(lsn) = lsn {
                    let was = u64::from_be_bytes(all[lsn..lsn + 8].try_into().expect("eight bytes"));
                    all[lsn..lsn + 8].copy_from_slice(&(was + (copy << 32)).to_be_bytes());
                }
            }
            at += length;
        }
    }
    (Bytes::from(all), rows)
}

fn decode(bencher: Bencher<'_, '_>, bytes: &[u8]) {
    let (run, rows) = recording(bytes);
    let mut decoder = Decoder::default();
    bencher.counter(ItemsCount::new(rows)).bench_local(|| {
        decoder.feed(run.clone());
        let mut cells = 0;
        while let Some(item) = decoder.next_item().expect("recorded bytes") {
            if let DecodedItem::Insert(_, _, row) = item {
                cells += row.cells.len();
            }
        }
        black_box(cells)
    });
}

/// Runs the recording through an engine; returns how many bytes of bodies it gave.
fn carry(run: &Bytes, config: &Config, section: &Section) -> usize {
    let now = Duration::from_secs(1);
    let settings = Settings { budget: 64 << 20, halt_probe: Duration::from_secs(60) };
    let mut engine =
        Engine::new([SectionDelivery::new(section, Position::default())].into_iter().collect(), Lsn(0), 1, settings);
    let (mut decoder, types) = (Decoder::default(), Types::default());
    decoder.feed(run.clone());
    let mut bytes = 0;
    loop {
        match decoder.next_item().expect("recorded bytes") {
            None => break,
            Some(DecodedItem::Insert(oid, lsn, row)) => engine.insert(oid, lsn, &row, now),
            Some(DecodedItem::Begin(final_lsn, micros, xid)) => engine.begin(final_lsn, CommitMark { xid, micros }),
            Some(DecodedItem::Commit(end_lsn)) => engine.commit(end_lsn),
            Some(DecodedItem::Keepalive(wal_end)) => engine.keepalive(wal_end),
            Some(DecodedItem::Table(table)) => {
                let columns = types.columns(&table.columns);
                let mapping = Mapping::compile(section, config.planhat.bulk_activity_names, &columns);
                let mapping = Ok(Rc::new(mapping.expect("the mapping fits the recorded table")));
                engine.set_routes(table.oid, vec![Route { section: SectionId(0), mapping }]);
            }
            Some(DecodedItem::Update(..) | DecodedItem::Ignored(_)) => {}
        }
    }
    // A second later everything is due.
    let later = now + Duration::from_secs(60);
    engine.pump(later);
    while let Some(action) = engine.next_action() {
        match action {
            Action::Write(number, _) => engine.durable(number),
            Action::Send { section, id, body } => {
                bytes += body.len();
                let answer = Answer { verdict: Verdict::Received, status: Some(200), message: String::new() };
                engine.verdict(section, id, &answer, later, 0.5);
            }
            Action::Confirm(_) | Action::Settled(..) | Action::Retry(..) | Action::Rewind | Action::Stopped(_) => {}
            Action::OtherHistory(other) => panic!("{other}"),
        }
        engine.pump(later);
    }
    bytes
}

fn whole(bencher: Bencher<'_, '_>, bytes: &[u8], section: usize) {
    let config = pg2planhat::testing::config::parse(CONFIG, "the bench").expect("the bench's own configuration");
    let (run, rows) = recording(bytes);
    assert!(carry(&run, &config, &config.sections[section]) > rows * 50, "every row became an item");
    bencher.counter(ItemsCount::new(rows)).bench_local(|| black_box(carry(&run, &config, &config.sections[section])));
}

#[divan::bench]
fn decode_metric(bencher: Bencher<'_, '_>) {
    decode(bencher, METRIC);
}

#[divan::bench]
fn decode_activity(bencher: Bencher<'_, '_>) {
    decode(bencher, ACTIVITY);
}

#[divan::bench]
fn whole_way_metric(bencher: Bencher<'_, '_>) {
    whole(bencher, METRIC, 0);
}

#[divan::bench]
fn whole_way_activity(bencher: Bencher<'_, '_>) {
    whole(bencher, ACTIVITY, 1);
}

/// 1,000 transactions of one row each, settled by hundreds.
#[divan::bench]
fn progress(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(1_000usize)).bench_local(|| {
        let mut progress = Progress::new(1, Lsn(0));
        for at in 1..=1_000u64 {
            let position = Position { final_lsn: Lsn(at * 100), change_lsn: Lsn(at * 100 - 10), ordinal: 0 };
            progress.begin(position.final_lsn);
            progress.admit(SectionId(0), position);
            progress.commit(Lsn(at * 100 + 50));
            if at % 100 == 0 {
                progress.settle(SectionId(0), position);
                black_box(progress.advance());
            }
        }
        progress.checkpoint()
    });
}

/// An answer that refuses 100 of 10,000 items and echoes each.
#[divan::bench]
fn reply(bencher: Bencher<'_, '_>) {
    let item =
        r#"{"item":{"dimensionId":"seats_used","value":1.5,"externalId":"company-1"},"error":"no such company"}"#;
    let body = format!(r#"{{"processed":9900,"errors":[{}]}}"#, vec![item; 100].join(","));
    let reply = Reply {
        status: 200,
        content_type: Some("application/json; charset=utf-8"),
        content_encoding: None,
        retry_after: None,
        date: None,
        location: None,
        body: body.as_bytes(),
        whole: true,
    };
    bencher.counter(ItemsCount::new(100usize)).bench_local(|| black_box(read(&reply, SystemTime::UNIX_EPOCH)));
}
