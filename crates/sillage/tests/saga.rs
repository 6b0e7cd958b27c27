//! Sagas through a running app: forward, back, late, twice, versions, operators' verbs.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Harness, Probe, Switch};
use serde::{Deserialize, Serialize};
use sillage::{Clock as _, Filter, StartError, prelude::*, saga::Saga};

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
    // On a topic of its own, so that it may overtake what it undoes.
    Command command Release (name = "stock.release", topic = "release.commands", done = Released);
    Event event Released (name = "stock.released");
    Command command Charge (name = "payment.charge", done = Paid, failed = Declined);
    Event event Declined (name = "payment.failed");
    Command command Refund (name = "payment.refund", done = Refunded);
    Event event Refunded (name = "payment.refunded");
    Command command Ship (name = "shipping.ship", done = Shipped, failed = NotShipped);
    Event event Shipped (name = "shipping.shipped");
    Event event NotShipped (name = "shipping.refused");
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "payment.completed")]
struct Paid {
    #[event(key)]
    order_id: String,
    payment_id: String,
}

#[derive(Serialize, Deserialize, Clone)]
struct Checkout {
    order_id: String,
    payment_id: Option<String>,
}

impl Checkout {
    fn start(order: &Ordered) -> Self {
        Checkout { order_id: order.order_id.clone(), payment_id: None }
    }
    fn reserve(&self) -> Reserve {
        Reserve { order_id: self.order_id.clone() }
    }
    fn release(&self) -> Release {
        Release { order_id: self.order_id.clone() }
    }
    fn charge(&self) -> Charge {
        Charge { order_id: self.order_id.clone() }
    }
    fn refund(&self) -> Refund {
        Refund { order_id: self.order_id.clone() }
    }
    fn ship(&self) -> Ship {
        Ship { order_id: self.order_id.clone() }
    }
    fn complete(&self) -> Effects {
        publish(Completed { order_id: self.order_id.clone() })
    }
    fn cancel(&self) -> Effects {
        publish(Cancelled { order_id: self.order_id.clone() })
    }
}

fn checkout(version: u32) -> Saga<Checkout> {
    Saga::<Checkout>::new("checkout", version)
        .start_on::<Ordered>(Checkout::start)
        .step("reserve", Checkout::reserve, Checkout::release)
        .step("charge", Checkout::charge, Checkout::refund)
        .within(mins(15))
        .remember::<Paid>(|checkout, paid| checkout.payment_id = Some(paid.payment_id.clone()))
        .pivot("ship", Checkout::ship)
        .within(mins(5))
        .retry([mins(1)])
        .finish(Checkout::complete, Checkout::cancel)
}

/// What the participants do; each notes what it did.
#[derive(Clone)]
struct World {
    log: Probe,
    declines: Switch,
    ships: Switch,
    /// The stock takes its time.
    slow: Switch,
    /// Undos are answered.
    refunds: Switch,
}

impl Default for World {
    fn default() -> Self {
        let off = || {
            let switch = Switch::on();
            switch.off();
            switch
        };
        World {
            log: Probe::default(),
            declines: off(),
            ships: Switch::on(),
            slow: off(),
            refunds: Switch::on(),
        }
    }
}

async fn reserve(command: Reserve, State(world): State<World>) -> Result<Effects, Failure> {
    if world.slow.is_on() {
        return Err(Failure::unavailable("stock", "slow"));
    }
    world.log.note("reserve");
    Ok(publish(Reserved { order_id: command.order_id }))
}

async fn release(command: Release, State(world): State<World>) -> Effects {
    world.log.note("release");
    publish(Released { order_id: command.order_id })
}

async fn charge(command: Charge, State(world): State<World>, meta: Meta) -> Effects {
    world.log.note(&format!("charge {}", meta.operation_id));
    let order_id = command.order_id;
    if world.declines.is_on() {
        return publish(Declined { order_id });
    }
    publish(Paid { order_id, payment_id: "p-1".into() })
}

async fn refund(command: Refund, State(world): State<World>, meta: Meta) -> Effects {
    world.log.note(&format!("refund {}", meta.operation_id));
    if !world.refunds.is_on() {
        return Effects::none();
    }
    publish(Refunded { order_id: command.order_id })
}

async fn ship(command: Ship, State(world): State<World>) -> Effects {
    world.log.note("ship");
    if world.ships.is_on() {
        publish(Shipped { order_id: command.order_id })
    } else {
        Effects::none()
    }
}

