//! What the client calls back with, while it is polled: noted here, obeyed by the poller later.
//!
//! Nothing is answered from inside a callback, so that partitions that stay keep flowing while
//! others are drained.

use crate::{
    figures,
    watch::{Watch, lock},
};
use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::{RDKafkaErrorCode as Code, RDKafkaRespErr},
};
use sillage_core::{Partition, Text};
use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// What the client called back with.
#[derive(Debug)]
pub(super) enum Event {
    Assigned(Vec<Partition>),
    Revoked {
        partitions: Vec<Partition>,
        lost: bool,
    },
    /// These offsets are committed now, or why they are not.
    Committed {
        partitions: Vec<Partition>,
        error: Option<Code>,
    },
}

/// Notes what happens to one consumer.
pub(super) struct Context {
    consumer: Text,
    events: Mutex<Vec<Event>>,
    /// Grows with each callback: then a poll that brought nothing has not seen the queue empty.
    calls: AtomicU64,
    leaving: AtomicBool,
    watch: Watch,
}

impl Context {
    /// For a member of this consumer.
    pub(super) fn new(consumer: Text) -> Self {
        Context {
            consumer,
            events: Mutex::default(),
            calls: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            watch: Watch::default(),
        }
    }

    /// As if the group had assigned these.
    pub(super) fn assigned(&self, partitions: Vec<Partition>) {
        self.note(Event::Assigned(partitions));
    }

    /// What happened since the last call.
    pub(super) fn events(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.events))
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// From now on everything is given back at once.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Why the client could not do something, as far as it said.
    pub(super) fn reason(&self) -> Option<String> {
        self.watch.last().map(|(_, reason)| reason)
    }

    fn note(&self, event: Event) {
        self.called();
        lock(&self.events).push(event);
    }

    fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.called();
        Watch::say(level, facility, line);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.called();
        figures::tell(&self.consumer, statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.called();
        self.watch.note(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        if self.leaving.load(Ordering::Acquire) {
            // The client takes every answer for "nothing is mine any more" now.
            if let Err(error) = consumer.unassign() {
                tracing::warn!(target: "sillage_kafka", %error, "leaving a group");
            }
            return self.called();
        }
        let partitions = partitions(list);
        self.note(match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Event::Assigned(partitions),
            _ => Event::Revoked { partitions, lost: consumer.assignment_lost() },
        });
    }

    fn commit_callback(&self, result: KafkaResult<()>, list: &TopicPartitionList) {
        let error = result.err().and_then(|error| error.rdkafka_error_code());
        let failed = list.elements().iter().find_map(|element| element.error().err());
        let error = error.or(failed.and_then(|error| error.rdkafka_error_code()));
        self.note(Event::Committed { partitions: partitions(list), error });
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<Partition> {
    let elements = list.elements();
    let partition = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
        Partition { topic: element.topic().into(), number: element.partition().unsigned_abs() }
    };
    elements.iter().map(partition).collect()
}
