//! What is published arrives as it was, or is refused with a reason.

use crate::support::with;
use bytes::Bytes;
use sillage_core::{Broker as _, ErrorKind, Header, Key, Message, MessageId, PublishError};
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

/// The client says of a returned message in the confirmation of any message that is under way.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_commands_that_nobody_takes_are_refused() {
    with(async |corner| {
        let taken = corner.topic("payment.commands", 3).await;
        let unclaimed = corner.topic("email.commands", 3).await;
        let event = corner.topic("order", 3).await;
        let mut hand = corner.join("payment", &taken).await;
        hand.open_all().await;
        for round in 0..20 {
            let topics = [&taken, &unclaimed, &event];
            let message = |n: u64| {
                let topic = topics[usize::try_from(n).unwrap() % 3];
                Arc::new(corner.message(topic, Some(&format!("k{n}")), 100 * round + n))
            };
            let batch: Vec<_> = (0..60).map(message).collect();
            let answers = corner.broker.publish(batch.clone()).await;
            for (message, answer) in batch.iter().zip(answers) {
                match answer {
                    Err(PublishError::Refused(error)) => {
                        assert_eq!(message.topic.as_ref(), Some(&unclaimed), "{error}");
                        assert_eq!(error.kind(), ErrorKind::NotFound);
                        assert!(error.to_string().contains(&*unclaimed), "{error}");
                    }
                    answer => assert_ne!(message.topic.as_ref(), Some(&unclaimed), "{answer:?}"),
                }
            }
        }
        hand.until_got(400).await;
        hand.close().await;
    })
    .await;
}
