//! A process that is cut off from its broker, or from its database, and goes on all the same.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Probe, foreign_order};
use sillage::{Broker, Clock as _, Database, TopicSpec, prelude::*};
use sillage_testkit::{Held, MemoryBroker, TokioClock};
use std::sync::Arc;

const BILLING: &str = "shop/billing";

/// Handles each order for a second.
async fn start(
    harness: &Harness,
    database: Arc<dyn Database>,
    broker: &MemoryBroker,
    log: &Probe,
) -> Running {
    let log = log.clone();
    let billing = Consumer::new("billing").on(move |order: Created| {
        let log = log.clone();
        async move {
            TokioClock::default().sleep(secs(1)).await;
            log.note(&order.order_id);
        }
    });
    let port: Arc<dyn Broker> = Arc::new(broker.clone());
    port.ensure(&[TopicSpec { name: "order".into(), partitions: None }]).await.unwrap();
    let app = App::new(database).broker(port).clock(harness.clock.clone());
    app.service(Service::new("shop").consumer(billing)).start().await.unwrap()
}

async fn deliver(broker: &MemoryBroker, count: u32) {
    let orders = (0..count).map(|n| foreign_order(&format!("o-{n}"))).collect();
    assert!(broker.publish(orders).await.iter().all(Result::is_ok));
}

/// It has not died: nothing runs one by one, as it does after a crash.
#[tokio::test(start_paused = true)]
async fn who_loses_a_partition_and_has_it_again_goes_on_at_full_speed() {
    for assigns in [true, false] {
        let (harness, broker) = (Harness::new(), MemoryBroker::new(2, assigns));
        let log = Probe::default();
        let app = start(&harness, harness.database(), &broker, &log).await;
        harness.settle().await;
        deliver(&broker, 200).await;
        harness.clock.sleep(ms(500)).await;
        broker.lose(BILLING);
        let begun = harness.clock.elapsed();
        harness.passed(BILLING, 200).await;
        let took = harness.clock.elapsed().saturating_sub(begun);
        assert!(took < secs(30), "200 orders of 200 keys took {took:?}");
        app.drain().await;
    }
}

/// Where leases share partitions out, the broker goes on bringing them to whoever reads them.
#[tokio::test(start_paused = true)]
async fn who_cannot_renew_its_leases_reads_no_more() {
    let (harness, broker) = (Harness::new(), MemoryBroker::new(4, false));
    let (one, two) = (Probe::default(), Probe::default());
    let way = Held::new(harness.database());
    let cut_off = start(&harness, Arc::new(way.clone()), &broker, &one).await;
    harness.settle().await;
    let other = start(&harness, harness.database(), &broker, &two).await;
    harness.clock.sleep(mins(1)).await;
    assert_eq!(broker.readings(BILLING), 4);
    way.hold(true);
    harness.clock.sleep(mins(1)).await;
    assert_eq!(broker.readings(BILLING), 4, "the other reads all, and nobody else");
    deliver(&broker, 50).await;
    harness.passed(BILLING, 50).await;
    assert_eq!((one.notes().len(), two.notes().len()), (0, 50));
    way.hold(false);
    harness.clock.sleep(mins(1)).await;
    other.drain().await;
    deliver(&broker, 50).await;
    harness.passed(BILLING, 100).await;
    cut_off.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_the_broker_has_lost_is_in_its_consumers_health() {
    let (harness, broker) = (Harness::new(), MemoryBroker::new(4, false));
    let app = start(&harness, harness.database(), &broker, &Probe::default()).await;
    harness.settle().await;
    assert!(app.health().problems.is_empty());
    broker.cut_off(BILLING);
    harness.until(|| async { !app.health().problems.is_empty() }).await;
    let problems = app.health().problems;
    assert!(problems[0].contains("nothing comes of order/0 and 3 others"), "{problems:?}");
    app.drain().await;
}
