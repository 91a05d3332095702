//! What waits for a person's word: each thing that cannot be undone, with the number that says how much it is.
//!
//! * In: what somebody means to do, counted; later that person's word.
//! * Out: a plan's id; the plan, once.
//! * Never: a plan done twice, by somebody else, or after ten minutes; a number that nobody typed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::console::people::secret;
use crate::operations::{Mend, ResyncFrom, ResyncPlan};

/// A plan is good for so long.
const GOOD: Duration = Duration::from_secs(600);
/// Plans at once; the oldest makes room.
const PLANS: usize = 500;

/// What somebody means to do.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    Resync {
        section: String,
        from: ResyncFrom,
        given: ResyncGiven,
        plan: ResyncPlan,
    },
    Retry {
        ids: Vec<i64>,
        doubtful: u64,
    },
    Drop {
        ids: Vec<i64>,
    },
    /// The file gets this text, where it is still the one with the digest `base`.
    Save {
        text: String,
        base: String,
        section: String,
    },
    /// The instance begins anew with the file of this digest.
    Apply {
        sha256: String,
    },
    /// `sure`: somebody must say, too, that the newer server is gone for good.
    Repair {
        how: Mend,
        sure: bool,
    },
}

/// A re-sync's form as it was filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResyncGiven {
    /// `time`, `key` or `all`.
    pub by: String,
    pub time: String,
    pub key: String,
}

/// What has to be typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// Nothing: a press of the button will do.
    Press,
    /// The number of rows.
    Number(u64),
    /// A name, where the number cannot be known.
    Name(String),
}

impl Confirmation {
    /// Whether this was typed. Separators of thousands are no mistake.
    pub(crate) fn fits(&self, given: &str) -> bool {
        match self {
            Confirmation::Press => true,
            Confirmation::Number(number) => {
                let digits: String = given
                    .chars()
                    .filter(|c| !c.is_whitespace() && !matches!(c, ',' | '.' | '_' | '\'' | '’'))
                    .collect();
                digits == number.to_string()
            }
            Confirmation::Name(name) => given.trim() == name,
        }
    }

    /// What is to be typed; empty where nothing is.
    pub(crate) fn word(&self) -> String {
        match self {
            Confirmation::Press => String::new(),
            Confirmation::Number(number) => number.to_string(),
            Confirmation::Name(name) => name.clone(),
        }
    }
}

/// A plan.
#[derive(Clone, Debug)]
pub(crate) struct ActionPlan {
    /// Who made it: nobody else does it.
    pub by: String,
    pub deed: Deed,
    pub confirmation: Confirmation,
    made: Instant,
}

impl ActionPlan {
    pub(crate) fn new(by: &str, deed: Deed, confirmation: Confirmation, now: Instant) -> ActionPlan {
        ActionPlan { by: by.to_owned(), deed, confirmation, made: now }
    }
}

/// All plans that wait.
#[derive(Default)]
pub(crate) struct Plans(HashMap<String, ActionPlan>);

impl Plans {
    /// Keeps a plan; its id, of 128 random bits.
    pub(crate) fn keep(&mut self, plan: ActionPlan) -> Option<String> {
        let now = plan.made;
        self.0.retain(|_, plan| now.saturating_duration_since(plan.made) < GOOD);
        if self.0.len() >= PLANS
            && let Some(oldest) = self.0.iter().min_by_key(|(_, plan)| plan.made).map(|(id, _)| id.clone())
        {
            self.0.remove(&oldest);
        }
        let id: String = secret()?.chars().take(32).collect();
        self.0.insert(id.clone(), plan);
        Some(id)
    }

    /// Somebody's plan, which stays.
    pub(crate) fn look(&self, id: &str, by: &str, now: Instant) -> Option<&ActionPlan> {
        let own = |plan: &&ActionPlan| plan.by == by && now.saturating_duration_since(plan.made) < GOOD;
        self.0.get(id).filter(own)
    }

    /// Somebody's plan, which is used up by this.
    pub(crate) fn take(&mut self, id: &str, by: &str, now: Instant) -> Option<ActionPlan> {
        self.look(id, by, now)?;
        self.0.remove(id)
    }
}

/// Whether the world has changed so much since it was counted that a person must see the new number.
pub(crate) fn differs(planned: u64, now: u64) -> bool {
    planned.abs_diff(now) > (planned / 100).max(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(by: &str, now: Instant) -> ActionPlan {
        ActionPlan::new(by, Deed::Drop { ids: vec![1] }, Confirmation::Number(1234), now)
    }

    #[test]
    fn a_plan_is_done_once_by_who_made_it_within_ten_minutes() {
        let (mut plans, now) = (Plans::default(), Instant::now());
        let id = plans.keep(plan("maria", now)).unwrap();
        assert_eq!(id.len(), 32);
        assert!(plans.take(&id, "support", now).is_none(), "another's");
        assert!(plans.look(&id, "maria", now).is_some());
        assert!(plans.look(&id, "maria", now + GOOD).is_none(), "too old");
        assert!(plans.take(&id, "maria", now).is_some());
        assert!(plans.take(&id, "maria", now).is_none(), "used");
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let (mut plans, now) = (Plans::default(), Instant::now());
        let first = plans.keep(plan("m", now)).unwrap();
        for _ in 0..PLANS {
            plans.keep(plan("m", now + Duration::from_secs(1))).unwrap();
        }
        assert!(plans.0.len() <= PLANS);
        assert!(plans.look(&first, "m", now).is_none());
    }

    #[test]
    fn the_number_is_typed_as_a_person_writes_it() {
        let number = Confirmation::Number(281_899);
        for fits in ["281899", " 281,899 ", "281 899", "281.899", "281’899"] {
            assert!(number.fits(fits), "{fits}");
        }
        for not in ["", "281898", "yes", "2818990", "-281899"] {
            assert!(!number.fits(not), "{not}");
        }
        assert!(Confirmation::Press.fits(""));
        assert!(Confirmation::Name("slot".into()).fits(" slot ") && !Confirmation::Name("slot".into()).fits("Slot"));
    }

    #[test]
    fn a_hundred_rows_or_one_percent_may_come_and_go() {
        for (planned, now, changed) in [(0, 100, false), (0, 101, true), (14, 0, false), (100_000, 101_000, false)] {
            assert_eq!(differs(planned, now), changed, "{planned} {now}");
        }
        assert!(differs(100_000, 98_999));
    }
}
