//! Five hundred sagas over services that are killed at random, on a broker that brings commands and
//! answers twice, late, and behind later ones.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::Harness;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sillage::{
    Broker, Clock as _, Filter,
    prelude::*,
    saga::{Moment, Progress, Saga, Status},
};
use sillage_testkit::{Disorder, MemoryBroker, Unruly};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

const SAGAS: u32 = 500;

macro_rules! messages {
    ($($derive:ident $attribute:ident $name:ident $meta:tt;)*) => {$(
        #[derive($derive, Serialize, Deserialize, Clone, Debug, PartialEq)]
        #[$attribute $meta]
        struct $name {
            #[$attribute(key)]
            order_id: String,
        }
    )*};
}

messages! {
    Event event Ordered (name = "order.created");
    Event event Completed (name = "order.completed");
    Event event Cancelled (name = "order.cancelled");
    Command command Reserve (name = "stock.reserve", done = Reserved, failed = Short);
    Event event Reserved (name = "stock.reserved");
    Event event Short (name = "stock.short");
    Command command Release (name = "stock.release", done = Released);
    Event event Released (name = "stock.released");
    Command command Charge (name = "payment.charge", done = Paid, failed = Declined);
    Event event Paid (name = "payment.completed");
    Event event Declined (name = "payment.failed");
    Command command Refund (name = "payment.refund", done = Refunded);
    Event event Refunded (name = "payment.refunded");
    Command command Pack (name = "parcel.pack", done = Packed, failed = TooBig);
    Event event Packed (name = "parcel.packed");
    Event event TooBig (name = "parcel.too-big");
    Command command Unpack (name = "parcel.unpack", done = Unpacked);
    Event event Unpacked (name = "parcel.unpacked");
    Command command Ship (name = "shipping.ship", done = Shipped, failed = NotShipped);
    Event event Shipped (name = "shipping.shipped");
    Event event NotShipped (name = "shipping.refused");
}

#[derive(Serialize, Deserialize)]
struct Checkout {
    order_id: String,
}

fn id(checkout: &Checkout) -> String {
    checkout.order_id.clone()
}

/// Reserve; charge and pack beside each other; ship.
fn checkout() -> Saga<Checkout> {
    Saga::<Checkout>::new("checkout", 1)
        .start_on::<Ordered>(|order| Checkout { order_id: order.order_id.clone() })
        .step("reserve", |c| Reserve { order_id: id(c) }, |c| Release { order_id: id(c) })
        .within(secs(40))
        .step("charge", |c| Charge { order_id: id(c) }, |c| Refund { order_id: id(c) })
        .within(secs(40))
        .retry([secs(5)])
        .beside("pack", |c| Pack { order_id: id(c) }, |c| Unpack { order_id: id(c) })
        .within(secs(40))
        .pivot("ship", |c| Ship { order_id: id(c) })
        .within(mins(2))
        .finish(
            |c| publish(Completed { order_id: id(c) }),
            |c| publish(Cancelled { order_id: id(c) }),
        )
}

/// What a participant did for an order, ever.
#[derive(Document, Serialize, Deserialize, Clone, Debug)]
#[document(collection = "kept")]
struct Kept {
    #[document(id)]
    order_id: String,
    refused: bool,
    done: u32,
    undone: u32,
}

/// Refuses some, by the number of the order; answers again what it answered before.
#[allow(clippy::needless_pass_by_value)] // as a handler is given it
fn does<D: Event, F: Event>(
    order_id: String,
    known: Option<Kept>,
    one_in: u32,
    done: fn(String) -> D,
    failed: fn(String) -> F,
) -> Effects {
    let number: u32 = order_id.trim_start_matches("o-").parse().unwrap();
    let refused = known.as_ref().map_or(number.is_multiple_of(one_in), |kept| kept.refused);
    let answer =
        if refused { publish(failed(order_id.clone())) } else { publish(done(order_id.clone())) };
    match known {
        Some(_) => answer,
        None => put(Kept { order_id, refused, done: u32::from(!refused), undone: 0 }).and(answer),
    }
}

