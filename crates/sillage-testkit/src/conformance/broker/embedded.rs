//! The embedded broker as a fixture.

use super::{super::ConsumerFixture, BrokerFixture};
use serde_json::json;
use sillage::{LogBroker, SystemClock};
use sillage_core::{Broker, Commit, Database, Settled, Sort, Write};
use std::sync::Arc;

/// The embedded broker on a database: what a database's tests give to
/// [`broker_conformance!`](crate::broker_conformance).
pub struct Embedded<F>(
    /// Opens the database.
    pub F,
);

impl<F: ConsumerFixture> BrokerFixture for Embedded<F> {
    async fn open(&self) -> Arc<dyn Broker> {
        Arc::new(LogBroker::new(self.0.database().await, Arc::new(SystemClock)))
    }

    async fn settled(&self, consumer: &str, settled: &[Settled]) {
        store_watermarks(&*self.0.database().await, consumer, settled).await;
    }
}

/// Stores watermarks as the runtime does: the embedded broker goes on from there.
pub async fn store_watermarks(database: &dyn Database, consumer: &str, settled: &[Settled]) {
    let put = |settled: &Settled| {
        let offset = settled.watermark?.0;
        let counted = json!({
            "offset": offset, "open": false,
            "received": 0, "done": 0, "parked": 0, "ignored": 0, "duplicates": 0,
        });
        Some(Write::Put {
            collection: "watermarks".into(),
            id: format!("{consumer}/{}", settled.partition).into(),
            sort: Some(Sort::Text(format!("{offset:020}").into())),
            body: counted.to_string().into(),
        })
    };
    let commit = Commit { conditions: vec![], writes: settled.iter().filter_map(put).collect() };
    let answers = database.commit(vec![commit]).await;
    assert!(answers[0].is_ok(), "the watermarks were not stored: {answers:?}");
}
