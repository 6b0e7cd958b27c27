//! Where a consumer without a stored place starts, and broadcasts. What was published before needs
//! a broker that can read history again, and for a consumer one that keeps it for consumers that
//! were never there.

use super::{
    BrokerFixture,
    case::{Case, KEYS, assert_got},
    joined::Joined,
};
use sillage::SystemClock;
use sillage_core::{Clock, Message, Start, Subscription};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::sleep;

/// At the oldest message there is.
pub async fn a_consumer_starts_at_the_earliest_message<F: BrokerFixture>(fixture: &F) {
    let case = Case::without_consumers(fixture, "earliest").await;
    if !case.can.replay || fixture.begins_at_subscription() {
        return;
    }
    let orders = case.orders(0..200);
    case.publish(&orders).await;
    let mut members = [case.join().await];
    case.until_got(&mut members, &orders).await;
    assert_got(&members[0].got, &orders);
    members[0].close().await;
}

/// At what is published once it has joined.
pub async fn a_consumer_starts_at_the_latest_message<F: BrokerFixture>(fixture: &F) {
    let case = Case::without_consumers(fixture, "latest").await;
    let orders = case.orders(0..200);
    case.publish(&orders[..100]).await;
    let latest = Subscription { start: Start::Latest, ..case.subscription("billing") };
    let mut members = [Joined::join(&case, latest).await];
    case.until_shared(&mut members).await;
    case.publish(&orders[100..]).await;
    case.until_got(&mut members, &orders[100..]).await;
    assert_got(&members[0].got, &orders[100..]);
    members[0].close().await;
}

/// At the last so many of each partition.
pub async fn a_consumer_starts_at_the_last_messages<F: BrokerFixture>(fixture: &F) {
    let case = Case::without_consumers(fixture, "last").await;
    if !case.can.replay || fixture.begins_at_subscription() {
        return;
    }
    let orders = case.orders(0..200);
    case.publish(&orders).await;
    let last = Subscription { start: Start::Last(3), ..case.subscription("billing") };
    let mut members = [Joined::join(&case, last).await];
    case.until_got(&mut members, &orders[199..]).await;
    case.flush_keys(&mut members, 1000).await;
    let ids: Vec<_> = orders.iter().map(|order| order.id.as_str()).collect();
    let old = members[0].got.iter().filter(|got| ids.contains(&got.id()));
    let mut partitions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for got in old {
        partitions.entry(&got.partition).or_default().push(got);
    }
    assert!(partitions.values().all(|got| got.len() <= 3), "{partitions:?}");
    for got in partitions.values().flatten() {
        let of_key = orders.iter().rev().filter(|order| order.key == got.delivery.message.key);
        let last: Vec<_> = of_key.take(3).map(|order| order.id.as_str()).collect();
        assert!(last.contains(&got.id()), "{} is older than the last three", got.id());
    }
    members[0].close().await;
}

/// At the first message that the broker took then or later.
pub async fn a_consumer_starts_at_a_time<F: BrokerFixture>(fixture: &F) {
    let case = Case::without_consumers(fixture, "since").await;
    if !case.can.replay || fixture.begins_at_subscription() {
        return;
    }
    let orders = case.orders(0..100);
    case.publish(&orders).await;
    // Between the two halves by more than clocks of one machine differ.
    let since = SystemClock.now() + Duration::from_millis(300);
    while SystemClock.now() < since + Duration::from_millis(300) {
        sleep(Duration::from_millis(20)).await;
    }
    let later: Vec<Arc<Message>> = case.orders(100..200);
    case.publish(&later).await;
    let since = Subscription { start: Start::Since(since), ..case.subscription("billing") };
    let mut members = [Joined::join(&case, since).await];
    case.until_got(&mut members, &later).await;
    assert_got(&members[0].got, &later);
    members[0].close().await;
}

/// A consumer that has begun keeps its place, also where it has settled nothing.
pub async fn where_a_consumer_starts_is_stored_once<F: BrokerFixture>(fixture: &F) {
    let case = Case::without_consumers(fixture, "start").await;
    let orders = case.orders(0..300);
    let latest = Subscription { start: Start::Latest, ..case.subscription("billing") };
    case.publish(&orders[..100]).await;
    let mut first = [Joined::join(&case, latest.clone()).await];
    case.until_shared(&mut first).await;
    first[0].close().await;
    case.publish(&orders[100..200]).await;
    let mut second = [Joined::join(&case, latest).await];
    case.until_shared(&mut second).await;
    case.publish(&orders[200..]).await;
    case.until_got(&mut second, &orders[100..]).await;
    assert_got(&second[0].got, &orders[100..]);
    second[0].close().await;
}

/// Every member of the same name gets everything.
pub async fn a_broadcast_reaches_every_member<F: BrokerFixture>(fixture: &F) {
    let case = Case::without_consumers(fixture, "broadcast").await;
    let orders = case.orders(0..300);
    let all = broadcast(&case, Start::Latest);
    case.publish(&orders[..100]).await;
    let mut members =
        vec![Joined::join(&case, all.clone()).await, Joined::join(&case, all.clone()).await];
    until_all_assigned(&case, &mut members).await;
    case.publish(&orders[100..]).await;
    for place in 0..2 {
        case.until_got(&mut members[place..=place], &orders[100..]).await;
    }
    if case.can.replay {
        let earliest = Subscription { start: Start::Earliest, ..all };
        members.push(Joined::join(&case, earliest).await);
        case.until_got(&mut members[2..], &orders).await;
    }
    for (member, from) in members.iter_mut().zip([100, 100, 0]) {
        assert_got(&member.got, &orders[from..]);
        let fenced = member.owned().filter(|p| member.settler.fence(p).is_some()).count();
        assert_eq!(fenced, 0, "nothing of a broadcast is owned");
        member.close().await;
    }
}

/// A member that comes back begins anew.
pub async fn a_broadcast_stores_nothing<F: BrokerFixture>(fixture: &F) {
    let case = Case::without_consumers(fixture, "stores-nothing").await;
    let orders = case.orders(0..200);
    let latest = broadcast(&case, Start::Latest);
    let mut first = [Joined::join(&case, latest.clone()).await];
    until_all_assigned(&case, &mut first).await;
    case.publish(&orders[..100]).await;
    case.until_got(&mut first, &orders[..100]).await;
    first[0].close().await;
    // While nobody is there.
    case.publish(&orders[100..]).await;
    let mut second = [Joined::join(&case, latest.clone()).await];
    until_all_assigned(&case, &mut second).await;
    case.flush_keys(&mut second, 1000).await;
    assert_got(&second[0].got, &case.orders(1000..1000 + KEYS));
    second[0].close().await;
    let consumer = latest.consumer;
    let progress =
        case.broker.progress(&consumer, std::slice::from_ref(&case.topic)).await.unwrap();
    assert!(progress.iter().all(|progress| progress.settled.is_none()), "{progress:?}");
}

fn broadcast<F: BrokerFixture>(case: &Case<'_, F>, start: Start) -> Subscription {
    Subscription { broadcast: true, start, ..case.subscription("cache") }
}

async fn until_all_assigned<'a, F: BrokerFixture>(
    case: &Case<'a, F>,
    members: &mut [Joined<'a, F>],
) {
    let all = |members: &[Joined<'a, F>]| {
        members.iter().all(|member| member.owned().count() == case.partitions())
    };
    case.until(members, "each had all partitions", all).await;
}