fn participants(world: &World) -> Service {
    Service::new("parts")
        .state(world.clone())
        .consumer(Consumer::new("stock").on(reserve))
        .consumer(Consumer::new("release").on(release))
        .consumer(Consumer::new("payment").on(charge).on(refund))
        .consumer(Consumer::new("shipping").on(ship))
}

async fn start(harness: &Harness, saga: Saga<Checkout>, world: &World) -> Running {
    try_start(harness, saga, world).await.unwrap()
}

async fn try_start(
    harness: &Harness,
    saga: Saga<Checkout>,
    world: &World,
) -> Result<Running, StartError> {
    let app = App::new(harness.database()).clock(harness.clock.clone());
    app.service(Service::new("order").saga(saga)).service(participants(world)).start().await
}

async fn order(app: &Running) {
    app.service("order").commit(publish(Ordered { order_id: "o-1".into() })).await.unwrap();
}

async fn has(harness: &Harness, name: &str) -> bool {
    let filter = Filter { names: vec![name.into()], ..Filter::default() };
    !harness.database().log(Position(0), &filter, 10).await.unwrap().entries.is_empty()
}

async fn until(harness: &Harness, name: &str) {
    harness.until(|| has(harness, name)).await;
    harness.settle().await;
}

async fn instance(harness: &Harness) -> serde_json::Value {
    let found = harness.database().get("sagas", &["order/checkout/o-1"]).await.unwrap();
    serde_json::from_slice(&found[0].as_ref().unwrap().body).unwrap()
}

async fn status(harness: &Harness) -> String {
    instance(harness).await["status"].as_str().unwrap().to_owned()
}

