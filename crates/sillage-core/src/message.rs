//! Messages: what is on the wire and in the log, with their identity.

use crate::{Error, Result, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, fmt::Write as _, ops::Deref, sync::Arc};
use uuid::Uuid;

/// Shared text: names, topics, sources. Cheap to clone.
pub type Text = Arc<str>;

/// A message's id, unique per *source*: identity is the pair (source, id).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(Text);

impl MessageId {
    /// An id as some producer chose it.
    pub fn new(id: impl Into<Text>) -> Self {
        MessageId(id.into())
    }

    /// A fresh, time-ordered id (UUID version 7 of `time` and `random`).
    pub fn fresh(time: Timestamp, random: [u8; 10]) -> Self {
        let millis = u64::try_from(time.as_micros() / 1000).unwrap_or(0);
        MessageId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().text())
    }

    /// The id of the `ordinal`th effect of `consumer` handling (`source`, `cause`): the same at
    /// every attempt, so that a handling that is run again publishes the same ids.
    pub fn derived(source: &str, cause: &MessageId, consumer: &str, ordinal: usize) -> Self {
        let name = format!("{source}\0{cause}\0{consumer}\0{ordinal}");
        MessageId(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).text())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as shared text.
    pub fn text(&self) -> Text {
        self.0.clone()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

trait AsText {
    fn text(&self) -> Text;
}

impl AsText for Uuid {
    fn text(&self) -> Text {
        let mut buffer = Uuid::encode_buffer();
        Text::from(&*self.hyphenated().encode_lower(&mut buffer))
    }
}

/// The unit of ordering within a topic: usually an entity's id. Bytes, as on Kafka.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Bytes);

impl Key {
    /// The key that displays as `value` does.
    pub fn of(value: impl fmt::Display) -> Self {
        Key(value.to_string().into())
    }

    /// A key of any bytes.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Key(bytes.into())
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key of a label that [`Key::label`] gave.
    pub fn from_label(label: &str) -> Self {
        let mut bytes = Vec::with_capacity(label.len());
        let mut rest = label.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let coded = std::str::from_utf8(after.get(..2).unwrap_or_default()).unwrap_or_default();
            match u8::from_str_radix(coded, 16) {
                Ok(byte) if *first == b'%' => {
                    bytes.push(byte);
                    rest = &after[2..];
                }
                _ => {
                    bytes.push(*first);
                    rest = after;
                }
            }
        }
        Key(bytes.into())
    }

    /// The key as text that names it in ids and for people: itself where it is printable, with
    /// `%XX` for each byte that is not (and for `%`). Two keys never share a label.
    pub fn label(&self) -> Cow<'_, str> {
        let plain = |text: &str| !text.chars().any(|c| c.is_control() || c == '%');
        match std::str::from_utf8(&self.0) {
            Ok(text) if plain(text) => Cow::Borrowed(text),
            _ => Cow::Owned(self.0.iter().fold(String::new(), |mut label, byte| {
                if byte.is_ascii_graphic() && *byte != b'%' {
                    label.push(char::from(*byte));
                } else {
                    let _ = write!(label, "%{byte:02X}");
                }
                label
            })),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Key(Bytes::copy_from_slice(text.as_bytes()))
    }
}

/// A header that no attribute of the message holds. Names are lower case, values are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Lower-case name.
    pub name: Text,
    /// Value, as it came.
    pub value: Bytes,
}

/// Headers in their order; a name may come more than once.
pub type Headers = Vec<Header>;

/// The unit on the wire and in the log. The payload's bytes are opaque here.
#[derive(Clone, PartialEq)]
pub struct Message {
    /// Unique within `source`.
    pub id: MessageId,
    /// Who produced it: a service's name.
    pub source: Text,
    /// What it is: `order.created`.
    pub name: Text,
    /// The version of its payload, from 1.
    pub version: u32,
    /// Where it is published; `None` for an entry that stays in its log.
    pub topic: Option<Text>,
    /// What orders it; `None` is ordered with nothing.
    pub key: Option<Key>,
    /// When it was produced, by its producer's clock.
    pub time: Timestamp,
    /// Shared by all that follows from one first message.
    pub correlation_id: Text,
    /// The id of the message that caused this one.
    pub causation_id: Option<MessageId>,
    /// What external calls are idempotent by; the message's own identity where `None`.
    pub operation_id: Option<Text>,
    /// W3C trace context.
    pub traceparent: Option<Text>,
    /// All other headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
}

