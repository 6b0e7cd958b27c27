//! Breakers and rate limits, in virtual time.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Probe, Switch, created};
use sillage::{Clock as _, prelude::*};
use std::time::Duration;

/// A gateway that can be down, and notes each call.
#[derive(Clone)]
struct Gateway {
    calls: Probe,
    down: Switch,
}

impl Gateway {
    fn down() -> Self {
        Gateway { calls: Probe::default(), down: Switch::on() }
    }

    fn answered(&self) -> Vec<String> {
        self.calls.notes().into_iter().filter(|note| !note.starts_with("refused")).collect()
    }

    fn calls(&self) -> usize {
        self.calls.notes().len()
    }
}

async fn charge(order: Created, State(gateway): State<Gateway>, meta: Meta) -> Result<(), Failure> {
    if gateway.down.is_on() {
        gateway.calls.note("refused");
        return Err(Failure::unavailable("gateway", "connection refused"));
    }
    gateway.calls.note(&format!("{}:{}@{}", order.order_id, order.note, meta.attempt));
    Ok(())
}

fn breaker() -> Breaker {
    Breaker::failures(0.5).of_at_least(10).open_for(secs(60))
}

fn service(gateway: &Gateway) -> Service {
    let consumer = Consumer::new("payment").on(charge).retry(Retry::never());
    Service::new("shop").state(gateway.clone()).breaker("gateway", breaker()).consumer(consumer)
}

fn orders(keys: usize, each: usize) -> Effects {
    let one =
        |n: usize| Created { note: (n / keys).to_string(), ..created(&(n % keys).to_string()) };
    (0..keys * each).map(|n| publish(one(n))).collect()
}

