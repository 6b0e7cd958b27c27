//! Messages with their attributes as headers: `CloudEvents` 1.0 in binary mode, as brokers carry
//! it, with the extensions Sillage uses.
//!
//! Reading never fails: a message that says less than it should comes with what it says, and a
//! message without a type comes with an empty name, which no handler has. Structured mode and the
//! plain headers `event-type`, `correlation-id` and `timestamp` are read as well.

use crate::{
    Header, Key, Message, MessageId, Text, Timestamp,
    wire::{EXTENSION, JSON, is_structured, structured},
};
use bytes::Bytes;
use std::{borrow::Cow, collections::HashMap};

/// How brokers mark the attributes of an event among other headers. The first is what extension
/// attributes keep in [`Message::headers`].
const PREFIXES: [&str; 4] = [EXTENSION, "cloudEvents:", "cloudEvents_", "ce-"];

/// The attributes and headers of a message as a broker carries them; attributes with this prefix
/// (`ce_` on Kafka, `cloudEvents:` on AMQP). The payload is the body.
pub fn to_headers(message: &Message, prefix: &str) -> Vec<(Cow<'static, str>, Bytes)> {
    let mut headers = Vec::with_capacity(12 + message.headers.len());
    let mut attribute = |name: &str, value: Bytes| {
        headers.push((Cow::Owned([prefix, name].concat()), value));
    };
    attribute("specversion", Bytes::from_static(b"1.0"));
    attribute("id", bytes(message.id.as_str()));
    attribute("source", bytes(&message.source));
    attribute("type", bytes(&message.name));
    attribute("time", message.time.to_string().into());
    attribute("schemaversion", message.version.to_string().into());
    attribute("correlationid", bytes(&message.correlation_id));
    if let Some(cause) = &message.causation_id {
        attribute("causationid", bytes(cause.as_str()));
    }
    if let Some(operation) = &message.operation_id {
        attribute("operationid", bytes(operation));
    }
    let key = message.key.as_ref().map(Key::as_bytes);
    if let Some(key) = key.filter(|key| std::str::from_utf8(key).is_ok()) {
        attribute("subject", Bytes::copy_from_slice(key));
        attribute("partitionkey", Bytes::copy_from_slice(key));
    }
    if message.header("content-type").is_none() {
        headers.push((Cow::Borrowed("content-type"), Bytes::from_static(JSON)));
    }
    if let Some(parent) = &message.traceparent {
        headers.push((Cow::Borrowed("traceparent"), bytes(parent)));
    }
    for Header { name, value } in &message.headers {
        let name = match name.strip_prefix(EXTENSION) {
            Some(extension) => [prefix, extension].concat(),
            None => name.to_string(),
        };
        headers.push((Cow::Owned(name), value.clone()));
    }
    headers
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// What a broker tells of a message beside its headers.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it was published.
    pub topic: Text,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The body; `None`: a tombstone.
    pub payload: Option<Bytes>,
    /// When the broker took it, or another time for messages that do not say their own.
    pub time: Timestamp,
}

/// Reads messages from headers. Keeps the texts that come again and again, so that they are not
/// allocated for each message.
#[derive(Debug, Default)]
pub struct HeaderReader {
    known: HashMap<Box<[u8]>, Text>,
}

/// Texts kept at most.
const KNOWN: usize = 1024;

/// What headers said, as far as they were read.
#[derive(Default)]
struct Said {
    id: Option<Text>,
    source: Option<Text>,
    name: Option<Text>,
    plain_name: Option<Text>,
    version: Option<u32>,
    time: Option<Timestamp>,
    correlation_id: Option<Text>,
    causation_id: Option<Text>,
    operation_id: Option<Text>,
    partition_key: Option<Bytes>,
    traceparent: Option<Text>,
    structured: bool,
    headers: Vec<Header>,
}

