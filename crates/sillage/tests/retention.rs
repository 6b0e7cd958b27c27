//! Retention: what leaves the log, who holds it back, and what a reader that was passed is told.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Probe, created};
use serde::{Deserialize, Serialize};
use sillage::{
    Clock as _, ErrorKind, Expected, Filter, SHORTEST_RETENTION, StartError, prelude::*,
};
use std::time::Duration;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.paid")]
struct Paid {
    #[event(key)]
    order_id: String,
}

#[derive(Events, Clone, Debug, PartialEq)]
enum OrderEvent {
    Paid(Paid),
}

#[derive(Document, Serialize, Deserialize, Default, Debug, PartialEq)]
#[document(collection = "counts")]
struct Count {
    #[document(id)]
    id: String,
    created: u64,
    paid: u64,
}

/// Of all orders, in one document.
fn counts() -> Projection<Count> {
    Projection::<Count>::new("counts", 1)
        .on_each::<Created>(|_| Key::of("all"), |count, _| count.created += 1)
        .on_each::<Paid>(|_| Key::of("all"), |count, _| count.paid += 1)
}

async fn bill(order: Created, State(log): State<Probe>) -> Result<Effects, Failure> {
    if order.note == "bad" {
        return Err(Failure::permanent("bad"));
    }
    log.note(&order.order_id);
    Ok(Effects::none())
}

fn billing() -> Service {
    Service::new("shop").consumer(Consumer::new("billing").on(bill)).projection(counts())
}

struct World {
    harness: Harness,
    log: Probe,
}

impl World {
    fn new() -> Self {
        World { harness: Harness::new(), log: Probe::default() }
    }

    async fn try_start(&self, service: Service, keep: Duration) -> Result<Running, StartError> {
        let app = App::new(self.harness.database()).clock(self.harness.clock.clone());
        app.service(service.state(self.log.clone())).retention(keep).start().await
    }

    async fn start(&self, service: Service) -> Running {
        self.try_start(service, SHORTEST_RETENTION).await.unwrap()
    }

    /// Orders, each also paid in its stream: two entries an order. Read by all that runs.
    async fn orders(&self, app: &Running, name: &str, count: u64) {
        for n in 0..count {
            let order_id = format!("{name}-{n}");
            let paid = OrderEvent::Paid(Paid { order_id: order_id.clone() });
            let paid = append(format!("order-{order_id}"), Expected::NoStream, &[paid]);
            app.service("shop").commit(publish(created(&order_id)).and(paid)).await.unwrap();
        }
        let head = self.harness.database().head().await.unwrap().last;
        app.view::<Count>("shop").get("all").at_least(head).within(secs(60)).await.unwrap();
        self.log.reached(&format!("{name}-{}", count - 1)).await;
    }

    /// So much that every slot's place is told: behind this a slot is at most 512 positions behind.
    async fn fill(&self, app: &Running, name: &str) {
        self.orders(app, name, 600).await;
        self.harness.settle().await;
    }

    /// The end of the log is noted once the app has looked, and is old enough 14 days later. No app
    /// runs meanwhile.
    async fn grow_old(&self, app: Running, service: impl Fn() -> Service) {
        app.drain().await;
        self.harness.clock.sleep(hours(6)).await;
        let app = self.start(service()).await;
        self.harness.settle().await;
        app.drain().await;
        self.harness.clock.sleep(SHORTEST_RETENTION).await;
    }

    async fn trimmed(&self) -> Position {
        self.harness.admin().retention().await.unwrap().trimmed_before
    }

    async fn trimmed_until(&self, at_least: u64) -> Position {
        self.harness.until(|| async { self.trimmed().await.0 >= at_least }).await;
        self.harness.settle().await;
        self.trimmed().await
    }

