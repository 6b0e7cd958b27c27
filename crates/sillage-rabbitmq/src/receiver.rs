//! A member's partitions: what is open, what was received, and what the member is told.

use crate::{acks::Acks, connection::Link, reading};
use futures_util::future::join_all;
use lapin::Channel;
use sillage_core::{
    BoxFuture, Delivery, Error, Inbound, Message, Offset, Partition, Receiver, Result, Text,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

/// What a reading task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Flow,
    Hold,
    Stop,
}

/// A member of a consumer, shared by its receiver, its settler and its reading tasks.
pub(crate) struct Member {
    pub(crate) link: Link,
    pub(crate) consumer: Text,
    partitions: HashSet<Partition>,
    state: Mutex<State>,
    /// There is something to tell.
    ready: Notify,
    /// Something was told.
    pub(crate) taken: Notify,
}

#[derive(Default)]
pub(crate) struct State {
    slots: HashMap<Partition, Slot>,
    inbox: VecDeque<Result<Inbound>>,
    /// The highest offset that each partition ever had: the next assignment goes on behind it.
    highest: HashMap<Partition, u64>,
    tasks: u64,
    closed: bool,
}

/// An open partition.
struct Slot {
    /// Which task reads it: an earlier one may still be closing its channel.
    task: u64,
    order: watch::Sender<Order>,
    handle: JoinHandle<()>,
    assignment: Option<Assignment>,
}

impl Slot {
    /// Its task closes the channel, and ends.
    fn stop(self) -> JoinHandle<()> {
        self.order.send_replace(Order::Stop);
        self.handle
    }
}

/// From a channel's opening to its end: the deliveries that can be settled.
pub(crate) struct Assignment {
    pub(crate) channel: Channel,
    /// The offset before the first delivery's.
    pub(crate) base: u64,
    pub(crate) acks: Acks,
}

