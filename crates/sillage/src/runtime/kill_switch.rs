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

/// What to do with a delivery that failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be a dead letter; [`KillSwitch::answered`] is to be told what came of that.
    SetAside,
    /// There may be too many: those that are being set aside tell.
    Wait,
    /// There are too many.
    Pause,
}

/// Counts the dead letters of the last minute.
///
/// What fails for good need not become one: it was handled before and has come again, or was decided on
/// what is so no more. Only the commit that sets it aside knows.
#[derive(Default)]
pub(crate) struct KillSwitch {
    hasher: RandomState,
    failures: VecDeque<(Duration, u64)>,
    /// How many were handled, by the moment they were counted.
    handled: VecDeque<(Duration, usize)>,
    uncounted: usize,
    /// So many are being set aside.
    unanswered: usize,
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

    /// A delivery of that key failed for good.
    pub(crate) fn judge(&mut self, key: &str, now: Duration) -> Verdict {
        self.count(now);
        let start = now.saturating_sub(PERIOD);
        while self.failures.front().is_some_and(|(time, _)| *time < start) {
            self.failures.pop_front();
        }
        while self.handled.front().is_some_and(|(time, _)| *time < start) {
            self.handled.pop_front();
        }
        let key = self.hasher.hash_one(key);
        let keys: HashSet<_> = self.failures.iter().map(|(_, key)| *key).chain([key]).collect();
        let handled: usize = self.handled.iter().map(|(_, count)| count).sum();
        let failures = self.failures.len() + self.unanswered + 1;
        let too_many =
            keys.len() + self.unanswered > KEYS && failures * 100 > (handled + failures) * PERCENT;
        match (too_many, self.unanswered) {
            (false, _) => {
                self.unanswered += 1;
                Verdict::SetAside
            }
            (true, 0) => Verdict::Pause,
            (true, _) => Verdict::Wait,
        }
    }

    /// One that might be set aside is a dead letter of that key; `None`: it is not.
    pub(crate) fn answered(&mut self, dead: Option<&str>, now: Duration) {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.failures.extend(dead.map(|key| (now, self.hasher.hash_one(key))));
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

    /// So many keys fail for good one after the other, and are set aside if they may be.
    fn failing(switch: &mut KillSwitch, keys: u32, now: Duration) -> Verdict {
        let mut verdict = Verdict::SetAside;
        for key in 0..keys {
            let key = key.to_string();
            verdict = switch.judge(&key, now);
            if verdict == Verdict::SetAside {
                switch.answered(Some(&key), now);
            }
        }
        verdict
    }

    #[test]
    fn many_failing_keys_pause_a_consumer() {
        assert_eq!(failing(&mut KillSwitch::default(), 21, Duration::ZERO), Verdict::Pause);
        assert_eq!(failing(&mut KillSwitch::default(), 20, Duration::ZERO), Verdict::SetAside);
    }

    #[test]
    fn one_key_or_a_small_share_does_not() {
        let mut switch = KillSwitch::default();
        for _ in 0..1000 {
            assert_eq!(switch.judge("one", Duration::ZERO), Verdict::SetAside);
            switch.answered(Some("one"), Duration::ZERO);
        }
        let mut switch = KillSwitch::default();
        (0..100).for_each(|_| switch.handled());
        assert_eq!(failing(&mut switch, 40, Duration::ZERO), Verdict::SetAside);
        assert_eq!(failing(&mut switch, 50, Duration::ZERO), Verdict::Pause);
    }

    #[test]
    fn what_is_over_a_minute_old_does_not_count() {
        let mut switch = KillSwitch::default();
        failing(&mut switch, 15, Duration::ZERO);
        assert_eq!(failing(&mut switch, 15, Duration::from_secs(61)), Verdict::SetAside);
    }

    #[test]
    fn what_is_no_dead_letter_in_the_end_does_not_count() {
        let (mut switch, now) = (KillSwitch::default(), Duration::ZERO);
        for round in 0..10 {
            for key in 0..20 {
                assert_eq!(switch.judge(&format!("{round} {key}"), now), Verdict::SetAside);
            }
            assert_eq!(switch.judge("one more", now), Verdict::Wait, "they may be dead letters");
            (0..20).for_each(|_| switch.answered(None, now));
        }
    }
}
