//! One test's corner of the server: names of its own, removed at the end, and a member that waits.

use futures_util::FutureExt as _;
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use sillage_core::{
    Broker as _, Delivery, Inbound, Key, Message, MessageId, Offset, Partition, Receiver, Settled,
    Settler, Start, Subscription, Text, Timestamp, TopicSpec,
};
use sillage_rabbitmq::RabbitMq;
use std::{
    collections::{BTreeMap, HashSet},
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// How long a test waits for what should come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test in a corner of its own, and removes what it left there.
pub(crate) async fn with(test: impl AsyncFnOnce(&Corner)) {
    let Some(url) = sillage_testkit::servers::url("SILLAGE_TEST_RABBITMQ") else { return };
    let corner = Corner::new(url).await;
    let ended = AssertUnwindSafe(test(&corner)).catch_unwind().await;
    corner.clean().await;
    if let Err(panic) = ended {
        resume_unwind(panic);
    }
}

pub(crate) struct Corner {
    pub(crate) url: String,
    pub(crate) name: String,
    pub(crate) broker: RabbitMq,
    /// To look at the server behind the broker's back.
    pub(crate) raw: Connection,
    topics: Mutex<Vec<(Text, u32)>>,
    consumers: Mutex<Vec<Text>>,
}

impl Corner {
    async fn new(url: String) -> Corner {
        Corner {
            name: format!("t{:08x}", rand::random::<u32>()),
            broker: RabbitMq::connect(&url).await.unwrap(),
            raw: Connection::connect(&url, ConnectionProperties::default()).await.unwrap(),
            url,
            topics: Mutex::default(),
            consumers: Mutex::default(),
        }
    }

    pub(crate) async fn channel(&self) -> Channel {
        self.raw.create_channel().await.unwrap()
    }

    /// A fresh topic.
    pub(crate) async fn topic(&self, name: &str, partitions: u32) -> Text {
        let name: Text = format!("{}-{name}", self.name).into();
        self.topics.lock().unwrap().push((name.clone(), partitions));
        let spec = TopicSpec { name: name.clone(), partitions: Some(partitions) };
        let diff = self.broker.ensure(&[spec]).await.unwrap();
        assert_eq!(diff.created, std::slice::from_ref(&name), "{diff:?}");
        name
    }

    /// One more member, of a process of its own.
    pub(crate) async fn join(&self, consumer: &str, topic: &Text) -> Hand {
        let broker = RabbitMq::connect(&self.url).await.unwrap();
        self.join_by(&broker, self.subscription(consumer, topic)).await
    }

    pub(crate) fn subscription(&self, consumer: &str, topic: &Text) -> Subscription {
        Subscription {
            consumer: format!("{}/{consumer}", self.name).into(),
            topics: vec![topic.clone()],
            start: Start::Earliest,
            broadcast: false,
            reached: vec![],
        }
    }

    /// What a broadcast brings.
    pub(crate) fn broadcast(&self, topic: &Text, start: Start) -> Subscription {
        Subscription { start, broadcast: true, ..self.subscription("cache", topic) }
    }

    pub(crate) async fn join_by(&self, broker: &RabbitMq, subscription: Subscription) -> Hand {
        self.consumers.lock().unwrap().push(subscription.consumer.clone());
        let topics = subscription.topics.clone();
        let (receiver, settler) = broker.subscribe(subscription).await.unwrap();
        let all = broker.topics(&topics).await.unwrap();
        let all = all.into_iter().flat_map(|topic| {
            let name = topic.name;
            topic
                .partitions
                .into_iter()
                .map(move |p| Partition { topic: name.clone(), number: p.number })
        });
        Hand {
            receiver,
            settler,
            all: all.collect(),
            owned: HashSet::new(),
            got: vec![],
            settles: true,
            finished: BTreeMap::new(),
            errors: vec![],
            lost: 0,
        }
    }

    pub(crate) fn message(&self, topic: &Text, key: Option<&str>, number: u64) -> Message {
        let id = MessageId::new(format!("{}-{number}", self.name));
        Message {
            correlation_id: id.text(),
            id,
            source: "shop".into(),
            name: "order.created".into(),
            version: 1,
            topic: Some(topic.clone()),
            key: key.map(Key::from),
            time: Timestamp::from_micros(1_700_000_000_123_456),
            causation_id: None,
            operation_id: None,
            traceparent: None,
            headers: vec![],
            payload: format!("{{\"number\":{number}}}").into(),
        }
    }

    /// Messages of so many keys, in turn.
    pub(crate) fn messages(
        &self,
        topic: &Text,
        keys: u64,
        numbers: std::ops::Range<u64>,
    ) -> Vec<Arc<Message>> {
        let message = |n| Arc::new(self.message(topic, Some(&format!("k{}", n % keys)), n));
        numbers.map(message).collect()
    }

    /// Publishes; each must be taken.
    pub(crate) async fn publish(&self, messages: &[Arc<Message>]) {
        for receipt in self.broker.publish(messages.to_vec()).await {
            receipt.unwrap();
        }
    }

    /// Waits until so many messages wait in a queue.
    pub(crate) async fn until_waiting(&self, queue: &str, count: u32) {
        let end = Instant::now() + PATIENCE;
        let channel = self.channel().await;
        loop {
            let passive = QueueDeclareOptions { passive: true, ..Default::default() };
            let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
            let found = found.unwrap().message_count();
            if found == count {
                return;
            }
            assert!(Instant::now() < end, "{found} wait in {queue}, not {count}");
        }
    }

    async fn clean(&self) {
        let topics = self.topics.lock().unwrap().clone();
        let consumers = self.consumers.lock().unwrap().clone();
        let mut queues = vec![];
        for (topic, count) in &topics {
            queues.extend([format!("{topic}.stream"), format!("{topic}.partitions")]);
            for consumer in &consumers {
                queues.push(format!("{consumer}/dead"));
                queues.extend((0..*count).map(|n| format!("{consumer}/{topic}/{n}")));
            }
            let channel = self.channel().await;
            channel
                .exchange_delete((&**topic).into(), ExchangeDeleteOptions::default())
                .await
                .unwrap();
        }
        let channel = self.channel().await;
        for queue in queues {
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
        }
    }
}

/// A member that does what the runtime does, and finishes whatever it is given, if it is to.
pub(crate) struct Hand {
    pub(crate) receiver: Box<dyn Receiver>,
    pub(crate) settler: Arc<dyn Settler>,
    pub(crate) all: Vec<Partition>,
    pub(crate) owned: HashSet<Partition>,
    pub(crate) got: Vec<(Partition, Delivery)>,
    pub(crate) settles: bool,
    finished: BTreeMap<Partition, Vec<Offset>>,
    pub(crate) errors: Vec<String>,
    pub(crate) lost: usize,
}

impl Hand {
    pub(crate) async fn open_all(&self) {
        self.settler.open(&self.all).await.unwrap();
    }

    /// Takes what comes until something holds.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Hand) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            let Ok(inbound) = timeout_at(end, self.receiver.next()).await else {
                let got: Vec<_> = self.got.iter().map(|(_, d)| d.message.id.as_str()).collect();
                panic!("in vain waited until {what}: {got:?} {:?}", self.errors);
            };
            self.take(inbound);
            if self.settles {
                self.settle().await;
            }
        }
    }

    pub(crate) async fn until_got(&mut self, count: usize) {
        self.until(&format!("{count} had come"), |hand| hand.got.len() >= count).await;
    }

    /// Takes what comes in so long a time.
    pub(crate) async fn for_a_while(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(inbound) = timeout_at(end, self.receiver.next()).await {
            self.take(inbound);
            if self.settles {
                self.settle().await;
            }
        }
    }

    fn take(&mut self, inbound: sillage_core::Result<Inbound>) {
        match inbound {
            Ok(Inbound::Assigned(partitions)) => {
                for partition in partitions {
                    assert!(self.owned.insert(partition.clone()), "{partition} twice");
                }
            }
            Ok(Inbound::Lost(partitions)) => {
                self.lost += partitions.len();
                for partition in partitions {
                    assert!(self.owned.remove(&partition), "{partition} was not there");
                    self.finished.remove(&partition);
                }
            }
            Ok(Inbound::Batch(partition, deliveries)) => {
                assert!(self.owned.contains(&partition), "{partition} is not owned");
                for delivery in deliveries {
                    self.finished.entry(partition.clone()).or_default().push(delivery.offset);
                    self.got.push((partition.clone(), delivery));
                }
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => self.errors.push(error.to_string()),
        }
    }

    pub(crate) async fn settle(&mut self) {
        let settled = |(partition, finished)| Settled { partition, watermark: None, finished };
        let settled: Vec<_> = std::mem::take(&mut self.finished).into_iter().map(settled).collect();
        // After a lost connection there is nothing to settle any more.
        let _ = self.settler.settle(&settled).await;
    }

    pub(crate) async fn release(&mut self, partitions: &[Partition]) {
        self.settler.release(partitions).await.unwrap();
        for partition in partitions {
            self.owned.remove(partition);
            self.finished.remove(partition);
        }
    }

    pub(crate) async fn close(mut self) {
        if self.settles {
            self.settle().await;
        }
        let owned: Vec<_> = self.owned.iter().cloned().collect();
        self.release(&owned).await;
        self.settler.close().await.unwrap();
    }

    pub(crate) fn ids(&self) -> Vec<&str> {
        self.got.iter().map(|(_, delivery)| delivery.message.id.as_str()).collect()
    }
}

/// Of each key, the numbers in this order, without those that came before.
pub(crate) fn by_key<'m>(
    messages: impl IntoIterator<Item = &'m Arc<Message>>,
) -> BTreeMap<Key, Vec<MessageId>> {
    let mut seen = HashSet::new();
    let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for message in messages {
        if seen.insert(message.id.clone()) {
            keys.entry(message.key.clone().unwrap()).or_default().push(message.id.clone());
        }
    }
    keys
}
