//! The timer pump: publishes what is due, on the database's time.
//!
//! A timer is taken out and its message appended in one commit, conditional on the version that
//! was read: several processes may pump, and each timer fires once; one that was cancelled or set
//! anew meanwhile does not. While none is due the pump asks once a second; a timer set by this
//! process wakes it, one set by another may fire up to a second late.

use super::{assemble::Timer, committer::Committer, health::Vital};
use crate::names;
use futures_util::future::join_all;
use sillage_core::{
    Clock, Commit, CommitError, Condition, Database, Range, Result, Stored, Timestamp, Write,
    from_json,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Timers fired in one read.
const PAGE: usize = 256;
/// The longest wait before the database is asked again.
const POLL: Duration = Duration::from_secs(1);

pub(crate) struct Pump {
    pub(crate) database: Arc<dyn Database>,
    pub(crate) committer: Committer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) vital: Arc<Vital>,
    pub(crate) stop: CancellationToken,
}

impl Pump {
    pub(crate) async fn run(self) {
        while !self.stop.is_cancelled() {
            let wait = match self.fire().await {
                Ok(wait) => {
                    self.vital.problem("timers", None);
                    wait
                }
                Err(error) => {
                    self.vital.problem("timers", Some(error.to_string()));
                    tracing::warn!(%error, "timers unreadable");
                    POLL
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                () = self.clock.sleep(wait) => {}
                () = self.committer.timer_set() => {}
            }
        }
    }

    /// Fires what is due; answers how long nothing more can be.
    async fn fire(&self) -> Result<Duration> {
        let due = self.database.list(names::TIMERS, Range::Due, PAGE).await?;
        // All at once: they share a durable write.
        join_all(due.iter().map(|timer| self.fire_one(timer))).await;
        if due.len() == PAGE {
            return Ok(Duration::ZERO);
        }
        let now = self.database.now().await?;
        let from = now.to_string();
        let later = Range::Sort { from: &from, until: "~" };
        let next = self.database.list(names::TIMERS, later, 1).await?;
        let next = next.first().and_then(|timer| timer.sort.as_ref()?.parse::<Timestamp>().ok());
        Ok(next.map_or(POLL, |next| next.since(now).min(POLL)))
    }

    async fn fire_one(&self, stored: &Stored) {
        let commit = match firing(stored, self.clock.now()) {
            Ok(commit) => commit,
            Err(error) => {
                tracing::error!(timer = %stored.id, %error, "a timer is unreadable");
                return;
            }
        };
        match self.committer.commit(commit).await {
            // Another pump was quicker, or it was cancelled or set anew.
            Ok(_)
            | Err(
                CommitError::Conflict { .. } | CommitError::Fenced | CommitError::AlreadyHandled,
            ) => {}
            Err(error) => tracing::warn!(timer = %stored.id, %error, "a timer did not fire"),
        }
    }
}

/// The commit that takes a timer out and publishes its message.
fn firing(stored: &Stored, now: Timestamp) -> Result<Commit> {
    let timer: Timer = serde_json::from_slice(&stored.body)?;
    let mut message = from_json(timer.message.get().as_bytes())?;
    message.time = now;
    let (collection, id) = (sillage_core::Text::from(names::TIMERS), stored.id.clone());
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
        writes: vec![
            Write::Delete { collection, id },
            Write::Append { stream: None, message: Arc::new(message) },
        ],
    })
}

#[cfg(test)]
mod tests;
