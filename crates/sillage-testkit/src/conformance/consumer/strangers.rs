//! What others do to a broker that an app shares with them. On the embedded broker there is nobody
//! else.

use super::{
    super::{ConsumerFixture, values},
    desk::{Desk, Invoiced, Placed},
    world::{BILLING, World},
};
use sillage::{Message, prelude::*};
use std::{sync::Arc, time::Duration};

/// Somebody publishes without any header: it is set aside with that reason, and others flow.
pub async fn what_says_nothing_of_itself_is_a_dead_letter<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    if fixture.publish_bare("order", "o", r#"{"order_id":"o","note":"1"}"#).await {
        let dead = world.dead_letters_until(1).await;
        let said = &dead[0].key.failure;
        assert!(said.contains("does not say what it is"), "{said}");
        world.place("other", &["1"]).await;
        world.passed(BILLING, 2).await;
        assert_eq!(desk.done.notes(), ["other 1"]);
    }
    app.drain().await;
}

/// Ids are unique for their source only.
pub async fn equal_ids_of_two_sources_are_two_messages<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let Some(broker) = fixture.broker().await else { return };
    let app = world.start(&desk).await;
    let order = |source: &str| {
        Arc::new(Message {
            source: source.into(),
            name: "order.placed".into(),
            topic: Some("order".into()),
            key: Some("o".into()),
            payload: format!(r#"{{"order_id":"o","note":"of {source}"}}"#).into(),
            ..values::message("1")
        })
    };
    for source in ["shop-a", "shop-b", "shop-a", "shop-b"] {
        let receipts = broker.publish(vec![order(source)]).await;
        assert!(receipts[0].is_ok(), "{receipts:?}");
    }
    world.passed(BILLING, 4).await;
    app.drain().await;
    let invoices = world.log("invoice.sent").await;
    let notes: Vec<Invoiced> =
        invoices.iter().map(|entry| serde_json::from_slice(&entry.payload).unwrap()).collect();
    let notes: Vec<_> = notes.iter().map(|invoice| &*invoice.note).collect();
    assert_eq!(notes, ["of shop-a", "of shop-b"]);
    let tally = world.consumer(BILLING).await.unwrap().tally;
    assert_eq!((tally.done, tally.duplicates), (2, 2), "{tally:?}");
}

/// A message that its topic does not take waits in the relay with what is behind it, for an
/// operator; other keys know nothing of it.
pub async fn what_a_topic_does_not_take_is_parked_in_the_relay<F: ConsumerFixture>(fixture: &F) {
    if !fixture.make_narrow("order", 4_000).await {
        return;
    }
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    // Nothing that compresses.
    let noise = [0; 200].map(|_| format!("{:032x}", rand::random::<u128>())).concat();
    for note in ["1", &noise, "3"] {
        world.commit([Placed::new("large", note), Placed::new("other", "1")]).await;
    }
    world.passed(BILLING, 4).await;
    let dead = world.dead_letters_until(1).await;
    assert_eq!((&*dead[0].key.consumer, dead[0].deliveries), ("broker/relay", 2), "{dead:?}");
    assert!(dead[0].key.failure.contains("takes 4000"), "{}", dead[0].key.failure);
    assert_eq!((desk.done_of("large").len(), desk.done_of("other").len()), (1, 3));
    app.drain().await;
}

/// The relay makes it again, or says that it is gone; nothing that was committed is lost on the
/// way, and other topics flow.
pub async fn a_topic_that_is_deleted_stops_nobody_else<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    let app = world.start(&desk).await;
    world.place_many(0..5).await;
    world.invoiced(BILLING).await;
    if fixture.delete("order").await {
        world.place_many(5..10).await;
        world.passed("broker/relay", 300).await;
    }
    app.drain().await;
}

/// Again and again all connections are cut, while orders are placed, published, handled, and
/// settled. Of one key orders are placed until one is handled that was placed since the cut: what was
/// not confirmed has others behind it, before the connections are back and after that.
pub async fn cuts_between_app_and_broker_lose_double_and_reorder_nothing<F: ConsumerFixture>(
    fixture: &F,
) {
    let (world, desk) = (World::new(fixture).await, Desk::taking(ms(1)));
    if !fixture.cut().await {
        return;
    }
    let app = world.start(&desk).await;
    let (mut next, mut placed) = (0, 0);
    for _ in 0..4 {
        world.place_many(next..next + 5).await;
        (next, placed) = (next + 5, placed + 5 * 20);
        let first_since = format!("k0 {next:04}");
        let go_on_placing = async {
            loop {
                world.place("k0", &[&format!("{next:04}")]).await;
                (next, placed) = (next + 1, placed + 1);
                let few_wait = |done: &[String]| done.len() + 150 > placed;
                desk.done.until("few orders waited", few_wait).await;
            }
        };
        let until_back = async {
            tokio::select! {
                () = desk.done.reached(&first_since) => {}
                () = go_on_placing => {}
            }
        };
        tokio::join!(fixture.cut(), until_back);
    }
    world.invoiced(BILLING).await;
    app.drain().await;
    world.assert_once_and_in_order().await;
    world.accounted(BILLING, placed as u64).await;
    desk.assert_right();
}

/// A partition that was lost while nothing was to come is not forgotten when everything may come again.
pub async fn what_is_cut_off_while_a_breaker_is_open_comes_again<F: ConsumerFixture>(fixture: &F) {
    let (world, desk) = (World::new(fixture).await, Desk::new());
    if !fixture.cut().await {
        return;
    }
    let breaker = Breaker::failures(0.5).of_at_least(10).open_for(Duration::from_secs(10));
    let service = Service::new("shop").state(desk.clone()).breaker("gateway", breaker);
    let app = world.start_service(service.consumer(desk.billing())).await;
    world.commit((0..40).map(|key| Placed::new(&format!("k{key}"), "away"))).await;
    let is_open = || async { !world.admin.breakers().await.unwrap().is_empty() };
    world.until("the breaker was open", is_open).await;
    let has_lost = || async { app.health().notes.iter().any(|note| note.contains(BILLING)) };
    let until_lost = async {
        world.until("it had lost its partitions", has_lost).await;
        desk.broken.off();
    };
    tokio::join!(fixture.cut(), until_lost);
    world.invoiced(BILLING).await;
    app.drain().await;
    world.assert_once_and_in_order().await;
    desk.assert_right();
}