async fn no_timers(harness: &Harness) {
    let timers = harness.admin().timers(10).await.unwrap();
    assert!(timers.is_empty(), "{timers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_saga_goes_through_its_steps_and_remembers_answers() {
    let (harness, world) = (Harness::new(), World::default());
    let app = start(&harness, checkout(1), &world).await;
    order(&app).await;
    until(&harness, "order.completed").await;
    assert_eq!(world.log.notes(), ["reserve", "charge order/checkout/o-1/charge", "ship"]);
    let instance = instance(&harness).await;
    assert_eq!(instance["status"], "completed");
    assert_eq!(instance["memory"]["data"]["payment_id"], "p-1");
    no_timers(&harness).await;
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_done_before_a_refusal_is_undone() {
    let (harness, world) = (Harness::new(), World::default());
    world.declines.turn_on();
    let app = start(&harness, checkout(1), &world).await;
    order(&app).await;
    until(&harness, "order.cancelled").await;
    assert_eq!(world.log.notes(), ["reserve", "charge order/checkout/o-1/charge", "release"]);
    assert_eq!(status(&harness).await, "compensated");
    no_timers(&harness).await;
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_times_out_is_undone_and_never_done_after_that() {
    let (harness, world) = (Harness::new(), World::default());
    world.slow.turn_on();
    let app = start(&harness, checkout(1), &world).await;
    order(&app).await;
    harness.clock.sleep(mins(14)).await;
    assert_eq!(status(&harness).await, "running");
    until(&harness, "order.cancelled").await;
    assert_eq!(world.log.notes(), ["release"], "the undo has overtaken it");
    // The stock answers again: the command that waits for it comes after its undo.
    world.slow.off();
    harness.clock.sleep(mins(5)).await;
    assert_eq!(world.log.notes(), ["release"]);
    assert!(!has(&harness, "stock.reserved").await);
    assert_eq!(harness.consumer("parts/stock").await.lag, Some(0));
    assert_eq!(status(&harness).await, "compensated");
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_no_way_back_is_asked_again_and_then_stuck_until_somebody_helps() {
    let (harness, world) = (Harness::new(), World::default());
    world.ships.off();
    let app = start(&harness, checkout(1), &world).await;
    order(&app).await;
    harness.until(|| async { has(&harness, "payment.completed").await }).await;
    harness.clock.sleep(mins(11)).await;
    let stuck = instance(&harness).await;
    assert_eq!(stuck["status"], "stuck");
    let why = stuck["memory"]["why"].as_str().unwrap();
    assert!(why.contains("step `ship`: `shipping.ship` was sent 2 times"), "{why}");
    world.ships.turn_on();
    harness.admin().retry_saga("order/checkout/o-1", "the carrier is back").await.unwrap();
    until(&harness, "order.completed").await;
    assert_eq!(status(&harness).await, "completed");
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_nobody_answers_is_stuck_and_can_be_passed_over() {
    let (harness, world) = (Harness::new(), World::default());
    world.ships.off();
    world.refunds.off();
    let app = start(&harness, checkout(1).keep(other()), &world).await;
    order(&app).await;
    harness.until(|| async { has(&harness, "payment.completed").await }).await;
    harness.settle().await;
    let refused = publish(NotShipped { order_id: "o-1".into() });
    app.service("order").commit(refused).await.unwrap();
    harness.clock.sleep(mins(61)).await;
    let stuck = instance(&harness).await;
    assert_eq!(stuck["status"], "stuck");
    let why = stuck["memory"]["why"].as_str().unwrap();
    assert!(why.contains("the undo of step `charge`: `payment.refund` was sent 4 times"), "{why}");
    harness.admin().skip_saga("order/checkout/o-1", "paid back by hand").await.unwrap();
    until(&harness, "order.cancelled").await;
    let undos: Vec<_> = world.log.notes().split_off(3);
    let refund = "refund order/checkout/o-1/charge";
    assert_eq!(undos, [refund, refund, refund, refund, "release"], "in reverse");
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_cancels_what_has_not_passed_its_pivot() {
    let (harness, world) = (Harness::new(), World::default());
    world.slow.turn_on();
    let app = start(&harness, checkout(1), &world).await;
    order(&app).await;
    harness.settle().await;
    harness.admin().cancel_saga("order/checkout/o-1", "by phone").await.unwrap();
    harness.settle().await;
    world.slow.off();
    until(&harness, "order.cancelled").await;
    assert_eq!(world.log.notes(), ["reserve", "release"], "what was under way is awaited");
    let refused = harness.admin().cancel_saga("order/checkout/o-1", "again").await.unwrap_err();
    assert!(refused.to_string().contains("has ended"), "{refused}");
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_twice_or_late_or_to_nobody_changes_nothing() {
    let (harness, world) = (Harness::new(), World::default());
    let app = start(&harness, checkout(1), &world).await;
    order(&app).await;
    until(&harness, "order.completed").await;
    let before = instance(&harness).await["memory"].clone();
    let shop = app.service("order");
    let id = || "o-1".to_owned();
    for late in [
        publish(Reserved { order_id: id() }),
        publish(Paid { order_id: id(), payment_id: "p-2".into() }),
        publish(Declined { order_id: id() }),
        publish(Released { order_id: id() }),
        publish(Shipped { order_id: id() }),
        publish(Ordered { order_id: id() }),
    ] {
        shop.commit(late).await.unwrap();
    }
    shop.commit(publish(Reserved { order_id: "nobody".into() })).await.unwrap();
    harness.settle().await;
    assert_eq!(instance(&harness).await["memory"], before);
    assert_eq!(world.log.notes().len(), 3);
    let orphan = harness.database().get("orphans", &["order/checkout/stock.reserved/nobody"]).await;
    let orphan = orphan.unwrap()[0].clone().unwrap();
    assert!(String::from_utf8_lossy(&orphan.body).contains("has no instance `nobody`"));
    app.drain().await;
}

/// Version 0 of the saga: without the charge.
fn other() -> Saga<Checkout> {
    Saga::<Checkout>::new("checkout", 0)
        .start_on::<Ordered>(Checkout::start)
        .step("reserve", Checkout::reserve, Checkout::release)
        .pivot("ship", Checkout::ship)
        .finish(Checkout::complete, Checkout::cancel)
}

/// Version 2: ships what was reserved, and charges for it then.
fn next() -> Saga<Checkout> {
    Saga::<Checkout>::new("checkout", 2)
        .start_on::<Ordered>(Checkout::start)
        .step("reserve", Checkout::reserve, Checkout::release)
        .pivot("ship", Checkout::ship)
        .step("charge", Checkout::charge)
        .finish(Checkout::complete, Checkout::cancel)
}

#[tokio::test(start_paused = true)]
async fn running_instances_end_as_they_began_or_are_brought_over() {
    for migrates in [false, true] {
        let (harness, world) = (Harness::new(), World::default());
        world.slow.turn_on();
        let app = start(&harness, checkout(1), &world).await;
        order(&app).await;
        harness.settle().await;
        app.drain().await;
        let newer = if migrates {
            next().migrate(checkout(1), |old: Checkout| old)
        } else {
            next().keep(checkout(1))
        };
        let app = start(&harness, newer, &world).await;
        world.slow.off();
        until(&harness, "order.completed").await;
        let charge = "charge order/checkout/o-1/charge";
        let expected =
            if migrates { ["reserve", "ship", charge] } else { ["reserve", charge, "ship"] };
        assert_eq!(world.log.notes(), expected);
        assert_eq!(instance(&harness).await["version"], if migrates { 2 } else { 1 });
        app.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_definition_needs_a_new_version_and_running_instances_their_old_one() {
    let (harness, world) = (Harness::new(), World::default());
    world.slow.turn_on();
    let app = start(&harness, checkout(1), &world).await;
    order(&app).await;
    harness.settle().await;
    app.drain().await;
    let changed = Saga::<Checkout>::new("checkout", 1)
        .start_on::<Ordered>(Checkout::start)
        .step("reserve", Checkout::reserve, Checkout::release)
        .pivot("ship", Checkout::ship)
        .finish(Checkout::complete, Checkout::cancel);
    let refused = try_start(&harness, changed, &world).await.err().unwrap().to_string();
    assert!(refused.contains("give the changed definition a new version"), "{refused}");
    let refused = try_start(&harness, next(), &world).await.err().unwrap().to_string();
    assert!(refused.contains("version 1 are still running"), "{refused}");
    let slower = checkout(1);
    let app = start(&harness, slower, &world).await;
    app.drain().await;
}

fn refused(saga: Saga<Checkout>) -> String {
    let app = App::new(Harness::new().database()).service(Service::new("order").saga(saga));
    app.check().unwrap_err().to_string()
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "stock.counted", internal)]
struct CountedInside {
    #[event(key)]
    order_id: String,
}

#[derive(Command, Serialize, Deserialize, Clone)]
#[command(name = "stock.count", done = CountedInside)]
struct Count {
    #[command(key)]
    order_id: String,
}

fn begun() -> Saga<Checkout, sillage::saga::Undoable> {
    Saga::<Checkout>::new("checkout", 1).start_on::<Ordered>(Checkout::start)
}

#[tokio::test(start_paused = true)]
async fn definitions_that_cannot_work_are_refused_at_the_start() {
    let done = |saga: Saga<Checkout, sillage::saga::Undoable>| {
        saga.finish(Checkout::complete, Checkout::cancel)
    };
    let twice = begun().step("one", Checkout::reserve, Checkout::release).step(
        "two",
        Checkout::reserve,
        no_undo,
    );
    assert!(
        refused(done(twice)).contains("steps `one` and `two` wait for the same `stock.reserved`")
    );
    let told = begun()
        .step("one", Checkout::reserve, no_undo)
        .only::<Reserved>(|_, _| true)
        .only::<Short>(|_, _| true)
        .step("two", Checkout::reserve, no_undo)
        .only::<Reserved>(|_, _| false)
        .only::<Short>(|_, _| false);
    App::new(Harness::new().database())
        .service(Service::new("order").saga(done(told)))
        .check()
        .unwrap();
    let count = |checkout: &Checkout| Count { order_id: checkout.order_id.clone() };
    let unheard = begun().step("count", count, no_undo).step("two", Checkout::reserve, no_undo);
    let why = refused(done(unheard));
    assert!(why.contains("step `two` is unreachable"), "{why}");
    let named = begun().step("a", Checkout::reserve, no_undo).step("a", Checkout::charge, no_undo);
    assert!(refused(done(named)).contains("two steps called `a`"));
    let stray = begun().step("a", Checkout::reserve, no_undo).remember::<Paid>(|_, _| ());
    assert!(refused(done(stray)).contains("`payment.completed`, which answers none of its steps"));
    assert!(refused(done(begun())).contains("has no step"));
    assert!(refused(done(begun().within(mins(1)))).contains("comes behind a step"));
    let backwards = checkout(1).keep(next());
    assert!(refused(backwards).contains("a newer one has a higher number"));
}

#[tokio::test(start_paused = true)]
async fn steps_beside_each_other_begin_at_once_and_are_joined() {
    let (harness, world) = (Harness::new(), World::default());
    let saga = || {
        begun()
            .step("reserve", Checkout::reserve, Checkout::release)
            .beside("charge", Checkout::charge, Checkout::refund)
            .pivot("ship", Checkout::ship)
            .finish(Checkout::complete, Checkout::cancel)
    };
    world.slow.turn_on();
    let app = start(&harness, saga(), &world).await;
    order(&app).await;
    until(&harness, "payment.completed").await;
    assert!(!has(&harness, "shipping.ship").await, "it waits for both");
    world.slow.off();
    until(&harness, "order.completed").await;
    app.drain().await;
}
