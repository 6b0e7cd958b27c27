//! On a broker in memory, and on one that tells no offsets; time is virtual.

use super::{super::last::Last, Age, Reader, Step};
use sillage::{
    BoxFuture, Broker, Capabilities, Clock as _, Key, Message, MessageId, Progress, PublishError,
    Receipt, Result, Start, Subscribed, Subscription, SystemClock, Text, Timestamp, TopicSpec,
    TopicStatus, TopologyDiff,
};
use sillage_testkit::MemoryBroker;
use std::{sync::Arc, time::Duration};

/// Tells no offsets, as RabbitMQ.
struct Untold(MemoryBroker);

impl Broker for Untold {
    fn capabilities(&self) -> Capabilities {
        Capabilities { offsets: false, ..self.0.capabilities() }
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        self.0.ensure(topics)
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        self.0.publish(batch)
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        self.0.subscribe(subscription)
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        Box::pin(async {
            let mut topics = self.0.topics(names).await?;
            for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                (partition.first, partition.next) = (None, None);
            }
            Ok(topics)
        })
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        self.0.progress(consumer, topics)
    }
}

async fn broker() -> MemoryBroker {
    let broker = MemoryBroker::new(3, true);
    broker.ensure(&[TopicSpec { name: "order".into(), partitions: None }]).await.unwrap();
    broker
}

fn message(number: i64, time: Timestamp) -> Message {
    Message {
        id: MessageId::new(number.to_string()),
        source: "shop".into(),
        name: "order.created".into(),
        version: 1,
        topic: Some("order".into()),
        key: Some(Key::of(number.to_string())),
        time,
        correlation_id: "c".into(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload: "{}".into(),
    }
}

async fn publish(broker: &dyn Broker, numbers: std::ops::Range<i64>, time: Timestamp) {
    let message = |n| Arc::new(message(n, time + Duration::from_secs(n.unsigned_abs())));
    let receipts = broker.publish(numbers.map(message).collect()).await;
    assert!(receipts.iter().all(Result::is_ok));
}

fn long_ago() -> Timestamp {
    Timestamp::from_micros(1_600_000_000_000_000)
}

async fn start(broker: &dyn Broker, start: Start) -> Reader {
    Reader::start(broker, &broker.topics(&[]).await.unwrap(), start).await.unwrap()
}

/// How many came until all was there, and how long that took.
async fn until_caught_up(reader: &mut Reader) -> (usize, Duration) {
    let began = tokio::time::Instant::now();
    let mut came = 0;
    loop {
        match reader.next().await.unwrap() {
            Step::Message(..) => came += 1,
            Step::CaughtUp(unread) => {
                assert!(unread.is_empty(), "{unread:?}");
                return (came, began.elapsed());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_to_be_there_is_read_without_waiting() {
    let broker = broker().await;
    let mut empty = start(&broker, Start::Earliest).await;
    assert_eq!(until_caught_up(&mut empty).await, (0, Duration::ZERO));
    publish(&broker, 0..500, long_ago()).await;
    let mut reader = start(&broker, Start::Earliest).await;
    assert_eq!(until_caught_up(&mut reader).await, (500, Duration::ZERO));
    publish(&broker, 500..501, long_ago()).await;
    assert!(matches!(reader.next().await.unwrap(), Step::Message(_, _, Age::New)));
    reader.close().await;
    let mut latest = start(&broker, Start::Latest).await;
    assert_eq!(until_caught_up(&mut latest).await, (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_comes_meanwhile_is_told_apart() {
    let broker = broker().await;
    publish(&broker, 0..500, long_ago()).await;
    let mut reader = start(&broker, Start::Earliest).await;
    publish(&broker, 500..900, long_ago()).await;
    let (mut old, mut new) = (0, 0);
    loop {
        match reader.next().await.unwrap() {
            Step::Message(_, _, Age::Old) => old += 1,
            Step::Message(..) => new += 1,
            Step::CaughtUp(_) => break,
        }
    }
    assert_eq!(old, 500);
    assert!(new > 0, "of some partition more had come before the last one was read");
}

#[tokio::test(start_paused = true)]
async fn without_offsets_a_quiet_second_is_the_end() {
    let broker = Untold(broker().await);
    let mut empty = start(&broker, Start::Earliest).await;
    let (came, took) = until_caught_up(&mut empty).await;
    assert!(came == 0 && took.as_secs() == 3, "{took:?}");
    publish(&broker, 0..500, long_ago()).await;
    let mut reader = start(&broker, Start::Earliest).await;
    // A busy topic does not hold up the end: what is younger than the reader does not count.
    let busy = async {
        for n in 1_000.. {
            SystemClock.sleep(Duration::from_millis(100)).await;
            publish(&broker, n..n + 1, SystemClock.now()).await;
        }
    };
    tokio::select! {
        (came, took) = until_caught_up(&mut reader) => {
            assert!(came >= 500 && took.as_secs() == 1, "{came} {took:?}");
        }
        () = busy => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_of_all_partitions_are_kept() {
    let broker = broker().await;
    publish(&broker, 0..500, long_ago()).await;
    let mut reader = start(&broker, Start::Last(7)).await;
    let mut last = Last::new(7);
    let mut came = 0;
    while let Step::Message(partition, delivery, _) = reader.next().await.unwrap() {
        last.keep(partition, delivery);
        came += 1;
    }
    assert_eq!(came, 21);
    let kept: Vec<_> = last.take().map(|(_, delivery)| delivery.message.id.to_string()).collect();
    assert_eq!(kept, ["493", "494", "495", "496", "497", "498", "499"]);
}
