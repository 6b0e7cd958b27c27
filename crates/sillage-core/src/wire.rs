//! Messages as JSON: `CloudEvents` 1.0 in structured form, with the extensions Sillage uses.
//!
//! This is what the command line prints and reads, and how messages are kept in documents.
//! Reading back what was written gives the same message, byte for byte.

use crate::{Error, Header, Key, Message, MessageId, Result, Text, Timestamp};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

#[derive(Serialize, Deserialize)]
struct Structured<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    id: Text,
    source: Text,
    r#type: Text,
    #[serde(default = "one", deserialize_with = "number")]
    schemaversion: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitionkey: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partitionkeybase64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlationid: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    causationid: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operationid: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<Text>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(Text, String)>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

fn one() -> u32 {
    1
}

/// A whole number, or one as text: by the specification attributes may be either.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(u32),
        Text(String),
    }
    match Number::deserialize(from)? {
        Number::Whole(number) => Ok(number),
        Number::Text(text) => text.parse().map_err(D::Error::custom),
    }
}

/// The attributes of an event that have no field in a message, as headers.
struct Others(Vec<Header>);

impl<'de> Deserialize<'de> for Others {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Others(vec![]))
    }
}

impl<'de> Visitor<'de> for Others {
    type Value = Others;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event in structured form")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Others, A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let value = map.next_value::<&'de RawValue>()?.get();
            if FIELDS.contains(&&*name) || value == "null" {
                continue;
            }
            let text = serde_json::from_str::<String>(value);
            let value = text.map_or_else(|_| Bytes::copy_from_slice(value.as_bytes()), Bytes::from);
            self.0.push(Header { name: [EXTENSION, &name].concat().into(), value });
        }
        Ok(self)
    }
}

/// What [`Structured`] reads.
const FIELDS: [&str; 17] = [
    "specversion",
    "id",
    "source",
    "type",
    "schemaversion",
    "topic",
    "partitionkey",
    "partitionkeybase64",
    "time",
    "correlationid",
    "causationid",
    "operationid",
    "traceparent",
    "datacontenttype",
    "headers",
    "data",
    "data_base64",
];

/// What a foreign event is about, where that is not its key.
pub(crate) const SUBJECT: &str = "ce_subject";
/// How the names of extension attributes begin in [`Message::headers`].
pub(crate) const EXTENSION: &str = "ce_";

/// A message as one line of JSON. Headers are an array of (name, base64 of the value).
pub fn to_json(message: &Message) -> Result<String> {
    let key = message.key.as_ref();
    let key_text = key.and_then(|key| std::str::from_utf8(key.as_bytes()).ok());
    let one_line = !message.payload.iter().any(|byte| *byte < b' ');
    let text = std::str::from_utf8(&message.payload).ok().filter(|_| one_line);
    let data = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    // White space around the value would be lost, and `null` would read as no payload.
    let exact = |data: &&RawValue| data.get().len() == message.payload.len();
    let data = data.filter(exact).filter(|data| data.get() != "null");
    let headers = message.headers.iter();
    let structured = Structured {
        specversion: "1.0".into(),
        id: message.id.text(),
        source: message.source.clone(),
        r#type: message.name.clone(),
        schemaversion: message.version,
        topic: message.topic.clone(),
        partitionkey: key_text.map(Text::from),
        partitionkeybase64: key
            .filter(|_| key_text.is_none())
            .map(|key| BASE64.encode(key.as_bytes())),
        time: Some(message.time),
        correlationid: Some(message.correlation_id.clone()),
        causationid: message.causation_id.as_ref().map(MessageId::text),
        operationid: message.operation_id.clone(),
        traceparent: message.traceparent.clone(),
        datacontenttype: None,
        headers: headers.map(|h| (h.name.clone(), BASE64.encode(&h.value))).collect(),
        data,
        data_base64: data.is_none().then(|| BASE64.encode(&message.payload)),
    };
    serde_json::to_string(&structured)
        .map_err(|error| Error::invalid("a message cannot be written as JSON").because(error))
}

/// The media type of payloads, unless a message says another.
pub(crate) const JSON: &[u8] = b"application/json";

/// Whether a body of this media type is an event in structured form.
pub(crate) fn is_structured(media_type: &[u8]) -> bool {
    const STRUCTURED: &[u8] = b"application/cloudevents+json";
    media_type.get(..STRUCTURED.len()).is_some_and(|start| start.eq_ignore_ascii_case(STRUCTURED))
}

/// Reads what [`to_json`] wrote, or any `CloudEvents` event in structured form that has a `time`.
pub fn from_json(json: &[u8]) -> Result<Message> {
    structured(json, None, None)
}

