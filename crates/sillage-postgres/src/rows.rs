//! Rows as the values of the port, entries as arrays, and headers as bytes.

use bytes::{Bytes, BytesMut};
use sillage_core::{
    Decision, Error, Header, Headers, Key, Message, MessageId, Position, Recorded, Stored, Text,
    Timestamp, Version,
};
use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use std::sync::Arc;

/// A statement with its arguments.
pub(crate) type Bound = Query<'static, Postgres, PgArguments>;

/// PostgreSQL's integers are signed; nothing here grows to the upper half.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count read back. Here and below columns have the types that our statements give them.
pub(crate) fn unsigned(row: &PgRow, column: usize) -> sqlx::Result<u64> {
    let number: i64 = row.try_get_unchecked(column)?;
    u64::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// How many rows a caller wants, as PostgreSQL is told.
pub(crate) fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

pub(crate) fn text(row: &PgRow, column: usize) -> sqlx::Result<Text> {
    row.try_get_unchecked::<&str, _>(column).map(Text::from)
}

pub(crate) fn optional_text(row: &PgRow, column: usize) -> sqlx::Result<Option<Text>> {
    row.try_get_unchecked::<Option<&str>, _>(column).map(|text| text.map(Text::from))
}

fn bytes(row: &PgRow, column: usize) -> sqlx::Result<Bytes> {
    row.try_get_unchecked::<&[u8], _>(column).map(Bytes::copy_from_slice)
}

/// What entries of a page share, and only those of that page: another thread that drops them counts
/// alone.
#[derive(Default)]
pub(crate) struct Shared {
    texts: Vec<Text>,
    /// Room for small keys and payloads, one behind the other.
    room: BytesMut,
}

impl Shared {
    /// How many texts are remembered: looking for one costs less than making it.
    const TEXTS: usize = 16;
    /// Bytes in one piece, which goes when the last that is in it does, and of the largest in it.
    const ROOM: usize = 16 << 10;
    const SMALL: usize = 1 << 10;

    fn text(&mut self, text: &[u8]) -> sqlx::Result<Text> {
        if let Some(known) = self.texts.iter().find(|known| known.as_bytes() == text) {
            return Ok(known.clone());
        }
        let text = std::str::from_utf8(text).map_err(|error| sqlx::Error::Decode(error.into()))?;
        let text = Text::from(text);
        if self.texts.len() < Shared::TEXTS {
            self.texts.push(text.clone());
        }
        Ok(text)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() > Shared::SMALL {
            return Bytes::copy_from_slice(bytes);
        }
        if self.room.capacity() < bytes.len() {
            self.room = BytesMut::with_capacity(Shared::ROOM);
        }
        self.room.extend_from_slice(bytes);
        self.room.split().freeze()
    }
}

/// A row of the log, in the order of its columns; `None` for one that is there only for what stands
/// behind those.
pub(crate) fn recorded(row: &PgRow, shared: &mut Shared) -> sqlx::Result<Option<Recorded>> {
    if row.try_get_unchecked::<Option<i64>, _>(0)?.is_none() {
        return Ok(None);
    }
    let stream = match optional_text(row, 1)? {
        Some(name) => Some((name, Version(unsigned(row, 2)?))),
        None => None,
    };
    let version: i64 = row.try_get_unchecked(6)?;
    let key: Option<&[u8]> = row.try_get_unchecked(8)?;
    let topic: Option<&[u8]> = row.try_get_unchecked(7)?;
    let id = text(row, 4)?;
    // The first message of a flow gave it its name.
    let is_first = row.try_get_unchecked::<&[u8], _>(10)? == id.as_bytes();
    let message = Message {
        source: shared.text(row.try_get_unchecked(3)?)?,
        correlation_id: if is_first { id.clone() } else { text(row, 10)? },
        id: MessageId::new(id),
        name: shared.text(row.try_get_unchecked(5)?)?,
        version: u32::try_from(version).map_err(|error| sqlx::Error::Decode(error.into()))?,
        topic: topic.map(|topic| shared.text(topic)).transpose()?,
        key: key.map(|key| Key::from_bytes(shared.bytes(key))),
        time: Timestamp::from_micros(row.try_get_unchecked(9)?),
        causation_id: optional_text(row, 11)?.map(MessageId::new),
        operation_id: optional_text(row, 12)?,
        traceparent: optional_text(row, 13)?,
        headers: headers(row.try_get_unchecked(14)?)?,
        payload: shared.bytes(row.try_get_unchecked(15)?),
    };
    Ok(Some(Recorded::new(Position(unsigned(row, 0)?), stream, Arc::new(message))))
}

/// How many columns an entry has.
pub(crate) const ENTRY: usize = 16;

/// Rows of the log.
pub(crate) fn entries(rows: &[PgRow]) -> sqlx::Result<Vec<Recorded>> {
    let mut shared = Shared::default();
    rows.iter().filter_map(|row| recorded(row, &mut shared).transpose()).collect()
}

/// A row of the documents: id, version, sort key, body.
pub(crate) fn stored(row: &PgRow) -> sqlx::Result<Stored> {
    Ok(Stored {
        id: text(row, 0)?,
        version: Version(unsigned(row, 1)?),
        sort: optional_text(row, 2)?,
        body: bytes(row, 3)?,
    })
}

/// An inbox row's decision.
pub(crate) fn decision(word: &str) -> sqlx::Result<Decision> {
    Decision::parse(word).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Entries to append, a column an array.
#[derive(Default)]
pub(crate) struct Entries<'m> {
    stream: Vec<Option<&'m str>>,
    stream_version: Vec<Option<i64>>,
    source: Vec<&'m str>,
    id: Vec<&'m str>,
    name: Vec<&'m str>,
    version: Vec<i64>,
    topic: Vec<Option<&'m str>>,
    key: Vec<Option<&'m [u8]>>,
    time: Vec<i64>,
    correlation_id: Vec<&'m str>,
    causation_id: Vec<Option<&'m str>>,
    operation_id: Vec<Option<&'m str>>,
    traceparent: Vec<Option<&'m str>>,
    headers: Vec<Option<Vec<u8>>>,
    payload: Vec<&'m [u8]>,
    messages: Vec<&'m Arc<Message>>,
}

impl<'m> Entries<'m> {
    pub(crate) fn len(&self) -> usize {
        self.id.len()
    }

    /// Adds one, at its place in its stream.
    pub(crate) fn push(&mut self, place: Option<(&'m str, u64)>, message: &'m Arc<Message>) {
        self.stream.push(place.map(|(stream, _)| stream));
        self.stream_version.push(place.map(|(_, version)| signed(version)));
        self.source.push(&message.source);
        self.id.push(message.id.as_str());
        self.name.push(&message.name);
        self.version.push(i64::from(message.version));
        self.topic.push(message.topic.as_deref());
        self.key.push(message.key.as_ref().map(Key::as_bytes));
        self.time.push(message.time.as_micros());
        self.correlation_id.push(&message.correlation_id);
        self.causation_id.push(message.causation_id.as_ref().map(MessageId::as_str));
        self.operation_id.push(message.operation_id.as_deref());
        self.traceparent.push(message.traceparent.as_deref());
        self.headers.push(header_bytes(&message.headers));
        self.payload.push(&message.payload);
        self.messages.push(message);
    }

    /// As they are in the log, at these positions.
    pub(crate) fn recorded(&self, positions: &[u64]) -> Vec<Recorded> {
        let streams = self.stream.iter().copied().zip(self.stream_version.iter().copied());
        let place = |(stream, version): (Option<&str>, Option<i64>)| {
            Some((Text::from(stream?), Version(u64::try_from(version?).ok()?)))
        };
        let all = positions.iter().zip(streams.map(place)).zip(&self.messages);
        let recorded = |((position, stream), message): ((&u64, _), &&Arc<Message>)| {
            Recorded::new(Position(*position), stream, (*message).clone())
        };
        all.map(recorded).collect()
    }

    /// The first by itself, as thirteen arguments without its place.
    pub(crate) fn bind_first(&self, query: Bound) -> Bound {
        query
            .bind(self.source[0])
            .bind(self.id[0])
            .bind(self.name[0])
            .bind(self.version[0])
            .bind(self.topic[0])
            .bind(self.key[0])
            .bind(self.time[0])
            .bind(self.correlation_id[0])
            .bind(self.causation_id[0])
            .bind(self.operation_id[0])
            .bind(self.traceparent[0])
            .bind(self.headers[0].as_deref())
            .bind(self.payload[0])
    }

    /// As fifteen arguments.
    pub(crate) fn bind(&self, query: Bound) -> Bound {
        query
            .bind(&self.stream[..])
            .bind(&self.stream_version[..])
            .bind(&self.source[..])
            .bind(&self.id[..])
            .bind(&self.name[..])
            .bind(&self.version[..])
            .bind(&self.topic[..])
            .bind(&self.key[..])
            .bind(&self.time[..])
            .bind(&self.correlation_id[..])
            .bind(&self.causation_id[..])
            .bind(&self.operation_id[..])
            .bind(&self.traceparent[..])
            .bind(&self.headers[..])
            .bind(&self.payload[..])
    }
}

/// The positions that entries were given, in their order.
pub(crate) fn positions(rows: &[PgRow], entries: usize) -> sqlx::Result<Vec<u64>> {
    let positions: Vec<u64> = rows.iter().map(|row| unsigned(row, 0)).collect::<Result<_, _>>()?;
    if positions.len() == entries && positions.is_sorted() {
        return Ok(positions);
    }
    Err(sqlx::Error::Decode(Error::corrupt("the log gave out positions in another order").into()))
}

/// Each header as the lengths of name and value, 4 bytes each, then both; none at all is NULL.
fn header_bytes(headers: &[Header]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    for header in headers {
        for length in [header.name.len(), header.value.len()] {
            // Commits with more than 4 GiB of headers were refused before.
            bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        }
        bytes.extend(header.name.as_bytes());
        bytes.extend(&header.value);
    }
    Some(bytes)
}

fn headers(bytes: Option<&[u8]>) -> sqlx::Result<Headers> {
    let Some(bytes) = bytes else { return Ok(Headers::default()) };
    parse_headers(bytes)
        .ok_or_else(|| sqlx::Error::Decode(Error::corrupt("headers cannot be read").into()))
}

fn parse_headers(mut bytes: &[u8]) -> Option<Headers> {
    let mut headers = Vec::new();
    while !bytes.is_empty() {
        let (name, rest) = bytes.split_first_chunk()?;
        let (value, rest) = rest.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(u32::from_le_bytes(*name) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value) as usize)?;
        headers.push(Header {
            name: std::str::from_utf8(name).ok()?.into(),
            value: Bytes::copy_from_slice(value),
        });
        bytes = rest;
    }
    Some(headers)
}
