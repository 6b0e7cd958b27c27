//! Raw rdkafka: `BaseProducer` and `BaseConsumer` in plain loops, with the settings of ours.

use super::{
    Brokers, DISTINCT, Direction, PARTITIONS, Placed, Sides, again, left, messages,
    meter::{Figure, Meter},
    ours,
};
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use sillage::{Binding, Message, TopicSpec, connect_broker};
use std::{hint::black_box, sync::Arc, time::Duration};
use uuid::Uuid;

/// As `sillage-kafka` has them.
const PRODUCER: [(&str, &str); 9] = [
    ("enable.idempotence", "true"),
    ("enable.gapless.guarantee", "true"),
    ("acks", "all"),
    ("message.timeout.ms", "0"),
    ("partitioner", "murmur2_random"),
    ("compression.type", "lz4"),
    ("linger.ms", "2"),
    ("queue.buffering.max.messages", "200000"),
    ("queue.buffering.max.kbytes", "262144"),
];
const CONSUMER: [(&str, &str); 9] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("auto.commit.interval.ms", "500"),
    ("auto.offset.reset", "earliest"),
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "1000"),
    ("fetch.queue.backoff.ms", "10"),
    ("queued.min.messages", "20000"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.wait.max.ms", "250"),
];

/// As many as the client's queue takes.
const IN_FLIGHT: usize = 200_000;

/// A message as a raw client gets it: all made before.
struct Ready {
    key: Vec<u8>,
    payload: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
}

fn ready(message: &Arc<Message>) -> Ready {
    let mut headers = vec![];
    Binding::KAFKA.write(message, |name, value| headers.push((name.to_owned(), value.to_vec())));
    Ready {
        key: message.key.as_ref().map(|key| key.as_bytes().to_vec()).unwrap_or_default(),
        payload: message.payload.to_vec(),
        headers,
    }
}

pub(crate) async fn run(what: &Brokers) {
    let prefix = format!("bench-{}-", Uuid::new_v4().simple());
    left::removed(&what.broker, &prefix, "bench", measure(what, &prefix)).await;
}

async fn measure(what: &Brokers, prefix: &str) {
    let servers = what.broker.trim_start_matches("kafka://").split('?').next().unwrap_or_default();
    let url = format!("kafka://{servers}?partitions={PARTITIONS}&prefix={prefix}");
    let broker = connect_broker(&url).await.expect("Kafka is there").expect("a broker");
    let spec = |name: &str| TopicSpec { name: name.into(), partitions: Some(PARTITIONS) };
    broker.ensure(&[spec("bench"), spec("bare")]).await.expect("topics");
    let [topic, bare] = ["bench", "bare"].map(|name| format!("{prefix}{name}"));
    println!("Kafka, {} messages a round; both sides:", what.messages);
    println!("  producer {PRODUCER:?}");
    println!("  consumer {CONSUMER:?}");
    println!("  (ours: auto.offset.reset=error with its own start, offsets stored by watermark)");
    println!("  (and of both at most {IN_FLIGHT} messages are not confirmed)");
    let some = messages(&bare, what.messages.min(DISTINCT));
    let made: Vec<_> = some.iter().map(ready).collect();
    let made: Vec<&Ready> = again(&made, what.messages).collect();
    let all = [again(&some, what.messages).cloned().collect()];
    // A prefix would have each message copied, for another name of its topic.
    let publisher = connect_broker(&what.broker).await.expect("Kafka is there").expect("a broker");
    if what.measures(Direction::Publish) {
        let mut sides = Sides::default();
        for _ in 0..what.rounds {
            sides.raw(false).push(publish(servers, &bare, &made, false));
            sides.raw(true).push(publish(servers, &bare, &made, true));
            sides.ours.push(ours::publish(&*publisher, &all, IN_FLIGHT).await);
        }
        sides.print("publish", "rdkafka, no headers", "rdkafka, the same headers, made before");
    }
    if what.measures(Direction::Consume) {
        // No more than is consumed: what one side fetches ahead of that would count as its own.
        publish(servers, &topic, &made, true);
        let mut sides = Sides::default();
        for round in 0..what.rounds {
            sides.raw(false).push(consume(servers, &topic, what.messages, false).await);
            sides.raw(true).push(consume(servers, &topic, what.messages, true).await);
            let name: &'static str = format!("bench-{round}").leak();
            sides.ours.push(ours::consume(broker.clone(), name, (1, what.messages)).await);
        }
        let (bare, full) = ("rdkafka, the payload alone", "rdkafka, payload and headers");
        sides.print("consume, typed decode", bare, full);
    }
}

fn config(servers: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config
}

fn publish(servers: &str, topic: &str, messages: &[&Ready], headers: bool) -> Figure {
    let producer: BaseProducer = config(servers, &PRODUCER).create().expect("a producer");
    let meter = Meter::start();
    for (number, message) in messages.iter().enumerate() {
        let mut record = BaseRecord::to(topic).key(&message.key).payload(&message.payload);
        if headers {
            let all = OwnedHeaders::new_with_capacity(message.headers.len());
            record = record.headers(
                message
                    .headers
                    .iter()
                    .fold(all, |all, (key, value)| all.insert(Header { key, value: Some(value) })),
            );
        }
        while let Err((error, back)) = producer.send(record) {
            assert!(full(&error), "{error}");
            producer.poll(Duration::from_millis(1));
            record = back;
        }
        if number % 500 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60)).expect("all is confirmed");
    meter.figure(messages.len() as u64)
}

fn full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

async fn consume(servers: &str, topic: &str, count: u64, headers: bool) -> Figure {
    let mut config = config(servers, &CONSUMER);
    config.set("group.id", format!("raw-{}", Uuid::new_v4().simple()));
    let mut meter = None;
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.subscribe(&[topic]).expect("a subscription");
    let mut handled = 0;
    while handled < count {
        let Some(record) = consumer.poll(Duration::from_millis(100)) else { continue };
        let record = record.expect("a record");
        if headers && let Some(all) = record.headers() {
            for header in all.iter() {
                black_box(std::str::from_utf8(header.value.unwrap_or_default()).is_ok());
            }
        }
        let placed: Placed =
            serde_json::from_slice(record.payload().unwrap_or_default()).expect("an event");
        black_box(placed);
        handled += 1;
        if handled == 1 {
            meter = Some(Meter::behind(handled));
        }
    }
    let figure = meter.expect("something was consumed").figure(count);
    tokio::task::spawn_blocking(move || drop(consumer)).await.expect("closed");
    figure
}
