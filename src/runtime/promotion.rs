//! Progress that this process knows beyond the state: a promotion can lose the state's newest writes. Pure.
//!
//! * In: what the event loop knew when it ended; the state as the promoted server has it.
//! * Out: the state as it must be taken: rows that the sink has are not read again, a request under way is in doubt by name.
//! * Never: anything carried past the point where the old server's history was left; or without a promotion, when the state is
//!   the newer truth (a restored backup on the same timeline has other rows at the same positions).
//!
//! The state lives in the source database, and its writes do not wait for standbys. A standby that is promoted has every row
//! that it was sent, but perhaps not yet that these rows were delivered.

use std::collections::HashMap;

use crate::model::{Lsn, Phase, Position, SectionName};
use crate::state::{Delivery, Op, OpenDelivery, Opened, Outcome, SectionPhase, SectionRow, Totals};

/// The known progress of one section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownProgress {
    /// The timeline of these positions.
    pub timeline: i64,
    /// Every streamed row up to here is settled, by the sink's answers.
    pub answered: Position,
    /// The last of them that went into quarantine: its row there may be lost with the state's newest writes.
    pub quarantined: Position,
    /// The requests that were under way.
    pub under_way: Vec<Delivery>,
}

/// A promotion of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promotion {
    /// The timeline before.
    pub before: i64,
    /// Where that was left.
    pub left: Lsn,
    /// The last leader recorded everything before it ended, and this server has it.
    pub drained: bool,
}

/// Brings the state up to what is known, where the server was promoted. What it gives is to be written before anything else.
///
/// What is not known is in doubt by name: streamed rows that may have been delivered before the promotion, by a process that
/// is gone or into a quarantine that is lost. They come again.
pub(crate) fn catch_up(
    opened: &mut Opened,
    known: &HashMap<String, KnownProgress>,
    promoted: Option<Promotion>,
    is_on: impl Fn(&SectionName) -> bool,
) -> Vec<Op> {
    let mut ops = Vec::new();
    let Some(Promotion { before, left, drained }) = promoted else { return ops };
    // A transaction whose commit lies before that point is the same on both.
    let most = Position::before_transaction(left);
    let Opened { sections, open_deliveries, next_delivery, .. } = opened;
    for row in sections.iter_mut().filter(|row| row.phase != SectionPhase::Waiting && is_on(&row.name)) {
        let attached = row.attachment.attach_lsn.map(Position::before_transaction);
        let recorded = row.position.or(attached).unwrap_or_default();
        let carried = known.get(row.name.as_str()).filter(|carried| carried.timeline == before);
        let answered = carried.map_or(most, |carried| carried.answered.min(most));
        let is_doubtful = match carried {
            // Rows whose place in quarantine is lost must come again, and those after them with them.
            Some(carried) => carried.quarantined > recorded,
            None => !drained,
        };
        if answered > recorded && is_doubtful {
            let doubt = unknown_rows(*next_delivery, row, (recorded, answered));
            *next_delivery += 1;
            ops.push(Op::Sending { delivery: doubt.delivery.clone(), attempt: 1 });
            let error = format!(
                "the server was promoted, and its state does not know which rows of transactions that commit from {} to {} were \
                 delivered before: they are sent again",
                recorded.final_lsn, answered.final_lsn
            );
            ops.push(Op::Ended { id: doubt.delivery.id, outcome: Outcome::InDoubt, http_status: None, error });
            open_deliveries.push(doubt);
        } else if answered > recorded && carried.is_some() {
            tracing::warn!(section = %row.name, recorded = %recorded.final_lsn, delivered = %answered.final_lsn,
                "the promoted server does not know yet what was delivered: this process does, and goes on behind it");
            row.position = Some(answered);
            let position = row.position;
            let section = row.name.clone();
            ops.push(Op::SectionCheckpoint { section, position, phase: None, add: Totals::default() });
        }
        for delivery in carried.iter().flat_map(|carried| &carried.under_way) {
            if open_deliveries.iter().any(|open| open.delivery.id == delivery.id) {
                continue;
            }
            ops.push(Op::Sending { delivery: delivery.clone(), attempt: 1 });
            *next_delivery = (*next_delivery).max(delivery.id + 1);
            open_deliveries.push(OpenDelivery {
                delivery: delivery.clone(),
                outcome: Outcome::Sending,
                under_way: true,
                attempts: 1,
                epoch: 0,
            });
        }
    }
    ops
}