impl HeaderReader {
    /// The message of these headers; `id` names one that has no id of its own.
    pub fn read<'a>(
        &mut self,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        found: Found,
        id: impl FnOnce() -> MessageId,
    ) -> Message {
        let mut said = Said::default();
        for (name, value) in headers {
            self.header(&mut said, name, value);
        }
        if said.structured
            && let Some(message) = structured_in(&said, &found)
        {
            return message;
        }
        let id = said.id.map_or_else(id, MessageId::new);
        Message {
            source: said.source.unwrap_or_else(|| found.topic.clone()),
            name: said.name.or(said.plain_name).unwrap_or_else(|| "".into()),
            version: said.version.unwrap_or(1),
            key: found.key.or(said.partition_key).map(Key::from_bytes),
            topic: Some(found.topic),
            time: said.time.unwrap_or(found.time),
            correlation_id: said.correlation_id.unwrap_or_else(|| id.text()),
            causation_id: said.causation_id.map(MessageId::new),
            operation_id: said.operation_id,
            traceparent: said.traceparent,
            headers: said.headers,
            payload: found.payload.unwrap_or_default(),
            id,
        }
    }

    fn header(&mut self, said: &mut Said, name: &str, value: &[u8]) {
        let attribute = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
        if let Some(attribute) = attribute {
            return self.attribute(said, attribute, value);
        }
        match name {
            "content-type" if value == JSON => return,
            "content-type" => said.structured = is_structured(value),
            "traceparent" => return said.traceparent = text(value),
            "event-type" => said.plain_name = self.known(value),
            "correlation-id" if said.correlation_id.is_none() => said.correlation_id = text(value),
            "timestamp" if said.time.is_none() => said.time = moment(value),
            _ => {}
        }
        said.headers.push(Header { name: name.into(), value: Bytes::copy_from_slice(value) });
    }

    fn attribute(&mut self, said: &mut Said, attribute: &str, value: &[u8]) {
        match attribute {
            "id" => said.id = text(value),
            "source" => said.source = self.known(value),
            "type" => said.name = self.known(value),
            "time" => said.time = moment(value).or(said.time),
            "schemaversion" => said.version = number(value),
            "correlationid" => said.correlation_id = text(value),
            "causationid" => said.causation_id = text(value),
            "operationid" => said.operation_id = text(value),
            "partitionkey" => said.partition_key = Some(Bytes::copy_from_slice(value)),
            "traceparent" if said.traceparent.is_none() => said.traceparent = text(value),
            "specversion" | "subject" | "traceparent" => {}
            other => {
                let name = [EXTENSION, other].concat().into();
                said.headers.push(Header { name, value: Bytes::copy_from_slice(value) });
            }
        }
    }

    /// A text that comes again and again.
    fn known(&mut self, value: &[u8]) -> Option<Text> {
        if let Some(known) = self.known.get(value) {
            return Some(known.clone());
        }
        let text = text(value)?;
        if self.known.len() < KNOWN {
            self.known.insert(value.into(), text.clone());
        }
        Some(text)
    }
}

/// The event in the body, with what only the broker knows.
fn structured_in(said: &Said, found: &Found) -> Option<Message> {
    let mut message = structured(found.payload.as_ref()?, Some(found.time)).ok()?;
    message.topic = Some(found.topic.clone());
    message.key = found.key.clone().map(Key::from_bytes).or(message.key);
    if message.traceparent.is_none() {
        message.traceparent.clone_from(&said.traceparent);
    }
    let other = |header: &&Header| &*header.name != "content-type";
    message.headers.extend(said.headers.iter().filter(other).cloned());
    Some(message)
}

fn text(value: &[u8]) -> Option<Text> {
    std::str::from_utf8(value).ok().filter(|text| !text.is_empty()).map(Text::from)
}

fn number(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// RFC 3339, or a count since 1970 of seconds, milliseconds or microseconds, by its size.
fn moment(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?;
    let Ok(count) = text.parse::<i64>() else { return text.parse().ok() };
    // Seconds until the year 5138, milliseconds from 1973 on.
    let unit = match count.unsigned_abs() {
        0..100_000_000_000 => 1_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000,
        _ => 1,
    };
    Some(Timestamp::from_micros(count.checked_mul(unit)?))
}

#[cfg(test)]
mod tests;
