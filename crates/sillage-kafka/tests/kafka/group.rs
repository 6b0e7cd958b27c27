//! Several members: nothing is lost, keys keep their order, and partitions are handed over.

use crate::support::{
    Member, key_of, message, numbers, publish, text, unique, url_with, with_topic, within,
};
use sillage_core::{Broker as _, Inbound, Message, Offset, Partition, Text};
use sillage_kafka::Kafka;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
};
use tokio::{sync::watch, task::JoinHandle};

/// What all members handled, in the order in which they did: key and number.
type Handled = Arc<Mutex<Vec<(String, u64)>>>;

/// A member that handles what comes and settles it, until it is told to stop.
fn work(mut member: Member, handled: Handled, mut stop: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let inbound = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                inbound = member.next() => inbound.unwrap(),
            };
            match inbound {
                Inbound::Batch(partition, deliveries) => {
                    let deliveries: Vec<_> = deliveries.collect();
                    for delivery in &deliveries {
                        handled.lock().unwrap().push(key_and_number(&delivery.message));
                    }
                    member.settle(&partition, deliveries.last().unwrap().offset).await;
                }
                Inbound::Revoked(partitions) => member.release(&partitions).await,
                Inbound::Lost(partitions) => panic!("{partitions:?} were lost"),
                Inbound::Assigned(_) | Inbound::Passed(..) => {}
            }
        }
        member.close().await;
    })
}

fn key_and_number(message: &Message) -> (String, u64) {
    (message.key.as_ref().unwrap().to_string(), text(message).parse().unwrap())
}

async fn join(kafka: &Kafka, consumer: &str, topic: &Text) -> Member {
    Member::join(kafka, consumer, topic).await
}

