//! What others publish is read for what it says.

use crate::support::{Corner, with};
use lapin::{
    BasicProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldArray, FieldTable},
};
use sillage_core::{Key, Message};

/// A foreign message, as it comes to a consumer.
async fn received(corner: &Corner, topic: &str, properties: BasicProperties) -> Message {
    let topic = corner.topic(topic, 1).await;
    let mut hand = corner.join("billing", &topic).await;
    hand.open_all().await;
    let channel = corner.channel().await;
    let (key, options) = ("0.order.created".into(), BasicPublishOptions::default());
    let publish = channel.basic_publish((&*topic).into(), key, options, b"{}", properties);
    publish.await.unwrap().await.unwrap();
    hand.until_got(1).await;
    let message = (*hand.got[0].1.message).clone();
    hand.close().await;
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_says_nothing_comes_with_an_id_and_a_time() {
    with(async |corner| {
        let message = received(corner, "bare", BasicProperties::default()).await;
        assert_eq!((&*message.name, &*message.payload), ("", &b"{}"[..]));
        assert_eq!((message.key, message.headers), (None, vec![]));
        assert!(message.id.as_str().len() == 36 && message.time.as_micros() > 0);
        let other = received(corner, "other", BasicProperties::default()).await;
        assert_ne!(message.id, other.id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_stand_in_for_attributes_and_any_value_is_text() {
    with(async |corner| {
        let mut inner = FieldTable::default();
        inner.insert("queue".into(), AMQPValue::LongString("q".into()));
        inner.insert("count".into(), AMQPValue::LongLongInt(2));
        let mut list = FieldArray::default();
        list.push(AMQPValue::LongInt(1));
        list.push(AMQPValue::FieldTable(inner));
        let mut headers = FieldTable::default();
        headers.insert("a-list".into(), AMQPValue::FieldArray(list));
        headers.insert("cloudEvents:partitionkey".into(), AMQPValue::LongString("k".into()));
        headers.insert("flag".into(), AMQPValue::Boolean(true));
        headers.insert("nothing".into(), AMQPValue::Void);
        let properties = BasicProperties::default()
            .with_message_id("m-1".into())
            .with_type("order.created".into())
            .with_correlation_id("c-1".into())
            .with_app_id("legacy".into())
            .with_timestamp(1_700_000_000)
            .with_content_type("text/plain".into())
            .with_headers(headers);
        let message = received(corner, "order", properties).await;
        assert_eq!((message.id.as_str(), &*message.source), ("m-1", "legacy"));
        assert_eq!((&*message.name, &*message.correlation_id), ("order.created", "c-1"));
        assert_eq!(message.time.to_string(), "2023-11-14T22:13:20.000000Z");
        assert_eq!(message.key, Some(Key::from("k")));
        let headers: Vec<_> = message
            .headers
            .iter()
            .map(|header| (&*header.name, std::str::from_utf8(&header.value).unwrap()))
            .collect();
        let expected = [
            ("content-type", "text/plain"),
            ("a-list", "1"),
            ("a-list", r#"{"count":"2","queue":"q"}"#),
            ("flag", "true"),
            ("nothing", ""),
        ];
        assert_eq!(headers, expected);
    })
    .await;
}
