//! Messages with their attributes as headers: `CloudEvents` 1.0 in binary mode, as brokers carry
//! it, with the extensions Sillage uses.
//!
//! Reading never fails: a message that says less than it should comes with what it says, and a
//! message without a type comes with an empty name, which no handler has. Structured mode and the
//! plain headers `event-type`, `correlation-id` and `timestamp` are read as well.

mod layout;

use crate::{
    Header, Key, Message, MessageId, Text, Timestamp,
    clock::TimeText,
    wire::{EXTENSION, JSON, SUBJECT, is_structured, structured},
};
use bytes::Bytes;
pub use layout::{Field, HeaderLayout};
use layout::{Meaning, attribute};
use std::{collections::HashMap, sync::Arc};

/// How the attributes of an event are called at a broker.
#[derive(Debug)]
pub struct Binding {
    prefix: &'static str,
    specversion: &'static str,
    id: &'static str,
    source: &'static str,
    name: &'static str,
    time: &'static str,
    schemaversion: &'static str,
    correlationid: &'static str,
    causationid: &'static str,
    operationid: &'static str,
    subject: &'static str,
    partitionkey: &'static str,
}

macro_rules! binding {
    ($prefix:literal) => {
        Binding {
            prefix: $prefix,
            specversion: concat!($prefix, "specversion"),
            id: concat!($prefix, "id"),
            source: concat!($prefix, "source"),
            name: concat!($prefix, "type"),
            time: concat!($prefix, "time"),
            schemaversion: concat!($prefix, "schemaversion"),
            correlationid: concat!($prefix, "correlationid"),
            causationid: concat!($prefix, "causationid"),
            operationid: concat!($prefix, "operationid"),
            subject: concat!($prefix, "subject"),
            partitionkey: concat!($prefix, "partitionkey"),
        }
    };
}

impl Binding {
    /// Of Kafka: `ce_id`.
    pub const KAFKA: Binding = binding!("ce_");
    /// Of AMQP: `cloudEvents:id`.
    pub const AMQP: Binding = binding!("cloudEvents:");

    /// Shows the attributes and headers of a message as a broker carries them, each name and its
    /// value. The payload is the body. Allocates for nothing but foreign extension attributes.
    pub fn write(&self, message: &Message, mut header: impl FnMut(&str, &[u8])) {
        header(self.specversion, b"1.0");
        header(self.id, message.id.as_str().as_bytes());
        header(self.source, message.source.as_bytes());
        header(self.name, message.name.as_bytes());
        header(self.time, message.time.to_text().as_bytes());
        header(self.schemaversion, Decimal::of(message.version).as_bytes());
        header(self.correlationid, message.correlation_id.as_bytes());
        if let Some(cause) = &message.causation_id {
            header(self.causationid, cause.as_str().as_bytes());
        }
        if let Some(operation) = &message.operation_id {
            header(self.operationid, operation.as_bytes());
        }
        let key = message.key.as_ref().map(Key::as_bytes);
        if let Some(key) = key.filter(|key| std::str::from_utf8(key).is_ok()) {
            if message.header(SUBJECT).is_none() {
                header(self.subject, key);
            }
            header(self.partitionkey, key);
        }
        if message.header("content-type").is_none() {
            header("content-type", JSON);
        }
        if let Some(parent) = &message.traceparent {
            header("traceparent", parent.as_bytes());
        }
        for Header { name, value } in &message.headers {
            match name.strip_prefix(EXTENSION).filter(|_| self.prefix != EXTENSION) {
                Some(extension) => header(&[self.prefix, extension].concat(), value),
                None => header(name, value),
            }
        }
    }
}

/// A number as text, in place.
struct Decimal {
    digits: [u8; 10],
    from: usize,
}

