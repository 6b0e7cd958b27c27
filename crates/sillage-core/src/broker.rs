//! The broker port: publish and subscribe, with partitions, deliveries and their settlement.

use crate::{BoxFuture, Error, Message, Result, Text, Timestamp};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc, vec};

/// What a broker can do; an app's needs are checked against it at start-up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)]
pub struct Capabilities {
    /// The backend's name, for sentences: `embedded log`, `Apache Kafka`.
    pub name: &'static str,
    /// Messages of one key arrive in the order they were published.
    pub ordered_by_key: bool,
    /// History can be read again.
    pub replay: bool,
    /// Messages are in the log of the service's own database.
    pub is_log: bool,
    /// Several processes can share a consumer.
    pub shared: bool,
    /// It shares a consumer's partitions out among the members by itself. Where it does not, a
    /// member gets nothing of a partition before [`Settler::open`].
    pub assigns: bool,
    /// Offsets rise within a partition, so that a watermark can settle what is below it.
    pub offsets: bool,
    /// Which cluster it is, where its offsets mean the same for good: another one has others.
    pub cluster: Option<Text>,
    /// The largest whole message, in bytes.
    pub max_message_bytes: usize,
}

/// A topic an app wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: Text,
    /// How many partitions; `None`: the backend's default.
    pub partitions: Option<u32>,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TopicStatus {
    /// Its name.
    pub name: Text,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionStatus>,
}

/// A topic's partition as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// Its number in the topic, from 0.
    pub number: u32,
    /// Its oldest message, where the broker tells.
    pub first: Option<Offset>,
    /// What the next message gets, where the broker tells.
    pub next: Option<Offset>,
}

/// How far a consumer is in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The partition.
    pub partition: Partition,
    /// Everything up to here is settled; `None`: nothing yet, or the broker has no offsets.
    pub settled: Option<Offset>,
    /// Messages that are not settled.
    pub lag: u64,
}

/// What `ensure` did and what it found otherwise than wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopologyDiff {
    /// Topics that were made.
    pub created: Vec<Text>,
    /// Sentences about what differs and was left as it is.
    pub differs: Vec<String>,
}

/// A broker's share of a topic, or of a consumer's topics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition {
    /// The topic.
    pub topic: Text,
    /// Its number in it, from 0.
    pub number: u32,
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.number)
    }
}

/// A broker's number in a partition. Rises; gaps are normal.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub u64);

/// Where a published message landed, as far as the broker tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The partition.
    pub partition: Option<Partition>,
    /// The offset in it.
    pub offset: Option<Offset>,
}

/// Why a message was not published.
#[derive(Debug)]
pub enum PublishError {
    /// The broker will never take it as it is.
    Refused(Error),
    /// It may have been published or not; publishing it again with the same id is harmless.
    Unknown(Error),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Refused(error) | PublishError::Unknown(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {}

/// Where a consumer without a stored place starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest message there is.
    #[default]
    Earliest,
    /// At what is published from now on.
    Latest,
    /// At the last so many messages of each partition.
    Last(u64),
    /// At the first message that the broker took at this time or later.
    Since(Timestamp),
}

/// What a consumer wants to receive.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The consumer, as `service/name`: its members share the partitions. Stored identity.
    pub consumer: Text,
    /// The topics.
    pub topics: Vec<Text>,
    /// Where to start when nothing is stored.
    pub start: Start,
    /// Every member gets everything, and nothing is stored.
    pub broadcast: bool,
    /// How far the consumer is by its own database, in this cluster, as it joins. A broker that has
    /// nothing stored for such a partition has forgotten it, and must not begin as if the consumer were
    /// new.
    pub reached: Vec<Reached>,
}

/// How far a consumer has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The partition.
    pub partition: Partition,
    /// Up to here everything is finished.
    pub offset: Offset,
    /// When that was so.
    pub at: Timestamp,
}

/// A message handed to a consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where in its partition.
    pub offset: Offset,
    /// The message.
    pub message: Arc<Message>,
}

/// Deliveries of one partition, in order. Those of a backend that reads records make each message when it
/// is taken, so that one can be handled and gone before the next is made.
pub struct Deliveries(Box<dyn Deliver>);

/// Gives deliveries when they are asked for.
pub trait Deliver: Iterator<Item = Delivery> + Send {
    /// What has not been asked for yet says that it is of this topic.
    fn rename(&mut self, topic: Text);
    /// A message that it gave and that is finished: if nobody else has it, the next may take its place.
    fn give_back(&mut self, message: Arc<Message>) {
        drop(message);
    }
}

