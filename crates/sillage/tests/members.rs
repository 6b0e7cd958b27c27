//! Processes that share a consumer, and processes that die, where it takes virtual time; the rest is
//! in the suite of the test kit.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Invoiced, Probe, created};
use sillage::{Broker, Clock as _, Commit, Range, Write, prelude::*};
use sillage_testkit::{MemoryBroker, TokioClock};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

fn noting(log: &Probe, who: &'static str) -> Consumer {
    let log = log.clone();
    let handler = move |order: Created| {
        let log = log.clone();
        async move {
            TokioClock::default().sleep(ms(50)).await;
            log.note(&format!("{who} {} {}", order.order_id, order.note));
            publish(Invoiced { order_id: format!("{} {}", order.order_id, order.note) })
        }
    };
    Consumer::new("billing").on(handler)
}

#[tokio::test(start_paused = true)]
async fn a_seventeenth_process_waits_for_a_slot_and_says_so() {
    let (harness, log) = (Harness::new(), Probe::default());
    let mut apps = vec![];
    for _ in 0..17 {
        apps.push(harness.start(noting(&log, "x")).await);
        harness.settle().await;
    }
    let waiting = || apps.iter().filter(|app| !app.health().notes.is_empty()).count();
    harness.until(|| async { waiting() == 1 }).await;
    for app in &apps {
        app.drain().await;
    }
}

fn parking_harness() -> Harness {
    paused_runtime().block_on(async { Harness::new() })
}

fn paused_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// The process dies three times on one message: the fourth finds it a dead letter, and goes on.
#[test]
fn a_message_that_kills_the_process_becomes_a_dead_letter() {
    dies_of_one(None);
    // There it is the first of its partition.
    dies_of_one(Some(&MemoryBroker::new(4, true)));
    // And there offsets count from one again in each process, and what is stored is of the one before.
    dies_of_one(Some(&MemoryBroker::without_offsets(4)));
}

fn dies_of_one(broker: Option<&MemoryBroker>) {
    let harness = Arc::new(parking_harness());
    let calls = Arc::new(AtomicU32::new(0));
    let log = Probe::default();
    let start = async |harness: &Harness| {
        let (calls, log) = (calls.clone(), log.clone());
        let handler = move |order: Created| {
            let (calls, log) = (calls.clone(), log.clone());
            async move {
                if order.order_id == "killer" {
                    calls.fetch_add(1, Ordering::SeqCst);
                    // Stands for the process that dies here: it never comes back.
                    std::future::pending::<()>().await;
                }
                log.note(&order.order_id);
            }
        };
        let consumer = Consumer::new("billing").on(handler).time_limit(hours(1));
        let broker = broker.map(|broker| Arc::new(broker.clone()) as Arc<dyn Broker>);
        let app = App::new(harness.database()).broker(broker).clock(harness.clock.clone());
        app.service(Service::new("shop").consumer(consumer)).start().await.unwrap()
    };
    for death in 1..=4 {
        let runtime = paused_runtime();
        runtime.block_on(async {
            if broker.is_some_and(|broker| !broker.capabilities().offsets) {
                raise_watermarks(&harness).await;
            }
            let app = start(&harness).await;
            if death == 1 {
                app.service("shop").commit(publish(created("killer"))).await.unwrap();
            }
            harness.until(|| async { calls.load(Ordering::SeqCst) >= death }).await;
        });
        runtime.shutdown_background();
    }
    paused_runtime().block_on(async {
        let app = start(&harness).await;
        let dead = harness.dead_letters_until(1).await;
        assert!(dead[0].key.failure.contains("the process died 3 times"), "{:?}", dead[0].key);
        app.service("shop").commit(publish(created("fine"))).await.unwrap();
        log.reached("fine").await;
        app.drain().await;
    });
}

/// As if more had been handled before.
async fn raise_watermarks(harness: &Harness) {
    let all = Range::Ids { prefix: "shop/billing/", after: "" };
    for stored in harness.database().list("watermarks", all, 100).await.unwrap() {
        let mut mark: serde_json::Value = serde_json::from_slice(&stored.body).unwrap();
        mark["offset"] = 500.into();
        let (collection, id) = ("watermarks".into(), stored.id);
        let body = mark.to_string().into();
        let put = Write::Put { collection, id, sort: None, body };
        let commit = Commit { conditions: vec![], writes: vec![put] };
        harness.database().commit(vec![commit]).await.pop().unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn where_a_consumer_starts_is_stored_once() {
    use sillage::Start;
    let harness = Harness::new();
    let app = harness.start_service(Service::new("shop")).await;
    app.service("shop").commit(publish(created("old"))).await.unwrap();
    app.drain().await;
    let log = Probe::default();
    let late = |log: &Probe| noting(log, "late").from(Start::Latest);
    harness.start(late(&log)).await.drain().await;
    let app = harness.start_service(Service::new("shop")).await;
    app.service("shop").commit(publish(created("between"))).await.unwrap();
    app.drain().await;
    let app = harness.start(late(&log)).await;
    app.service("shop").commit(publish(created("new"))).await.unwrap();
    log.reached("late new ").await;
    log.reached("late between ").await;
    assert_eq!(log.notes().len(), 2, "{:?}", log.notes());
    app.drain().await;
}

/// Slots without deliveries follow the log: a restart must not read it all again.
#[tokio::test(start_paused = true)]
async fn the_watermarks_of_idle_slots_follow_the_log() {
    let invoice = |order: Created| async move { publish(Invoiced { order_id: order.note }) };
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(invoice)).await;
    for n in 0..60 {
        let all = (0..100).map(|m| publish(Created { note: format!("{n} {m}"), ..created("one") }));
        app.service("shop").commit(all.collect::<Effects>()).await.unwrap();
    }
    harness.passed("shop/billing", 6000).await;
    app.drain().await;
    let position = harness.consumer("shop/billing").await.position.unwrap();
    assert!(position > Position(10_000), "the lowest slot is at {position} of 12,000");
    harness.accounted("shop/billing", 6000).await;
}
