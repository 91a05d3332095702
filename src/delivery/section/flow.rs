//! Whether a section's rows flow, and if not, why. Pure.
//!
//! * In: what an operator, the source, the sink and the memory's budget say.
//! * Out: [`Blocked`], the one list of reasons: status, readiness and logs read it.
//! * Never: a reason that hides another. A paused section can be stopped, too.

use std::fmt;

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub what: String,
    pub remedy: String,
}

impl Trouble {
    /// A trouble in two sentences.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Trouble {
        Trouble { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// A reason why a section does not flow, or not fully. In the order of weight: the heaviest one is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// It is switched off in the configuration.
    Off,
    /// Its table does not fit its mapping, or rows may have been skipped: it takes no rows until a person mends that. From
    /// the first row that it does not take, the slot waits for it.
    Stopped(Trouble),
    /// The sink takes nothing of it until its surroundings are mended; it probes and goes on by itself.
    Halted(Trouble),
    /// Its older rows cannot be read; that is tried again.
    BackfillFails(Trouble),
    /// It waits for something outside, to be attached or to read its older rows, and goes on by itself.
    Waiting(Trouble),
    /// Its rows flow, and because of it the application's own statements are refused.
    Harmful(Trouble),
    /// An operator paused it. The slot keeps WAL for it.
    Paused,
    /// Its table did not fit when the process began. Rows written before still flow.
    Misfit(Trouble),
    /// The sink did not take its last batch, which is sent again.
    Retrying(Trouble),
    /// Its memory was given to other sections while it could not send; the stream brings its rows again.
    Shed,
}

impl Blocked {
    /// Its place in the order of weight; also what tells one kind from another.
    fn weight(&self) -> u8 {
        match self {
            Blocked::Off => 0,
            Blocked::Stopped(_) => 1,
            Blocked::Halted(_) => 2,
            Blocked::BackfillFails(_) => 3,
            Blocked::Waiting(_) => 4,
            Blocked::Harmful(_) => 5,
            Blocked::Paused => 6,
            Blocked::Misfit(_) => 7,
            Blocked::Retrying(_) => 8,
            Blocked::Shed => 9,
        }
    }

    /// The text for a person about the section `name`; `None` where the state's word says it all.
    pub(crate) fn trouble(&self, name: &str) -> Option<Trouble> {
        match self {
            Blocked::Off | Blocked::Shed => None,
            Blocked::Paused => Some(Trouble::new(
                "paused by an operator; the slot keeps WAL for it",
                format!("pg2planhat resume {name}"),
            )),
            Blocked::Stopped(trouble)
            | Blocked::Halted(trouble)
            | Blocked::BackfillFails(trouble)
            | Blocked::Waiting(trouble)
            | Blocked::Harmful(trouble)
            | Blocked::Misfit(trouble)
            | Blocked::Retrying(trouble) => Some(trouble.clone()),
        }
    }
}

/// Everything that keeps a section's rows from flowing just now; at most one of a kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    blocks: Vec<Blocked>,
    takes_no_rows: bool,
}

impl Flow {
    /// The reasons, the heaviest first.
    pub(crate) fn blocks(&self) -> &[Blocked] {
        &self.blocks
    }

    /// Adds a reason, in the place of an earlier one of its kind. Returns whether that changes anything.
    pub(crate) fn block(&mut self, blocked: Blocked) -> bool {
        let at = self.blocks.partition_point(|other| other.weight() < blocked.weight());
        match self.blocks.get_mut(at) {
            Some(known) if *known == blocked => return false,
            Some(known) if known.weight() == blocked.weight() => *known = blocked,
            Some(_) | None => self.blocks.insert(at, blocked),
        }
        self.note();
        true
    }

    /// Takes away the reasons for which `is` holds. Returns whether there was one.
    pub(crate) fn unblock(&mut self, is: impl Fn(&Blocked) -> bool) -> bool {
        let before = self.blocks.len();
        self.blocks.retain(|blocked| !is(blocked));
        self.note();
        self.blocks.len() < before
    }

    fn has(&self, is: impl Fn(&Blocked) -> bool) -> bool {
        self.blocks.iter().any(is)
    }

    fn note(&mut self) {
        self.takes_no_rows = self.has(|blocked| matches!(blocked, Blocked::Off | Blocked::Stopped(_) | Blocked::Shed));
    }

    /// Whether streamed rows are taken in.
    #[inline]
    pub(crate) fn takes_rows(&self) -> bool {
        !self.takes_no_rows
    }

    pub(crate) fn is_off(&self) -> bool {
        self.has(|blocked| matches!(blocked, Blocked::Off))
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.has(|blocked| matches!(blocked, Blocked::Paused))
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.has(|blocked| matches!(blocked, Blocked::Stopped(_)))
    }

    pub(crate) fn is_shed(&self) -> bool {
        self.has(|blocked| matches!(blocked, Blocked::Shed))
    }

    /// Why the sink takes nothing of it.
    pub(crate) fn halted(&self) -> Option<&Trouble> {
        self.blocks.iter().find_map(|blocked| match blocked {
            Blocked::Halted(trouble) => Some(trouble),
            Blocked::Off
            | Blocked::Stopped(_)
            | Blocked::BackfillFails(_)
            | Blocked::Waiting(_)
            | Blocked::Harmful(_)
            | Blocked::Paused
            | Blocked::Misfit(_)
            | Blocked::Retrying(_)
            | Blocked::Shed => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(what: &str) -> Trouble {
        Trouble::new(what, "mend it")
    }

    #[test]
    fn the_heaviest_reason_comes_first_and_none_hides_another() {
        let mut flow = Flow::default();
        assert!(flow.takes_rows());
        for blocked in [Blocked::Shed, Blocked::Paused, Blocked::Stopped(trouble("a")), Blocked::Halted(trouble("b"))] {
            assert!(flow.block(blocked));
        }
        assert!(!flow.block(Blocked::Paused) && !flow.takes_rows());
        assert_eq!(flow.blocks()[0], Blocked::Stopped(trouble("a")));
        assert!(flow.block(Blocked::Stopped(trouble("c"))), "a new reason of a kind takes the place of the old one");
        assert_eq!(flow.blocks().len(), 4);
        assert!(flow.unblock(|blocked| matches!(blocked, Blocked::Stopped(_))));
        assert!(!flow.takes_rows(), "it has no memory yet");
        assert!(flow.unblock(|blocked| matches!(blocked, Blocked::Shed)) && flow.takes_rows());
        assert_eq!(flow.halted(), Some(&trouble("b")));
        assert!(flow.is_paused() && !flow.is_stopped() && !flow.is_off());
    }
}