/// A batch in doubt of which nobody knows which rows it had.
fn unknown_rows(id: i64, row: &SectionRow, span: (Position, Position)) -> OpenDelivery {
    let delivery = Delivery {
        id,
        section: row.name.clone(),
        phase: Phase::Stream,
        rows: 0,
        bytes: 0,
        first_key: String::new(),
        last_key: String::new(),
        span: Some(span),
        digests: None,
    };
    OpenDelivery { delivery, outcome: Outcome::InDoubt, under_way: false, attempts: 1, epoch: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Attachment;

    fn at(final_lsn: u64) -> Position {
        Position { final_lsn: Lsn(final_lsn), change_lsn: Lsn(final_lsn.saturating_sub(9)), ordinal: 3 }
    }

    fn opened(position: u64) -> Opened {
        let attachment = Attachment {
            table_oid: 1,
            table_name: "t".to_owned(),
            kind: "custom_metric".to_owned(),
            attach_lsn: None,
            columns: Vec::new(),
        };
        let row = SectionRow {
            phase: SectionPhase::Streaming,
            position: Some(at(position)),
            ..SectionRow::waiting(&"s".into(), attachment)
        };
        Opened { instance: None, sections: vec![row], open_deliveries: Vec::new(), next_delivery: 5 }
    }

    fn known(answered: u64, quarantined: u64, under_way: Vec<Delivery>) -> HashMap<String, KnownProgress> {
        let carried = KnownProgress { timeline: 1, answered: at(answered), quarantined: at(quarantined), under_way };
        HashMap::from([("s".to_owned(), carried)])
    }

    /// What the state must be brought up to after a promotion from timeline `before` at `left`.
    fn caught(
        state: &mut Opened,
        known: &HashMap<String, KnownProgress>,
        before: i64,
        left: u64,
        drained: bool,
    ) -> Vec<Op> {
        catch_up(state, known, Some(Promotion { before, left: Lsn(left), drained }), |_| true)
    }

    fn position(opened: &Opened) -> Position {
        opened.sections[0].position.unwrap()
    }

    #[test]
    fn what_was_delivered_is_not_read_again_up_to_the_promotion_and_no_further() {
        let mut state = opened(100);
        assert_eq!(caught(&mut state, &known(200, 100, vec![]), 1, 300, true).len(), 1);
        assert_eq!(position(&state), at(200));
        let mut state = opened(100);
        caught(&mut state, &known(200, 0, vec![]), 1, 150, true);
        assert_eq!(position(&state).final_lsn, Lsn(149));
    }

    #[test]
    fn case_72_what_nobody_knows_is_in_doubt_by_name() {
        // Rows went into a quarantine that is lost; and the process that delivered is gone, or of another timeline.
        let rows = [
            (known(200, 150, vec![]), 1, true, 200),
            (known(200, 0, vec![]), 2, false, 299),
            (HashMap::new(), 1, false, 299),
        ];
        for (known, timeline, drained, last) in rows {
            let mut state = opened(100);
            let ops = caught(&mut state, &known, timeline, 300, drained);
            let Op::Sending { delivery, .. } = &ops[0] else { panic!("{ops:?}") };
            assert!(matches!(&ops[1], Op::Ended { id: 5, outcome: Outcome::InDoubt, .. }), "{ops:?}");
            let span = delivery.span.unwrap();
            assert_eq!((delivery.id, span.0, span.1.final_lsn), (5, at(100), Lsn(last)));
            assert_eq!((position(&state), state.next_delivery, state.open_deliveries.len()), (at(100), 6, 1));
        }
    }

    #[test]
    fn nothing_is_carried_from_another_timeline_or_backwards() {
        for (known, timeline) in [(known(200, 0, vec![]), 2), (known(90, 0, vec![]), 1)] {
            let mut state = opened(100);
            assert_eq!(caught(&mut state, &known, timeline, 300, true), []);
            assert_eq!(position(&state), at(100));
        }
    }

    #[test]
    fn a_request_whose_ledger_row_is_lost_is_in_doubt_by_name() {
        let delivery = Delivery {
            id: 9,
            section: "s".into(),
            phase: Phase::Stream,
            rows: 2,
            bytes: 10,
            first_key: "1".into(),
            last_key: "2".into(),
            span: Some((at(101), at(102))),
            digests: None,
        };
        let mut state = opened(100);
        let ops = caught(&mut state, &known(100, 0, vec![delivery.clone()]), 1, 300, true);
        assert_eq!(ops, [Op::Sending { delivery: delivery.clone(), attempt: 1 }]);
        assert_eq!((state.open_deliveries.len(), state.next_delivery), (1, 10));
        assert_eq!(caught(&mut state, &known(100, 0, vec![delivery]), 1, 300, true), []);
    }
}
