//! What is left of sagas and process managers: what has ended goes after a while, and what has not
//! is not left behind.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::Harness;
use serde::{Deserialize, Serialize};
use sillage::{Clock as _, prelude::*, saga::no_undo};

macro_rules! messages {
    ($($derive:ident $attribute:ident $name:ident $meta:tt;)*) => {$(
        #[derive($derive, Serialize, Deserialize, Clone)]
        #[$attribute $meta]
        struct $name {
            #[$attribute(key)]
            id: String,
        }
    )*};
}

messages! {
    Event event Opened (name = "order.opened");
    Command command Hold (name = "stock.hold", done = Held);
    Command command Release (name = "stock.release", done = Released);
    Event event Held (name = "stock.held");
    Event event Released (name = "stock.released");
    Command command Pay (name = "till.pay", done = Paid, failed = Declined);
    Event event Paid (name = "till.paid");
    Event event Declined (name = "till.declined");
}

const DAY: u64 = 24;

fn days(days: u64) -> std::time::Duration {
    hours(days * DAY)
}

fn checkout() -> Saga<String> {
    checkout_of(1)
}

fn checkout_of(version: u32) -> Saga<String> {
    Saga::<String>::new("checkout", version)
        .start_on::<Opened>(|opened| opened.id.clone())
        .step("hold", |id| Hold { id: id.clone() }, |id| Release { id: id.clone() })
        .step("pay", |id| Pay { id: id.clone() }, no_undo)
        .within(days(400))
        .finish(|_| (), |_| ())
}

async fn hold(Hold { id }: Hold) -> Effects {
    publish(Held { id })
}

async fn release(Release { id }: Release) -> Effects {
    publish(Released { id })
}

/// By its name an order is paid, is declined, cannot be handled, or hears nothing.
async fn pay(Pay { id }: Pay) -> Result<Effects, Failure> {
    match id.split('-').next() {
        Some("good") => Ok(publish(Paid { id })),
        Some("bad") => Ok(publish(Declined { id })),
        Some("spoilt") => Err(Failure::permanent("it cannot be read")),
        _ => Ok(Effects::none()),
    }
}

fn participants() -> Service {
    let stock = Consumer::new("stock").on(hold).on(release);
    Service::new("shop").consumer(stock).consumer(Consumer::new("till").on(pay))
}

fn shop() -> Service {
    participants().saga(checkout())
}

async fn ids(harness: &Harness, collection: &str) -> Vec<String> {
    let all = sillage::Range::Ids { prefix: "", after: "" };
    let found = harness.database().list(collection, all, 1000).await.unwrap();
    found.iter().map(|stored| stored.id.to_string()).collect()
}

