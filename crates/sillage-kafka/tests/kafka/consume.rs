//! One member: what is settled, what comes again, where it starts.

use crate::support::{
    Member, message, numbers, publish, subscription, text, unique, with_topic, within,
};
use sillage_core::{
    Broker as _, Delivery, Inbound, Offset, Partition, Start, Subscription, Timestamp,
};
use std::sync::Arc;

#[tokio::test]
async fn what_was_not_settled_comes_again() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    publish(&kafka, &topic, "a", numbers(0..10)).await;
    let consumer = unique("consumer");
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    assert_eq!(member.take(10).await, numbers(0..10).collect::<Vec<_>>());
    let partition = member.owned[0].clone();
    member.settle(&partition, Offset(3)).await;
    // What was not delivered cannot be settled, and a lower watermark takes nothing back.
    member.settle(&partition, Offset(99)).await;
    member.settle(&partition, Offset(1)).await;
    member.close().await;
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    assert_eq!(member.take(6).await, numbers(4..10).collect::<Vec<_>>());
    member.settle_all().await;
    drop(member);
    // Dropped without being closed: it leaves by itself, and what was settled counts.
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    publish(&kafka, &topic, "a", numbers(10..11)).await;
    assert_eq!(member.take(1).await, ["10"]);
    member.close().await;
}

#[tokio::test]
async fn what_is_released_without_being_asked_for_begins_again() {
    let Some((kafka, topic)) = with_topic(2).await else { return };
    publish(&kafka, &topic, "a", numbers(0..6)).await;
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    member.until_assigned(2).await;
    member.take(6).await;
    let partition = member.got[0].0.clone();
    member.settle(&partition, Offset(1)).await;
    member.release(std::slice::from_ref(&partition)).await;
    member.got.clear();
    assert_eq!(member.take(4).await, numbers(2..6).collect::<Vec<_>>());
    // A watermark of the time before settles nothing that is delivered again.
    member.settle(&partition, Offset(0)).await;
    publish(&kafka, &topic, "a", numbers(6..7)).await;
    assert_eq!(member.take(5).await.last().unwrap(), "6");
    member.close().await;
}

#[tokio::test]
async fn starts_are_said_once() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    publish(&kafka, &topic, "a", numbers(0..5)).await;
    for (start, first) in [
        (Start::Earliest, 0),
        (Start::Latest, 5),
        (Start::Last(2), 3),
        (Start::Last(100), 0),
        (Start::Since(Timestamp::default()), 0),
        (Start::Since("9000-01-01T00:00:00Z".parse().unwrap()), 5),
    ] {
        let consumer = unique("consumer");
        let mut member = Member::subscribe(&kafka, subscription(&consumer, &topic, start)).await;
        member.until_assigned(1).await;
        drop(member);
        let progress = kafka.progress(&consumer, std::slice::from_ref(&topic)).await.unwrap();
        let before = u64::checked_sub(first, 1).map(Offset);
        assert_eq!((progress[0].settled, progress[0].lag), (before, 5 - first), "{start:?}");
    }
}

/// What happened long ago and is published now is not what retention is for.
#[tokio::test]
async fn times_are_those_of_publishing() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    let old = message(&topic, "a", "1");
    assert!(old.time.to_string().starts_with("2023-"));
    within(kafka.publish(vec![old])).await.remove(0).unwrap();
    let since = "2025-01-01T00:00:00Z".parse().unwrap();
    let wanted = subscription(&unique("consumer"), &topic, Start::Since(since));
    let mut member = Member::subscribe(&kafka, wanted).await;
    assert_eq!(member.take(1).await, ["1"]);
    member.close().await;
}

/// As whoever shares a broker with others has it: without what is before the topic's name there.
#[tokio::test]
async fn deliveries_are_of_the_topic_that_they_are_renamed_to() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    publish(&kafka, &topic, "a", numbers(0..3)).await;
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    let deliveries = member.batch().await.renamed("inside".into());
    for (number, Delivery { offset, message }) in (0..).zip(deliveries) {
        assert_eq!((offset, text(&message)), (Offset(number), number.to_string()));
        assert_eq!(message.topic.as_deref(), Some("inside"));
    }
    member.close().await;
}

