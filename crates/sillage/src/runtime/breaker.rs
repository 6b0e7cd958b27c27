//! The breaker of a dependency: it stops calls to what does not answer, and lets them come back
//! by and by.
//!
//! *Closed*, everything may run, and calls are counted. Where too large a share of them found the
//! dependency unavailable it *opens*: nothing runs, for a time. Then it is *half-open*: one call
//! probes, and if it is answered twice as many may run at once, and so on, until it is closed again.
//! Where more than that share of them fail it opens anew. (The pattern is Michael Nygard's, *Release It!*, 2007.)

use std::{collections::VecDeque, time::Duration};

/// Calls are counted by so many parts of the period.
const PARTS: u32 = 10;
/// So many at once, and the dependency has come back.
const RECOVERED: u32 = 64;

/// When calls to a dependency stop, and for how long.
///
/// Counted are handlings that end with [`Failure::unavailable`](crate::Failure::unavailable) of
/// the dependency, among all handlings of the consumers that depend on it. Nothing else opens it:
/// a declined card is no outage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Breaker {
    pub(crate) share: f64,
    pub(crate) calls: u32,
    pub(crate) within: Duration,
    pub(crate) open_for: Duration,
}

impl Breaker {
    /// Opens when this share of calls, above 0 and at most 1, found the dependency unavailable: of
    /// at least 10 calls within 10 s. Then nothing is called for 30 s.
    pub fn failures(share: f64) -> Self {
        let (within, open_for) = (Duration::from_secs(10), Duration::from_secs(30));
        Breaker { share, calls: 10, within, open_for }
    }

    /// Fewer calls than this say nothing.
    #[must_use]
    pub fn of_at_least(mut self, calls: u32) -> Self {
        self.calls = calls.max(1);
        self
    }

    /// Calls count for so long.
    #[must_use]
    pub fn within(mut self, period: Duration) -> Self {
        self.within = period;
        self
    }

    /// How long nothing is called before a probe.
    #[must_use]
    pub fn open_for(mut self, pause: Duration) -> Self {
        self.open_for = pause;
        self
    }

    /// What is wrong with it.
    pub(crate) fn error(&self) -> Option<&'static str> {
        if !(self.share > 0.0 && self.share <= 1.0) {
            return Some("its share of failures must be above 0 and at most 1");
        }
        if self.within.is_zero() || self.open_for.is_zero() {
            return Some("its times must be above zero");
        }
        None
    }
}

/// Where a circuit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Closed,
    /// Until then.
    Open(Duration),
    HalfOpen,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// The dependency did not fail it.
    Answered,
    /// The dependency was not there.
    Unavailable,
    /// Nobody knows: it was cut off.
    Dropped,
}

/// Allows one call; what becomes of it is told with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Permit(u64);

/// A breaker at work.
#[derive(Debug)]
pub(crate) struct Circuit {
    policy: Breaker,
    state: State,
    /// Grows with each change of state: what was called before tells nothing about now.
    turn: u64,
    /// Calls and failures of the period, by the part in which they ended.
    counts: VecDeque<(Duration, u32, u32)>,
    /// Half-open: how many may run at once, how many do; how many of as many have ended, and how
    /// many of these failed.
    limit: u32,
    running: u32,
    ended: u32,
    failed: u32,
}

impl Circuit {
    pub(crate) fn new(policy: Breaker) -> Self {
        Circuit {
            policy,
            state: State::Closed,
            turn: 0,
            counts: VecDeque::new(),
            limit: 0,
            running: 0,
            ended: 0,
            failed: 0,
        }
    }

    /// A process before this one had it open: it begins with a probe.
    pub(crate) fn reopened(policy: Breaker) -> Self {
        let mut circuit = Circuit::new(policy);
        circuit.half_open();
        circuit
    }

    /// Where it is now: an open one becomes half-open by itself.
    pub(crate) fn state(&mut self, now: Duration) -> State {
        if matches!(self.state, State::Open(until) if until <= now) {
            self.half_open();
        }
        self.state
    }

    /// Whether a call may begin.
    pub(crate) fn admits(&mut self, now: Duration) -> bool {
        match self.state(now) {
            State::Closed => true,
            State::Open(_) => false,
            State::HalfOpen => self.running < self.limit,
        }
    }

    /// Begins a call, if one may begin.
    pub(crate) fn begin(&mut self, now: Duration) -> Option<Permit> {
        if !self.admits(now) {
            return None;
        }
        if self.state == State::HalfOpen {
            self.running += 1;
        }
        Some(Permit(self.turn))
    }

    /// Takes the end of a call in. True where the state has changed, or another may begin.
    pub(crate) fn end(&mut self, permit: Permit, call: Call, now: Duration) -> bool {
        if permit != Permit(self.turn) {
            return false;
        }
        match self.state {
            State::Closed => {
                self.count(call, now);
                let opens = self.fails();
                if opens {
                    self.open(now);
                }
                opens
            }
            State::Open(_) => false,
            State::HalfOpen => {
                self.running -= 1;
                if call != Call::Dropped {
                    self.ramp(call, now);
                }
                true
            }
        }
    }

    fn count(&mut self, call: Call, now: Duration) {
        if call == Call::Dropped {
            return;
        }
        let part = self.policy.within / PARTS;
        let failed = u32::from(call == Call::Unavailable);
        match self.counts.back_mut().filter(|(since, ..)| now < *since + part) {
            Some((_, calls, failures)) => {
                *calls += 1;
                *failures += failed;
            }
            None => self.counts.push_back((now, 1, failed)),
        }
        while self.counts.front().is_some_and(|(since, ..)| *since + self.policy.within <= now) {
            self.counts.pop_front();
        }
    }

    fn fails(&self) -> bool {
        let add = |(calls, failures), (_, more, failed): &(_, u32, u32)| {
            (calls + more, failures + failed)
        };
        let (calls, failures) = self.counts.iter().fold((0, 0), add);
        calls >= self.policy.calls && f64::from(failures) >= self.policy.share * f64::from(calls)
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.turn += 1;
        self.counts.clear();
        (self.limit, self.running) = (1, 0);
        (self.ended, self.failed) = (0, 0);
    }

    fn open(&mut self, now: Duration) {
        self.change(State::Open(now + self.policy.open_for));
    }

    fn half_open(&mut self) {
        self.change(State::HalfOpen);
    }

    /// As many as may run have ended: twice as many may. One that answers nine calls in ten is
    /// there, so only where more than the share fails it is not.
    fn ramp(&mut self, call: Call, now: Duration) {
        self.ended += 1;
        self.failed += u32::from(call == Call::Unavailable);
        let is_over = f64::from(self.failed) > self.policy.share * f64::from(self.limit);
        if is_over || self.failed == self.limit {
            return self.open(now);
        }
        if self.ended < self.limit {
            return;
        }
        (self.limit, self.ended, self.failed) = (self.limit * 2, 0, 0);
        if self.limit >= RECOVERED {
            self.change(State::Closed);
        }
    }
}

#[cfg(test)]
mod tests;
