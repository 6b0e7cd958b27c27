//! Kafka forgets how far a consumer is that was away for long; its own database does not.

use crate::support::{
    Member, admin, numbers, publish, raw_consumer, subscription, unique, url, with_topic, within,
};
use rdkafka::{
    Offset as Position, TopicPartitionList,
    admin::AdminOptions,
    consumer::{CommitMode, Consumer as _},
};
use sillage_core::{
    Broker as _, ErrorKind, Offset, Partition, Reached, Start, Subscription, Timestamp,
};
use sillage_kafka::Kafka;

/// As Kafka does after `offsets.retention.minutes` without a member.
async fn forget(consumer: &str) {
    within(admin().delete_groups(&[consumer], &AdminOptions::new()))
        .await
        .unwrap()
        .remove(0)
        .unwrap();
}

#[tokio::test]
async fn who_was_forgotten_is_stopped_and_goes_on_where_it_is_told_to() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    let (consumer, partition) = (unique("consumer"), Partition { topic: topic.clone(), number: 0 });
    publish(&kafka, &topic, "a", numbers(0..20)).await;
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    member.take(20).await;
    member.settle(&partition, Offset(11)).await;
    member.close().await;
    forget(&consumer).await;
    let cluster = kafka.capabilities().cluster;
    let again_connected = Kafka::connect(&url().unwrap()).await.unwrap();
    assert!(cluster.is_some());
    assert_eq!(cluster, again_connected.capabilities().cluster);
    let again = |start| Subscription {
        reached: vec![reached(&partition, 11, now())],
        ..subscription(&consumer, &topic, start)
    };
    // Neither from the start, where it would handle again what it does not remember any more, nor
    // from the end, behind what it has not seen.
    for start in [Start::Earliest, Start::Latest] {
        let mut member = Member::subscribe(&kafka, again(start)).await;
        let told = member.next().await.unwrap_err();
        assert_eq!(told.kind(), ErrorKind::Corrupt);
        let told = told.to_string();
        assert!(told.contains("its database says that it is at offset 12 of 0..20"), "{told}");
        assert!(told.contains("--reset-offsets --to-offset 12 --execute"), "{told}");
        assert!(member.got.is_empty());
        member.close().await;
    }
    // What that command does.
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Position::Offset(12)).unwrap();
    raw_consumer(&consumer).commit(&list, CommitMode::Sync).unwrap();
    let mut member = Member::subscribe(&kafka, again(Start::Earliest)).await;
    member.take(8).await;
    assert_eq!(member.got[0].1.offset, Offset(12));
    member.close().await;
}

#[tokio::test]
async fn a_topic_that_was_made_anew_is_read_from_its_start() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    let partition = Partition { topic: topic.clone(), number: 0 };
    let before = now();
    publish(&kafka, &topic, "a", numbers(0..5)).await;
    // It is shorter, or has nothing that was there before.
    for (last, at) in [(5, now()), (2, before)] {
        let subscription = Subscription {
            reached: vec![reached(&partition, last, at)],
            ..subscription(&unique("consumer"), &topic, Start::Earliest)
        };
        let mut member = Member::subscribe(&kafka, subscription).await;
        assert_eq!(member.take(5).await, numbers(0..5).collect::<Vec<_>>());
        member.close().await;
    }
}

/// Nothing is in doubt: it begins behind what it has finished either way.
#[tokio::test]
async fn who_was_forgotten_where_it_would_start_goes_on() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    let partition = Partition { topic: topic.clone(), number: 0 };
    publish(&kafka, &topic, "a", numbers(0..5)).await;
    let subscription = Subscription {
        reached: vec![reached(&partition, 4, now())],
        ..subscription(&unique("consumer"), &topic, Start::Latest)
    };
    let mut member = Member::subscribe(&kafka, subscription).await;
    member.until_assigned(1).await;
    publish(&kafka, &topic, "a", numbers(5..7)).await;
    assert_eq!(member.take(2).await, ["5", "6"]);
    member.close().await;
}

fn reached(partition: &Partition, last: u64, at: Timestamp) -> Reached {
    Reached { partition: partition.clone(), offset: Offset(last), at }
}

/// As Kafka has it: both are on this machine.
fn now() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}
