//! The kill switch: a bad deployment must not turn every key into a dead letter.

use std::{
    collections::{HashSet, VecDeque, hash_map::RandomState},
    hash::BuildHasher as _,
    time::Duration,
};

/// Within this time …
const PERIOD: Duration = Duration::from_secs(60);
/// … more than this many keys …
const KEYS: usize = 20;
/// … and more than this share of all deliveries, in percent, failed for good.
const PERCENT: usize = 30;

/// Counts permanent failures of the last minute.
#[derive(Default)]
pub(crate) struct KillSwitch {
    hasher: RandomState,
    failures: VecDeque<(Duration, u64)>,
    /// How many were handled, by the moment they were counted.
    handled: VecDeque<(Duration, usize)>,
    uncounted: usize,
}

impl KillSwitch {
    /// A delivery was handled.
    pub(crate) fn handled(&mut self) {
        self.uncounted += 1;
    }

    /// Counts what was handled up to now.
    pub(crate) fn count(&mut self, now: Duration) {
        let second = self.handled.back().is_some_and(|(at, _)| at.as_secs() == now.as_secs());
        let handled = std::mem::take(&mut self.uncounted);
        match self.handled.back_mut().filter(|_| second) {
            Some((_, count)) => *count += handled,
            None => self.handled.push_back((now, handled)),
        }
        if self.handled.len() > 61 {
            self.handled.pop_front();
        }
    }

    /// A delivery failed for good. True where the consumer should pause.
    pub(crate) fn failed(&mut self, key: &[u8], now: Duration) -> bool {
        self.count(now);
        self.failures.push_back((now, self.hasher.hash_one(key)));
        let start = now.saturating_sub(PERIOD);
        while self.failures.front().is_some_and(|(time, _)| *time < start) {
            self.failures.pop_front();
        }
        while self.handled.front().is_some_and(|(time, _)| *time < start) {
            self.handled.pop_front();
        }
        let keys: HashSet<_> = self.failures.iter().map(|(_, key)| key).collect();
        let handled: usize = self.handled.iter().map(|(_, count)| count).sum();
        let all = handled + self.failures.len();
        keys.len() > KEYS && self.failures.len() * 100 > all * PERCENT
    }

    /// Starts counting again.
    pub(crate) fn reset(&mut self) {
        self.failures.clear();
        self.handled.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(switch: &mut KillSwitch, keys: u32, now: Duration) -> bool {
        (0..keys).fold(false, |_, key| switch.failed(&key.to_le_bytes(), now))
    }

    #[test]
    fn many_failing_keys_pause_a_consumer() {
        assert!(failing(&mut KillSwitch::default(), 21, Duration::ZERO));
        assert!(!failing(&mut KillSwitch::default(), 20, Duration::ZERO));
    }

    #[test]
    fn one_key_or_a_small_share_does_not() {
        let mut switch = KillSwitch::default();
        assert!(!(0..1000).any(|_| switch.failed(b"one", Duration::ZERO)));
        let mut switch = KillSwitch::default();
        (0..100).for_each(|_| switch.handled());
        assert!(!failing(&mut switch, 40, Duration::ZERO));
        assert!(failing(&mut switch, 50, Duration::ZERO));
    }

    #[test]
    fn what_is_over_a_minute_old_does_not_count() {
        let mut switch = KillSwitch::default();
        failing(&mut switch, 15, Duration::ZERO);
        assert!(!failing(&mut switch, 15, Duration::from_secs(61)));
    }
}
