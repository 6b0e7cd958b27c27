//! Offsets that are gone: the partition stops, and its consumer is told what it lost.

use super::{assignments::Phase, poller::Poller};
use crate::offsets::Ends;
use rdkafka::consumer::Consumer as _;
use sillage_core::{Error, Partition, Result};

/// Idle turns until offsets are looked at again: 5 s.
const LOOK_AGAIN: u32 = 50;

impl Poller {
    /// A partition's next offset is gone, and the client does not say which: looks at all.
    pub(super) fn look(&mut self) {
        self.look_in = LOOK_AGAIN;
        self.jobs.range(self.assignments.in_phase(Phase::Flowing));
    }

    pub(super) fn ranged(&mut self, ranged: Result<Vec<(Partition, Ends)>>) {
        let ranged = match ranged {
            Ok(ranged) => ranged,
            // It is looked at again.
            Err(error) => return self.outbox.fail(error),
        };
        for (partition, ends) in ranged {
            let Some(number) = self.assignments.find(&partition) else { continue };
            let place = self.assignments.place(number);
            // It may have been given back meanwhile.
            if place.phase != Phase::Flowing {
                continue;
            }
            let next = place.next;
            if next < ends.low || ends.high < next {
                self.stopped = self.stopped.saturating_sub(1);
                self.assignments.stop(&partition);
                self.stop(&partition, next, ends);
            }
        }
        if self.stopped > 0 {
            let consumer = &self.subscription.consumer;
            let why = self.consumer.context().reason().unwrap_or_default();
            self.outbox.fail(Error::unavailable(format!(
                "consumer `{consumer}` gets nothing more of a partition: {why}; its offsets are \
                 looked at again"
            )));
        }
    }

    /// Says that offsets are gone, again and again.
    pub(super) fn stop(&self, partition: &Partition, next: u64, ends: Ends) {
        let (Partition { topic, number }, Ends { low, high }) = (partition, ends);
        let servers = &self.servers;
        let consumer = &self.subscription.consumer;
        self.outbox.stop(
            partition.clone(),
            format!(
                "consumer `{consumer}` is stopped at {partition}: it is at offset {next}, and \
                 Kafka has only {low}..{high}, so that messages are gone which it never saw. To \
                 accept the loss, stop all processes of the consumer and run \
                 `kafka-consumer-groups.sh --bootstrap-server {servers} --group {consumer} --topic \
                 {topic}:{number} --reset-offsets --to-earliest --execute`"
            ),
        );
    }
}
