//! The wire format against pika and the CloudEvents SDK: each reads what we write, and we what it
//! writes.
//!
//! `SILLAGE_TEST_FOREIGN` says where the programs are: `cargo xtask test` installs them.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../sillage-kafka/tests/foreign/child.rs"]
mod child;
#[path = "broker/support.rs"]
#[allow(dead_code, reason = "the other tests need more of it")]
mod support;

use child::{Child, Programs, lines, run};
use serde_json::{Value, json};
use sillage_core::{Header, Key, Message, MessageId, Text};
use std::sync::Arc;
use support::{Corner, with};
use tokio::process::Command;

const TIME: &str = "2026-03-04T05:06:07.123456Z";
const SECONDS: u64 = 1_772_600_767;
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A message in which everything is said.
fn message(topic: &Text, name: &str, number: u64) -> Message {
    let header = |name: &str, value: &str| Header {
        name: name.into(),
        value: bytes::Bytes::copy_from_slice(value.as_bytes()),
    };
    Message {
        id: MessageId::new(format!("m-{number}")),
        source: "shop".into(),
        name: name.into(),
        version: 2,
        topic: Some(topic.clone()),
        key: Some(Key::from("order-1")),
        time: TIME.parse().unwrap(),
        correlation_id: "correlation-1".into(),
        causation_id: Some(MessageId::new("cause-1")),
        operation_id: Some("operation-1".into()),
        traceparent: Some(PARENT.into()),
        headers: vec![header("ce_tenant", "blue"), header("x-note", "Zoë")],
        payload: data(number).to_string().into(),
    }
}

fn data(number: u64) -> Value {
    json!({ "number": number, "total": 1250, "currency": "EUR", "name": "Zoë" })
}

/// Checks what pika and the SDK have seen of it.
fn check_seen(line: &Value, name: &str, number: u64) {
    let properties = json!({
        "content_type": "application/json",
        "delivery_mode": 2,
        "message_id": format!("m-{number}"),
        "type": name,
        "app_id": "shop",
        "correlation_id": "correlation-1",
        "timestamp": SECONDS,
    });
    assert_eq!(line["properties"], properties);
    let attributes = json!({
        "specversion": "1.0",
        "id": format!("m-{number}"),
        "source": "shop",
        "type": name,
        "time": "2026-03-04T05:06:07.123456+00:00",
        "subject": "order-1",
        "datacontenttype": "application/json",
        "schemaversion": "2",
        "correlationid": "correlation-1",
        "causationid": "cause-1",
        "operationid": "operation-1",
        "partitionkey": "order-1",
        "tenant": "blue",
    });
    assert_eq!(line["attributes"], attributes);
    let mut headers = json!({
        "content-type": "application/json",
        "traceparent": PARENT,
        "x-note": "Zoë",
        "cloudEvents:time": TIME,
    });
    for (attribute, value) in attributes.as_object().unwrap() {
        if !["time", "datacontenttype"].contains(&&**attribute) {
            headers[format!("cloudEvents:{attribute}")] = value.clone();
        }
    }
    assert_eq!((&line["headers"], &line["data"]), (&headers, &data(number)));
    let (partition, rest) = line["routing_key"].as_str().unwrap().split_once('.').unwrap();
    assert!(partition.parse::<u32>().unwrap() < 4);
    assert_eq!(rest, name);
}

/// Runs pika against a topic.
fn pika(programs: &Programs, corner: &Corner, arguments: &[&str]) -> Command {
    let mut command = programs.script("amqp.py");
    let (what, rest) = arguments.split_first().unwrap();
    command.args([what, &*corner.url]).args(rest);
    command
}

/// What a queue of pika's gets of an `order.paid` and then two `order.created`.
async fn seen(programs: &Programs, corner: &Corner, binding: &str, count: &str) -> Vec<Value> {
    let topic = corner.topic("order", 4).await;
    let command = pika(programs, corner, &["read", &topic, binding, count]);
    let mut reader = Child::start(command, "").await;
    assert_eq!(reader.next().await, Some(json!({ "bound": true })));
    let names = ["order.paid", "order.created", "order.created"];
    let numbered = (1..).zip(names);
    let batch: Vec<_> = numbered.map(|(n, name)| Arc::new(message(&topic, name, n))).collect();
    corner.publish(&batch).await;
    reader.rest().await
}

