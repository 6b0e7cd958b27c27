//! How far a partition is finished: the lowest unfinished delivery, in order of delivery.
//!
//! Offsets may have gaps (compaction, filters), so the order of delivery counts, not arithmetic.

use serde::{Deserialize, Serialize};
use sillage_core::Offset;
use std::collections::VecDeque;

/// What became of a delivery, for the tally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Done,
    Parked,
    Ignored,
    Duplicate,
    /// No delivery at all: nothing comes up to there.
    Nothing,
}

/// How many deliveries the watermark has passed, by what became of them.
///
/// `received` is always the sum of the others: each is counted when the watermark passes it, or
/// when it is settled, where a broker is told of each by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// All of them.
    pub received: u64,
    /// Handled, and their effects committed.
    pub done: u64,
    /// Set aside with their key; what became of them since is in the inbox.
    pub parked: u64,
    /// Without a handler here.
    pub ignored: u64,
    /// Decided before.
    pub duplicates: u64,
}

impl std::ops::Add for Tally {
    type Output = Tally;
    fn add(self, other: Tally) -> Tally {
        Tally {
            received: self.received + other.received,
            done: self.done + other.done,
            parked: self.parked + other.parked,
            ignored: self.ignored + other.ignored,
            duplicates: self.duplicates + other.duplicates,
        }
    }
}

impl Tally {
    fn count(&mut self, fate: Fate) {
        self.received += u64::from(fate != Fate::Nothing);
        match fate {
            Fate::Nothing => {}
            Fate::Done => self.done += 1,
            Fate::Parked => self.parked += 1,
            Fate::Ignored => self.ignored += 1,
            Fate::Duplicate => self.duplicates += 1,
        }
    }
}

/// Deliveries of one partition between the watermark and the newest.
#[derive(Debug, Default)]
pub(crate) struct Watermark {
    first: u64,
    entries: VecDeque<(Offset, Option<Fate>)>,
    passed: Option<Offset>,
    /// It is not only what it started with.
    has_moved: bool,
    tally: Tally,
}

impl Watermark {
    pub(crate) fn starting(passed: Option<Offset>, tally: Tally) -> Self {
        Watermark { passed, tally, ..Watermark::default() }
    }

    /// A delivery arrived; the answer names it in [`Watermark::finish`].
    pub(crate) fn push(&mut self, offset: Offset) -> u64 {
        self.entries.push_back((offset, None));
        self.first + self.entries.len() as u64 - 1
    }

    /// A delivery arrived and is finished already.
    pub(crate) fn pass(&mut self, offset: Offset, fate: Fate) {
        if self.entries.is_empty() {
            self.first += 1;
            self.passed = Some(offset);
            self.has_moved = true;
            self.tally.count(fate);
        } else {
            self.entries.push_back((offset, Some(fate)));
        }
    }

    /// A delivery is finished. True where the watermark moved.
    pub(crate) fn finish(&mut self, number: u64, fate: Fate) -> bool {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.1.get_or_insert(fate);
        }
        let before = self.first;
        while let Some((offset, Some(fate))) = self.entries.front().copied() {
            self.entries.pop_front();
            self.first += 1;
            self.passed = Some(offset);
            self.has_moved = true;
            self.tally.count(fate);
        }
        self.first != before
    }

    /// Everything delivered up to here is finished.
    pub(crate) fn passed(&self) -> Option<Offset> {
        self.passed
    }

    /// The same, where it has moved since it started: what it started with may be of a topic that was
    /// deleted and made anew, where other deliveries have those offsets.
    pub(crate) fn passed_here(&self) -> Option<Offset> {
        self.passed.filter(|_| self.has_moved)
    }

    /// What the watermark has passed.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// What is finished, also where it waits for what came before it.
    pub(crate) fn tally_of_finished(&self) -> Tally {
        let mut tally = self.tally;
        self.entries.iter().filter_map(|(_, fate)| *fate).for_each(|fate| tally.count(fate));
        tally
    }

    /// How many deliveries there are from the oldest unfinished one on.
    pub(crate) fn span(&self) -> usize {
        self.entries.len()
    }

    /// The oldest unfinished delivery.
    pub(crate) fn oldest(&self) -> Option<Offset> {
        self.entries.front().map(|(offset, _)| *offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the order of finishing and the gaps between offsets: the watermark is the
        /// offset before the first unfinished delivery, and the tally counts what it passed.
        #[test]
        fn never_passes_unfinished_work(
            gaps in prop::collection::vec(1u64..5, 1..60),
            order in any::<u64>(),
        ) {
            let mut offset = 0;
            let offsets: Vec<_> = gaps.iter().map(|gap| { offset += gap; Offset(offset) }).collect();
            let mut watermark = Watermark::default();
            let numbers: Vec<_> = offsets.iter().map(|offset| watermark.push(*offset)).collect();
            let mut left: Vec<usize> = (0..numbers.len()).collect();
            let mut finished = vec![false; numbers.len()];
            let mut seed = order;
            while !left.is_empty() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let index = left.swap_remove(usize::try_from(seed >> 33).unwrap() % left.len());
                finished[index] = true;
                watermark.finish(numbers[index], Fate::Done);
                let prefix = finished.iter().take_while(|done| **done).count();
                let expected = prefix.checked_sub(1).map(|last| offsets[last]);
                prop_assert_eq!(watermark.passed(), expected);
                prop_assert_eq!(watermark.tally().received, prefix as u64);
                let done = finished.iter().filter(|done| **done).count();
                prop_assert_eq!(watermark.tally_of_finished().received, done as u64);
                prop_assert_eq!(watermark.span(), numbers.len() - prefix);
                prop_assert_eq!(watermark.oldest(), offsets.get(prefix).copied());
            }
        }
    }

    #[test]
    fn what_is_passed_waits_for_what_was_delivered_before() {
        let mut watermark = Watermark::default();
        watermark.pass(Offset(5), Fate::Nothing);
        assert_eq!(watermark.passed(), Some(Offset(5)));
        let number = watermark.push(Offset(7));
        watermark.pass(Offset(90), Fate::Nothing);
        assert_eq!(watermark.passed(), Some(Offset(5)));
        watermark.finish(number, Fate::Done);
        assert_eq!(watermark.passed(), Some(Offset(90)));
        assert_eq!(watermark.tally(), Tally { received: 1, done: 1, ..Tally::default() });
    }

    #[test]
    fn finishing_twice_or_something_unknown_changes_nothing() {
        let mut watermark = Watermark::default();
        let first = watermark.push(Offset(7));
        assert!(watermark.finish(first, Fate::Done));
        assert!(!watermark.finish(first, Fate::Parked));
        assert!(!watermark.finish(99, Fate::Done));
        assert_eq!(watermark.tally(), Tally { received: 1, done: 1, ..Tally::default() });
    }
}