/// The shop, for as long as something takes to happen.
async fn open_for_a_while(harness: &Harness, orders: &[&str]) {
    let app = harness.start_service(shop()).await;
    for id in orders {
        app.service("shop").commit(publish(Opened { id: (*id).into() })).await.unwrap();
    }
    harness.clock.sleep(mins(2)).await;
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_goes_after_a_while_and_what_has_not_stays() {
    let harness = Harness::new();
    open_for_a_while(&harness, &["good-1", "bad-1", "open-1"]).await;
    let app = harness.start_service(shop()).await;
    app.service("shop").commit(publish(Held { id: "nobody".into() })).await.unwrap();
    harness.settle().await;
    app.drain().await;
    let all = ["shop/checkout/bad-1", "shop/checkout/good-1", "shop/checkout/open-1"];
    let undone = ["shop/shop/checkout/bad-1/hold"];
    for over in [false, true] {
        tokio::time::advance(if over { days(2) } else { days(29) }).await;
        open_for_a_while(&harness, if over { &[] } else { &["good-2", "bad-2"] }).await;
        let of_both = |first: &[&'static str], second: &[&'static str]| {
            let mut all = if over { vec![] } else { first.to_vec() };
            all.extend(second);
            all.sort_unstable();
            all
        };
        let second = ["shop/checkout/bad-2", "shop/checkout/good-2", "shop/checkout/open-1"];
        assert_eq!(ids(&harness, "sagas").await, of_both(&all[..2], &second));
        let second = ["shop/shop/checkout/bad-2/hold"];
        assert_eq!(ids(&harness, "tombstones").await, of_both(&undone, &second));
        assert_eq!(
            ids(&harness, "orphans").await,
            of_both(&["shop/checkout/stock.held/nobody"], &[])
        );
    }
    // It counts when it ended, not when it began.
    let app = harness.start_service(shop()).await;
    app.service("shop").commit(publish(Paid { id: "open-1".into() })).await.unwrap();
    harness.settle().await;
    app.drain().await;
    open_for_a_while(&harness, &[]).await;
    assert!(ids(&harness, "sagas").await.contains(&"shop/checkout/open-1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_of_long_ago_ends_has_ended_now() {
    let harness = Harness::new();
    open_for_a_while(&harness, &["open-1"]).await;
    harness.admin().pause("shop/checkout", "a test").await.unwrap();
    let app = harness.start_service(shop()).await;
    app.service("shop").commit(publish(Paid { id: "open-1".into() })).await.unwrap();
    harness.settle().await;
    app.drain().await;
    tokio::time::advance(days(31)).await;
    harness.admin().resume("shop/checkout").await.unwrap();
    open_for_a_while(&harness, &[]).await;
    open_for_a_while(&harness, &[]).await;
    assert_eq!(ids(&harness, "sagas").await, ["shop/checkout/open-1"]);
    tokio::time::advance(days(31)).await;
    open_for_a_while(&harness, &[]).await;
    assert!(ids(&harness, "sagas").await.is_empty());
}

/// It may be the very command that was undone: it must find that out when it is sent back.
#[tokio::test(start_paused = true)]
async fn tombstones_stay_while_something_waits_that_failed_before() {
    let harness = Harness::new();
    open_for_a_while(&harness, &["spoilt-1", "bad-1"]).await;
    let undone = ["shop/shop/checkout/bad-1/hold"];
    tokio::time::advance(days(100)).await;
    open_for_a_while(&harness, &[]).await;
    assert_eq!(ids(&harness, "tombstones").await, undone);
    assert_eq!(ids(&harness, "sagas").await, ["shop/checkout/spoilt-1"]);
    let dead = harness.admin().dead_letters(None, false).await.unwrap();
    harness.admin().skip(&dead[0].id, "by hand").await.unwrap();
    open_for_a_while(&harness, &[]).await;
    assert!(ids(&harness, "tombstones").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn more_than_a_page_goes_and_less_than_the_horizon_is_refused() {
    let harness = Harness::new();
    let orders: Vec<_> = (0..600).map(|n| format!("good-{n}")).collect();
    let orders: Vec<_> = orders.iter().map(String::as_str).chain(["open-1"]).collect();
    open_for_a_while(&harness, &orders).await;
    assert_eq!(ids(&harness, "sagas").await.len(), 601);
    tokio::time::advance(days(15)).await;
    let app = App::new(harness.database()).clock(harness.clock.clone()).service(shop());
    let app = app.keep_ended(days(14)).start().await.unwrap();
    harness.clock.sleep(mins(2)).await;
    app.drain().await;
    assert_eq!(ids(&harness, "sagas").await, ["shop/checkout/open-1"]);
    let less = App::new(harness.database()).service(shop()).keep_ended(days(13));
    let refused = less.check().unwrap_err().to_string();
    assert!(refused.contains("below 14 days"), "{refused}");
}

fn watch() -> Process<String> {
    Process::<String>::new("watch", 1)
        .start_on::<Opened>(|opened| (opened.id.clone(), Effects::none()))
        .stop_on::<Paid>(|_, _| Effects::none())
}

async fn refused(harness: &Harness, service: Service) -> Option<String> {
    let app = App::new(harness.database()).clock(harness.clock.clone()).service(service);
    match app.start().await {
        Ok(app) => {
            app.drain().await;
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_without_a_saga_that_runs_does_not_start() {
    let harness = Harness::new();
    open_for_a_while(&harness, &["open-1", "open-2", "good-1"]).await;
    let told = refused(&harness, participants()).await.unwrap();
    assert!(told.contains("of saga `shop/checkout` 2 are running"), "{told}");
    assert!(told.contains("sillage saga cancel"), "{told}");
    assert_eq!(refused(&harness, Service::new("shop")).await, None, "only a way in");
    let others = Service::new("till").consumer(Consumer::new("till").on(pay));
    assert_eq!(refused(&harness, others).await, None, "another service");
    let app = harness.start_service(shop()).await;
    for id in ["open-1", "open-2"] {
        app.service("shop").commit(publish(Paid { id: id.into() })).await.unwrap();
    }
    harness.settle().await;
    app.drain().await;
    assert_eq!(refused(&harness, participants()).await, None, "all have ended");
}

#[tokio::test(start_paused = true)]
async fn an_app_without_a_process_manager_that_runs_does_not_start() {
    let harness = Harness::new();
    let app = harness.start_service(participants().process(watch())).await;
    app.service("shop").commit(publish(Opened { id: "o-1".into() })).await.unwrap();
    harness.settle().await;
    app.drain().await;
    let told = refused(&harness, participants()).await.unwrap();
    assert!(told.contains("of process manager `shop/watch` 1 are running"), "{told}");
    let app = harness.start_service(participants().process(watch())).await;
    app.service("shop").commit(publish(Paid { id: "o-1".into() })).await.unwrap();
    harness.settle().await;
    app.drain().await;
    assert_eq!(refused(&harness, participants()).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_behind_is_found_whatever_the_numbers_of_versions_are() {
    let harness = Harness::new();
    let of = |version| participants().saga(checkout_of(version));
    let app = harness.start_service(of(0)).await;
    app.service("shop").commit(publish(Opened { id: "open-1".into() })).await.unwrap();
    harness.settle().await;
    app.drain().await;
    let told = refused(&harness, of(1)).await.unwrap();
    assert!(told.contains("version 0 are still running"), "{told}");
    let kept = participants().saga(checkout_of(2026).keep(checkout_of(0)));
    let before = harness.memory.reads();
    assert_eq!(refused(&harness, kept).await, None);
    let asked = harness.memory.reads() - before;
    assert!(asked < 1000, "{asked} reads to start");
}