/// Reads an event in structured form; one without a `time` gets `or_time`. The key of its record
/// counts more than what it says.
pub(crate) fn structured(
    json: &[u8],
    or_time: Option<Timestamp>,
    key: Option<Key>,
) -> Result<Message> {
    let unreadable = |error| Error::invalid("no structured CloudEvent").because(error);
    let structured: Structured<'_> = serde_json::from_slice(json).map_err(unreadable)?;
    let Others(others) = serde_json::from_slice(json).map_err(unreadable)?;
    let id = MessageId::new(structured.id);
    let time = structured.time.or(or_time);
    let time = time.ok_or_else(|| Error::invalid("a structured CloudEvent without `time`"))?;
    let key = match (key, structured.partitionkey, structured.partitionkeybase64) {
        (Some(key), _, _) => Some(key),
        (None, Some(text), _) => Some(Key::from(&*text)),
        (None, None, Some(coded)) => Some(Key::from_bytes(decode("partitionkeybase64", &coded)?)),
        (None, None, None) => None,
    };
    let payload = match (structured.data, structured.data_base64) {
        (Some(data), _) => Bytes::copy_from_slice(data.get().as_bytes()),
        (None, Some(coded)) => decode("data_base64", &coded)?,
        (None, None) => Bytes::new(),
    };
    let own = structured.headers.into_iter();
    let own = own.map(|(name, coded)| Ok(Header { value: decode(&name, &coded)?, name }));
    let mut headers = own.collect::<Result<Vec<_>>>()?;
    if let Some(media_type) = structured.datacontenttype.filter(|kind| kind.as_bytes() != JSON) {
        let value = Bytes::copy_from_slice(media_type.as_bytes());
        headers.push(Header { name: "content-type".into(), value });
    }
    // An event's subject mostly is its key.
    let is_key = |header: &Header| {
        let key = key.as_ref().map(Key::as_bytes);
        &*header.name == SUBJECT && key == Some(&header.value)
    };
    headers.extend(others.into_iter().filter(|header| !is_key(header)));
    Ok(Message {
        correlation_id: structured.correlationid.unwrap_or_else(|| id.text()),
        id,
        source: structured.source,
        name: structured.r#type,
        version: structured.schemaversion,
        topic: structured.topic,
        key,
        time,
        causation_id: structured.causationid.map(MessageId::new),
        operation_id: structured.operationid,
        traceparent: structured.traceparent,
        headers,
        payload,
    })
}

fn decode(what: &str, coded: &str) -> Result<Bytes> {
    let bytes = BASE64.decode(coded);
    bytes
        .map(Bytes::from)
        .map_err(|error| Error::invalid(format!("`{what}` is no base64")).because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8], key: Option<Key>) -> Message {
        Message {
            id: MessageId::new("1"),
            source: "order".into(),
            name: "order.created".into(),
            version: 2,
            topic: Some("order".into()),
            key,
            time: Timestamp::from_micros(1_700_000_000_000_001),
            correlation_id: "c".into(),
            causation_id: Some(MessageId::new("0")),
            operation_id: None,
            traceparent: None,
            headers: vec![
                Header { name: "x".into(), value: Bytes::from_static(&[0, 255]) },
                Header { name: "x".into(), value: Bytes::from_static(b"again") },
            ],
            payload: Bytes::copy_from_slice(payload),
        }
    }

    #[test]
    fn every_payload_and_key_comes_back_byte_for_byte() {
        let payloads: [&[u8]; 8] = [
            br#"{"a":1.50,"b":"\u0000"}"#,
            b"{\n  \"a\": 1 }",
            b" 1",
            b"",
            b"null",
            b"not json",
            &[0, 159, 146, 150],
            b"1e400000",
        ];
        for payload in payloads {
            for key in [None, Some(Key::of("k")), Some(Key::from_bytes(vec![0, 255]))] {
                let message = message(payload, key);
                let json = to_json(&message).unwrap();
                assert!(!json.contains('\n'));
                assert_eq!(from_json(json.as_bytes()).unwrap(), message, "{json}");
            }
        }
    }

    #[test]
    fn a_foreign_cloud_event_is_read() {
        let json = br#"{"specversion":"1.0","id":"1","source":"/x","type":"t","time":"2026-01-01T00:00:00Z","data":{"n":1}}"#;
        let message = from_json(json).unwrap();
        assert_eq!((&*message.correlation_id, &message.payload[..]), ("1", &br#"{"n":1}"#[..]));
        assert!(from_json(b"{}").unwrap_err().to_string().contains("CloudEvent"));
    }

    #[test]
    fn what_a_foreign_event_says_beside_is_kept() {
        let json = br#"{"specversion":"1.0","id":"1","source":"/x","type":"t","time":"2026-01-01T00:00:00Z",
            "schemaversion":"3","datacontenttype":"text/plain","tenant":"a\"b","retries":2,"urgent":true,
            "empty":null,"data_base64":"aGk="}"#;
        let message = from_json(json).unwrap();
        assert_eq!((message.version, &message.payload[..]), (3, &b"hi"[..]));
        let headers = message.headers.iter().map(|header| (&*header.name, &header.value[..]));
        let expected: [(&str, &[u8]); 4] = [
            ("content-type", b"text/plain"),
            ("ce_tenant", b"a\"b"),
            ("ce_retries", b"2"),
            ("ce_urgent", b"true"),
        ];
        assert_eq!(headers.collect::<Vec<_>>(), expected);
        assert_eq!(from_json(to_json(&message).unwrap().as_bytes()).unwrap(), message);
    }

    #[test]
    fn every_field_is_read_as_one() {
        let Others(others) =
            serde_json::from_str(&to_json(&message(b"1", Some(Key::of("k")))).unwrap()).unwrap();
        assert_eq!(others, []);
    }

    #[test]
    fn deep_json_is_carried_as_it_is() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let message = message(deep.as_bytes(), None);
        assert_eq!(from_json(to_json(&message).unwrap().as_bytes()).unwrap(), message);
    }
}
