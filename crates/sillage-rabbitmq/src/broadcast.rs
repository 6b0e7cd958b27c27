//! Reading the streams of topics: every member gets everything, and nothing is stored.

use crate::{
    connection::{Link, Tap},
    error::{describe, interrupted},
    mailbox::{Addressed, Incoming, Mailbox},
    member::{Ended, Order, Task},
    reading::{Troubles, until_stopped},
    topology::{look, stream_name},
    wire::{self, Reader},
};
use futures_util::{FutureExt as _, future::join_all};
use lapin::{
    message::Delivery as Received,
    options::BasicAckOptions,
    types::{AMQPValue, FieldTable},
};
use sillage_core::{
    BoxFuture, Delivery, Epoch, Error, ErrorKind, Inbound, Offset, Partition, Result, Settled,
    Settler, Start, Text,
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// Deliveries that the server sends ahead.
const PREFETCH: u16 = 256;
/// Batches that may wait to be told before reading stops.
const WAITING: usize = 64;
/// What a stream may take to send what is in it, and how long it is silent behind its end.
const ANSWER: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(300);

/// A member of a broadcast, shared by its receiver, its settler and its reading tasks.
pub(crate) struct Follower {
    link: Link,
    mailbox: Mailbox<Heard>,
}

#[derive(Default)]
pub(crate) struct Heard {
    /// Reads the stream of a topic.
    tasks: BTreeMap<Text, Task>,
    /// What was given up: nothing of these is told.
    released: HashSet<Partition>,
    paused: HashSet<Partition>,
}

impl Follower {
    /// Begins to read these topics, with so many partitions each.
    pub(crate) async fn join(
        link: Link,
        consumer: Text,
        topics: Vec<(Text, u32)>,
        start: Start,
    ) -> Result<Incoming<Follower>> {
        let mailbox = Mailbox::new(consumer, Heard::default());
        let follower = Arc::new(Follower { link, mailbox });
        // Where it comes to nothing, what was begun ends with this.
        let incoming = Incoming(follower.clone());
        for (topic, count) in topics {
            let name = stream_name(&topic);
            let place = first_place(&follower.link, &name, count, start).await?;
            let (order, orders) = watch::channel(Order::Flow);
            let mut stream = Stream {
                follower: follower.clone(),
                topic: topic.clone(),
                name,
                count,
                place,
                orders,
                reader: Reader::default(),
            };
            let tap = stream.tap().await?;
            stream.begun();
            let (task, reading) = Task::new(order, stream.run(tap));
            tokio::spawn(reading);
            follower.mailbox.with(|mail| mail.state.tasks.insert(topic, task));
        }
        Ok(incoming)
    }

    fn stop_all(&self) -> Vec<Ended> {
        let tasks = self.mailbox.with(|mail| {
            mail.close();
            std::mem::take(&mut mail.state.tasks)
        });
        tasks.into_values().map(Task::stop).collect()
    }

    /// A stream stands while any partition of its topic is paused: its messages come in one row.
    fn order(&self, step: impl FnOnce(&mut HashSet<Partition>)) {
        self.mailbox.with(|mail| {
            let Heard { tasks, paused, .. } = &mut mail.state;
            step(paused);
            for (topic, task) in tasks {
                let stands = paused.iter().any(|partition| partition.topic == *topic);
                task.order.send_replace(if stands { Order::Hold } else { Order::Flow });
            }
        });
    }
}

impl Addressed for Follower {
    type State = Heard;

    fn mailbox(&self) -> &Mailbox<Heard> {
        &self.mailbox
    }

    fn stop(&self) {
        self.stop_all();
    }
}

/// Where to read on in a stream.
#[derive(Clone)]
enum Place {
    /// The server's word for it.
    Named(AMQPValue),
    /// At this offset.
    At(u64),
    /// At what comes from now on, which is not before this offset.
    Next(u64),
}

async fn first_place(link: &Link, name: &str, count: u32, start: Start) -> Result<Place> {
    Ok(match start {
        Start::Earliest => Place::Named(AMQPValue::LongString("first".into())),
        Start::Latest | Start::Last(0) => Place::Next(end(link, name).await?),
        Start::Since(time) => {
            let seconds = u64::try_from(time.as_micros() / 1_000_000).unwrap_or(0);
            Place::Named(AMQPValue::Timestamp(seconds))
        }
        Start::Last(number) => {
            let back = number.saturating_mul(count.into());
            Place::At(end(link, name).await?.saturating_sub(back))
        }
    })
}

/// The offset behind the last message of a stream, or one before it. The server does not tell it
/// over AMQP; so the last chunk is read, until nothing comes, or for a while where something always does.
async fn end(link: &Link, name: &str) -> Result<u64> {
    let wrong = |error| describe(format!("stream `{name}` cannot be read"), error);
    let queue = look(&link.channel().await?, name).await.map_err(wrong)?;
    // Counted chunk by chunk, and some time later: at least so many there are.
    let count = u64::from(queue.ok_or_else(|| no_stream(name))?.message_count());
    let last = from(&Place::Named(AMQPValue::LongString("last".into())));
    let mut tap = Tap::open(link.channel().await?, name, PREFETCH, last).await.map_err(wrong)?;
    let (mut end, mut patience) = (0, if count == 0 { QUIET } else { ANSWER });
    let over = Instant::now() + ANSWER;
    while Instant::now() < over
        && let Ok(Some(received)) = timeout(patience, tap.next()).await
    {
        let received = received.map_err(wrong)?;
        end = wire::stream_offset(&received.properties).map_or(end, |offset| offset + 1);
        let acknowledged =
            tap.channel().basic_ack(received.delivery_tag, BasicAckOptions::default());
        acknowledged.await.map_err(wrong)?;
        patience = if end < count { ANSWER } else { QUIET };
    }
    tap.close().await;
    Ok(end)
}

fn no_stream(name: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there is no stream `{name}`: topics of commands have none, nor have those that were \
             made with `stream=false` in the URL"
        ),
    )
}

