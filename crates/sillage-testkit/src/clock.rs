//! Clocks for tests: virtual time that tokio moves, and time that only the test moves.
//!
//! *Guarantees.* Neither reads the time of day of the machine; the same test sees the same times
//! at every run.

use sillage_core::{BoxFuture, Clock, Timestamp};
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

/// Where a clock starts that was told nothing else: 2026-01-01T00:00:00Z.
pub(crate) const START_MICROS: i64 = 1_767_225_600_000_000;

/// A clock on [`tokio::time`]: with `#[tokio::test(start_paused = true)]` time is virtual, and
/// waiting takes none.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    start: Timestamp,
    origin: Instant,
}

impl TokioClock {
    /// A clock that shows `start` now.
    pub fn new(start: Timestamp) -> Self {
        TokioClock { start, origin: Instant::now() }
    }
}

impl Default for TokioClock {
    /// A clock that shows 2026-01-01T00:00:00Z now.
    fn default() -> Self {
        TokioClock::new(Timestamp::from_micros(START_MICROS))
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.start + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep(&self, delay: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(delay))
    }
}

/// A clock that stands still until [`ManualClock::advance`].
#[derive(Debug)]
pub struct ManualClock {
    start: Timestamp,
    elapsed: watch::Sender<Duration>,
}

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: Timestamp) -> Self {
        ManualClock { start, elapsed: watch::Sender::new(Duration::ZERO) }
    }

    /// Moves the clock on by `time`; every sleep that ends by then completes.
    pub fn advance(&self, time: Duration) {
        self.elapsed.send_modify(|elapsed| *elapsed = elapsed.saturating_add(time));
    }
}

impl Default for ManualClock {
    /// A clock that stands at 2026-01-01T00:00:00Z.
    fn default() -> Self {
        ManualClock::new(Timestamp::from_micros(START_MICROS))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.start + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        *self.elapsed.borrow()
    }

    /// The delay counts from this call, not from the first poll. Never completes once the clock
    /// is dropped.
    fn sleep(&self, delay: Duration) -> BoxFuture<'static, ()> {
        let mut elapsed = self.elapsed.subscribe();
        let end = self.elapsed().saturating_add(delay);
        Box::pin(async move {
            if elapsed.wait_for(|elapsed| *elapsed >= end).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use tokio::{task::yield_now, time::timeout};

    #[tokio::test(start_paused = true)]
    async fn tokio_time_is_virtual() {
        let clock = TokioClock::default();
        let before = clock.now();
        assert_eq!(before.to_string(), "2026-01-01T00:00:00.000000Z");
        clock.sleep(Duration::from_secs(72 * 3600)).await;
        assert_eq!(clock.now().since(before), clock.elapsed());
        assert!(clock.elapsed() >= Duration::from_secs(72 * 3600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_manual_sleep_ends_when_time_has_moved_past_it() {
        let clock = ManualClock::default();
        let (before, hour) = (clock.now(), Duration::from_secs(3600));
        let moment = Duration::from_micros(1);
        let mut sleep = pin!(clock.sleep(hour));
        clock.advance(hour.saturating_sub(moment));
        yield_now().await;
        assert!(timeout(hour, &mut sleep).await.is_err(), "it must not end early");
        clock.advance(moment);
        sleep.await;
        assert_eq!(clock.now().since(before), hour);
        clock.sleep(Duration::ZERO).await;
    }
}