impl Deliver for vec::IntoIter<Delivery> {
    fn rename(&mut self, topic: Text) {
        for delivery in self.as_mut_slice() {
            Arc::make_mut(&mut delivery.message).topic = Some(topic.clone());
        }
    }
}

impl Deliveries {
    /// What this one gives.
    pub fn new(deliveries: impl Deliver + 'static) -> Self {
        Deliveries(Box::new(deliveries))
    }

    /// The same, as of this topic.
    #[must_use]
    pub fn renamed(mut self, topic: Text) -> Self {
        self.0.rename(topic);
        self
    }

    /// A message of these that is finished: if nobody else has it, the next may take its place.
    pub fn give_back(&mut self, message: Arc<Message>) {
        self.0.give_back(message);
    }
}

impl From<Vec<Delivery>> for Deliveries {
    fn from(deliveries: Vec<Delivery>) -> Self {
        Deliveries::new(deliveries.into_iter())
    }
}

impl Iterator for Deliveries {
    type Item = Delivery;

    fn next(&mut self) -> Option<Delivery> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").field("count", &self.0.size_hint().0).finish()
    }
}

/// What a receiver brings.
#[derive(Debug)]
pub enum Inbound {
    /// Deliveries of one partition.
    Batch(Partition, Deliveries),
    /// Up to this offset nothing more comes of the partition: what was there is not for this
    /// consumer. So the watermark of an idle partition moves too.
    Passed(Partition, Offset),
    /// These partitions are this member's now.
    Assigned(Vec<Partition>),
    /// These are wanted by another member: drain and settle them, then `release`.
    Revoked(Vec<Partition>),
    /// These are another member's already: settle nothing of them.
    Lost(Vec<Partition>),
}

/// What is finished of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The partition.
    pub partition: Partition,
    /// Everything delivered up to here is finished.
    pub watermark: Option<Offset>,
    /// The single deliveries finished since the last call, in any order.
    pub finished: Vec<Offset>,
}

/// The two sides of a subscription.
pub type Subscribed = (Box<dyn Receiver>, Arc<dyn Settler>);

/// Carries messages between services.
///
/// Every implementation passes `sillage_testkit::conformance::broker`.
pub trait Broker: Send + Sync + 'static {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Makes the topics that are missing.
    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>>;

    /// Publishes messages, handed to the client in order, in this call, before the future is
    /// first polled; resolves when the broker has confirmed each.
    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>>;

    /// Joins a consumer.
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>>;

    /// Topics as they are: these, or all where none is named. One that does not exist is left out.
    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>>;

    /// How far a consumer is in each partition of these topics.
    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>>;
}

/// The receiving side of a subscription.
pub trait Receiver: Send {
    /// What comes next. Cancel-safe: dropping the future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Result<Inbound>>;
}

/// The settling side of a subscription.
pub trait Settler: Send + Sync {
    /// Tells the broker what is finished; it settles by watermark or one by one, as it can.
    fn settle<'a>(&'a self, settled: &'a [Settled]) -> BoxFuture<'a, Result<()>>;
    /// Begins to deliver these, from the last settled place; each is `Assigned` then. Only where
    /// the broker does not assign partitions itself; there it does nothing.
    fn open<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>>;
    /// Answers `Revoked`: drained and settled, another member may have them now. What nobody
    /// asked back is given up: an assigning broker delivers it again, from the last settled place,
    /// behind a new `Assigned`.
    fn release<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>>;
    /// Delivers nothing more of these until `resume`; what is on its way may still come. One that is lost
    /// meanwhile may be assigned again only after its `resume`, or at once, and is not paused then.
    fn pause(&self, partitions: &[Partition]) -> Result<()>;
    /// Delivers again.
    fn resume(&self, partitions: &[Partition]) -> Result<()>;
    /// The lease that owns a partition, where partitions are owned by lease in the database:
    /// every commit of the partition is conditional on it. Of a partition that is not this member's it
    /// has an epoch that no lease has.
    fn fence(&self, partition: &Partition) -> Option<(Text, crate::Epoch)>;
    /// Leaves the consumer, so that other members need not wait for a time-out.
    fn close(&self) -> BoxFuture<'_, Result<()>>;
}
