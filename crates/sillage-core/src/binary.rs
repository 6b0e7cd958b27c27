//! Messages with their attributes as headers: `CloudEvents` 1.0 in binary mode, as brokers carry
//! it, with the extensions Sillage uses.
//!
//! Reading never fails: a message that says less than it should comes with what it says, and a
//! message without a type comes with an empty name, which no handler has. Structured mode and the
//! plain headers `event-type`, `correlation-id` and `timestamp` are read as well.

use crate::{
    Header, Key, Message, MessageId, Text, Timestamp,
    clock::TimeText,
    wire::{EXTENSION, JSON, SUBJECT, is_structured, structured},
};
use bytes::Bytes;
use std::collections::HashMap;

/// How brokers mark the attributes of an event among other headers. The first is what extension
/// attributes keep in [`Message::headers`].
const PREFIXES: [&str; 4] = [EXTENSION, "cloudEvents:", "cloudEvents_", "ce-"];

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

/// Knows headers by their names. Keeps which stands where: producers write them in one order.
#[derive(Debug, Default)]
pub struct HeaderLayout(Vec<(Box<str>, Field)>);

/// Headers whose places are kept, and the length of their names.
const PLACES: usize = 32;
const NAME: usize = 64;

/// What a header says, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(Meaning);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Id,
    Source,
    Name,
    Time,
    Version,
    CorrelationId,
    CausationId,
    OperationId,
    Subject,
    PartitionKey,
    AttributeTraceparent,
    /// Known, and says nothing.
    Nothing,
    Extension,
    ContentType,
    Traceparent,
    PlainName,
    PlainCorrelationId,
    PlainTime,
    Other,
}

impl HeaderLayout {
    /// The headers of a message, each with what it says.
    pub fn fields<'a>(
        &mut self,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> impl Iterator<Item = (Field, &'a str, &'a [u8])> {
        headers.enumerate().map(|(place, (name, value))| (self.field(place, name), name, value))
    }

    /// What the header at this place says.
    pub fn field(&mut self, place: usize, name: &str) -> Field {
        if let Some((known, field)) = self.0.get(place)
            && are_same(known.as_bytes(), name.as_bytes())
        {
            return *field;
        }
        let field = Field(Meaning::of(name));
        if place < PLACES && name.len() <= NAME {
            let header = (name.into(), field);
            if let Some(known) = self.0.get_mut(place) {
                *known = header;
            } else if place == self.0.len() {
                self.0.push(header);
            }
        }
        field
    }
}

impl Field {
    /// Whether the name itself is read as well.
    pub fn is_named(self) -> bool {
        match self.0 {
            Meaning::Extension
            | Meaning::ContentType
            | Meaning::PlainName
            | Meaning::PlainCorrelationId
            | Meaning::PlainTime
            | Meaning::Other => true,
            Meaning::Id
            | Meaning::Source
            | Meaning::Name
            | Meaning::Time
            | Meaning::Version
            | Meaning::CorrelationId
            | Meaning::CausationId
            | Meaning::OperationId
            | Meaning::Subject
            | Meaning::PartitionKey
            | Meaning::AttributeTraceparent
            | Meaning::Nothing
            | Meaning::Traceparent => false,
        }
    }

    /// Whether this value says what a record with this key does not say already: another one need not be
    /// read.
    pub fn tells(self, value: &[u8], key: Option<&[u8]>) -> bool {
        match self.0 {
            Meaning::Nothing => false,
            Meaning::ContentType => value != JSON,
            Meaning::PartitionKey => key.is_none(),
            Meaning::Subject => key != Some(value),
            _ => true,
        }
    }
}

impl Meaning {
    fn of(name: &str) -> Meaning {
        let Some(attribute) = attribute(name) else {
            return match name {
                "content-type" => Meaning::ContentType,
                "traceparent" => Meaning::Traceparent,
                "event-type" => Meaning::PlainName,
                "correlation-id" => Meaning::PlainCorrelationId,
                "timestamp" => Meaning::PlainTime,
                _ => Meaning::Other,
            };
        };
        match attribute {
            "id" => Meaning::Id,
            "source" => Meaning::Source,
            "type" => Meaning::Name,
            "time" => Meaning::Time,
            "schemaversion" => Meaning::Version,
            "correlationid" => Meaning::CorrelationId,
            "causationid" => Meaning::CausationId,
            "operationid" => Meaning::OperationId,
            "subject" => Meaning::Subject,
            "partitionkey" => Meaning::PartitionKey,
            "traceparent" => Meaning::AttributeTraceparent,
            "specversion" => Meaning::Nothing,
            _ => Meaning::Extension,
        }
    }
}

/// Equal, found out in place where they are as long as names mostly are.
fn are_same(one: &[u8], other: &[u8]) -> bool {
    fn meet<const N: usize>(one: &[u8], other: &[u8]) -> bool {
        let firsts = one.first_chunk::<N>() == other.first_chunk::<N>();
        firsts && one.last_chunk::<N>() == other.last_chunk::<N>()
    }
    match one.len() {
        length if length != other.len() => false,
        4..8 => meet::<4>(one, other),
        8..=16 => meet::<8>(one, other),
        _ => one == other,
    }
}

/// The name of an attribute without what marks it.
fn attribute(name: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))
}

/// Reads messages from headers. Keeps the texts that come again and again, so that they are not
/// allocated for each message.
#[derive(Debug, Default)]
pub struct HeaderReader {
    known: HashMap<Box<[u8]>, Text, foldhash::fast::RandomState>,
    source: Option<Text>,
    name: Option<Text>,
}

