//! Partitions go from member to member under load.

use crate::support::{by_key, with};
use sillage_core::Broker as _;
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
        for round in 0..30 {
            let hand = &mut hands[round % 2];
            // What was delivered and not settled comes back at each release.
            hand.settles = round % 3 != 0;
            hand.settler.open(&all).await.unwrap();
            hand.until_got(200).await;
            hand.for_a_while(Duration::from_millis(10)).await;
            hand.release(&all).await;
            came.extend(hand.got.drain(..).map(|(_, delivery)| delivery.message));
        }
        publisher.await.unwrap();
        let [mut last, other] = hands;
        last.settles = true;
        last.open_all().await;
        let mut missing: HashSet<_> = messages.iter().map(|message| message.id.clone()).collect();
        for message in &came {
            missing.remove(&message.id);
        }
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
