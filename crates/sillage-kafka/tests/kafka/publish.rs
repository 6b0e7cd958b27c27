//! Publishing: order, receipts, what is refused, and every field read back.

use crate::support::{
    Member, make, message, numbers, publish, unique, url_with, with_topic, within,
};
use bytes::Bytes;
use sillage_core::{
    Broker as _, ErrorKind, Header, Key, Message, MessageId, Offset, PublishError, partition_of,
};
use sillage_kafka::Kafka;
use std::sync::Arc;

#[tokio::test]
async fn receipts_say_where_messages_are_in_order() {
    let Some((kafka, topic)) = with_topic(3).await else { return };
    let batch: Vec<_> = numbers(0..500).map(|text| message(&topic, "key", &text)).collect();
    let receipts = within(kafka.publish(batch)).await;
    let number = partition_of(b"key", 3);
    for (offset, receipt) in (0..).zip(receipts) {
        let receipt = receipt.unwrap();
        assert_eq!(
            receipt.partition.unwrap(),
            sillage_core::Partition { topic: topic.clone(), number }
        );
        assert_eq!(receipt.offset, Some(Offset(offset)));
    }
    assert!(kafka.publish(vec![]).await.is_empty());
}

#[tokio::test]
async fn batches_are_handed_over_in_the_call() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    let first = kafka.publish(vec![message(&topic, "a", "1")]);
    let second = kafka.publish(vec![message(&topic, "a", "2")]);
    // Awaited in the other order; dropped ones are published, too.
    let second = within(second).await.remove(0).unwrap();
    assert_eq!(second.offset, Some(Offset(1)));
    assert_eq!(within(first).await.remove(0).unwrap().offset, Some(Offset(0)));
    drop(kafka.publish(vec![message(&topic, "a", "3")]));
    let fourth = within(kafka.publish(vec![message(&topic, "a", "4")])).await;
    assert_eq!(fourth[0].as_ref().unwrap().offset, Some(Offset(3)));
}

#[tokio::test]
async fn every_field_is_read_back() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    let mut whole = Message::clone(&message(&topic, "order-1", "{}"));
    whole.version = 7;
    whole.causation_id = Some(MessageId::new("cause"));
    whole.operation_id = Some("operation".into());
    whole.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    whole.headers = vec![
        Header { name: "ce_tenant".into(), value: Bytes::from_static(b"a") },
        Header { name: "note".into(), value: Bytes::from_static(&[0, 255]) },
        Header { name: "note".into(), value: Bytes::from_static(b"again") },
        Header { name: "empty".into(), value: Bytes::new() },
    ];
    let mut keyless = Message::clone(&message(&topic, "", "{}"));
    keyless.key = None;
    let mut binary = Message::clone(&message(&topic, "", "x"));
    binary.key = Some(Key::from_bytes(vec![0, 255, b'a']));
    binary.payload = Bytes::from_static(&[0, 159, 146, 150]);
    let mut tombstone = Message::clone(&message(&topic, "gone", ""));
    tombstone.payload = Bytes::new();
    let sent: Vec<Arc<Message>> = [whole, keyless, binary, tombstone].map(Arc::new).to_vec();
    for receipt in within(kafka.publish(sent.clone())).await {
        receipt.unwrap();
    }
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    member.take(4).await;
    for (sent, (_, delivery)) in sent.iter().zip(&member.got) {
        assert_eq!(sent.time, delivery.message.time);
        assert_eq!(sent.headers, delivery.message.headers);
        assert_eq!(**sent, *delivery.message);
    }
    member.close().await;
}

#[tokio::test]
async fn what_kafka_would_refuse_is_refused_at_once_and_stops_nobody() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    let limit = kafka.capabilities().max_message_bytes;
    assert_eq!(limit, 1_048_588);
    let large = "x".repeat(limit);
    let mut nowhere = Message::clone(&message(&topic, "a", "1"));
    nowhere.topic = None;
    let batch = vec![
        message(&topic, "a", "before"),
        message(&topic, "a", &large),
        Arc::new(nowhere),
        message(&"no topic".into(), "a", "1"),
        message(&topic, "a", "after"),
    ];
    let answers = within(kafka.publish(batch)).await;
    assert_eq!(answers[0].as_ref().unwrap().offset, Some(Offset(0)));
    assert_eq!(answers[4].as_ref().unwrap().offset, Some(Offset(1)));
    for (answer, said) in [(1, "takes 1048588"), (2, "has no topic"), (3, "is no name")] {
        let Err(PublishError::Refused(error)) = &answers[answer] else {
            panic!("{:?}", answers[answer])
        };
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(said), "{error}");
    }
    // The largest that is taken.
    let fits = message(&topic, "a", &"x".repeat(limit - 2_000));
    within(kafka.publish(vec![fits])).await.remove(0).unwrap();
}

