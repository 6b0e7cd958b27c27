//! Kafka passes the suite for brokers.

use sillage_core::Broker;
use sillage_kafka::Kafka;
use sillage_testkit::{conformance::broker::BrokerFixture, servers};
use std::sync::Arc;

struct Fixture {
    url: String,
}

impl BrokerFixture for Fixture {
    async fn open(&self) -> Arc<dyn Broker> {
        Arc::new(Kafka::connect(&self.url).await.unwrap())
    }
}

sillage_testkit::broker_conformance!(match servers::url("SILLAGE_TEST_KAFKA") {
    Some(url) => Fixture { url },
    None => return,
});
