//! What is published arrives as it was, or is refused with a reason.

use crate::support::with;
use bytes::Bytes;
use sillage_core::{Header, Key, Message, MessageId};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn every_field_comes_back() {
    with(async |corner| {
        let topic = corner.topic("order", 3).await;
        let mut hand = corner.join("billing", &topic).await;
        hand.open_all().await;
        let header = |name: &str, value: &[u8]| Header {
            name: name.into(),
            value: Bytes::copy_from_slice(value),
        };
        let full = Message {
            version: 7,
            causation_id: Some(MessageId::new("cause")),
            operation_id: Some("operation".into()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            headers: vec![
                header("binary", &[0, 0xff, 0xfe]),
                header("ce_tenant", b"acme"),
                header("content-type", b"text/plain"),
                header("empty", b""),
                header("twice", b"first"),
                header("twice", b"second"),
                header("twice", b"third"),
            ],
            ..corner.message(&topic, Some("k"), 1)
        };
        let sent = [
            full,
            corner.message(&topic, Some("k"), 2),
            Message { key: None, ..corner.message(&topic, None, 3) },
            Message {
                key: Some(Key::from_bytes(vec![0xff, 0, 1])),
                ..corner.message(&topic, None, 4)
            },
            Message { payload: Bytes::new(), ..corner.message(&topic, Some("ключ"), 5) },
            Message { id: MessageId::new("i".repeat(500)), ..corner.message(&topic, Some("k"), 6) },
        ];
        corner.publish(&sent.clone().map(Arc::new)).await;
        hand.until_got(sent.len()).await;
        for message in sent {
            let got = hand.got.iter().find(|(_, delivery)| delivery.message.id == message.id);
            let got = &*got.unwrap().1.message;
            assert_eq!(got, &message, "{:?} {:?}", got.headers, got.correlation_id);
        }
        hand.close().await;
    })
    .await;
}
