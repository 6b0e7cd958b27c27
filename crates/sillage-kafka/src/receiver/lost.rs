//! Offsets that are gone: the partition stops, and its consumer is told what it lost.

use super::{assignments::Phase, poller::Poller};
use crate::offsets::Ends;
use rdkafka::consumer::Consumer as _;
use sillage_core::{Error, ErrorKind, Partition, Result};

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
        let Ends { low, high } = ends;
        let consumer = &self.subscription.consumer;
        let accept = self.reset(partition, "to-earliest");
        self.outbox.stop(
            partition.clone(),
            ErrorKind::Corrupt,
            format!(
                "consumer `{consumer}` is stopped at {partition}: it is at offset {next}, and \
                 Kafka has only {low}..{high}, so that messages are gone which it never saw. To \
                 accept the loss, stop all processes of the consumer and run `{accept}`"
            ),
        );
    }

    /// Says that Kafka has forgotten how far the consumer is, again and again.
    pub(super) fn stop_forgotten(&self, partition: &Partition, next: u64, ends: Ends) {
        let Ends { low, high } = ends;
        let consumer = &self.subscription.consumer;
        let anew = self.reset(partition, "to-earliest");
        let go_on = if next < low {
            format!("Messages before {low} are gone which it never saw; to accept that: `{anew}`")
        } else {
            let there = self.reset(partition, &format!("to-offset {next}"));
            format!("To go on there: `{there}`. If the topic was made anew since: `{anew}`")
        };
        self.outbox.stop(
            partition.clone(),
            ErrorKind::Corrupt,
            format!(
                "consumer `{consumer}` is stopped at {partition}: its database says that it is at \
                 offset {next} of {low}..{high}, and Kafka has forgotten that, as it does when no \
                 member was there for `offsets.retention.minutes`. From its start on it would handle \
                 again what its inbox does not remember any more. Stop all processes of the \
                 consumer. {go_on}"
            ),
        );
    }

    /// What sets a group's offset.
    fn reset(&self, partition: &Partition, to: &str) -> String {
        let (servers, group) = (&self.servers, &self.subscription.consumer);
        let Partition { topic, number } = partition;
        format!(
            "kafka-consumer-groups.sh --bootstrap-server {servers} --group {group} --topic \
             {topic}:{number} --reset-offsets --{to} --execute"
        )
    }
}
