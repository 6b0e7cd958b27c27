//! What a process knows of how a log has grown, so that nobody is woken for entries of others.

use crate::{Filter, Page, Position, Recorded};
use std::collections::VecDeque;

/// So many positions later a reader is told all the same, that its place may move; and so many
/// entries are remembered.
const QUIET: u64 = 512;
/// Of so many bytes together.
const BYTES: usize = 8 << 20;

/// The last entries of a log, as far as this process has seen them appended.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// Every growth up to here was reported.
    through: u64,
    /// Each entry from here to `through` is in `entries`.
    known_after: u64,
    entries: VecDeque<Recorded>,
    bytes: usize,
}

impl Growth {
    /// Up to where growth was reported.
    pub(crate) fn through(&self) -> Position {
        Position(self.through)
    }

    /// The log has grown at least to here, and nobody knows by what.
    pub(crate) fn grown(&mut self, through: Position) {
        if through.0 > self.through {
            *self = Growth { through: through.0, known_after: through.0, ..Growth::default() };
        }
    }

    /// The log has grown from `after` to `through`: by these entries, in their order, and by no
    /// other.
    pub(crate) fn appended(
        &mut self,
        after: Position,
        through: Position,
        entries: impl IntoIterator<Item = Recorded>,
    ) {
        self.grown(after);
        let last = self.through;
        if through.0 <= last {
            return;
        }
        self.through = through.0;
        for entry in entries.into_iter().filter(|entry| entry.position.0 > last) {
            self.bytes += entry.body.size();
            self.entries.push_back(entry);
        }
        while self.entries.len() as u64 > QUIET || self.bytes > BYTES {
            let Some(first) = self.entries.pop_front() else { return };
            self.bytes -= first.body.size();
            self.known_after = first.position.0;
        }
    }

    /// Entries after a position that the filter takes, at most `max`; `None` where not all of them
    /// are here.
    pub(crate) fn page(&self, after: Position, filter: &Filter, max: usize) -> Option<Page> {
        if after.0 < self.known_after || max == 0 {
            return None;
        }
        let taken = self.later(after.0).filter(|entry| filter.takes(entry));
        let entries: Vec<_> = taken.take(max).cloned().collect();
        let through = match entries.last() {
            Some(last) if entries.len() == max => last.position,
            _ => self.through().max(after),
        };
        Some(Page { entries, through, trimmed_before: Position(0) })
    }

    fn later(&self, after: u64) -> impl Iterator<Item = &Recorded> {
        let start = self.entries.partition_point(|entry| entry.position.0 <= after);
        self.entries.range(start..)
    }
}

/// A reader that waits for entries after its position.
#[derive(Debug)]
pub(crate) struct Waiting {
    position: u64,
    /// No entry up to here is for it.
    seen: u64,
    filter: Filter,
}

impl Waiting {
    /// For what the filter takes of the entries after this position.
    pub(crate) fn new(position: Position, filter: Filter) -> Self {
        Waiting { position: position.0, seen: position.0, filter }
    }

    /// Whether it should read: there is, or may be, something for it, or its place can move by much.
    pub(crate) fn is_over(&mut self, growth: &Growth) -> bool {
        if growth.through <= self.seen {
            return false;
        }
        if self.seen < growth.known_after || growth.through - self.position >= QUIET {
            return true;
        }
        let seen = std::mem::replace(&mut self.seen, growth.through);
        growth.later(seen).any(|entry| self.filter.takes(entry))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Message, MessageId, Timestamp};
    use proptest::prelude::*;

    pub(crate) fn entry(position: u64, topic: u8, payload: usize) -> Recorded {
        let message = Message {
            id: MessageId::new(position.to_string()),
            source: "test".into(),
            name: "n".into(),
            version: 1,
            topic: Some(topic.to_string().into()),
            key: None,
            time: Timestamp::default(),
            correlation_id: "c".into(),
            causation_id: None,
            operation_id: None,
            traceparent: None,
            headers: vec![],
            payload: vec![0; payload].into(),
        };
        Recorded::new(Position(position), None, message.into())
    }

    pub(crate) fn of(topic: u8) -> Filter {
        Filter { topics: vec![topic.to_string().into()], ..Filter::default() }
    }

    fn waiting(position: u64, topic: u8) -> Waiting {
        Waiting::new(Position(position), of(topic))
    }

