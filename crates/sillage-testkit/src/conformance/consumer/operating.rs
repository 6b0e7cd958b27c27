//! What operators do to parked keys and consumers.

use super::{
    super::ConsumerFixture,
    desk::{Desk, Invoiced, Placed, Probe},
    world::{BILLING, World},
};
use sillage::prelude::*;

/// The key goes on from its head, new events behind it. Sent back twice, it is done once.
pub async fn a_redrive_goes_on_in_order_and_twice_is_harmless<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    world.place("o", &["bad 1", "2", "3"]).await;
    let dead = world.dead_letters_until(1).await;
    world.passed(BILLING, 3).await;
    let (admin, id) = (&world.admin, &dead[0].id);
    assert!(admin.redrive(id, true, false).await.unwrap().refused.is_none());
    assert_eq!(desk.calls.notes(), ["o bad 1@1"], "a dry run sends nothing back");
    desk.broken.off();
    assert!(admin.redrive(id, false, false).await.unwrap().refused.is_none());
    // The key may be on its way, or gone already.
    let _again = admin.redrive(id, false, false).await;
    world.place("o", &["4"]).await;
    world.invoiced(BILLING).await;
    world.nothing_parked().await;
    app.drain().await;
    assert_eq!(desk.done_of("o"), ["bad 1", "2", "3", "4"]);
    world.assert_once_and_in_order().await;
    world.accounted(BILLING, 4).await;
    desk.assert_right();
}

/// Another consumer of the same event is not bothered again.
pub async fn a_redrive_reaches_only_the_consumer_that_failed<F: ConsumerFixture>(fixture: &F) {
    let (world, desk, email) = (World::new(fixture).await, Desk::new(), Probe::default());
    let noting = email.clone();
    let note = move |order: Placed| {
        let noting = noting.clone();
        async move { noting.note(&order.note) }
    };
    let service = Service::new("shop").state(desk.clone()).consumer(desk.billing());
    let app = world.start_service(service.consumer(Consumer::new("email").on(note))).await;
    world.place("o", &["bad 1", "2"]).await;
    let dead = world.dead_letters_until(1).await;
    world.passed("shop/email", 2).await;
    world.passed(BILLING, 2).await;
    desk.broken.off();
    world.admin.redrive(&dead[0].id, false, false).await.unwrap();
    world.log_until("invoice.sent", 2).await;
    world.place("o", &["3"]).await;
    email.reached("3").await;
    app.drain().await;
    assert_eq!(email.notes(), ["bad 1", "2", "3"]);
}

/// A skipped head is passed over, comes back as a dead letter, and a copy goes in its place.
pub async fn skip_goes_on_restore_takes_it_back_and_edit_replaces<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    world.place("o", &["bad 1", "2"]).await;
    let dead = world.dead_letters_until(1).await;
    world.passed(BILLING, 2).await;
    let (admin, id) = (&world.admin, &dead[0].id);
    admin.skip(id, "known").await.unwrap();
    desk.done.reached("o 2").await;
    world.dead_letters_until(0).await;
    world.nothing_parked().await;
    admin.restore(id).await.unwrap();
    let dead = world.dead_letters_until(1).await;
    let (_, deliveries) = admin.dead_letter(&dead[0].id, 10).await.unwrap();
    let original = deliveries[0].message.id.clone();
    let copy = serde_json::to_vec(&Placed::new("o", "mended")).unwrap();
    let copy = admin.edit(id, copy.into(), false).await.unwrap();
    assert_ne!(copy, original);
    desk.done.reached("o mended").await;
    world.nothing_parked().await;
    world.place("o", &["3"]).await;
    desk.done.reached("o 3").await;
    world.passed(BILLING, 3).await;
    app.drain().await;
    assert_eq!(desk.done_of("o"), ["2", "mended", "3"]);
    assert_eq!(desk.calls.count(|call| call == "o bad 1@1"), 1, "the original never runs again");
    world.accounted(BILLING, 3).await;
}

/// What waits behind a dead letter and has no handler leaves the key without an effect.
pub async fn what_has_no_handler_does_not_block_a_redriven_key<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    world.place("o", &["bad 1"]).await;
    world.send("order.unknown", 1, "o", "{}").await;
    world.place("o", &["2"]).await;
    world.passed(BILLING, 3).await;
    let dead = world.dead_letters_until(1).await;
    desk.broken.off();
    world.admin.redrive(&dead[0].id, false, false).await.unwrap();
    desk.done.reached("o 2").await;
    world.nothing_parked().await;
    app.drain().await;
    assert_eq!(desk.done_of("o"), ["bad 1", "2"]);
}

/// At every try, after a redrive, and for the copy that an operator put in its place.
pub async fn external_calls_repeat_their_idempotency_key<F: ConsumerFixture>(fixture: &F) {
    async fn charge(
        order: Placed,
        State(desk): State<Desk>,
        meta: Meta,
    ) -> Result<Effects, Failure> {
        desk.calls.note(&format!("{}", meta.idempotency_key("charge")));
        if desk.broken.is_on() {
            return Err(Failure::transient("unknown whether it was charged"));
        }
        let Placed { order_id, note } = order;
        Ok(publish(Invoiced { order_id, note }))
    }
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let consumer =
        Consumer::new("billing").on(charge).retry(Retry::in_lane([ms(5)]).then_park([ms(50)]));
    let app = world.start_with(&desk, consumer).await;
    world.place("o", &["1"]).await;
    let dead = world.dead_letters_until(1).await;
    let (admin, id) = (&world.admin, &dead[0].id);
    admin.redrive(id, false, false).await.unwrap();
    desk.calls.until("it was sent back", |calls| calls.len() >= 4).await;
    world.dead_letters_until(1).await;
    desk.broken.off();
    let copy = serde_json::to_vec(&Placed::new("o", "mended")).unwrap();
    admin.edit(id, copy.into(), false).await.unwrap();
    world.log_until("invoice.sent", 1).await;
    app.drain().await;
    let keys = desk.calls.notes();
    assert!(keys.len() >= 5 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

/// In all its apps, also in one that starts meanwhile; other consumers go on.
pub async fn a_paused_consumer_waits_until_it_is_resumed<F: ConsumerFixture>(fixture: &F) {
    let (world, desk, email) = (World::new(fixture).await, Desk::new(), Probe::default());
    let service = || {
        let noting = email.clone();
        let note = move |order: Placed| {
            let noting = noting.clone();
            async move { noting.note(&order.note) }
        };
        let service = Service::new("shop").state(desk.clone()).consumer(desk.billing());
        service.consumer(Consumer::new("email").on(note))
    };
    let app = world.start_service(service()).await;
    world.place("o", &["1"]).await;
    desk.done.reached("o 1").await;
    world.admin.pause(BILLING, "a test").await.unwrap();
    world.until("the app had paused", || async { !app.health().ready }).await;
    let problems = app.health().problems.join(" ");
    assert!(problems.contains("a test"), "{problems}");
    world.place("o", &["2"]).await;
    email.reached("2").await;
    app.drain().await;
    let app = world.start_service(service()).await;
    world.place("o", &["3"]).await;
    email.reached("3").await;
    assert_eq!(desk.done_of("o"), ["1"]);
    world.admin.resume(BILLING).await.unwrap();
    desk.done.reached("o 3").await;
    app.drain().await;
    assert_eq!(desk.done_of("o"), ["1", "2", "3"]);
    world.assert_once_and_in_order().await;
}
