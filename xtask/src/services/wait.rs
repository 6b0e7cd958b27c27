//! Waiting for other processes, by the real clock.

use anyhow::Result;
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A time that will come.
pub(super) struct Deadline {
    since: Instant,
    limit: Duration,
}

impl Deadline {
    #[expect(clippy::disallowed_methods, reason = "other processes live by the real clock")]
    pub(super) fn after(limit: Duration) -> Self {
        Deadline { since: Instant::now(), limit }
    }

    pub(super) fn has_passed(&self) -> bool {
        self.since.elapsed() > self.limit
    }
}

/// Waits until the condition holds; `false`: not within the limit.
#[expect(clippy::disallowed_methods, reason = "no process tells us when it is ready")]
pub(super) fn until(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Deadline::after(limit);
    while !holds()? {
        if deadline.has_passed() {
            return Ok(false);
        }
        thread::sleep(LOOK);
    }
    Ok(true)
}