/// Undoes what is done, once; answers in any case.
fn undoes<U: Event>(order_id: String, known: Option<Kept>, undone: fn(String) -> U) -> Effects {
    let answer = publish(undone(order_id));
    match known {
        Some(kept) if kept.done > kept.undone => {
            put(Kept { undone: kept.undone + 1, ..kept }).and(answer)
        }
        _ => answer,
    }
}

async fn reserve(command: Reserve, Load(known): Load<Kept>) -> Effects {
    does(
        command.order_id,
        known,
        13,
        |order_id| Reserved { order_id },
        |order_id| Short { order_id },
    )
}

async fn release(command: Release, Load(known): Load<Kept>) -> Effects {
    undoes(command.order_id, known, |order_id| Released { order_id })
}

async fn charge(command: Charge, Load(known): Load<Kept>) -> Effects {
    does(command.order_id, known, 7, |order_id| Paid { order_id }, |order_id| Declined { order_id })
}

async fn refund(command: Refund, Load(known): Load<Kept>) -> Effects {
    undoes(command.order_id, known, |order_id| Refunded { order_id })
}

async fn pack(command: Pack, Load(known): Load<Kept>) -> Effects {
    does(
        command.order_id,
        known,
        11,
        |order_id| Packed { order_id },
        |order_id| TooBig { order_id },
    )
}

async fn unpack(command: Unpack, Load(known): Load<Kept>) -> Effects {
    undoes(command.order_id, known, |order_id| Unpacked { order_id })
}

async fn ship(command: Ship, Load(known): Load<Kept>) -> Effects {
    does(
        command.order_id,
        known,
        17,
        |order_id| Shipped { order_id },
        |order_id| NotShipped { order_id },
    )
}

const SERVICES: [&str; 5] = ["order", "stock", "payment", "parcel", "shipping"];

fn service(name: &'static str) -> Service {
    let consumer = Consumer::new("commands");
    match name {
        "order" => Service::new(name).saga(checkout()),
        "stock" => Service::new(name).consumer(consumer.on(reserve).on(release)),
        "payment" => Service::new(name).consumer(consumer.on(charge).on(refund)),
        "parcel" => Service::new(name).consumer(consumer.on(pack).on(unpack)),
        _ => Service::new(name).consumer(consumer.on(ship)),
    }
}

struct World {
    harness: Harness,
    broker: Arc<dyn Broker>,
    apps: HashMap<&'static str, Running>,
    random: u64,
}

impl World {
    async fn new(seed: u64) -> Self {
        let harness = Harness::new();
        let topics = ["stock", "payment", "parcel", "shipping"];
        let topics = topics.into_iter().flat_map(|of| [of.to_owned(), format!("{of}.commands")]);
        let topics = topics.map(Into::into).collect();
        let disorder = Disorder { topics, late: 25, twice: 10, most: secs(50) };
        let broker = Arc::new(MemoryBroker::new(4, true));
        let broker = Arc::new(Unruly::new(broker, harness.clock.clone(), disorder, seed));
        let mut world = World { harness, broker, apps: HashMap::new(), random: seed };
        for name in SERVICES {
            world.start(name).await;
        }
        world
    }

    async fn start(&mut self, name: &'static str) {
        let app = App::new(self.harness.database()).broker(self.broker.clone());
        let app = app.clock(self.harness.clock.clone()).service(service(name));
        self.apps.insert(name, app.start().await.unwrap());
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below
    }

    /// As by SIGKILL: nothing is drained, and its leases have to run out.
    async fn kill_one(&mut self) {
        let pause = self.random(20_000);
        self.harness.clock.sleep(ms(pause)).await;
        let place = usize::try_from(self.random(SERVICES.len() as u64)).unwrap();
        let name = SERVICES[place];
        drop(self.apps.remove(name));
        self.start(name).await;
    }