    /// One growth of the log, as it is reported: how many positions it takes, the topics of its
    /// entries, one a position, and whether the process has seen them.
    fn growths() -> impl Strategy<Value = Vec<(Vec<Option<u8>>, bool)>> {
        let topics = prop::collection::vec(prop::option::weighted(0.8, 0..3_u8), 1..40);
        prop::collection::vec((topics, prop::bool::weighted(0.8)), 1..60)
    }

    proptest! {
        /// Whatever is reported, and however late: who is not told has nothing to read, and who is
        /// told has, may have, or is far behind. What a page leaves out is not in the log.
        #[test]
        fn who_is_not_told_has_nothing_to_read(growths in growths(), start in 0..200_u64) {
            let (mut growth, mut wait) = (Growth::default(), waiting(start, 1));
            let (mut end, mut wanted, mut unseen) = (0, vec![], false);
            for (topics, is_seen) in growths {
                let after = end;
                let mut new = vec![];
                for topic in topics {
                    end += 1;
                    new.extend(topic.map(|topic| entry(end, topic, 1)));
                    wanted.extend((end > start && topic == Some(1)).then_some(Position(end)));
                }
                unseen |= end > start && !is_seen;
                if is_seen {
                    growth.appended(Position(after), Position(end), new);
                    growth.grown(Position(end));
                } else {
                    growth.grown(Position(end));
                }
                let told = wait.is_over(&growth);
                prop_assert!(told || wanted.is_empty(), "at {end}, from {start}");
                prop_assert!(!told || !wanted.is_empty() || unseen || end >= start + QUIET);
                let page = growth.page(Position(start), &of(1), 3);
                prop_assert!(page.is_some() || unseen || end - start.min(end) > QUIET || start < after);
                if let Some(page) = page {
                    let found: Vec<_> = page.entries.iter().map(|entry| entry.position).collect();
                    prop_assert_eq!(&found, &wanted[..wanted.len().min(3)]);
                    let last = found.last().filter(|_| found.len() == 3).copied();
                    prop_assert_eq!(page.through, last.unwrap_or(Position(end.max(start))));
                }
                if told {
                    return Ok(());
                }
            }
        }
    }

    #[test]
    fn what_comes_late_or_leaves_a_gap_is_not_lost() {
        let mut growth = Growth::default();
        growth.grown(Position(5));
        assert!(!waiting(5, 1).is_over(&growth) && waiting(4, 1).is_over(&growth));
        // Partly known before: the rest is looked at.
        let new = [entry(4, 0, 1), entry(5, 0, 1), entry(7, 1, 1)];
        growth.appended(Position(3), Position(7), new);
        assert!(waiting(5, 1).is_over(&growth) && !waiting(5, 2).is_over(&growth));
        assert!(growth.page(Position(4), &of(0), 9).is_none());
        // Somebody else has appended up to 9.
        growth.appended(Position(9), Position(10), [entry(10, 0, 1)]);
        assert!(waiting(8, 1).is_over(&growth) && !waiting(9, 1).is_over(&growth));
        growth.appended(Position(8), Position(10), [entry(9, 1, 1)]);
        assert!(!waiting(9, 1).is_over(&growth), "known already");
        assert_eq!(growth.through(), Position(10));
    }

    #[test]
    fn a_reader_with_nothing_to_read_moves_now_and_then() {
        let mut growth = Growth::default();
        let mut wait = waiting(0, 1);
        for position in 1..QUIET {
            growth.appended(Position(position - 1), Position(position), [entry(position, 0, 1)]);
            assert!(!wait.is_over(&growth), "{position}");
        }
        growth.appended(Position(QUIET - 1), Position(QUIET), [entry(QUIET, 0, 1)]);
        assert!(wait.is_over(&growth));
        let page = growth.page(Position(0), &of(1), 9).unwrap();
        assert_eq!((page.entries, page.through), (vec![], Position(QUIET)));
    }

    #[test]
    fn the_oldest_goes_first_by_number_and_by_size() {
        let mut growth = Growth::default();
        let more = QUIET + 2;
        let all = (1..=more).map(|position| entry(position, 0, 1));
        growth.appended(Position(0), Position(more), all);
        let knows = |growth: &Growth, after| growth.page(Position(after), &of(0), 1).is_some();
        assert!(!knows(&growth, 1) && knows(&growth, 2));
        growth.appended(Position(more), Position(more + 1), [entry(more + 1, 0, BYTES)]);
        assert!(!knows(&growth, more) && knows(&growth, more + 1));
        assert!(waiting(more, 1).is_over(&growth), "what is not remembered may be for anybody");
    }
}
