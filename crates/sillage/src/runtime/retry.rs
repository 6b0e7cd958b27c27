//! When a failed delivery is tried again: in its lane within seconds, then parked, then dead.

use rand::{Rng, RngExt as _};
use sillage_core::Class;
use std::time::Duration;

/// The retry ladder of a consumer.
///
/// The first delays are waited in the lane, where the later messages of the key queue up behind
/// it; with the next ones the key is parked: stored, and out of the way of everything else. When
/// the attempts are used up the delivery is a dead letter, and the key waits for an operator.
///
/// Delays get up to a fifth of jitter, so that keys which failed together do not return together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub(crate) in_lane: Vec<Duration>,
    pub(crate) parked: Vec<Duration>,
}

impl Default for Retry {
    /// After 50 ms, 500 ms and 5 s in the lane; parked after 30 s, 5 min and 1 h.
    fn default() -> Self {
        let lane = [50, 500, 5_000].map(Duration::from_millis);
        let parked = [30, 300, 3_600].map(Duration::from_secs);
        Retry::in_lane(lane).then_park(parked)
    }
}

impl Retry {
    /// The delays before the tries in the lane: seconds, not minutes.
    pub fn in_lane(delays: impl IntoIterator<Item = Duration>) -> Self {
        Retry { in_lane: delays.into_iter().collect(), parked: vec![] }
    }

    /// The delays before the tries of a parked key.
    #[must_use]
    pub fn then_park(mut self, delays: impl IntoIterator<Item = Duration>) -> Self {
        self.parked = delays.into_iter().collect();
        self
    }

    /// No second try: the first failure is a dead letter.
    pub fn never() -> Self {
        Retry::in_lane([])
    }

    /// How many tries there are in all.
    pub fn attempts(&self) -> u32 {
        u32::try_from(1 + self.in_lane.len() + self.parked.len()).unwrap_or(u32::MAX)
    }

    /// What to do when the `attempt`th try has failed.
    pub(crate) fn after(&self, attempt: u32, class: &Class, random: &mut impl Rng) -> Next {
        if *class == Class::Permanent {
            return Next::Dead;
        }
        let tried = usize::try_from(attempt).unwrap_or(usize::MAX);
        let in_lane = self.in_lane.get(tried - 1);
        let parked = (tried - 1).checked_sub(self.in_lane.len()).and_then(|n| self.parked.get(n));
        match (in_lane, parked) {
            (Some(delay), _) => Next::InLane(jitter(*delay, random)),
            (None, Some(delay)) => Next::Park(jitter(*delay, random)),
            (None, None) => Next::Dead,
        }
    }

    /// The same for a delivery that is parked already: it never goes back to its lane.
    pub(crate) fn after_parked(&self, attempt: u32, class: &Class, random: &mut impl Rng) -> Next {
        match self.after(attempt, class, random) {
            Next::InLane(delay) => Next::Park(delay),
            next => next,
        }
    }
}

/// What to do with a delivery whose try has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    InLane(Duration),
    Park(Duration),
    Dead,
}

fn jitter(delay: Duration, random: &mut impl Rng) -> Duration {
    delay.mul_f64(random.random_range(0.8..=1.0))
}

/// How long to wait for what is unavailable: from a tenth of a second, doubling, to five seconds.
pub(crate) fn back_off(waits: u32, random: &mut impl Rng) -> Duration {
    let millis = 100u64 << waits.min(6);
    jitter(Duration::from_millis(millis.min(5_000)), random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng as _, rngs::SmallRng};

    #[test]
    fn the_ladder_goes_up_and_ends() {
        let retry = Retry::in_lane([Duration::from_secs(1)]).then_park([Duration::from_secs(10)]);
        let mut random = SmallRng::seed_from_u64(1);
        let transient = Class::Transient;
        assert!(
            matches!(retry.after(1, &transient, &mut random), Next::InLane(d) if d <= Duration::from_secs(1))
        );
        assert!(
            matches!(retry.after(2, &transient, &mut random), Next::Park(d) if d >= Duration::from_secs(8))
        );
        assert_eq!(retry.after(3, &transient, &mut random), Next::Dead);
        assert_eq!(retry.after(1, &Class::Permanent, &mut random), Next::Dead);
        assert_eq!(Retry::never().after(1, &transient, &mut random), Next::Dead);
        assert!(matches!(retry.after_parked(1, &transient, &mut random), Next::Park(_)));
        assert_eq!(retry.attempts(), 3);
    }

    #[test]
    fn waiting_is_capped() {
        let mut random = SmallRng::seed_from_u64(1);
        assert!(back_off(0, &mut random) <= Duration::from_millis(100));
        assert!(back_off(u32::MAX, &mut random) <= Duration::from_secs(5));
    }
}