impl Message {
    /// What external calls made for this message are idempotent by: it survives edits, redrives
    /// and a saga's retries.
    pub fn operation(&self) -> Text {
        let own = || format!("{}/{}", self.source, self.id).into();
        self.operation_id.clone().unwrap_or_else(own)
    }

    /// Whether it is a copy that a service keeps of another's message, with this header.
    pub fn is_copy(&self) -> bool {
        self.header(Message::COPY).is_some()
    }

    /// The header of a copy: it is not published again.
    pub const COPY: &'static str = "sillage-followed";

    /// The header of a message that was published again by an operator's replay: its position in the
    /// log it is from.
    pub const REPLAY: &'static str = "sillage-replay";

    /// The header of one that was given an id of its own for that: the id it had.
    pub const REPLAY_OF: &'static str = "sillage-replay-of";

    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|header| &*header.name == name).map(|header| &header.value)
    }

    /// Payload, headers, key and labels together, in bytes: what a broker's limit counts.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|h| h.name.len() + h.value.len()).sum();
        let key = self.key.as_ref().map_or(0, |key| key.as_bytes().len());
        let labels = self.id.as_str().len() + self.source.len() + self.name.len();
        self.payload.len() + headers + key + labels + self.correlation_id.len() + 256
    }
}

impl fmt::Debug for Message {
    /// Payloads are hidden in logs: only the size is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id.as_str())
            .field("source", &self.source)
            .field("name", &self.name)
            .field("version", &self.version)
            .field("topic", &self.topic)
            .field("key", &self.key)
            .field("correlation_id", &self.correlation_id)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// A place in the log, from 1; 0 is before the first entry.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for Position {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Position).map_err(|_| {
            Error::invalid(format!("`{text}` is no position: expected a whole number"))
        })
    }
}

/// A place in one stream, or a document's version, from 1; 0 is "not there yet".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The next version.
    #[must_use]
    pub fn next(self) -> Version {
        Version(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An entry of the log with its stream, version and position; typed once its payload is decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded<T = Arc<Message>> {
    /// Where in the log.
    pub position: Position,
    /// Which entity's history it belongs to, and where in it.
    pub stream: Option<(Text, Version)>,
    /// When it was produced.
    pub time: Timestamp,
    /// Shared by all that follows from one first message.
    pub correlation_id: Text,
    /// The message, or what it decodes to.
    pub body: T,
}

impl Recorded {
    /// An entry of the log.
    pub fn new(
        position: Position,
        stream: Option<(Text, Version)>,
        message: Arc<Message>,
    ) -> Recorded {
        let (time, correlation_id) = (message.time, message.correlation_id.clone());
        Recorded { position, stream, time, correlation_id, body: message }
    }

    /// The same entry around its decoded body.
    pub fn with<T>(&self, body: T) -> Recorded<T> {
        Recorded {
            position: self.position,
            stream: self.stream.clone(),
            time: self.time,
            correlation_id: self.correlation_id.clone(),
            body,
        }
    }
}

impl<T> Deref for Recorded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_of_one_handling_have_the_same_ids_at_every_attempt() {
        let cause = MessageId::new("1");
        let first = MessageId::derived("shop", &cause, "payment/charge", 0);
        assert_eq!(first, MessageId::derived("shop", &cause, "payment/charge", 0));
        let others = [
            MessageId::derived("shop", &cause, "payment/charge", 1),
            MessageId::derived("shop", &cause, "payment/refund", 0),
            MessageId::derived("other", &cause, "payment/charge", 0),
            MessageId::derived("shop", &MessageId::new("2"), "payment/charge", 0),
        ];
        assert!(others.iter().all(|other| *other != first));
    }

    #[test]
    fn labels_are_lossless() {
        assert_eq!(Key::of("order-1").label(), "order-1");
        assert_eq!(Key::from("é").label(), "é");
        assert_eq!(Key::from_bytes(vec![0, b'a', 0xff]).label(), "%00a%FF");
        assert_eq!(Key::from("100%").label(), "100%25");
        for bytes in [&b"order-1"[..], "é".as_bytes(), &[0, b'a', 0xff, b'%', b' '], b""] {
            let key = Key::from_bytes(bytes.to_vec());
            assert_eq!(Key::from_label(&key.label()), key);
        }
    }

    #[test]
    fn fresh_ids_sort_by_time() {
        let early = MessageId::fresh(Timestamp::from_micros(1_000_000), [255; 10]);
        let late = MessageId::fresh(Timestamp::from_micros(2_000_000), [0; 10]);
        assert!(early < late);
    }
}
