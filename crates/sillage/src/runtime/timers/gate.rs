//! Why an overdue timer waits: after a start, a pause or an outage its consumer first reads what
//! came meanwhile. Else a deadline undoes a step whose answer waits in the broker.

use crate::{names, runtime::member::Control};
use sillage_core::{Broker, Clock, Partition, Position, Progress, Result, Text};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::sync::watch;

/// The longest that timers wait for a backlog.
const LONGEST: Duration = Duration::from_secs(600);
/// A timer that is found so late was not late by itself: something stood still.
const LATE: Duration = Duration::from_secs(10);
/// So long after it opened, a gate is not closed for what is late.
const GRACE: Duration = Duration::from_secs(60);

/// A consumer whose timers wait until it has read its backlog.
pub(crate) struct Gate {
    pub(crate) consumer: Text,
    pub(crate) topics: Vec<Text>,
    pub(crate) broker: Arc<dyn Broker>,
    /// The database's log as a broker.
    pub(crate) log: Arc<dyn Broker>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) state: State,
}

/// What a gate waits for.
#[derive(Default)]
pub(crate) enum State {
    /// It is told at the next timer that is due.
    #[default]
    Closed,
    /// What was in the log is on its way to the broker.
    Relaying { since: Duration, head: Position },
    /// What was there is being read.
    Reading {
        since: Duration,
        ends: Vec<Progress>,
        head: Option<Position>,
        read: HashSet<Partition>,
    },
    /// Timers fire.
    Open { since: Duration },
}

impl Gate {
    /// Whether a timer that is so late may fire, as far as is known without asking.
    pub(crate) fn is_free(&self, late: Duration, clock: &dyn Clock) -> bool {
        let State::Open { since } = &self.state else { return false };
        let is_paused = self.control.borrow().paused.is_some();
        !is_paused && (late < LATE || clock.elapsed() < *since + GRACE)
    }

    /// Whether a timer that is so late may fire; asks how far the consumer is where it has to.
    pub(crate) async fn is_open(
        &mut self,
        late: Duration,
        head: Position,
        clock: &dyn Clock,
    ) -> Result<bool> {
        if self.is_free(late, clock) {
            return Ok(true);
        }
        let is_paused = self.control.borrow().paused.is_some();
        if is_paused || matches!(self.state, State::Open { .. }) {
            self.state = State::Closed;
        }
        if is_paused {
            return Ok(false);
        }
        self.advance(clock.elapsed(), head).await?;
        Ok(matches!(self.state, State::Open { .. }))
    }

    async fn advance(&mut self, now: Duration, head: Position) -> Result<()> {
        if let State::Closed = self.state {
            self.state = State::Relaying { since: now, head };
        }
        // Whatever the broker answers, or does not.
        if let State::Relaying { since, .. } | State::Reading { since, .. } = &self.state
            && now >= *since + LONGEST
        {
            self.state = State::Open { since: now };
        }
        if let State::Relaying { since, head } = self.state {
            let is_log = self.broker.capabilities().is_log;
            if !is_log && !self.is_relayed(head).await? {
                return Ok(());
            }
            let ends = self.broker.progress(&self.consumer, &self.topics).await?;
            let head = is_log.then_some(head);
            self.state = State::Reading { since, ends, head, read: HashSet::new() };
        }
        if let State::Reading { ends, head, read, .. } = &mut self.state {
            for progress in self.broker.progress(&self.consumer, &self.topics).await? {
                let end = ends.iter().find(|end| end.partition == progress.partition);
                if has_read(&progress, end, *head) {
                    read.insert(progress.partition);
                }
            }
            if ends.iter().all(|end| read.contains(&end.partition)) {
                self.state = State::Open { since: now };
            }
        }
        Ok(())
    }

    async fn is_relayed(&self, head: Position) -> Result<bool> {
        let relayed = self.log.progress(names::RELAY, &[]).await?;
        let reached = |progress: &Progress| {
            progress.lag == 0 || progress.settled.is_some_and(|settled| settled.0 >= head.0)
        };
        Ok(relayed.iter().all(reached))
    }
}

/// Whether everything is read of a partition that was there at that moment.
fn has_read(progress: &Progress, end: Option<&Progress>, head: Option<Position>) -> bool {
    let end = match (head, end) {
        (Some(head), _) => head.0,
        (None, Some(end)) => end.settled.map_or(u64::MAX, |settled| settled.0 + end.lag),
        (None, None) => return true,
    };
    progress.lag == 0 || progress.settled.is_some_and(|settled| settled.0 >= end)
}
