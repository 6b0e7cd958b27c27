//! A cluster, messages and a consumer, as tests need them.

pub(crate) mod wire;

use bytes::Bytes;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::BaseConsumer,
    producer::{BaseProducer, Producer as _},
};
use sillage_core::{
    Broker as _, Deliveries, Delivery, Inbound, Key, Message, MessageId, Offset, Partition,
    Receiver, Settled, Settler, Start, Subscription, Text, Timestamp, TopicSpec,
};
use sillage_kafka::Kafka;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use uuid::Uuid;

/// Longer than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The URL of the server, or the test is skipped.
pub(crate) fn url() -> Option<String> {
    // With RUST_LOG=debug, and `rdkafka.debug=cgrp` in the URL, the client tells everything.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    sillage_testkit::servers::url("SILLAGE_TEST_KAFKA")
}

/// The URL with further parameters.
pub(crate) fn url_with(parameters: &str) -> Option<String> {
    let url = url()?;
    let separator = if url.contains('?') { '&' } else { '?' };
    Some(format!("{url}{separator}{parameters}"))
}

/// Its first server.
pub(crate) fn server() -> String {
    let url = url().unwrap();
    let rest = url.strip_prefix("kafka://").unwrap();
    rest.split(['?', '/']).next().unwrap().to_owned()
}

pub(crate) fn unique(name: &str) -> Text {
    format!("{name}-{}", Uuid::new_v4().simple()).into()
}

/// A connection, and a new topic.
pub(crate) async fn with_topic(partitions: u32) -> Option<(Kafka, Text)> {
    let kafka = Kafka::connect(&url()?).await.unwrap();
    let topic = unique("topic");
    make(&kafka, &topic, partitions).await;
    Some((kafka, topic))
}

pub(crate) async fn make(kafka: &Kafka, topic: &Text, partitions: u32) {
    let spec = TopicSpec { name: topic.clone(), partitions: Some(partitions) };
    let diff = kafka.ensure(&[spec]).await.unwrap();
    assert_eq!(diff.created, std::slice::from_ref(topic));
}

pub(crate) fn message(topic: &Text, key: &str, text: &str) -> Arc<Message> {
    let id: Text = Uuid::new_v4().to_string().into();
    Arc::new(Message {
        id: MessageId::new(id.clone()),
        source: "test".into(),
        name: "test.happened".into(),
        version: 1,
        topic: Some(topic.clone()),
        key: Some(Key::from(key)),
        time: Timestamp::from_micros(1_700_000_000_123_456),
        correlation_id: id,
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload: Bytes::copy_from_slice(text.as_bytes()),
    })
}

/// Publishes texts under one key, in order.
pub(crate) async fn publish(
    kafka: &Kafka,
    topic: &Text,
    key: &str,
    texts: impl IntoIterator<Item = String>,
) {
    let batch: Vec<_> = texts.into_iter().map(|text| message(topic, key, &text)).collect();
    for receipt in within(kafka.publish(batch)).await {
        receipt.unwrap();
    }
}

