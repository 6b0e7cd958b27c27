//! Our side of the tests, and messages in which everything is said.

pub(crate) mod child;

use child::{PATIENCE, Programs};
use serde_json::{Value, json};
use sillage_core::{
    Broker as _, Header, Inbound, Key, Message, MessageId, Start, Subscription, Text, TopicSpec,
};
use sillage_kafka::Kafka;
use std::{collections::BTreeMap, sync::Arc};
use tokio::{process::Command, time::timeout};
use uuid::Uuid;

pub(crate) const TIME: &str = "2026-03-04T05:06:07.123456Z";
pub(crate) const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A new topic, and who uses it.
pub(crate) struct Corner {
    pub(crate) programs: Programs,
    pub(crate) kafka: Kafka,
    pub(crate) server: String,
    pub(crate) topic: Text,
}

impl Corner {
    /// A topic of three partitions, or the test is skipped.
    pub(crate) async fn new() -> Option<Corner> {
        let url = sillage_testkit::servers::url("SILLAGE_TEST_KAFKA")?;
        let programs = Programs::find()?;
        let kafka = Kafka::connect(&url).await.unwrap();
        let topic: Text = unique("foreign").into();
        let spec = TopicSpec { name: topic.clone(), partitions: Some(3) };
        kafka.ensure(&[spec]).await.unwrap();
        let rest = url.strip_prefix("kafka://").unwrap();
        let server = rest.split(['?', '/']).next().unwrap().to_owned();
        Some(Corner { programs, kafka, server, topic })
    }

    /// A command of the server and the topic: `kafka-go read`, say.
    pub(crate) fn command(&self, program: &str, what: &str) -> Command {
        let mut command = match program {
            "confluent.py" => self.programs.script(program),
            program => self.programs.program(program),
        };
        command.args([what, &self.server, &self.topic]);
        command
    }

    /// kcat with options.
    pub(crate) fn kcat(&self, options: &[&str]) -> Command {
        let mut command = self.programs.program("kcat");
        command.args(["-q", "-b", &self.server, "-t", &self.topic]).args(options);
        command
    }

    /// Publishes messages in which everything is said.
    pub(crate) async fn publish(&self, numbers: std::ops::Range<u32>, keys: u32) {
        let message = |number| Arc::new(message(&self.topic, number, number % keys));
        let batch: Vec<_> = numbers.map(message).collect();
        for receipt in timeout(PATIENCE, self.kafka.publish(batch)).await.unwrap() {
            receipt.unwrap();
        }
    }

    /// So many messages, as a consumer of ours gets them.
    pub(crate) async fn received(&self, count: usize) -> Vec<Arc<Message>> {
        let subscription = Subscription {
            consumer: unique("consumer").into(),
            topics: vec![self.topic.clone()],
            start: Start::Earliest,
            broadcast: false,
            reached: vec![],
        };
        let (mut receiver, settler) = self.kafka.subscribe(subscription).await.unwrap();
        let mut got = vec![];
        while got.len() < count {
            let inbound = timeout(PATIENCE, receiver.next()).await.expect("too few come");
            if let Inbound::Batch(_, deliveries) = inbound.unwrap() {
                got.extend(deliveries.map(|delivery| delivery.message));
            }
        }
        timeout(PATIENCE, settler.close()).await.unwrap().unwrap();
        assert_eq!(got.len(), count);
        got
    }
}

pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}", Uuid::new_v4().simple())
}

fn message(topic: &Text, number: u32, key: u32) -> Message {
    let header = |name: &str, value: &str| Header {
        name: name.into(),
        value: bytes::Bytes::copy_from_slice(value.as_bytes()),
    };
    Message {
        id: MessageId::new(format!("m-{number}")),
        source: "shop".into(),
        name: "order.created".into(),
        version: 2,
        topic: Some(topic.clone()),
        key: Some(Key::from(&*format!("order-{key}"))),
        time: TIME.parse().unwrap(),
        correlation_id: "correlation-1".into(),
        causation_id: Some(MessageId::new("cause-1")),
        operation_id: Some("operation-1".into()),
        traceparent: Some(PARENT.into()),
        headers: vec![header("ce_tenant", "blue"), header("x-note", "Zoë")],
        payload: data(number).to_string().into(),
    }
}

/// The data of a message.
pub(crate) fn data(number: u32) -> Value {
    json!({ "number": number, "total": 1250, "currency": "EUR", "name": "Zoë" })
}

/// The headers of a message, as they are on the wire.
pub(crate) fn headers(number: u32, key: u32) -> Value {
    json!({
        "ce_specversion": "1.0",
        "ce_id": format!("m-{number}"),
        "ce_source": "shop",
        "ce_type": "order.created",
        "ce_time": TIME,
        "ce_schemaversion": "2",
        "ce_correlationid": "correlation-1",
        "ce_causationid": "cause-1",
        "ce_operationid": "operation-1",
        "ce_subject": format!("order-{key}"),
        "ce_partitionkey": format!("order-{key}"),
        "ce_tenant": "blue",
        "content-type": "application/json",
        "traceparent": PARENT,
        "x-note": "Zoë",
    })
}

/// An event in structured form, as others write it.
pub(crate) fn event(id: &str) -> Value {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": "/till/7",
        "type": "order.paid",
        "time": "2026-03-04T06:06:07.123456+01:00",
        "datacontenttype": "application/json",
        "subject": "order-7",
        "partitionkey": "order-7",
        "schemaversion": 3,
        "correlationid": "correlation-7",
        "causationid": "cause-7",
        "traceparent": PARENT,
        "data": data(7),
    })
}

/// What we should make of that.
pub(crate) fn check_event(message: &Message, id: &str) {
    assert_eq!((message.id.as_str(), &*message.source), (id, "/till/7"));
    assert_eq!((&*message.name, message.version), ("order.paid", 3));
    assert_eq!((message.time.to_string(), &message.key), (TIME.into(), &Some("order-7".into())));
    assert_eq!(&*message.correlation_id, "correlation-7");
    assert_eq!(message.causation_id, Some(MessageId::new("cause-7")));
    assert_eq!(message.traceparent.as_deref(), Some(PARENT));
    assert_eq!(payload(message), data(7));
}

pub(crate) fn payload(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

/// The numbers of messages by key, in the order in which a program printed them.
pub(crate) fn by_key(printed: &[Value]) -> BTreeMap<String, Vec<u64>> {
    let mut keys = BTreeMap::<_, Vec<_>>::new();
    for line in printed {
        let number = line["data"]["number"].as_u64().unwrap();
        keys.entry(line["key"].as_str().unwrap().to_owned()).or_default().push(number);
    }
    keys
}
