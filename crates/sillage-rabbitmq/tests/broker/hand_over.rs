//! Partitions go from member to member under load.

use crate::support::{Corner, PATIENCE, by_key, with};
use futures_util::StreamExt as _;
use lapin::{
    Channel, Consumer,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use sillage_core::{Broker as _, Text};
use sillage_rabbitmq::RabbitMq;
use std::{collections::HashSet, time::Duration};

/// Thirty hand-overs while messages are published: nothing is lost, and after dropping what came
/// before, each key is in the order of publishing.
#[tokio::test(flavor = "multi_thread")]
async fn order_survives_hand_overs_under_load() {
    with(async |corner| {
        let topic = corner.topic("order", 2).await;
        let mut hands =
            [corner.join("billing", &topic).await, corner.join("billing", &topic).await];
        let messages = corner.messages(&topic, 40, 0..30_000);
        let publisher = {
            let broker = RabbitMq::connect(&corner.url).await.unwrap();
            let messages = messages.clone();
            tokio::spawn(async move {
                for batch in messages.chunks(100) {
                    for receipt in broker.publish(batch.to_vec()).await {
                        receipt.unwrap();
                    }
                }
            })
        };
        let all = hands[0].all.clone();
        let mut came = vec![];
        let mut missing: HashSet<_> = messages.iter().map(|message| message.id.clone()).collect();
        for round in 0..30 {
            if missing.is_empty() {
                break;
            }
            let hand = &mut hands[round % 2];
            // What was delivered and not settled comes back at each release.
            hand.settles = round % 3 != 0;
            hand.settler.open(&all).await.unwrap();
            hand.until_got(missing.len().min(200)).await;
            hand.for_a_while(Duration::from_millis(10)).await;
            hand.release(&all).await;
            for (_, delivery) in hand.got.drain(..) {
                missing.remove(&delivery.message.id);
                came.push(delivery.message);
            }
        }
        publisher.await.unwrap();
        let [mut last, other] = hands;
        last.settles = true;
        last.open_all().await;
        while !missing.is_empty() {
            last.until_got(1).await;
            for (_, delivery) in last.got.drain(..) {
                missing.remove(&delivery.message.id);
                came.push(delivery.message);
            }
        }
        println!("{} deliveries of {} messages", came.len(), messages.len());
        assert_eq!(by_key(&came), by_key(&messages));
        last.close().await;
        other.close().await;
    })
    .await;
}

/// A consumer by hand, and the numbers of its first so many deliveries.
async fn consume(
    corner: &Corner,
    topic: &Text,
    prefetch: u16,
    count: usize,
) -> (Channel, Consumer, Vec<u32>) {
    let channel = corner.channel().await;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.unwrap();
    let queue = format!("{}/billing/{topic}/0", corner.name);
    let (queue, tag, options) = (queue.into(), "hand".into(), BasicConsumeOptions::default());
    let consuming = channel.basic_consume(queue, tag, options, FieldTable::default());
    let mut consumer = consuming.await.unwrap();
    let numbers = numbers(&mut consumer, count).await;
    (channel, consumer, numbers)
}

async fn numbers(consumer: &mut Consumer, count: usize) -> Vec<u32> {
    let mut numbers = vec![];
    while numbers.len() < count {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap();
        let id = next.unwrap().unwrap().properties.message_id().clone().unwrap();
        numbers.push(id.as_str().rsplit('-').next().unwrap().parse().unwrap());
    }
    numbers
}

/// Why a channel is closed, and nothing ever cancelled: what a cancelled consumer holds comes back
/// behind what came after it.
#[tokio::test(flavor = "multi_thread")]
async fn cancelling_reorders_and_closing_does_not() {
    with(async |corner| {
        let topic = corner.topic("order", 1).await;
        let hand = corner.join("billing", &topic).await;
        corner.publish(&corner.messages(&topic, 1, 0..20)).await;

        let (closed, _consumer, first) = consume(corner, &topic, 10, 10).await;
        assert!(first.iter().copied().eq(0..10), "{first:?}");
        closed.close(200, "".into()).await.unwrap();
        let (cancelled, _consumer, again) = consume(corner, &topic, 10, 10).await;
        assert!(again.iter().copied().eq(0..10), "{again:?}");

        cancelled.basic_cancel("hand".into(), BasicCancelOptions::default()).await.unwrap();
        let (channel, mut next, mut came) = consume(corner, &topic, 20, 10).await;
        cancelled.close(200, "".into()).await.unwrap();
        came.extend(numbers(&mut next, 10).await);
        assert!(came.iter().copied().eq((10..20).chain(0..10)), "{came:?}");
        channel.close(200, "".into()).await.unwrap();
        hand.close().await;
    })
    .await;
}

/// Why all members take the same number of deliveries ahead: what one that took less gives back
/// goes behind what its predecessor gave back.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_takes_less_ahead_reorders() {
    with(async |corner| {
        let topic = corner.topic("order", 1).await;
        let hand = corner.join("billing", &topic).await;
        corner.publish(&corner.messages(&topic, 1, 0..20)).await;
        for (prefetch, expected) in [(20, 0..20), (5, 0..5)] {
            let count = expected.len();
            let (channel, _consumer, came) = consume(corner, &topic, prefetch, count).await;
            assert!(came.iter().copied().eq(expected), "{came:?}");
            channel.close(200, "".into()).await.unwrap();
        }
        let (channel, _consumer, came) = consume(corner, &topic, 20, 20).await;
        assert!(came.iter().copied().eq((5..20).chain(0..5)), "{came:?}");
        channel.close(200, "".into()).await.unwrap();
        hand.close().await;
    })
    .await;
}
