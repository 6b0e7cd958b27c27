//! What a client says about itself: its log, its errors, its figures.

use rdkafka::{
    ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError,
    types::RDKafkaErrorCode as Code,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Passes a client's log on to `tracing`, and keeps the last error with its reason: calls that
/// fail say no more than "timed out".
#[derive(Default)]
pub(crate) struct Watch {
    last: Mutex<Option<(Code, String)>>,
}

impl Watch {
    /// What went wrong last.
    pub(crate) fn last(&self) -> Option<(Code, String)> {
        lock(&self.last).clone()
    }

    pub(crate) fn note(&self, error: &KafkaError, reason: &str) {
        tracing::debug!(target: "sillage_kafka", %error, reason, "the client reports an error");
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = lock(&self.last);
        // That no broker is left says less than why the last one went.
        if code != Code::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }

    pub(crate) fn say(level: RDKafkaLogLevel, facility: &str, line: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                tracing::warn!(target: "sillage_kafka::client", facility, "{line}");
            }
            // A property for publishing is told to clients that receive, and the other way round.
            RDKafkaLogLevel::Warning if facility != "CONFWARN" => {
                tracing::info!(target: "sillage_kafka::client", facility, "{line}");
            }
            _ => tracing::debug!(target: "sillage_kafka::client", facility, "{line}"),
        }
    }
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        Watch::say(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(&error, reason);
    }
}

impl ConsumerContext for Watch {}

/// Locks, also after a panic elsewhere: nothing here is left half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
