//! Messages of one key arrive in the order in which they were published.

use super::{
    BrokerFixture,
    case::{Case, KEYS, all_got, assert_got, assert_taken, without_redeliveries},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// In one batch, in many, before and after the consumer has joined.
pub async fn a_key_arrives_in_the_order_of_publishing<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "order").await;
    let orders = case.orders(0..3000);
    case.publish(&orders[..1000]).await;
    let mut members = [case.join().await];
    case.until_got(&mut members, &orders[..1000]).await;
    case.publish(&orders[1000..1500]).await;
    let publisher = case.publish_meanwhile(&orders[1500..], 7);
    case.until_got(&mut members, &orders).await;
    publisher.await.unwrap();
    assert_got(&members[0].got, &orders);
    members[0].close().await;
}

/// Nobody waits for a batch to be confirmed before the next one is handed over.
pub async fn batches_in_flight_keep_their_order<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "flight").await;
    let orders = case.orders(0..2000);
    let mut members = [case.join().await];
    for window in orders.chunks(500) {
        let batches: Vec<_> = window.chunks(9).map(<[_]>::to_vec).collect();
        let futures = batches.into_iter().map(|batch| {
            let count = batch.len();
            (tokio::spawn(case.broker.publish(batch)), count)
        });
        // Each was handed over by the call, in this order, whichever is polled first.
        for (receipts, count) in futures.collect::<Vec<_>>() {
            assert_taken(&receipts.await.unwrap(), count);
        }
    }
    case.until_got(&mut members, &orders).await;
    assert_got(&members[0].got, &orders);
    members[0].close().await;
}

/// Messages are handed over by the call itself, not when somebody waits for the receipts.
pub async fn what_is_published_first_comes_first_whoever_waits_for_it<F: BrokerFixture>(
    fixture: &F,
) {
    let case = Case::new(fixture, "handed").await;
    let orders = case.orders(0..400);
    let mut futures: Vec<_> =
        orders.chunks(20).map(|batch| case.broker.publish(batch.to_vec())).collect();
    // Nobody ever polls this one.
    drop(futures.remove(3));
    while let Some(receipts) = futures.pop() {
        assert_taken(&receipts.await, 20);
    }
    let mut members = [case.join().await];
    case.until_got(&mut members, &orders).await;
    assert_got(&members[0].got, &orders);
    members[0].close().await;
}

/// They are ordered with nothing, and nothing waits for them.
pub async fn messages_without_a_key_arrive_once_each<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "keyless").await;
    let messages: Vec<_> = (0..300).map(|n| Arc::new(case.message(None, n))).collect();
    case.publish(&messages).await;
    let mut members = [case.join().await];
    case.until_got(&mut members, &messages).await;
    case.flush_keys(&mut members, 1000).await;
    let (got, markers) = (all_got(&members), case.orders(1000..1000 + KEYS));
    let (keyless, rest): (Vec<_>, Vec<_>) =
        got.iter().partition(|got| got.delivery.message.key.is_none());
    assert_got(rest, &markers);
    assert_eq!(keyless.len(), messages.len());
    let ids: BTreeSet<_> = keyless.iter().map(|got| got.id()).collect();
    assert_eq!(ids.len(), messages.len());
    members[0].close().await;
}

/// So that its order is that of the partition; and keys are spread over partitions.
pub async fn a_key_is_in_one_partition<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "partition").await;
    let orders = case.orders(0..200);
    case.publish(&orders).await;
    let mut members = [case.join().await];
    case.until_got(&mut members, &orders).await;
    let mut keys: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for got in without_redeliveries(&all_got(&members)) {
        keys.entry(got.delivery.message.key.clone()).or_default().insert(got.partition);
    }
    assert!(keys.values().all(|partitions| partitions.len() == 1), "{keys:?}");
    let used: BTreeSet<_> = keys.values().flatten().collect();
    assert!(used.len() > 1, "all keys are in {used:?}");
    members[0].close().await;
}
