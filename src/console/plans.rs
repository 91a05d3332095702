//! Plans: actions that cannot be undone, each counted, that wait until a person confirms them.
//!
//! * In: an action that a person intends, counted; later that person's confirmation.
//! * Out: a plan's id; the plan, once.
//! * Never: a plan done twice, by another person, or after ten minutes; a number that nobody typed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::console::people::secret;
use crate::operations::{Mend, ResyncFrom, ResyncPlan};

/// A plan can be confirmed within this time.
const GOOD: Duration = Duration::from_secs(600);
/// At most this many plans wait. A further one drops the oldest.
const PLANS: usize = 500;

/// An action that a person intends.
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
    /// Writes the text to the file, if the file still has the digest `base`.
    Save {
        text: String,
        base: String,
        section: String,
    },
    /// Restarts the instance with the file that has this digest.
    Apply {
        sha256: String,
        /// What it does to rows, in words; empty where it harms none.
        harm: String,
    },
    /// Repairs the instance. `sure` demands that the person also states that the newer server is gone for good.
    Repair {
        how: Mend,
        sure: bool,
    },
}

/// The content of the re-sync form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResyncGiven {
    /// `time`, `key` or `all`.
    pub by: String,
    pub time: String,
    pub key: String,
}

/// The text that a person must type to confirm a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// Nothing: a press of the button is enough.
    Press,
    /// The number of rows.
    Number(u64),
    /// A name, where the number cannot be known.
    Name(String),
}

impl Confirmation {
    /// Returns whether `given` is the text that must be typed. Thousands separators are allowed.
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

    /// Returns whether this confirmation is enough for what must be confirmed `now`.
    pub(crate) fn covers(&self, now: &Confirmation) -> bool {
        match (self, now) {
            (_, Confirmation::Press) => true,
            (Confirmation::Number(planned), Confirmation::Number(now)) => !differs(*planned, *now),
            (Confirmation::Name(planned), Confirmation::Name(now)) => planned == now,
            (Confirmation::Press | Confirmation::Number(_) | Confirmation::Name(_), _) => false,
        }
    }

    /// Returns the text that must be typed; an empty one where a press is enough.
    pub(crate) fn word(&self) -> String {
        match self {
            Confirmation::Press => String::new(),
            Confirmation::Number(number) => number.to_string(),
            Confirmation::Name(name) => name.clone(),
        }
    }
}

/// An action that waits for its confirmation.
#[derive(Clone, Debug)]
pub(crate) struct ActionPlan {
    /// The name of the person who made the plan. Nobody else can confirm it.
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

/// All plans, by their ids.
#[derive(Default)]
pub(crate) struct Plans {
    waiting: HashMap<String, ActionPlan>,
    /// Plans that were confirmed: by whom, and when.
    confirmed: HashMap<String, (String, Instant)>,
}

impl Plans {
    /// Keeps a plan, and returns its id of 128 random bits.
    pub(crate) fn keep(&mut self, plan: ActionPlan) -> Option<String> {
        let now = plan.made;
        self.waiting.retain(|_, plan| now.saturating_duration_since(plan.made) < GOOD);
        self.confirmed.retain(|_, (_, at)| now.saturating_duration_since(*at) < GOOD);
        if self.waiting.len() >= PLANS
            && let Some(oldest) = self.waiting.iter().min_by_key(|(_, plan)| plan.made).map(|(id, _)| id.clone())
        {
            self.waiting.remove(&oldest);
        }
        let id: String = secret()?.chars().take(32).collect();
        self.waiting.insert(id.clone(), plan);
        Some(id)
    }

    /// Returns a person's plan, and keeps it.
    pub(crate) fn look(&self, id: &str, by: &str, now: Instant) -> Option<&ActionPlan> {
        let own = |plan: &&ActionPlan| plan.by == by && now.saturating_duration_since(plan.made) < GOOD;
        self.waiting.get(id).filter(own)
    }

    /// Removes a person's plan, and returns it.
    pub(crate) fn take(&mut self, id: &str, by: &str, now: Instant) -> Option<ActionPlan> {
        self.look(id, by, now)?;
        self.confirmed.insert(id.to_owned(), (by.to_owned(), now));
        self.waiting.remove(id)
    }

    /// Returns how long ago a person confirmed this plan; `None` for another's, an unknown or an old one.
    pub(crate) fn confirmed(&self, id: &str, by: &str, now: Instant) -> Option<Duration> {
        let (who, at) = self.confirmed.get(id)?;
        let since = now.saturating_duration_since(*at);
        (who == by && since < GOOD).then_some(since)
    }
}

/// Returns whether the number of rows has changed so much that a person must see the new one.
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
        assert_eq!(plans.confirmed(&id, "maria", now), None);
        assert!(plans.take(&id, "maria", now).is_some());
        assert!(plans.take(&id, "maria", now).is_none(), "used");
        let later = now + Duration::from_secs(7);
        assert_eq!(plans.confirmed(&id, "maria", later), Some(Duration::from_secs(7)));
        assert_eq!((plans.confirmed(&id, "support", now), plans.confirmed(&id, "maria", now + GOOD)), (None, None));
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let (mut plans, now) = (Plans::default(), Instant::now());
        let first = plans.keep(plan("m", now)).unwrap();
        for _ in 0..PLANS {
            plans.keep(plan("m", now + Duration::from_secs(1))).unwrap();
        }
        assert!(plans.waiting.len() <= PLANS);
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
    fn case_251_a_confirmation_covers_no_danger_that_came_later() {
        let (press, number, name) =
            (Confirmation::Press, Confirmation::Number(1000), Confirmation::Name("logins".to_owned()));
        for (confirmed, now, covers) in [
            (&press, &press, true),
            (&number, &press, true),
            (&press, &number, false),
            (&press, &name, false),
            (&name, &number, false),
            (&number, &name, false),
            (&number, &Confirmation::Number(1100), true),
            (&number, &Confirmation::Number(1101), false),
            (&name, &Confirmation::Name("seats".to_owned()), false),
        ] {
            assert_eq!(confirmed.covers(now), covers, "{confirmed:?} {now:?}");
        }
    }

    #[test]
    fn a_hundred_rows_or_one_percent_may_come_and_go() {
        for (planned, now, changed) in [(0, 100, false), (0, 101, true), (14, 0, false), (100_000, 101_000, false)] {
            assert_eq!(differs(planned, now), changed, "{planned} {now}");
        }
        assert!(differs(100_000, 98_999));
    }
}
