//! Connecting, topics and progress.

use crate::support::{
    Member, make, numbers, publish, server, subscription, unique, url, url_with, with_topic,
};
use sillage_core::{Broker as _, ErrorKind, Offset, Start, TopicSpec};
use sillage_kafka::Kafka;

#[tokio::test]
async fn missing_topics_are_made_and_others_left_as_they_are() {
    let Some(url) = url_with("partitions=3&retention=1h") else { return };
    let kafka = Kafka::connect(&url).await.unwrap();
    let (new, old) = (unique("new"), unique("old"));
    make(&kafka, &old, 2).await;
    let spec = |name: &sillage_core::Text| TopicSpec { name: name.clone(), partitions: None };
    let specs = [spec(&new), spec(&old)];
    // Two processes at once: one makes it, both are content.
    let (first, second) = tokio::join!(kafka.ensure(&specs), kafka.ensure(&specs));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!([first.created, second.created].concat(), std::slice::from_ref(&new));
    let differs = format!("topic `{old}` has 2 partitions, not 3");
    assert!(first.differs.iter().any(|sentence| sentence.contains(&differs)), "{differs}");
    let topics = kafka.topics(&[new.clone(), unique("none")]).await.unwrap();
    assert_eq!(topics.len(), 1);
    assert_eq!(topics[0].partitions.len(), 3);
    assert!(kafka.ensure(&[]).await.unwrap().created.is_empty());
}

#[tokio::test]
async fn a_missing_topic_that_must_not_be_made_is_named_with_what_makes_it() {
    let Some(url) = url_with("create_topics=false") else { return };
    let kafka = Kafka::connect(&url).await.unwrap();
    let name = unique("missing");
    let specs = [TopicSpec { name: name.clone(), partitions: Some(5) }];
    let error = kafka.ensure(&specs).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let said = error.to_string();
    assert!(said.contains(&format!("--create --topic {name} --partitions 5")), "{said}");
    let wanted = subscription("nobody", &name, Start::Earliest);
    let Err(error) = kafka.subscribe(wanted).await else { panic!("it joined") };
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn topics_and_progress_are_told_as_they_are() {
    let Some((kafka, topic)) = with_topic(2).await else { return };
    publish(&kafka, &topic, "a", numbers(0..5)).await;
    let number = sillage_core::partition_of(b"a", 2);
    let status = kafka.topics(std::slice::from_ref(&topic)).await.unwrap().remove(0);
    let ends = |status: &sillage_core::PartitionStatus| (status.first, status.next);
    for partition in &status.partitions {
        let next = if partition.number == number { 5 } else { 0 };
        assert_eq!(ends(partition), (Some(Offset(0)), Some(Offset(next))));
    }
    let all = kafka.topics(&[]).await.unwrap();
    assert!(all.iter().any(|found| found.name == topic));
    assert!(!all.iter().any(|found| found.name.starts_with("__")));

    let consumer = unique("consumer");
    let topics = [topic.clone(), unique("none")];
    let before = kafka.progress(&consumer, &topics).await.unwrap();
    assert_eq!(before.iter().map(|progress| progress.lag).sum::<u64>(), 5);
    assert!(before.iter().all(|progress| progress.settled.is_none()));
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    member.take(5).await;
    let partition = member.got[0].0.clone();
    member.settle(&partition, Offset(2)).await;
    member.close().await;
    let after = kafka.progress(&consumer, &topics).await.unwrap();
    assert_eq!(after.len(), 2);
    for progress in after {
        let (settled, lag) =
            if progress.partition.number == number { (Some(Offset(2)), 2) } else { (None, 0) };
        assert_eq!((progress.settled, progress.lag), (settled, lag));
    }
}

#[tokio::test]
async fn who_cannot_connect_is_told_why() {
    let Some(_) = url() else { return };
    let server = server();
    for (url, kind, said) in [
        ("kafka://127.0.0.1:1".to_owned(), ErrorKind::Unavailable, "127.0.0.1:1"),
        ("kafka://".to_owned(), ErrorKind::Invalid, "is no server"),
        (format!("kafka://{server}?rdkafka.no.such=1"), ErrorKind::Invalid, "no.such"),
        (
            format!("kafka://bob:secret@{server}?security=sasl_plaintext"),
            ErrorKind::Denied,
            "check the user, its password and mechanism",
        ),
    ] {
        let error = Kafka::connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
