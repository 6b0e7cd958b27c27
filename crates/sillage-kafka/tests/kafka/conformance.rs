//! Kafka passes the suites for brokers, and for consumers with a database beside it.

use crate::support::{unique, url};
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
}

impl ConsumerFixture for WithDatabase {
    async fn database(&self) -> Arc<dyn Database> {
        Arc::new(self.memory.clone())
    }

    async fn broker(&self) -> Option<Arc<dyn Broker>> {
        let kafka = Kafka::connect(&self.url).await.unwrap();
        Some(Arc::new(Apart::new(Arc::new(kafka), &*self.prefix)))
    }
}

mod consumer {
    use super::{WithDatabase, url};

    sillage_testkit::consumer_conformance!(match url() {
        Some(url) => WithDatabase::new(url),
        None => return,
    });
}
