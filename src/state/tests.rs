//! The room on a real PostgreSQL.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::*;

use crate::model::{Lsn, Position, SectionName};
use crate::state::fixture::{cluster, schema, store, store_losing_commit};

fn identity() -> Identity {
    Identity {
        system_identifier: "7412345678901234567".into(),
        timeline: 1,
        database_oid: 16384,
        database: "app".into(),
        slot: "pg2planhat".into(),
        publication: "pg2planhat".into(),
        publication_oid: 16399,
        publication_version: Some("731".into()),
    }
}

fn attachment() -> Attachment {
    Attachment {
        table_oid: 16400,
        table_name: "public.app_event".into(),
        kind: "user_activity".into(),
        attach_lsn: Some(Lsn(0x1000)),
        columns: vec![MappedColumn { name: "Größe \"x\"".into(), ty: "bigint".into() }],
    }
}

fn delivery(id: i64, rows: u32) -> Delivery {
    Delivery {
        id,
        section: "logins".into(),
        phase: Phase::Stream,
        rows,
        bytes: 4096,
        first_key: "1".into(),
        last_key: rows.to_string(),
        span: Some((at(0x2000, 0), at(0x3000, u64::from(rows)))),
        digests: None,
    }
}

fn at(lsn: u64, row: u64) -> Position {
    Position { final_lsn: Lsn(lsn), change_lsn: Lsn(row / 2), ordinal: (row % 2) as u32 }
}

fn delivered(id: i64, rows: u64) -> Vec<Op> {
    vec![
        Op::Ended { id, outcome: Outcome::Delivered, http_status: Some(200), error: String::new() },
        checkpoint(Some(at(0x3000, rows)), None, Totals { delivered: rows, ..Totals::default() }),
        Op::Checkpoint { checkpoint: Lsn(0x3000), xmin_floor: Some(700), newest: None },
    ]
}

fn checkpoint(position: Option<Position>, phase: Option<SectionPhase>, add: Totals) -> Op {
    Op::SectionCheckpoint { section: "logins".into(), position, phase, add }
}

fn sending(id: i64, rows: u32, attempt: u32) -> Op {
    Op::Sending { delivery: delivery(id, rows), attempt }
}

fn quarantined(n: usize) -> Op {
    Op::Quarantine(Quarantined {
        section: "logins".into(),
        key: n.to_string(),
        reason: "refused: no such user".into(),
        item: format!("{{\"n\":{n},\"é\":\"🙂\"}}"),
        position: Some(at(0x2000, n as u64)),
        delivery: Some(1),
    })
}

/// Migrated, adopted, led, with one streaming section.
async fn leading(schema: &Schema) -> (Store, Epoch) {
    let mut store = store(schema).await;
    store.migrate().await.unwrap();
    store.adopt(&identity(), Lsn(0x1000), None, None).await.unwrap();
    let term = store.take_epoch("host:1").await.unwrap();
    store.attach_section(&term, &"logins".into(), &attachment(), &SectionPhase::Streaming).await.unwrap();
    (store, term)
}

async fn section(store: &Store) -> SectionRow {
    store.sections().await.unwrap().pop().unwrap()
}

