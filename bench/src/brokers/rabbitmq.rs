//! Raw lapin: pipelined confirms on as many channels as ours, and a consumer a queue that
//! acknowledges many deliveries at once.

use super::{
    BATCH, Brokers, DISTINCT, PARTITIONS, Placed, Sides, again, left, messages,
    meter::{Figure, Meter},
    ours,
};
use futures_util::{StreamExt as _, future::join_all, stream::select_all};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, LongString},
};
use sillage::{Binding, Key, Message, TopicSpec, connect_broker, partition_of};
use std::{hint::black_box, sync::Arc};
use uuid::Uuid;

/// As `sillage-rabbitmq` has them.
const CHANNELS: u32 = 4;
const PREFETCH: u16 = 1_024;
/// As many as wait in the client before the first is handled, if it is slow to begin: not measured.
const AHEAD: u64 = PARTITIONS as u64 * PREFETCH as u64;
/// Deliveries of a queue that one acknowledgement is for.
const ACK: u64 = 256;
const PERSISTENT: u8 = 2;

/// A message as a raw client gets it: all made before.
struct Ready {
    channel: usize,
    routing_key: String,
    payload: Vec<u8>,
    properties: BasicProperties,
}

fn channel_of(message: &Message) -> usize {
    partition_of(key_of(message), CHANNELS) as usize
}

fn key_of(message: &Message) -> &[u8] {
    message.key.as_ref().map(Key::as_bytes).unwrap_or_default()
}

fn ready(message: &Arc<Message>) -> Ready {
    let mut headers = FieldTable::default();
    Binding::AMQP.write(message, |name, value| {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    });
    let key = key_of(message);
    Ready {
        channel: channel_of(message),
        routing_key: format!("{}.{}", partition_of(key, PARTITIONS), message.name),
        payload: message.payload.to_vec(),
        properties: BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers)
            .with_timestamp(u64::try_from(message.time.as_micros() / 1_000_000).unwrap_or(0))
            .with_content_type("application/json".into())
            .with_message_id(message.id.as_str().into())
            .with_type((&*message.name).into())
            .with_app_id((&*message.source).into())
            .with_correlation_id((&*message.correlation_id).into()),
    }
}

pub(crate) async fn run(what: &Brokers) {
    let prefix = format!("bench-{}-", Uuid::new_v4().simple());
    left::removed(&what.broker, &prefix, "bench", measure(what, &prefix)).await;
}

async fn measure(what: &Brokers, prefix: &str) {
    let url = format!("{}?partitions={PARTITIONS}&stream=false&prefix={prefix}", what.broker);
    let broker = connect_broker(&url).await.expect("RabbitMQ is there").expect("a broker");
    let spec = TopicSpec { name: "bench".into(), partitions: Some(PARTITIONS) };
    broker.ensure(&[spec]).await.expect("a topic");
    let raw = Raw::connect(&what.broker, format!("{prefix}raw")).await;
    raw.make().await;
    println!("RabbitMQ, {} messages a round; both sides:", what.messages);
    println!(
        "  {CHANNELS} channels with confirms, {BATCH} messages not confirmed on each, persistent, mandatory"
    );
    println!("  {PARTITIONS} quorum queues with single active consumer, prefetch {PREFETCH} each");
    let some = messages(&format!("{prefix}bench"), what.messages.min(DISTINCT));
    let made: Vec<_> = some.iter().map(ready).collect();
    let made: Vec<&Ready> = again(&made, what.messages).collect();
    let mut shares: Vec<Vec<Arc<Message>>> = (0..CHANNELS).map(|_| vec![]).collect();
    for message in again(&some, what.messages) {
        shares[channel_of(message)].push(message.clone());
    }
    // A prefix would have each message copied, for another name of its topic.
    let bare = connect_broker(&what.broker).await.expect("RabbitMQ is there").expect("a broker");
    let (mut publishing, mut consuming) = (Sides::default(), Sides::default());
    // The consumer's queues, without which nothing would be kept.
    ours::join(broker.clone(), "bench").await;
    for _ in 0..what.rounds {
        for headers in [false, true] {
            let published = raw.publish(&made, headers).await;
            let consumed = raw.consume(what.messages, headers).await;
            publishing.raw(headers).push(published);
            consuming.raw(headers).push(consumed);
        }
        publishing.ours.push(ours::publish(&*bare, &shares, BATCH).await);
        consuming.ours.push(ours::consume(broker.clone(), "bench", (AHEAD, what.messages)).await);
    }
    publishing.print("publish", "lapin, no headers", "lapin, the same headers, made before");
    consuming.print("consume, typed decode", "lapin, without headers", "lapin, with headers");
}

