//! Breakers, rate limits and sagas as metrics, for whatever recorder is installed.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Switch, created};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};
use serde::{Deserialize, Serialize};
use sillage::{Clock as _, prelude::*, saga::no_undo};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// The value of each metric, by its name and labels.
#[derive(Clone, Default)]
struct Values(Arc<Mutex<BTreeMap<String, f64>>>);

struct Value(Values, String);

impl Value {
    fn change(&self, change: impl Fn(f64) -> f64) {
        let mut values = self.0.0.lock().unwrap();
        let value = values.entry(self.1.clone()).or_default();
        *value = change(*value);
    }
}

impl CounterFn for Value {
    #[allow(clippy::cast_precision_loss)]
    fn increment(&self, by: u64) {
        self.change(|value| value + by as f64);
    }
    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Value {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, value: f64) {
        self.change(|_| value);
    }
}

impl Values {
    fn value(&self, key: &Key) -> Arc<Value> {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        Arc::new(Value(self.clone(), key.name().to_owned() + &labels.collect::<String>()))
    }

    fn all(&self, name: &str) -> Vec<(String, f64)> {
        let values = self.0.lock().unwrap();
        let of_it = values.iter().filter(|(key, _)| key.starts_with(&format!("sillage_{name} ")));
        of_it.map(|(key, value)| (key["sillage_".len()..].to_owned(), *value)).collect()
    }

    /// All of them are whole numbers; -1: it was never told.
    #[allow(clippy::cast_possible_truncation)]
    fn of(&self, key: &str) -> i64 {
        let values = self.0.lock().unwrap();
        values.get(&format!("sillage_{key}")).map_or(-1, |value| value.round() as i64)
    }
}

impl Recorder for Values {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

async fn charge(_: Created, State(down): State<Switch>) -> Result<(), Failure> {
    if down.is_on() {
        return Err(Failure::unavailable("gateway", "connection refused"));
    }
    Ok(())
}

/// The test's runtime has one thread, whose recorder this is.
#[tokio::test(start_paused = true)]
async fn a_breaker_tells_how_it_stands_and_how_often_it_opened() {
    let (harness, down, values) = (Harness::new(), Switch::on(), Values::default());
    let _here = metrics::set_default_local_recorder(&values);
    let breaker = Breaker::failures(0.5).of_at_least(2).open_for(secs(60));
    let payment = Consumer::new("payment").on(charge).retry(Retry::never());
    let service =
        Service::new("shop").state(down.clone()).breaker("gateway", breaker).consumer(payment);
    let app = harness.start_service(service).await;
    let orders: Effects = (0..99).map(|n| publish(created(&n.to_string()))).collect();
    app.service("shop").commit(orders).await.unwrap();
    let (state, opened) = (
        "breaker_state service=shop dependency=gateway",
        "breaker_opened_total service=shop dependency=gateway",
    );
    harness.until(|| async { values.of(state) == 2 && values.of(opened) == 1 }).await;
    down.off();
    harness.clock.sleep(mins(2)).await;
    assert_eq!((values.of(state), values.of(opened)), (0, 1));
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_counts_those_that_wait_for_it() {
    let (harness, down, values) = (Harness::new(), Switch::on(), Values::default());
    down.off();
    let _here = metrics::set_default_local_recorder(&values);
    let rate = Rate::per_second(1.0);
    let payment = Consumer::new("payment").on(charge).depends_on("gateway");
    let service = Service::new("shop").state(down).rate_limit("gateway", rate).consumer(payment);
    let app = harness.start_service(service).await;
    let orders: Effects = (0..9).map(|n| publish(created(&n.to_string()))).collect();
    app.service("shop").commit(orders).await.unwrap();
    harness.passed("shop/payment", 9).await;
    let waits = values.of("rate_waits_total consumer=shop/payment dependency=gateway");
    assert!((7..=9).contains(&waits), "{waits}");
    app.drain().await;
}

#[derive(Command, Serialize, Deserialize, Clone)]
#[command(name = "till.pay", done = Paid)]
struct Pay {
    #[command(key)]
    id: String,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "till.paid")]
struct Paid {
    #[event(key)]
    id: String,
}

/// The good one is paid, others hear nothing and are asked once more.
async fn pay(Pay { id }: Pay) -> Option<Effects> {
    (id == "good").then(|| publish(Paid { id }))
}

#[tokio::test(start_paused = true)]
async fn sagas_tell_how_many_are_at_what_and_what_was_asked_again() {
    let (harness, values) = (Harness::new(), Values::default());
    let _here = metrics::set_default_local_recorder(&values);
    let checkout = Saga::<String>::new("checkout", 1)
        .start_on::<Created>(|order| order.order_id.clone())
        .step("check", |id| Pay { id: id.clone() }, no_undo)
        .only::<Paid>(|_, _| true)
        .within(mins(1))
        .retry([secs(30)])
        .finish(|_| (), |_| ());
    let shop = Service::new("shop").saga(checkout).consumer(Consumer::new("till").on(pay));
    let app = harness.start_service(shop).await;
    let orders = ["good", "late-1", "late-2"].map(|id| publish(created(id)));
    app.service("shop").commit(orders.into_iter().collect::<Effects>()).await.unwrap();
    harness.clock.sleep(secs(40)).await;
    let saga = "saga=shop/checkout";
    assert_eq!(values.of(&format!("saga_instances {saga} status=running")), 2);
    assert_eq!(values.of(&format!("saga_instances {saga} status=stuck")), 0);
    assert_eq!(values.of(&format!("saga_ended_total {saga} status=completed")), 1);
    harness.clock.sleep(mins(5)).await;
    assert_eq!(values.of(&format!("saga_instances {saga} status=running")), 0);
    assert_eq!(values.of(&format!("saga_retries_total {saga} step=check")), 2);
    assert_eq!(values.of(&format!("saga_ended_total {saga} status=compensated")), 2);
    let keys = values.all("saga_instances");
    assert_eq!(keys.len(), 3, "no key is a label: {keys:?}");
    app.drain().await;
}
