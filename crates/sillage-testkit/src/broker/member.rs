//! What a member of a consumer holds of the broker in memory.

use super::{Member, Shared, State};
use sillage_core::{
    BoxFuture, Epoch, Inbound, Partition, Receiver, Result, Settled, Settler, Text,
};
use std::sync::Arc;

/// The settling side.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) consumer: Text,
}

impl Handle {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_waiters();
    }

    fn leave(&self) {
        self.change(|state| {
            state.members.remove(&self.id);
            if self.shared.assigns {
                state.rebalance(&self.consumer);
            }
        });
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The receiving side.
pub(super) struct Reader(pub(super) Arc<Handle>);

impl Receiver for Reader {
    fn next(&mut self) -> BoxFuture<'_, Result<Inbound>> {
        Box::pin(async move {
            loop {
                let changed = self.0.shared.changed.notified();
                let next = self.0.shared.state().next(self.0.id);
                match next {
                    Some(inbound) => return Ok(inbound),
                    None => changed.await,
                }
            }
        })
    }
}

impl Settler for Handle {
    fn settle<'a>(&'a self, settled: &'a [Settled]) -> BoxFuture<'a, Result<()>> {
        self.change(|state| {
            for settled in settled {
                let partition = &settled.partition;
                let is_own = |member: &Member| {
                    member.places.contains_key(partition) && !member.subscription.broadcast
                };
                if let (Some(watermark), true) =
                    (settled.watermark, state.members.get(&self.id).is_some_and(is_own))
                {
                    let key = (self.consumer.clone(), partition.clone());
                    state.settled.insert(key, watermark.0 + 1);
                }
            }
        });
        Box::pin(async { Ok(()) })
    }

    fn open<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        self.change(|state| {
            for partition in partitions.iter().filter(|_| !self.shared.assigns) {
                state.assign(self.id, partition.clone());
            }
        });
        Box::pin(async { Ok(()) })
    }

    fn release<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        self.change(|state| {
            for partition in partitions {
                let Some(member) = state.members.get_mut(&self.id) else { continue };
                let had = member.places.remove(partition).is_some();
                let wanted = member.leaving.remove(partition);
                if had && !wanted && self.shared.assigns {
                    state.assign(self.id, partition.clone());
                }
            }
            if self.shared.assigns {
                state.rebalance(&self.consumer);
            }
        });
        Box::pin(async { Ok(()) })
    }

    fn pause(&self, partitions: &[Partition]) -> Result<()> {
        self.change(|state| {
            if let Some(member) = state.members.get_mut(&self.id) {
                member.paused.extend(partitions.iter().cloned());
            }
        });
        Ok(())
    }

    fn resume(&self, partitions: &[Partition]) -> Result<()> {
        self.change(|state| {
            if let Some(member) = state.members.get_mut(&self.id) {
                member.paused.retain(|paused| !partitions.contains(paused));
            }
        });
        Ok(())
    }

    fn fence(&self, _partition: &Partition) -> Option<(Text, Epoch)> {
        None
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.leave();
        Box::pin(async { Ok(()) })
    }
}