pub(crate) fn numbers(range: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// A member of a consumer that notes what comes.
pub(crate) struct Member {
    pub(crate) receiver: Box<dyn Receiver>,
    pub(crate) settler: Arc<dyn Settler>,
    pub(crate) owned: Vec<Partition>,
    pub(crate) got: Vec<(Partition, Delivery)>,
}

pub(crate) fn subscription(consumer: &str, topic: &Text, start: Start) -> Subscription {
    Subscription {
        consumer: consumer.into(),
        topics: vec![topic.clone()],
        start,
        broadcast: false,
        reached: vec![],
    }
}

impl Member {
    pub(crate) async fn join(kafka: &Kafka, consumer: &str, topic: &Text) -> Member {
        Self::subscribe(kafka, subscription(consumer, topic, Start::Earliest)).await
    }

    pub(crate) async fn subscribe(kafka: &Kafka, subscription: Subscription) -> Member {
        let (receiver, settler) = kafka.subscribe(subscription).await.unwrap();
        Member { receiver, settler, owned: vec![], got: vec![] }
    }

    /// What comes next; it is noted.
    pub(crate) async fn next(&mut self) -> sillage_core::Result<Inbound> {
        let mut inbound = within(self.receiver.next()).await?;
        tracing::debug!("{:.300}", format!("{inbound:?}"));
        match &mut inbound {
            Inbound::Batch(partition, deliveries) => {
                assert!(self.owned.contains(partition), "{partition} is not ours");
                let all: Vec<_> = deliveries.collect();
                self.got.extend(all.iter().map(|d| (partition.clone(), d.clone())));
                *deliveries = all.into();
            }
            Inbound::Assigned(partitions) => {
                for partition in partitions {
                    assert!(!self.owned.contains(partition), "{partition} comes twice");
                    self.owned.push(partition.clone());
                }
            }
            Inbound::Lost(partitions) => self.owned.retain(|owned| !partitions.contains(owned)),
            Inbound::Revoked(_) | Inbound::Passed(..) => {}
        }
        Ok(inbound)
    }

    /// The next batch as it comes: none of it is noted.
    pub(crate) async fn batch(&mut self) -> Deliveries {
        loop {
            if let Inbound::Batch(_, deliveries) = within(self.receiver.next()).await.unwrap() {
                return deliveries;
            }
        }
    }

    /// Takes what comes until so many deliveries were noted.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<String> {
        while self.got.len() < count {
            self.next().await.unwrap();
        }
        self.texts()
    }

    pub(crate) async fn until_assigned(&mut self, count: usize) {
        while self.owned.len() < count {
            self.next().await.unwrap();
        }
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.got.iter().map(|(_, d)| text(&d.message)).collect()
    }

    /// Settles everything that came of what is owned.
    pub(crate) async fn settle_all(&mut self) {
        let mut last: BTreeMap<Partition, Offset> = BTreeMap::new();
        for (partition, delivery) in &self.got {
            last.insert(partition.clone(), delivery.offset);
        }
        for (partition, offset) in last {
            self.settle(&partition, offset).await;
        }
    }

    pub(crate) async fn settle(&mut self, partition: &Partition, watermark: Offset) {
        let partition = partition.clone();
        let settled = Settled { partition, watermark: Some(watermark), finished: vec![watermark] };
        self.settler.settle(&[settled]).await.unwrap();
    }

    pub(crate) async fn release(&mut self, partitions: &[Partition]) {
        self.owned.retain(|owned| !partitions.contains(owned));
        self.settler.release(partitions).await.unwrap();
    }

    pub(crate) async fn close(&mut self) {
        within(self.settler.close()).await.unwrap();
    }
}

pub(crate) fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

/// A key of this partition, where there are two.
pub(crate) fn key_of(partition: &Partition) -> String {
    let mut keys = (0..).map(|number| format!("key-{number}"));
    let is_there = |key: &String| sillage_core::partition_of(key.as_bytes(), 2) == partition.number;
    keys.find(is_there).unwrap()
}

/// Somebody else who makes and deletes things.
pub(crate) fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", server()).create().unwrap()
}

/// A topic with a limit of its own, made by somebody else.
pub(crate) async fn make_narrow(topic: &str, bytes: u32) {
    let limit = bytes.to_string();
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("max.message.bytes", &limit);
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    within(admin().create_topics(&[new], &options)).await.unwrap().remove(0).unwrap();
}

/// A client that is not ours.
pub(crate) fn raw_producer() -> BaseProducer {
    ClientConfig::new().set("bootstrap.servers", server()).create().unwrap()
}

pub(crate) fn flush(producer: &BaseProducer) {
    producer.flush(PATIENCE).unwrap();
}

pub(crate) fn raw_consumer(group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", server())
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap()
}
