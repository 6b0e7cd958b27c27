//! A consumer that comes back: its broker hears how far it is in this cluster, and only in this.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Probe, foreign_order};
use sillage::{Broker, prelude::*};
use sillage_testkit::MemoryBroker;
use std::sync::Arc;

const BILLING: &str = "shop/billing";

/// Starts, handles so many orders more, and stops.
async fn run(harness: &Harness, broker: &MemoryBroker, log: &Probe, count: u32) {
    let handled = log.clone();
    let billing = Consumer::new("billing").on(move |order: Created| {
        let handled = handled.clone();
        async move { handled.note(&order.order_id) }
    });
    let port: Arc<dyn Broker> = Arc::new(broker.clone());
    let app = App::new(harness.database()).broker(port).clock(harness.clock.clone());
    let app = app.service(Service::new("shop").consumer(billing)).start().await.unwrap();
    let before = log.notes().len();
    let orders = (0..count).map(|n| foreign_order(&format!("o-{}", before + n as usize)));
    assert!(broker.publish(orders.collect()).await.iter().all(Result::is_ok));
    harness.until(|| async { log.notes().len() == before + count as usize }).await;
    app.drain().await;
}

/// How many messages it has behind it, as the broker heard.
fn behind(broker: &MemoryBroker) -> u64 {
    let reached = broker.reached(BILLING);
    assert!(reached.iter().all(|of| &*of.partition.topic == "order"), "{reached:?}");
    reached.iter().map(|of| of.offset.0 + 1).sum()
}

#[tokio::test(start_paused = true)]
async fn how_far_a_consumer_is_counts_in_its_cluster() {
    let (harness, log) = (Harness::new(), Probe::default());
    let one = MemoryBroker::new(2, true);
    one.is_cluster("one");
    run(&harness, &one, &log, 40).await;
    assert_eq!(behind(&one), 0);
    run(&harness, &one, &log, 20).await;
    assert_eq!(behind(&one), 40);
    // The same offsets are of other messages there.
    let two = MemoryBroker::new(2, true);
    two.is_cluster("two");
    run(&harness, &two, &log, 30).await;
    assert_eq!(behind(&two), 0);
    run(&harness, &two, &log, 10).await;
    assert_eq!(behind(&two), 30);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_say_which_cluster_it_is_hears_nothing() {
    let (harness, log) = (Harness::new(), Probe::default());
    let broker = MemoryBroker::new(2, true);
    run(&harness, &broker, &log, 40).await;
    run(&harness, &broker, &log, 40).await;
    assert_eq!(behind(&broker), 0);
}
