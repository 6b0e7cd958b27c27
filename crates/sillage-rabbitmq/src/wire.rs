//! Messages as AMQP carries them: attributes as headers, and what AMQP has a property for there
//! too.
//!
//! A field table has each name once, so of headers with the same name the second and later ones
//! are called `sillage-again-0001:<name>`. (An array would be lost in a stream, which stores
//! messages as AMQP 1.0.) Values that are no text are byte arrays.

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use sillage_core::{
    Binding, Error, ErrorKind, Found, HeaderLayout, HeaderReader, Key, Limits, Message, MessageId,
    Result, Text, Timestamp, partition_of,
};
use std::{borrow::Cow, sync::Arc};
use uuid::Uuid;

/// How attributes are marked: the `CloudEvents` binding for AMQP.
const PREFIX: &str = "cloudEvents:";
const PARTITION_KEY: &str = "cloudEvents:partitionkey";
const AGAIN: &str = "sillage-again-";
/// What the server would act upon, or not hand on.
const RESERVED: [&str; 2] = ["CC", "BCC"];
/// What the server adds to a delivery.
const ADDED: [&str; 3] = ["x-delivery-count", "x-acquired-count", "x-stream-offset"];
/// All headers are in one frame, which servers limit to 128 KiB.
const HEADER_BYTES: usize = 96 * 1024;
/// The longest name AMQP can carry.
const SHORT: usize = 255;
const PERSISTENT: u8 = 2;

/// The partition of a message: by its key, or spread by its id.
pub(crate) fn partition(message: &Message, partitions: u32) -> u32 {
    let id = message.id.as_str().as_bytes();
    partition_of(message.key.as_ref().map_or(id, |key| key.as_bytes()), partitions)
}

/// `<partition>.<name>`: consumers bind by the first word, others by the rest.
pub(crate) fn routing_key(message: &Message, partition: u32) -> Result<ShortString> {
    short(format!("{partition}.{}", message.name)).ok_or_else(|| {
        refused(message, &format!("its name has {} bytes, and 240 are allowed", message.name.len()))
    })
}

/// The properties and headers of a message, or why AMQP cannot carry it.
pub(crate) fn properties(message: &Message) -> Result<BasicProperties> {
    let limit = Limits::default().message;
    if message.size() > limit {
        let why = format!("it has {} bytes, and {limit} are allowed", message.size());
        return Err(refused(message, &why));
    }
    let content_type = message.header("content-type").map(|value| String::from_utf8_lossy(value));
    let content_type = content_type.unwrap_or(Cow::Borrowed("application/json"));
    let seconds = u64::try_from(message.time.as_micros() / 1_000_000).unwrap_or(0);
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers(message)?)
        .with_timestamp(seconds);
    let set = |properties, text: &str, with: fn(BasicProperties, ShortString) -> _| {
        // What is too long for a property is in the headers all the same.
        match short(text) {
            Some(text) => with(properties, text),
            None => properties,
        }
    };
    let properties = set(properties, &content_type, BasicProperties::with_content_type);
    let properties = set(properties, message.id.as_str(), BasicProperties::with_message_id);
    let properties = set(properties, &message.name, BasicProperties::with_type);
    let properties = set(properties, &message.source, BasicProperties::with_app_id);
    Ok(set(properties, &message.correlation_id, BasicProperties::with_correlation_id))
}

fn headers(message: &Message) -> Result<FieldTable> {
    let mut table = Table { message, fields: FieldTable::default(), bytes: 0, again: 0 };
    let mut written = Ok(());
    Binding::AMQP.write(message, |name, value| {
        if written.is_ok() {
            written = table.add(name, value);
        }
    });
    written?;
    // Only keys that are text are among them.
    let key = message.key.as_ref().map(Key::as_bytes);
    if let Some(key) = key.filter(|_| !table.fields.contains_key(PARTITION_KEY)) {
        table.add(PARTITION_KEY, key)?;
    }
    if table.bytes > HEADER_BYTES {
        let bytes = table.bytes;
        let why = format!("its headers have {bytes} bytes, and {HEADER_BYTES} are allowed");
        return Err(refused(message, &why));
    }
    Ok(table.fields)
}

