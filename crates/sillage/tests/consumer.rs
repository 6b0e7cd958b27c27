//! What users of consumers rely on that takes faults of the database or virtual time; the rest is
//! in the suite of the test kit.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Invoiced, Probe, created};
use sillage::prelude::*;

#[tokio::test(start_paused = true)]
async fn what_is_unavailable_spends_no_attempt_and_parks_nothing() {
    let (log, down) = (Probe::default(), common::Switch::on());
    let handler = {
        let (log, down) = (log.clone(), down.clone());
        move |order: Created, meta: Meta| {
            let (log, down) = (log.clone(), down.clone());
            async move {
                if down.is_on() {
                    return Err(Failure::unavailable("gateway", "connection refused"));
                }
                log.note(&format!("{}@{}", order.order_id, meta.attempt));
                Ok(())
            }
        }
    };
    let harness = Harness::new();
    let consumer = Consumer::new("billing").on(handler).retry(Retry::never());
    let app = harness.start(consumer).await;
    app.service("shop").commit(publish(created("o-1"))).await.unwrap();
    tokio::time::advance(secs(3600)).await;
    harness.settle().await;
    assert!(harness.dead_letters_until(0).await.is_empty());
    down.off();
    log.reached("o-1@1").await;
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_outcome_is_unknown_is_not_doubled() {
    async fn invoice(order: Created) -> Effects {
        publish(Invoiced { order_id: order.order_id })
    }
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(invoice)).await;
    for (index, id) in ["a", "b", "c"].iter().enumerate() {
        match index {
            0 => harness.memory.fail_next(2),
            1 => harness.memory.fail_after_apply(2),
            _ => {}
        }
        app.service("shop").commit(publish(created(id))).await.unwrap();
    }
    harness.passed("shop/billing", 3).await;
    app.drain().await;
    let log = harness.log_until(6).await;
    assert_eq!(log.len(), 6, "{:?}", log.iter().map(|entry| &entry.name).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn many_keys_that_fail_pause_the_consumer() {
    async fn handler(_: Created) -> Result<(), Failure> {
        Err(Failure::permanent("bad deployment"))
    }
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(handler)).await;
    let all = (0..50).map(|n| publish(created(&n.to_string())));
    app.service("shop").commit(all.collect::<Effects>()).await.unwrap();
    harness.until(|| async { !app.health().ready }).await;
    assert!(app.health().problems[0].contains("sillage consumers resume shop/billing"));
    assert!(harness.dead_letters_until(20).await.len() <= 20);
    app.drain().await;

    let log = Probe::default();
    let mended = {
        let log = log.clone();
        move |order: Created| {
            let log = log.clone();
            async move { log.note(&order.order_id) }
        }
    };
    let app = harness.start(Consumer::new("billing").on(mended)).await;
    harness.settle().await;
    assert!(log.notes().is_empty(), "a paused consumer starts paused");
    harness.admin().resume("shop/billing").await.unwrap();
    harness.until(|| async { log.notes().len() == 30 }).await;
    app.drain().await;
}
