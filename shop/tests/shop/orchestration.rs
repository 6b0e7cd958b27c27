//! The same paths with the checkout in charge, and dunning, in virtual time.

use crate::world::{World, names};
use shop::{
    gateway::Faults,
    money::Card,
    order::Status,
    parts::{Flow, check_flow},
};
use sillage::{Clock as _, Filter, Position, mins, saga::Status as Saga, secs};

async fn world() -> World {
    let world = World::of(Flow::Orchestration).await;
    world.register().await;
    world
}

/// How the one saga has ended.
async fn ended(world: &World) -> Saga {
    let sagas = world.admin().sagas(Some("order/checkout"), None, 10).await.unwrap();
    assert_eq!(sagas.len(), 1);
    let timers = world.admin().timers(10).await.unwrap();
    assert!(timers.is_empty(), "{timers:?}");
    sagas[0].status
}

async fn count(world: &World, name: &str) -> usize {
    let filter = Filter { names: vec![name.into()], ..Filter::default() };
    world.database.log(Position(0), &filter, 100).await.unwrap().entries.len()
}

#[tokio::test(start_paused = true)]
async fn the_checkout_reserves_charges_and_ships() {
    let world = world().await;
    let order = world.place("o", &["bell", "sextant"], Card::accepted()).await;
    let view = world.until(order, Status::Completed).await;
    let report = world.settled().await;
    assert_eq!((report.completed, report.emails, report.refunded), (1, 1, 0));
    assert_eq!(report.charged, view.total.minor);
    assert_eq!(ended(&world).await, Saga::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_declined_card_puts_the_items_back() {
    let world = world().await;
    let order = world.place("o", &["bell"], Card::declined()).await;
    let view = world.until(order, Status::Cancelled).await;
    assert!(names(&view).contains(&"stock.reserved"), "{view:#?}");
    let report = world.settled().await;
    assert_eq!((report.cancelled, report.emails, report.charged), (1, 1, 0));
    assert_eq!(report.stock.on_hand, report.stock.initial);
    assert_eq!(ended(&world).await, Saga::Compensated);
}

#[tokio::test(start_paused = true)]
async fn what_is_short_is_never_charged() {
    let world = world().await;
    let order = world.place("o", &["bell", "sold-out"], Card::accepted()).await;
    let view = world.until(order, Status::Cancelled).await;
    assert_eq!(view.timeline.last().unwrap().note.as_deref(), Some("`sold-out` is out of stock"));
    let report = world.settled().await;
    assert_eq!((report.cancelled, report.emails, report.charged), (1, 1, 0));
    assert_eq!(ended(&world).await, Saga::Compensated);
}

#[tokio::test(start_paused = true)]
async fn a_charge_that_is_not_answered_in_time_is_unknown_and_paid_back() {
    let world = world().await;
    world.gateway_down(true).await;
    let order = world.place("o", &["bell"], Card::accepted()).await;
    world.clock.sleep(mins(14)).await;
    let running = world.admin().sagas(None, Some(Saga::Running), 10).await.unwrap();
    assert_eq!(*running[0].at, ["charge".into()]);
    world.clock.sleep(mins(2)).await;
    let back = world.admin().sagas(None, Some(Saga::Compensating), 10).await.unwrap();
    assert_eq!(back.len(), 1, "it waits for what becomes of the charge");
    world.gateway_down(false).await;
    // The charge comes after all, and its undo behind it.
    let view = world.until(order, Status::Cancelled).await;
    assert_eq!(view.timeline.last().unwrap().note.as_deref(), Some("no payment came in time"));
    let report = world.settled().await;
    assert_eq!((report.cancelled, report.emails), (1, 1));
    assert!(report.charged > 0 && report.charged == report.refunded, "{report:#?}");
    assert_eq!(report.stock.on_hand, report.stock.initial);
    assert_eq!(ended(&world).await, Saga::Compensated);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_at_a_participant_is_undone_behind_it_when_it_is_sent_back() {
    let world = world().await;
    let faults = Faults { fail_customer: Some(World::customer()), ..Faults::default() };
    world.gateway.misbehave(&faults).await.unwrap();
    let order = world.place("o", &["bell"], Card::accepted()).await;
    let dead = world.dead_letter("payment/payment").await;
    world.clock.sleep(mins(16)).await;
    world.gateway.misbehave(&Faults::default()).await.unwrap();
    world.admin().redrive(&dead, false, false).await.unwrap();
    world.until(order, Status::Cancelled).await;
    let report = world.settled().await;
    assert_eq!(report.charged, report.refunded);
    assert_eq!(ended(&world).await, Saga::Compensated);
}

/// Nobody would hear what open orders wait for, and the saga would charge again for those that have
/// ended.
#[tokio::test(start_paused = true)]
async fn a_shop_with_orders_does_not_change_its_flow() {
    for (before, after) in
        [(Flow::Choreography, Flow::Orchestration), (Flow::Orchestration, Flow::Choreography)]
    {
        let world = World::of(before).await;
        check_flow(&world.admin(), after).await.unwrap();
        world.register().await;
        world.gateway_down(true).await;
        let order = world.place("o", &["bell"], Card::accepted()).await;
        check_flow(&world.admin(), before).await.unwrap();
        let refused = check_flow(&world.admin(), after).await.unwrap_err().to_string();
        assert!(refused.contains("of its 1 orders 1 are open"), "{refused}");
        world.gateway_down(false).await;
        world.until(order, Status::Completed).await;
        let refused = check_flow(&world.admin(), after).await.unwrap_err().to_string();
        assert!(refused.contains("of its 1 orders 0 are open"), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_pay_is_reminded_once_and_then_given_up() {
    let world = World::open().await;
    world.register().await;
    world.gateway_down(true).await;
    let order = world.place("o", &["bell"], Card::accepted()).await;
    world.clock.sleep(mins(4)).await;
    assert_eq!(count(&world, "order.payment-reminded").await, 0);
    world.clock.sleep(secs(90)).await;
    assert_eq!(count(&world, "order.payment-reminded").await, 1);
    assert_eq!(world.see(order).await.status, Status::Placed);
    world.until(order, Status::Cancelled).await;
    assert_eq!(count(&world, "order.payment-reminded").await, 1);
    assert!(world.admin().timers(10).await.unwrap().is_empty());
    world.gateway_down(false).await;
    world.settled_with(|report| report.refunded > 0).await;
}

#[tokio::test(start_paused = true)]
async fn who_pays_after_the_reminder_hears_no_more_of_it() {
    let world = World::open().await;
    world.register().await;
    world.gateway_down(true).await;
    let order = world.place("o", &["bell"], Card::accepted()).await;
    world.clock.sleep(mins(6)).await;
    world.gateway_down(false).await;
    world.until(order, Status::Completed).await;
    assert!(world.admin().timers(10).await.unwrap().is_empty(), "paying cancels the timer");
    world.clock.sleep(mins(30)).await;
    assert_eq!(count(&world, "order.payment-reminded").await, 1);
    assert_eq!(count(&world, "order.payment-due").await, 1);
    assert_eq!(count(&world, "order.cancelled").await, 0);
    world.settled().await;
}
