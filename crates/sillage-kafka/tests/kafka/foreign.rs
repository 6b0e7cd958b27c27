//! Records that others wrote, and what is gone.

use crate::support::{
    Member, admin, flush, make_narrow, numbers, publish, raw_consumer, raw_producer, unique, url,
    with_topic, within,
};
use rdkafka::{
    Offset as Place, TopicPartitionList,
    admin::AdminOptions,
    consumer::{CommitMode, Consumer as _},
    message::{Header, OwnedHeaders},
    producer::BaseRecord,
};
use sillage_core::{Broker as _, ErrorKind, Inbound, Key, Offset, Text};
use sillage_kafka::Kafka;

#[tokio::test]
async fn a_record_without_headers_is_a_message() {
    let Some(url) = url() else { return };
    let kafka = Kafka::connect(&url).await.unwrap();
    let topic = unique("topic");
    make_narrow(&topic, 1_000_000).await;
    let producer = raw_producer();
    for _ in 0..2 {
        let record =
            BaseRecord::to(&topic).key("key").payload("not json").timestamp(1_700_000_000_123);
        producer.send(record).unwrap();
    }
    producer.send(BaseRecord::<(), ()>::to(&topic)).unwrap();
    flush(&producer);
    let consumer = unique("consumer");
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    member.take(3).await;
    let first = &member.got[0].1.message;
    assert_eq!((&*first.name, &*first.source), ("", &*topic));
    assert_eq!(first.key, Some(Key::from("key")));
    assert_eq!(first.time.to_string(), "2023-11-14T22:13:20.123000Z");
    assert_eq!(&*first.payload, b"not json");
    let ids: Vec<_> = member.got.iter().map(|(_, d)| d.message.id.clone()).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "same content, other coordinates");
    let nothing = &member.got[2].1.message;
    assert_eq!((&nothing.key, nothing.payload.len()), (&None, 0));
    member.close().await;
    // The ids are the same whenever it is delivered.
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    member.take(3).await;
    assert_eq!(member.got[0].1.message.id, ids[0]);
    member.close().await;
}

#[tokio::test]
async fn equal_ids_of_two_sources_are_two_messages() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    let producer = raw_producer();
    for source in ["shop", "till"] {
        let attribute = |key, value| Header { key, value: Some(value) };
        let headers = OwnedHeaders::new()
            .insert(attribute("ce_id", "1"))
            .insert(attribute("ce_source", source))
            .insert(attribute("ce_type", "order.created"))
            .insert(Header { key: "null", value: None::<&str> });
        producer.send(BaseRecord::to(&topic).key("k").payload("{}").headers(headers)).unwrap();
    }
    flush(&producer);
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    member.take(2).await;
    let identity = |index: usize| {
        let message = &member.got[index].1.message;
        (message.source.to_string(), message.id.to_string(), message.name.to_string())
    };
    assert_eq!(identity(0), ("shop".into(), "1".into(), "order.created".into()));
    assert_eq!(identity(1), ("till".into(), "1".into(), "order.created".into()));
    member.close().await;
}

#[tokio::test]
async fn headers_that_cannot_be_read_stop_nobody() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    let headers: [(&[u8], &[u8]); 4] = [
        (b"ce_type", b"legible"),
        (&[0xff, 0xfe], b"of a name that is no text"),
        (b"ce_source", b"elsewhere"),
        (b"ce_time", &[0xff]),
    ];
    crate::support::wire::produce(&topic, b"0", &headers);
    publish(&kafka, &topic, "a", numbers(1..2)).await;
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    assert_eq!(member.take(2).await, ["0", "1"]);
    let message = &member.got[0].1.message;
    assert_eq!((&*message.name, &*message.source), ("legible", "elsewhere"));
    member.close().await;
}

/// Deletes what is below an offset, as retention does.
async fn delete(topic: &Text, number: i32, below: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, number, Place::Offset(below)).unwrap();
    let deleted = within(admin().delete_records(&list, &AdminOptions::new())).await.unwrap();
    deleted.elements()[0].error().unwrap();
}

