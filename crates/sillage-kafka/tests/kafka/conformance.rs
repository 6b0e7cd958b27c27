//! Kafka passes the suites for brokers, and for consumers with a database beside it.

use crate::support::{admin, flush, make_narrow, raw_producer, unique, url, within};
use rdkafka::{admin::AdminOptions, producer::BaseRecord};
use sillage_core::{Broker, Database};
use sillage_kafka::Kafka;
use sillage_testkit::{
    Apart, Memory, SystemClock,
    conformance::{ConsumerFixture, broker::BrokerFixture},
};
use std::sync::Arc;

struct Fixture {
    url: String,
}

impl BrokerFixture for Fixture {
    async fn open(&self) -> Arc<dyn Broker> {
        Arc::new(Kafka::connect(&self.url).await.unwrap())
    }
}

mod broker {
    use super::{Fixture, url};

    sillage_testkit::broker_conformance!(match url() {
        Some(url) => Fixture { url },
        None => return,
    });
}

/// What a test publishes and consumes has names of its own.
struct WithDatabase {
    url: String,
    prefix: String,
    memory: Memory,
}

impl WithDatabase {
    fn new(url: String) -> Self {
        let memory = Memory::new(Arc::new(SystemClock));
        WithDatabase { url, prefix: format!("{}-", unique("test")), memory }
    }

    /// A topic's name on the server.
    fn there(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }
}

impl ConsumerFixture for WithDatabase {
    async fn database(&self) -> Arc<dyn Database> {
        Arc::new(self.memory.clone())
    }

    async fn broker(&self) -> Option<Arc<dyn Broker>> {
        let kafka = Kafka::connect(&self.url).await.unwrap();
        Some(Arc::new(Apart::new(Arc::new(kafka), &*self.prefix)))
    }

    async fn publish_bare(&self, topic: &str, key: &str, body: &str) -> bool {
        let producer = raw_producer();
        let topic = self.there(topic);
        producer.send(BaseRecord::to(&topic).key(key).payload(body)).unwrap();
        flush(&producer);
        true
    }

    async fn make_narrow(&self, topic: &str, bytes: u32) -> bool {
        make_narrow(&self.there(topic), bytes).await;
        true
    }

    async fn delete(&self, topic: &str) -> bool {
        let (topic, options) = (self.there(topic), AdminOptions::new());
        let deleted = within(admin().delete_topics(&[&topic], &options)).await.unwrap();
        deleted[0].as_ref().unwrap();
        true
    }
}

mod consumer {
    use super::{WithDatabase, url};

    sillage_testkit::consumer_conformance!(match url() {
        Some(url) => WithDatabase::new(url),
        None => return,
    });
}
