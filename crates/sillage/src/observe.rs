//! Figures as metrics (crate `metrics`), for whatever recorder the process has installed.
//!
//! | metric | says | labels |
//! |---|---|---|
//! | `sillage_breaker_state` | 0: closed; 1: it is being tried; 2: open | `service`, `dependency` |
//! | `sillage_breaker_opened_total` | how often it opened | `service`, `dependency` |
//! | `sillage_rate_waits_total` | how often a consumer waited for a rate limit | `consumer`, `dependency` |
//! | `sillage_saga_instances` | instances that have not ended: running, compensating, stuck; of each at most 1,000 are counted, every 30 s | `saga`, `status` |
//! | `sillage_saga_ended_total` | instances that have ended: completed, compensated | `saga`, `status` |
//! | `sillage_saga_stuck_total` | steps, and undos, that no way was left for | `saga`, `step` |
//! | `sillage_saga_retries_total` | steps, and undos, that were asked again | `saga`, `step` |
//!
//! Breakers and rate limits are those of this process; instances are those in the database, whoever
//! runs them. Labels are names from the code: `service/saga`, and never a key. What is counted is
//! counted when a message is reacted to: a reaction whose commit met another's runs again, and
//! counts again.

use crate::{names, runtime::breaker::State, saga::Status};
use metrics::{counter, gauge};
use sillage_core::{Clock, Database, Range, Result, Text};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// How often instances are counted.
const EVERY: Duration = Duration::from_secs(30);
/// So many of each at most.
const COUNTED: usize = 1000;

/// How a breaker stands.
pub(crate) fn breaker(service: &Text, dependency: &Text, state: State) {
    let state = match state {
        State::Closed => 0.0,
        State::HalfOpen => 1.0,
        State::Open(_) => 2.0,
    };
    let (service, dependency) = (service.to_string(), dependency.to_string());
    gauge!("sillage_breaker_state", "service" => service, "dependency" => dependency).set(state);
}

/// A breaker has opened.
pub(crate) fn opened(service: &Text, dependency: &Text) {
    let (service, dependency) = (service.to_string(), dependency.to_string());
    counter!("sillage_breaker_opened_total", "service" => service, "dependency" => dependency)
        .increment(1);
}

/// A consumer begins to wait for a rate limit.
pub(crate) fn rate_wait(consumer: &Text, dependency: &Text) {
    let (consumer, dependency) = (consumer.to_string(), dependency.to_string());
    counter!("sillage_rate_waits_total", "consumer" => consumer, "dependency" => dependency)
        .increment(1);
}

/// An instance has ended.
pub(crate) fn saga_ended(saga: &str, status: Status) {
    let (saga, status) = (saga.to_owned(), status.word());
    counter!("sillage_saga_ended_total", "saga" => saga, "status" => status).increment(1);
}

/// A step of an instance is stuck.
pub(crate) fn saga_stuck(saga: &str, step: &'static str) {
    counter!("sillage_saga_stuck_total", "saga" => saga.to_owned(), "step" => step).increment(1);
}

/// A step of an instance is asked again.
pub(crate) fn saga_retry(saga: &str, step: &'static str) {
    counter!("sillage_saga_retries_total", "saga" => saga.to_owned(), "step" => step).increment(1);
}

/// Counts the instances of this app's sagas, now and then.
pub(crate) struct Census {
    pub(crate) database: Arc<dyn Database>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: CancellationToken,
    /// `service/saga`.
    pub(crate) sagas: Vec<Text>,
}

impl Census {
    pub(crate) async fn run(self) {
        while !self.stop.is_cancelled() {
            if let Err(error) = self.count().await {
                tracing::debug!(%error, "instances cannot be counted");
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                () = self.clock.sleep(EVERY) => {}
            }
        }
    }

    async fn count(&self) -> Result<()> {
        for saga in &self.sagas {
            for status in [Status::Running, Status::Compensating, Status::Stuck] {
                let from = format!("{}/{saga}/", status.word());
                let range = Range::Sort { from: &from, until: &format!("{from}~") };
                let count = self.database.list(names::SAGAS, range, COUNTED).await?.len();
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                let saga = saga.to_string();
                gauge!("sillage_saga_instances", "saga" => saga, "status" => status.word())
                    .set(f64::from(count));
            }
        }
        Ok(())
    }
}
