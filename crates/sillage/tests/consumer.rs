//! What users of consumers rely on, on the reference database with virtual time.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Invoiced, Probe, created};
use sillage::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering};

#[tokio::test(start_paused = true)]
async fn effects_are_committed_and_caused() {
    async fn invoice(order: Created) -> Effects {
        publish(Invoiced { order_id: order.order_id })
    }
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(invoice)).await;
    app.service("shop").commit(publish(created("o-1"))).await.unwrap();
    let log = harness.log_until(2).await;
    assert_eq!(log[1].name.as_ref(), "invoice.sent");
    assert_eq!(log[1].causation_id.as_ref(), Some(&log[0].id));
    assert_eq!(log[1].body.correlation_id, log[0].body.correlation_id);
    app.drain().await;
}

/// Handler A waits until B has begun: two keys must overlap.
#[tokio::test(start_paused = true)]
async fn two_keys_overlap() {
    let (began, wait) = (Probe::default(), Probe::default());
    let handler = {
        let (began, wait) = (began.clone(), wait.clone());
        move |order: Created| {
            let (began, wait) = (began.clone(), wait.clone());
            async move {
                match order.order_id.as_str() {
                    "a" => wait.reached("b").await,
                    _ => wait.note("b"),
                }
                began.note(&order.order_id);
            }
        }
    };
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(handler)).await;
    let shop = app.service("shop");
    shop.commit(publish(created("a")).and(publish(created("b")))).await.unwrap();
    began.reached("a").await;
    app.drain().await;
}

/// One key must not overlap, and keeps its order, also through retries in the lane.
#[tokio::test(start_paused = true)]
async fn one_key_is_strictly_in_order() {
    let (log, running) = (Probe::default(), std::sync::Arc::new(AtomicU32::new(0)));
    let tries = std::sync::Arc::new(AtomicU32::new(0));
    let handler = {
        let (log, running, tries) = (log.clone(), running.clone(), tries.clone());
        move |order: Created, meta: Meta| {
            let (log, running, tries) = (log.clone(), running.clone(), tries.clone());
            async move {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two of one key at once");
                tokio::task::yield_now().await;
                running.fetch_sub(1, Ordering::SeqCst);
                if order.note == "2" && tries.fetch_add(1, Ordering::SeqCst) < 2 {
                    return Err(Failure::transient("not yet"));
                }
                log.note(&format!("{}@{}", order.note, meta.attempt));
                Ok(())
            }
        }
    };
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(handler)).await;
    let all = (1..=5).map(|n| publish(Created { note: n.to_string(), ..created("o") }));
    app.service("shop").commit(all.collect::<Effects>()).await.unwrap();
    log.reached("5@1").await;
    assert_eq!(log.notes(), ["1@1", "2@3", "3@1", "4@1", "5@1"]);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_is_parked_and_others_flow_and_redrive_keeps_order() {
    let (log, broken) = (Probe::default(), common::Switch::on());
    let handler = {
        let (log, broken) = (log.clone(), broken.clone());
        move |order: Created| {
            let (log, broken) = (log.clone(), broken.clone());
            async move {
                if order.order_id == "bad" && broken.is_on() {
                    return Err(Failure::transient("database of the supplier is gone"));
                }
                log.note(&format!("{} {}", order.order_id, order.note));
                Ok(())
            }
        }
    };
    let harness = Harness::new();
    let retry = Retry::in_lane([ms(10)]).then_park([secs(5)]);
    let app = harness.start(Consumer::new("billing").on(handler).retry(retry)).await;
    let shop = app.service("shop");
    for n in 1..=3 {
        let note = n.to_string();
        let (bad, good) = (created("bad"), created("good"));
        let both =
            publish(Created { note: note.clone(), ..bad }).and(publish(Created { note, ..good }));
        shop.commit(both).await.unwrap();
    }
    log.reached("good 3").await;
    let dead = harness.dead_letters_until(1).await;
    assert_eq!(dead[0].key.attempts, 3);
    assert_eq!(dead[0].deliveries, 3);
    assert!(dead[0].key.failure.contains("supplier"));
    assert!(!log.notes().iter().any(|note| note.starts_with("bad")));

    broken.off();
    let admin = harness.admin();
    assert!(admin.redrive(&dead[0].id, true, false).await.unwrap().refused.is_none());
    admin.redrive(&dead[0].id, false, false).await.unwrap();
    let _again = admin.redrive(&dead[0].id, false, false).await;
    log.reached("bad 3").await;
    let bad: Vec<_> = log.notes().into_iter().filter(|note| note.starts_with("bad")).collect();
    assert_eq!(bad, ["bad 1", "bad 2", "bad 3"]);
    harness.dead_letters_until(0).await;
    app.drain().await;
    harness.accounted("shop/billing", 6).await;
}