/// Waits until so much was handled.
async fn until(handled: &Handled, count: usize) {
    within(async {
        while handled.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_join_and_leave_under_load_lose_nothing_and_keep_order() {
    const KEYS: u64 = 20;
    const ROUNDS: u64 = 300;
    let Some((kafka, topic)) = with_topic(6).await else { return };
    let kafka = Arc::new(kafka);
    let consumer = unique("consumer");
    let handled = Handled::default();
    let publishing = tokio::spawn({
        let (kafka, topic) = (kafka.clone(), topic.clone());
        async move {
            let mut pace = tokio::time::interval(std::time::Duration::from_millis(20));
            for round in 0..ROUNDS {
                let batch =
                    (0..KEYS).map(|key| message(&topic, &format!("k{key}"), &round.to_string()));
                for receipt in within(kafka.publish(batch.collect())).await {
                    receipt.unwrap();
                }
                pace.tick().await;
            }
        }
    });
    let (stop, stopped) = watch::channel(false);
    let first = work(join(&kafka, &consumer, &topic).await, handled.clone(), stopped.clone());
    until(&handled, 200).await;
    let (stop_second, second_stopped) = watch::channel(false);
    let second = work(join(&kafka, &consumer, &topic).await, handled.clone(), second_stopped);
    until(&handled, 2500).await;
    stop_second.send(true).unwrap();
    within(second).await.unwrap();
    let third = work(join(&kafka, &consumer, &topic).await, handled.clone(), stopped);
    publishing.await.unwrap();
    let all = usize::try_from(KEYS * ROUNDS).unwrap();
    until(&handled, all).await;
    stop.send(true).unwrap();
    within(first).await.unwrap();
    within(third).await.unwrap();

    // Every handover was clean: each message once, and each key's in order.
    let handled = handled.lock().unwrap().clone();
    let mut keys: HashMap<String, Vec<u64>> = HashMap::new();
    for (key, number) in handled {
        keys.entry(key).or_default().push(number);
    }
    assert_eq!(keys.len(), usize::try_from(KEYS).unwrap());
    for (key, numbers) in keys {
        assert_eq!(numbers, (0..ROUNDS).collect::<Vec<_>>(), "{key}");
    }
    let progress = kafka.progress(&consumer, std::slice::from_ref(&topic)).await.unwrap();
    assert!(progress.iter().all(|partition| partition.lag == 0), "{progress:?}");
}

#[tokio::test]
async fn partitions_are_drained_before_they_are_another_members() {
    let Some((kafka, topic)) = with_topic(2).await else { return };
    let consumer = unique("consumer");
    let partition = |number| Partition { topic: topic.clone(), number };
    let keys = [key_of(&partition(0)), key_of(&partition(1))];
    for key in &keys {
        publish(&kafka, &topic, key, numbers(0..10)).await;
    }
    let mut first = Member::join(&kafka, &consumer, &topic).await;
    first.take(20).await;
    let mut second = Member::join(&kafka, &consumer, &topic).await;
    let revoked = loop {
        if let Inbound::Revoked(revoked) = first.next().await.unwrap() {
            break revoked;
        }
    };
    assert_eq!(revoked.len(), 1);
    // What was delivered is being finished: what is done of it is settled, then it is given back.
    for key in &keys {
        publish(&kafka, &topic, key, numbers(10..15)).await;
    }
    first.settle(&revoked[0], Offset(5)).await;
    first.release(&revoked).await;
    second.until_assigned(1).await;
    assert_eq!(second.owned, revoked);
    second.take(9).await;
    let offsets: Vec<u64> = second.got.iter().map(|(_, delivery)| delivery.offset.0).collect();
    assert_eq!(offsets, (6..15).collect::<Vec<_>>());
    // The one that stays goes on where it was.
    first.take(25).await;
    let since = &first.got[20..];
    assert!(since.iter().all(|(partition, _)| *partition == first.owned[0]));
    assert_eq!(first.texts()[20..], numbers(10..15).collect::<Vec<_>>());
    first.close().await;
    second.close().await;
}

#[tokio::test]
async fn a_member_that_leaves_without_settling_hands_on_what_it_had() {
    let Some((kafka, topic)) = with_topic(2).await else { return };
    let consumer = unique("consumer");
    let mut first = Member::join(&kafka, &consumer, &topic).await;
    first.until_assigned(2).await;
    publish(&kafka, &topic, "a", numbers(0..10)).await;
    first.take(10).await;
    let mut second = Member::join(&kafka, &consumer, &topic).await;
    first.close().await;
    assert_eq!(second.take(10).await, numbers(0..10).collect::<Vec<_>>());
    second.close().await;
}

/// The group ends the membership while the member's process is healthy: as if it had been frozen.
/// It is a member again soon, of another partition, and the group would believe it then.
#[tokio::test]
async fn what_is_lost_is_told_and_settles_nothing() {
    // Its heartbeats come more seldom than its session lasts, and its group finds that out.
    let late = "rdkafka.session.timeout.ms=6000&rdkafka.heartbeat.interval.ms=1000000\
                &rdkafka.max.poll.interval.ms=7000";
    let Some(url) = url_with(late) else { return };
    let Some((other, topic)) = with_topic(2).await else { return };
    let consumer = unique("consumer");
    let partitions = [0, 1].map(|number| Partition { topic: topic.clone(), number });
    for partition in &partitions {
        publish(&other, &topic, &key_of(partition), numbers(0..10)).await;
    }
    let kafka = Kafka::connect(&url).await.unwrap();
    let mut first = Member::join(&kafka, &consumer, &topic).await;
    first.take(20).await;
    for partition in &partitions {
        first.settle(partition, Offset(2)).await;
    }
    // Another takes over, and is further by now.
    let mut second = Member::join(&other, &consumer, &topic).await;
    second.until_assigned(2).await;
    second.take(14).await;
    second.settle_all().await;
    // The first one still believes in it; what it settles is refused by the group, and it hears.
    for partition in &partitions {
        first.settle(partition, Offset(5)).await;
    }
    while !first.owned.is_empty() {
        first.next().await.unwrap();
    }
    // It is a member again, and has one of the two.
    while second.owned.len() == 2 {
        if let Inbound::Revoked(wanted) = second.next().await.unwrap() {
            second.release(&wanted).await;
        }
    }
    first.until_assigned(1).await;
    let lost = second.owned[0].clone();
    first.settle(&lost, Offset(7)).await;
    first.close().await;
    let progress = other.progress(&consumer, std::slice::from_ref(&topic)).await.unwrap();
    for progress in progress {
        assert_eq!(progress.settled, Some(Offset(9)), "{}", progress.partition);
    }
    second.close().await;
    for partition in &partitions {
        let got = first.got.iter().chain(&second.got).filter(|(of, _)| of == partition);
        let offsets: BTreeSet<u64> = got.map(|(_, delivery)| delivery.offset.0).collect();
        assert_eq!(offsets, (0..10).collect::<BTreeSet<_>>(), "{partition}");
    }
}
