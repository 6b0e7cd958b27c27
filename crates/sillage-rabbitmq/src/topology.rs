//! What exists on the server for topics and consumers, and how it is called.
//!
//! | what | name | for |
//! |---|---|---|
//! | topic exchange | `<topic>` | publishing, with routing keys `<partition>.<name>` |
//! | empty queue | `<topic>.partitions` | its `x-max-length` is the topic's number of partitions |
//! | stream | `<topic>.stream` | the topic's history; topics of commands have none |
//! | quorum queues | `<consumer>/<topic>/<n>` | what a consumer has not finished of a partition |
//! | quorum queue | `<consumer>/dead` | what was delivered more often than allowed |
//!
//! The empty queue is there because RabbitMQ compares the arguments of a queue that is declared
//! again, and not those of an exchange: so the first to declare a topic fixes its partitions for
//! all, and whoever asks is told the number in the refusal.

use crate::{
    config::Config,
    connection::{Link, answered},
    error::{NOT_FOUND, PRECONDITION_FAILED, code, describe, words},
    wire::check_name,
};
use futures_util::future::try_join_all;
use lapin::{
    Channel, ExchangeKind, Queue,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use sillage_core::{
    Error, ErrorKind, Partition, PartitionStatus, Progress, Result, Text, TopicSpec, TopicStatus,
    TopologyDiff,
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A limit that nobody reaches. RabbitMQ 4 drops a message after 20 deliveries unless told
/// otherwise; its word for "never", -1, makes 3.x drop at the first return.
const NO_LIMIT: i32 = i32::MAX;
const LONGEST_TOPIC: usize = 200;
const LONGEST_CONSUMER: usize = 200;
const LONGEST_QUEUE: usize = 255;
/// What a server may take to answer for a queue or an exchange: all queues of a consumer are asked for
/// at once, and it makes one after the other.
const ANSWER: Duration = Duration::from_secs(120);

/// The queue of a consumer's partition.
pub(crate) fn queue_name(consumer: &str, partition: &Partition) -> String {
    format!("{consumer}/{}/{}", partition.topic, partition.number)
}

/// The stream of a topic.
pub(crate) fn stream_name(topic: &str) -> String {
    format!("{topic}.stream")
}

/// Commands are for one owner, who must be there: a stream would take them in its place.
pub(crate) fn is_commands(topic: &str) -> bool {
    topic.ends_with(".commands")
}

fn partitions_name(topic: &str) -> String {
    format!("{topic}.partitions")
}

fn dead_name(consumer: &str) -> String {
    format!("{consumer}/dead")
}

/// Asks and makes.
pub(crate) struct Topology {
    link: Link,
    /// Topics that were seen, with their partitions: those never change.
    known: Mutex<BTreeMap<Text, u32>>,
}

impl Topology {
    pub(crate) fn new(link: Link) -> Topology {
        Topology { link, known: Mutex::default() }
    }

    pub(crate) fn config(&self) -> &Config {
        self.link.place()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Text, u32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, if nobody has.
    pub(crate) async fn connect(&self) -> Result<()> {
        self.link.channel().await.map(drop)
    }

    /// The partitions of a topic; `None`: it does not exist.
    pub(crate) async fn partitions(&self, topic: &Text) -> Result<Option<u32>> {
        let known = self.known().get(topic).copied();
        match known {
            Some(count) => Ok(Some(count)),
            None => self.look_up(topic).await,
        }
    }

    /// What was known of a topic turned out wrong.
    pub(crate) fn forget(&self, topic: &str) {
        self.known().remove(topic);
    }

    async fn look_up(&self, topic: &Text) -> Result<Option<u32>> {
        check_name("topic", topic, LONGEST_TOPIC)?;
        let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let channel = self.link.channel().await?;
        let found = channel.exchange_declare(
            (&**topic).into(),
            ExchangeKind::Topic,
            passive,
            FieldTable::default(),
        );
        match answered(ANSWER, found).await {
            Ok(()) => {}
            Err(error) if code(&error) == Some(NOT_FOUND) => return Ok(None),
            Err(error) => return Err(describe(format!("topic `{topic}`"), error)),
        }
        let there = look(&channel, &partitions_name(topic)).await;
        if there.map_err(|error| describe(format!("topic `{topic}`"), error))?.is_none() {
            return Ok(None);
        }
        self.fix(topic, self.config().partitions).await.map(Some)
    }

    /// Makes a topic of so many partitions, or finds out how many it has.
    async fn fix(&self, topic: &Text, partitions: u32) -> Result<u32> {
        let channel = self.link.channel().await?;
        let name = partitions_name(topic);
        let made = declare(&channel, &name, &[("x-max-length", int(partitions))]).await;
        let count = match made {
            Ok(_) => partitions,
            Err(error) if code(&error) == Some(PRECONDITION_FAILED) => {
                let other = current(words(&error));
                other.ok_or_else(|| {
                    let what = format!(
                        "queue `{name}` was not made by Sillage: it should tell how many \
                         partitions topic `{topic}` has"
                    );
                    describe(what, error)
                })?
            }
            Err(error) => return Err(describe(format!("topic `{topic}`"), error)),
        };
        self.known().insert(topic.clone(), count);
        Ok(count)
    }

    pub(crate) async fn ensure(&self, topics: &[TopicSpec]) -> Result<TopologyDiff> {
        let mut diff = TopologyDiff::default();
        for spec in topics {
            self.ensure_one(spec, &mut diff).await?;
        }
        Ok(diff)
    }

    async fn ensure_one(&self, spec: &TopicSpec, diff: &mut TopologyDiff) -> Result<()> {
        let topic = &spec.name;
        let wanted = spec.partitions.unwrap_or(self.config().partitions);
        // What another process deleted meanwhile is made again.
        self.forget(topic);
        let found = self.look_up(topic).await?;
        let count = self.fix(topic, found.unwrap_or(wanted)).await?;
        if count != wanted && (spec.partitions.is_some() || found.is_none()) {
            diff.differs.push(format!(
                "topic `{topic}` has {count} partitions, not {wanted}; how many a topic has is \
                 fixed for its life, as a key has its place by it: use a new topic for more"
            ));
        }
        let channel = self.link.channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let arguments = table(&[("x-sillage-partitions", int(count))]);
        let name = (&**topic).into();
        let made = channel.exchange_declare(name, ExchangeKind::Topic, durable, arguments);
        answered(ANSWER, made).await.map_err(|error| {
            describe(format!("topic `{topic}` cannot be a durable topic exchange"), error)
        })?;
        if self.config().stream && !is_commands(topic) {
            self.ensure_stream(&channel, topic, diff).await?;
        }
        if found.is_none() {
            diff.created.push(topic.clone());
        }
        Ok(())
    }

    async fn ensure_stream(
        &self,
        channel: &Channel,
        topic: &Text,
        diff: &mut TopologyDiff,
    ) -> Result<()> {
        let name = stream_name(topic);
        let kept = format!("{}s", self.config().retention.as_secs());
        let arguments = [("x-queue-type", text("stream")), ("x-max-age", text(&kept))];
        match declare(channel, &name, &arguments).await {
            Ok(_) => {
                let bound = bind(channel, &name, topic, "#").await;
                bound.map_err(|error| describe(format!("stream `{name}`"), error))
            }
            Err(error) if code(&error) == Some(PRECONDITION_FAILED) => {
                diff.differs.push(format!(
                    "stream `{name}` is not kept for {kept}, and was left as it is: {}",
                    words(&error)
                ));
                Ok(())
            }
            Err(error) => Err(describe(
                format!(
                    "stream `{name}` cannot be made; where the server has no streams, add \
                     `stream=false` to the URL"
                ),
                error,
            )),
        }
    }

    /// Makes a consumer's queues for these topics and binds them. From now on they get what is
    /// published.
    pub(crate) async fn join(&self, consumer: &str, topics: &[Text]) -> Result<Vec<Partition>> {
        check_name("consumer", consumer, LONGEST_CONSUMER)?;
        let mut all = vec![];
        for (topic, count) in self.with_partitions(topics).await? {
            all.extend((0..count).map(|number| Partition { topic: topic.clone(), number }));
        }
        let longest = all.iter().map(|partition| queue_name(consumer, partition).len()).max();
        if longest.is_some_and(|longest| longest > LONGEST_QUEUE) {
            return Err(Error::invalid(format!(
                "the names of consumer `{consumer}` and its topics are too long together: the \
                 name of a queue has at most {LONGEST_QUEUE} bytes"
            )));
        }
        let channel = self.link.channel().await?;
        let dead = dead_name(consumer);
        let made = async {
            declare(&channel, &dead, &[("x-queue-type", text("quorum"))]).await?;
            let arguments = self.queue_arguments(&dead);
            let queues = all.iter().map(|partition| async {
                let name = queue_name(consumer, partition);
                declare(&channel, &name, &arguments).await?;
                bind(&channel, &name, &partition.topic, &format!("{}.#", partition.number)).await
            });
            try_join_all(queues).await.map(drop)
        };
        made.await
            .map_err(|error| describe(format!("the queues of consumer `{consumer}`"), error))?;
        Ok(all)
    }

    /// Topics that must exist.
    pub(crate) async fn with_partitions(&self, topics: &[Text]) -> Result<Vec<(Text, u32)>> {
        let mut all = vec![];
        for topic in topics {
            let count = self.partitions(topic).await?.ok_or_else(|| missing(topic))?;
            all.push((topic.clone(), count));
        }
        Ok(all)
    }

    fn queue_arguments(&self, dead: &str) -> [(&'static str, AMQPValue); 7] {
        let limit = self
            .config()
            .delivery_limit
            .map_or(NO_LIMIT, |limit| i32::try_from(limit).unwrap_or(NO_LIMIT));
        [
            ("x-queue-type", text("quorum")),
            ("x-single-active-consumer", AMQPValue::Boolean(true)),
            ("x-delivery-limit", AMQPValue::LongInt(limit)),
            // What goes over a limit, ours or an operator's, is kept and not dropped.
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(dead)),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ]
    }

    pub(crate) async fn topics(&self, names: &[Text]) -> Result<Vec<TopicStatus>> {
        let known: Vec<Text>;
        let names = if names.is_empty() {
            known = self.known().keys().cloned().collect();
            &known
        } else {
            names
        };
        let mut found = vec![];
        for name in names {
            self.forget(name);
            if let Some(count) = self.look_up(name).await? {
                let status = |number| PartitionStatus { number, first: None, next: None };
                let partitions = (0..count).map(status).collect();
                found.push(TopicStatus { name: name.clone(), partitions });
            }
        }
        Ok(found)
    }

    pub(crate) async fn progress(&self, consumer: &str, topics: &[Text]) -> Result<Vec<Progress>> {
        let mut progress = vec![];
        for topic in topics {
            let count = self.partitions(topic).await?.unwrap_or(0);
            let mut channel = self.link.channel().await?;
            for number in 0..count {
                let partition = Partition { topic: topic.clone(), number };
                let name = queue_name(consumer, &partition);
                let queue = look(&channel, &name).await;
                let queue = queue.map_err(|error| describe(format!("queue `{name}`"), error))?;
                if queue.is_none() {
                    channel = self.link.channel().await?;
                }
                let lag = queue.map_or(0, |queue| u64::from(queue.message_count()));
                progress.push(Progress { partition, settled: None, lag });
            }
        }
        Ok(progress)
    }
}

/// A topic that somebody should have made.
pub(crate) fn missing(topic: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("topic `{topic}` does not exist; an app makes its topics when it starts"),
    )
}

/// A queue as it is; `None`: it does not exist, and the channel is closed.
pub(crate) async fn look(channel: &Channel, name: &str) -> lapin::Result<Option<Queue>> {
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let name = ShortString::try_new(name).unwrap_or_default();
    let found = channel.queue_declare(name, passive, FieldTable::default());
    match answered(ANSWER, found).await {
        Ok(queue) => Ok(Some(queue)),
        Err(error) if code(&error) == Some(NOT_FOUND) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn declare(
    channel: &Channel,
    name: &str,
    arguments: &[(&'static str, AMQPValue)],
) -> lapin::Result<Queue> {
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    answered(ANSWER, channel.queue_declare(name.into(), durable, table(arguments))).await
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    let bound = channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments);
    answered(ANSWER, bound).await
}

fn table(arguments: &[(&'static str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    table
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn int(value: u32) -> AMQPValue {
    AMQPValue::LongInt(i32::try_from(value).unwrap_or(i32::MAX))
}

/// The number in `… received '13' but current is '12'`, or `… is the value '12' of type …`.
fn current(words: &str) -> Option<u32> {
    let (_, after) = words.split_once("current is ")?;
    after.split('\'').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::current;

    #[test]
    fn the_refusal_tells_the_partitions() {
        let inequivalent = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue \
                            'order.partitions' in vhost '/': received ";
        for rest in [
            "'13' but current is '12'",
            "none but current is the value '12' of type 'signedint'",
            "the value '13' of type 'long' but current is the value '12' of type 'long'",
        ] {
            assert_eq!(current(&[inequivalent, rest].concat()), Some(12), "{rest}");
        }
        assert_eq!(current("'x-max-length': received '12' but current is none"), None);
    }
}