#[tokio::test(start_paused = true)]
async fn permanent_failures_panics_and_garbage_are_dead_at_once() {
    async fn handler(order: Created) -> Result<(), Failure> {
        match order.order_id.as_str() {
            "permanent" => Err(Failure::permanent("never")),
            "panic" => panic!("out of luck"),
            _ => Ok(()),
        }
    }
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(handler)).await;
    let shop = app.service("shop");
    shop.commit(publish(created("permanent")).and(publish(created("panic")))).await.unwrap();
    harness.garbage("garbage", "not json").await;
    harness.garbage("deep", &("[".repeat(100_000) + &"]".repeat(100_000))).await;
    let dead = harness.dead_letters_until(4).await;
    let why = |id: &str| {
        let of_it = dead.iter().find(|dead| dead.id.ends_with(id)).unwrap();
        (of_it.key.attempts, of_it.key.failure.clone())
    };
    assert_eq!(why("permanent"), (1, "never".into()));
    assert!(why("panic").1.contains("out of luck"));
    assert!(why("garbage").1.contains("order.created"), "{}", why("garbage").1);
    assert!(why("deep").1.contains("cannot be read"), "{}", why("deep").1);
    app.drain().await;
}

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
async fn a_handler_over_its_time_limit_fails() {
    async fn handler(_: Created) {
        std::future::pending::<()>().await;
    }
    let harness = Harness::new();
    let consumer = Consumer::new("billing").on(handler).retry(Retry::never()).time_limit(secs(2));
    let app = harness.start(consumer).await;
    app.service("shop").commit(publish(created("slow"))).await.unwrap();
    let dead = harness.dead_letters_until(1).await;
    assert!(dead[0].key.failure.contains("time limit"), "{}", dead[0].key.failure);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn skip_goes_on_restore_takes_it_back_and_edit_replaces() {
    let log = Probe::default();
    let handler = {
        let log = log.clone();
        move |order: Created, meta: Meta| {
            let log = log.clone();
            async move {
                if order.note == "bad" {
                    return Err(Failure::permanent("bad"));
                }
                log.note(&format!("{} {}", order.note, meta.operation_id));
                Ok(())
            }
        }
    };
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(handler)).await;
    let shop = app.service("shop");
    let note = |note: &str| publish(Created { note: note.into(), ..created("o") });
    shop.commit(note("bad")).await.unwrap();
    shop.commit(note("next")).await.unwrap();
    let dead = harness.dead_letters_until(1).await;
    let admin = harness.admin();
    admin.skip(&dead[0].id, "known").await.unwrap();
    log.reached_start("next").await;
    harness.dead_letters_until(0).await;
    admin.restore(&dead[0].id).await.unwrap();
    let dead = harness.dead_letters_until(1).await;
    let (_, deliveries) = admin.dead_letter(&dead[0].id, 10).await.unwrap();
    let operation = deliveries[0].message.operation();
    let payload = serde_json::to_vec(&Created { note: "good".into(), ..created("o") }).unwrap();
    admin.edit(&dead[0].id, payload.into(), false).await.unwrap();
    log.reached(&format!("good {operation}")).await;
    harness.dead_letters_until(0).await;
    app.drain().await;
    harness.accounted("shop/billing", 2).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_handler_is_ignored_or_strict() {
    async fn handler(_: Invoiced) {}
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(handler)).await;
    harness.garbage_named("invoice", "invoice.unknown", "x", "{}").await;
    harness.passed("shop/billing", 1).await;
    app.drain().await;
    assert_eq!(harness.consumer("shop/billing").await.tally.ignored, 1);

    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(handler).strict()).await;
    harness.garbage_named("invoice", "invoice.unknown", "x", "{}").await;
    let dead = harness.dead_letters_until(1).await;
    assert!(dead[0].key.failure.contains("no handler for `invoice.unknown`"));
    app.drain().await;
}

