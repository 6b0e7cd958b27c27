//! What a consumer has no handler for, and what its handlers cannot read.

use super::{
    super::ConsumerFixture,
    desk::{Desk, Placed},
    world::{BILLING, World},
};
use sillage::prelude::*;

/// It is counted, and in nobody's way.
pub async fn an_event_without_a_handler_is_ignored_and_counted<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    for _ in 0..3 {
        world.send("order.unknown", 1, "o", "{}").await;
        world.place("o", &["1"]).await;
    }
    world.passed(BILLING, 6).await;
    app.drain().await;
    world.accounted(BILLING, 6).await;
    let tally = world.consumer(BILLING).await.unwrap().tally;
    assert_eq!((tally.ignored, tally.done), (3, 3));
    assert_eq!(desk.done.notes().len(), 3);
}

/// What it has no handler for is a dead letter that says so.
pub async fn a_strict_consumer_ignores_nothing<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start_with(&desk, desk.billing().strict()).await;
    world.send("order.unknown", 1, "o", "{}").await;
    let dead = world.dead_letters_until(1).await;
    assert!(dead[0].key.failure.contains("no handler for `order.unknown`"), "{:?}", dead[0].key);
    app.drain().await;
}

/// No bytes stop a partition: the key of what cannot be read is parked, and others flow.
pub async fn what_cannot_be_read_is_a_dead_letter_with_its_key<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let garbage = [("garbage", "not json"), ("empty", ""), ("deep", deep.as_str())];
    for (key, payload) in garbage {
        world.send("order.placed", 1, key, payload).await;
        world.place(key, &["behind it"]).await;
        world.place("other", &[key]).await;
    }
    world.passed(BILLING, 9).await;
    let dead = world.dead_letters_until(3).await;
    for (key, _) in garbage {
        let of_it = dead.iter().find(|dead| dead.id.ends_with(&format!("/{key}"))).unwrap();
        assert_eq!((of_it.key.attempts, of_it.deliveries), (1, 2), "{of_it:?}");
        assert!(of_it.key.failure.contains("order.placed"), "{}", of_it.key.failure);
    }
    assert_eq!(desk.done_of("other"), ["garbage", "empty", "deep"]);
    assert_eq!(desk.done.notes().len(), 3);
    app.drain().await;
}

/// While versions are being deployed a newer producer may be ahead: added fields are no obstacle,
/// and what cannot be read waits for a reader that can, instead of being dead at once.
pub async fn a_newer_version_is_tried_as_it_is_and_else_parked<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let retry = Retry::in_lane([ms(10)]).then_park([hours(1)]);
    let app = world.start_with(&desk, desk.billing().retry(retry)).await;
    let added = r#"{"order_id":"added","note":"1","colour":"red"}"#;
    world.send("order.placed", 9, "added", added).await;
    world.send("order.placed", 9, "changed", r#"{"orderId":"changed"}"#).await;
    world.commit([Placed::new("added", "2")]).await;
    world.passed(BILLING, 3).await;
    assert_eq!(desk.done_of("added"), ["1", "2"]);
    let parked = world.admin.dead_letters(None, true).await.unwrap();
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert!(!parked[0].key.dead, "{:?}", parked[0].key);
    assert!(parked[0].key.failure.contains("newer producer"), "{}", parked[0].key.failure);
    app.drain().await;
}
