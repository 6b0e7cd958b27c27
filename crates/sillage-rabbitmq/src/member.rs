//! A member of a consumer: which partitions it has open, and what of them can be settled.

use crate::{
    acks::Acks,
    connection::Link,
    mailbox::{Addressed, Mail, Mailbox},
    reading,
};
use futures_util::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt as _},
};
use lapin::Channel;
use sillage_core::{BoxFuture, Delivery, Error, Inbound, Message, Offset, Partition, Result, Text};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tokio::sync::{mpsc, oneshot, watch};

/// What a reading task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Flow,
    Hold,
    Stop,
}

/// What reads, and its orders.
pub(crate) struct Task {
    pub(crate) order: watch::Sender<Order>,
    end: Ended,
}

/// Resolves when it has ended.
pub(crate) type Ended = oneshot::Receiver<()>;

impl Task {
    /// With what has to be driven to its end.
    pub(crate) fn new(
        order: watch::Sender<Order>,
        reading: impl Future<Output = ()> + Send + 'static,
    ) -> (Task, BoxFuture<'static, ()>) {
        let (ended, end) = oneshot::channel();
        let reading = Box::pin(async {
            reading.await;
            let _ = ended.send(());
        });
        (Task { order, end }, reading)
    }

    /// It closes its channel, and ends.
    pub(crate) fn stop(self) -> Ended {
        self.order.send_replace(Order::Stop);
        self.end
    }
}

/// Drives the reading of all partitions in one task: what comes for several of them wakes it once,
/// and a wake-up from the client's thread is dearer than a message.
async fn drive(mut begun: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>) {
    let mut all = FuturesUnordered::new();
    loop {
        tokio::select! {
            reading = begun.recv() => match reading {
                Some(reading) => all.push(reading),
                None => break,
            },
            Some(()) = all.next(), if !all.is_empty() => {}
        }
    }
    // Nobody can open any more; what is open holds the member.
    while all.next().await.is_some() {}
}

/// Shared by a member's receiver, its settler and its reading tasks.
pub(crate) struct Member {
    pub(crate) link: Link,
    pub(crate) mailbox: Mailbox<Slots>,
    partitions: HashSet<Partition>,
    readings: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
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
    /// Within a tokio runtime.
    pub(crate) fn new(link: Link, consumer: Text, partitions: Vec<Partition>) -> Member {
        let mailbox = Mailbox::new(consumer, Slots::default());
        let (readings, begun) = mpsc::unbounded_channel();
        tokio::spawn(drive(begun));
        Member { link, mailbox, partitions: partitions.into_iter().collect(), readings }
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
            let (task, reading) = Task::new(order, queue.run());
            slots.open.insert(partition.clone(), Slot { task, number, assignment: None });
            let _ = self.readings.send(reading);
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
    pub(crate) fn stop_all(&self) -> Vec<Ended> {
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
    pub(crate) fn received(
        &self,
        partition: &Partition,
        task: u64,
        batch: Vec<(u64, Arc<Message>)>,
    ) {
        self.mailbox.with(|mail: &mut Mail<Slots>| {
            let Some(slot) = mail.state.of_task(partition, task) else { return };
            let Some(assignment) = &mut slot.assignment else { return };
            let mut highest = assignment.base;
            let mut deliveries = Vec::with_capacity(batch.len());
            for (tag, message) in batch {
                assignment.acks.delivered(tag);
                let offset = assignment.base + tag;
                highest = highest.max(offset);
                deliveries.push(Delivery { offset: Offset(offset), message });
            }
            mail.state.highest.insert(partition.clone(), highest);
            mail.tell(Ok(Inbound::Batch(partition.clone(), deliveries.into())));
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
