//! The state as the leader's writes make it: what `state::apply` does in SQL, in memory. Lists are applied whole, in order.

use std::collections::BTreeMap;

use pg2planhat::testing::model::{Lsn, NewestRead, Position, SectionName};
use pg2planhat::testing::state::{Delivery, Op, OpenDelivery, Outcome, Quarantined, SectionPhase, Totals};

#[derive(Clone, Debug)]
pub struct Section {
    pub attach: Lsn,
    pub position: Option<Position>,
    pub phase: SectionPhase,
    /// The keys that the stream brought beside its backfill, as they were written.
    pub streamed: Vec<Vec<u8>>,
    pub totals: Totals,
}

#[derive(Clone, Debug)]
pub struct Ledger {
    pub delivery: Delivery,
    pub outcome: Outcome,
    pub under_way: bool,
    pub attempts: u32,
    pub unresolved: bool,
}

#[derive(Debug, Default)]
pub struct State {
    pub checkpoint: Lsn,
    /// What was read of the log last.
    pub newest: Option<NewestRead>,
    pub last_delivery: i64,
    pub sections: BTreeMap<String, Section>,
    pub ledger: BTreeMap<i64, Ledger>,
    pub quarantine: BTreeMap<i64, Quarantined>,
    pub next_quarantine: i64,
    /// Ledger rows that were ever recorded as in doubt or held, in order: what the process names.
    pub named: Vec<i64>,
    /// Those of them that are in doubt for good.
    pub unresolved: Vec<i64>,
}

impl State {
    fn section(&mut self, name: &SectionName) -> &mut Section {
        self.sections.get_mut(name.as_str()).unwrap_or_else(|| panic!("a write for the unknown section {name}"))
    }

    /// One transaction.
    pub fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            self.apply_one(op);
        }
    }

    fn apply_one(&mut self, op: &Op) {
        match op {
            Op::Sending { delivery, attempt } => {
                self.last_delivery = self.last_delivery.max(delivery.id);
                if let Some(known) = self.ledger.get(&delivery.id) {
                    let open = matches!(known.outcome, Outcome::Sending | Outcome::InDoubt);
                    assert!(open, "ledger row {} has ended ({:?}) and is sent again", delivery.id, known.outcome);
                }
                let row = Ledger {
                    delivery: delivery.clone(),
                    outcome: Outcome::Sending,
                    under_way: true,
                    attempts: *attempt,
                    unresolved: false,
                };
                self.ledger.insert(delivery.id, row);
            }
            Op::Retrying { id, .. } => {
                if let Some(row) = self.ledger.get_mut(id)
                    && row.outcome == Outcome::Sending
                {
                    row.under_way = false;
                }
            }
            Op::Ended { id, outcome, .. } => {
                let row = self.ledger.get_mut(id).unwrap_or_else(|| panic!("ledger row {id} ends and is not there"));
                let open = matches!(row.outcome, Outcome::Sending | Outcome::InDoubt);
                assert!(open, "ledger row {id} has ended ({:?}) and ends again ({outcome:?})", row.outcome);
                if matches!(outcome, Outcome::InDoubt | Outcome::Held) && row.outcome == Outcome::Sending {
                    self.named.push(*id);
                }
                (row.outcome, row.under_way) = (*outcome, false);
            }
            Op::Unresolved { id, .. } => {
                let row = self.ledger.get_mut(id).unwrap_or_else(|| panic!("ledger row {id} ends and is not there"));
                assert_eq!(row.outcome, Outcome::Sending, "ledger row {id} has ended");
                self.named.push(*id);
                self.unresolved.push(*id);
                (row.outcome, row.under_way, row.unresolved) = (Outcome::InDoubt, false, true);
            }
            Op::Withdrawn { id } => {
                if self.ledger.get(id).is_some_and(|row| row.outcome == Outcome::Sending && !row.under_way) {
                    self.ledger.remove(id);
                }
            }
            Op::SectionCheckpoint { section, position, phase, add } => {
                let row = self.section(section);
                row.position = row.position.max(*position);
                if let Some(phase) = phase {
                    row.phase = phase.clone();
                }
                row.totals.delivered += add.delivered;
                row.totals.quarantined += add.quarantined;
                row.totals.in_doubt += add.in_doubt;
                row.totals.resent += add.resent;
            }
            Op::Streamed { section, all, keys } => {
                let row = self.section(section);
                if *all {
                    row.streamed.clear();
                }
                row.streamed.extend((!keys.is_empty()).then(|| keys.clone()));
            }
            Op::Quarantine(row) => {
                self.next_quarantine += 1;
                self.quarantine.insert(self.next_quarantine, row.clone());
            }
            Op::Unquarantine(ids) => {
                for id in ids {
                    assert!(self.quarantine.remove(id).is_some(), "quarantined row {id} leaves twice");
                }
            }
            Op::Attach { section, to, phase } => {
                let attach = to.attach_lsn.expect("it waits only where the world says so");
                let totals = self.sections.get(section.as_str()).map(|row| row.totals).unwrap_or_default();
                let row = Section { attach, position: None, phase: phase.clone(), streamed: Vec::new(), totals };
                self.sections.insert(section.to_string(), row);
            }
            Op::Keys { .. }
            | Op::Published { .. }
            | Op::Halted { .. }
            | Op::Handled { .. }
            | Op::Defined { .. }
            | Op::RulesSince { .. } => {}
            Op::CoverGaps { .. } | Op::CloseGaps { .. } => {}
            Op::OpenGap(_) | Op::AttachXids { .. } | Op::Seen { .. } | Op::Forget { .. } | Op::Compared { .. } => {}
            Op::Checkpoint { checkpoint, newest, .. } => {
                self.checkpoint = self.checkpoint.max(*checkpoint);
                self.newest = newest.or(self.newest);
            }
        }
    }

    /// What a leader finds at its start.
    pub fn open_deliveries(&self) -> Vec<OpenDelivery> {
        let open = self
            .ledger
            .values()
            .filter(|row| matches!(row.outcome, Outcome::Sending | Outcome::InDoubt) && !row.unresolved);
        open.map(|row| OpenDelivery {
            delivery: row.delivery.clone(),
            outcome: row.outcome,
            under_way: row.under_way,
            attempts: row.attempts,
            epoch: 1,
        })
        .collect()
    }
}
