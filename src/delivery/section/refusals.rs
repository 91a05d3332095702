//! Refused items: which they are, and when refusals count as the mapping's fault. Pure.
//!
//! * In: a 2xx that refuses items; a single item refused.
//! * Out: refused items in quarantine, the others delivered; or the section halted with nothing lost.
//! * Never: an item counted as delivered that may be the one refused.

use std::time::Duration;

use crate::delivery::section::doubt_brake::DoubtCourse;
use crate::delivery::section::step::{DeliveryStep, Sending};
use crate::delivery::section::{BAD_IN_A_ROW, SectionDelivery, Trouble};
use crate::planhat::{Answer, SinkRejection, match_refused};
use crate::state::{Op, Outcome};

impl SectionDelivery {
    /// Handles a 2xx that refuses items.
    pub(crate) fn partial(
        &mut self,
        sending: Sending,
        refused: &[SinkRejection],
        answer: &Answer,
        now: Duration,
        halt_probe: Duration,
        step: &mut DeliveryStep,
    ) {
        let items: Vec<&[u8]> = (0..sending.batch.len()).map(|index| sending.batch.item(index)).collect();
        let found = match_refused(&items, refused);
        let reasons: Vec<(usize, String)> =
            found.refused.into_iter().map(|(index, why)| (index, format!("refused: {why}"))).collect();
        if reasons.len() == sending.batch.len() {
            return self.all_refused(sending, reasons, answer, now + halt_probe, step);
        }
        self.recovered(step);
        let Some(said) = found.unresolved else {
            self.brake.answered();
            return self.end(sending, Outcome::Partial, answer, reasons, step);
        };
        // Smaller batches leave less unknown; of a single item no refusal is without an owner.
        if self.brake.doubt(sending.batch.len()) == DoubtCourse::Halt {
            self.probe_at = Some(now + self.brake.probe_after(halt_probe));
            let what = format!("Planhat refuses items and does not say which: {said}");
            let remedy = "compare the section's fields with Planhat's answer; it probes with one item and goes on by \
                          itself. `pg2planhat logs --outcome in_doubt` names the batches whose rows are unknown";
            self.note_halt(Trouble::new(what, remedy), step);
        }
        let why = format!("refused without saying which items: {said}; not sent again");
        self.unresolved(sending, reasons, &why, answer, step);
    }

    /// Every item was refused. Many of them in a row are the mapping's fault: those beyond stay where they are.
    fn all_refused(
        &mut self,
        mut sending: Sending,
        mut reasons: Vec<(usize, String)>,
        answer: &Answer,
        until: Duration,
        step: &mut DeliveryStep,
    ) {
        let room = BAD_IN_A_ROW.saturating_sub(self.bad_in_a_row) as usize;
        if room == 0 {
            return self.halt_as_mapping(sending, answer, until, step);
        }
        self.failures = 0;
        self.brake.answered();
        let all = sending.batch.len();
        let taken = all.min(room);
        self.bad_in_a_row += u32::try_from(taken).unwrap_or(BAD_IN_A_ROW);
        if taken < all {
            sending.batch = self.first_of(sending.batch, taken);
            reasons.truncate(taken);
            // The ledger's row is of these items alone.
            let delivery = self.delivery(&sending.batch, sending.id);
            step.ops.push(Op::Sending { delivery, attempt: sending.attempt });
            self.brake.halt();
            self.probe_at = Some(until);
            self.note_halt(mapping_trouble(answer), step);
        } else {
            self.probe_at = None;
            self.unhalt(step);
        }
        self.end(sending, Outcome::Quarantined, answer, reasons, step);
    }

    /// One item after the other is refused: it probes with what it holds, and quarantines nothing by that.
    pub(crate) fn halt_as_mapping(
        &mut self,
        sending: Sending,
        answer: &Answer,
        until: Duration,
        step: &mut DeliveryStep,
    ) {
        self.brake.halt();
        self.halt(sending, answer, mapping_trouble(answer), until, step);
    }
}

fn mapping_trouble(answer: &Answer) -> Trouble {
    let remedy = format!(
        "compare the section's fields with Planhat's answer ({}); mend the mapping and restart, or mend the data: the \
         section probes by itself",
        answer.message
    );
    Trouble::new("the mapping: one item after the other is refused", remedy)
}
