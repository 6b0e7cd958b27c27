//! RabbitMQ passes the suites for brokers, and for consumers with a database beside it, on a real
//! server: `SILLAGE_TEST_RABBITMQ` says where one is.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};
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

    async fn connect(&self) -> Arc<dyn Broker> {
        let broker = RabbitMq::connect(&self.url).await.unwrap();
        Arc::new(Watched { broker, made: self.made.clone() })
    }

    async fn clean(&self) {
        let raw = Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap();
        let channel = raw.create_channel().await.unwrap();
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
        self.connect().await
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
    prefix: Text,
    memory: Memory,
}

impl WithDatabase {
    fn new() -> Option<WithDatabase> {
        let server = Server::new()?;
        let memory = Memory::new(Arc::new(SystemClock));
        Some(WithDatabase {
            server,
            prefix: format!("t{:08x}-", rand::random::<u32>()).into(),
            memory,
        })
    }
}

impl ConsumerFixture for WithDatabase {
    async fn database(&self) -> Arc<dyn Database> {
        Arc::new(self.memory.clone())
    }

    async fn broker(&self) -> Option<Arc<dyn Broker>> {
        Some(Arc::new(Apart::new(self.server.connect().await, self.prefix.clone())))
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
