//! History read again through handlers, on the reference database.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Invoiced, created};
use serde::{Deserialize, Serialize};
use sillage::{Database as _, Replayed, prelude::*};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "bill.written")]
struct Billed {
    #[event(key)]
    order_id: String,
    number: u32,
}

#[derive(Document, Serialize, Deserialize, Clone, Debug, Default)]
#[document(collection = "bills")]
struct Bills {
    #[document(id)]
    order_id: String,
    count: u32,
}

/// The rules of billing: they change.
#[derive(Clone, Copy, Default)]
struct Rules {
    first: u32,
    silent_after: u32,
    reminds: bool,
    fails: bool,
}

/// A bill with the next number of its order; what it depends on is in a document.
async fn bill(
    order: Created,
    Load(bills): Load<Bills>,
    State(rules): State<Rules>,
) -> Result<Effects, Failure> {
    let count = bills.map_or(0, |bills| bills.count);
    if rules.fails && order.order_id == "b" {
        return Err(Failure::transient("no paper"));
    }
    let order_id = order.order_id;
    let kept = put(Bills { order_id: order_id.clone(), count: count + 1 });
    if count >= rules.silent_after {
        return Ok(kept);
    }
    let written = publish(Billed { order_id: order_id.clone(), number: rules.first + count });
    let invoice = rules.reminds.then(|| publish(Invoiced { order_id: order_id.clone() }));
    let due = schedule(after(hours(1)), "unpaid", Invoiced { order_id });
    Ok(kept.and(written).and(invoice).and(due))
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "stamp.used")]
struct Stamped {
    #[event(key)]
    order_id: String,
}

async fn stamp(order: Created) -> Effects {
    publish(Stamped { order_id: order.order_id })
}

const RULES: Rules = Rules { first: 1, silent_after: 100, reminds: false, fails: false };

fn service(rules: Rules) -> Service {
    let billing = Consumer::new("billing").on(bill);
    // What another consumer of the service did is none of the first one's.
    Service::new("shop").state(rules).consumer(billing).consumer(Consumer::new("stamps").on(stamp))
}

/// Three orders of `a` and two of `b`, billed.
async fn history() -> Harness {
    let harness = Harness::new();
    let app = harness.start_service(service(RULES)).await;
    for id in ["a", "b", "a", "b", "a"] {
        app.service("shop").commit(publish(created(id))).await.unwrap();
    }
    harness.log_until(15).await;
    app.drain().await;
    harness
}

fn replay(harness: &Harness, rules: Rules) -> sillage::Replay {
    let app = App::new(harness.database()).clock(harness.clock.clone()).service(service(rules));
    app.replay("shop/billing").unwrap()
}

fn counts(replayed: &Replayed, name: &str) -> [u64; 4] {
    let change = replayed.effects.get(name).cloned().unwrap_or_default();
    [change.same, change.changed, change.added, change.gone]
}

#[tokio::test(start_paused = true)]
async fn nothing_differs_where_nothing_was_changed_and_nothing_is_written() {
    let harness = history().await;
    let (head, batches) = (harness.memory.head().await.unwrap(), harness.memory.batches());
    let replayed = replay(&harness, RULES).run().await.unwrap();
    assert_eq!((replayed.handled, replayed.different, replayed.failed), (5, 0, 0));
    assert_eq!(counts(&replayed, "bill.written"), [5, 0, 0, 0], "by the documents of then");
    assert_eq!(replayed.scheduled, 5);
    assert_eq!(harness.memory.head().await.unwrap(), head);
    assert_eq!(harness.memory.batches(), batches, "nothing was even tried");
}

#[tokio::test(start_paused = true)]
async fn what_a_changed_handler_would_do_is_counted_by_name_with_examples() {
    let harness = history().await;
    let rules = Rules { first: 7, ..RULES };
    let replayed = replay(&harness, rules).examples(2).run().await.unwrap();
    assert_eq!(counts(&replayed, "bill.written"), [0, 5, 0, 0]);
    let examples = &replayed.effects["bill.written"].examples;
    assert_eq!(examples.len(), 2);
    assert_eq!(examples[1].key.as_deref(), Some("b"));
    assert_eq!(examples[1].was, Some(serde_json::json!({ "order_id": "b", "number": 1 })));
    assert_eq!(examples[1].now, Some(serde_json::json!({ "order_id": "b", "number": 7 })));

    let rules = Rules { silent_after: 1, reminds: true, ..RULES };
    let replayed = replay(&harness, rules).run().await.unwrap();
    assert_eq!(counts(&replayed, "bill.written"), [2, 0, 0, 3]);
    assert_eq!(counts(&replayed, "invoice.sent"), [0, 0, 2, 0]);
    assert_eq!(replayed.different, 5);

    let replayed = replay(&harness, Rules { fails: true, ..RULES }).run().await.unwrap();
    assert_eq!((replayed.failed, counts(&replayed, "bill.written")), (2, [3, 0, 0, 2]));
    assert!(replayed.failures.keys().any(|why| why.contains("no paper")), "{replayed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_part_of_history_is_replayed() {
    let harness = history().await;
    let of = |replay: sillage::Replay| async { replay.run().await.unwrap().handled };
    assert_eq!(of(replay(&harness, RULES).key("b")).await, 2);
    assert_eq!(of(replay(&harness, RULES).names(["bill.written"])).await, 0);
    assert_eq!(of(replay(&harness, RULES).topics(["order"])).await, 5);
    let log = harness.log_until(15).await;
    let orders: Vec<_> = log.iter().filter(|entry| &*entry.name == "order.created").collect();
    let from = orders[3].position;
    assert_eq!(of(replay(&harness, RULES).after(from)).await, 1);
    assert_eq!(of(replay(&harness, RULES).through(from)).await, 4);
    assert_eq!(of(replay(&harness, RULES).since(orders[4].time + secs(1))).await, 0);
    assert_eq!(of(replay(&harness, RULES).until(orders[0].time)).await, 0);
    let app = App::new(harness.database()).service(service(RULES));
    let unknown = app.replay("shop/nobody").err().unwrap().to_string();
    assert!(unknown.contains("there are: shop/billing, shop/stamps"), "{unknown}");
}