#[tokio::test]
async fn what_takes_the_place_of_a_finished_message_changes_none_that_somebody_has() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    publish(&kafka, &topic, "a", numbers(0..6)).await;
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    let (mut deliveries, mut kept, mut places) = (member.batch().await, vec![], vec![]);
    let count = deliveries.size_hint().0;
    for number in 0..count {
        let message = deliveries.next().unwrap().message;
        assert_eq!(text(&message), number.to_string());
        places.push(Arc::as_ptr(&message));
        if number % 2 == 0 {
            kept.push((number.to_string(), message.id.clone(), message.clone()));
        }
        deliveries.give_back(message);
    }
    for (number, id, message) in kept {
        assert_eq!((text(&message), &message.id), (number, &id));
    }
    if count > 2 {
        assert_eq!(places[1], places[2], "nobody had the second");
    }
    member.close().await;
}

#[tokio::test]
async fn latest_gets_what_comes_after_it_was_assigned() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    publish(&kafka, &topic, "a", numbers(0..5)).await;
    let consumer = unique("consumer");
    let wanted = subscription(&consumer, &topic, Start::Latest);
    let mut member = Member::subscribe(&kafka, wanted.clone()).await;
    member.until_assigned(1).await;
    publish(&kafka, &topic, "a", numbers(5..6)).await;
    drop(member);
    publish(&kafka, &topic, "a", numbers(6..7)).await;
    // Nothing was settled, and the start was said: it does not begin behind what came meanwhile.
    let mut member = Member::subscribe(&kafka, wanted).await;
    assert_eq!(member.take(2).await, ["5", "6"]);
    member.close().await;
}

#[tokio::test]
async fn a_broadcast_reaches_every_member_and_stores_nothing() {
    let Some((kafka, topic)) = with_topic(3).await else { return };
    for key in ["a", "b", "c", "d"] {
        publish(&kafka, &topic, key, numbers(0..5)).await;
    }
    let consumer = unique("consumer");
    let wanted =
        || Subscription { broadcast: true, ..subscription(&consumer, &topic, Start::Earliest) };
    for _ in 0..2 {
        let mut first = Member::subscribe(&kafka, wanted()).await;
        let mut second = Member::subscribe(&kafka, wanted()).await;
        for member in [&mut first, &mut second] {
            member.take(20).await;
            assert_eq!(member.owned.len(), 3);
            member.settle_all().await;
        }
        // Given up, it comes again behind what is settled.
        let partition = first.got[0].0.clone();
        first.release(std::slice::from_ref(&partition)).await;
        first.until_assigned(3).await;
        first.close().await;
        second.close().await;
    }
    let progress = kafka.progress(&consumer, std::slice::from_ref(&topic)).await.unwrap();
    assert!(progress.iter().all(|progress| progress.settled.is_none()));
}

#[tokio::test]
async fn what_is_paused_waits() {
    let Some((kafka, topic)) = with_topic(2).await else { return };
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    member.until_assigned(2).await;
    let paused = Partition { topic: topic.clone(), number: sillage_core::partition_of(b"a", 2) };
    let other = (0..).map(|n| n.to_string());
    let other = other
        .into_iter()
        .find(|key| sillage_core::partition_of(key.as_bytes(), 2) != paused.number);
    let other = other.unwrap();
    member.settler.pause(std::slice::from_ref(&paused)).unwrap();
    // The poller takes commands in order, so that it is paused once this has come again.
    let rest = Partition { topic: topic.clone(), number: 1 - paused.number };
    member.release(std::slice::from_ref(&rest)).await;
    member.until_assigned(2).await;
    publish(&kafka, &topic, "a", numbers(0..5)).await;
    publish(&kafka, &topic, &other, numbers(5..10)).await;
    assert_eq!(member.take(5).await, numbers(5..10).collect::<Vec<_>>());
    member.settler.resume(&[paused]).unwrap();
    assert_eq!(member.take(10).await[5..], numbers(0..5).collect::<Vec<_>>());
    member.close().await;
}

#[tokio::test]
async fn a_dropped_next_loses_nothing() {
    let Some((kafka, topic)) = with_topic(1).await else { return };
    let mut member = Member::join(&kafka, &unique("consumer"), &topic).await;
    for batch in 0..20 {
        publish(&kafka, &topic, "a", numbers(batch * 10..(batch + 1) * 10)).await;
        for _ in 0..3 {
            tokio::select! {
                biased;
                inbound = member.receiver.next() => {
                    if let Inbound::Batch(partition, deliveries) = inbound.unwrap() {
                        member.got.extend(deliveries.map(|d| (partition.clone(), d)));
                    }
                }
                () = tokio::task::yield_now() => {}
            }
        }
    }
    while member.got.len() < 200 {
        if let Inbound::Batch(partition, deliveries) = within(member.receiver.next()).await.unwrap()
        {
            member.got.extend(deliveries.map(|d| (partition.clone(), d)));
        }
    }
    assert_eq!(member.texts(), numbers(0..200).collect::<Vec<_>>());
    member.close().await;
}