/// During a rolling deployment a newer producer may be ahead: added fields are no obstacle, and
/// what cannot be read waits for a reader that can, instead of being dead at once.
#[tokio::test(start_paused = true)]
async fn a_newer_version_is_tried_as_it_is_and_else_parked() {
    let log = Probe::default();
    let handler = {
        let log = log.clone();
        move |order: Created| {
            let log = log.clone();
            async move { log.note(&order.order_id) }
        }
    };
    let harness = Harness::new();
    let retry = Retry::in_lane([ms(10)]).then_park([hours(1)]);
    let app = harness.start(Consumer::new("billing").on(handler).retry(retry)).await;
    let publish = async |key: &str, payload: &str| {
        let outgoing = sillage::admin::Outgoing {
            name: "order.created".into(),
            version: 9,
            topic: "order".into(),
            key: Some(key.into()),
            payload: payload.as_bytes().to_vec(),
        };
        harness.admin().publish(outgoing).await.unwrap();
    };
    publish("added", r#"{"order_id":"added","note":"","colour":"red"}"#).await;
    publish("changed", r#"{"orderId":"changed"}"#).await;
    log.reached("added").await;
    harness.passed("shop/billing", 2).await;
    let parked = harness.admin().dead_letters(None, true).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert!(!parked[0].key.dead, "{:?}", parked[0].key);
    assert!(parked[0].key.failure.contains("newer producer"), "{}", parked[0].key.failure);
    app.drain().await;
}

/// What waits behind a dead letter and has no handler leaves the key without an effect.
#[tokio::test(start_paused = true)]
async fn what_has_no_handler_does_not_block_a_redriven_key() {
    let (log, broken) = (Probe::default(), common::Switch::on());
    let handler = {
        let (log, broken) = (log.clone(), broken.clone());
        move |order: Created| {
            let (log, broken) = (log.clone(), broken.clone());
            async move {
                if broken.is_on() {
                    return Err(Failure::permanent("broken"));
                }
                log.note(&order.note);
                Ok(())
            }
        }
    };
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(handler)).await;
    harness.garbage_named("order", "order.created", "o", r#"{"order_id":"o","note":"1"}"#).await;
    harness.garbage_named("order", "order.unknown", "o", "{}").await;
    harness.garbage_named("order", "order.created", "o", r#"{"order_id":"o","note":"2"}"#).await;
    harness.passed("shop/billing", 3).await;
    let dead = harness.dead_letters_until(1).await;
    broken.off();
    harness.admin().redrive(&dead[0].id, false, false).await.unwrap();
    log.reached("2").await;
    assert_eq!(log.notes(), ["1", "2"]);
    harness.dead_letters_until(0).await;
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
async fn a_drained_app_leaves_nothing_to_redeliver() {
    let log = Probe::default();
    let handler = |log: &Probe| {
        let log = log.clone();
        move |order: Created| {
            let log = log.clone();
            async move { log.note(&order.order_id) }
        }
    };
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(handler(&log))).await;
    app.service("shop").commit(publish(created("a"))).await.unwrap();
    log.reached("a").await;
    app.drain().await;
    let app = harness.start(Consumer::new("billing").on(handler(&log))).await;
    app.service("shop").commit(publish(created("b"))).await.unwrap();
    log.reached("b").await;
    assert_eq!(log.notes(), ["a", "b"]);
    app.drain().await;
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
