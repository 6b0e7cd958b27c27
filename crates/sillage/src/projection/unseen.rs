//! Which documents cannot be stored: in a generation that began with none, those that were never let
//! go from memory.

use foldhash::fast::RandomState;
use std::hash::BuildHasher as _;

/// Bits: of a million ids that were let go, one in 200 others is taken for one of them; of ten
/// million every second.
const BITS: usize = 1 << 24;

/// A Bloom filter of those that were let go (Burton Bloom, 1970), three bits each.
pub(super) struct Unseen {
    bits: Vec<u64>,
    hasher: RandomState,
}

impl Unseen {
    pub(super) fn new() -> Self {
        Unseen { bits: vec![0; BITS / 64], hasher: RandomState::default() }
    }

    /// Whether it was certainly never let go.
    pub(super) fn has(&self, id: &str) -> bool {
        self.places(id).any(|(word, bit)| self.bits[word] & bit == 0)
    }

    pub(super) fn let_go(&mut self, id: &str) {
        for (word, bit) in self.places(id) {
            self.bits[word] |= bit;
        }
    }

    fn places(&self, id: &str) -> impl Iterator<Item = (usize, u64)> + use<> {
        let hash = self.hasher.hash_one(id);
        [0, 21, 42].into_iter().map(move |turn| {
            #[allow(clippy::cast_possible_truncation)] // its lower bits are enough
            let place = hash.rotate_right(turn) as usize % BITS;
            (place / 64, 1 << (place % 64))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_let_go_is_never_unseen() {
        let mut unseen = Unseen::new();
        let id = |number: u32| format!("order-{number}");
        for number in 0..100_000 {
            unseen.let_go(&id(number));
        }
        assert!(!(0..100_000).any(|number| unseen.has(&id(number))));
        let wrong = (100_000..200_000).filter(|number| !unseen.has(&id(*number))).count();
        assert!(wrong < 100, "{wrong} of 100,000 would be looked up in vain");
    }
}
