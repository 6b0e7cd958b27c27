//! From Kafka's records to messages.

use bytes::Bytes;
use rdkafka::{
    Message as _,
    message::{BorrowedHeaders, BorrowedMessage, Headers as _},
};
use sillage_core::{Found, HeaderReader, Message, MessageId, Text, Timestamp};
use std::panic::{AssertUnwindSafe, catch_unwind};
use uuid::Uuid;

/// Reads records; keeps what comes again and again.
#[derive(Default)]
pub(super) struct Decoder {
    reader: HeaderReader,
}

impl Decoder {
    /// What comes from now on is handed over together.
    pub(super) fn begin_batch(&mut self) {
        self.reader.begin_batch();
    }

    /// The message of a record; every record is one.
    pub(super) fn read(&mut self, record: &BorrowedMessage<'_>, topic: &Text) -> Message {
        // The binding panics at a header's name that is not UTF-8, which must stop nobody.
        let reader = &mut self.reader;
        let whole = catch_unwind(AssertUnwindSafe(|| {
            let all = record.headers();
            let count = all.map_or(0, BorrowedHeaders::count);
            let headers = (0..count).filter_map(|index| header(all?, index));
            reader.read(headers, found(record, topic), || identity(record, topic))
        }));
        whole.unwrap_or_else(|_| self.read_legible(record, topic))
    }

    /// The message without headers whose names cannot be read.
    #[cold]
    fn read_legible(&mut self, record: &BorrowedMessage<'_>, topic: &Text) -> Message {
        let all = record.headers();
        let count = all.map_or(0, BorrowedHeaders::count);
        let legible = |index| {
            let header = catch_unwind(AssertUnwindSafe(|| header(all?, index)));
            header.ok().flatten()
        };
        let headers = (0..count).filter_map(legible);
        self.reader.read(headers, found(record, topic), || identity(record, topic))
    }
}

fn header(headers: &BorrowedHeaders, index: usize) -> Option<(&str, &[u8])> {
    headers.try_get(index).map(|header| (header.key, header.value.unwrap_or_default()))
}

fn found(record: &BorrowedMessage<'_>, topic: &Text) -> Found {
    Found {
        topic: topic.clone(),
        key: record.key().map(Bytes::copy_from_slice),
        payload: record.payload().map(Bytes::copy_from_slice),
        time: Timestamp::from_micros(millis(record).saturating_mul(1_000)),
    }
}

/// When the record was made or taken, in milliseconds.
fn millis(record: &BorrowedMessage<'_>) -> i64 {
    record.timestamp().to_millis().unwrap_or_default()
}

/// The id of a message without one. With the time, as the same coordinates come again when a
/// topic is made anew.
fn identity(record: &BorrowedMessage<'_>, topic: &Text) -> MessageId {
    let (partition, offset) = (record.partition(), record.offset());
    let name = format!("{topic}\0{partition}\0{offset}\0{}", millis(record));
    MessageId::new(Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string())
}
