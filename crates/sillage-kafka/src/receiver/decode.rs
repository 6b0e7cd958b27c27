//! From Kafka's records to messages: copied by the thread that polls, made into messages by
//! whoever receives them.
//!
//! What is allocated by one thread and freed by another costs more than all else of a message, so
//! the polling thread allocates a few pieces of memory a batch, and nothing a message.

use super::outbox::Outbox;
use crate::watch::lock;
use bytes::{Bytes, BytesMut};
use rdkafka::{
    Message as _,
    message::{BorrowedHeaders, BorrowedMessage, Header, Headers as _},
};
use sillage_core::{
    Deliver, Deliveries, Delivery, Field, Found, HeaderLayout, HeaderReader, Message, MessageId,
    Offset, Partition, Text, Timestamp,
};
use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};
use uuid::Uuid;

/// About what a message costs beside its bytes.
const AROUND: usize = 512;
/// So many are handed over together at most.
const MOST: usize = 256;
/// Headers read in a run.
const RUN: usize = 64;
/// And so many bytes, and a record.
const MOST_BYTES: usize = 128 << 10;

/// An emptied batch that holds more memory than this gives it back.
const KEPT: usize = 256 << 10;

/// Keys and payloads up to this size share pieces of memory of this other one, which is there as long
/// as any of them is.
const SMALL: usize = 1 << 10;
const SHARED: usize = 8 << 10;

/// Records of one partition, as they came.
#[derive(Default)]
pub(super) struct Records {
    all: Vec<Record>,
    headers: Vec<Kept>,
    /// Keys, payloads and headers' values.
    bytes: Vec<u8>,
    /// Headers' names, where they matter.
    names: String,
}

/// A header that tells something.
struct Kept {
    field: Field,
    /// How long its name is and its value.
    name: usize,
    value: usize,
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
    /// Empty again, with the memory it had; `None`: that is too much to be kept.
    pub(super) fn emptied(mut self) -> Option<Records> {
        let headers = self.headers.capacity() * size_of::<Kept>();
        if self.bytes.capacity() + self.names.capacity() + headers > KEPT {
            return None;
        }
        self.all.clear();
        self.headers.clear();
        self.bytes.clear();
        self.names.clear();
        Some(self)
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
    pub(super) fn push(
        &mut self,
        offset: Offset,
        record: &BorrowedMessage<'_>,
        layout: &mut HeaderLayout,
    ) {
        let (key, payload) = (record.key(), record.payload());
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.bytes.extend_from_slice(payload.unwrap_or_default());
        let before = self.headers.len();
        if let Some(headers) = record.headers() {
            self.push_headers(headers, key, layout);
        }
        self.all.push(Record {
            offset,
            millis: record.timestamp().to_millis().unwrap_or_default(),
            key: key.map(<[u8]>::len),
            payload: payload.map(<[u8]>::len),
            headers: self.headers.len() - before,
        });
    }

    /// All that tell something, but those whose names cannot be read: there the binding panics, which
    /// must stop nobody.
    fn push_headers(
        &mut self,
        headers: &BorrowedHeaders,
        key: Option<&[u8]>,
        layout: &mut HeaderLayout,
    ) {
        let (mut at, count) = (0, headers.count());
        while at < count {
            let legible = catch_unwind(AssertUnwindSafe(|| {
                // A loop in a loop is what the compiler takes the binding's code into; called for each
                // header, that costs as much as all else of it.
                while at < count {
                    let end = count.min(at + RUN);
                    while at < end {
                        let Header { key: name, value } = headers.get(at);
                        let field = layout.field(at, name);
                        self.push_header(field, (name, value.unwrap_or_default()), key);
                        at += 1;
                    }
                }
            }));
            at += usize::from(legible.is_err());
        }
    }

    fn push_header(&mut self, field: Field, (name, value): (&str, &[u8]), key: Option<&[u8]>) {
        if field.tells(value, key) {
            let mut kept = Kept { field, name: 0, value: value.len() };
            if field.is_named() {
                kept.name = name.len();
                self.names.push_str(name);
            }
            self.headers.push(kept);
            self.bytes.extend_from_slice(value);
        }
    }
}

/// Makes messages of records; keeps what comes again and again.
#[derive(Default)]
struct Decoder {
    reader: HeaderReader,
    /// The last one, counted by nobody but who receives.
    topic: Option<Text>,
    shared: Shared,
}

/// The deliveries of records, each made when it is taken, of the memory that the one before has just
/// given back. Every record is one.
struct Reading {
    partition: Partition,
    topic: Text,
    records: Records,
    /// What comes next, of each of the records' parts.
    record: usize,
    header: usize,
    byte: usize,
    name: usize,
    /// Finished, for what comes next.
    spare: Option<Arc<Message>>,
    decoder: Decoder,
    desk: Arc<Desk>,
}

/// Where the decoder is, and the records' memory goes, while nothing is read.
pub(super) struct Desk {
    decoder: Mutex<Option<Decoder>>,
    outbox: Arc<Outbox>,
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

impl Desk {
    pub(super) fn new(outbox: Arc<Outbox>) -> Arc<Desk> {
        Arc::new(Desk { decoder: Mutex::default(), outbox })
    }

