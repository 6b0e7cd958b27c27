//! Failures: what is tried again, set aside or dead, and that all of it is counted.

use super::{
    super::ConsumerFixture,
    desk::{Desk, Placed},
    world::{BILLING, World},
};
use sillage::prelude::*;

/// Its later events are set aside behind it; other keys know nothing of it.
pub async fn a_failing_key_is_parked_and_others_flow<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let retry = Retry::in_lane([ms(10)]).then_park([ms(100)]);
    let app = world.start_with(&desk, desk.billing().retry(retry)).await;
    for note in ["1", "2", "3"] {
        let failing = Placed::new("o", &format!("failing {note}"));
        world.commit([failing, Placed::new("other", note)]).await;
    }
    world.passed(BILLING, 6).await;
    let dead = world.dead_letters_until(1).await;
    assert!(dead[0].id.ends_with("/o"), "{dead:?}");
    assert_eq!((dead[0].key.attempts, dead[0].deliveries), (3, 3));
    assert!(dead[0].key.failure.contains("supplier"), "{}", dead[0].key.failure);
    assert_eq!(desk.done_of("other"), ["1", "2", "3"]);
    assert_eq!(desk.calls.count(|call| call.starts_with("o failing 1")), 3);
    assert_eq!(desk.calls.count(|call| call.starts_with("o ")), 3, "nothing overtakes");
    app.drain().await;
}

/// When the parked head succeeds, what is behind it follows in order, and new events behind that.
pub async fn a_parked_key_is_tried_again_in_its_order<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let retry = Retry::in_lane([ms(5)]).then_park([ms(200), ms(200)]);
    let app = world.start_with(&desk, desk.billing().retry(retry)).await;
    for round in 0..5 {
        let notes = ["thrice", "once", "", "thrice", ""];
        let notes = notes.map(|note| format!("{note} {round}"));
        world.commit(notes.iter().map(|note| Placed::new("o", note))).await;
    }
    world.invoiced(BILLING).await;
    world.nothing_parked().await;
    app.drain().await;
    world.assert_once_and_in_order().await;
    world.accounted(BILLING, 25).await;
    desk.assert_right();
}

/// There is no second try.
pub async fn a_permanent_failure_is_dead_at_once<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    world.place("o", &["bad"]).await;
    let dead = world.dead_letters_until(1).await;
    assert_eq!((dead[0].key.attempts, dead[0].key.failure.as_str()), (1, "it is bad"));
    app.drain().await;
    assert_eq!(desk.calls.notes(), ["o bad@1"]);
}

/// It ends its own delivery and nothing else.
pub async fn a_panic_is_dead_at_once<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    world.commit([Placed::new("o", "panic"), Placed::new("other", "1")]).await;
    let dead = world.dead_letters_until(1).await;
    assert!(dead[0].key.failure.contains("out of luck"), "{}", dead[0].key.failure);
    desk.done.reached("other 1").await;
    app.drain().await;
}

/// It is stopped, and has failed.
pub async fn a_handler_over_its_time_limit_fails<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let consumer = desk.billing().retry(Retry::never()).time_limit(ms(300));
    let app = world.start_with(&desk, consumer).await;
    world.place("o", &["stuck"]).await;
    let dead = world.dead_letters_until(1).await;
    assert!(dead[0].key.failure.contains("time limit"), "{}", dead[0].key.failure);
    app.drain().await;
}

/// What depends on it waits in its lane, however often it is tried, and nothing is parked.
pub async fn what_is_unavailable_spends_no_attempt<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start_with(&desk, desk.billing().retry(Retry::never())).await;
    world.place("o", &["away 1", "2"]).await;
    let often = |calls: &[String]| calls.len() >= 4;
    desk.calls.until("it was tried four times", often).await;
    assert!(world.admin.dead_letters(None, true).await.unwrap().is_empty());
    desk.broken.off();
    world.passed(BILLING, 2).await;
    app.drain().await;
    let calls = desk.calls.notes();
    let (last, tries) = calls.split_last().unwrap();
    assert_eq!(last, "o 2@1");
    assert!(tries.iter().all(|call| call == "o away 1@1"), "{calls:?}");
}

/// received = done + parked + ignored + duplicates, whatever became of each; and what was parked
/// is found again as keys.
pub async fn every_delivery_is_accounted_for<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let retry = Retry::in_lane([ms(5)]).then_park([hours(1)]);
    let app = world.start_with(&desk, desk.billing().retry(retry)).await;
    for n in 0..60 {
        let key = format!("k{n}");
        match n % 6 {
            0 if n < 30 => world.place(&key, &["bad", "1"]).await,
            1 => world.place(&key, &["once", "1"]).await,
            2 if n < 30 => world.place(&key, &["failing", "1"]).await,
            3 => world.send("order.unknown", 1, &key, "{}").await,
            4 if n < 30 => world.send("order.placed", 1, &key, "[1]").await,
            _ => world.place(&key, &["1"]).await,
        }
    }
    // Fifteen keys fail, fewer than a kill switch needs; each of ten has one more behind it.
    let deliveries = 60 + 10 + 10;
    world.passed(BILLING, deliveries).await;
    app.drain().await;
    world.accounted(BILLING, deliveries).await;
    let status = world.consumer(BILLING).await.unwrap();
    assert_eq!((status.tally.ignored, status.tally.parked), (10, 25), "{status:?}");
    assert_eq!((status.parked_keys, status.dead_letters), (15, 10), "{status:?}");
    assert_eq!(status.parked_deliveries, 25, "{status:?}");
    assert_eq!(world.log("invoice.sent").await.len() as u64, status.tally.done);
}