/// Texts kept at most.
const KNOWN: usize = 1024;

/// What headers said, as far as they were read.
#[derive(Default)]
struct Said<'a> {
    id: Option<&'a [u8]>,
    source: Option<Text>,
    name: Option<Text>,
    plain_name: Option<Text>,
    version: Option<u32>,
    time: Option<Timestamp>,
    correlation_id: Option<&'a [u8]>,
    causation_id: Option<Text>,
    operation_id: Option<Text>,
    subject: Option<&'a [u8]>,
    partition_key: Option<&'a [u8]>,
    traceparent: Option<Text>,
    structured: bool,
    headers: Vec<Header>,
}

impl HeaderReader {
    /// The message of these headers; `id` names one that has no id of its own. The name is that of a
    /// field which [is named](Field::is_named); of others it may be empty. Those that
    /// [tell nothing](Field::tells) may be missing.
    pub fn read<'a>(
        &mut self,
        headers: impl Iterator<Item = (Field, &'a str, &'a [u8])>,
        found: Found,
        id: impl FnOnce() -> MessageId,
    ) -> Message {
        let mut said = Said::default();
        for (Field(meaning), name, value) in headers {
            self.header(&mut said, meaning, name, value);
        }
        if said.structured
            && let Some(message) = structured_in(&said, &found)
        {
            return message;
        }
        let id = said.id.and_then(text).map_or_else(id, MessageId::new);
        let key = found.key.or_else(|| said.partition_key.map(Bytes::copy_from_slice));
        if let Some(subject) = said.subject.filter(|subject| key.as_deref() != Some(subject)) {
            let value = Bytes::copy_from_slice(subject);
            said.headers.push(Header { name: SUBJECT.into(), value });
        }
        // Most messages begin what they belong to.
        let own = |said: &&[u8]| *said != id.as_str().as_bytes();
        let correlation_id = said.correlation_id.filter(own).and_then(text);
        Message {
            source: said.source.unwrap_or_else(|| found.topic.clone()),
            name: said.name.or(said.plain_name).unwrap_or_else(|| "".into()),
            version: said.version.unwrap_or(1),
            key: key.map(Key::from_bytes),
            topic: Some(found.topic),
            time: said.time.unwrap_or(found.time),
            correlation_id: correlation_id.unwrap_or_else(|| id.text()),
            causation_id: said.causation_id.map(MessageId::new),
            operation_id: said.operation_id,
            traceparent: said.traceparent,
            headers: said.headers,
            payload: found.payload.unwrap_or_default(),
            id,
        }
    }

    fn header<'a>(&mut self, said: &mut Said<'a>, meaning: Meaning, name: &str, value: &'a [u8]) {
        let keep = |said: &mut Said<'_>, name: Text| {
            said.headers.push(Header { name, value: Bytes::copy_from_slice(value) });
        };
        match meaning {
            Meaning::Id => said.id = Some(value),
            Meaning::Source => said.source = again(&mut self.source, &mut self.known, value),
            Meaning::Name => said.name = again(&mut self.name, &mut self.known, value),
            Meaning::Time => said.time = moment(value).or(said.time),
            Meaning::Version => said.version = number(value),
            Meaning::CorrelationId => said.correlation_id = Some(value),
            Meaning::CausationId => said.causation_id = text(value),
            Meaning::OperationId => said.operation_id = text(value),
            Meaning::Subject => said.subject = Some(value),
            Meaning::PartitionKey => said.partition_key = Some(value),
            Meaning::AttributeTraceparent if said.traceparent.is_some() => {}
            Meaning::AttributeTraceparent | Meaning::Traceparent => said.traceparent = text(value),
            Meaning::Nothing => {}
            Meaning::Extension => {
                let extension = attribute(name).unwrap_or(name);
                keep(said, [EXTENSION, extension].concat().into());
            }
            Meaning::ContentType if value == JSON => {}
            Meaning::ContentType => {
                said.structured = is_structured(value);
                keep(said, name.into());
            }
            Meaning::PlainName => {
                said.plain_name = again(&mut None, &mut self.known, value);
                keep(said, name.into());
            }
            Meaning::PlainCorrelationId => {
                said.correlation_id = said.correlation_id.or(Some(value));
                keep(said, name.into());
            }
            Meaning::PlainTime => {
                said.time = said.time.or_else(|| moment(value));
                keep(said, name.into());
            }
            Meaning::Other => keep(said, name.into()),
        }
    }
}

/// A text that comes again and again: mostly it is the last one.
fn again(
    last: &mut Option<Text>,
    known: &mut HashMap<Box<[u8]>, Text, foldhash::fast::RandomState>,
    value: &[u8],
) -> Option<Text> {
    if let Some(last) = last.as_ref().filter(|last| *last.as_bytes() == *value) {
        return Some(last.clone());
    }
    let found = if let Some(found) = known.get(value) {
        found.clone()
    } else {
        let text = text(value)?;
        if known.len() < KNOWN {
            known.insert(value.into(), text.clone());
        }
        text
    };
    *last = Some(found.clone());
    Some(found)
}

/// The event in the body, with what only the broker knows.
fn structured_in(said: &Said<'_>, found: &Found) -> Option<Message> {
    let key = found.key.clone().map(Key::from_bytes);
    let mut message = structured(found.payload.as_ref()?, Some(found.time), key).ok()?;
    message.topic = Some(found.topic.clone());
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
