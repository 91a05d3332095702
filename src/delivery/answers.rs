//! Answers of the sink: which batch each belongs to, and whom it concerns beside. Pure.
//!
//! * In: the answer of a request, and the clock's reading.
//! * Out: the step of the batch whose turn it is; sections that may try again since the host answers.
//! * Never: a batch settled before its turn.

use std::time::Duration;

use crate::delivery::section::DeliveryStage;
use crate::delivery::section::followers::Turn;
use crate::delivery::{Action, Engine};
use crate::model::SectionId;
use crate::planhat::{Answer, Verdict};

/// The time between two sections that try again because the host has answered a third.
const HURRY_APART: Duration = Duration::from_millis(20);

impl Engine {
    /// A request has ended. An answer that comes before its batch's turn waits for it.
    pub fn verdict(&mut self, section: SectionId, id: i64, answer: &Answer, now: Duration, random: f64) {
        let its_turn = matches!(self.sections[section].stage(), DeliveryStage::Requesting(sending) if sending.id == id);
        if !its_turn {
            self.sections[section].answer_beside(id, answer);
            return;
        }
        self.take_turn(section, answer, now, random);
        while let Some(turn) = self.sections[section].next_turn() {
            match turn {
                Turn::Answered(answer) => {
                    self.take_turn(section, &answer, now, random);
                    // The batch before it was received after this one was not: there is nothing to wait for.
                    self.sections[section].hurry_after_success(now);
                }
                Turn::Unsent(batch) => {
                    let step = self.sections[section].settle_unsent(*batch);
                    self.follow(section, step, now);
                }
            }
        }
    }

    /// The answer to the batch whose turn it is.
    fn take_turn(&mut self, section: SectionId, answer: &Answer, now: Duration, random: f64) {
        let failed = self.sections[section].has_failed();
        let step = self.sections[section].verdict(answer, now, self.settings.halt_probe, random);
        if !matches!(answer.verdict, Verdict::Received | Verdict::Partial(_)) {
            self.actions.push_back(Action::Retry(section, answer.verdict.clone()));
        }
        if step.in_doubt > 0 {
            self.sections[section].count_in_doubt(step.in_doubt);
        }
        if failed && matches!(answer.verdict, Verdict::Received | Verdict::Partial(_)) {
            self.hurry_others(section, now);
        }
        self.sections[section].note_stuck(step.settled.is_some(), now);
        self.follow(section, step, now);
    }

    /// The host answers again, after it did not: the other sections need not wait out their pauses. One after the other, so that not all of
    /// them come at once.
    fn hurry_others(&mut self, answered: SectionId, now: Duration) {
        let mut hurried = 0;
        for id in self.sections.ids().filter(|id| *id != answered) {
            hurried += u32::from(self.sections[id].hurry_after_success(now + HURRY_APART * hurried));
        }
    }
}
