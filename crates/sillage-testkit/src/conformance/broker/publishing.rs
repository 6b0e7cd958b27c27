//! What is published arrives as it was, and what cannot be published is refused by itself.

use super::{
    BrokerFixture,
    case::{Case, assert_got, assert_taken},
};
use bytes::Bytes;
use sillage_core::{Header, Key, Message, MessageId, PublishError};
use std::{collections::HashMap, sync::Arc};

/// Every field of a message comes back, byte for byte; of headers, each value, and those of one
/// name in their order.
pub async fn a_message_arrives_whole<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "whole").await;
    let messages: Vec<_> = odd_messages(&case).into_iter().map(Arc::new).collect();
    case.publish(&messages).await;
    let mut members = [case.join().await];
    case.until_got(&mut members, &messages).await;
    let got = members[0].got.iter();
    let got: HashMap<_, _> =
        got.map(|got| (&got.delivery.message.id, &got.delivery.message)).collect();
    for sent in &messages {
        assert_same(got[&sent.id], sent);
    }
    members[0].close().await;
}

fn assert_same(got: &Message, sent: &Message) {
    let id = &sent.id;
    assert_eq!((&got.id, &got.source), (&sent.id, &sent.source));
    assert_eq!((&got.name, got.version), (&sent.name, sent.version), "name and version of {id}");
    assert_eq!((&got.topic, &got.key), (&sent.topic, &sent.key), "topic and key of {id}");
    assert_eq!(got.time, sent.time, "time of {id}");
    assert_eq!(got.correlation_id, sent.correlation_id, "correlation of {id}");
    assert_eq!(got.causation_id, sent.causation_id, "causation of {id}");
    assert_eq!(got.operation_id, sent.operation_id, "operation id of {id}");
    assert_eq!(got.traceparent, sent.traceparent, "traceparent of {id}");
    let (mut got_headers, mut sent_headers) = (got.headers.clone(), sent.headers.clone());
    got_headers.sort_by(|a, b| a.name.cmp(&b.name));
    sent_headers.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(got_headers, sent_headers, "headers of {id}");
    assert!(got.payload == sent.payload, "the payload of {id} has changed");
}

fn odd_messages<F: BrokerFixture>(case: &Case<'_, F>) -> Vec<Message> {
    let message = |n| case.message(Some("k"), n);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    vec![
        Message {
            version: 7,
            causation_id: Some(MessageId::new("cause")),
            operation_id: Some("shop/operation".into()),
            traceparent: Some(trace.into()),
            headers: odd_headers(),
            ..message(0)
        },
        message(1),
        Message { key: None, ..message(2) },
        Message { key: Some(Key::from_bytes(vec![0xff, 0xfe, 1, b'%'])), ..message(3) },
        Message { key: Some(Key::from("ключ 1")), ..message(4) },
        Message { payload: Bytes::new(), ..message(5) },
        Message { payload: (0..=255).collect::<Vec<u8>>().into(), ..message(6) },
        Message {
            id: MessageId::new(format!("{}/ид №7 \"%00\"", case.name)),
            source: "größe".into(),
            name: "order.erzählt".into(),
            correlation_id: "a b\n\"c\"".into(),
            ..message(7)
        },
        Message { headers: vec![header("h", b"v"); 64], ..message(8) },
        Message { payload: b"not json".as_slice().into(), ..message(9) },
        Message { key: Some(Key::from("")), ..message(10) },
    ]
}

fn header(name: &str, value: &[u8]) -> Header {
    Header { name: name.into(), value: Bytes::copy_from_slice(value) }
}

fn odd_headers() -> Vec<Header> {
    vec![
        header("tracestate", b"vendor=1"),
        header("twice", b"first"),
        header("empty", b""),
        header("twice", b"second"),
        header("binary", &[0, 0xff, 0xfe, b'\n']),
        header("ce_tenant", b"acme"),
        header("content-type", b"text/plain"),
        header("grüße an alle", "größer".as_bytes()),
        header("long", &[b'x'; 8 * 1024]),
    ]
}

/// 800 KiB arrive as they were, and what is around them too.
pub async fn a_large_message_arrives_whole<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "large").await;
    let large = |n: u8| {
        let payload: Vec<u8> = (0..800 * 1024).map(|at: u32| at.to_le_bytes()[1] ^ n).collect();
        Arc::new(Message { payload: payload.into(), ..case.message(Some("k"), n.into()) })
    };
    let small = |n| Arc::new(case.message(Some("k"), n));
    let messages = [small(0), large(1), small(2), large(3), large(4), small(5)];
    case.publish(&messages).await;
    let mut members = [case.join().await];
    case.until_got(&mut members, &messages).await;
    assert_got(&members[0].got, &messages);
    for (got, sent) in members[0].got.iter().zip(&messages) {
        assert!(got.delivery.message.payload == sent.payload, "{} has changed", sent.id);
    }
    members[0].close().await;
}

