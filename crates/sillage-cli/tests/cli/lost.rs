//! `sillage journal` on a real broker, where there is one, with messages that got lost there.

use crate::fixture::{Fixture, Ran, created, shop};
use serde_json::Value;
use sillage::{
    BoxFuture, Broker, Capabilities, Message, Progress, PublishError, Receipt, Result, Subscribed,
    Subscription, Text, TopicSpec, TopicStatus, TopologyDiff, prelude::*,
};
use sillage_testkit::servers;
use std::sync::{Arc, atomic::AtomicBool};

/// Confirms every message, and loses those of one key.
struct Losing {
    inner: Arc<dyn Broker>,
    key: Key,
}

impl Broker for Losing {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        self.inner.ensure(topics)
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        let lost = |message: &Arc<Message>| message.key.as_ref() == Some(&self.key);
        let lost: Vec<bool> = batch.iter().map(lost).collect();
        let kept = batch.into_iter().zip(&lost).filter(|(_, lost)| !**lost);
        let published = self.inner.publish(kept.map(|(message, _)| message).collect());
        Box::pin(async move {
            let mut published = published.await.into_iter();
            let confirmed = |lost: bool| {
                if lost {
                    Ok(Receipt { partition: None, offset: None })
                } else {
                    published.next().unwrap()
                }
            };
            lost.into_iter().map(confirmed).collect()
        })
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        self.inner.subscribe(subscription)
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        self.inner.topics(names)
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        self.inner.progress(consumer, topics)
    }
}

/// Sixty orders of a shop whose relay publishes to the broker, one of which gets lost there; then a
/// journal of its own.
async fn with_a_lost_message(variable: &str) {
    let Some(server) = servers::url(variable) else { return };
    let mark = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{mark}prefix=journal-{}.&partitions=3", uuid::Uuid::new_v4());
    let (shop_at, journal) = (Fixture::empty().await, Fixture::empty().await);
    let inner = sillage::connect_broker(&url).await.unwrap().unwrap();
    let broker: Arc<dyn Broker> = Arc::new(Losing { inner, key: Key::of("o-30") });
    let app = App::new(shop_at.database().await).broker(broker);
    let app = app.service(shop(&Arc::new(AtomicBool::new(false)))).start().await.unwrap();
    let mut lost = Position(0);
    for n in 0..60 {
        let order = app.service("shop").commit(publish(created(&format!("o-{n}")))).await.unwrap();
        lost = if n == 30 { order.position } else { lost };
    }
    let admin = shop_at.admin().await;
    // Nobody bills the lost one: 60 orders, 59 bills, 59 cancellations.
    crate::fixture::until(|| async {
        let relay = admin.consumers().await.unwrap();
        let relay = relay.iter().find(|consumer| &*consumer.name == "broker/relay");
        relay.is_some_and(|relay| relay.tally.received >= 178 && relay.lag == Some(0))
    })
    .await;
    app.drain().await;

    let run = async |args: &[&str]| {
        let mut command = journal.command(args);
        command.env("SILLAGE_BROKER", &url).env("SILLAGE_TIMEOUT", "60s");
        Ran::fed(command, "").await
    };
    let topics = ["--topic", "order", "--topic", "payment", "--topic", "email"];
    run(&[&["journal", "--until-idle", "15s"], &topics[..]].concat()).await.exits(0);
    let checked = run(&["journal", "check", "--settle", "0s", "-o", "json"]).await.exits(8).json();
    let gaps = checked["gaps"].as_array().unwrap();
    assert!(gaps.iter().any(|gap| gap["missing"] == lost.0), "{lost}: {checked}");
    assert!(gaps.iter().all(|gap| gap["source"] == "shop"), "{checked}");
    let of_key = run(&["journal", "search", "--key", "o-30", "-o", "json"]).await.exits(0).json();
    assert_eq!(of_key, serde_json::json!([]), "all of that key got lost");
    let of_key = run(&["journal", "search", "--key", "o-7", "-o", "json"]).await.exits(0).json();
    let messages: Vec<&Value> =
        of_key.as_array().unwrap().iter().map(|one| &one["message"]).collect();
    assert_eq!(messages.len(), 3, "{of_key}");
    let correlation = messages[0]["correlationid"].as_str().unwrap();
    let args = ["journal", "search", "--correlation", correlation, "--name", "payment.failed"];
    let ran = run(&[&args[..], &["-o", "json"]].concat()).await.exits(0).json();
    assert_eq!(ran.as_array().unwrap().len(), 1, "{ran}");
    let exported = run(&["journal", "export", "--name", "order.created"]).await.exits(0);
    assert_eq!(exported.lines().len(), 59);
    assert!(
        exported
            .lines()
            .iter()
            .all(|line| line.starts_with('{') && line.contains("\"specversion\":\"1.0\""))
    );
}

#[cfg(feature = "kafka")]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kafka_lost_is_a_gap() {
    with_a_lost_message("SILLAGE_TEST_KAFKA").await;
}

#[cfg(feature = "rabbitmq")]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_rabbitmq_lost_is_a_gap() {
    with_a_lost_message("SILLAGE_TEST_RABBITMQ").await;
}
