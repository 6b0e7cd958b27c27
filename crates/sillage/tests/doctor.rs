//! What the doctor says of a broker outside the database, and of what does not reach it.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Invoiced, created};
use sillage::{Broker, LogBroker, admin::Finding, prelude::*};
use sillage_testkit::{Memory, MemoryBroker};
use std::sync::Arc;

async fn start(harness: &Harness, broker: &MemoryBroker) -> Running {
    let invoice = |order: Created| async move { publish(Invoiced { order_id: order.order_id }) };
    let shop = Service::new("shop").consumer(Consumer::new("billing").on(invoice));
    let app = App::new(harness.database()).broker(outside(broker)).clock(harness.clock.clone());
    app.service(shop).start().await.unwrap()
}

fn outside(broker: &MemoryBroker) -> Arc<dyn Broker> {
    Arc::new(broker.clone())
}

async fn failing(harness: &Harness, broker: Option<Arc<dyn Broker>>) -> Vec<Finding> {
    let mut findings = harness.admin().broker(broker).doctor().await.unwrap();
    findings.retain(|finding| !finding.ok);
    findings
}

fn says(findings: &[Finding], what: &str, finding: &str) {
    let found = findings.iter().any(|one| one.what == what && one.finding.contains(finding));
    assert!(found, "{what}: {finding}: {findings:?}");
}

#[tokio::test(start_paused = true)]
async fn an_app_reads_from_the_broker_that_is_named() {
    let (harness, broker) = (Harness::new(), MemoryBroker::new(4, true));
    let app = start(&harness, &broker).await;
    harness.settle().await;
    assert!(failing(&harness, Some(outside(&broker))).await.is_empty());

    let unnamed = failing(&harness, None).await;
    says(&unnamed, "broker", "memory broker is read by shop, and no broker is named");
    let lag = harness.admin().consumers().await.unwrap();
    assert_eq!(lag.iter().find(|one| &*one.name == "shop/billing").unwrap().lag, None);

    let memory = Memory::new(harness.clock.clone());
    let other = LogBroker::new(Arc::new(memory), harness.clock.clone());
    let other: Arc<dyn Broker> = Arc::new(other);
    says(&failing(&harness, Some(other.clone())).await, "broker", "the one that is named is");
    // A broker of another kind is not asked for a lag that it cannot know.
    let lag = harness.admin().broker(Some(other)).consumers().await.unwrap();
    assert_eq!(lag.iter().find(|one| &*one.name == "shop/billing").unwrap().lag, None);

    let empty = MemoryBroker::new(4, true);
    says(&failing(&harness, Some(outside(&empty))).await, "topic order", "topics create order");
    let lag = harness.admin().broker(outside(&empty)).consumers().await.unwrap();
    assert_eq!(lag.iter().find(|one| &*one.name == "shop/billing").unwrap().lag, None);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_relay_does_not_carry_is_found() {
    let (harness, broker) = (Harness::new(), MemoryBroker::new(4, true));
    let app = start(&harness, &broker).await;
    broker.set_down(true);
    app.service("shop").commit(publish(created("o-1"))).await.unwrap();
    harness.settle().await;
    assert!(failing(&harness, Some(outside(&broker))).await.is_empty(), "it is not long yet");
    for _ in 0..3 {
        harness.settle().await;
    }
    let waits = failing(&harness, Some(outside(&broker))).await;
    says(&waits, "consumer broker/relay", "1 messages wait for the broker");

    broker.set_refused("o-1", true);
    broker.set_down(false);
    let admin = harness.admin();
    harness.until(|| async { !admin.dead_letters(None, true).await.unwrap().is_empty() }).await;
    let refused = failing(&harness, Some(outside(&broker))).await;
    says(&refused, "consumer broker/relay", "sillage dlq list --all --parked");
    app.drain().await;
}
