//! A member of a consumer: which partitions it has open, and what of them can be settled.

use crate::{
    acks::Acks,
    connection::Link,
    mailbox::{Addressed, Mail, Mailbox},
    reading,
};
use futures_util::future::join_all;
use lapin::Channel;
use sillage_core::{Delivery, Error, Inbound, Message, Offset, Partition, Result, Text};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::{sync::watch, task::JoinHandle};

/// What a reading task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Flow,
    Hold,
    Stop,
}

/// A task that reads, and its orders.
pub(crate) struct Task {
    pub(crate) order: watch::Sender<Order>,
    pub(crate) handle: JoinHandle<()>,
}

impl Task {
    /// It closes its channel, and ends.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.order.send_replace(Order::Stop);
        self.handle
    }
}

/// Shared by a member's receiver, its settler and its reading tasks.
pub(crate) struct Member {
    pub(crate) link: Link,
    pub(crate) mailbox: Mailbox<Slots>,
    partitions: HashSet<Partition>,
}

/// The open partitions.
#[derive(Default)]
pub(crate) struct Slots {
    open: HashMap<Partition, Slot>,
    /// The highest offset that each partition ever had: the next assignment goes on behind it.
    highest: HashMap<Partition, u64>,
    /// How many tasks there have been.
    tasks: u64,
}

struct Slot {
    task: Task,
    /// Which task it is: an earlier one may still be closing its channel.
    number: u64,
    assignment: Option<Assignment>,
}

/// From a channel's opening to its end: the deliveries that can be settled.
pub(crate) struct Assignment {
    pub(crate) channel: Channel,
    /// The offset before the first delivery's.
    pub(crate) base: u64,
    pub(crate) acks: Acks,
}

impl Slots {
    fn of_task(&mut self, partition: &Partition, number: u64) -> Option<&mut Slot> {
        self.open.get_mut(partition).filter(|slot| slot.number == number)
    }

    /// The assignment of a partition, while it lasts.
    pub(crate) fn assignment(&mut self, partition: &Partition) -> Option<&mut Assignment> {
        self.open.get_mut(partition)?.assignment.as_mut()
    }
}

impl Member {
    pub(crate) fn new(link: Link, consumer: Text, partitions: Vec<Partition>) -> Member {
        let mailbox = Mailbox::new(consumer, Slots::default());
        Member { link, mailbox, partitions: partitions.into_iter().collect() }
    }

    /// Begins to read a partition.
    pub(crate) fn open(self: &Arc<Self>, partition: &Partition) -> Result<()> {
        if !self.partitions.contains(partition) {
            return Err(Error::invalid(format!(
                "consumer `{}` has no partition {partition}",
                self.mailbox.consumer()
            )));
        }
        self.mailbox.with(|mail| {
            if mail.is_closed() || mail.state.open.contains_key(partition) {
                return;
            }
            let slots = &mut mail.state;
            slots.tasks += 1;
            let number = slots.tasks;
            let (order, orders) = watch::channel(Order::Flow);
            let queue = reading::Queue::new(self.clone(), partition.clone(), number, orders);
            let task = Task { order, handle: tokio::spawn(queue.run()) };
            slots.open.insert(partition.clone(), Slot { task, number, assignment: None });
        });
        Ok(())
    }

    /// Ends the reading of partitions, and waits until their channels are closed.
    pub(crate) async fn release(&self, partitions: &[Partition]) {
        let slots: Vec<Slot> = self.mailbox.with(|mail| {
            let remove = |partition| {
                mail.take_back(partition);
                mail.state.open.remove(partition)
            };
            partitions.iter().filter_map(remove).collect()
        });
        join_all(slots.into_iter().map(|slot| slot.task.stop())).await;
    }

    /// Ends all reading; nothing more is told.
    pub(crate) fn stop_all(&self) -> Vec<JoinHandle<()>> {
        let slots = self.mailbox.with(|mail| {
            mail.close();
            std::mem::take(&mut mail.state.open)
        });
        slots.into_values().map(|slot| slot.task.stop()).collect()
    }

    pub(crate) fn order(&self, partitions: &[Partition], order: Order) {
        self.mailbox.with(|mail| {
            for slot in partitions.iter().filter_map(|p| mail.state.open.get(p)) {
                slot.task.order.send_replace(order);
            }
        });
    }

    /// A task has a channel that delivers: the partition is this member's.
    pub(crate) fn assigned(&self, partition: &Partition, task: u64, channel: &Channel) {
        self.mailbox.with(|mail| {
            let base = mail.state.highest.get(partition).copied().unwrap_or(0);
            let Some(slot) = mail.state.of_task(partition, task) else { return };
            let (channel, acks) = (channel.clone(), Acks::default());
            slot.assignment = Some(Assignment { channel, base, acks });
            mail.tell(Ok(Inbound::Assigned(vec![partition.clone()])));
        });
    }

    /// A task has received messages, with their delivery tags.
    pub(crate) fn received(&self, partition: &Partition, task: u64, batch: Vec<(u64, Message)>) {
        self.mailbox.with(|mail: &mut Mail<Slots>| {
            let Some(slot) = mail.state.of_task(partition, task) else { return };
            let Some(assignment) = &mut slot.assignment else { return };
            let mut highest = assignment.base;
            let mut deliveries = Vec::with_capacity(batch.len());
            for (tag, message) in batch {
                assignment.acks.delivered(tag);
                let offset = assignment.base + tag;
                highest = highest.max(offset);
                deliveries.push(Delivery { offset: Offset(offset), message: Arc::new(message) });
            }
            mail.state.highest.insert(partition.clone(), highest);
            mail.tell(Ok(Inbound::Batch(partition.clone(), deliveries)));
        });
    }

    /// A task's channel has ended by itself. Nothing of it can be settled any more, and what was
    /// not acknowledged comes again.
    pub(crate) fn lost(&self, partition: &Partition, task: u64) {
        self.mailbox.with(|mail| {
            let slot = mail.state.of_task(partition, task);
            if slot.and_then(|slot| slot.assignment.take()).is_none() {
                return;
            }
            if mail.take_back(partition) {
                mail.tell(Ok(Inbound::Lost(vec![partition.clone()])));
            }
        });
    }
}

impl Addressed for Member {
    type State = Slots;

    fn mailbox(&self) -> &Mailbox<Slots> {
        &self.mailbox
    }

    fn stop(&self) {
        self.stop_all();
    }
}
