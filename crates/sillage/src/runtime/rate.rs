//! Rate limits: a token bucket, which lets so many begin a second, and a few more at once.

use std::time::Duration;

/// How often something may begin, in one process: `n` processes may do it `n` times as often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// How long until one more may begin.
    pub(crate) every: Duration,
    pub(crate) burst: u32,
}

impl Rate {
    /// So many a second, evenly; `0.1` is one in ten seconds.
    pub fn per_second(count: f64) -> Self {
        let every = Duration::try_from_secs_f64(1.0 / count).unwrap_or(Duration::ZERO);
        Rate { every, burst: 1 }
    }

    /// So many at once after a rest.
    #[must_use]
    pub fn burst(mut self, count: u32) -> Self {
        self.burst = count.max(1);
        self
    }

    /// What is wrong with it.
    pub(crate) fn error(&self) -> Option<&'static str> {
        let is_sound = !self.every.is_zero() && self.every <= Duration::from_secs(24 * 3600);
        (!is_sound).then_some("its rate must be above 0: between one a day and a thousand million")
    }
}

/// A rate limit at work: a bucket that is full when its time is past, by the *generic cell rate
/// algorithm* (ITU-T I.371): one number says when it is.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    full_at: Duration,
}

impl Bucket {
    pub(crate) fn new(rate: Rate) -> Self {
        Bucket { rate, full_at: Duration::ZERO }
    }

    /// When the next may begin; not after `now`: at once.
    pub(crate) fn next(&self) -> Duration {
        self.full_at.saturating_sub(self.rate.every.saturating_mul(self.rate.burst - 1))
    }

    /// Begins one, if it may begin.
    pub(crate) fn begin(&mut self, now: Duration) -> bool {
        let may = self.next() <= now;
        if may {
            self.full_at = self.full_at.max(now) + self.rate.every;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_then_one_at_a_time() {
        let mut bucket = Bucket::new(Rate::per_second(10.0).burst(3));
        let begun = |bucket: &mut Bucket, now| {
            std::iter::repeat_with(|| bucket.begin(now)).take_while(|begun| *begun).count()
        };
        let at = Duration::from_millis;
        assert_eq!(begun(&mut bucket, at(1_000)), 3);
        assert_eq!(begun(&mut bucket, at(1_099)), 0);
        assert_eq!(bucket.next(), at(1_100));
        assert_eq!(begun(&mut bucket, at(1_100)), 1);
        assert_eq!(begun(&mut bucket, at(9_000)), 3);
    }

    proptest! {
        #[test]
        fn no_period_has_more_than_its_share(
            rate in 1u32..1_000,
            burst in 1u32..20,
            waits in prop::collection::vec(0u64..50, 1..300),
        ) {
            let mut bucket = Bucket::new(Rate::per_second(f64::from(rate)).burst(burst));
            let (mut now, mut begun) = (Duration::ZERO, vec![]);
            for wait in waits {
                now += Duration::from_millis(wait);
                if bucket.begin(now) {
                    begun.push(now);
                }
            }
            for (index, from) in begun.iter().enumerate() {
                for (more, until) in begun[index..].iter().enumerate() {
                    let allowed = until.saturating_sub(*from).as_secs_f64() * f64::from(rate) + f64::from(burst);
                    prop_assert!(f64::from(u32::try_from(more).unwrap()) < allowed + 1e-6);
                }
            }
        }
    }

    #[test]
    fn what_is_no_rate_is_said() {
        for count in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Rate::per_second(count).error().is_some(), "{count}");
        }
        assert_eq!(Rate::per_second(0.1).error(), None);
    }
}
