//! Reading one partition's queue: a task with a channel of its own.

use crate::{
    connection::{Tap, pause},
    error::interrupted,
    mailbox::Mailbox,
    member::{Member, Order},
    topology::queue_name,
    wire::Reader,
};
use futures_util::FutureExt as _;
use lapin::{message::Delivery, types::FieldTable};
use sillage_core::{Error, Message, Partition, Result};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Deliveries under way of a partition.
///
/// The same for all members, always: what a closed channel gives back goes behind what was given
/// back before, so a member that takes less than its predecessor had would, when it ends as well,
/// put the first of these behind the last.
const PREFETCH: u16 = 1024;
/// Deliveries handed over at once.
const BATCH: usize = 256;
/// A partition that is paused for longer is closed until it is resumed: a server ends channels
/// that hold deliveries for half an hour.
const LONGEST_HOLD: Duration = Duration::from_secs(5 * 60);

/// A message with its delivery tag.
type Received = (u64, Arc<Message>);

/// The queue of a partition.
pub(crate) struct Queue {
    member: Arc<Member>,
    partition: Partition,
    name: String,
    task: u64,
    orders: watch::Receiver<Order>,
    reader: Reader,
}

/// Why reading has ended.
enum End {
    /// It was to end.
    Stopped,
    /// It was paused for long, and goes on when it is resumed.
    Held,
}

impl Queue {
    pub(crate) fn new(
        member: Arc<Member>,
        partition: Partition,
        task: u64,
        orders: watch::Receiver<Order>,
    ) -> Queue {
        let name = queue_name(member.mailbox.consumer(), &partition);
        Queue { member, partition, name, task, orders, reader: Reader::default() }
    }

    /// Reads until it is stopped, on as many channels as that takes.
    pub(crate) async fn run(mut self) {
        let mut troubles = Troubles::default();
        loop {
            let ended = self.read(&mut troubles).await;
            self.member.lost(&self.partition, self.task);
            match ended {
                Ok(End::Stopped) => return,
                Ok(End::Held) => {}
                Err(error) => {
                    let wait = troubles.happened(&self.member.mailbox, error);
                    if until_stopped(&mut self.orders, sleep(wait)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Reads on one channel.
    async fn read(&mut self, troubles: &mut Troubles) -> Result<End> {
        let flows = self.orders.wait_for(|order| *order != Order::Hold).await.map(|order| *order);
        if flows.unwrap_or(Order::Stop) == Order::Stop {
            return Ok(End::Stopped);
        }
        let Some(tap) = until_stopped(&mut self.orders.clone(), self.tap()).await else {
            return Ok(End::Stopped);
        };
        let mut tap = tap?;
        self.member.assigned(&self.partition, self.task, tap.channel());
        *troubles = Troubles::default();
        let mut held = vec![];
        loop {
            let order = *self.orders.borrow_and_update();
            match order {
                Order::Stop => {
                    tap.flush(&self.name).await;
                    tap.close().await;
                    return Ok(End::Stopped);
                }
                Order::Hold => {
                    let over = timeout(LONGEST_HOLD, self.hold(&mut tap, &mut held));
                    let Ok(ordered) = over.await else {
                        tap.close().await;
                        return Ok(End::Held);
                    };
                    ordered?;
                }
                Order::Flow if !held.is_empty() => {
                    let rest = held.split_off(held.len().min(BATCH));
                    let batch = std::mem::replace(&mut held, rest);
                    self.member.received(&self.partition, self.task, batch);
                }
                Order::Flow => tokio::select! {
                    biased;
                    _ = self.orders.changed() => {}
                    delivery = tap.next() => self.take(delivery, &mut tap)?,
                },
            }
        }
    }

    async fn tap(&self) -> Result<Tap> {
        let channel = self.member.link.channel().await?;
        let tap = Tap::open(channel, &self.name, PREFETCH, FieldTable::default()).await;
        tap.map_err(|error| interrupted(&self.name, Some(error)))
    }

    /// Keeps what comes until there is another order: a message takes less memory than what the client
    /// makes of one. No more than a window can come.
    async fn hold(&mut self, tap: &mut Tap, held: &mut Vec<Received>) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                _ = self.orders.changed() => return Ok(()),
                delivery = tap.next() => held.push(self.read_one(delivery)?),
            }
        }
    }

    /// Takes a delivery, and what else is there already.
    fn take(&mut self, first: Option<lapin::Result<Delivery>>, tap: &mut Tap) -> Result<()> {
        let mut batch = vec![];
        let mut next = Some(first);
        while let Some(delivery) = next {
            batch.push(self.read_one(delivery)?);
            next = if batch.len() < BATCH { tap.next().now_or_never() } else { None };
        }
        self.member.received(&self.partition, self.task, batch);
        Ok(())
    }

    fn read_one(&mut self, delivery: Option<lapin::Result<Delivery>>) -> Result<Received> {
        match delivery {
            Some(Ok(delivery)) => {
                let topic = &self.partition.topic;
                let message = self.reader.read(topic, &delivery.properties, delivery.data);
                Ok((delivery.delivery_tag, message))
            }
            Some(Err(error)) => Err(interrupted(&self.name, Some(error))),
            None => Err(interrupted(&self.name, None)),
        }
    }
}

/// A future's result; `None`: it was stopped before.
pub(crate) async fn until_stopped<T>(
    orders: &mut watch::Receiver<Order>,
    future: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        _ = orders.wait_for(|order| *order == Order::Stop) => None,
        result = future => Some(result),
    }
}

/// What went wrong since it last went well.
#[derive(Default)]
pub(crate) struct Troubles {
    count: u32,
    told: Option<String>,
}

impl Troubles {
    /// Tells the member, unless it knows; how long to wait before another attempt.
    pub(crate) fn happened<S>(&mut self, mailbox: &Mailbox<S>, error: Error) -> Duration {
        self.count += 1;
        let said = error.to_string();
        if self.told.as_ref() != Some(&said) {
            self.told = Some(said);
            mailbox.report(error);
        }
        pause(self.count)
    }
}
