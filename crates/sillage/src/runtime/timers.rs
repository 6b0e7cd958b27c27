//! The timer pump: publishes what is due, on the database's time.
//!
//! A timer is taken out and its message appended in one commit, conditional on the version that
//! was read: several processes may pump, and each timer fires once; one that was cancelled or set
//! anew meanwhile does not. While none is due the pump asks once a second, however many wait; one set
//! by this process is fired when it is due, one set by another up to a second late.
//!
//! A timer of a process manager or a saga is fired by a process that runs it, and after an outage
//! only when what came meanwhile has been read (`timers/gate.rs`).

mod gate;

use super::{assemble::Timer, committer::Committer, health::Vital};
use crate::{names, process::tokens};
use futures_util::future::join_all;
pub(crate) use gate::{Gate, State as GateState};
use sillage_core::{
    Clock, Commit, CommitError, Condition, Database, Message, Range, Result, Stored, Text,
    Timestamp, Write, from_json,
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Timers fired in one read.
const PAGE: usize = 256;
/// The longest wait before the database is asked again.
const POLL: Duration = Duration::from_secs(1);
/// How soon it is asked again while timers wait for a backlog.
const HELD: Duration = Duration::from_millis(500);

pub(crate) struct Pump {
    pub(crate) database: Arc<dyn Database>,
    pub(crate) committer: Committer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) vital: Arc<Vital>,
    pub(crate) stop: CancellationToken,
    /// The process managers and sagas of this process.
    pub(crate) gates: Vec<Gate>,
}

/// What is found out in one read.
#[derive(Default)]
struct Round {
    /// Whose timers wait; they are asked once.
    shut: HashSet<Text>,
    /// Why that of somebody cannot be told.
    unknown: Option<String>,
}

/// What the pump knows between two reads.
#[derive(Default)]
struct Known {
    /// When the next timer is due, by the clock of this process.
    next: Option<Timestamp>,
    /// Timers up to this sort key are held: behind them there may be others.
    held: Option<Text>,
}

