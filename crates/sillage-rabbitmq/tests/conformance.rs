//! RabbitMQ passes the suites for brokers, and for consumers with a database beside it, on a real
//! server: `SILLAGE_TEST_RABBITMQ` says where one is.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

#[path = "broker/proxy.rs"]
mod proxy;

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ExchangeDeleteOptions, QueueDeleteOptions},
    types::ShortString,
};
use proxy::Proxy;
use sillage_core::{
    BoxFuture, Broker, Capabilities, Database, Message, Progress, PublishError, Receipt, Result,
    Subscribed, Subscription, Text, TopicSpec, TopicStatus, TopologyDiff,
};
use sillage_rabbitmq::RabbitMq;
use sillage_testkit::{
    Apart, Memory, SystemClock,
    conformance::{BrokerFixture, ConsumerFixture},
    servers,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};
use tokio::sync::OnceCell;

mod broker {
    use super::Server;

    sillage_testkit::broker_conformance!(match Server::new() {
        Some(server) => server,
        None => return,
    });
}

mod consumer {
    use super::WithDatabase;

    sillage_testkit::consumer_conformance!(match WithDatabase::new() {
        Some(fixture) => fixture,
        None => return,
    });
}

struct Server {
    url: String,
    made: Made,
}

/// What a test made on the server.
#[derive(Clone, Default)]
struct Made(Arc<Mutex<(BTreeSet<Text>, BTreeSet<Text>)>>);

impl Made {
    fn topics(&self, topics: impl IntoIterator<Item = Text>) {
        self.0.lock().unwrap().0.extend(topics);
    }

    fn consumer(&self, consumer: &Text) {
        self.0.lock().unwrap().1.insert(consumer.clone());
    }
}

impl Server {
    fn new() -> Option<Server> {
        let url = servers::url("SILLAGE_TEST_RABBITMQ")?;
        Some(Server { url, made: Made::default() })
    }

    async fn connect(&self, url: &str) -> Arc<dyn Broker> {
        let broker = RabbitMq::connect(url).await.unwrap();
        Arc::new(Watched { broker, made: self.made.clone() })
    }

    /// Somebody else's connection, which ends with it, and a channel.
    async fn raw(&self) -> (Connection, Channel) {
        let raw = Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap();
        let channel = raw.create_channel().await.unwrap();
        (raw, channel)
    }

    async fn clean(&self) {
        let (_raw, channel) = self.raw().await;
        let (topics, consumers) = self.made.0.lock().unwrap().clone();
        let mut queues: Vec<_> = consumers.iter().map(|name| format!("{name}/dead")).collect();
        for topic in &topics {
            queues.extend([format!("{topic}.partitions"), format!("{topic}.stream")]);
            let of_it = |consumer| (0..12).map(move |n| format!("{consumer}/{topic}/{n}"));
            queues.extend(consumers.iter().flat_map(of_it));
        }
        for queue in queues {
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
        }
        for topic in &topics {
            let deleted =
                channel.exchange_delete((&**topic).into(), ExchangeDeleteOptions::default());
            deleted.await.unwrap();
        }
    }
}

impl BrokerFixture for Server {
    async fn open(&self) -> Arc<dyn Broker> {
        self.connect(&self.url).await
    }

    /// Its queues are made then.
    fn begins_at_subscription(&self) -> bool {
        true
    }

    async fn finish(&self) {
        self.clean().await;
    }
}

/// What a test publishes and consumes has names of its own.
struct WithDatabase {
    server: Server,
    /// Between apps and server, once a test has cut what there is.
    proxy: OnceCell<Proxy>,
    prefix: Text,
    memory: Memory,
}

impl WithDatabase {
    fn new() -> Option<WithDatabase> {
        let server = Server::new()?;
        let memory = Memory::new(Arc::new(SystemClock));
        Some(WithDatabase {
            server,
            proxy: OnceCell::new(),
            prefix: format!("t{:08x}-", rand::random::<u32>()).into(),
            memory,
        })
    }

    /// A topic's exchange on the server.
    fn there(&self, topic: &str) -> ShortString {
        format!("{}{topic}", self.prefix).into()
    }
}

impl ConsumerFixture for WithDatabase {
    async fn database(&self) -> Arc<dyn Database> {
        Arc::new(self.memory.clone())
    }

    async fn broker(&self) -> Option<Arc<dyn Broker>> {
        let url = self.proxy.get().map_or(&self.server.url, |proxy| &proxy.url);
        Some(Arc::new(Apart::new(self.server.connect(url).await, self.prefix.clone())))
    }

    /// Without a header it has no key.
    async fn publish_bare(&self, topic: &str, _key: &str, body: &str) -> bool {
        let ((_raw, channel), topic) = (self.server.raw().await, self.there(topic));
        let (key, options) = ("0.order.placed".into(), BasicPublishOptions::default());
        let properties = BasicProperties::default();
        let publish = channel.basic_publish(topic, key, options, body.as_bytes(), properties);
        publish.await.unwrap().await.unwrap();
        true
    }

    async fn delete(&self, topic: &str) -> bool {
        let ((_raw, channel), topic) = (self.server.raw().await, self.there(topic));
        channel.exchange_delete(topic, ExchangeDeleteOptions::default()).await.unwrap();
        true
    }

    async fn cut(&self) -> bool {
        match self.proxy.get() {
            Some(proxy) => proxy.cut_and_refuse().await,
            None => drop(self.proxy.set(Proxy::start(&self.server.url).await)),
        }
        true
    }

    async fn finish(&self) {
        self.server.clean().await;
    }
}

/// Notes what is made.
struct Watched {
    broker: RabbitMq,
    made: Made,
}

impl Broker for Watched {
    fn capabilities(&self) -> Capabilities {
        self.broker.capabilities()
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        self.made.topics(topics.iter().map(|topic| topic.name.clone()));
        self.broker.ensure(topics)
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        self.broker.publish(batch)
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        self.made.consumer(&subscription.consumer);
        self.broker.subscribe(subscription)
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        self.broker.topics(names)
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        self.broker.progress(consumer, topics)
    }
}
