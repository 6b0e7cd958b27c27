//! Every path an order can take, through all services, in virtual time.

use crate::world::{World, names};
use shop::{
    events::{OrderCreatedV1, OrderRejected},
    gateway::Faults,
    ids::OrderId,
    money::{Card, Money},
    order::Status,
};
use sillage::{
    Clock as _, Contract as _, Effects, Events, Expected, Filter, Position, admin::Outgoing,
    append, mins,
};

#[tokio::test(start_paused = true)]
async fn a_paid_order_in_stock_is_shipped() {
    let world = World::open().await;
    world.register().await;
    let order = world.place("o", &["bell", "sextant"], Card::accepted()).await;
    let view = world.until(order, Status::Completed).await;
    let report = world.settled().await;
    assert_eq!((report.completed, report.emails, report.refunded), (1, 1, 0));
    assert_eq!(report.charged, view.total.minor);
    let mut timeline = names(&view);
    // Across topics there is no order: these two may come either way.
    timeline[2..4].sort_unstable();
    let expected = [
        "order.created",
        "payment.completed",
        "order.paid",
        "stock.reserved",
        "shipping.shipped",
        "order.completed",
    ];
    assert_eq!(timeline, expected);
    let timers = world.admin().timers(10).await.unwrap();
    assert!(timers.is_empty(), "paying cancels the timer: {timers:?}");
}

