//! The last so many of messages that come from several partitions.

use sillage::{Delivery, Partition, Timestamp};
use std::collections::{BTreeMap, HashMap};

/// Keeps the latest by the times that messages carry. Of one partition the order stays: a message
/// counts as no older than those before it.
pub(super) struct Last {
    count: usize,
    arrived: u64,
    latest: HashMap<Partition, Timestamp>,
    kept: BTreeMap<(Timestamp, u64), (Partition, Delivery)>,
}

impl Last {
    pub(super) fn new(count: usize) -> Self {
        Last { count, arrived: 0, latest: HashMap::new(), kept: BTreeMap::new() }
    }

    pub(super) fn keep(&mut self, partition: Partition, delivery: Delivery) {
        let latest = self.latest.entry(partition.clone()).or_default();
        *latest = delivery.message.time.max(*latest);
        self.arrived += 1;
        self.kept.insert((*latest, self.arrived), (partition, delivery));
        if self.kept.len() > self.count {
            self.kept.pop_first();
        }
    }

    /// What is kept, the oldest first.
    pub(super) fn take(self) -> impl Iterator<Item = (Partition, Delivery)> {
        self.kept.into_values()
    }
}
