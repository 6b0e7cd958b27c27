//! The machine's clock.

use sillage_core::{BoxFuture, Clock, Timestamp};
use std::{sync::OnceLock, time::Duration};

/// The machine's clock: time of day from the system, elapsed time and waiting from tokio.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place where the time of day is read
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let micros = since.map_or(0, |since| since.as_micros());
        Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    #[allow(clippy::disallowed_methods)] // the one place where elapsed time is read
    fn elapsed(&self) -> Duration {
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }

    fn sleep(&self, delay: Duration) -> BoxFuture<'static, ()> {
        // Even for nothing a timer would take until the next millisecond.
        if delay.is_zero() {
            return Box::pin(std::future::ready(()));
        }
        Box::pin(tokio::time::sleep(delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_no_reason_to_wait() {
        let mut sleep = SystemClock.sleep(Duration::ZERO);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(sleep.as_mut().poll(&mut context).is_ready());
    }
}
