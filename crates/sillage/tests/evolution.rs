//! Contracts that were renamed and given a new version: whatever was stored of them is read.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Harness, Probe};
use serde::{Deserialize, Serialize};
use sillage::{Clock as _, Version, prelude::*};

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