fn from(place: &Place) -> FieldTable {
    let value = match place {
        Place::Named(value) => value.clone(),
        Place::At(offset) => AMQPValue::LongLongInt(i64::try_from(*offset).unwrap_or(i64::MAX)),
        Place::Next(_) => AMQPValue::LongString("next".into()),
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), value);
    arguments
}

/// The stream of a topic.
struct Stream {
    follower: Arc<Follower>,
    topic: Text,
    name: String,
    count: u32,
    /// After each batch, behind it: a connection that is lost loses nothing and doubles nothing.
    place: Place,
    orders: watch::Receiver<Order>,
    reader: Reader,
}

impl Stream {
    async fn run(mut self, tap: Tap) {
        let mut tap = Some(tap);
        let mut troubles = Troubles::default();
        while let Err(error) = self.read(tap.take(), &mut troubles).await {
            let wait = troubles.happened(&self.follower.mailbox, error);
            if until_stopped(&mut self.orders, sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Reads on one channel, until it is stopped.
    async fn read(&mut self, tap: Option<Tap>, troubles: &mut Troubles) -> Result<()> {
        let mut tap = match tap {
            Some(tap) => tap,
            None => match until_stopped(&mut self.orders.clone(), self.tap()).await {
                Some(tap) => tap?,
                None => return Ok(()),
            },
        };
        *troubles = Troubles::default();
        loop {
            let order = *self.orders.borrow_and_update();
            if order == Order::Stop {
                tap.close().await;
                return Ok(());
            }
            let mailbox = &self.follower.mailbox;
            tokio::select! {
                biased;
                _ = self.orders.changed() => {}
                delivery = async {
                    mailbox.until_below(WAITING).await;
                    tap.next().await
                }, if order == Order::Flow => self.take(delivery, &mut tap).await?,
            }
        }
    }

    async fn tap(&self) -> Result<Tap> {
        let channel = self.follower.link.channel().await?;
        let tap = Tap::open(channel, &self.name, PREFETCH, from(&self.place)).await;
        tap.map_err(|error| interrupted(&self.name, Some(error)))
    }

    /// The stream is being read: what is published from now on comes.
    fn begun(&mut self) {
        if let Place::Next(end) = self.place {
            // A connection that is lost before the first message does not begin at a later end.
            self.place = Place::At(end);
        }
        let partition = |number| Partition { topic: self.topic.clone(), number };
        let all = (0..self.count).map(partition).collect();
        self.follower.mailbox.with(|mail| mail.tell(Ok(Inbound::Assigned(all))));
    }

    /// Takes a message, and what else is there already.
    async fn take(&mut self, first: Option<lapin::Result<Received>>, tap: &mut Tap) -> Result<()> {
        let mut batches: BTreeMap<u32, Vec<Delivery>> = BTreeMap::new();
        let mut last = None;
        let mut next = Some(first);
        let mut ended = None;
        while let Some(received) = next {
            let Some(Ok(received)) = received else {
                ended = Some(interrupted(&self.name, received.and_then(Result::err)));
                break;
            };
            let tag = received.delivery_tag;
            last = Some(tag);
            if let Some((number, delivery)) = self.delivery(received) {
                batches.entry(number).or_default().push(delivery);
            }
            let full = batches.values().map(Vec::len).sum::<usize>() >= usize::from(PREFETCH);
            next = if full { None } else { tap.next().now_or_never() };
        }
        if let Some(tag) = last {
            if let Some(offset) = batches.values().flatten().map(|d| d.offset.0).max() {
                self.place = Place::At(offset + 1);
            }
            self.tell(batches);
            let all = BasicAckOptions { multiple: true };
            // It asks for more; where it fails the channel has ended, which is told next.
            let _ = tap.channel().basic_ack(tag, all).await;
        }
        ended.map_or(Ok(()), Err)
    }

    fn delivery(&mut self, received: Received) -> Option<(u32, Delivery)> {
        let offset = wire::stream_offset(&received.properties)?;
        if matches!(self.place, Place::At(place) if offset < place) {
            // Streams begin to deliver at the chunk that holds the place.
            return None;
        }
        let message = self.reader.read(&self.topic, &received.properties, received.data);
        let named = wire::partition_in(received.routing_key.as_str(), self.count);
        let number = named.unwrap_or_else(|| wire::partition(&message, self.count));
        Some((number, Delivery { offset: Offset(offset), message }))
    }

    fn tell(&self, batches: BTreeMap<u32, Vec<Delivery>>) {
        self.follower.mailbox.with(|mail| {
            for (number, deliveries) in batches {
                let partition = Partition { topic: self.topic.clone(), number };
                if !mail.state.released.contains(&partition) {
                    mail.tell(Ok(Inbound::Batch(partition, deliveries.into())));
                }
            }
        });
    }
}

/// The settling side of a broadcast: nothing is settled.
pub(crate) struct Following(pub(crate) Arc<Follower>);

impl Settler for Following {
    fn settle<'a>(&'a self, _settled: &'a [Settled]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// All are open from the start; what was given up goes on with what comes.
    fn open<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        self.0.mailbox.with(|mail| {
            for partition in partitions {
                if mail.state.released.remove(partition) {
                    mail.tell(Ok(Inbound::Assigned(vec![partition.clone()])));
                }
            }
        });
        Box::pin(async { Ok(()) })
    }

    fn release<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        self.0.mailbox.with(|mail| {
            for partition in partitions {
                mail.take_back(partition);
                mail.state.released.insert(partition.clone());
            }
        });
        self.0.order(|paused| paused.retain(|partition| !partitions.contains(partition)));
        Box::pin(async { Ok(()) })
    }

    fn pause(&self, partitions: &[Partition]) -> Result<()> {
        self.0.order(|paused| paused.extend(partitions.iter().cloned()));
        Ok(())
    }

    fn resume(&self, partitions: &[Partition]) -> Result<()> {
        self.0.order(|paused| paused.retain(|partition| !partitions.contains(partition)));
        Ok(())
    }

    fn fence(&self, _partition: &Partition) -> Option<(Text, Epoch)> {
        None
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            join_all(self.0.stop_all()).await;
            self.0.link.close().await;
            Ok(())
        })
    }
}