    async fn documents<D: DeserializeOwned>(&self, collection: &str) -> BTreeMap<String, D> {
        let all = sillage::Range::Ids { prefix: "", after: "" };
        let found = self.harness.database().list(collection, all, 10_000).await.unwrap();
        let read = |stored: &sillage::Stored| {
            (stored.id.to_string(), serde_json::from_slice(&stored.body).unwrap())
        };
        found.iter().map(read).collect()
    }

    /// Where each order first has this event in the log.
    async fn positions(&self, name: &str) -> HashMap<String, Position> {
        let filter = Filter { names: vec![name.into()], ..Filter::default() };
        let page = self.harness.database().log(Position(0), &filter, 100_000).await.unwrap();
        let mut first = HashMap::new();
        for entry in page.entries {
            first.entry(entry.key.as_ref().unwrap().to_string()).or_insert(entry.position);
        }
        first
    }
}

#[tokio::test(start_paused = true)]
async fn every_saga_ends_and_what_was_done_is_undone_once_in_reverse() {
    let mut world = World::new(7).await;
    let orders: Effects =
        (0..SAGAS).map(|n| publish(Ordered { order_id: format!("o-{n}") })).collect();
    world.apps["order"].service("order").commit(orders).await.unwrap();
    for _ in 0..25 {
        world.kill_one().await;
    }
    let admin = world.harness.admin();
    let ended = || async {
        let counts = admin.saga_counts().await.unwrap();
        let of = |status| counts.get(&status).copied().unwrap_or(0);
        of(Status::Completed) + of(Status::Compensated) == u64::from(SAGAS)
    };
    world.harness.until(ended).await;
    // What is still on its way comes too late for anything.
    world.harness.clock.sleep(mins(3)).await;
    check(&world).await;
    for app in world.apps.values() {
        app.drain().await;
    }
}

async fn check(world: &World) {
    let mut kept = HashMap::new();
    for name in &SERVICES[1..] {
        kept.insert(*name, world.documents::<Kept>(&format!("{name}/kept")).await);
    }
    let released = world.positions("stock.released").await;
    let (refunded, unpacked) =
        (world.positions("payment.refunded").await, world.positions("parcel.unpacked").await);
    let (mut completed, mut unknown) = (0, 0);
    let sagas = world.harness.admin().sagas(None, None, 10_000).await.unwrap();
    assert_eq!(sagas.len(), SAGAS as usize);
    for saga in sagas {
        let key = saga.id.rsplit('/').next().unwrap();
        let done = |name: &str| kept[name].get(key).map_or((0, 0), |kept| (kept.done, kept.undone));
        let steps = ["stock", "payment", "parcel"].map(done);
        if saga.status == Status::Completed {
            completed += 1;
            assert_eq!((steps, done("shipping")), ([(1, 0); 3], (1, 0)), "{key}");
            continue;
        }
        assert_eq!(saga.status, Status::Compensated, "{key}");
        assert!(steps.iter().all(|(done, undone)| done == undone), "{key}: {steps:?}");
        assert_eq!(done("shipping").0, 0, "{key}");
        // In reverse: the stock last.
        for later in [&refunded, &unpacked] {
            if let (Some(first), Some(last)) = (later.get(key), released.get(key)) {
                assert!(first < last, "{key} was released before the rest was undone");
            }
        }
        let detail = world.harness.admin().saga(&saga.id).await.unwrap();
        let timed_out = |moment: &Moment| {
            let undone = matches!(moment.progress, Progress::Unknown | Progress::Undoing);
            undone && *moment.because == *"saga.deadline"
        };
        unknown += u32::from(detail.history.iter().any(timed_out));
    }
    // The faults were real ones.
    let tombstones = world.documents::<serde_json::Value>("tombstones").await.len();
    assert!(completed > 50 && SAGAS - completed > 100, "{completed} completed");
    assert!(unknown > 20 && tombstones > 100, "{unknown} unknown, {tombstones} tombstones");
    let dead = world.harness.admin().dead_letters(None, true).await.unwrap();
    assert!(dead.is_empty(), "{dead:?}");
}
