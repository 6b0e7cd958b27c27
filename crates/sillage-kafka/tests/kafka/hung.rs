//! A client that waits for ever for an answer: a fresh one takes its place.

use crate::{
    proxy::{HEARTBEAT, JOIN_GROUP, OFFSET_COMMIT, Proxy},
    support::{Member, key_of, make, numbers, publish, unique, url},
};
use sillage_core::{Inbound, Offset, Partition};
use sillage_kafka::Kafka;

/// Kafka allows no shorter session.
const SHORT: &str = "?rdkafka.session.timeout.ms=6000&rdkafka.max.poll.interval.ms=7000";

/// Takes what comes until it has so many deliveries; whether it was told of a fresh client.
async fn outlast(member: &mut Member, count: usize) -> bool {
    let mut told = false;
    while member.got.len() < count {
        match member.next().await {
            Err(error) => told |= error.to_string().contains("given up for a fresh one"),
            Ok(Inbound::Revoked(partitions)) => member.release(&partitions).await,
            Ok(_) => {}
        }
    }
    told
}

#[tokio::test]
async fn a_client_that_does_not_come_back_into_its_group_is_replaced() {
    let (Some(url), Some(proxy)) = (url(), Proxy::start().await) else { return };
    let other = Kafka::connect(&url).await.unwrap();
    let topic = unique("topic");
    make(&other, &topic, 1).await;
    publish(&other, &topic, "a", numbers(0..10)).await;
    let kafka = Kafka::connect(&format!("{}{SHORT}", proxy.url)).await.unwrap();
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    member.take(10).await;
    member.settle_all().await;
    proxy.swallow(&[HEARTBEAT, JOIN_GROUP]);
    publish(&other, &topic, "a", numbers(10..20)).await;
    while !member.owned.is_empty() {
        let _ = member.next().await;
    }
    let before = member.got.len();
    publish(&other, &topic, "a", numbers(20..30)).await;
    assert!(outlast(&mut member, before + 1).await);
    // From what was settled on, or from what was committed of it.
    let first = member.got[before].1.offset;
    assert!(first <= Offset(10), "{first:?}");
    let count = before + 30 - usize::try_from(first.0).unwrap();
    member.take(count).await;
    let offsets = member.got[before..].iter().map(|(_, delivery)| delivery.offset.0);
    assert_eq!(offsets.collect::<Vec<_>>(), (first.0..30).collect::<Vec<_>>());
    member.close().await;
}

/// It has something left, which its group has given to another.
#[tokio::test]
async fn a_client_that_commits_for_ever_is_replaced() {
    let (Some(url), Some(proxy)) = (url(), Proxy::start().await) else { return };
    let other = Kafka::connect(&url).await.unwrap();
    let (topic, consumer) = (unique("topic"), unique("consumer"));
    make(&other, &topic, 2).await;
    let partitions = [0, 1].map(|number| Partition { topic: topic.clone(), number });
    for partition in &partitions {
        publish(&other, &topic, &key_of(partition), numbers(0..10)).await;
    }
    let kafka = Kafka::connect(&format!("{}{SHORT}", proxy.url)).await.unwrap();
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    member.take(20).await;
    proxy.swallow(&[OFFSET_COMMIT]);
    member.settle_all().await;
    // It gives one up, which the client does once it has committed.
    let mut second = Member::join(&other, &consumer, &topic).await;
    while member.owned.len() == 2 {
        if let Inbound::Revoked(partitions) = member.next().await.unwrap() {
            member.release(&partitions).await;
        }
    }
    second.until_assigned(2).await;
    second.close().await;
    for partition in &partitions {
        publish(&other, &topic, &key_of(partition), numbers(10..20)).await;
    }
    assert!(outlast(&mut member, 50).await);
    member.close().await;
}