impl Member {
    pub(crate) fn new(link: Link, consumer: Text, partitions: Vec<Partition>) -> Member {
        Member {
            link,
            consumer,
            partitions: partitions.into_iter().collect(),
            state: Mutex::default(),
            ready: Notify::new(),
            taken: Notify::new(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to read a partition.
    pub(crate) fn open(self: &Arc<Self>, partition: &Partition) -> Result<()> {
        if !self.partitions.contains(partition) {
            return Err(Error::invalid(format!(
                "consumer `{}` has no partition {partition}",
                self.consumer
            )));
        }
        let mut state = self.state();
        if state.closed || state.slots.contains_key(partition) {
            return Ok(());
        }
        state.tasks += 1;
        let task = state.tasks;
        let (order, orders) = watch::channel(Order::Flow);
        let queue = reading::Queue::new(self.clone(), partition.clone(), task, orders);
        let handle = tokio::spawn(queue.run());
        state.slots.insert(partition.clone(), Slot { task, order, handle, assignment: None });
        Ok(())
    }

    /// Ends the reading of partitions, and waits until their channels are closed.
    pub(crate) async fn release(&self, partitions: &[Partition]) {
        let slots: Vec<Slot> = {
            let mut state = self.state();
            partitions.iter().filter_map(|partition| state.remove(partition)).collect()
        };
        join_all(slots.into_iter().map(Slot::stop)).await;
    }

    /// Ends all reading; nothing more is told.
    pub(crate) fn stop(&self) -> Vec<JoinHandle<()>> {
        let mut state = self.state();
        state.closed = true;
        state.inbox.clear();
        let slots = std::mem::take(&mut state.slots);
        drop(state);
        self.ready.notify_one();
        slots.into_values().map(Slot::stop).collect()
    }

    pub(crate) fn order(&self, partitions: &[Partition], order: Order) {
        let state = self.state();
        for partition in partitions {
            if let Some(slot) = state.slots.get(partition) {
                slot.order.send_replace(order);
            }
        }
    }

    /// A task has a channel that delivers: the partition is this member's.
    pub(crate) fn assigned(&self, partition: &Partition, task: u64, channel: &Channel) {
        let mut state = self.state();
        let base = state.highest.get(partition).copied().unwrap_or(0);
        let Some(slot) = state.slot(partition, task) else { return };
        let (channel, acks) = (channel.clone(), Acks::default());
        slot.assignment = Some(Assignment { channel, base, acks });
        state.inbox.push_back(Ok(Inbound::Assigned(vec![partition.clone()])));
        drop(state);
        self.ready.notify_one();
    }

    /// A task has received messages, with their delivery tags.
    pub(crate) fn received(&self, partition: &Partition, task: u64, batch: Vec<(u64, Message)>) {
        let mut state = self.state();
        let Some(slot) = state.slot(partition, task) else { return };
        let Some(assignment) = &mut slot.assignment else { return };
        let base = assignment.base;
        let mut highest = base;
        let mut deliveries = Vec::with_capacity(batch.len());
        for (tag, message) in batch {
            assignment.acks.delivered(tag);
            highest = highest.max(base + tag);
            deliveries.push(Delivery { offset: Offset(base + tag), message: Arc::new(message) });
        }
        state.highest.insert(partition.clone(), highest);
        state.inbox.push_back(Ok(Inbound::Batch(partition.clone(), deliveries)));
        drop(state);
        self.ready.notify_one();
    }

    /// A task's channel has ended by itself. Nothing of it can be settled any more, and what was
    /// not acknowledged comes again.
    pub(crate) fn lost(&self, partition: &Partition, task: u64) {
        let mut state = self.state();
        let Some(slot) = state.slot(partition, task) else { return };
        if slot.assignment.take().is_none() {
            return;
        }
        if state.purge(partition) {
            state.inbox.push_back(Ok(Inbound::Lost(vec![partition.clone()])));
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Something that health should show.
    pub(crate) fn report(&self, error: Error) {
        tracing::warn!(consumer = %self.consumer, %error, "receiving was interrupted");
        self.tell(Err(error));
    }

    pub(crate) fn tell(&self, inbound: Result<Inbound>) {
        let mut state = self.state();
        if !state.closed {
            state.inbox.push_back(inbound);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// How much waits to be told.
    #[expect(dead_code, reason = "streams are read by the next change")]
    pub(crate) fn waiting(&self) -> usize {
        self.state().inbox.len()
    }

    async fn next(&self) -> Result<Inbound> {
        loop {
            {
                let mut state = self.state();
                if let Some(inbound) = state.inbox.pop_front() {
                    self.taken.notify_waiters();
                    return inbound;
                }
                if state.closed {
                    let gone = format!("this member has left consumer `{}`", self.consumer);
                    return Err(Error::unavailable(gone));
                }
            }
            self.ready.notified().await;
        }
    }
}

impl State {
    fn slot(&mut self, partition: &Partition, task: u64) -> Option<&mut Slot> {
        self.slots.get_mut(partition).filter(|slot| slot.task == task)
    }

    /// The assignment of a partition, while it lasts.
    pub(crate) fn assignment(&mut self, partition: &Partition) -> Option<&mut Assignment> {
        self.slots.get_mut(partition)?.assignment.as_mut()
    }

    fn remove(&mut self, partition: &Partition) -> Option<Slot> {
        self.purge(partition);
        self.slots.remove(partition)
    }

    /// Takes back what was not told of a partition; true where the member was told that it has it.
    fn purge(&mut self, partition: &Partition) -> bool {
        let mut was_told = true;
        self.inbox.retain(|inbound| match inbound {
            Ok(Inbound::Batch(other, _)) => other != partition,
            Ok(Inbound::Assigned(others)) if others.contains(partition) => {
                was_told = false;
                false
            }
            _ => true,
        });
        was_told
    }
}

/// The receiving side. Dropping it ends the membership as a crash would: what is not acknowledged
/// is delivered again, to whoever opens the partition next.
pub(crate) struct Incoming(pub(crate) Arc<Member>);

impl Receiver for Incoming {
    fn next(&mut self) -> BoxFuture<'_, Result<Inbound>> {
        Box::pin(self.0.next())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.0.stop();
    }
}
