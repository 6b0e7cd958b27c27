//! What fails for good is a dead letter only if it is still so when it is set aside; else it counts for
//! nothing, nor for the kill switch.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Probe, created, foreign_order};
use serde::{Deserialize, Serialize};
use sillage::{Broker, prelude::*};
use sillage_testkit::MemoryBroker;
use std::sync::Arc;

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
    port.ensure(&[sillage::TopicSpec { name: "order".into(), partitions: None }]).await.unwrap();
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