impl Decimal {
    fn of(mut number: u32) -> Decimal {
        let mut decimal = Decimal { digits: [b'0'; 10], from: 10 };
        while number > 0 || decimal.from == 10 {
            decimal.from -= 1;
            decimal.digits[decimal.from] = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
        decimal
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}

/// What a broker tells of a message beside its headers.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Where it was published.
    pub topic: &'a Text,
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
    known: HashMap<Box<[u8]>, Text, foldhash::fast::RandomState>,
    /// The last ones: most messages are of one source and name.
    source: Text,
    name: Text,
}

/// Texts kept at most.
const KNOWN: usize = 1024;
/// The longest label that [`Limits`](crate::Limits) allow, in bytes.
const LONGEST: usize = 512;

/// What headers said, as far as they were read.
#[derive(Default)]
struct Said<'a> {
    id: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
    plain_name: Option<&'a [u8]>,
    version: Option<u32>,
    time: Option<Timestamp>,
    correlation_id: Option<&'a [u8]>,
    causation_id: Option<&'a str>,
    operation_id: Option<&'a str>,
    subject: Option<&'a [u8]>,
    partition_key: Option<&'a [u8]>,
    traceparent: Option<&'a str>,
    structured: bool,
    headers: Vec<Header>,
}

impl HeaderReader {
    /// The message of these headers; `id` names one that has no id of its own. The name is that of a
    /// field which [is named](Field::is_named); of others it may be empty. Those that
    /// [tell nothing](Field::tells) may be missing.
    ///
    /// It takes the place of `spare`, and what texts they have in common, if nobody else has that one.
    pub fn read<'a>(
        &mut self,
        headers: impl Iterator<Item = (Field, &'a str, &'a [u8])>,
        found: Found<'_>,
        id: impl FnOnce() -> MessageId,
        spare: Option<Arc<Message>>,
    ) -> Arc<Message> {
        let mut said = Said::default();
        for (Field(meaning), name, value) in headers {
            said.header(meaning, name, value);
        }
        if said.structured
            && let Some(message) = structured_in(&said, &found)
        {
            return Arc::new(message);
        }
        let mut message = spare.unwrap_or_else(|| Arc::new(self.blank()));
        let place = Arc::make_mut(&mut message);
        let id = said.id.and_then(text).map_or_else(id, MessageId::new);
        // Most messages begin what they belong to.
        let own = |said: &&[u8]| *said != id.as_str().as_bytes();
        let correlation_id = said.correlation_id.filter(own).and_then(text);
        place.correlation_id = correlation_id.unwrap_or_else(|| id.text());
        place.id = id;
        self.labels(place, &said, found.topic);
        let key = found.key.or_else(|| said.partition_key.map(Bytes::copy_from_slice));
        if let Some(subject) = said.subject.filter(|subject| key.as_deref() != Some(subject)) {
            let value = Bytes::copy_from_slice(subject);
            said.headers.push(Header { name: SUBJECT.into(), value });
        }
        place.version = said.version.unwrap_or(1);
        place.key = key.map(Key::from_bytes);
        place.time = said.time.unwrap_or(found.time);
        place.causation_id = said.causation_id.map(MessageId::new);
        place.operation_id = said.operation_id.map(Text::from);
        place.traceparent = said.traceparent.map(Text::from);
        place.headers = said.headers;
        place.payload = found.payload.unwrap_or_default();
        message
    }

    /// Says nothing yet.
    fn blank(&self) -> Message {
        Message {
            id: MessageId::new(Text::default()),
            source: self.source.clone(),
            name: self.name.clone(),
            version: 1,
            topic: None,
            key: None,
            time: Timestamp::from_micros(0),
            correlation_id: Text::default(),
            causation_id: None,
            operation_id: None,
            traceparent: None,
            headers: vec![],
            payload: Bytes::new(),
        }
    }

    /// Where it comes from and what it is: mostly what it was before.
    fn labels(&mut self, message: &mut Message, said: &Said<'_>, topic: &Text) {
        let is = |text: &Text, said: Option<&[u8]>| {
            said.is_some_and(|said| !said.is_empty() && *said == *text.as_bytes())
        };
        if message.topic.as_ref().is_none_or(|last| !Arc::ptr_eq(last, topic)) {
            message.topic = Some(topic.clone());
        }
        if !is(&message.source, said.source) {
            let source = said.source.and_then(|source| self.known(source));
            message.source = source.unwrap_or_else(|| topic.clone());
            self.source.clone_from(&message.source);
        }
        if !is(&message.name, said.name) {
            let name = said.name.and_then(|name| self.known(name));
            let plain = || said.plain_name.and_then(|name| self.known(name));
            message.name = name.or_else(plain).unwrap_or_default();
            self.name.clone_from(&message.name);
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

impl<'a> Said<'a> {
    fn header(&mut self, meaning: Meaning, name: &str, value: &'a [u8]) {
        match meaning {
            Meaning::Id => self.id = Some(value),
            Meaning::Source => self.source = Some(value),
            Meaning::Name => self.name = Some(value),
            Meaning::Time => self.time = moment(value).or(self.time),
            Meaning::Version => self.version = number(value),
            Meaning::CorrelationId => self.correlation_id = Some(value),
            Meaning::CausationId => self.causation_id = legible(value),
            Meaning::OperationId => self.operation_id = legible(value),
            Meaning::Subject => self.subject = Some(value),
            Meaning::PartitionKey => self.partition_key = Some(value),
            Meaning::AttributeTraceparent if self.traceparent.is_some() => {}
            Meaning::AttributeTraceparent | Meaning::Traceparent => {
                self.traceparent = legible(value);
            }
            Meaning::Nothing => {}
            Meaning::Extension => {
                let extension = attribute(name).unwrap_or(name);
                self.keep([EXTENSION, extension].concat().into(), value);
            }
            Meaning::ContentType if value == JSON => {}
            Meaning::ContentType => {
                self.structured = is_structured(value);
                self.keep(name.into(), value);
            }
            Meaning::PlainName => {
                self.plain_name = Some(value);
                self.keep(name.into(), value);
            }
            Meaning::PlainCorrelationId => {
                self.correlation_id = self.correlation_id.or(Some(value));
                self.keep(name.into(), value);
            }
            Meaning::PlainTime => {
                self.time = self.time.or_else(|| moment(value));
                self.keep(name.into(), value);
            }
            Meaning::Other => self.keep(name.into(), value),
        }
    }

    fn keep(&mut self, name: Text, value: &[u8]) {
        self.headers.push(Header { name, value: Bytes::copy_from_slice(value) });
    }
}

/// The event in the body, with what only the broker knows.
fn structured_in(said: &Said<'_>, found: &Found<'_>) -> Option<Message> {
    let key = found.key.clone().map(Key::from_bytes);
    let mut message = structured(found.payload.as_ref()?, Some(found.time), key).ok()?;
    let labels = [&message.source, &message.name, &message.correlation_id, &message.id.text()]
        .into_iter()
        .chain(&message.operation_id)
        .chain(&message.traceparent)
        .all(|text| is_label(text));
    if !labels || message.causation_id.as_ref().is_some_and(|id| !is_label(id.as_str())) {
        return None;
    }
    message.topic = Some(found.topic.clone());
    if message.traceparent.is_none() {
        message.traceparent = said.traceparent.map(Text::from);
    }
    let other = |header: &&Header| &*header.name != "content-type";
    message.headers.extend(said.headers.iter().filter(other).cloned());
    Some(message)
}

/// A text that may be a label; what no database could keep is as good as missing.
fn legible(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| is_label(text))
}

fn is_label(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && !text.as_bytes().contains(&0)
}

fn text(value: &[u8]) -> Option<Text> {
    legible(value).map(Text::from)
}

fn number(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// RFC 3339, or a count since 1970 of seconds, milliseconds or microseconds, by its size.
fn moment(value: &[u8]) -> Option<Timestamp> {
    if let Some(time) = TimeText::read(value) {
        return Some(time);
    }
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