/// A receipt says where the message in its place of the batch landed, as far as the broker tells.
pub async fn receipts_come_in_the_order_of_the_batch<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "receipts").await;
    let messages = case.orders(0..500);
    let receipts = case.broker.publish(messages.clone()).await;
    assert_taken(&receipts, messages.len());
    assert!(case.broker.publish(vec![]).await.is_empty());
    let mut members = [case.join().await];
    case.until_got(&mut members, &messages).await;
    let places: HashMap<_, _> = members[0].got.iter().map(|got| (got.id(), got)).collect();
    for (message, receipt) in messages.iter().zip(receipts) {
        let (receipt, got) = (receipt.unwrap(), places[message.id.as_str()]);
        if let Some(partition) = receipt.partition {
            assert_eq!(partition, got.partition, "{}", message.id);
        }
        if let Some(offset) = receipt.offset {
            assert_eq!(offset, got.delivery.offset, "{}", message.id);
        }
    }
    members[0].close().await;
}

/// What the broker never takes is refused in its place; its neighbours are published in order.
pub async fn a_message_over_the_limit_is_refused_alone<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "limit").await;
    let mut messages = case.orders(0..60);
    for place in [20, 21, 59] {
        let payload = vec![b'x'; case.can.max_message_bytes + 1].into();
        messages[place] = Arc::new(Message { payload, ..(*messages[place]).clone() });
    }
    let receipts = case.broker.publish(messages.clone()).await;
    let mut taken = vec![];
    for (place, receipt) in receipts.iter().enumerate() {
        match receipt {
            Ok(_) => taken.push(messages[place].clone()),
            Err(PublishError::Refused(why)) => assert!(!why.to_string().is_empty()),
            Err(unknown) => panic!("message {place}: {unknown:?}"),
        }
    }
    assert_eq!((receipts.len(), taken.len()), (60, 57), "receipts, and messages taken");
    let mut members = [case.join().await];
    case.until_got(&mut members, &taken).await;
    case.flush_keys(&mut members, 1000).await;
    taken.extend(case.orders(1000..1020));
    assert_got(&members[0].got, &taken);
    members[0].close().await;
}

/// Whatever names and headers hold, the message arrives or is refused, and others flow.
pub async fn hostile_names_and_headers_are_harmless<F: BrokerFixture>(fixture: &F) {
    let case = Case::new(fixture, "hostile").await;
    let mut members = [case.join().await];
    let mut sent = vec![];
    for (number, hostile) in hostile_messages(&case).into_iter().enumerate() {
        let number = 1000 + 2 * number as u64;
        let around = [case.message(Some("k0"), number), case.message(Some("k0"), number + 1)];
        let [before, after] = around.map(Arc::new);
        let hostile = Arc::new(hostile);
        let batch = vec![before.clone(), hostile.clone(), after.clone()];
        let receipts = case.broker.publish(batch).await;
        assert!(receipts[0].is_ok() && receipts[2].is_ok(), "{hostile:?}: {receipts:?}");
        match &receipts[1] {
            Err(PublishError::Unknown(error)) => panic!("{hostile:?}: {error}"),
            Ok(_) if hostile.topic.as_ref() == Some(&case.topic) => {
                sent.extend([before, hostile, after]);
            }
            Ok(_) | Err(PublishError::Refused(_)) => sent.extend([before, after]),
        }
    }
    let count = sent.len();
    let all = |members: &[super::joined::Joined<'_, F>]| members[0].got.len() >= count;
    case.until(&mut members, "all that was taken had come", all).await;
    let neighbours: Vec<_> = sent.iter().filter(|m| m.key == Some("k0".into())).collect();
    let got = members[0].got.iter();
    let got = got.filter(|got| got.delivery.message.key == Some("k0".into()));
    assert_got(got, neighbours);
    members[0].close().await;
}

fn hostile_messages<F: BrokerFixture>(case: &Case<'_, F>) -> Vec<Message> {
    let numbers = std::cell::Cell::new(0);
    let hostile = || {
        numbers.set(numbers.get() + 1);
        case.message(Some("hostile"), numbers.get())
    };
    let long = "x".repeat(500);
    let with = |headers: Vec<Header>| Message { headers, ..hostile() };
    let to = |topic: &str| Message { topic: Some(topic.into()), ..hostile() };
    vec![
        with(vec![header("ce_id", b"forged"), header("ce_source", b"forged")]),
        with(vec![header("ce_type", &[0xff, 0]), header("ce_time", b"yesterday")]),
        with(vec![header("ce_schemaversion", b"-1"), header("ce_specversion", b"99")]),
        with(vec![header("", b"no name"), header("\r\n", b"\r\n\r\n")]),
        with(vec![header(&long, b"")]),
        with(vec![header("x-death", b"1"), header("x-match", b"any"), header("CC", b"amq.topic")]),
        with(vec![header("content-type", b"application/cloudevents+json")]),
        with(vec![header("traceparent", b"00-garbage")]),
        with(vec![header("h", &vec![b'x'; 30 * 1024])]),
        with(vec![header("h", b"v"); 65]),
        Message { name: "".into(), ..hostile() },
        Message { name: long.as_str().into(), source: long.as_str().into(), ..hostile() },
        Message { id: MessageId::new(long.as_str()), ..hostile() },
        Message { id: MessageId::new("a\0b"), ..hostile() },
        Message { key: Some(Key::from_bytes(vec![b'a', 0])), ..hostile() },
        Message { topic: None, ..hostile() },
        to(""),
        to("../../etc"),
        to("a b#*./\\"),
        to("тема"),
        to(&long),
    ]
}
