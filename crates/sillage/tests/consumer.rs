//! What users of consumers rely on that takes faults of the database, load, or virtual time; the rest is
//! in the suite of the test kit.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Invoiced, Probe, created, foreign_order};
use sillage::{Broker, Clock as _, Commit, Expected, Filter, Range, TopicSpec, Write, prelude::*};
use sillage_testkit::{Held, MemoryBroker, SystemClock};
use std::sync::Arc;

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

/// A crash may come before the watermark is stored.
#[tokio::test(start_paused = true)]
async fn what_was_decided_before_a_crash_does_not_run_again() {
    let log = Probe::default();
    let invoice = {
        let log = log.clone();
        move |order: Created| {
            log.note(&order.order_id);
            async move { publish(Invoiced { order_id: order.order_id }) }
        }
    };
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(invoice.clone())).await;
    for id in ["a", "b", "c"] {
        app.service("shop").commit(publish(created(id))).await.unwrap();
    }
    harness.log_until(6).await;
    drop(app);
    let database = harness.database();
    let all = Range::Ids { prefix: "", after: "" };
    for stored in database.list("watermarks", all, 1_000).await.unwrap() {
        let gone = Write::Delete { collection: "watermarks".into(), id: stored.id };
        let commit = Commit { conditions: vec![], writes: vec![gone] };
        database.commit(vec![commit]).await.pop().unwrap().unwrap();
    }
    let app = harness.start(Consumer::new("billing").on(invoice)).await;
    app.service("shop").commit(publish(created("d"))).await.unwrap();
    harness.log_until(8).await;
    harness.passed("shop/billing", 4).await;
    app.drain().await;
    let mut notes = log.notes();
    notes.sort();
    assert_eq!(notes, ["a", "b", "c", "d"]);
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

/// Not only when there is a moment without anything to do.
#[tokio::test]
async fn a_handler_is_stopped_at_its_time_limit_under_load() {
    const ORDERS: u32 = 3_000;
    struct Stopped(Probe);
    impl Drop for Stopped {
        fn drop(&mut self) {
            self.0.note("stopped");
        }
    }
    let log = Probe::default();
    let noting = log.clone();
    let consumer = Consumer::new("billing").retry(Retry::never()).time_limit(ms(1));
    let consumer = consumer.on(move |order: Created| {
        let log = noting.clone();
        async move {
            if order.order_id == "o-0" {
                let _stopped = Stopped(log);
                return std::future::pending().await;
            }
            // It computes for a millisecond.
            let end = SystemClock.elapsed() + ms(1);
            while SystemClock.elapsed() < end {
                std::hint::spin_loop();
            }
            log.note(&order.order_id);
        }
    });
    let (clock, broker) = (Arc::new(SystemClock), MemoryBroker::new(1, true));
    let port: Arc<dyn Broker> = Arc::new(broker);
    port.ensure(&[TopicSpec { name: "order".into(), partitions: None }]).await.unwrap();
    let orders = (0..ORDERS).map(|n| foreign_order(&format!("o-{n}"))).collect();
    assert!(port.publish(orders).await.iter().all(Result::is_ok));
    let service = Service::new("shop").consumer(consumer);
    let app = App::stateless(port).clock(clock).service(service).start().await.unwrap();
    let last = format!("o-{}", ORDERS - 1);
    log.reached("stopped").await;
    log.reached(&last).await;
    assert_ne!(log.notes().last().unwrap(), "stopped", "when nothing else was left to do");
    app.drain().await;
}

#[derive(Events, Clone, Debug, PartialEq)]
enum Bill {
    Invoiced(Invoiced),
}

/// Somebody holds the row of one stream, say by hand in a shell.
#[tokio::test(start_paused = true)]
async fn a_commit_that_waits_for_a_row_delays_no_other() {
    async fn note(order: Created) -> Effects {
        let stream = format!("bill-{}", order.order_id);
        append(stream, Expected::Any, &[Bill::from(Invoiced { order_id: order.order_id })])
    }
    let harness = Harness::new();
    let way = Held::new(harness.database());
    let service = Service::new("shop").consumer(Consumer::new("billing").on(note));
    let app = App::new(Arc::new(way.clone())).clock(harness.clock.clone());
    let app = app.service(service).start().await.unwrap();
    way.hold_row(Some("shop/bill-a"));
    for id in ["a", "b", "c"] {
        harness.garbage(id, &format!(r#"{{"order_id":"{id}","note":""}}"#)).await;
    }
    let log = harness.log_until(5).await;
    let bills: Vec<_> = log.iter().filter_map(|entry| entry.stream.as_ref()).collect();
    assert!(bills.iter().all(|(stream, _)| !stream.ends_with("-a")), "{bills:?}");
    way.hold_row(None);
    harness.log_until(6).await;
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn handlings_that_are_let_fail_are_tried_again_and_leave_nothing() {
    let (harness, log, audited) = (Harness::new(), Probe::default(), Probe::default());
    let (noting, auditing) = (log.clone(), audited.clone());
    let billing = Consumer::new("billing").on(move |order: Created| {
        noting.note(&order.order_id);
        async move { publish(Invoiced { order_id: order.order_id }) }
    });
    let audit = Consumer::new("audit").on(move |order: Created| {
        auditing.note(&order.order_id);
        async {}
    });
    let often = Retry::in_lane([ms(5); 20]);
    let service = Service::new("shop").consumer(billing.retry(often.clone()));
    let service = service.consumer(audit.retry(often));
    let app = App::new(harness.database()).clock(harness.clock.clone()).service(service);
    let app = app.fail_handlers(0.3).start().await.unwrap();
    for n in 0..60 {
        app.service("shop").commit(publish(created(&format!("o-{}", n % 7)))).await.unwrap();
    }
    harness.passed("shop/billing", 60).await;
    harness.passed("shop/audit", 60).await;
    for notes in [log.notes().len(), audited.notes().len()] {
        assert!(notes > 60, "{notes} handlings of 60 messages: none failed");
    }
    let filter = Filter { names: vec!["invoice.sent".into()], ..Filter::default() };
    let invoices = harness.database().log(Position(0), &filter, 1_000).await.unwrap().entries;
    assert_eq!(invoices.len(), 60, "each once");
    app.drain().await;

    for share in [-0.1, 1.0, f64::NAN] {
        let app = App::new(harness.database()).fail_handlers(share);
        let refused = app.start().await.err().unwrap().to_string();
        assert!(refused.contains("from 0 to below 1"), "{refused}");
    }
}
