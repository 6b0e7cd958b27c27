//! Lost connections, refusals and broken queues: said in a sentence, and nothing is lost.

use crate::{
    proxy::Proxy,
    support::{PATIENCE, by_key, with},
};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use sillage_core::{Broker as _, ErrorKind, PublishError};
use sillage_rabbitmq::RabbitMq;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_deliveries_come_again_in_order_after_a_lost_connection() {
    with(async |corner| {
        let topic = corner.topic("order", 2).await;
        let proxy = Proxy::start(&corner.url).await;
        let broker = RabbitMq::connect(&proxy.url).await.unwrap();
        let mut hand = corner.join_by(&broker, corner.subscription("billing", &topic)).await;
        hand.open_all().await;
        let messages = corner.messages(&topic, 20, 0..600);
        corner.publish(&messages[..200]).await;
        hand.until_got(200).await;
        hand.settles = false;
        corner.publish(&messages[200..400]).await;
        hand.until_got(400).await;
        for round in 1..=3 {
            proxy.cut();
            hand.until("both are lost", |hand| hand.lost == 2 * round).await;
            assert!(hand.owned.is_empty());
            hand.until("both are back", |hand| hand.owned.len() == 2).await;
            hand.until_got(400 + 200 * round).await;
        }
        // The second half came four times over, in order each time.
        let again: Vec<_> = hand.got[200..].iter().map(|(_, d)| d.message.clone()).collect();
        for came in again.chunks(200) {
            assert_eq!(by_key(came), by_key(&messages[200..400]));
        }
        hand.settles = true;
        corner.publish(&messages[400..]).await;
        hand.until_got(1200).await;
        hand.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_reported_now_and_then() {
    with(async |corner| {
        let topic = corner.topic("order", 8).await;
        let proxy = Proxy::start(&corner.url).await;
        let broker = RabbitMq::connect(&proxy.url).await.unwrap();
        let mut hand = corner.join_by(&broker, corner.subscription("billing", &topic)).await;
        hand.open_all().await;
        hand.until("all are here", |hand| hand.owned.len() == 8).await;
        proxy.refuse(true);
        proxy.cut();
        hand.until("all are lost", |hand| hand.owned.is_empty()).await;
        hand.for_a_while(Duration::from_secs(3)).await;
        assert!(!hand.errors.is_empty() && hand.errors.len() < 24, "{:#?}", hand.errors);
        assert!(hand.errors.iter().any(|said| said.contains("127.0.0.1")), "{:#?}", hand.errors);
        let message = Arc::new(corner.message(&topic, Some("k"), 1));
        let answer = broker.publish(vec![message.clone()]).await.remove(0);
        assert!(matches!(answer, Err(PublishError::Unknown(_))), "{answer:?}");
        proxy.refuse(false);
        hand.until("all are back", |hand| hand.owned.len() == 8).await;
        broker.publish(vec![message]).await.remove(0).unwrap();
        hand.until_got(1).await;
        hand.close().await;
    })
    .await;
}

/// What a server says that is short of memory holds for its connection only.
#[tokio::test(flavor = "multi_thread")]
async fn publishing_goes_on_where_the_server_went_away_while_it_took_nothing() {
    with(async |corner| {
        let topic = corner.topic("order", 2).await;
        let proxy = Proxy::start(&corner.url).await;
        let broker = RabbitMq::connect(&proxy.url).await.unwrap();
        let message = corner.messages(&topic, 1, 0..1).remove(0);
        broker.publish(vec![message.clone()]).await.remove(0).unwrap();
        proxy.block();
        let end = Instant::now() + PATIENCE;
        let published = || timeout(Duration::from_secs(1), broker.publish(vec![message.clone()]));
        while published().await.is_ok() {
            assert!(Instant::now() < end, "it publishes while the server takes nothing");
        }
        proxy.cut();
        while let Err(error) = broker.publish(vec![message.clone()]).await.remove(0) {
            assert!(Instant::now() < end, "{error}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_confirmed_is_unknown_and_published_again() {
    with(async |corner| {
        let topic = corner.topic("order", 2).await;
        let mut hand = corner.join("billing", &topic).await;
        hand.open_all().await;
        let proxy = Proxy::start(&corner.url).await;
        let broker = RabbitMq::connect(&proxy.url).await.unwrap();
        let messages = corner.messages(&topic, 50, 0..2000);
        let mut unknown = 0;
        for (round, batch) in messages.chunks(50).enumerate() {
            loop {
                let publishing = broker.publish(batch.to_vec());
                if round % 10 == 5 && unknown < 50 * (round / 10 + 1) {
                    proxy.cut();
                }
                let failed = publishing.await.into_iter().filter_map(Result::err).count();
                unknown += failed;
                if failed == 0 {
                    break;
                }
            }
        }
        hand.until("all had come", |hand| {
            hand.ids().iter().collect::<std::collections::HashSet<_>>().len() == messages.len()
        })
        .await;
        let came: Vec<_> = hand.got.iter().map(|(_, delivery)| delivery.message.clone()).collect();
        assert_eq!(by_key(&came), by_key(&messages));
        assert!(unknown > 0, "nothing was cut off");
        hand.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_why() {
    with(async |corner| {
        let url = |from: &str, to: &str| corner.url.replacen(from, to, 1);
        let denied = RabbitMq::connect(&url(":test@", ":wrong@")).await.unwrap_err();
        assert_eq!(denied.kind(), ErrorKind::Denied, "{denied}");
        assert!(denied.to_string().contains("`test`"), "{denied}");
        let nowhere = format!("{}/nowhere", corner.url.trim_end_matches('/'));
        let unknown = RabbitMq::connect(&nowhere).await.unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::NotFound, "{unknown}");
        let began = Instant::now();
        let away = RabbitMq::connect("amqp://test:test@127.0.0.1:1").await.unwrap_err();
        assert_eq!(away.kind(), ErrorKind::Unavailable, "{away}");
        // Somebody listens, and says nothing.
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://test:test@{}", mute.local_addr().unwrap());
        let away = RabbitMq::connect(&url).await.unwrap_err();
        assert_eq!(away.kind(), ErrorKind::Unavailable, "{away}");
        assert!(began.elapsed() < Duration::from_secs(20));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_named_and_others_flow() {
    with(async |corner| {
        let topic = corner.topic("order", 2).await;
        let mut hand = corner.join("billing", &topic).await;
        hand.open_all().await;
        hand.until("both are here", |hand| hand.owned.len() == 2).await;
        let queue = format!("{}/billing/{topic}/0", corner.name);
        let deleted = QueueDeleteOptions::default();
        corner.channel().await.queue_delete((&*queue).into(), deleted).await.unwrap();
        hand.until("it is reported", |hand| hand.errors.iter().any(|e| e.contains(&queue))).await;
        assert_eq!(hand.lost, 1);
        let messages = corner.messages(&topic, 20, 0..100);
        corner.publish(&messages).await;
        let partition = |n: u64| sillage_core::partition_of(format!("k{n}").as_bytes(), 2);
        let others = (0..100).filter(|n| partition(n % 20) == 1).count();
        hand.until_got(others).await;
        assert_eq!(hand.errors.len(), 1, "{:?}", hand.errors);
        hand.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_gone_is_refused_and_others_flow() {
    with(async |corner| {
        let (gone, there) = (corner.topic("gone", 2).await, corner.topic("there", 2).await);
        let both = |number| {
            let of = |topic| Arc::new(corner.message(topic, Some("k"), number));
            vec![of(&there), of(&gone)]
        };
        corner.publish(&both(1)).await;
        let deleted = ExchangeDeleteOptions::default();
        corner.channel().await.exchange_delete((&*gone).into(), deleted).await.unwrap();
        let answer = corner.broker.publish(both(2)).await;
        let Err(PublishError::Refused(error)) = &answer[1] else { panic!("{answer:?}") };
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let answer =
            timeout(Duration::from_secs(10), corner.broker.publish(both(3))).await.unwrap();
        assert!(answer[0].is_ok(), "{answer:?}");
        let Err(PublishError::Refused(error)) = &answer[1] else { panic!("{answer:?}") };
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    })
    .await;
}