/// What comes until an error does, which is returned.
async fn until_stopped(member: &mut Member) -> sillage_core::Error {
    loop {
        if let Err(error) = member.next().await {
            return error;
        }
    }
}

/// Of two partitions the one of the key `a`, and a key of the other one.
fn apart() -> (u32, String) {
    let number = sillage_core::partition_of(b"a", 2);
    let is_other = |key: &String| sillage_core::partition_of(key.as_bytes(), 2) != number;
    (number, (0..100).map(|n| format!("b{n}")).find(is_other).unwrap())
}

#[tokio::test]
async fn offsets_that_are_gone_before_it_starts_stop_the_partition_by_name() {
    let Some((kafka, topic)) = with_topic(2).await else { return };
    let consumer = unique("consumer");
    let (number, other) = apart();
    publish(&kafka, &topic, "a", numbers(0..10)).await;
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    member.take(10).await;
    let partition = member.got[0].0.clone();
    member.settle(&partition, Offset(2)).await;
    member.close().await;
    delete(&topic, number.cast_signed(), 6).await;

    let mut member = Member::join(&kafka, &consumer, &topic).await;
    let error = until_stopped(&mut member).await;
    let said = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    for part in [
        format!("stopped at {topic}/{number}: it is at offset 3"),
        "only 6..10".into(),
        format!("--group {consumer} --topic {topic}:{number} --reset-offsets --to-earliest"),
    ] {
        assert!(said.contains(&part), "{said}");
    }
    // The other partition flows, and the error is told again.
    publish(&kafka, &topic, &other, numbers(20..25)).await;
    assert_eq!(member.take(5).await, numbers(20..25).collect::<Vec<_>>());
    assert_eq!(until_stopped(&mut member).await.to_string(), said);
    assert_eq!(member.got.len(), 5, "nothing of the stopped one");
    member.close().await;
    let progress = kafka.progress(&consumer, std::slice::from_ref(&topic)).await.unwrap();
    let stopped = progress.iter().find(|progress| progress.partition.number == number).unwrap();
    assert_eq!(stopped.settled, Some(Offset(2)), "nothing was skipped");

    // The loss is accepted, as Kafka's own tool does it.
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, number.cast_signed(), Place::Offset(6)).unwrap();
    raw_consumer(&consumer).commit(&list, CommitMode::Sync).unwrap();
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    let after = |member: &Member| {
        let of = member.got.iter().filter(|(partition, _)| partition.number == number);
        of.map(|(_, delivery)| delivery.offset.0).collect::<Vec<_>>()
    };
    while after(&member).len() < 4 {
        member.next().await.unwrap();
    }
    assert_eq!(after(&member), [6, 7, 8, 9]);
    member.close().await;
}

/// Where all are paused the client keeps what it fetched ahead, and nothing is lost: so one is not.
#[tokio::test]
async fn offsets_that_go_while_it_is_paused_stop_the_partition_by_name() {
    let Some((kafka, topic)) = with_topic(2).await else { return };
    let (number, other) = apart();
    publish(&kafka, &topic, "a", numbers(0..10)).await;
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    member.take(10).await;
    member.settle_all().await;
    let partition = member.got[0].0.clone();
    member.settler.pause(std::slice::from_ref(&partition)).unwrap();
    // The second comes in a turn that began after the client had paused it.
    for probe in [11, 12] {
        publish(&kafka, &topic, &other, [probe.to_string()]).await;
        member.take(probe).await;
    }
    publish(&kafka, &topic, "a", numbers(10..20)).await;
    delete(&topic, number.cast_signed(), 15).await;
    member.settler.resume(&[partition]).unwrap();
    let error = until_stopped(&mut member).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let said = error.to_string();
    assert!(said.contains("it is at offset 10, and Kafka has only 15..20"), "{said}");
    assert_eq!(member.got.len(), 12);
    let lost = |inbound: &Inbound| matches!(inbound, Inbound::Batch(..));
    assert!(!member.next().await.is_ok_and(|inbound| lost(&inbound)));
    member.close().await;
}
