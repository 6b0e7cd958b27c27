//! Fair shares of a consumer's partitions, where the broker leaves them to leases in a database:
//! the suite knows no database, so this stands for the leases.

use sillage_core::Partition;
use std::collections::BTreeMap;

/// The members of one consumer.
#[derive(Default)]
pub(super) struct Group {
    partitions: Vec<Partition>,
    owners: BTreeMap<Partition, usize>,
    members: Vec<usize>,
    joined: usize,
}

/// What a member does next.
pub(super) enum Step {
    Open(Vec<Partition>),
    Release(Partition),
    Stay,
}

impl Group {
    /// One more member: its number.
    pub(super) fn join(&mut self, partitions: Vec<Partition>) -> usize {
        self.partitions = partitions;
        self.joined += 1;
        self.members.push(self.joined);
        self.joined
    }

    /// A member left, or its leases ran out.
    pub(super) fn leave(&mut self, member: usize) {
        self.members.retain(|other| *other != member);
        self.owners.retain(|_, owner| *owner != member);
    }

    /// A member has released a partition.
    pub(super) fn free(&mut self, partition: &Partition) {
        self.owners.remove(partition);
    }

    /// What a member does for a fair share. What it opens is its own at once.
    pub(super) fn step(&mut self, member: usize) -> Step {
        let Some(index) = self.members.iter().position(|other| *other == member) else {
            return Step::Stay;
        };
        let (all, members) = (self.partitions.len(), self.members.len());
        let share = all / members + usize::from(index < all % members);
        let owned = self.owners.iter().filter(|(_, owner)| **owner == member);
        let owned: Vec<_> = owned.map(|(partition, _)| partition.clone()).collect();
        if owned.len() > share {
            return owned.last().cloned().map_or(Step::Stay, Step::Release);
        }
        let free = self.partitions.iter().filter(|partition| !self.owners.contains_key(*partition));
        let taken: Vec<_> = free.take(share - owned.len()).cloned().collect();
        if taken.is_empty() {
            return Step::Stay;
        }
        self.owners.extend(taken.iter().map(|partition| (partition.clone(), member)));
        Step::Open(taken)
    }
}