#[tokio::test]
async fn an_unknown_topic_is_refused_by_name() {
    let Some(url) = url_with("rdkafka.topic.metadata.propagation.max.ms=500") else { return };
    let kafka = Kafka::connect(&url).await.unwrap();
    let (topic, missing) = (unique("topic"), unique("missing"));
    make(&kafka, &topic, 1).await;
    let batch =
        vec![message(&topic, "a", "1"), message(&missing, "a", "1"), message(&topic, "a", "2")];
    let answers = within(kafka.publish(batch)).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    let Err(PublishError::Refused(error)) = &answers[1] else { panic!("{:?}", answers[1]) };
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&*missing), "{error}");
    publish(&kafka, &topic, "a", numbers(0..10)).await;
}

#[tokio::test]
async fn keys_are_where_java_clients_put_them() {
    let Some((kafka, topic)) = with_topic(12).await else { return };
    let keys: Vec<String> = (0..1000).map(|number| format!("order-{number}")).collect();
    let batch = keys.iter().map(|key| message(&topic, key, "1")).collect();
    for (key, receipt) in keys.iter().zip(within(kafka.publish(batch)).await) {
        let number = receipt.unwrap().partition.unwrap().number;
        assert_eq!(number, partition_of(key.as_bytes(), 12), "{key}");
    }
}

#[tokio::test]
async fn more_than_the_clients_queue_holds_keeps_its_order() {
    let Some(url) = url_with("rdkafka.queue.buffering.max.messages=100") else { return };
    let kafka = Kafka::connect(&url).await.unwrap();
    publish_at_one_go(&kafka).await;
}

/// So much is unconfirmed that whoever publishes hears confirmations, until nobody publishes any more.
#[tokio::test]
async fn what_is_published_at_one_go_is_confirmed_in_its_order() {
    let Some(url) = url_with("rdkafka.linger.ms=1000") else { return };
    let kafka = Kafka::connect(&url).await.unwrap();
    publish_at_one_go(&kafka).await;
}

/// Publishes 5,000 messages to one partition before it waits for any: all come there in order.
async fn publish_at_one_go(kafka: &Kafka) {
    let topic = unique("topic");
    make(kafka, &topic, 1).await;
    let batches = (0..20).map(|batch| {
        let texts = numbers(batch * 250..(batch + 1) * 250);
        kafka.publish(texts.map(|text| message(&topic, "a", &text)).collect())
    });
    let batches: Vec<_> = batches.collect();
    let mut offset = 0;
    for batch in batches {
        for receipt in within(batch).await {
            assert_eq!(receipt.unwrap().offset, Some(Offset(offset)));
            offset += 1;
        }
    }
    assert_eq!(offset, 5_000);
}

/// A topic with a limit of its own that we have not heard of: Kafka refuses what is too large for
/// it, which ends the client's producer.
#[tokio::test]
async fn a_producer_that_ends_is_replaced_and_nothing_is_lost_or_reordered() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    let narrow = unique("narrow");
    crate::support::make_narrow(&narrow, 2_000).await;
    // Nothing that compresses.
    let noise: String = (0..160).map(|_| unique("").to_string()).collect();
    let large = || message(&narrow, "a", &noise);
    let before = kafka.publish(vec![message(&topic, "a", "0"), large()]);
    let behind = kafka.publish(vec![message(&topic, "a", "1"), message(&narrow, "a", "2")]);
    let before = within(before).await;
    let Err(PublishError::Unknown(error)) = &before[1] else { panic!("{:?}", before[1]) };
    assert!(error.to_string().contains(&*narrow), "{error}");
    // What was behind it is answered, whatever happened to it.
    within(behind).await;
    // It is asked for its limit: then only what is too large is refused.
    loop {
        let answer = within(kafka.publish(vec![large()])).await.remove(0);
        match answer {
            Err(PublishError::Refused(error)) => {
                assert!(error.to_string().contains("takes 2000"), "{error}");
                break;
            }
            Err(PublishError::Unknown(_)) => {}
            Ok(receipt) => panic!("{receipt:?}"),
        }
    }
    // A batch is as small now as the narrowest topic, and all goes on: once the client that broke
    // last is replaced.
    while within(kafka.publish(vec![message(&narrow, "a", "9")])).await.remove(0).is_err() {}
    for to in [&narrow, &topic] {
        publish(&kafka, to, "b", numbers(10..200)).await;
    }
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    while member.texts().last().is_none_or(|last| last != "199") {
        member.next().await.unwrap();
    }
    let texts = member.texts();
    let of_b = texts.iter().filter(|text| text.len() > 1).cloned().collect::<Vec<_>>();
    assert_eq!(of_b, numbers(10..200).collect::<Vec<_>>());
    let of_a = texts.iter().filter(|text| text.len() == 1).cloned().collect::<Vec<_>>();
    assert!(
        [vec!["0", "1"], vec!["0"], vec![]].contains(&of_a.iter().map(|t| &**t).collect()),
        "{of_a:?}"
    );
    member.close().await;
}
