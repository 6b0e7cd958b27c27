//! Apps that stop: as they should, and without a word.

use super::{
    super::ConsumerFixture,
    desk::{Desk, Placed},
    world::{BILLING, World},
};
use sillage::prelude::*;

/// What is finished when an app drains is not handled again, and what waits is handled by the
/// next one.
pub async fn a_drained_app_leaves_nothing_to_redeliver<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::taking(ms(2)));
    world.has_been_there(&desk).await;
    world.place_many(0..20).await;
    for _ in 0..3 {
        let app = world.start(&desk).await;
        let before = desk.done.notes().len();
        desk.done.until("it did some", |done| done.len() >= (before + 50).min(400)).await;
        app.drain().await;
    }
    let app = world.start(&desk).await;
    world.invoiced(BILLING).await;
    app.drain().await;
    let (mut calls, count) = (desk.calls.notes(), desk.calls.notes().len());
    calls.sort_unstable();
    calls.dedup();
    assert_eq!((count, calls.len()), (400, 400), "handlers that ended ran again");
    world.assert_once_and_in_order().await;
    world.accounted(BILLING, 400).await;
    desk.assert_right();
}

/// What has ended while something before it in its partition waits is counted, and does not come
/// again: an app that drains leaves such gaps.
pub async fn what_ended_out_of_turn_is_counted<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    world.has_been_there(&desk).await;
    world.place("o", &["slow 1", "2"]).await;
    world.commit((0..40).map(|key| Placed::new(&format!("k{key}"), "1"))).await;
    let app = world.start(&desk).await;
    desk.done.until("the others are done", |done| done.len() == 40).await;
    tokio::join!(app.drain(), async { desk.gate.note("open") });
    let app = world.start(&desk).await;
    world.invoiced(BILLING).await;
    app.drain().await;
    assert_eq!(desk.calls.notes().len(), 42, "handlers that ended ran again");
    world.assert_once_and_in_order().await;
    world.accounted(BILLING, 42).await;
}

/// A process dies in the middle, twice: handlers may run again, their effects are there once, in
/// order, and everything is counted once.
pub async fn an_app_that_is_gone_without_draining_doubles_nothing<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::taking(ms(5)));
    world.has_been_there(&desk).await;
    world.place_many(0..30).await;
    for wanted in [100, 300] {
        let app = world.start(&desk).await;
        world.log_until("invoice.sent", wanted).await;
        drop(app);
    }
    let app = world.start(&desk).await;
    world.invoiced(BILLING).await;
    app.drain().await;
    world.assert_once_and_in_order().await;
    world.accounted(BILLING, 600).await;
}

/// A key that a process had parked when it died is another's, with all that waits behind it.
pub async fn what_a_dead_process_had_parked_is_redriven_by_another<F: ConsumerFixture>(
    fixture: &F,
) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    world.place("o", &["bad 1", "2"]).await;
    let dead = world.dead_letters_until(1).await;
    world.passed(BILLING, 2).await;
    drop(app);
    let app = world.start(&desk).await;
    world.place("o", &["3"]).await;
    world.passed(BILLING, 3).await;
    assert_eq!(desk.calls.notes(), ["o bad 1@1"]);
    desk.broken.off();
    world.admin.redrive(&dead[0].id, false, false).await.unwrap();
    world.invoiced(BILLING).await;
    world.nothing_parked().await;
    app.drain().await;
    world.assert_once_and_in_order().await;
    world.accounted(BILLING, 3).await;
}
