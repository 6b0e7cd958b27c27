//! The end of the log in memory: what one reader has read for all that are as far.

use sillage_core::{Filter, Recorded};
use std::collections::{BTreeMap, VecDeque};

/// How many entries are kept, and about how many bytes of payload.
const ENTRIES: usize = 4096;
const BYTES: usize = 8 << 20;

/// Readers that are farther behind than this read by themselves.
pub(crate) const STEP: u64 = 2048;

/// Every entry after one position up to another.
#[derive(Default)]
pub(crate) struct Recent {
    after: u64,
    through: u64,
    entries: VecDeque<Recorded>,
    bytes: usize,
    trimmed_before: u64,
    /// How often entries of the log had been removed or put back when it began.
    rewritten: u64,
}

impl Recent {
    /// Up to where entries are here.
    pub(crate) fn through(&self) -> u64 {
        self.through
    }

    /// Whether all that comes after this position is here, as far as anything is.
    pub(crate) fn has(&self, after: u64) -> bool {
        self.after <= after && after <= self.through
    }

    /// Forgets everything, and begins after this position of a log that was rewritten so often.
    pub(crate) fn begin(&mut self, after: u64, rewritten: u64) {
        *self = Recent { after, through: after, rewritten, ..Recent::default() };
    }

    /// Whether what is missing up to here is soon read.
    pub(crate) fn is_near(&self, end: u64) -> bool {
        end.saturating_sub(self.through) <= STEP
    }

    /// Entries after a position.
    pub(crate) fn later(&self, after: u64) -> impl Iterator<Item = &Recorded> {
        let start = self.entries.partition_point(|entry| entry.position.0 <= after);
        self.entries.range(start..)
    }

    /// Whether entries that are here may be gone, or others there.
    pub(crate) fn is_outdated(&self, rewritten: u64) -> bool {
        self.rewritten != rewritten
    }

    /// Entries without a stream were gone up to here when the last were read.
    pub(crate) fn trimmed_before(&self) -> u64 {
        self.trimmed_before
    }

    /// Adds what comes next, up to a position.
    pub(crate) fn extend(&mut self, entries: Vec<Recorded>, through: u64, trimmed_before: u64) {
        self.trimmed_before = trimmed_before;
        self.bytes += entries.iter().map(|entry| entry.body.size()).sum::<usize>();
        self.entries.extend(entries);
        self.through = through;
        while self.entries.len() > ENTRIES || self.bytes > BYTES {
            let Some(first) = self.entries.pop_front() else { return };
            self.bytes -= first.body.size();
            self.after = first.position.0;
        }
    }

    /// Entries after one position up to another that match, at most so many.
    pub(crate) fn read(
        &self,
        (after, until): (u64, u64),
        filter: &Filter,
        max: usize,
    ) -> Vec<Recorded> {
        let later = self.later(after).take_while(|entry| entry.position.0 <= until);
        later.filter(|entry| filter.takes(entry)).take(max).cloned().collect()
    }
}

/// What this process has appended: it need not be read to be known.
#[derive(Default)]
pub(crate) struct Own {
    entries: BTreeMap<u64, Recorded>,
    bytes: usize,
}

impl Own {
    pub(crate) fn add(&mut self, appended: Vec<Recorded>) {
        for entry in appended {
            self.bytes += entry.body.size();
            if let Some(other) = self.entries.insert(entry.position.0, entry) {
                self.bytes -= other.body.size();
            }
        }
        while self.entries.len() > ENTRIES || self.bytes > BYTES {
            let Some((_, first)) = self.entries.pop_first() else { return };
            self.bytes -= first.body.size();
        }
    }

    /// Takes all up to a position out: what came after another one, if nothing else can be there.
    pub(crate) fn take(&mut self, after: u64, through: u64) -> Option<Vec<Recorded>> {
        let later = self.entries.split_off(&(through + 1));
        let taken = std::mem::replace(&mut self.entries, later);
        self.bytes -= taken.values().map(|entry| entry.body.size()).sum::<usize>();
        let wanted: Vec<_> = taken.into_values().filter(|entry| entry.position.0 > after).collect();
        (wanted.len() as u64 == through - after).then_some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sillage_core::{Message, MessageId, Position, Timestamp};

    fn entry(position: u64, payload: usize) -> Recorded {
        let message = Message {
            id: MessageId::new(position.to_string()),
            source: "test".into(),
            name: if position.is_multiple_of(2) { "even" } else { "odd" }.into(),
            version: 1,
            topic: None,
            key: None,
            time: Timestamp::default(),
            correlation_id: "flow".into(),
            causation_id: None,
            operation_id: None,
            traceparent: None,
            headers: vec![],
            payload: vec![0; payload].into(),
        };
        Recorded::new(Position(position), None, message.into())
    }

    fn positions(entries: &[Recorded]) -> Vec<u64> {
        entries.iter().map(|entry| entry.position.0).collect()
    }

    #[test]
    fn what_is_here_is_known_and_read() {
        let mut recent = Recent::default();
        recent.begin(10, 0);
        recent.extend(vec![entry(12, 1), entry(13, 1), entry(16, 1)], 17, 0);
        assert!(recent.has(10) && recent.has(17) && !recent.has(9) && !recent.has(18));
        let odd = Filter { names: vec!["odd".into()], ..Filter::default() };
        assert_eq!(positions(&recent.read((10, u64::MAX), &Filter::default(), 2)), [12, 13]);
        assert_eq!(positions(&recent.read((12, u64::MAX), &Filter::default(), 9)), [13, 16]);
        assert_eq!(positions(&recent.read((10, u64::MAX), &odd, 9)), [13]);
        assert_eq!(positions(&recent.read((10, 13), &Filter::default(), 9)), [12, 13]);
    }

    #[test]
    fn the_oldest_goes_first_by_number_and_by_size() {
        let mut recent = Recent::default();
        recent.begin(0, 0);
        recent.extend((1..=5000).map(|position| entry(position, 1)).collect(), 5000, 0);
        assert!(!recent.has(903) && recent.has(904));
        recent.extend(vec![entry(5001, BYTES)], 5001, 0);
        assert!(!recent.has(5000) && recent.has(5001));
        assert_eq!(recent.read((5001, u64::MAX), &Filter::default(), 1), []);
    }

    #[test]
    fn what_was_appended_here_is_all_there_is_or_is_read() {
        let mut own = Own::default();
        own.add(vec![entry(3, 1), entry(4, 1)]);
        own.add(vec![entry(2, 1), entry(7, 1)]);
        assert_eq!(positions(&own.take(2, 4).unwrap()), [3, 4]);
        assert_eq!(own.take(4, 7), None, "5 and 6 may be of others");
        assert_eq!(own.take(6, 7), None, "what was passed is gone");
        own.add((8..=5000).map(|position| entry(position, 1)).collect());
        own.add(vec![entry(5001, BYTES)]);
        assert_eq!(
            (own.take(5000, 5001), own.bytes),
            (None, 0),
            "there is not room for everything"
        );
    }
}
