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

use crate::model::{Lsn, Position};
use crate::state::{Delivery, Op, OpenDelivery, Opened, Outcome, Totals};

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

/// Brings the state up to what is known, where the server was promoted: from which timeline, and where that was left. What it
/// gives is to be written before anything else.
pub(crate) fn catch_up(
    opened: &mut Opened,
    known: &HashMap<String, KnownProgress>,
    promoted: Option<(i64, Lsn)>,
) -> Vec<Op> {
    let mut ops = Vec::new();
    let Some((before, left)) = promoted else { return ops };
    for row in &mut opened.sections {
        let Some(carried) = known.get(row.name.as_str()).filter(|carried| carried.timeline == before) else { continue };
        // A transaction whose commit lies before that point is the same on both.
        let most = Position::before_transaction(left);
        let (answered, recorded) = (carried.answered.min(most), row.position.unwrap_or_default());
        // Rows whose place in quarantine is lost must come again, and those after them with them.
        if answered > recorded && carried.quarantined <= recorded {
            tracing::warn!(section = %row.name, recorded = %recorded.final_lsn, delivered = %answered.final_lsn,
                "the promoted server does not know yet what was delivered: this process does, and goes on behind it");
            row.position = Some(answered);
            let position = row.position;
            let section = row.name.clone();
            ops.push(Op::SectionCheckpoint { section, position, phase: None, add: Totals::default() });
        }
        for delivery in &carried.under_way {
            if opened.open_deliveries.iter().any(|open| open.delivery.id == delivery.id) {
                continue;
            }
            ops.push(Op::Sending { delivery: delivery.clone(), attempt: 1 });
            opened.next_delivery = opened.next_delivery.max(delivery.id + 1);
            opened.open_deliveries.push(OpenDelivery {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Phase;
    use crate::state::{Attachment, SectionPhase, SectionRow};

    fn at(final_lsn: u64) -> Position {
        Position { final_lsn: Lsn(final_lsn), change_lsn: Lsn(final_lsn.saturating_sub(9)), ordinal: 3 }
    }

    fn opened(position: u64) -> Opened {
        let row = SectionRow {
            name: "s".into(),
            attachment: Attachment {
                table_oid: 1,
                table_name: "t".to_owned(),
                kind: "custom_metric".to_owned(),
                attach_lsn: None,
                columns: Vec::new(),
            },
            attached_at: None,
            phase: SectionPhase::Streaming,
            position: Some(at(position)),
            backfill_rows: 0,
            backfill_estimated: 0,
            backfill_started_at: None,
            totals: Totals::default(),
            publication_entry: None,
            paused: false,
            halted: None,
            last_delivered_at: None,
        };
        Opened { instance: None, sections: vec![row], open_deliveries: Vec::new(), next_delivery: 5 }
    }

    fn known(answered: u64, quarantined: u64, under_way: Vec<Delivery>) -> HashMap<String, KnownProgress> {
        let carried = KnownProgress { timeline: 1, answered: at(answered), quarantined: at(quarantined), under_way };
        HashMap::from([("s".to_owned(), carried)])
    }

    fn position(opened: &Opened) -> Position {
        opened.sections[0].position.unwrap()
    }

    #[test]
    fn what_was_delivered_is_not_read_again_up_to_the_promotion_and_no_further() {
        let mut state = opened(100);
        assert_eq!(catch_up(&mut state, &known(200, 100, vec![]), Some((1, Lsn(300)))).len(), 1);
        assert_eq!(position(&state), at(200));
        let mut state = opened(100);
        catch_up(&mut state, &known(200, 0, vec![]), Some((1, Lsn(150))));
        assert_eq!(position(&state).final_lsn, Lsn(149));
    }

    #[test]
    fn nothing_is_carried_over_a_lost_quarantine_or_from_another_timeline_or_backwards() {
        for (known, timeline) in [(known(200, 150, vec![]), 1), (known(200, 0, vec![]), 2), (known(90, 0, vec![]), 1)] {
            let mut state = opened(100);
            assert_eq!(catch_up(&mut state, &known, Some((timeline, Lsn(300)))), []);
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
        };
        let mut state = opened(100);
        let ops = catch_up(&mut state, &known(100, 0, vec![delivery.clone()]), Some((1, Lsn(300))));
        assert_eq!(ops, [Op::Sending { delivery: delivery.clone(), attempt: 1 }]);
        assert_eq!((state.open_deliveries.len(), state.next_delivery), (1, 10));
        assert_eq!(catch_up(&mut state, &known(100, 0, vec![delivery]), Some((1, Lsn(300)))), []);
    }
}