    pub(super) fn read(self: &Arc<Self>, partition: Partition, records: Records) -> Deliveries {
        // There is none while other deliveries have not been taken: they come with one of their own.
        let mut decoder = lock(&self.decoder).take().unwrap_or_default();
        let last = decoder.topic.take().filter(|last| *last == partition.topic);
        let topic = last.unwrap_or_else(|| Text::from(&*partition.topic));
        decoder.topic = Some(topic.clone());
        let (record, header, byte, name) = (0, 0, 0, 0);
        let desk = self.clone();
        Deliveries::new(Reading {
            partition,
            topic,
            records,
            record,
            header,
            byte,
            name,
            spare: None,
            decoder,
            desk,
        })
    }
}

impl Iterator for Reading {
    type Item = Delivery;

    fn next(&mut self) -> Option<Delivery> {
        let Records { all, headers, bytes, names } = &self.records;
        let record = all.get(self.record)?;
        let (mut bytes, mut names) = (bytes.get(self.byte..)?, names.get(self.name..)?);
        let (bytes_left, names_left) = (bytes.len(), names.len());
        let Decoder { reader, shared, .. } = &mut self.decoder;
        let key = record.key.unwrap_or_default();
        let both = key + record.payload.unwrap_or_default();
        let mut payload = shared.copy(first(&mut bytes, both));
        let key = record.key.map(|key| payload.split_to(key));
        let found = Found {
            topic: &self.topic,
            key,
            payload: record.payload.map(|_| payload),
            time: Timestamp::from_micros(record.millis.saturating_mul(1_000)),
        };
        let kept = headers.get(self.header..self.header + record.headers)?;
        let kept = kept.iter().map(|kept| {
            let (name, rest) = names.split_at(kept.name);
            names = rest;
            (kept.field, name, first(&mut bytes, kept.value))
        });
        let id = || identity(record, &self.partition);
        let message = reader.read(kept, found, id, self.spare.take());
        self.record += 1;
        self.header += record.headers;
        self.byte += bytes_left - bytes.len();
        self.name += names_left - names.len();
        Some(Delivery { offset: record.offset, message })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.records.len() - self.record;
        (left, Some(left))
    }
}

impl Deliver for Reading {
    fn rename(&mut self, topic: Text) {
        self.topic = topic;
    }

    fn give_back(&mut self, message: Arc<Message>) {
        self.spare = Some(message);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        *lock(&self.desk.decoder) = Some(mem::take(&mut self.decoder));
        self.desk.outbox.give_back(mem::take(&mut self.records));
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