/// What each key's deliveries were, in the order they were answered.
fn assert_each_in_order(answered: &[String], keys: usize, each: usize) {
    for key in 0..keys {
        let prefix = format!("{key}:");
        let of_key: Vec<_> = answered.iter().filter(|note| note.starts_with(&prefix)).collect();
        let expected: Vec<_> = (0..each).map(|n| format!("{key}:{n}@1")).collect();
        assert_eq!(of_key, expected.iter().collect::<Vec<_>>(), "no attempt was spent");
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_stops_calls_and_lets_them_come_back() {
    let (harness, gateway) = (Harness::new(), Gateway::down());
    let app = harness.start_service(service(&gateway)).await;
    app.service("shop").commit(orders(40, 5)).await.unwrap();
    harness.until(|| async { !harness.admin().breakers().await.unwrap().is_empty() }).await;
    let called = gateway.calls();
    assert!((10..=40).contains(&called), "each key once at most: {called}");
    harness.clock.sleep(secs(50)).await;
    assert_eq!(gateway.calls(), called, "nothing is called while it is open");
    let health = app.health();
    let told = health.problems.iter().any(|problem| {
        problem.contains("`gateway` is unavailable (connection refused)")
            && problem.contains("shop/payment")
    });
    assert!(told && !health.ready, "{:?}", health.problems);
    let open = harness.admin().breakers().await.unwrap();
    assert_eq!((&*open[0].name, &*open[0].consumers[0]), ("shop/gateway", "shop/payment"));
    harness.clock.sleep(secs(600)).await;
    assert!(gateway.calls() <= called + 11, "a probe a minute: {}", gateway.calls() - called);
    gateway.down.off();
    harness.passed("shop/payment", 200).await;
    assert_each_in_order(&gateway.answered(), 40, 5);
    harness.until(|| async { harness.admin().breakers().await.unwrap().is_empty() }).await;
    harness.until(|| async { app.health().ready }).await;
    harness.dead_letters_until(0).await;
    harness.accounted("shop/payment", 200).await;
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_came_meanwhile_is_handled_within_seconds_of_the_probe() {
    let (harness, gateway) = (Harness::new(), Gateway::down());
    let app = harness.start_service(service(&gateway)).await;
    app.service("shop").commit(orders(500, 1)).await.unwrap();
    harness.clock.sleep(secs(59)).await;
    gateway.down.off();
    harness.until(|| async { !gateway.answered().is_empty() }).await;
    harness.clock.sleep(secs(10)).await;
    assert_eq!(gateway.answered().len(), 500);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_starts_while_it_is_open_begins_with_a_probe() {
    let (harness, gateway) = (Harness::new(), Gateway::down());
    let app = harness.start_service(service(&gateway)).await;
    app.service("shop").commit(orders(100, 1)).await.unwrap();
    harness.until(|| async { !harness.admin().breakers().await.unwrap().is_empty() }).await;
    app.drain().await;
    let before = gateway.calls();
    let app = harness.start_service(service(&gateway)).await;
    harness.clock.sleep(secs(30)).await;
    assert_eq!(gateway.calls(), before + 1);
    gateway.down.off();
    harness.passed("shop/payment", 100).await;
    assert_each_in_order(&gateway.answered(), 100, 1);
    app.drain().await;
}

/// A service's consumers see the same breaker; another service's do not.
#[tokio::test(start_paused = true)]
async fn consumers_of_a_service_share_it() {
    let (harness, gateway) = (Harness::new(), Gateway::down());
    let other = Gateway { calls: Probe::default(), down: gateway.down.clone() };
    let billing = Consumer::new("billing").on(charge).depends_on("gateway");
    let plain = Service::new("plain").state(other.clone());
    let app = App::new(harness.database())
        .clock(harness.clock.clone())
        .service(service(&gateway).consumer(billing))
        .service(plain.consumer(Consumer::new("payment").on(charge)))
        .start()
        .await
        .unwrap();
    app.service("shop").commit(orders(30, 1)).await.unwrap();
    harness.clock.sleep(secs(50)).await;
    let open = harness.admin().breakers().await.unwrap();
    let consumers: Vec<_> = open[0].consumers.iter().map(|name| &**name).collect();
    assert_eq!(consumers, ["shop/billing", "shop/payment"]);
    let called = gateway.calls();
    assert!(other.calls() > 30, "without a breaker each key tries for itself");
    harness.clock.sleep(secs(9)).await;
    assert_eq!(gateway.calls(), called);
    gateway.down.off();
    harness.passed("shop/payment", 30).await;
    harness.passed("shop/billing", 30).await;
    assert_eq!(gateway.answered().len(), 60);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn failures_that_are_no_outage_open_nothing() {
    async fn fail(_: Created) -> Result<(), Failure> {
        Err(Failure::transient("a declined card"))
    }
    let harness = Harness::new();
    let retry = Retry::in_lane([ms(10)]).then_park([secs(1)]);
    let consumer = Consumer::new("payment").on(fail).retry(retry).depends_on("gateway");
    let service = Service::new("shop").breaker("gateway", breaker()).consumer(consumer);
    let app = harness.start_service(service).await;
    app.service("shop").commit(orders(15, 1)).await.unwrap();
    harness.dead_letters_until(15).await;
    assert!(harness.admin().breakers().await.unwrap().is_empty());
    app.drain().await;
}

async fn begun_in(harness: &Harness, service: Service, gateway: &Gateway) -> usize {
    gateway.down.off();
    let app = harness.start_service(service).await;
    app.service("shop").commit(orders(100, 3)).await.unwrap();
    gateway.calls.reached_start("").await;
    harness.clock.sleep(Duration::from_millis(10_050)).await;
    let begun = gateway.calls();
    harness.passed("shop/payment", 300).await;
    assert_each_in_order(&gateway.answered(), 100, 3);
    app.drain().await;
    begun
}

#[tokio::test(start_paused = true)]
async fn a_consumer_keeps_to_its_rate() {
    let (harness, gateway) = (Harness::new(), Gateway::down());
    let limit = Rate::per_second(10.0).burst(5);
    let consumer = Consumer::new("payment").on(charge).rate_limit(limit);
    let service = Service::new("shop").state(gateway.clone()).consumer(consumer);
    let begun = begun_in(&harness, service, &gateway).await;
    assert!((100..=106).contains(&begun), "10 s at 10 a second, and 5: {begun}");
}

#[tokio::test(start_paused = true)]
async fn a_dependency_keeps_to_its_rate_whoever_calls_it() {
    let (harness, gateway) = (Harness::new(), Gateway::down());
    let other = Consumer::new("billing").on(charge).depends_on("gateway");
    let consumer = Consumer::new("payment").on(charge).depends_on("gateway");
    let service = Service::new("shop").state(gateway.clone()).consumer(consumer).consumer(other);
    let service = service.rate_limit("gateway", Rate::per_second(10.0));
    gateway.down.off();
    let app = harness.start_service(service).await;
    app.service("shop").commit(orders(100, 1)).await.unwrap();
    gateway.calls.reached_start("").await;
    harness.clock.sleep(Duration::from_millis(10_050)).await;
    let begun = gateway.calls();
    assert!((95..=102).contains(&begun), "{begun}");
    harness.passed("shop/payment", 100).await;
    harness.passed("shop/billing", 100).await;
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn mistakes_are_told_before_anything_runs() {
    let gateway = Gateway::down();
    let consumer = Consumer::new("payment").on(charge).depends_on("bank");
    let consumer = consumer.rate_limit(Rate::per_second(0.0));
    let service = Service::new("shop")
        .state(gateway)
        .consumer(consumer)
        .breaker("gateway", Breaker::failures(50.0))
        .rate_limit("mail", Rate::per_second(1.0));
    let app = App::new(Harness::new().database()).service(service);
    let told = app.check().unwrap_err().to_string();
    for sentence in [
        "consumer `payment`: its rate must be above 0",
        "breaker of `gateway`: its share of failures must be above 0 and at most 1",
        "the rate limit of `mail` would never be asked",
        "consumer `payment` depends on `bank`, which has neither a breaker nor a rate limit",
    ] {
        assert!(told.contains(sentence), "{told}");
    }
}
