//! Which acknowledgements finished deliveries need: as few as possible, and none too far.

use std::collections::BTreeSet;

/// An acknowledgement of one delivery, or of all up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) tag: u64,
    pub(crate) up_to: bool,
}

/// The deliveries of one channel, by their tags, which count from 1.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// The highest delivered tag.
    delivered: u64,
    /// Everything up to here is finished.
    low: u64,
    /// Finished above it; all of them are acknowledged.
    above: BTreeSet<u64>,
}

impl Acks {
    /// The next delivery.
    pub(crate) fn delivered(&mut self, tag: u64) {
        self.delivered = self.delivered.max(tag);
    }

    /// Takes finished deliveries in. What was never delivered, or is finished already, is passed
    /// over: the server closes a channel that acknowledges something twice.
    pub(crate) fn finish(&mut self, tags: impl IntoIterator<Item = u64>) -> Vec<Ack> {
        let mut fresh = BTreeSet::new();
        for tag in tags {
            if tag > self.low && tag <= self.delivered && !self.above.contains(&tag) {
                fresh.insert(tag);
            }
        }
        self.above.extend(&fresh);
        while self.above.remove(&(self.low + 1)) {
            self.low += 1;
        }
        // All up to the last fresh one at the low end: what lies between is acknowledged already.
        let behind = fresh.split_off(&(self.low + 1));
        let first = fresh.last().map(|tag| Ack { tag: *tag, up_to: true });
        let each = behind.into_iter().map(|tag| Ack { tag, up_to: false });
        first.into_iter().chain(each).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Ack, Acks};
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
    use std::collections::BTreeSet;

    fn one(tag: u64) -> Ack {
        Ack { tag, up_to: false }
    }

    fn up_to(tag: u64) -> Ack {
        Ack { tag, up_to: true }
    }

    #[test]
    fn a_finished_prefix_is_one_acknowledgement() {
        let mut acks = Acks::default();
        acks.delivered(6);
        assert_eq!(acks.finish([1, 2, 3]), [up_to(3)]);
        assert_eq!(acks.finish([6, 5]), [one(5), one(6)]);
        // 5 and 6 are acknowledged already: the server no longer knows them.
        assert_eq!(acks.finish([4]), [up_to(4)]);
        assert_eq!(acks.finish([1, 4, 6, 7, 0]), []);
    }

    /// A server's channel: what is not acknowledged.
    struct Server(BTreeSet<u64>);

    impl Server {
        fn take(&mut self, ack: Ack) {
            assert!(self.0.contains(&ack.tag), "unknown delivery tag {}: {:?}", ack.tag, self.0);
            if ack.up_to {
                self.0 = self.0.split_off(&(ack.tag + 1));
            } else {
                self.0.remove(&ack.tag);
            }
        }
    }

    #[test]
    fn exactly_what_is_finished_is_acknowledged_in_any_order() {
        for seed in 0..500 {
            let mut random = StdRng::seed_from_u64(seed);
            let count = random.random_range(1..80);
            let (mut acks, mut server) = (Acks::default(), Server((1..=count).collect()));
            let mut delivered: Vec<u64> = (1..=count).collect();
            acks.delivered(count);
            delivered.shuffle(&mut random);
            let mut unfinished = server.0.clone();
            while !delivered.is_empty() {
                let some = random.random_range(1..=delivered.len().min(9));
                let finished: Vec<_> = delivered.drain(..some).collect();
                assert!(finished.iter().all(|tag| unfinished.remove(tag)));
                acks.finish(finished).into_iter().for_each(|ack| server.take(ack));
                assert_eq!(server.0, unfinished, "seed {seed}");
            }
        }
    }
}
