//! What fails for good is a dead letter only if it is still so when it is set aside, and else counts for
//! nothing, nor for the kill switch; and it can be set aside, whatever it is.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Invoiced, Probe, Switch, created, foreign_order};
use serde::{Deserialize, Serialize};
use sillage::{Broker, Commit, Message, MessageId, TopicSpec, Write, prelude::*};
use sillage_testkit::MemoryBroker;
use std::sync::Arc;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "payment.made")]
struct Paid {
    #[event(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "guest.left")]
struct Left {
    #[event(key)]
    order_id: String,
}

#[derive(Document, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[document(collection = "bills")]
struct Bill {
    #[document(id)]
    order_id: String,
    open: bool,
}

fn bill(order_id: &str, open: bool) -> Effects {
    put(Bill { order_id: order_id.into(), open })
}

/// Bills an order once, and calls a second time a mistake.
async fn once(order: Created, Load(known): Load<Bill>) -> Result<Effects, Failure> {
    match known {
        None => Ok(bill(&order.order_id, true)),
        Some(_) => Err(Failure::permanent("there is a bill for it")),
    }
}

/// They come again before their first handling is committed, so that no look into the inbox helps.
#[tokio::test(start_paused = true)]
async fn what_was_handled_does_not_fail_when_it_comes_again() {
    let (harness, broker) = (Harness::new(), MemoryBroker::new(3, true));
    let port: Arc<dyn Broker> = Arc::new(broker.clone());
    port.ensure(&[TopicSpec { name: "order".into(), partitions: None }]).await.unwrap();
    let app = App::new(harness.database()).broker(port.clone()).clock(harness.clock.clone());
    let service = Service::new("shop").consumer(Consumer::new("billing").on(once));
    let app = app.service(service).start().await.unwrap();
    let orders = (0..40).map(|n| foreign_order(&format!("o-{n}")));
    let twice = orders.flat_map(|order| [order.clone(), order]).collect();
    assert!(port.publish(twice).await.iter().all(Result::is_ok));
    harness.passed("shop/billing", 80).await;
    let status = harness.consumer("shop/billing").await;
    assert_eq!(status.paused, None);
    let tally = status.tally;
    assert_eq!((tally.done, tally.duplicates, tally.parked), (40, 40, 0), "{tally:?}");
    app.drain().await;
}

/// The bill is settled between the moment the handler reads it and the moment it gives up.
#[tokio::test(start_paused = true)]
async fn who_gave_up_on_what_is_so_no_more_is_asked_again() {
    let (harness, log) = (Harness::new(), Probe::default());
    let noting = log.clone();
    let close = move |order: Created, Load(known): Load<Bill>| {
        let log = noting.clone();
        async move {
            let open = known.is_some_and(|bill| bill.open);
            log.note(if open { "open" } else { "none" });
            if log.notes().len() % 2 == 1 {
                log.reached("go on").await;
            }
            if open { Ok(bill(&order.order_id, false)) } else { Err(Failure::permanent("no bill")) }
        }
    };
    let app = harness.start(Consumer::new("billing").on(close)).await;
    let shop = app.service("shop");
    shop.commit(publish(created("o"))).await.unwrap();
    log.reached("none").await;
    shop.commit(bill("o", true)).await.unwrap();
    log.note("go on");
    harness.passed("shop/billing", 1).await;
    assert_eq!(shop.load::<Bill>("o").await.unwrap().map(|bill| bill.open), Some(false));
    assert_eq!(log.notes(), ["none", "go on", "open"]);
    assert!(harness.admin().dead_letters(None, true).await.unwrap().is_empty());
    app.drain().await;
}

/// A process manager that has not heard of a payment yet gives up on what comes behind it.
#[tokio::test(start_paused = true)]
async fn a_process_manager_that_gave_up_on_what_is_so_no_more_is_asked_again() {
    let visits = Process::<bool>::new("visits", 1)
        .start_on::<Created>(|_| (false, Effects::none()))
        .on::<Paid>(|paid, _| {
            *paid = true;
            Effects::none()
        })
        .on::<Left>(|paid, _| {
            assert!(*paid, "nothing is paid");
            end()
        });
    let harness = Harness::new();
    let app = harness.start_service(Service::new("shop").process(visits)).await;
    let shop = app.service("shop");
    shop.commit(publish(created("o"))).await.unwrap();
    harness.settle().await;
    // Of two topics: both are handled at once, and both read what is there before.
    let order_id = || "o".to_owned();
    let both = publish(Paid { order_id: order_id() }).and(publish(Left { order_id: order_id() }));
    shop.commit(both).await.unwrap();
    harness.passed("shop/visits", 3).await;
    assert!(harness.admin().dead_letters(None, true).await.unwrap().is_empty());
    app.drain().await;
}

/// Others may have keys that are too long for an id.
#[tokio::test(start_paused = true)]
async fn a_long_key_of_somebody_else_can_be_set_aside() {
    let (harness, broker) = (Harness::new(), MemoryBroker::new(1, true));
    let app = outside(&harness, &broker, no).await;
    let keys = ["k".repeat(3_000), "\0".repeat(500), "other".to_owned()];
    for key in &keys {
        let id = MessageId::new(format!("of {}", key.len()));
        broker.put(Message { id, key: Some(Key::of(key)), ..(*foreign_order("o")).clone() });
    }
    let dead = harness.dead_letters_until(3).await;
    for letter in dead {
        let of_it = |key: &String| letter.key.key.as_deref() == Some(&*Key::of(key).label());
        assert!(keys.iter().any(of_it), "{}", letter.id);
        harness.admin().skip(&letter.id, "a test").await.unwrap();
    }
    harness.passed("shop/billing", 3).await;
    app.drain().await;
}

/// It was handled longer ago than the inbox remembers, comes again, and fails this time.
#[tokio::test(start_paused = true)]
async fn what_was_handled_long_ago_leaves_its_key_without_effects() {
    let harness = Harness::new();
    let (broken, log) = (Switch::on(), Probe::default());
    let (fails, noting) = (broken.clone(), log.clone());
    let handler = move |order: Created| {
        let fails = fails.is_on();
        noting.note(&order.order_id);
        async move {
            if fails {
                return Err(Failure::permanent("broken"));
            }
            Ok(publish(Invoiced { order_id: order.order_id }))
        }
    };
    let app = harness.start(Consumer::new("billing").on(handler)).await;
    app.service("shop").commit(publish(created("o"))).await.unwrap();
    let dead = harness.dead_letters_until(1).await;
    let order = harness.log_until(1).await.remove(0);
    let id = MessageId::derived(&order.source, &order.id, "shop/billing", 0);
    let invoice = Message { id, name: "invoice.sent".into(), ..(*order.body).clone() };
    let invoice = Write::Append { message: Arc::new(invoice), stream: None };
    let commit = Commit { conditions: vec![], writes: vec![invoice] };
    assert!(harness.database().commit(vec![commit]).await[0].is_ok());
    broken.off();
    harness.admin().redrive(&dead[0].id, false, false).await.unwrap();
    harness.until(|| async { harness.consumer("shop/billing").await.parked_keys == 0 }).await;
    harness.settle().await;
    assert_eq!(log.notes(), ["o", "o"]);
    assert_eq!(harness.log_until(2).await.len(), 2);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_could_not_fire_is_not_set() {
    let note = "x".repeat(1_000_000);
    let handler = move |order: Created| {
        let late = Created { note: note.clone(), ..order };
        async move { schedule(after(mins(1)), "late", late) }
    };
    let harness = Harness::new();
    let app = harness.start(Consumer::new("billing").on(handler)).await;
    app.service("shop").commit(publish(created("o"))).await.unwrap();
    let dead = harness.dead_letters_until(1).await;
    assert!(dead[0].key.failure.contains("over the limit"), "{}", dead[0].key.failure);
    assert!(harness.admin().timers(1).await.unwrap().is_empty());
    app.drain().await;
}

/// Nobody would have it: it is told, and what is behind it goes on.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_the_broker_refuses_holds_up_nothing() {
    let (harness, broker) = (Harness::new(), MemoryBroker::new(1, true));
    let port: Arc<dyn Broker> = Arc::new(broker.clone());
    port.ensure(&[TopicSpec { name: "order".into(), partitions: None }]).await.unwrap();
    let orders = (0..10).map(|n| foreign_order(&format!("o-{n}"))).collect();
    assert!(port.publish(orders).await.iter().all(Result::is_ok));
    broker.set_refused("o-3", true);
    let service = Service::new("shop").consumer(Consumer::new("billing").on(no));
    let app = App::stateless(port).clock(harness.clock.clone()).service(service);
    let app = app.start().await.unwrap();
    let dead = || broker.published("shop.billing.dead-letters").concat().len();
    harness.until(|| async { dead() == 9 && broker.unsettled("shop/billing") == 0 }).await;
    app.drain().await;
}

async fn no(_: Created) -> Result<(), Failure> {
    Err(Failure::permanent("no"))
}

async fn outside<F>(harness: &Harness, broker: &MemoryBroker, handler: fn(Created) -> F) -> Running
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let port: Arc<dyn Broker> = Arc::new(broker.clone());
    port.ensure(&[TopicSpec { name: "order".into(), partitions: None }]).await.unwrap();
    let service = Service::new("shop").consumer(Consumer::new("billing").on(handler));
    let app = App::new(harness.database()).broker(port).clock(harness.clock.clone());
    app.service(service).start().await.unwrap()
}
