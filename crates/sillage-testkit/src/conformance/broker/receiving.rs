//! Receiving: calls that are dropped, and pauses.

use super::{
    BrokerFixture,
    case::{Case, Got, all_got, assert_got},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sillage_core::Partition;
use std::time::Duration;
use tokio::time::Instant;

/// `next` is asked and dropped at any moment, while thousands of messages come.
pub async fn a_call_that_is_dropped_at_any_moment_loses_and_doubles_nothing<F: BrokerFixture>(
    fixture: &F,
) {
    let case = Case::new(fixture, "dropped").await;
    let mut random = StdRng::seed_from_u64(1);
    let orders = case.orders(0..4000);
    let mut members = [case.join().await];
    let publisher = case.publish_meanwhile(&orders, 37);
    let end = Instant::now() + fixture.patience();
    while members[0].got.len() < orders.len() {
        assert!(Instant::now() < end, "only {}", members[0].told());
        for _ in 0..50 {
            members[0].ask(random.random_range(0..20)).await;
        }
        members[0].turn(Duration::from_millis(random.random_range(0..3))).await;
    }
    publisher.await.unwrap();
    case.flush_keys(&mut members, 10_000).await;
    let markers = case.orders(10_000..10_020);
    assert_got(&members[0].got, orders.iter().chain(&markers));
    members[0].close().await;
}

/// What was on its way may still come; then nothing until it is resumed, and then everything.
pub async fn a_paused_partition_waits_and_the_others_go_on<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "paused").await;
    let orders = case.orders(0..1200);
    let mut members = [case.join().await];
    case.until_shared(&mut members).await;
    case.publish(&orders[..200]).await;
    case.until_got(&mut members, &orders[..200]).await;
    let odd = |partition: &Partition| partition.number % 2 == 1;
    let is_paused = |key: &Option<sillage_core::Key>| {
        let mut got = all_got(&members).into_iter();
        got.any(|got| got.delivery.message.key == *key && odd(&got.partition))
    };
    let (held, open): (Vec<_>, Vec<_>) =
        orders.iter().cloned().partition(|order| is_paused(&order.key));
    let paused: Vec<_> = members[0].owned().filter(|p| odd(p)).cloned().collect();
    members[0].settler.pause(&paused).unwrap();
    members[0].settler.pause(&paused).unwrap();
    // What is published for the others, and has come, is the grace.
    let (first, then) = (&orders[200..700], &orders[700..]);
    for round in [first, then] {
        case.publish(round).await;
        let others: Vec<_> = open.iter().filter(|order| round.contains(order)).cloned().collect();
        case.until_got(&mut members, &others).await;
    }
    let late = members[0].got.iter().filter(|got| odd(&got.partition));
    let late: Vec<_> =
        late.filter(|got| then.contains(&got.delivery.message)).map(Got::id).collect();
    assert!(late.is_empty(), "of paused partitions came {late:?}");
    members[0].settler.resume(&paused).unwrap();
    case.until_got(&mut members, &held).await;
    assert_got(&members[0].got, &orders);
    members[0].close().await;
}

/// Pauses and resumes of random partitions, while messages are published and calls dropped.
pub async fn pauses_at_any_moment_lose_and_double_nothing<F: BrokerFixture>(fixture: &F) {
    for seed in 0..3 {
        let case = Case::new(fixture, &format!("pauses-{seed}")).await;
        let mut random = StdRng::seed_from_u64(seed);
        let orders = case.orders(0..2000);
        let mut members = [case.join().await];
        case.until_shared(&mut members).await;
        let mut rest = &orders[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(random.random_range(0..=rest.len().min(200)));
            case.publish(now).await;
            rest = later;
            let some = members[0].owned().filter(|_| random.random_bool(0.3));
            let some: Vec<_> = some.cloned().collect();
            if random.random_bool(0.5) {
                members[0].settler.pause(&some).unwrap();
            } else {
                members[0].settler.resume(&some).unwrap();
            }
            for _ in 0..random.random_range(0..40) {
                members[0].ask(random.random_range(0..8)).await;
            }
            members[0].turn(Duration::from_millis(random.random_range(0..5))).await;
        }
        let all: Vec<_> = members[0].owned().cloned().collect();
        members[0].settler.resume(&all).unwrap();
        case.until_got(&mut members, &orders).await;
        assert_got(&members[0].got, &orders);
        members[0].close().await;
    }
}
