//! What a process knows of how a log has grown, so that nobody is woken for entries of others.

use crate::{Filter, Message, Position, Text};
use std::collections::VecDeque;

/// So many positions later a reader is told all the same, that its place may move; and so many
/// entries are remembered.
const QUIET: u64 = 512;

/// The last entries of a log, as far as this process has seen them appended: for implementations of
/// [`Database::changed`](crate::Database::changed).
///
/// Told too often, a reader looks in vain; it is never told too rarely, as long as every growth is
/// reported here.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// Every growth up to here was reported.
    through: u64,
    /// Each entry from here to `through` is in `entries`.
    known_after: u64,
    entries: VecDeque<Appended>,
}

/// What a [`Filter`] asks of an entry.
#[derive(Clone, Debug)]
pub struct Appended {
    position: u64,
    topic: Option<Text>,
    name: Text,
    stream: Option<Text>,
    correlation_id: Text,
}

impl Appended {
    /// Of this message, in this stream.
    pub fn new(position: Position, stream: Option<&Text>, message: &Message) -> Self {
        Appended {
            position: position.0,
            topic: message.topic.clone(),
            name: message.name.clone(),
            stream: stream.cloned(),
            correlation_id: message.correlation_id.clone(),
        }
    }
}

impl Growth {
    /// Up to where growth was reported.
    pub fn through(&self) -> Position {
        Position(self.through)
    }

    /// The log has grown to here, and nobody knows by what; `false` where that is no news.
    pub fn grown(&mut self, through: Position) -> bool {
        let is_news = through.0 > self.through;
        if is_news {
            *self = Growth { through: through.0, known_after: through.0, ..Growth::default() };
        }
        is_news
    }

    /// The log has grown from `after` to `through`: by these entries, in their order, and by no
    /// other; `false` where that is no news.
    pub fn appended(
        &mut self,
        after: Position,
        through: Position,
        entries: impl IntoIterator<Item = Appended>,
    ) -> bool {
        if after.0 > self.through {
            self.grown(after);
        }
        let last = self.through;
        if through.0 <= last {
            return false;
        }
        self.through = through.0;
        self.entries.extend(entries.into_iter().filter(|entry| entry.position > last));
        while self.entries.len() as u64 > QUIET {
            self.known_after = self.entries.pop_front().map_or(through.0, |first| first.position);
        }
        true
    }
}

/// A reader that waits for entries after its position.
#[derive(Debug)]
pub struct Waiting {
    position: u64,
    /// No entry up to here is for it.
    seen: u64,
    filter: Filter,
}

impl Waiting {
    /// For what the filter takes of the entries after this position.
    pub fn new(position: Position, filter: Filter) -> Self {
        Waiting { position: position.0, seen: position.0, filter }
    }

    /// Whether it should read: there is, or may be, something for it, or its place can move by much.
    pub fn is_over(&mut self, growth: &Growth) -> bool {
        if growth.through <= self.seen {
            return false;
        }
        if self.seen < growth.known_after || growth.through - self.position >= QUIET {
            return true;
        }
        let start = growth.entries.partition_point(|entry| entry.position <= self.seen);
        self.seen = growth.through;
        let wanted = |entry: &Appended| {
            let Appended { topic, name, stream, correlation_id, .. } = entry;
            let stream = stream.as_ref();
            self.filter.wants(topic.as_ref(), name, stream, correlation_id)
        };
        growth.entries.range(start..).any(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(position: u64, topic: u8) -> Appended {
        Appended {
            position,
            topic: Some(topic.to_string().into()),
            name: "n".into(),
            stream: None,
            correlation_id: "c".into(),
        }
    }

    fn waiting(position: u64, topic: u8) -> Waiting {
        let filter = Filter { topics: vec![topic.to_string().into()], ..Filter::default() };
        Waiting::new(Position(position), filter)
    }

    /// One growth of the log, as it is reported: how many positions it takes, the topics of its
    /// entries, one a position, and whether the process has seen them.
    fn growths() -> impl Strategy<Value = Vec<(Vec<Option<u8>>, bool)>> {
        let topics = prop::collection::vec(prop::option::weighted(0.8, 0..3_u8), 1..40);
        prop::collection::vec((topics, prop::bool::weighted(0.8)), 1..60)
    }

    proptest! {
        /// Whatever is reported, and however late: who is not told has nothing to read, and who is
        /// told has, may have, or is far behind.
        #[test]
        fn who_is_not_told_has_nothing_to_read(growths in growths(), start in 0..200_u64) {
            let (mut growth, mut wait) = (Growth::default(), waiting(start, 1));
            let (mut end, mut wanted, mut unseen) = (0, false, false);
            for (topics, is_seen) in growths {
                let after = end;
                let mut new = vec![];
                for topic in topics {
                    end += 1;
                    new.extend(topic.map(|topic| entry(end, topic)));
                    wanted |= end > start && topic == Some(1);
                }
                unseen |= end > start && !is_seen;
                if is_seen {
                    prop_assert!(growth.appended(Position(after), Position(end), new));
                    prop_assert!(!growth.grown(Position(end)));
                } else {
                    prop_assert!(growth.grown(Position(end)));
                }
                let told = wait.is_over(&growth);
                prop_assert!(told || !wanted, "at {end}, from {start}");
                prop_assert!(!told || wanted || unseen || end >= start + QUIET);
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
        assert!(growth.appended(Position(3), Position(7), [entry(4, 0), entry(5, 0), entry(7, 1)]));
        assert!(waiting(5, 1).is_over(&growth) && !waiting(5, 2).is_over(&growth));
        // Somebody else has appended up to 9.
        assert!(growth.appended(Position(9), Position(10), [entry(10, 0)]));
        assert!(waiting(8, 1).is_over(&growth) && !waiting(9, 1).is_over(&growth));
        assert!(!growth.appended(Position(8), Position(10), [entry(9, 1)]), "known already");
        assert_eq!(growth.through(), Position(10));
    }

    #[test]
    fn a_reader_with_nothing_to_read_moves_now_and_then() {
        let mut growth = Growth::default();
        let mut wait = waiting(0, 1);
        for position in 1..QUIET {
            growth.appended(Position(position - 1), Position(position), [entry(position, 0)]);
            assert!(!wait.is_over(&growth), "{position}");
        }
        growth.appended(Position(QUIET - 1), Position(QUIET), [entry(QUIET, 0)]);
        assert!(wait.is_over(&growth));
    }
}
