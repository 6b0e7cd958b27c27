//! From Kafka's records to messages: copied by the thread that polls, made into messages by
//! whoever receives them.
//!
//! What is allocated by one thread and freed by another costs more than all else of a message, so
//! the polling thread allocates a few pieces of memory a batch, and nothing a message.

use bytes::{Bytes, BytesMut};
use rdkafka::{
    Message as _,
    message::{BorrowedHeaders, BorrowedMessage, Headers as _},
};
use sillage_core::{Delivery, Found, HeaderReader, MessageId, Offset, Partition, Text, Timestamp};
use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use uuid::Uuid;

/// About what a message costs beside its bytes.
const AROUND: usize = 512;
/// So many are handed over together at most: with more messages at once, what they are made of is
/// not the memory that others have just given back.
const MOST: usize = 64;
/// And so many bytes, and a record.
const MOST_BYTES: usize = 64 << 10;

/// Keys and payloads up to this size share pieces of memory of this other one, which is there as long
/// as any of them is.
const SMALL: usize = 1 << 10;
const SHARED: usize = 4 << 10;

/// Records of one partition, as they came.
#[derive(Default)]
pub(super) struct Records {
    all: Vec<Record>,
    /// Of each header how long its name and its value are.
    headers: Vec<(usize, usize)>,
    /// Keys, payloads and headers' values.
    bytes: Vec<u8>,
    /// Headers' names.
    names: String,
}

struct Record {
    offset: Offset,
    /// When it was made or taken, in milliseconds.
    millis: i64,
    key: Option<usize>,
    payload: Option<usize>,
    headers: usize,
}

impl Records {
    /// For as many as these are.
    pub(super) fn like(other: &Records) -> Records {
        Records {
            all: Vec::with_capacity(other.all.len()),
            headers: Vec::with_capacity(other.headers.len()),
            bytes: Vec::with_capacity(other.bytes.len()),
            names: String::with_capacity(other.names.len()),
        }
    }

    /// What comes next goes with others.
    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= MOST || self.bytes.len() >= MOST_BYTES
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// About how much memory they hold, as messages.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.all.len() * AROUND
    }

    /// Adds a copy of a record.
    pub(super) fn push(&mut self, offset: Offset, record: &BorrowedMessage<'_>) {
        let (key, payload) = (record.key(), record.payload());
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.bytes.extend_from_slice(payload.unwrap_or_default());
        let before = self.headers.len();
        if let Some(headers) = record.headers() {
            self.push_headers(headers);
        }
        self.all.push(Record {
            offset,
            millis: record.timestamp().to_millis().unwrap_or_default(),
            key: key.map(<[u8]>::len),
            payload: payload.map(<[u8]>::len),
            headers: self.headers.len() - before,
        });
    }

    /// All but those whose names cannot be read: there the binding panics, which must stop nobody.
    fn push_headers(&mut self, headers: &BorrowedHeaders) {
        let (mut index, count) = (0, headers.count());
        while index < count {
            let legible = catch_unwind(AssertUnwindSafe(|| {
                while let Some(header) = headers.try_get(index) {
                    let value = header.value.unwrap_or_default();
                    self.headers.push((header.key.len(), value.len()));
                    self.names.push_str(header.key);
                    self.bytes.extend_from_slice(value);
                    index += 1;
                }
            }));
            index = if legible.is_ok() { count } else { index + 1 };
        }
    }
}

/// Makes messages of records; keeps what comes again and again.
#[derive(Default)]
pub(super) struct Decoder {
    reader: HeaderReader,
    /// The last one, counted by nobody but who receives.
    topic: Option<Text>,
    shared: Shared,
}

/// The rest of a piece of memory.
#[derive(Default)]
struct Shared(BytesMut);

impl Shared {
    fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() > SMALL {
            return Bytes::copy_from_slice(bytes);
        }
        if self.0.capacity() < bytes.len() {
            self.0 = BytesMut::with_capacity(SHARED);
        }
        self.0.extend_from_slice(bytes);
        self.0.split().freeze()
    }
}

impl Decoder {
    /// Their deliveries; every record is one.
    pub(super) fn read(&mut self, partition: &Partition, records: &Records) -> Vec<Delivery> {
        let last = self.topic.take().filter(|last| *last == partition.topic);
        let topic = last.unwrap_or_else(|| Text::from(&*partition.topic));
        let (mut bytes, mut names) = (&*records.bytes, &*records.names);
        let mut headers = records.headers.iter();
        let deliveries = records.all.iter().map(|record| {
            let mut copy = |count: usize| self.shared.copy(first(&mut bytes, count));
            let found = Found {
                topic: topic.clone(),
                key: record.key.map(&mut copy),
                payload: record.payload.map(&mut copy),
                time: Timestamp::from_micros(record.millis.saturating_mul(1_000)),
            };
            let headers = headers.by_ref().take(record.headers).map(|(name, value)| {
                let (first_name, rest) = names.split_at(*name);
                names = rest;
                (first_name, first(&mut bytes, *value))
            });
            let id = || identity(record, partition);
            let message = Arc::new(self.reader.read(headers, found, id));
            Delivery { offset: record.offset, message }
        });
        let deliveries = deliveries.collect();
        self.topic = Some(topic);
        deliveries
    }
}

/// Takes so many bytes off.
fn first<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (first, rest) = mem::take(bytes).split_at(count);
    *bytes = rest;
    first
}

/// The id of a message without one. With the time, as the same coordinates come again when a
/// topic is made anew.
fn identity(record: &Record, partition: &Partition) -> MessageId {
    let Record { offset: Offset(offset), millis, .. } = record;
    let Partition { topic, number } = partition;
    let name = format!("{topic}\0{number}\0{offset}\0{millis}");
    MessageId::new(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string())
}