    async fn names(&self) -> (usize, usize) {
        let all = self.harness.database().log(Position(0), &Filter::default(), 100_000).await;
        let entries = all.unwrap().entries;
        let count = |name: &str| entries.iter().filter(|entry| &*entry.name == name).count();
        (count("order.created"), count("order.paid"))
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_old_and_read_by_all_goes_and_streams_stay() {
    let world = World::new();
    let app = world.start(billing()).await;
    world.fill(&app, "old").await;
    world.grow_old(app, billing).await;
    assert_eq!(world.names().await, (600, 600));

    let app = world.start(billing()).await;
    let trimmed = world.trimmed_until(600).await;
    let (left, paid) = world.names().await;
    assert_eq!(paid, 600, "streams are history");
    let head = world.harness.database().head().await.unwrap().last;
    assert!((1..=256).contains(&left), "{left} left, trimmed before {trimmed} of {head}");
    assert!(trimmed < head);

    // All goes on, and what is new stays.
    world.fill(&app, "new").await;
    assert_eq!(world.names().await, (left + 600, 1200));
    assert_eq!(world.trimmed().await, trimmed);
    let count = app.view::<Count>("shop").get("all").await.unwrap().unwrap();
    assert_eq!((count.created, count.paid), (1200, 1200));
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_holds_back_what_it_needs() {
    let world = World::new();
    let app = world.start(billing()).await;
    let bad = Created { note: "bad".into(), ..created("bad") };
    app.service("shop").commit(publish(created("first"))).await.unwrap();
    let at = app.service("shop").commit(publish(bad)).await.unwrap().position;
    let letter = world.harness.dead_letters_until(1).await.remove(0);
    world.fill(&app, "old").await;
    world.grow_old(app, billing).await;

    let app = world.start(billing()).await;
    assert_eq!(world.trimmed_until(at.0 - 1).await, Position(at.0 - 1));
    let status = world.harness.admin().retention().await.unwrap();
    let holding: Vec<_> = status.holding().map(|reader| &*reader.name).collect();
    assert_eq!(holding[0], format!("parked {}/0000000000", letter.id));
    world.harness.admin().skip(&letter.id, "lost").await.unwrap();
    assert!(world.trimmed_until(600).await > at);
    let gone = world.harness.admin().restore(&letter.id).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Trimmed, "{gone}");
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_behind_holds_it_back() {
    async fn listen(_: Created) {}
    async fn report(_: Created) {}
    let world = World::new();
    let both = || {
        let loud = Consumer::new("loud").on(listen).broadcast();
        billing().consumer(Consumer::new("reports").on(report)).consumer(loud)
    };
    let app = world.start(both()).await;
    world.harness.admin().pause("shop/reports", "a test").await.unwrap();
    world.harness.settle().await;
    world.fill(&app, "old").await;
    world.grow_old(app, both).await;
    let app = world.start(both()).await;
    world.harness.settle().await;
    assert_eq!(world.trimmed().await, Position(0));
    world.harness.admin().resume("shop/reports").await.unwrap();
    world.trimmed_until(600).await;
    app.drain().await;
}

/// A consumer that comes back after it was left out, and whose place is gone, is told so; an operator
/// accepts it.
#[tokio::test(start_paused = true)]
async fn a_reader_that_was_passed_is_told_and_not_served_less() {
    async fn report(order: Created, State(log): State<Probe>) {
        log.note(&format!("report {}", order.order_id));
    }
    let world = World::new();
    let both = || billing().consumer(Consumer::new("reports").on(report));
    let app = world.start(both()).await;
    world.fill(&app, "one").await;
    app.drain().await;
    let app = world.start(billing()).await;
    world.fill(&app, "two").await;
    world.grow_old(app, billing).await;
    let app = world.start(billing()).await;
    world.trimmed_until(1_500).await;
    app.drain().await;

    let app = world.start(both()).await;
    world.harness.until(|| async { !app.health().problems.is_empty() }).await;
    let problems = app.health().problems.join("\n");
    assert!(problems.contains("`sillage consumers accept-loss shop/reports`"), "{problems}");
    let notes = world.log.notes().into_iter();
    assert_eq!(notes.filter(|note| note.starts_with("report two")).count(), 0);
    let running = world.harness.admin().accept_loss("shop/reports").await.unwrap_err();
    assert!(running.to_string().contains("stop its app"), "{running}");
    app.drain().await;
    world.harness.admin().accept_loss("shop/reports").await.unwrap();
    let app = world.start(both()).await;
    world.log.reached("report two-599").await;
    assert_eq!(app.health().problems, Vec::<String>::new());
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_begins_below_is_refused_by_name() {
    let world = World::new();
    let app = world.start(billing()).await;
    world.fill(&app, "old").await;
    world.grow_old(app, billing).await;
    let app = world.start(billing()).await;
    let trimmed = world.trimmed_until(600).await;
    let admin = world.harness.admin();
    let refused = admin.rebuild("shop/counts", false, false).await.unwrap_err().to_string();
    assert!(refused.contains("were trimmed") && refused.contains("--lossy"), "{refused}");
    admin.rebuild("shop/counts", false, true).await.unwrap();
    let caught_up = || async {
        let status = admin.projection("shop/counts").await.unwrap();
        status.shadow.is_some_and(|shadow| shadow.position >= status.position)
    };
    world.harness.until(caught_up).await;
    admin.switch("shop/counts", true).await.unwrap();
    let (left, _) = world.names().await;
    let rebuilt = || async {
        let count = app.view::<Count>("shop").get("all").await.unwrap().unwrap();
        (count.created, count.paid) == (left as u64, 600)
    };
    world.harness.until(rebuilt).await;
    app.drain().await;

    let replay = |after: Position| {
        let app = App::new(world.harness.database()).clock(world.harness.clock.clone());
        let app = app.service(billing().state(world.log.clone()));
        app.replay("shop/billing").unwrap().after(after).run()
    };
    let gone = replay(Position(0)).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Trimmed, "{gone}");
    assert_eq!(replay(trimmed).await.unwrap().handled, left as u64);
}

#[tokio::test(start_paused = true)]
async fn a_retention_that_is_too_short_is_refused() {
    let world = World::new();
    let refused = world.try_start(billing(), hours(24)).await.err().unwrap();
    assert!(refused.to_string().contains("too short: for 14 days"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_for_good_is_forgotten() {
    let world = World::new();
    let other = Service::new("other").consumer(Consumer::new("idle").on(|_: Paid| async {}));
    let app = world.start(other).await;
    app.drain().await;
    let app = world.start(billing()).await;
    world.fill(&app, "old").await;
    world.grow_old(app, billing).await;
    let app = world.start(billing()).await;
    world.harness.settle().await;
    assert_eq!(world.trimmed().await, Position(0));
    let status = world.harness.admin().retention().await.unwrap();
    assert_eq!(status.readers[0].name, "consumer other/idle");
    world.harness.admin().forget_service("other").await.unwrap();
    world.trimmed_until(600).await;
    app.drain().await;
}
