//! Values kept one for each section, or one for each phase. Pure.
//!
//! * In: a [`SectionId`] or a [`Phase`].
//! * Out: the value that belongs to it.
//! * Never: an index that comes from another vector: only a [`SectionId`] opens a [`BySection`].

use std::ops::{Index, IndexMut};

use crate::model::row::Phase;

/// One section: its place among those that a process has, the same in every [`BySection`]. In the order of the configuration;
/// those that came while it ran are behind the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId(pub usize);

/// One value for each configured section.
#[derive(Clone, Debug)]
pub struct BySection<T>(Vec<T>);

impl<T> BySection<T> {
    /// How many sections there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Adds a section's value behind the others.
    pub fn push(&mut self, value: T) -> SectionId {
        self.0.push(value);
        SectionId(self.0.len() - 1)
    }

    pub fn ids(&self) -> impl Iterator<Item = SectionId> + use<T> {
        (0..self.0.len()).map(SectionId)
    }

    /// The values, in the order of the configuration.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// The values, to be changed.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.0.iter_mut()
    }

    /// The values with their ids.
    pub fn entries(&self) -> impl Iterator<Item = (SectionId, &T)> {
        self.0.iter().enumerate().map(|(index, value)| (SectionId(index), value))
    }
}

impl<T> FromIterator<T> for BySection<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> BySection<T> {
        BySection(values.into_iter().collect())
    }
}

impl<T> Index<SectionId> for BySection<T> {
    type Output = T;

    #[inline]
    fn index(&self, id: SectionId) -> &T {
        &self.0[id.0]
    }
}

impl<T> IndexMut<SectionId> for BySection<T> {
    #[inline]
    fn index_mut(&mut self, id: SectionId) -> &mut T {
        &mut self.0[id.0]
    }
}

/// One value for each [`Phase`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByPhase<T> {
    backfill: T,
    stream: T,
    resync: T,
    retry: T,
    diff: T,
    repair: T,
}

impl<T> ByPhase<T> {
    /// A value made for each phase.
    pub fn from_fn(mut make: impl FnMut(Phase) -> T) -> ByPhase<T> {
        ByPhase {
            backfill: make(Phase::Backfill),
            stream: make(Phase::Stream),
            resync: make(Phase::Resync),
            retry: make(Phase::Retry),
            diff: make(Phase::Diff),
            repair: make(Phase::Repair),
        }
    }

    /// The values of all phases.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        [&self.backfill, &self.stream, &self.resync, &self.retry, &self.diff, &self.repair].into_iter()
    }
}

impl<T> Index<Phase> for ByPhase<T> {
    type Output = T;

    #[inline]
    fn index(&self, phase: Phase) -> &T {
        match phase {
            Phase::Backfill => &self.backfill,
            Phase::Stream => &self.stream,
            Phase::Resync => &self.resync,
            Phase::Retry => &self.retry,
            Phase::Diff => &self.diff,
            Phase::Repair => &self.repair,
        }
    }
}

impl<T> IndexMut<Phase> for ByPhase<T> {
    #[inline]
    fn index_mut(&mut self, phase: Phase) -> &mut T {
        match phase {
            Phase::Backfill => &mut self.backfill,
            Phase::Stream => &mut self.stream,
            Phase::Resync => &mut self.resync,
            Phase::Retry => &mut self.retry,
            Phase::Diff => &mut self.diff,
            Phase::Repair => &mut self.repair,
        }
    }
}
