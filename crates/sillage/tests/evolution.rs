//! Contracts that were renamed and given a new version: whatever was stored of them is read.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Harness, Probe};
use serde::{Deserialize, Serialize};
use sillage::{Broker, Clock as _, Contract as _, TopicSpec, Version, prelude::*, saga::Saga};
use sillage_testkit::MemoryBroker;
use std::sync::Arc;

mod then {
    use super::*;

    #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
    #[event(name = "purchase.done")]
    pub(crate) struct Purchase {
        #[event(key)]
        pub(crate) id: String,
        pub(crate) euro: u64,
    }

    #[derive(Events, Clone, Debug, PartialEq)]
    pub(crate) enum BasketEvent {
        Purchase(Purchase),
    }

    #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
    #[event(name = "parcel.paid")]
    pub(crate) struct Paid {
        #[event(key)]
        pub(crate) id: String,
        pub(crate) euro: u64,
    }
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.placed", version = 2, alias = "purchase.done", was = then::Purchase)]
struct Placed {
    #[event(key)]
    id: String,
    cents: u64,
}

impl From<then::Purchase> for Placed {
    fn from(then: then::Purchase) -> Self {
        Placed { id: then.id, cents: then.euro * 100 }
    }
}

#[derive(Events, Clone, Debug, PartialEq)]
enum BasketEvent {
    Placed(Placed),
}

#[derive(Clone, Default)]
struct Basket {
    cents: u64,
}

impl Decider for Basket {
    const STREAM: &'static str = "basket";
    type Command = Placed;
    type Event = BasketEvent;
    type Refusal = u64;
    fn initial() -> Self {
        Basket::default()
    }
    fn decide(&self, placed: Placed) -> Result<Vec<BasketEvent>, u64> {
        if self.cents > 1000 { Err(self.cents) } else { Ok(vec![placed.into()]) }
    }
    fn evolve(self, event: &BasketEvent) -> Self {
        let BasketEvent::Placed(placed) = event;
        Basket { cents: self.cents + placed.cents }
    }
}

#[derive(Document, Serialize, Deserialize, Default, Debug, PartialEq)]
#[document(collection = "sums")]
struct Sum {
    #[document(id)]
    id: String,
    cents: u64,
}

fn sums() -> Projection<Sum> {
    Projection::<Sum>::new("sums", 1).on::<Placed>(|view, placed| {
        view.id.clone_from(&placed.id);
        view.cents += placed.cents;
    })
}

/// In the log, in a stream, parked, dead and in a timer: the old name and version are read.
#[tokio::test(start_paused = true)]
async fn what_was_stored_under_an_older_name_and_version_is_read() {
    async fn broken(_: then::Purchase) -> Result<Effects, Failure> {
        Err(Failure::permanent("not yet"))
    }
    async fn note(placed: Placed, State(log): State<Probe>) {
        log.note(&format!("{} {}", placed.id, placed.cents));
    }
    let (harness, log) = (Harness::new(), Probe::default());
    let old = Service::new("shop").consumer(Consumer::new("notes").on(broken));
    let app = harness.start_service(old).await;
    let shop = app.service("shop");
    let purchase = |id: &str, euro| then::Purchase { id: id.into(), euro };
    shop.commit(publish(purchase("dead", 1))).await.unwrap();
    shop.commit(publish(purchase("dead", 2))).await.unwrap();
    let letters = harness.dead_letters_until(1).await;
    shop.commit(schedule(after(hours(1)), "late", purchase("timer", 3))).await.unwrap();
    let event = then::BasketEvent::Purchase(purchase("a", 9));
    let none = sillage::Expected::NoStream;
    shop.commit(append("basket-a", none, &[event])).await.unwrap();
    harness.dead_letters_until(2).await;
    app.drain().await;

    let new = Service::new("shop")
        .state(log.clone())
        .consumer(Consumer::new("notes").on(note))
        .projection(sums());
    let app = harness.start_service(new).await;
    let (shop, view) = (app.service("shop"), app.view::<Sum>("shop"));
    harness.admin().redrive(&letters[0].id, false, false).await.unwrap();
    log.reached("dead 100").await;
    log.reached("dead 200").await;
    harness.clock.sleep(hours(2)).await;
    log.reached("timer 300").await;
    let placed = |cents| Placed { id: "a".into(), cents };
    let done = shop.execute::<Basket>("a", placed(101)).await.unwrap();
    assert_eq!(done.version, Version(2));
    assert!(shop.execute::<Basket>("a", placed(1)).await.is_err(), "900 and 101 are over it");
    let sum = view.get("a").at_least(done.position).within(secs(10)).await.unwrap().unwrap();
    assert_eq!(sum.cents, 1001);
    assert_eq!(view.get("dead").await.unwrap().unwrap().cents, 300);
    app.drain().await;
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "parcel.paid", version = 2, was = then::Paid)]
struct Paid {
    #[event(key)]
    id: String,
    cents: u64,
}

impl From<then::Paid> for Paid {
    fn from(then: then::Paid) -> Self {
        Paid { id: then.id, cents: then.euro * 100 }
    }
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "parcel.wanted")]
struct Wanted {
    #[event(key)]
    id: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "parcel.sent")]
struct Sent {
    #[event(key)]
    id: String,
    cents: u64,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "parcel.unpaid")]
struct Unpaid {
    #[event(key)]
    id: String,
}

#[derive(Command, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[command(name = "parcel.charge", done = Paid, failed = Unpaid)]
struct Charge {
    #[command(key)]
    id: String,
}