#[tokio::test(start_paused = true)]
async fn a_declined_card_cancels_the_order() {
    let world = World::open().await;
    world.register().await;
    let order = world.place("o", &["bell"], Card::declined()).await;
    let view = world.until(order, Status::Cancelled).await;
    assert_eq!(names(&view), ["order.created", "payment.failed", "order.cancelled"]);
    let report = world.settled().await;
    assert_eq!((report.cancelled, report.emails, report.charged), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_short_is_paid_back() {
    let world = World::open().await;
    world.register().await;
    let order = world.place("o", &["bell", "sold-out"], Card::accepted()).await;
    let view = world.until(order, Status::Cancelled).await;
    assert_eq!(view.timeline.last().unwrap().note.as_deref(), Some("`sold-out` is out of stock"));
    let report = world.settled().await;
    assert_eq!((report.cancelled, report.emails), (1, 1));
    assert_eq!(report.charged, report.refunded);
    assert_eq!(report.stock.on_hand, report.stock.initial);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_not_paid_in_time_is_cancelled_and_a_late_payment_goes_back() {
    let world = World::open().await;
    world.register().await;
    world.gateway_down(true).await;
    let order = world.place("o", &["bell"], Card::accepted()).await;
    let view = world.until(order, Status::Cancelled).await;
    let waited = view.timeline[1].at.since(view.timeline[0].at);
    assert!((mins(15)..mins(17)).contains(&waited), "{waited:?}");
    assert_eq!(view.timeline[1].note.as_deref(), Some("no payment came in time"));
    world.gateway_down(false).await;
    let report = world.settled().await;
    assert_eq!((report.cancelled, report.emails), (1, 1));
    // The charge that had waited for the gateway comes after all, and is paid back.
    let report = world.settled_with(|report| report.refunded > 0).await;
    assert_eq!(report.charged, report.refunded);
    assert_eq!(report.stock.on_hand, report.stock.initial);
    let view = world.until(order, Status::Cancelled).await;
    assert!(!names(&view).iter().any(|name| name.starts_with("stock.")), "{view:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_down_for_a_while_costs_nothing_but_time() {
    let world = World::open().await;
    world.register().await;
    world.gateway_down(true).await;
    let order = world.place("o", &["bell"], Card::accepted()).await;
    world.clock.sleep(mins(5)).await;
    assert_eq!(world.see(order).await.status, Status::Placed);
    assert!(world.admin().dead_letters(None, true).await.unwrap().is_empty());
    world.gateway_down(false).await;
    world.until(order, Status::Completed).await;
    world.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_mail_waits_until_the_address_is_known() {
    let world = World::open().await;
    let order = world.place("o", &["bell"], Card::accepted()).await;
    world.until(order, Status::Completed).await;
    world.register().await;
    let report = world.settled().await;
    assert_eq!(report.emails, 1);
}

/// The key's later events wait behind the one that failed, and come in order after it: paying back
/// before charging would keep the money.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_holds_its_order_and_no_other_until_it_is_sent_back() {
    let world = World::open().await;
    world.register().await;
    let faults = Faults { fail_customer: Some(World::customer()), ..Faults::default() };
    world.gateway.misbehave(&faults).await.unwrap();
    let stuck = world.place("stuck", &["bell"], Card::accepted()).await;
    let dead = world.dead_letter("payment/payment").await;
    world.gateway.misbehave(&Faults::default()).await.unwrap();
    let other = world.place("other", &["bell"], Card::accepted()).await;
    world.until(other, Status::Completed).await;
    // The time to pay runs out, and `order.cancelled` waits behind `order.created`.
    world.until(stuck, Status::Cancelled).await;
    world.admin().redrive(&dead, false, false).await.unwrap();
    let report = world.settled_with(|report| report.refunded > 0).await;
    assert_eq!((report.completed, report.cancelled, report.emails), (1, 1, 2));
    assert!(world.admin().dead_letters(None, true).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_command_from_the_broker_places_an_order_or_is_answered_with_its_refusal() {
    let world = World::open().await;
    world.register().await;
    let admin = world.admin();
    let send = async |key: &str, product: &str| {
        let order_id = OrderId::of_key(key);
        let item = serde_json::json!({ "product_id": product, "quantity": 1 });
        let body = serde_json::json!({
            "order_id": order_id, "customer_id": "ann", "items": [item], "card": "4242424242424242"
        });
        let outgoing = Outgoing {
            name: "order.create".into(),
            version: 1,
            topic: "order.commands".into(),
            key: Some(order_id.to_string()),
            payload: body.to_string().into_bytes(),
        };
        admin.publish(outgoing).await.unwrap();
        order_id
    };
    let good = send("good", "bell").await;
    world.until(good, Status::Completed).await;
    let bad = send("bad", "moon").await;
    let view = world.until(bad, Status::Rejected).await;
    assert_eq!(view.timeline[0].note.as_deref(), Some("there is no product `moon`"));
    world.settled().await;
    let names = entries_of(&world, bad).await;
    assert_eq!(names, ["order.create", OrderRejected::NAME]);
}

async fn entries_of(world: &World, order_id: OrderId) -> Vec<String> {
    let page = world.database.log(Position(0), &Filter::default(), 1_000).await.unwrap();
    let key = order_id.to_string();
    let of_it = page
        .entries
        .iter()
        .filter(|entry| entry.key.as_ref().is_some_and(|of| of.as_bytes() == key.as_bytes()));
    of_it.map(|entry| entry.name.to_string()).collect()
}

/// An old payload in the log, as version 1 wrote it.
struct Old(OrderCreatedV1);

impl Events for Old {
    const NAMES: &'static [&'static str] = &[OrderCreatedV1::NAME];
    fn name(&self) -> &'static str {
        OrderCreatedV1::NAME
    }
    fn draft(&self) -> sillage::Draft {
        sillage::Draft::of(&self.0)
    }
    fn read(_: &str, version: u32, payload: &[u8]) -> Result<Self, sillage::DecodeError> {
        OrderCreatedV1::read(version, payload).map(Old)
    }
}

fn old_order(key: &str) -> (OrderId, Effects) {
    let order_id = OrderId::of_key(key);
    let old = OrderCreatedV1 {
        order_id,
        customer_id: World::customer(),
        product_id: "bell".parse().unwrap(),
        quantity: 2,
        card: Card::accepted(),
        total: 91.0,
    };
    (order_id, append(format!("order-{order_id}"), Expected::NoStream, &[Old(old)]))
}

#[tokio::test(start_paused = true)]
async fn an_order_stored_as_version_1_is_projected_parked_and_sent_back() {
    let world = World::open().await;
    world.register().await;
    let faults = Faults { fail_customer: Some(World::customer()), ..Faults::default() };
    world.gateway.misbehave(&faults).await.unwrap();
    let (order, effects) = old_order("old");
    world.running.service("order").commit(effects).await.unwrap();
    let view = world.until(order, Status::Placed).await;
    assert_eq!((view.total, view.items[0].quantity), (Money::cents(9_100), 2));
    let dead = world.dead_letter("payment/payment").await;
    world.gateway.misbehave(&Faults::default()).await.unwrap();
    world.admin().redrive(&dead, false, false).await.unwrap();
    world.until(order, Status::Completed).await;
    let report = world.settled().await;
    assert_eq!((report.completed, report.charged), (1, 9_100));
}
