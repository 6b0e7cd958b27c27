//! Handlers, their effects, and which of them run at the same time.

use super::{
    super::ConsumerFixture,
    desk::{Desk, Invoiced, Placed},
    world::{BILLING, World},
};
use serde::{Deserialize, Serialize};
use sillage::{Version, prelude::*};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Semaphore;

/// An effect names the message that caused it, and belongs to the same flow.
pub async fn effects_are_committed_and_caused<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    world.place("o", &["1"]).await;
    let invoice = world.log_until("invoice.sent", 1).await.remove(0);
    let order = world.log("order.placed").await.remove(0);
    assert_eq!(invoice.causation_id.as_ref(), Some(&order.id));
    assert_eq!(invoice.body.correlation_id, order.body.correlation_id);
    assert_eq!(&*invoice.source, "shop");
    assert!(invoice.position > order.position);
    app.drain().await;
}

/// A thousand orders of twenty keys: as many effects, of each key in order, and all counted.
pub async fn each_delivery_has_its_effects_once<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    world.has_been_there(&desk).await;
    world.place_many(0..10).await;
    let app = world.start(&desk).await;
    world.place_many(10..50).await;
    world.invoiced(BILLING).await;
    app.drain().await;
    world.assert_once_and_in_order().await;
    world.accounted(BILLING, 1000).await;
    desk.assert_right();
}

/// The handler of one key waits until that of another has begun.
pub async fn two_keys_overlap<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    let keys = ["a", "b", "c", "d"];
    world.commit(keys.map(|key| Placed::new(key, "slow"))).await;
    for key in keys {
        desk.calls.reached(&format!("{key} slow@1")).await;
    }
    desk.gate.note("open");
    world.passed(BILLING, 4).await;
    app.drain().await;
}

/// Whatever it takes, and through tries in the lane: what comes behind it waits.
pub async fn one_key_is_handled_in_order_one_at_a_time<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::taking(ms(1)));
    let consumer = desk.billing().retry(Retry::in_lane([ms(20), ms(20), ms(20)]));
    let app = world.start_with(&desk, consumer).await;
    let notes = ["1", "once 2", "3", "thrice 4", "5", "6"];
    world.commit(notes.map(|note| Placed::new("o", note))).await;
    world.invoiced(BILLING).await;
    app.drain().await;
    let calls = [
        "1@1",
        "once 2@1",
        "once 2@2",
        "3@1",
        "thrice 4@1",
        "thrice 4@2",
        "thrice 4@3",
        "thrice 4@4",
        "5@1",
        "6@1",
    ];
    assert_eq!(desk.calls.notes(), calls.map(|call| format!("o {call}")));
    world.assert_once_and_in_order().await;
    desk.assert_right();
}

/// As many as the consumer may, and never more.
pub async fn so_many_keys_are_handled_at_once<F: ConsumerFixture>(fixture: &F) {
    #[derive(Clone)]
    struct Crowd {
        inside: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
        doors: Arc<Semaphore>,
    }
    async fn enter(_: Placed, State(crowd): State<Crowd>) {
        let inside = crowd.inside.fetch_add(1, Ordering::SeqCst) + 1;
        crowd.most.fetch_max(inside, Ordering::SeqCst);
        if let Ok(door) = crowd.doors.acquire().await {
            door.forget();
        }
        crowd.inside.fetch_sub(1, Ordering::SeqCst);
    }
    let world = World::new(fixture).await;
    let crowd =
        Crowd { inside: Arc::default(), most: Arc::default(), doors: Semaphore::new(0).into() };
    let consumer = Consumer::new("billing").on(enter).concurrency(5);
    let service = Service::new("shop").state(crowd.clone()).consumer(consumer);
    let app = world.start_service(service).await;
    world.commit((0..40).map(|n| Placed::new(&format!("k{n}"), ""))).await;
    let full = || async { crowd.inside.load(Ordering::SeqCst) == 5 };
    world.until("five were inside", full).await;
    crowd.doors.add_permits(20);
    let emptier = || async { crowd.doors.available_permits() == 0 };
    world.until("twenty had gone", emptier).await;
    world.until("five were inside again", full).await;
    crowd.doors.add_permits(100);
    world.passed(BILLING, 40).await;
    app.drain().await;
    assert_eq!(crowd.most.load(Ordering::SeqCst), 5);
}

#[derive(Document, Serialize, Deserialize, Clone, Debug)]
#[document(collection = "counts")]
struct Count {
    #[document(id)]
    id: String,
    count: u32,
}

/// Deliveries of different keys change one document: those that read what another one changed
/// meanwhile are handled again, and no change is lost.
pub async fn what_a_handler_loaded_is_unchanged_at_its_commit<F: ConsumerFixture>(fixture: &F) {
    async fn count(_: Placed, documents: Documents) -> Result<Effects, Failure> {
        let Load(found) = documents.load::<Count>("all").await?;
        tokio::task::yield_now().await;
        let before = found.unwrap_or(Count { id: "all".into(), count: 0 });
        Ok(put(Count { count: before.count + 1, ..before }))
    }
    let world = World::new(fixture).await;
    let consumer = Consumer::new("billing").on(count).retry(Retry::never());
    let app = world.start_service(Service::new("shop").consumer(consumer)).await;
    world.commit((0..100).map(|n| Placed::new(&format!("k{n}"), ""))).await;
    world.passed(BILLING, 100).await;
    let found = app.service("shop").load::<Count>("all").await.unwrap();
    assert_eq!(found.map(|found| found.count), Some(100));
    world.nothing_parked().await;
    app.drain().await;
}

#[derive(Events, Clone, Debug)]
enum RowEvent {
    Taken(Invoiced),
}

#[derive(Clone, Debug, Default)]
struct Row {
    taken: usize,
}

impl Decider for Row {
    const STREAM: &'static str = "row";
    type Command = String;
    type Event = RowEvent;
    type Refusal = String;
    fn initial() -> Self {
        Row::default()
    }
    fn decide(&self, row: String) -> Result<Vec<RowEvent>, String> {
        Ok(vec![Invoiced { order_id: row, note: self.taken.to_string() }.into()])
    }
    fn evolve(self, _: &RowEvent) -> Self {
        Row { taken: self.taken + 1 }
    }
}

/// Its stream grows meanwhile by another way in: nothing is decided on what was, or twice.
pub async fn an_aggregate_decides_on_what_it_read<F: ConsumerFixture>(fixture: &F) {
    async fn take(order: Placed, row: Aggregate<Row>) -> Result<Effects, Failure> {
        row.decide(order.order_id).map_err(|refused| Failure::permanent(refused.0))
    }
    let world = World::new(fixture).await;
    let consumer = Consumer::new("billing").on(take).retry(Retry::never());
    let app = world.start_service(Service::new("shop").consumer(consumer)).await;
    world.commit((0..30).map(|_| Placed::new("a", ""))).await;
    for _ in 0..30 {
        app.service("shop").execute::<Row>("a", "a".to_owned()).await.unwrap();
    }
    world.passed(BILLING, 30).await;
    app.drain().await;
    let entries = world.database.stream("shop/row-a", Version(0), 1000).await.unwrap();
    let seat = |entry: &Recorded| serde_json::from_slice::<Invoiced>(&entry.payload).unwrap().note;
    let expected: Vec<_> = (0..60).map(|seat: u32| seat.to_string()).collect();
    assert_eq!(entries.iter().map(seat).collect::<Vec<_>>(), expected);
}