struct Raw {
    connection: Connection,
    exchange: String,
}

impl Raw {
    async fn connect(url: &str, exchange: String) -> Raw {
        let connection = Connection::connect(url, ConnectionProperties::default());
        Raw { connection: connection.await.expect("a connection"), exchange }
    }

    async fn channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel")
    }

    fn queue(&self, number: u32) -> String {
        format!("{}/{number}", self.exchange)
    }

    /// An exchange and its queues.
    async fn make(&self) {
        let channel = self.channel().await;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let exchange = || (&*self.exchange).into();
        let made = channel.exchange_declare(
            exchange(),
            ExchangeKind::Topic,
            durable,
            FieldTable::default(),
        );
        made.await.expect("an exchange");
        for number in 0..PARTITIONS {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
            let (name, routing_key) = (self.queue(number), format!("{number}.#"));
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            channel.queue_declare((&*name).into(), options, arguments).await.expect("a queue");
            let (options, none) = (QueueBindOptions::default(), FieldTable::default());
            let key = (&*routing_key).into();
            let bound = channel.queue_bind((&*name).into(), exchange(), key, options, none);
            bound.await.expect("a binding");
        }
    }

    /// On each channel a window of messages, and the next when they are confirmed.
    async fn publish(&self, messages: &[&Ready], headers: bool) -> Figure {
        let mut lanes: Vec<Vec<&Ready>> = (0..CHANNELS).map(|_| vec![]).collect();
        for &message in messages {
            lanes[message.channel].push(message);
        }
        let meter = Meter::start();
        join_all(lanes.iter().map(|lane| self.publish_on(lane, headers))).await;
        meter.figure(messages.len() as u64)
    }

    async fn publish_on(&self, messages: &[&Ready], headers: bool) {
        let channel = self.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        for window in messages.chunks(BATCH) {
            let mut confirms = Vec::with_capacity(window.len());
            for message in window {
                let properties = if headers {
                    message.properties.clone()
                } else {
                    BasicProperties::default().with_delivery_mode(PERSISTENT)
                };
                let sent = channel.basic_publish(
                    (&*self.exchange).into(),
                    (&*message.routing_key).into(),
                    BasicPublishOptions { mandatory: true, ..Default::default() },
                    &message.payload,
                    properties,
                );
                confirms.push(sent.await.expect("sent"));
            }
            for confirm in join_all(confirms).await {
                let confirm = confirm.expect("an answer");
                assert!(matches!(confirm, Confirmation::Ack(None)), "{confirm:?}");
            }
        }
    }

    async fn consume(&self, count: u64, headers: bool) -> Figure {
        let mut meter = None;
        let (mut channels, mut taps) = (vec![], vec![]);
        for number in 0..PARTITIONS {
            let channel = self.channel().await;
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("prefetch");
            let name = self.queue(number);
            let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
            let tap = channel.basic_consume((&*name).into(), "raw".into(), options, none).await;
            taps.push(tap.expect("a consumer"));
            channels.push(channel);
        }
        let mut all = select_all(taps);
        let mut handled = 0;
        while handled < count {
            let delivery = all.next().await.expect("more").expect("a delivery");
            if headers {
                for (name, value) in delivery.properties.headers().iter().flatten() {
                    black_box((name, value));
                }
            }
            let placed: Placed = serde_json::from_slice(&delivery.data).expect("an event");
            black_box(placed);
            if delivery.delivery_tag % ACK == 0 {
                let up_to = BasicAckOptions { multiple: true };
                delivery.acker.ack(up_to).await.expect("acknowledged");
            }
            handled += 1;
            if handled == AHEAD {
                meter = Some(Meter::behind(handled));
            }
        }
        let figure = meter.expect("more than what was fetched ahead").figure(count);
        for channel in channels {
            // All that was delivered.
            let rest = channel.basic_ack(0, BasicAckOptions { multiple: true });
            rest.await.expect("acknowledged");
            channel.close(200, "".into()).await.expect("closed");
        }
        figure
    }
}