/// Headers as they are gathered.
struct Table<'a> {
    message: &'a Message,
    fields: FieldTable,
    bytes: usize,
    again: u32,
}

impl Table<'_> {
    fn add(&mut self, name: &str, value: &[u8]) -> Result<()> {
        if RESERVED.contains(&name) {
            let why = format!("RabbitMQ acts upon the header `{name}`");
            return Err(refused(self.message, &why));
        }
        let mut name = Cow::Borrowed(name);
        if self.fields.contains_key(&name) {
            if name.starts_with(PREFIX) {
                let why = format!("it has the attribute `{name}` twice");
                return Err(refused(self.message, &why));
            }
            self.again += 1;
            name = Cow::Owned(format!("{AGAIN}{:04}:{name}", self.again));
        }
        self.bytes += name.len() + value.len() + 8;
        let Some(name) = short(name) else {
            return Err(refused(self.message, "the name of a header has more than 255 bytes"));
        };
        self.fields.insert(name, value_of(value));
        Ok(())
    }
}

fn value_of(value: &[u8]) -> AMQPValue {
    match std::str::from_utf8(value) {
        Ok(_) => AMQPValue::LongString(LongString::from(value)),
        Err(_) => AMQPValue::ByteArray(value.to_vec().into()),
    }
}

fn short(text: impl Into<String>) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}

fn refused(message: &Message, why: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("message {} cannot be published: {why}", message.id))
}

/// Whether these are the headers of that message: its identity is (source, id).
pub(crate) fn are_of(properties: &BasicProperties, message: &Message) -> bool {
    let headers = properties.headers().as_ref().map(FieldTable::inner);
    let says = |name: &str, text: &str| {
        let value = headers.and_then(|headers| headers.get([PREFIX, name].concat().as_str()));
        value.and_then(scalar).is_some_and(|value| *value == *text.as_bytes())
    };
    says("id", message.id.as_str()) && says("source", &message.source)
}

/// Reads deliveries.
#[derive(Default)]
pub(crate) struct Reader {
    layout: HeaderLayout,
    headers: HeaderReader,
}

impl Reader {
    /// The message of a delivery from this topic. It never fails: what cannot be read is left out.
    pub(crate) fn read(
        &mut self,
        topic: &Text,
        properties: &BasicProperties,
        data: Vec<u8>,
    ) -> Arc<Message> {
        let fields = properties.headers().as_ref().map_or(0, |table| table.inner().len());
        let mut headers = Vec::with_capacity(PROPERTIES + fields);
        said_by_properties(properties, &mut headers);
        let mut again = vec![];
        for (name, value) in properties.headers().iter().flatten() {
            let name = name.as_str();
            if ADDED.contains(&name) {
                continue;
            }
            match name.strip_prefix(AGAIN).and_then(|rest| rest.split_once(':')) {
                Some((_, name)) => push(&mut again, name, value),
                None => push(&mut headers, name, value),
            }
        }
        headers.extend(again);
        let found = Found {
            topic,
            key: None,
            payload: Some(Bytes::from(data)),
            time: taken_at(properties),
        };
        let headers = headers.iter().map(|(name, value)| (*name, &**value));
        let headers = self.layout.fields(headers);
        let id = || MessageId::new(Uuid::now_v7().to_string());
        self.headers.read(headers, found, id, None)
    }
}

/// When it was published, or else when it arrived: AMQP has no time of its own. Arrival costs a call
/// of the system's for each message.
fn taken_at(properties: &BasicProperties) -> Timestamp {
    // More would be no seconds, until the year 5138.
    let seconds = properties.timestamp().filter(|seconds| *seconds < 100_000_000_000);
    let micros = seconds.and_then(|seconds| i64::try_from(seconds * 1_000_000).ok());
    micros.map_or_else(|| time_of(&Uuid::now_v7()), Timestamp::from_micros)
}