#[derive(Serialize, Deserialize)]
struct Parcel {
    id: String,
    cents: u64,
}

impl Parcel {
    fn of(wanted: &Wanted) -> Self {
        Parcel { id: wanted.id.clone(), cents: 0 }
    }
    fn sent(&self) -> Effects {
        publish(Sent { id: self.id.clone(), cents: self.cents })
    }
}

/// Sends a parcel when it is paid, whichever came first.
fn sending() -> Process<Parcel> {
    Process::<Parcel>::new("sending", 1)
        .start_on::<Wanted>(|wanted| (Parcel::of(wanted), Effects::none()))
        .stop_on::<Paid>(|parcel, paid| {
            parcel.cents = paid.cents;
            parcel.sent()
        })
        .wait(hours(24))
}

fn sending_then() -> Process<Parcel> {
    Process::<Parcel>::new("sending", 1)
        .start_on::<Wanted>(|wanted| (Parcel::of(wanted), Effects::none()))
        .stop_on::<then::Paid>(|_, _| Effects::none())
        .wait(hours(24))
}

fn parcels() -> Saga<Parcel> {
    Saga::<Parcel>::new("parcels", 1)
        .start_on::<Wanted>(Parcel::of)
        .pivot("charge", |parcel| Charge { id: parcel.id.clone() })
        .remember::<Paid>(|parcel, paid| parcel.cents = paid.cents)
        .finish(Parcel::sent, |_| Effects::none())
}

async fn sent_until(harness: &Harness, count: usize) -> Vec<String> {
    let filter = sillage::Filter { names: vec!["parcel.sent".into()], ..Default::default() };
    let found = || async { harness.database().log(Position(0), &filter, 100).await.unwrap() };
    harness.until(|| async { found().await.entries.len() >= count }).await;
    let sent = |entry: &Recorded| {
        let sent = Sent::read(1, &entry.payload).unwrap();
        format!("{} {}", sent.id, sent.cents)
    };
    found().await.entries.iter().map(sent).collect()
}

/// Kept by an instance that has not begun, in a timer, and not yet handled.
#[tokio::test(start_paused = true)]
async fn a_process_manager_reads_what_waited_for_it_in_an_older_version() {
    let harness = Harness::new();
    let app = harness.start_service(Service::new("shop").process(sending_then())).await;
    let shop = app.service("shop");
    let paid = |id: &str, euro| then::Paid { id: id.into(), euro };
    let wanted = |id: &str| publish(Wanted { id: id.into() });
    shop.commit(publish(paid("early", 1))).await.unwrap();
    shop.commit(schedule(after(hours(1)), "late", paid("timer", 2))).await.unwrap();
    harness.passed("shop/sending", 1).await;
    app.drain().await;
    harness.garbage_named("parcel", "parcel.paid", "log", r#"{"id":"log","euro":3}"#).await;

    let app = harness.start_service(Service::new("shop").process(sending())).await;
    let shop = app.service("shop");
    for id in ["early", "timer", "log"] {
        shop.commit(wanted(id)).await.unwrap();
    }
    sent_until(&harness, 2).await;
    harness.clock.sleep(hours(2)).await;
    let mut sent = sent_until(&harness, 3).await;
    sent.sort();
    assert_eq!(sent, ["early 100", "log 300", "timer 200"]);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_saga_takes_an_answer_in_an_older_version() {
    async fn charge(charge: Charge) -> Effects {
        publish(then::Paid { id: charge.id, euro: 7 })
    }
    let harness = Harness::new();
    let payment = Service::new("payment").consumer(Consumer::new("payment").on(charge));
    let shop = Service::new("shop").saga(parcels());
    let app = App::new(harness.database()).clock(harness.clock.clone());
    let app = app.service(payment).service(shop).start().await.unwrap();
    app.service("shop").commit(publish(Wanted { id: "a".into() })).await.unwrap();
    assert_eq!(sent_until(&harness, 1).await, ["a 700"]);
    app.drain().await;
}

/// A broker brings it twice: it is read in its older version, once.
#[tokio::test(start_paused = true)]
async fn a_redelivery_in_an_older_version_is_read_and_has_its_effect_once() {
    async fn note(paid: Paid, State(log): State<Probe>) -> Effects {
        log.note(&format!("{} {}", paid.id, paid.cents));
        publish(Sent { id: paid.id, cents: paid.cents })
    }
    let (harness, log, broker) = (Harness::new(), Probe::default(), MemoryBroker::new(1, true));
    let outgoing = |key: &str| sillage::admin::Outgoing {
        name: "parcel.paid".into(),
        version: 1,
        topic: "parcel".into(),
        key: Some(key.into()),
        payload: format!(r#"{{"id":"{key}","euro":4}}"#).into_bytes(),
    };
    let broker_port: Arc<dyn Broker> = Arc::new(broker);
    let topic = TopicSpec { name: "parcel".into(), partitions: None };
    broker_port.ensure(&[topic]).await.unwrap();
    let message = Arc::new(outgoing("a").message(harness.clock.now()).unwrap());
    let last = Arc::new(outgoing("b").message(harness.clock.now()).unwrap());
    for published in broker_port.publish(vec![message.clone(), message, last]).await {
        published.unwrap();
    }
    let shop = Service::new("shop").state(log.clone()).consumer(Consumer::new("notes").on(note));
    let app = App::new(harness.database()).broker(broker_port).clock(harness.clock.clone());
    let app = app.service(shop).start().await.unwrap();
    log.reached("b 400").await;
    assert_eq!(sent_until(&harness, 2).await, ["a 400", "b 400"]);
    app.drain().await;
}
