//! What a configuration that is read again changes of the sections, while they run. Pure.
//!
//! * In: sections as they are configured now.
//! * Out: the same engine, with them.
//! * Never: a row that waits given up, or sent twice.

use crate::config::Section;
use crate::delivery::*;

impl Engine {
    /// Adds a section behind the others.
    pub fn add_section(&mut self, section: SectionDelivery) -> SectionId {
        self.progress.add_section();
        let id = self.sections.push(section);
        self.limit_batches();
        id
    }

    /// Takes over when a section's batches are full, when they go, and what becomes of those in doubt.
    pub fn reconfigure(&mut self, id: SectionId, section: &Section) {
        self.sections[id].reconfigure(section);
        self.limit_batches();
    }

    /// Bounds the batches, so that sections that cannot send leave room to one that can: what is under way can't be shed, and
    /// of a backfill as much again waits behind it.
    pub fn limit_batches(&mut self) {
        let on = self.sections.iter().filter(|section| !section.is_off()).count();
        // An item weighs some more than its bytes.
        let share = self.settings.budget / (2 * on + 1) / 4 * 3;
        self.sections.iter_mut().for_each(|section| section.limit_batches(share as u64));
    }
}