impl Pump {
    pub(crate) async fn run(mut self) {
        let (mut known, mut wake) = (Known::default(), self.clock.elapsed());
        while !self.stop.is_cancelled() {
            let now = self.clock.elapsed();
            if now >= wake {
                let wait = match self.fire(&mut known).await {
                    Ok(wait) => wait,
                    Err(error) => {
                        self.vital.problem("timers", Some(error.to_string()));
                        tracing::warn!(%error, "timers unreadable");
                        POLL
                    }
                };
                wake = self.clock.elapsed() + wait;
            }
            let wait = wake.saturating_sub(self.clock.elapsed());
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                () = self.clock.sleep(wait) => {}
                set = self.committer.timer_set() => {
                    let now = self.clock.now();
                    let due = set.due(now);
                    if known.next.is_none_or(|next| due < next) {
                        known.next = Some(due);
                        wake = wake.min(self.clock.elapsed() + due.since(now));
                    }
                }
            }
        }
    }

    /// Fires what is due; answers how long nothing more can be.
    async fn fire(&mut self, known: &mut Known) -> Result<Duration> {
        let due = self.due(known).await?;
        let (mut fired, mut held, mut round) = (vec![], false, Round::default());
        for stored in &due {
            match self.is_free(stored, &mut round).await? {
                Some(true) => fired.push(stored),
                Some(false) => held = true,
                None => {}
            }
        }
        self.vital.problem("timers", round.unknown);
        // All at once: they share a durable write.
        let answers = join_all(fired.iter().map(|timer| self.fire_one(timer))).await;
        known.held = None;
        if answers.contains(&false) {
            return Ok(POLL);
        }
        if due.len() == PAGE {
            if fired.is_empty() {
                known.held = due.last().and_then(|last| last.sort.clone());
            }
            return Ok(if fired.is_empty() { HELD } else { Duration::ZERO });
        }
        let now = self.clock.now();
        if held || !fired.is_empty() {
            known.next = None;
            return Ok(if held { HELD } else { Duration::ZERO });
        }
        if known.next.is_none_or(|next| next <= now) {
            known.next = self.next(now).await?;
        }
        Ok(known.next.map_or(POLL, |next| next.since(now).min(POLL)))
    }

    async fn due(&self, known: &Known) -> Result<Vec<Stored>> {
        let Some(held) = &known.held else {
            return self.database.list(names::TIMERS, Range::Due, PAGE).await;
        };
        let until = self.database.now().await?.to_string();
        let behind = Range::Sort { from: &format!("{held}~"), until: &until };
        self.database.list(names::TIMERS, behind, PAGE).await
    }

    /// When the next timer is due, if one waits.
    async fn next(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let there = self.database.now().await?;
        let from = there.to_string();
        let later = Range::Sort { from: &from, until: "~" };
        let next = self.database.list(names::TIMERS, later, 1).await?;
        let due = next.first().and_then(|timer| timer.sort.as_ref()?.parse::<Timestamp>().ok());
        // At the far end where nothing waits, so that it is not asked for again every second.
        Ok(Some(due.map_or(now + FAR, |due| now + due.since(there))))
    }

    /// Whether it may fire now; `None` where it cannot be read.
    async fn is_free(&mut self, stored: &Stored, round: &mut Round) -> Result<Option<bool>> {
        let message = match message_of(stored) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(timer = %stored.id, %error, "a timer is unreadable");
                return Ok(None);
            }
        };
        let Some(owner) = tokens::fired(&message).map(|fired| fired.process) else {
            return Ok(Some(true));
        };
        let Some(gate) = self.gates.iter_mut().find(|gate| *gate.consumer == *owner) else {
            return Ok(Some(false));
        };
        let due = stored.sort.as_deref().unwrap_or_default().parse::<Timestamp>()?;
        let late = self.clock.now().since(due);
        if gate.is_free(late, &*self.clock) {
            return Ok(Some(true));
        }
        if round.shut.contains(owner) {
            return Ok(Some(false));
        }
        let head = self.database.head().await?.stable;
        let is_open = gate.is_open(late, head, &*self.clock).await.unwrap_or_else(|error| {
            // Those of others do not wait for its broker.
            round.unknown = Some(format!(
                "those of `{owner}` wait, as its broker does not say how far it is: {error}"
            ));
            false
        });
        if !is_open {
            round.shut.insert(owner.into());
        }
        Ok(Some(is_open))
    }

    /// Whether the database answered.
    async fn fire_one(&self, stored: &Stored) -> bool {
        let commits = firing(stored, self.clock.now()).and_then(|fire| Ok((fire, taking(stored)?)));
        let (fire, take) = match commits {
            Ok(commits) => commits,
            Err(error) => {
                tracing::error!(timer = %stored.id, %error, "a timer is unreadable");
                return true;
            }
        };
        let mut answer = self.committer.commit(fire).await;
        if let Err(CommitError::AlreadyHandled) = answer {
            // Its message is in the log: it would stay due for ever.
            answer = self.committer.commit(take).await;
        }
        match answer {
            // Another pump was quicker, or it was cancelled or set anew.
            Ok(_)
            | Err(
                CommitError::Conflict { .. } | CommitError::Fenced | CommitError::AlreadyHandled,
            ) => true,
            Err(error) => {
                tracing::warn!(timer = %stored.id, %error, "a timer did not fire");
                false
            }
        }
    }
}

/// Further away than any timer that matters to the pump's pace.
const FAR: Duration = Duration::from_secs(24 * 3600);

fn message_of(stored: &Stored) -> Result<Message> {
    let timer: Timer = serde_json::from_slice(&stored.body)?;
    from_json(timer.message.get().as_bytes())
}

/// The commit that takes a timer out and publishes its message.
fn firing(stored: &Stored, now: Timestamp) -> Result<Commit> {
    let mut message = message_of(stored)?;
    message.time = now;
    let mut commit = taking(stored)?;
    commit.writes.push(Write::Append { stream: None, message: Arc::new(message) });
    Ok(commit)
}

/// The commit that takes a timer out.
fn taking(stored: &Stored) -> Result<Commit> {
    let (collection, id) = (Text::from(names::TIMERS), stored.id.clone());
    let unchanged = Condition::Document {
        collection: collection.clone(),
        id: id.clone(),
        expected: Some(stored.version),
    };
    // One that was cancelled and set anew counts its versions from one again, but is due later.
    let due = stored.sort.as_deref().unwrap_or_default().parse::<Timestamp>()?;
    let sort = (due + Duration::from_micros(1)).to_string().into();
    let not_later = Condition::Below { collection: collection.clone(), id: id.clone(), sort };
    Ok(Commit {
        conditions: vec![unchanged, not_later],
        writes: vec![Write::Delete { collection, id }],
    })
}

#[cfg(test)]
mod tests;