type Said<'a> = Vec<(&'a str, Cow<'a, [u8]>)>;

/// So many properties say something.
const PROPERTIES: usize = 6;

/// What a foreign message says in its properties; headers come behind, and so count more.
fn said_by_properties<'a>(properties: &'a BasicProperties, said: &mut Said<'a>) {
    let texts = [
        ("ce_id", properties.message_id()),
        ("ce_type", properties.kind()),
        ("ce_correlationid", properties.correlation_id()),
        ("ce_source", properties.app_id()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            said.push((name, Cow::Borrowed(text.as_str().as_bytes())));
        }
    }
    if let Some(seconds) = properties.timestamp() {
        said.push(("ce_time", Cow::Owned(seconds.to_string().into_bytes())));
    }
    let has_type = properties.headers().as_ref().is_some_and(|t| t.contains_key("content-type"));
    if let Some(text) = properties.content_type().as_ref().filter(|_| !has_type) {
        said.push(("content-type", Cow::Borrowed(text.as_str().as_bytes())));
    }
}

/// A header; of a list each value by itself.
fn push<'a>(headers: &mut Said<'a>, name: &'a str, value: &'a AMQPValue) {
    match value {
        AMQPValue::FieldArray(values) => {
            values.as_slice().iter().for_each(|value| push(headers, name, value));
        }
        AMQPValue::FieldTable(_) => {
            let json = serde_json::to_vec(&json(value)).unwrap_or_default();
            headers.push((name, Cow::Owned(json)));
        }
        value => headers.extend(scalar(value).map(|value| (name, value))),
    }
}

/// A single value as text or bytes.
fn scalar(value: &AMQPValue) -> Option<Cow<'_, [u8]>> {
    let text = match value {
        AMQPValue::LongString(text) => return Some(Cow::Borrowed(text.as_bytes())),
        AMQPValue::ShortString(text) => return Some(Cow::Borrowed(text.as_str().as_bytes())),
        AMQPValue::ByteArray(bytes) => return Some(Cow::Borrowed(bytes.as_slice())),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Timestamp(value) => value.to_string(),
        AMQPValue::Float(value) => value.to_string(),
        AMQPValue::Double(value) => value.to_string(),
        AMQPValue::DecimalValue(value) => format!("{}e-{}", value.value, value.scale),
        AMQPValue::Void => String::new(),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) => return None,
    };
    Some(Cow::Owned(text.into_bytes()))
}

/// A table, as `x-death` has them.
fn json(value: &AMQPValue) -> serde_json::Value {
    match value {
        AMQPValue::FieldTable(table) => {
            table.into_iter().map(|(name, value)| (name.to_string(), json(value))).collect()
        }
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(json).collect(),
        value => scalar(value).map(|text| String::from_utf8_lossy(&text).into_owned()).into(),
    }
}

/// The offset in a stream that the server adds to what it delivers from there.
pub(crate) fn stream_offset(properties: &BasicProperties) -> Option<u64> {
    let headers = properties.headers().as_ref()?.inner();
    match headers.get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        _ => None,
    }
}

/// The partition of a routing key.
pub(crate) fn partition_in(routing_key: &str, partitions: u32) -> Option<u32> {
    let number = routing_key.split('.').next()?.parse().ok();
    number.filter(|number| *number < partitions)
}

fn time_of(id: &Uuid) -> Timestamp {
    let (seconds, nanos) = id.get_timestamp().map_or((0, 0), |time| time.to_unix());
    let micros = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    Timestamp::from_micros(micros.saturating_add(i64::from(nanos / 1000)))
}

/// Whether a name can be part of a queue's name.
pub(crate) fn check_name(what: &str, name: &str, longest: usize) -> Result<()> {
    let why = if name.is_empty() {
        "is empty".to_owned()
    } else if name.len() > longest.min(SHORT) {
        format!("has {} bytes, and {longest} are allowed", name.len())
    } else if name.starts_with("amq.") {
        "begins with `amq.`, which RabbitMQ keeps for itself".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("the {what} `{name}` {why}")))
}
