//! Process managers: memory, timers, events out of order, and outages.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::Harness;
use serde::{Deserialize, Serialize};
use sillage::{Clock as _, Commit, Filter, Header, Message, MessageId, Route, Write, prelude::*};
use std::sync::Arc;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.created")]
struct Ordered {
    #[event(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "payment.completed")]
struct Paid {
    #[event(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.payment-due")]
struct Due {
    #[event(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "letter.reminder")]
struct Reminder {
    #[event(key)]
    order_id: String,
    number: u32,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "letter.counted")]
struct Counted {
    #[event(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.given-up")]
struct GivenUp {
    #[event(key)]
    order_id: String,
}

#[derive(Serialize, Deserialize)]
struct Dunning {
    order_id: String,
    reminders: u32,
}

fn dunning() -> Process<Dunning> {
    Process::<Dunning>::new("dunning", 1)
        .start_on::<Ordered>(|order| {
            let order_id = order.order_id.clone();
            let due = Due { order_id: order_id.clone() };
            (Dunning { order_id, reminders: 0 }, schedule(after(mins(12)), "due", due))
        })
        .on::<Due>(|dunning, due| {
            dunning.reminders += 1;
            let (order_id, number) = (dunning.order_id.clone(), dunning.reminders);
            if number < 3 {
                let again = schedule(after(mins(12)), "due", due.clone());
                return publish(Reminder { order_id, number }).and(again);
            }
            publish(GivenUp { order_id }).and(end())
        })
        .stop_on::<Paid>(|_, _| Effects::none())
        .wait(mins(5))
}

fn shop() -> Service {
    Service::new("shop").process(dunning())
}

fn id() -> String {
    "o-1".into()
}

async fn count(harness: &Harness, name: &str) -> usize {
    let filter = Filter { names: vec![name.into()], ..Filter::default() };
    harness.database().log(Position(0), &filter, 1000).await.unwrap().entries.len()
}

async fn documents(harness: &Harness, collection: &str) -> Vec<serde_json::Value> {
    let all = sillage::Range::Ids { prefix: "", after: "" };
    let found = harness.database().list(collection, all, 1000).await.unwrap();
    found.iter().map(|stored| serde_json::from_slice(&stored.body).unwrap()).collect()
}

#[test]
fn a_message_goes_where_its_name_and_key_say() {
    let process = dunning();
    let route = |name: &str, key: Option<&str>| {
        let outgoing = sillage::admin::Outgoing {
            name: name.into(),
            version: 1,
            topic: "order".into(),
            key: key.map(Into::into),
            payload: b"{}".to_vec(),
        };
        process.route(&outgoing.message(Timestamp::default()).unwrap())
    };
    assert_eq!(route("order.created", Some("a")).unwrap(), Route::Start(Key::of("a")));
    assert_eq!(route("order.payment-due", Some("a")).unwrap(), Route::Continue(Key::of("a")));
    assert_eq!(route("payment.completed", Some("a")).unwrap(), Route::Stop(Key::of("a")));
    assert_eq!(route("other.event", Some("a")).unwrap(), Route::Ignore);
    assert!(route("order.created", None).unwrap_err().to_string().contains("no key"));
}

#[tokio::test(start_paused = true)]
async fn it_reminds_twice_and_gives_up() {
    let harness = Harness::new();
    let app = harness.start_service(shop()).await;
    app.service("shop").commit(publish(Ordered { order_id: id() })).await.unwrap();
    harness.clock.sleep(mins(13)).await;
    assert_eq!(count(&harness, "letter.reminder").await, 1);
    harness.clock.sleep(mins(12)).await;
    assert_eq!(count(&harness, "letter.reminder").await, 2);
    assert_eq!(count(&harness, "order.given-up").await, 0);
    harness.clock.sleep(mins(12)).await;
    assert_eq!(count(&harness, "order.given-up").await, 1);
    harness.clock.sleep(mins(40)).await;
    assert_eq!(count(&harness, "letter.reminder").await, 2);
    assert!(documents(&harness, "processes").await.is_empty(), "it is over");
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_paid_is_never_reminded_even_if_it_was_paid_before_it_was_ordered() {
    for paid_first in [false, true] {
        let harness = Harness::new();
        let app = harness.start_service(shop()).await;
        let shop = app.service("shop");
        let (order, paid) = (Ordered { order_id: id() }, Paid { order_id: id() });
        let both = [publish(order), publish(paid)];
        for effects in if paid_first { both.into_iter().rev().collect() } else { both.to_vec() } {
            shop.commit(effects).await.unwrap();
            harness.settle().await;
        }
        assert!(documents(&harness, "processes").await.is_empty());
        assert!(harness.admin().timers(10).await.unwrap().is_empty(), "its timer is gone");
        harness.clock.sleep(mins(40)).await;
        assert_eq!(count(&harness, "letter.reminder").await, 0);
        assert!(documents(&harness, "orphans").await.is_empty());
        app.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waits_in_vain_is_recorded_with_the_reason() {
    let harness = Harness::new();
    let app = harness.start_service(shop()).await;
    app.service("shop").commit(publish(Paid { order_id: id() })).await.unwrap();
    harness.clock.sleep(mins(4)).await;
    assert!(documents(&harness, "orphans").await.is_empty());
    harness.clock.sleep(mins(2)).await;
    let orphans = documents(&harness, "orphans").await;
    assert_eq!(orphans[0]["name"], "payment.completed");
    assert_eq!(orphans[0]["why"], "it waited, but `o-1` never began");
    assert!(documents(&harness, "processes").await.is_empty());
    app.drain().await;
}

#[derive(Serialize, Deserialize)]
struct Counter(u32);

/// Counts events of two topics, and says each time it did.
fn counter() -> Process<Counter> {
    let counted = |counter: &mut Counter, order_id: &str| {
        counter.0 += 1;
        publish(Counted { order_id: order_id.to_owned() })
    };
    Process::<Counter>::new("counter", 1)
        .start_on::<Ordered>(|_| (Counter(0), Effects::none()))
        .on::<Paid>(move |counter, paid| counted(counter, &paid.order_id))
        .on::<Reminder>(move |counter, letter| counted(counter, &letter.order_id))
}

#[tokio::test(start_paused = true)]
async fn events_of_an_instance_that_come_at_once_lose_no_memory() {
    let harness = Harness::new();
    let app = harness.start_service(Service::new("shop").process(counter())).await;
    let shop = app.service("shop");
    shop.commit(publish(Ordered { order_id: id() })).await.unwrap();
    harness.settle().await;
    let many: Effects = (0..50)
        .map(|number| {
            publish(Paid { order_id: id() }).and(publish(Reminder { order_id: id(), number }))
        })
        .collect();
    shop.commit(many).await.unwrap();
    harness.until(|| async { count(&harness, "letter.counted").await == 100 }).await;
    assert_eq!(documents(&harness, "processes").await[0]["memory"], 100);
    harness.settle().await;
    assert_eq!(harness.consumer("shop/counter").await.parked_keys, 0);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_had_fired_before_it_was_replaced_is_ignored() {
    let harness = Harness::new();
    let app = harness.start_service(shop()).await;
    app.service("shop").commit(publish(Ordered { order_id: id() })).await.unwrap();
    harness.settle().await;
    harness.admin().pause("shop/dunning", "a test").await.unwrap();
    harness.settle().await;
    app.drain().await;
    // Fired by another process while the process manager does not listen.
    let other = harness.start_service(Service::new("other")).await;
    harness.clock.sleep(mins(20)).await;
    other.drain().await;
    harness.admin().resume("shop/dunning").await.unwrap();
    let app = harness.start_service(shop()).await;
    app.service("shop").commit(publish(Paid { order_id: id() })).await.unwrap();
    harness.settle().await;
    harness.clock.sleep(mins(40)).await;
    assert!(count(&harness, "letter.reminder").await <= 1);
    assert!(documents(&harness, "processes").await.is_empty());
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_overdue_deadlines_wait_until_the_backlog_is_read() {
    let harness = Harness::new();
    let app = harness.start_service(shop()).await;
    let many = || (0..300).map(|n| format!("o-{n}"));
    let ordered: Effects = many().map(|order_id| publish(Ordered { order_id })).collect();
    app.service("shop").commit(ordered).await.unwrap();
    harness.settle().await;
    app.drain().await;
    // While it is down all are paid, and all deadlines pass. Others are up, and pump timers.
    let other = harness.start_service(Service::new("other")).await;
    let paid: Effects = many().map(|order_id| publish(Paid { order_id })).collect();
    other.service("other").commit(paid).await.unwrap();
    harness.clock.sleep(mins(60)).await;
    let app = harness.start_service(shop()).await;
    harness.settle().await;
    assert_eq!(count(&harness, "letter.reminder").await, 0);
    assert!(documents(&harness, "processes").await.is_empty());
    assert!(harness.admin().timers(10).await.unwrap().is_empty());
    app.drain().await;
    other.drain().await;
}

#[tokio::test(start_paused = true)]
async fn timers_of_a_paused_process_manager_wait_and_then_for_what_came_meanwhile() {
    let harness = Harness::new();
    let app = harness.start_service(shop()).await;
    let shop = app.service("shop");
    let (paid, unpaid) = ("paid".to_owned(), "unpaid".to_owned());
    for order_id in [&paid, &unpaid] {
        shop.commit(publish(Ordered { order_id: order_id.clone() })).await.unwrap();
    }
    harness.settle().await;
    harness.admin().pause("shop/dunning", "a test").await.unwrap();
    harness.clock.sleep(mins(11)).await;
    shop.commit(publish(Paid { order_id: paid })).await.unwrap();
    harness.clock.sleep(mins(20)).await;
    assert_eq!(count(&harness, "order.payment-due").await, 0);
    harness.admin().resume("shop/dunning").await.unwrap();
    harness.until(|| async { count(&harness, "letter.reminder").await == 1 }).await;
    harness.settle().await;
    assert_eq!(count(&harness, "order.payment-due").await, 1, "only of the unpaid one");
    app.drain().await;
}

/// Commits a message as it is.
async fn append(harness: &Harness, message: Message) {
    let writes = vec![Write::Append { stream: None, message: Arc::new(message) }];
    let commit = Commit { conditions: vec![], writes };
    harness.database().commit(vec![commit]).await.pop().unwrap().unwrap();
}

async fn recorded(harness: &Harness, name: &str) -> Message {
    let filter = Filter { names: vec![name.into()], ..Filter::default() };
    let page = harness.database().log(Position(0), &filter, 1).await.unwrap();
    (*page.entries[0].body).clone()
}

/// The payment's delivery, and the letter's.
fn patient() -> Process<Counter> {
    Process::<Counter>::new("patient", 1)
        .start_on::<Ordered>(|_| (Counter(0), Effects::none()))
        .on::<Paid>(|_, paid| publish(Counted { order_id: paid.order_id.clone() }))
        .wait(mins(5))
        .on::<Reminder>(|_, letter| publish(Counted { order_id: letter.order_id.clone() }))
        .wait(hours(1))
}

async fn orphans(harness: &Harness) -> Vec<String> {
    let orphans = documents(harness, "orphans").await;
    orphans.iter().map(|orphan| orphan["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn each_early_event_waits_as_long_as_was_said_for_it() {
    let harness = Harness::new();
    let app = harness.start_service(Service::new("shop").process(patient())).await;
    let shop = app.service("shop");
    shop.commit(publish(Reminder { order_id: id(), number: 1 })).await.unwrap();
    harness.clock.sleep(mins(1)).await;
    shop.commit(publish(Paid { order_id: id() })).await.unwrap();
    harness.clock.sleep(mins(6)).await;
    assert_eq!(orphans(&harness).await, ["payment.completed"], "the letter waits an hour");
    shop.commit(publish(Ordered { order_id: id() })).await.unwrap();
    harness.settle().await;
    assert_eq!(count(&harness, "letter.counted").await, 1, "only the letter was in time");
    assert!(harness.admin().timers(10).await.unwrap().is_empty());
    harness.clock.sleep(hours(2)).await;
    assert_eq!(orphans(&harness).await, ["payment.completed"]);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn early_events_that_come_again_and_again_do_not_keep_each_other_waiting() {
    let harness = Harness::new();
    let app = harness.start_service(Service::new("shop").process(patient())).await;
    for _ in 0..4 {
        app.service("shop").commit(publish(Paid { order_id: id() })).await.unwrap();
        harness.clock.sleep(mins(3)).await;
    }
    assert_eq!(orphans(&harness).await, ["payment.completed"]);
    let waiting = documents(&harness, "processes").await;
    assert_eq!(waiting[0]["early"].as_array().unwrap().len(), 1, "of the last minutes");
    harness.clock.sleep(mins(6)).await;
    assert!(documents(&harness, "processes").await.is_empty());
    app.drain().await;
}

/// It counts when it was heard of, not when it happened.
#[tokio::test(start_paused = true)]
async fn an_early_event_of_long_ago_waits_as_long() {
    let harness = Harness::new();
    let app = harness.start_service(Service::new("shop").process(patient())).await;
    app.service("shop").commit(publish(Paid { order_id: "o-2".into() })).await.unwrap();
    harness.settle().await;
    let old = MessageId::new("old");
    let paid = recorded(&harness, "payment.completed").await;
    let key = Some(Key::of("o-1"));
    append(&harness, Message { id: old, key, time: Timestamp::default(), ..paid }).await;
    harness.clock.sleep(mins(4)).await;
    assert_eq!(documents(&harness, "processes").await.len(), 2);
    app.service("shop").commit(publish(Ordered { order_id: id() })).await.unwrap();
    harness.settle().await;
    assert_eq!(count(&harness, "letter.counted").await, 1);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_timer_of_an_instance_that_ended_is_none_of_the_next_one() {
    let harness = Harness::new();
    let app = harness.start_service(shop()).await;
    let shop = app.service("shop");
    shop.commit(publish(Ordered { order_id: id() })).await.unwrap();
    harness.clock.sleep(mins(13)).await;
    assert_eq!(count(&harness, "letter.reminder").await, 1);
    let fired = recorded(&harness, "order.payment-due").await;
    shop.commit(publish(Paid { order_id: id() })).await.unwrap();
    harness.settle().await;
    // As one that fired when the first had ended, and is heard of only now.
    shop.commit(publish(Ordered { order_id: id() })).await.unwrap();
    harness.settle().await;
    append(&harness, Message { id: MessageId::new("late"), ..fired }).await;
    harness.settle().await;
    assert_eq!(count(&harness, "letter.reminder").await, 1);
    harness.clock.sleep(mins(13)).await;
    assert_eq!(count(&harness, "letter.reminder").await, 2, "its own");
    app.drain().await;
}

#[derive(Command, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[command(name = "stock.hold", done = Counted)]
struct Hold {
    #[command(key)]
    order_id: String,
}

#[derive(Command, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[command(name = "stock.release", done = Counted)]
struct Release {
    #[command(key)]
    order_id: String,
}

fn holding() -> Process<Counter> {
    Process::<Counter>::new("holding", 1)
        .start_on::<Hold>(|hold| (Counter(0), publish(Counted { order_id: hold.order_id.clone() })))
        .stop_on::<Release>(|_, _| Effects::none())
}

/// A command of a saga's step, which is done or undone.
async fn operate(harness: &Harness, command: &str, does: &'static str) {
    let order = (*common::foreign_order("o-1")).clone();
    let header = Header { name: "sillage-operation".into(), value: does.into() };
    let message = Message {
        id: MessageId::new(harness.clock.now().to_string()),
        name: command.into(),
        topic: Some("stock.commands".into()),
        operation_id: Some("shop/checkout/o-1/hold".into()),
        headers: vec![header],
        payload: br#"{"order_id":"o-1"}"#.to_vec().into(),
        ..order
    };
    append(harness, message).await;
    harness.settle().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_undone_before_it_came_begins_nothing() {
    let harness = Harness::new();
    let app = harness.start_service(Service::new("shop").process(holding())).await;
    operate(&harness, "stock.release", "undo").await;
    operate(&harness, "stock.hold", "do").await;
    assert!(documents(&harness, "processes").await.is_empty());
    assert_eq!(count(&harness, "letter.counted").await, 0, "no answer");
    assert_eq!(documents(&harness, "tombstones").await.len(), 1);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_waits_for_what_it_undoes_lets_it_begin_in_time_only() {
    for in_time in [true, false] {
        let harness = Harness::new();
        let waits = holding().wait(mins(5));
        let app = harness.start_service(Service::new("shop").process(waits)).await;
        operate(&harness, "stock.release", "undo").await;
        harness.clock.sleep(if in_time { mins(4) } else { mins(6) }).await;
        operate(&harness, "stock.hold", "do").await;
        operate(&harness, "stock.hold", "do").await;
        assert_eq!(count(&harness, "letter.counted").await, usize::from(in_time));
        assert!(documents(&harness, "processes").await.is_empty());
        app.drain().await;
    }
}
