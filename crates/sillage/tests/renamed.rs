//! Process managers and sagas whose events and commands were renamed: what still comes under an
//! older name is what they wait for.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Harness, Probe};
use serde::{Deserialize, Serialize};
use sillage::{Clock as _, prelude::*};

mod then {
    use super::*;

    #[derive(Event, Serialize, Deserialize, Clone)]
    #[event(name = "purchase.done")]
    pub(crate) struct Purchase {
        #[event(key)]
        pub(crate) id: String,
        pub(crate) euro: u64,
    }
}

#[derive(Event, Serialize, Deserialize, Clone)]
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

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "basket.opened")]
struct Opened {
    #[event(key)]
    id: String,
}

#[derive(Serialize, Deserialize)]
struct Bill {
    id: String,
    cents: u64,
}

/// A process manager that hears of purchases under this name; one that it sent itself is due in an
/// hour.
fn bills<E: Event>(due: fn(String) -> E, cents: fn(&E) -> u64) -> Process<Bill> {
    Process::<Bill>::new("bills", 1)
        .start_on::<Opened>(move |opened| {
            let late = schedule(after(hours(1)), "late", due(opened.id.clone()));
            (Bill { id: opened.id.clone(), cents: 0 }, late)
        })
        .on::<E>(move |bill, event| {
            bill.cents += cents(event);
            let billed = Billed { id: bill.id.clone(), cents: bill.cents };
            publish(billed)
        })
        .wait(hours(2))
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "bill.changed")]
struct Billed {
    #[event(key)]
    id: String,
    cents: u64,
}

async fn billed(billed: Billed, State(log): State<Probe>) {
    log.note(&format!("{} {}", billed.id, billed.cents));
}

/// What waits early, what a timer brings, and what an older producer still sends.
#[tokio::test(start_paused = true)]
async fn a_process_manager_gets_a_renamed_event_under_its_older_name() {
    let (harness, log) = (Harness::new(), Probe::default());
    let purchase = |id: &str, euro| then::Purchase { id: id.into(), euro };
    let old = bills(|id| then::Purchase { id, euro: 3 }, |then: &then::Purchase| then.euro * 100);
    let app = harness.start_service(Service::new("shop").process(old)).await;
    let shop = app.service("shop");
    shop.commit(publish(Opened { id: "open".into() })).await.unwrap();
    shop.commit(publish(purchase("early", 5))).await.unwrap();
    harness.settle().await;
    app.drain().await;

    let new = bills(|id| Placed { id, cents: 1 }, |placed: &Placed| placed.cents);
    let notes = Consumer::new("notes").on(billed);
    let service = Service::new("shop").state(log.clone()).process(new).consumer(notes);
    let app = harness.start_service(service).await;
    let shop = app.service("shop");
    shop.commit(publish(Opened { id: "early".into() })).await.unwrap();
    log.reached("early 500").await;
    shop.commit(publish(purchase("open", 1))).await.unwrap();
    log.reached("open 100").await;
    shop.commit(publish(Placed { id: "open".into(), cents: 20 })).await.unwrap();
    log.reached("open 120").await;
    harness.clock.sleep(hours(1)).await;
    log.reached("open 420").await;
    app.drain().await;
}

/// Stock as it was called, and as it is called now.
mod stock {
    use super::*;

    macro_rules! stock {
        ($module:ident: $command:literal $(alias $was:literal)?, $event:literal $(alias $then:literal)?) => {
            pub(crate) mod $module {
                use super::*;

                #[derive(Command, Serialize, Deserialize, Clone)]
                #[command(name = $command, $(alias = $was,)? done = Held)]
                pub(crate) struct Hold {
                    #[command(key)]
                    pub(crate) id: String,
                }

                #[derive(Event, Serialize, Deserialize, Clone)]
                #[event(name = $event $(, alias = $then)?)]
                pub(crate) struct Held {
                    #[event(key)]
                    pub(crate) id: String,
                }

                pub(crate) fn service() -> Service {
                    let checkout = sillage::saga::Saga::<String>::new("checkout", 1)
                        .start_on::<Opened>(|opened| opened.id.clone())
                        .step("hold", |id| Hold { id: id.clone() }, sillage::saga::no_undo)
                        .remember::<Held>(|id, _| id.push_str(", held"))
                        .finish(|id| publish(Billed { id: id.clone(), cents: 1 }), |_| ());
                    Service::new("shop").saga(checkout)
                }
            }
        };
    }

    stock!(then: "stock.reserve", "stock.reserved");
    stock!(now: "shelf.hold" alias "stock.reserve", "shelf.held" alias "stock.reserved");
    stock!(other: "shelf.hold", "shelf.held");
}

#[tokio::test(start_paused = true)]
async fn a_saga_goes_on_under_its_version_where_what_it_waits_for_was_renamed() {
    let (harness, log) = (Harness::new(), Probe::default());
    let app = harness.start_service(stock::then::service()).await;
    app.service("shop").commit(publish(Opened { id: "o-1".into() })).await.unwrap();
    harness.settle().await;
    app.drain().await;

    let other = App::new(harness.database()).clock(harness.clock.clone());
    let refused = other.service(stock::other::service()).start().await.err().unwrap().to_string();
    assert!(refused.contains("version 1 is not what ran under that version before"), "{refused}");

    let notes = Consumer::new("notes").on(billed);
    let now = stock::now::service().state(log.clone()).consumer(notes);
    let app = harness.start_service(now).await;
    app.service("shop").commit(publish(stock::then::Held { id: "o-1".into() })).await.unwrap();
    log.reached("o-1, held 1").await;
    app.drain().await;
}

#[tokio::test]
async fn an_older_name_that_something_else_has_is_refused() {
    let bills = bills(|id| Placed { id, cents: 1 }, |placed: &Placed| placed.cents)
        .on::<then::Purchase>(|_, _| Effects::none());
    let refused = App::new(Harness::new().database()).service(Service::new("shop").process(bills));
    let refused = refused.check().unwrap_err().to_string();
    assert!(refused.contains("two handlers for `purchase.done`"), "{refused}");
}
