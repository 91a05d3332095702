//! The brake of the mapping: one row after the other that becomes no item is no matter of these rows. Pure.
//!
//! * In: whether each new row became an item; a person's word that such rows go into quarantine.
//! * Out: which row is kept back, and why the section stops before it.
//! * Never: a row kept back that fits; more rows in quarantine than the brake of the sink's refusals puts there.

use std::fmt;

use crate::delivery::section::{BAD_IN_A_ROW, SectionDelivery, Trouble};
use crate::mapping::Mapping;
use crate::model::{CommitTime, Row};

/// How many new rows in a row became no item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MappingBrake {
    in_a_row: u32,
    /// A person lets such rows go into quarantine, until one is an item.
    is_released: bool,
}

impl MappingBrake {
    /// A row was taken; whether the mapping made no item of it.
    #[inline]
    pub(crate) fn taken(&mut self, is_refused: bool) {
        if is_refused {
            self.in_a_row = self.in_a_row.saturating_add(1);
        } else {
            *self = MappingBrake::default();
        }
    }

    /// Whether the next row that is no item is kept back.
    #[inline]
    fn holds(self) -> bool {
        self.in_a_row >= BAD_IN_A_ROW && !self.is_released
    }
}

impl SectionDelivery {
    /// Why this new row is kept back: the mapping makes no item of it, nor of those before it.
    #[inline]
    pub(crate) fn keeps_back(&self, mapping: &Mapping, row: &Row<'_>, time: CommitTime) -> Option<Trouble> {
        if self.mapping_brake.holds() { self.judge_next(mapping, row, time) } else { None }
    }

    fn judge_next(&self, mapping: &Mapping, row: &Row<'_>, time: CommitTime) -> Option<Trouble> {
        let refused = match mapping.left_out(row) {
            Ok(Some(_)) => return None,
            Ok(None) => mapping.encode(row, time, &mut Vec::new()).err()?,
            Err(error) => error,
        };
        refused.is_of_the_mapping().then(|| self.trouble(format_args!("{} {}", refused.field, refused.reason.as_str())))
    }

    fn trouble(&self, refused: fmt::Arguments<'_>) -> Trouble {
        let name = &self.name;
        Trouble::new(
            format!("the mapping: one row after the other is refused ({refused})"),
            format!(
                "compare the section's fields with its table (pg2planhat preview {name}); mend the mapping and send SIGHUP, \
                 or mend the table's rows; `on_null: skip` leaves rows out whose mandatory value is NULL. Then \
                 pg2planhat resume {name}: what is no item even then goes into quarantine, until a row is one. Those that \
                 are there: pg2planhat quarantine list --section {name}"
            ),
        )
    }

    /// Stops before a row that is kept back.
    pub(crate) fn stop_by_mapping(&mut self, trouble: Trouble) {
        self.stop(trouble);
        self.is_stopped_by_mapping = true;
    }

    /// Whether it is stopped before a row that its brake keeps back.
    pub fn is_stopped_by_mapping(&self) -> bool {
        self.is_stopped_by_mapping
    }

    /// A person has looked: rows that are no items go into quarantine, until one is.
    pub(crate) fn release_mapping_brake(&mut self) {
        self.mapping_brake.is_released = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_210_ten_in_a_row_hold_the_next_until_a_person_says_so_and_one_that_fits_begins_anew() {
        let mut brake = MappingBrake::default();
        for _ in 1..BAD_IN_A_ROW {
            brake.taken(true);
            assert!(!brake.holds());
        }
        brake.taken(false);
        for _ in 0..BAD_IN_A_ROW {
            assert!(!brake.holds(), "they were not in a row");
            brake.taken(true);
        }
        assert!(brake.holds());
        brake.is_released = true;
        brake.taken(true);
        assert!(!brake.holds(), "a person let them go");
        brake.taken(false);
        for _ in 0..BAD_IN_A_ROW {
            brake.taken(true);
        }
        assert!(brake.holds(), "it was let go until one fits");
    }
}