fn unwritable(result: Result<(), StateError>) -> crate::model::Fault {
    match result {
        Err(StateError::Unwritable(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

fn unavailable(result: Result<(), StateError>) {
    assert!(matches!(result, Err(StateError::Unavailable(_))), "{result:?}");
}

#[tokio::test]
async fn migrating_twice_at_once_and_under_odd_names() {
    for name in
        ["plain", "Big", "with space", "quo\"te", "apo'strophe", "ünïcödé🙂", "$user", "a.b", "{schema}", "select"]
    {
        let schema = schema(name);
        let (mut one, mut two) = (store(&schema).await, store(&schema).await);
        assert!(!one.is_there().await.unwrap());
        let (first, second) = tokio::join!(one.migrate(), two.migrate());
        first.unwrap();
        second.unwrap();
        one.migrate().await.unwrap();
        assert_eq!(two.schema_version().await.unwrap(), Some(version()), "{name}");
        one.adopt(&identity(), Lsn(1), None, None).await.unwrap();
        let mut term = one.take_epoch("host:1").await.unwrap();
        one.attach_section(&term, &"logins".into(), &attachment(), &SectionPhase::Waiting).await.unwrap();
        one.apply(&mut term, &[sending(1, 5, 1), quarantined(1)]).await.unwrap();
        assert_eq!(two.deliveries(&DeliveryFilter::default(), 10).await.unwrap().len(), 1);
        one.drop_schema().await.unwrap();
        one.drop_schema().await.unwrap();
        assert!(!two.is_there().await.unwrap());
    }
}

#[tokio::test]
async fn the_printed_script_makes_what_a_plain_role_needs() {
    let schema = schema("By \"DBA\"");
    let admin = cluster().client("postgres").await;
    admin.batch_execute("CREATE ROLE \"state's user\" LOGIN").await.unwrap();
    let script = ddl(&schema, Some("state's user"));
    admin.batch_execute(&script).await.unwrap();
    admin.batch_execute(&script).await.unwrap();
    let mut store = Store::new(cluster().client("state's user").await, schema.clone()).await.unwrap();
    store.migrate().await.unwrap();
    store.adopt(&identity(), Lsn(1), None, None).await.unwrap();
    let mut term = store.take_epoch("host:1").await.unwrap();
    store.attach_section(&term, &"logins".into(), &attachment(), &SectionPhase::Streaming).await.unwrap();
    store.apply(&mut term, &[sending(1, 5, 1), quarantined(1), Op::Unquarantine(vec![1])]).await.unwrap();
    // After an upgrade it is run once more, over rows of which earlier versions know nothing.
    let repaired = format!("UPDATE {schema}.delivery SET phase = 'repair'");
    admin.batch_execute(&format!("{repaired}; {script}; {repaired}")).await.unwrap();
    let comment = schema.name().to_owned();
    admin.batch_execute(&format!("CREATE TABLE {}.theirs ()", schema.quoted())).await.unwrap();
    drop(admin);
    let mut owner = super::fixture::store(&schema).await;
    let fault = unwritable(owner.drop_schema().await);
    assert!(fault.what.contains("cannot drop schema"), "{comment}: {fault}");
    assert!(owner.is_there().await.unwrap(), "all or nothing");
}

#[tokio::test]
async fn a_later_version_is_refused() {
    let schema = schema("later");
    let (mut store, _) = leading(&schema).await;
    let later = format!("UPDATE {schema}.instance SET schema_version = 99");
    cluster().client("postgres").await.batch_execute(&later).await.unwrap();
    assert!(unwritable(store.migrate().await).what.contains("version 99"));
    assert!(unwritable(store.open().await.map(|_| ())).what.contains("version 99"));
}

#[tokio::test]
async fn opening_gives_back_what_was_written() {
    let schema = schema("open");
    let mut store = store(&schema).await;
    store.migrate().await.unwrap();
    let empty = store.open().await.unwrap();
    assert_eq!(empty, Opened { instance: None, sections: vec![], open_deliveries: vec![], next_delivery: 1 });

    let (mut store, mut term) = leading(&schema).await;
    let backfilling = SectionPhase::Backfilling(BackfillProgress {
        cursor: Some("10".into()),
        ceiling: Some("99".into()),
        from: RangeStart::Behind("3".into()),
        resumes: true,
        streamed: "12-14,17".into(),
        streamed_sets: vec![vec![1, 2], vec![3]],
        rows: 10,
        estimated: 90,
        xmin_floor: Some(1 << 40),
    });
    store
        .apply(
            &mut term,
            &[
                sending(1, 5, 1),
                sending(2, 7, 1),
                sending(3, 9, 1),
                Op::Retrying { id: 2, http_status: Some(503), error: "later".into() },
                Op::Ended { id: 3, outcome: Outcome::InDoubt, http_status: None, error: "reset\0".into() },
                checkpoint(None, Some(backfilling.clone()), Totals { in_doubt: 9, ..Totals::default() }),
                Op::Streamed { section: "logins".into(), all: false, keys: vec![9] },
                Op::Streamed { section: "logins".into(), all: true, keys: vec![1, 2] },
                Op::Streamed { section: "logins".into(), all: false, keys: vec![3] },
                Op::Halted { section: "logins".into(), why: Some(("401".into(), "mend the tenant".into())) },
                Op::Checkpoint { checkpoint: Lsn(0x1_0000_2000), xmin_floor: Some(1 << 40), newest: None },
            ],
        )
        .await
        .unwrap();
    assert!(store.set_paused(&"logins".into(), true).await.unwrap());
    assert!(!store.set_paused(&"nobody".into(), true).await.unwrap());

    let opened = super::fixture::store(&schema).await.open().await.unwrap();
    let instance = opened.instance.unwrap();
    assert_eq!((instance.identity, instance.epoch), (identity(), term.epoch()));
    assert_eq!((instance.checkpoint, instance.xmin_floor), (Lsn(0x1_0000_2000), Some(1 << 40)));
    assert_eq!(instance.leader.as_deref(), Some("host:1"));
    assert_eq!(opened.next_delivery, 4);
    let [section] = opened.sections.try_into().unwrap();
    assert_eq!((section.phase, section.attachment), (backfilling, attachment()));
    assert_eq!(section.halted, Some(("401".into(), "mend the tenant".into())));
    assert_eq!((section.totals.in_doubt, section.paused), (9, true));
    assert!(section.backfill_started_at.unwrap().ends_with('Z') && section.last_delivered_at.is_none());
    let found: Vec<_> = opened.open_deliveries.iter().map(|d| (d.delivery.id, d.outcome, d.under_way)).collect();
    let expected = [(1, Outcome::Sending, true), (2, Outcome::Sending, false), (3, Outcome::InDoubt, false)];
    assert_eq!(found, expected);
    assert_eq!(opened.open_deliveries[1].delivery, delivery(2, 7));
}

#[tokio::test]
async fn a_batch_from_announcement_to_end() {
    let schema = schema("ops");
    let (mut store, mut term) = leading(&schema).await;
    let all = DeliveryFilter::default();
    store.apply(&mut term, &[sending(1, 100, 1)]).await.unwrap();
    let retrying = Op::Retrying { id: 1, http_status: Some(400), error: "some item is bad".into() };
    store.apply(&mut term, &[retrying]).await.unwrap();
    // Halved: the same row shrinks, and the second half has a row of its own.
    store.apply(&mut term, &[sending(1, 50, 2), sending(2, 50, 1)]).await.unwrap();
    let rows = store.deliveries(&all, 10).await.unwrap();
    assert_eq!((rows[1].rows, rows[1].attempts, rows[1].error.as_str()), (50, 2, "some item is bad"));
    assert_eq!((rows[1].outcome.as_str(), rows[1].http_status), ("sending", Some(400)));
    let seen = store.last_change().await.unwrap();
    store.apply(&mut term, &delivered(1, 50)).await.unwrap();
    let news = store.deliveries(&DeliveryFilter { changed_after: Some(seen), ..all.clone() }, 10).await.unwrap();
    assert_eq!(news.iter().map(|row| row.id).collect::<Vec<_>>(), [1]);
    assert_eq!((news[0].outcome.as_str(), news[0].error.as_str(), news[0].http_status), ("delivered", "", Some(200)));
    assert!(news[0].finished_at.is_some());
    let json = serde_json::to_value(&news[0]).unwrap();
    let names: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, DeliveryRow::FIELDS);

    // What has ended is not sent again under its id, and its outcome is not changed.
    assert!(unwritable(store.apply(&mut term, &[sending(1, 50, 3)]).await).remedy.contains("bug"));
    let doubt = Op::Ended { id: 1, outcome: Outcome::InDoubt, http_status: None, error: "late".into() };
    store.apply(&mut term, &[doubt]).await.unwrap();
    let filter = DeliveryFilter { outcomes: vec![Outcome::Delivered], section: Some("logins".into()), ..all.clone() };
    assert_eq!(store.deliveries(&filter, 10).await.unwrap().len(), 1);
    let late = DeliveryFilter { since: Some("2999-01-01T00:00:00Z".parse().unwrap()), ..all.clone() };
    assert!(store.deliveries(&late, 10).await.unwrap().is_empty());
    let after = DeliveryFilter { after_id: Some(1), ..all };
    assert_eq!(store.deliveries(&after, 10).await.unwrap()[0].id, 2);

    let section = section(&store).await;
    assert_eq!((section.totals.delivered, section.position), (50, Some(at(0x3000, 50))));
    assert!(section.last_delivered_at.is_some());
}

#[tokio::test]
async fn positions_and_checkpoint_never_move_back() {
    let schema = schema("forward");
    let (mut store, mut term) = leading(&schema).await;
    let none = Totals::default();
    for (position, checkpoint_at, expected) in [
        (at(0x3000, 5), 0x3000, (at(0x3000, 5), 0x3000)),
        (at(0x3000, 4), 0x2000, (at(0x3000, 5), 0x3000)),
        (at(0x2000, 9), 0x3000, (at(0x3000, 5), 0x3000)),
        (at(0x3000, 6), 0x3001, (at(0x3000, 6), 0x3001)),
        (at(0xF_0000_0000, 0), 0x3001, (at(0xF_0000_0000, 0), 0x3001)),
    ] {
        let mark = |lsn, floor| Op::Checkpoint { checkpoint: Lsn(lsn), xmin_floor: floor, newest: None };
        let ops = [
            checkpoint(Some(position), None, none),
            mark(checkpoint_at, Some(checkpoint_at)),
            mark(1, None),
            mark(2, Some(3)),
        ];
        store.apply(&mut term, &ops).await.unwrap();
        let instance = store.instance().await.unwrap().unwrap();
        assert_eq!((section(&store).await.position, instance.checkpoint), (Some(expected.0), Lsn(expected.1)));
        assert_eq!(instance.xmin_floor, Some(expected.1));
    }
    // Another server's log: what lies beyond the place where it left this one may come again.
    let adopted = section(&store).await.position;
    store.adopt(&Identity { timeline: 2, ..identity() }, Lsn(0x5000), None, Some(Lsn(0xF_0000_0001))).await.unwrap();
    assert_eq!(section(&store).await.position, adopted, "this server has that part of the log");
    store.adopt(&Identity { timeline: 2, ..identity() }, Lsn(0x5000), None, Some(Lsn(0x5000))).await.unwrap();
    assert_eq!(section(&store).await.position, Some(Position::before_transaction(Lsn(0x5000))));
    assert_eq!(store.apply(&mut term, &[]).await, Err(StateError::Fenced));
}

#[tokio::test]
async fn phases_come_and_go_and_leave_their_counts() {
    let schema = schema("phases");
    let (mut store, mut term) = leading(&schema).await;
    let none = Totals::default();
    let name = SectionName::from("logins");
    let asked = NewEvent {
        actor: "anna".into(),
        action: "resync".into(),
        section: Some(name.clone()),
        args: serde_json::json!({"from": "7"}),
    };
    let event = store.append_event(&asked).await.unwrap();
    assert_eq!(store.unhandled_events(10).await.unwrap()[0].args["from"], "7");
    let from =
        BackfillProgress { cursor: Some("7".into()), estimated: 12, resumes: true, ..BackfillProgress::default() };
    let begun = Op::Handled { event, result: "begun".into() };
    store
        .apply(&mut term, &[checkpoint(None, Some(SectionPhase::Resyncing(from.clone())), none), begun])
        .await
        .unwrap();
    assert!(store.unhandled_events(10).await.unwrap().is_empty());
    assert_eq!(store.event(event).await.unwrap().unwrap().result.as_deref(), Some("begun"));
    assert_eq!(section(&store).await.phase, SectionPhase::Resyncing(from.clone()));
    let further = BackfillProgress { cursor: Some("9".into()), rows: 12, ..from };
    let ops = [checkpoint(None, Some(SectionPhase::Resyncing(further.clone())), none), checkpoint(None, None, none)];
    store.apply(&mut term, &ops).await.unwrap();
    assert_eq!(section(&store).await.phase, SectionPhase::Resyncing(further));
    store.apply(&mut term, &[checkpoint(None, Some(SectionPhase::Streaming), none)]).await.unwrap();
    let now = section(&store).await;
    assert_eq!((now.phase, now.backfill_rows, now.backfill_estimated), (SectionPhase::Streaming, 12, 12));

    let halt = |why| [Op::Halted { section: "logins".into(), why }];
    store.apply(&mut term, &halt(Some(("a".into(), "b".into())))).await.unwrap();
    store.apply(&mut term, &halt(None)).await.unwrap();
    assert_eq!(section(&store).await.halted, None);
    let unknown = checkpoint(None, None, none);
    let Op::SectionCheckpoint { position, phase, add, .. } = unknown else { unreachable!() };
    let unknown = Op::SectionCheckpoint { section: "nobody".into(), position, phase, add };
    assert!(unwritable(store.apply(&mut term, &[unknown]).await).what.contains("lost the row"));
}

#[tokio::test]
async fn a_lost_commit_is_applied_once() {
    for server_sees_it in [true, false] {
        let schema = schema("lost");
        let (mut first, mut term) = leading(&schema).await;
        first.apply(&mut term, &[sending(1, 50, 1)]).await.unwrap();
        let mut ops = delivered(1, 50);
        ops.push(quarantined(1));
        let mut losing = store_losing_commit(&schema, server_sees_it).await;
        unavailable(losing.apply(&mut term, &ops).await);
        assert!(losing.is_closed());
        let before = section(&first).await.totals.delivered;
        assert_eq!(before, if server_sees_it { 50 } else { 0 });

        // A list that is not the one in doubt must not pass for it.
        if server_sees_it {
            let mut other = term.clone();
            assert!(unwritable(first.apply(&mut other, &delivered(1, 49)).await).remedy.contains("bug"));
        }
        let mut again = store(&schema).await;
        again.apply(&mut term, &ops).await.unwrap();
        assert_eq!(section(&again).await.totals.delivered, 50);
        assert_eq!(again.quarantine_counts().await.unwrap(), [("logins".into(), 1)]);
        again.apply(&mut term, &[sending(2, 5, 1)]).await.unwrap();
        assert_eq!(again.open_deliveries().await.unwrap().len(), 1);
    }
}

impl Store {
    /// Sends one list and waits for its answer.
    async fn apply(&mut self, term: &mut Epoch, ops: &[Op]) -> Result<(), StateError> {
        self.prepare(ops).await?;
        let mut launched = self.launch(term, 0, Arc::new(ops.to_vec())).await;
        (&mut launched).await;
        Pin::new(&mut launched).take_output().unwrap()?;
        term.durable();
        Ok(())
    }
}

/// Sends the lists one behind the other, and only then waits for their answers.
async fn all_at_once(store: &Store, term: &mut Epoch, lists: &[&[Op]]) -> Vec<Result<(), StateError>> {
    let mut launched = Vec::new();
    for (ahead, ops) in lists.iter().enumerate() {
        launched.push(store.launch(term, ahead, Arc::new(ops.to_vec())).await);
    }
    let mut answers = Vec::new();
    for mut one in launched {
        (&mut one).await;
        answers.push(Pin::new(&mut one).take_output().unwrap());
    }
    answers
}

#[tokio::test]
async fn lists_under_way_at_once_are_applied_in_order_or_not_at_all() {
    let schema = schema("at_once");
    let (mut store, mut term) = leading(&schema).await;
    let add = |delivered| [checkpoint(None, None, Totals { delivered, ..Totals::default() })];
    let (one, ten, hundred) = (add(1), add(10), add(100));
    store.prepare(&one).await.unwrap();
    assert_eq!(all_at_once(&store, &mut term, &[&one, &ten]).await, [Ok(()), Ok(())]);
    assert_eq!(section(&store).await.totals.delivered, 11);
    // No answer was seen, says the term: the same again, and one more behind them, on another connection.
    let mut again = self::store(&schema).await;
    again.prepare(&one).await.unwrap();
    assert_eq!(all_at_once(&again, &mut term, &[&one, &ten, &hundred]).await, [Ok(()), Ok(()), Ok(())]);
    assert_eq!(section(&again).await.totals.delivered, 111);
    (0..3).for_each(|_| term.durable());

    // What fails takes with it what was sent behind it.
    let Op::SectionCheckpoint { position, phase, add: none, .. } = checkpoint(None, None, Totals::default()) else {
        unreachable!()
    };
    let unknown = [Op::SectionCheckpoint { section: "nobody".into(), position, phase, add: none }];
    let answers = all_at_once(&again, &mut term, &[&unknown, &one]).await;
    assert!(unwritable(answers[0].clone()).what.contains("lost the row"));
    assert!(answers[1].is_err());
    assert_eq!(section(&again).await.totals.delivered, 111);
    again.apply(&mut term, &one).await.unwrap();
    assert_eq!(section(&again).await.totals.delivered, 112);

    // Lists of a leader that is past: none of them.
    let mut other = self::store(&schema).await;
    other.take_epoch("host:2").await.unwrap();
    assert_eq!(all_at_once(&again, &mut term, &[&one, &ten]).await, [Err(StateError::Fenced), Err(StateError::Fenced)]);
    assert_eq!(section(&again).await.totals.delivered, 112);
}

#[tokio::test]
async fn a_dropped_apply_is_rolled_back_or_found_applied() {
    let schema = schema("dropped");
    let (mut store, mut term) = leading(&schema).await;
    let ops = [checkpoint(None, None, Totals { delivered: 1, ..Totals::default() })];
    // Dropped after 1, 2, 3, … polls: at every point where it waits.
    for polls in 1..12 {
        let mut apply = Box::pin(store.apply(&mut term, &ops));
        for _ in 0..polls {
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(apply.as_mut().poll(cx))).await;
            if let std::task::Poll::Ready(done) = polled {
                done.unwrap();
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(apply);
        let before = section(&store).await.totals.delivered;
        let done = term.clone();
        store.apply(&mut term, &ops).await.unwrap();
        let after = section(&store).await.totals.delivered;
        assert!(after - before <= 1, "after {polls} polls");
        assert_eq!(i64::try_from(after).unwrap(), term.seq, "one for each number; was {done:?}");
    }
}

#[tokio::test]
async fn a_second_epoch_fences_the_first() {
    let schema = schema("fence");
    let (mut old, mut past) = leading(&schema).await;
    old.apply(&mut past, &[sending(1, 50, 1)]).await.unwrap();
    let mut new = store(&schema).await;
    let mut term = new.take_epoch("host:2").await.unwrap();
    assert_eq!(old.apply(&mut past, &delivered(1, 50)).await, Err(StateError::Fenced));
    assert_eq!(old.still_leads(&past).await, Err(StateError::Fenced));
    assert_eq!(old.set_instance_state(&past, "running", None).await, Err(StateError::Fenced));
    let name = "logins".into();
    assert_eq!(old.attach_section(&past, &name, &attachment(), &SectionPhase::Waiting).await, Err(StateError::Fenced));
    // Nothing of it was written, and the new one goes on.
    assert_eq!(new.open().await.unwrap().open_deliveries[0].epoch, past.epoch());
    new.apply(&mut term, &delivered(1, 50)).await.unwrap();
    assert_eq!(section(&new).await.totals.delivered, 50);
    new.still_leads(&term).await.unwrap();
}

#[tokio::test]
async fn an_epoch_taken_in_the_middle_of_an_apply() {
    let schema = schema("race");
    let (mut old, mut past) = leading(&schema).await;
    // The old one has its fence; the new one waits for it to end.
    let freezer = cluster().client("postgres").await;
    let lock = format!("BEGIN; SELECT 1 FROM {schema}.section FOR UPDATE");
    freezer.batch_execute(&lock).await.unwrap();
    let mut new = store(&schema).await;
    let list = [checkpoint(None, None, Totals { delivered: 1, ..Totals::default() })];
    let applying = tokio::spawn(async move {
        let first = old.apply(&mut past, &list).await;
        (first, old.apply(&mut past, &list).await)
    });
    wait_for_waiters(&freezer, 1).await;
    let taking = tokio::spawn(async move { new.take_epoch("host:2").await.map(|term| (new, term)) });
    wait_for_waiters(&freezer, 2).await;
    freezer.batch_execute("COMMIT").await.unwrap();
    let (mut new, mut term) = taking.await.unwrap().unwrap();
    let (first, second) = applying.await.unwrap();
    first.unwrap();
    // The second list may win the lock before the epoch is taken; once it is taken, it does not.
    let written = section(&new).await.totals.delivered;
    assert_eq!(written, if second.is_ok() { 2 } else { 1 });
    assert!(second.is_ok() || second == Err(StateError::Fenced));

    // The other way round: the epoch is being taken, and the apply waits for it.
    freezer.batch_execute(&format!("BEGIN; UPDATE {schema}.instance SET epoch = epoch + 1")).await.unwrap();
    let applying = tokio::spawn(async move {
        let list = [checkpoint(None, None, Totals { delivered: 1, ..Totals::default() })];
        new.apply(&mut term, &list).await.map(|()| new)
    });
    wait_for_waiters(&freezer, 1).await;
    freezer.batch_execute("COMMIT").await.unwrap();
    assert!(matches!(applying.await.unwrap(), Err(StateError::Fenced)));
    assert_eq!(section(&store(&schema).await).await.totals.delivered, written);
}

/// Waits until `count` sessions wait, directly or not, for this client's transaction.
async fn wait_for_waiters(client: &tokio_postgres::Client, count: i64) {
    let asked = "WITH RECURSIVE w (pid) AS (SELECT pg_backend_pid()
            UNION SELECT a.pid FROM pg_stat_activity a JOIN w ON w.pid = ANY (pg_blocking_pids(a.pid)))
         SELECT count(*) - 1 FROM w";
    // Only the clock of the server's lock queue can end this; the test's own time-out bounds it.
    let waiting = async {
        while client.query_one(asked, &[]).await.unwrap().get::<_, i64>(0) < count {
            client.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
}

#[tokio::test]
async fn a_leader_frozen_in_a_transaction_does_not_hold_up_the_next() {
    let schema = schema("frozen");
    let (store_of_old, _) = leading(&schema).await;
    let mut new = store(&schema).await;
    // What a process does that is stopped between its statements and its COMMIT.
    store_of_old.client.batch_execute(&format!("BEGIN; UPDATE {schema}.instance SET state = 'x'")).await.unwrap();
    new.take_epoch("host:2").await.unwrap();
    unavailable(store_of_old.instance().await.map(|_| ()));
}

#[tokio::test]
async fn a_schema_dropped_while_running_is_a_fault() {
    let schema = schema("gone");
    let (mut store, mut term) = leading(&schema).await;
    store.apply(&mut term, &[sending(1, 5, 1)]).await.unwrap();
    let admin = cluster().client("postgres").await;
    admin.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
    for _ in 0..2 {
        let fault = unwritable(store.apply(&mut term, &delivered(1, 5)).await);
        assert!(fault.remedy.contains("pg2planhat repair"), "{fault}");
        assert_eq!(fault.exit, crate::model::Exit::NeedsPerson);
    }
    assert!(!store.is_there().await.unwrap());
    assert_eq!(store.instance().await.map(|_| ()).map_err(|e| e.fault().exit), Err(crate::model::Exit::NeedsPerson));
}

#[tokio::test]
async fn an_older_copy_and_a_lost_row_are_faults() {
    let schema = schema("older");
    let (mut store, mut term) = leading(&schema).await;
    let admin = cluster().client("postgres").await;
    store.apply(&mut term, &[sending(1, 5, 1)]).await.unwrap();
    store.apply(&mut term, &[sending(2, 5, 1)]).await.unwrap();
    admin.batch_execute(&format!("UPDATE {schema}.instance SET applied_seq = 1")).await.unwrap();
    assert!(unwritable(store.apply(&mut term, &delivered(2, 5)).await).what.contains("older copy"));
    admin.batch_execute(&format!("UPDATE {schema}.instance SET epoch = 1")).await.unwrap();
    assert!(unwritable(store.apply(&mut term, &delivered(2, 5)).await).what.contains("older copy"));
    assert!(unwritable(store.still_leads(&term).await).what.contains("older copy"));
    admin.batch_execute(&format!("DELETE FROM {schema}.instance")).await.unwrap();
    assert!(unwritable(store.apply(&mut term, &delivered(2, 5)).await).what.contains("lost its row"));
    assert!(unwritable(store.migrate().await).what.contains("lost its row"));
}

#[tokio::test]
async fn missing_rights_and_read_only_servers_are_faults_with_their_remedy() {
    let schema = schema("rights");
    let (_owner, term) = leading(&schema).await;
    let admin = cluster().client("postgres").await;
    let grant = format!(
        "CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA {schema} TO reader;
         GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader;
         CREATE ROLE quiet LOGIN SUPERUSER; ALTER ROLE quiet SET default_transaction_read_only = on;
         CREATE ROLE nobody LOGIN"
    );
    admin.batch_execute(&grant).await.unwrap();
    let list = [sending(1, 5, 1)];

    let mut reader = Store::new(cluster().client("reader").await, schema.clone()).await.unwrap();
    let fault = unwritable(reader.apply(&mut term.clone(), &list).await);
    assert!(fault.remedy.contains(&format!("ON ALL TABLES IN SCHEMA {schema} TO \"reader\"")), "{fault}");
    assert_eq!(reader.open().await.unwrap().sections.len(), 1, "reading goes on after a failed write");

    let mut quiet = Store::new(cluster().client("quiet").await, schema.clone()).await.unwrap();
    let fault = unwritable(quiet.apply(&mut term.clone(), &list).await);
    assert!(fault.remedy.contains("ALTER ROLE \"quiet\" RESET default_transaction_read_only"), "{fault}");
    assert!(unwritable(quiet.take_epoch("x").await.map(|_| ())).what.contains("25006"));

    let fresh = super::fixture::schema("fresh");
    let mut nobody = Store::new(cluster().client("nobody").await, fresh).await.unwrap();
    let fault = unwritable(nobody.migrate().await);
    assert!(fault.remedy.contains("GRANT CREATE ON DATABASE \"postgres\" TO \"nobody\""), "{fault}");
}

#[tokio::test]
async fn a_lock_on_the_schema_is_waited_for_with_a_bound() {
    let schema = schema("locked");
    let (mut store, mut term) = leading(&schema).await;
    let admin = cluster().client("postgres").await;
    admin.batch_execute(&format!("BEGIN; LOCK {schema}.section")).await.unwrap();
    store.client.batch_execute("SET lock_timeout = '50ms'").await.unwrap();
    let list = [checkpoint(None, None, Totals { delivered: 1, ..Totals::default() })];
    let Err(StateError::Unavailable(fault)) = store.apply(&mut term, &list).await else { panic!() };
    admin.batch_execute(&fault.remedy[fault.remedy.find("SELECT").unwrap()..]).await.unwrap();
    admin.batch_execute("ROLLBACK").await.unwrap();
    store.apply(&mut term, &list).await.unwrap();
    assert_eq!(section(&store).await.totals.delivered, 1);
}

#[tokio::test]
async fn ten_thousand_rows_into_quarantine_at_once_while_others_read() {
    let schema = schema("many");
    let (mut writer, mut term) = leading(&schema).await;
    let reader = store(&schema).await;
    let mut ops = vec![sending(1, 10_000, 1)];
    ops.extend((0..10_000).map(quarantined));
    ops.push(Op::Ended { id: 1, outcome: Outcome::Quarantined, http_status: Some(200), error: "all refused".into() });
    ops.push(checkpoint(Some(at(0x3000, 0)), None, Totals { quarantined: 10_000, ..Totals::default() }));
    let reading = async {
        // A reader sees all of it or nothing, in every snapshot.
        loop {
            let asked = format!(
                "SELECT (SELECT count(*) FROM {schema}.quarantine), (SELECT rows_quarantined FROM {schema}.section)"
            );
            let row = reader.client.query_one(&asked, &[]).await.unwrap();
            let (rows, total): (i64, i64) = (row.get(0), row.get(1));
            assert_eq!(rows, total);
            if total == 10_000 {
                return;
            }
        }
    };
    let (applied, ()) = tokio::join!(writer.apply(&mut term, &ops), reading);
    applied.unwrap();

    let first = reader.quarantine_list(&QuarantineFilter::default(), 2).await.unwrap();
    assert_eq!(first.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["0", "1"], "ids follow the list's order");
    let filter = QuarantineFilter {
        section: Some("logins".into()),
        reason: Some("refused".into()),
        after_id: Some(first[1].id),
    };
    assert_eq!(reader.quarantine_list(&filter, 1).await.unwrap()[0].key, "2");
    let none = QuarantineFilter { reason: Some("mapping".into()), ..filter };
    assert!(reader.quarantine_list(&none, 1).await.unwrap().is_empty());
    let shown = reader.quarantine_show(first[1].id).await.unwrap().unwrap();
    assert_eq!(shown.item.get(), "{\"n\":1,\"é\":\"🙂\"}");
    assert_eq!(serde_json::to_value(&shown).unwrap()["item"]["n"], 1);
    writer.apply(&mut term, &[Op::Unquarantine(vec![first[0].id])]).await.unwrap();
    assert_eq!(reader.quarantine_drop(&[first[0].id, first[1].id]).await.unwrap(), 1);
    assert_eq!(reader.quarantine_counts().await.unwrap(), [("logins".into(), 9_998)]);
    assert_eq!(reader.quarantine_prune(Duration::from_secs(3600), 5_000).await.unwrap(), 0);
    assert_eq!(reader.quarantine_prune(Duration::ZERO, 5_000).await.unwrap(), 5_000, "in small bites");
    assert_eq!(reader.quarantine_prune(Duration::ZERO, 5_000).await.unwrap(), 4_998);
    assert_eq!(reader.quarantine_counts().await.unwrap(), []);
}

#[tokio::test]
async fn only_what_has_ended_and_is_old_is_pruned_and_ids_are_not_given_again() {
    let schema = schema("prune");
    let (mut store, mut term) = leading(&schema).await;
    let mut ops: Vec<Op> = (1..=7).map(|id| sending(id, 1, 1)).collect();
    let end = |id, outcome| Op::Ended { id, outcome, http_status: None, error: String::new() };
    let outcomes = [Outcome::InDoubt, Outcome::Resent, Outcome::Delivered, Outcome::Held, Outcome::Partial];
    ops.extend(outcomes.into_iter().zip(2..).map(|(outcome, id)| end(id, outcome)));
    ops.push(end(7, Outcome::Quarantined));
    store.apply(&mut term, &ops).await.unwrap();
    assert_eq!(store.prune(Duration::from_secs(3600), 100).await.unwrap(), 0);
    assert_eq!(store.prune(Duration::ZERO, 2).await.unwrap(), 2, "in small bites");
    assert_eq!(store.prune(Duration::ZERO, 100).await.unwrap(), 3);
    let left = store.deliveries(&DeliveryFilter::default(), 100).await.unwrap();
    assert_eq!(left.iter().map(|row| row.outcome.as_str()).collect::<Vec<_>>(), ["in_doubt", "sending"]);
    assert_eq!(store.open().await.unwrap().next_delivery, 8);
}

#[tokio::test]
async fn case_278_what_was_delivered_since_a_row_went_to_quarantine_is_kept() {
    let schema = schema("prune_held");
    let (mut store, mut term) = leading(&schema).await;
    let end = |id| Op::Ended { id, outcome: Outcome::Delivered, http_status: None, error: String::new() };
    for ops in [vec![sending(1, 1, 1), end(1)], vec![quarantined(0)], vec![sending(2, 1, 1), end(2)]] {
        store.apply(&mut term, &ops).await.unwrap();
    }
    assert_eq!(store.prune(Duration::ZERO, 100).await.unwrap(), 1, "what was delivered before says nothing of it");
    let left = store.deliveries(&DeliveryFilter::default(), 100).await.unwrap();
    assert_eq!(left.iter().map(|row| row.id).collect::<Vec<_>>(), [2]);
    let held = store.quarantine_list(&QuarantineFilter::default(), 1).await.unwrap();
    store.quarantine_drop(&[held[0].id]).await.unwrap();
    assert_eq!(store.prune(Duration::ZERO, 100).await.unwrap(), 1);
}

#[tokio::test]
async fn gaps_are_opened_once_and_events_handled_once() {
    let schema = schema("record");
    let (mut store, mut term) = leading(&schema).await;
    let gap = NewGap {
        section: None,
        reason: "slot_missing".into(),
        detail: "the slot is gone".into(),
        from_lsn: Some(Lsn(0x16_B374_D848)),
        to_lsn: None,
        xmin_floor: Some(700),
    };
    let id = store.open_gap(&gap).await.unwrap();
    assert_eq!(store.open_gap(&gap).await.unwrap(), id);
    let other = NewGap { section: Some("logins".into()), ..gap.clone() };
    assert_ne!(store.open_gap(&other).await.unwrap(), id);
    assert_eq!(store.gaps(true).await.unwrap()[1].from_lsn.as_deref(), Some("16/B374D848"));
    assert!(store.close_gap(id, "repair --gap by anna").await.unwrap());
    assert!(!store.close_gap(id, "again").await.unwrap());
    assert_eq!((store.gaps(true).await.unwrap().len(), store.gaps(false).await.unwrap().len()), (1, 2));
    assert_ne!(store.open_gap(&gap).await.unwrap(), id, "closed ones are history");

    // A re-sync covers one, and closes it at its end; unless it was opened again in between.
    let section = SectionName::from("logins");
    let open = async |store: &Store| {
        let gaps = store.gaps(true).await.unwrap();
        gaps.into_iter().find(|gap| gap.section.is_some()).map(|gap| gap.closed_by.unwrap_or_default())
    };
    let cover = |id| Op::CoverGaps { section: section.clone(), gaps: vec![id], by: "resync by anna".into() };
    let close = Op::CloseGaps { section: section.clone() };
    let covered = store.open_gap(&other).await.unwrap();
    store.apply(&mut term, std::slice::from_ref(&close)).await.unwrap();
    assert_eq!(open(&store).await.as_deref(), Some(""), "it is not covered");
    store.apply(&mut term, &[cover(covered)]).await.unwrap();
    assert_eq!(open(&store).await.as_deref(), Some("resync by anna"));
    assert_eq!(store.open_gap(&other).await.unwrap(), covered);
    store.apply(&mut term, std::slice::from_ref(&close)).await.unwrap();
    assert_eq!(open(&store).await.as_deref(), Some(""), "it grew meanwhile");
    store.apply(&mut term, &[cover(covered), close]).await.unwrap();
    assert_eq!(open(&store).await, None);

    let event = NewEvent { actor: "a".into(), action: "drop".into(), section: None, args: serde_json::json!({}) };
    let id = store.append_event(&event).await.unwrap();
    store.apply(&mut term, &[Op::Handled { event: id, result: "done".into() }]).await.unwrap();
    store.apply(&mut term, &[Op::Handled { event: id, result: "done again".into() }]).await.unwrap();
    assert_eq!(store.event(id).await.unwrap().unwrap().result.as_deref(), Some("done"));

    store.set_instance_state(&term, "needs_person", Some(("slot_lost", "run repair"))).await.unwrap();
    let instance = store.instance().await.unwrap().unwrap();
    assert_eq!((instance.state.as_deref(), instance.reason.as_deref()), (Some("needs_person"), Some("slot_lost")));
}

/// The leader's task may be spawned on any runtime.
#[tokio::test]
async fn futures_of_the_store_are_send() {
    fn send<T: Send>(future: T) -> T {
        future
    }
    let schema = schema("send");
    let (mut store, mut term) = leading(&schema).await;
    send(store.migrate()).await.unwrap();
    send(store.adopt(&identity(), Lsn(1), None, None)).await.unwrap();
    send(store.open()).await.unwrap();
    assert_eq!(send(store.apply(&mut term, &[])).await, Err(StateError::Fenced));
}