/// What we make of a message that pika publishes.
async fn received(corner: &Corner, command: impl FnOnce(&str) -> Command, input: Value) -> Message {
    let topic = corner.topic("order", 4).await;
    let mut hand = corner.join("billing", &topic).await;
    hand.open_all().await;
    run(command(&topic), &lines(&[input])).await;
    hand.until_got(1).await;
    let message = (*hand.got[0].1.message).clone();
    assert_eq!(hand.got[0].0.number, 2);
    hand.close().await;
    message
}

/// An event, as others write it.
fn event(id: &str) -> Value {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": "/till/7",
        "type": "order.paid",
        "time": "2026-03-04T06:06:07.123000+01:00",
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
fn check_event(message: &Message, id: &str) {
    assert_eq!((message.id.as_str(), &*message.source), (id, "/till/7"));
    assert_eq!((&*message.name, message.version), ("order.paid", 3));
    assert_eq!(message.time.to_string(), "2026-03-04T05:06:07.123000Z");
    assert_eq!(
        (&message.key, &*message.correlation_id),
        (&Some("order-7".into()), "correlation-7")
    );
    assert_eq!(message.causation_id, Some(MessageId::new("cause-7")));
    assert_eq!(message.traceparent.as_deref(), Some(PARENT));
    assert_eq!(serde_json::from_slice::<Value>(&message.payload).unwrap(), data(7));
    assert_eq!(message.headers, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn pika_reads_ours_and_the_sdk_takes_them_for_valid_events() {
    let Some(programs) = Programs::find() else { return };
    with(async |corner| {
        let seen = seen(&programs, corner, "#", "3").await;
        assert_eq!(seen.len(), 3);
        check_seen(&seen[0], "order.paid", 1);
        check_seen(&seen[1], "order.created", 2);
        check_seen(&seen[2], "order.created", 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pika_reads_ours_by_name() {
    let Some(programs) = Programs::find() else { return };
    with(async |corner| {
        let seen = seen(&programs, corner, "*.order.created", "2").await;
        assert_eq!(seen.len(), 2);
        check_seen(&seen[0], "order.created", 2);
        check_seen(&seen[1], "order.created", 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pika_writes_with_a_colon_is_consumed() {
    let Some(programs) = Programs::find() else { return };
    with(async |corner| {
        let mut headers = json!({ "traceparent": PARENT });
        let event = event("pika-1");
        for (name, value) in event.as_object().unwrap() {
            if !["data", "datacontenttype", "traceparent"].contains(&&**name) {
                headers[format!("cloudEvents:{name}")] = value.clone();
            }
        }
        // Properties may say something else: attributes are what the event says.
        let input = json!({
            "routing_key": "2.order.paid",
            "properties": {
                "content_type": "application/json",
                "delivery_mode": 2,
                "message_id": "another",
                "type": "another",
                "timestamp": 1,
            },
            "headers": headers,
            "body": event["data"],
        });
        let command = |topic: &str| pika(&programs, corner, &["write", topic]);
        check_event(&received(corner, command, input).await, "pika-1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pika_says_in_properties_and_plain_headers_is_understood() {
    let Some(programs) = Programs::find() else { return };
    with(async |corner| {
        let input = json!({
            "routing_key": "2.order.paid",
            "properties": {
                "content_type": "application/json",
                "message_id": "pika-2",
                "app_id": "till",
                "correlation_id": "correlation-7",
            },
            "headers": { "event-type": "order.paid", "timestamp": TIME },
            "body": data(7),
        });
        let command = |topic: &str| pika(&programs, corner, &["write", topic]);
        let message = received(corner, command, input).await;
        assert_eq!((message.id.as_str(), &*message.source), ("pika-2", "till"));
        assert_eq!((&*message.name, message.time.to_string()), ("order.paid", TIME.into()));
        assert_eq!((message.key, &*message.correlation_id), (None, "correlation-7"));
    })
    .await;
}

/// What we make of an event that the SDK writes.
async fn written(mode: &str) {
    let Some(programs) = Programs::find() else { return };
    with(async |corner| {
        let command = |topic: &str| pika(&programs, corner, &["sdk", topic, "2.order.paid", mode]);
        check_event(&received(corner, command, event("sdk-1")).await, "sdk-1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_event_by_the_sdks_binding_for_amqp_is_consumed() {
    // `cloudEvents_`, with numbers as such, and times as milliseconds.
    written("amqp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_event_by_the_sdks_binding_for_rabbitmq_is_consumed() {
    // `ce-`, as over HTTP: the binding for AMQP has it nowhere.
    written("rabbitmq").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_structured_event_of_the_sdk_is_consumed() {
    written("structured").await;
}
