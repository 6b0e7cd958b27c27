//! Broadcasts read streams: from a place in the past, and through lost connections.

use crate::{
    proxy::Proxy,
    support::{PATIENCE, by_key, with},
};
use sillage_core::{ErrorKind, Start};
use sillage_rabbitmq::RabbitMq;
use std::collections::HashSet;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn history_is_read_again_from_where_one_wants() {
    with(async |corner| {
        let topic = corner.topic("order", 4).await;
        let messages = corner.messages(&topic, 20, 0..1000);
        corner.publish(&messages).await;
        let all = by_key(&messages);
        for (start, least) in
            [(Start::Earliest, 1000), (Start::Last(10), 40), (Start::Last(9999), 1000)]
        {
            let mut hand = corner.join_by(&corner.broker, corner.broadcast(&topic, start)).await;
            hand.until_got(least).await;
            assert_eq!(hand.owned.len(), 4);
            assert!(hand.got.len() < least + 100, "{start:?}: {}", hand.got.len());
            let came: Vec<_> = hand.got.iter().map(|(_, d)| d.message.clone()).collect();
            for (key, came) in by_key(&came) {
                assert!(all[&key].ends_with(&came), "{start:?}: {key}: {came:?}");
            }
            hand.close().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_loses_and_doubles_nothing_of_a_broadcast() {
    with(async |corner| {
        let topic = corner.topic("order", 4).await;
        let messages = corner.messages(&topic, 20, 0..900);
        corner.publish(&messages[..100]).await;
        let proxy = Proxy::start(&corner.url).await;
        let broker = RabbitMq::connect(&proxy.url).await.unwrap();
        let mut hand = corner.join_by(&broker, corner.broadcast(&topic, Start::Latest)).await;
        hand.until("it began", |hand| hand.owned.len() == 4).await;
        // Before the first message too.
        proxy.refuse(true);
        proxy.cut();
        for (round, batch) in messages[100..].chunks(100).enumerate() {
            corner.publish(batch).await;
            proxy.refuse(false);
            hand.until_got(100 * (round + 1)).await;
            proxy.cut();
        }
        let ids: HashSet<_> = hand.ids().into_iter().collect();
        assert_eq!((ids.len(), hand.got.len(), hand.lost), (800, 800, 0));
        let came: Vec<_> = hand.got.iter().map(|(_, d)| d.message.clone()).collect();
        assert_eq!(by_key(&came), by_key(&messages[100..]));
        hand.close().await;
    })
    .await;
}

/// Also where there is never a moment of silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_begins_while_messages_come() {
    with(async |corner| {
        let topic = corner.topic("order", 2).await;
        let messages = corner.messages(&topic, 5, 0..100_000);
        let coming = async {
            for message in &messages {
                corner.publish(std::slice::from_ref(message)).await;
            }
        };
        let joined = corner.join_by(&corner.broker, corner.broadcast(&topic, Start::Latest));
        let joined = async {
            let mut hand = timeout(PATIENCE, joined).await.expect("it does not begin");
            hand.until_got(100).await;
            hand
        };
        let hand = tokio::select! {
            hand = joined => hand,
            () = coming => panic!("it did not begin while messages came"),
        };
        hand.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_have_no_history() {
    with(async |corner| {
        let topic = corner.topic("payment.commands", 2).await;
        let broadcast = corner.broadcast(&topic, Start::Last(1));
        let refused = sillage_core::Broker::subscribe(&corner.broker, broadcast).await;
        let error = refused.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    })
    .await;
}
