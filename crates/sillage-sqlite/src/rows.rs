//! Rows as the values of the port, and headers as bytes.

use bytes::Bytes;
use rusqlite::{
    Row,
    types::{FromSqlError, Type, ValueRef},
};
use sillage_core::{
    Decision, Header, Headers, Key, Message, MessageId, Position, Recorded, Stored, Text,
    Timestamp, Version,
};
use std::sync::Arc;

/// SQLite's integers are signed; nothing here grows to the upper half.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A count read back.
pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// How many rows a caller wants, as SQLite is told.
pub(crate) fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

/// A row of the view `entries`.
pub(crate) fn recorded(row: &Row<'_>) -> rusqlite::Result<Recorded> {
    let stream = match row.get::<_, Option<Text>>(1)? {
        Some(name) => Some((name, Version(unsigned(row, 2)?))),
        None => None,
    };
    let message = Message {
        source: row.get(3)?,
        id: MessageId::new(row.get::<_, Text>(4)?),
        name: row.get(5)?,
        version: row.get(6)?,
        topic: row.get(7)?,
        key: optional_bytes(row, 8)?.map(Key::from_bytes),
        time: Timestamp::from_micros(row.get(9)?),
        correlation_id: row.get(10)?,
        causation_id: row.get::<_, Option<Text>>(11)?.map(MessageId::new),
        operation_id: row.get(12)?,
        traceparent: row.get(13)?,
        headers: headers(row, 14)?,
        payload: Bytes::copy_from_slice(row.get_ref(15)?.as_blob()?),
    };
    Ok(Recorded::new(Position(unsigned(row, 0)?), stream, Arc::new(message)))
}

/// A row of the documents: id, version, sort key, body.
pub(crate) fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        id: row.get(0)?,
        version: Version(unsigned(row, 1)?),
        sort: row.get(2)?,
        body: Bytes::copy_from_slice(row.get_ref(3)?.as_blob()?),
    })
}

/// An inbox row's decision.
pub(crate) fn decision(row: &Row<'_>) -> rusqlite::Result<Decision> {
    Decision::parse(row.get_ref(0)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))
}

fn optional_bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Bytes>> {
    Ok(row.get_ref(column)?.as_blob_or_null()?.map(Bytes::copy_from_slice))
}

/// Each header as the lengths of name and value, 4 bytes each, then both; none at all is NULL.
pub(crate) fn header_bytes(headers: &[Header]) -> Option<Vec<u8>> {
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

fn headers(row: &Row<'_>, column: usize) -> rusqlite::Result<Headers> {
    let ValueRef::Blob(bytes) = row.get_ref(column)? else { return Ok(Headers::default()) };
    parse_headers(bytes).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            Type::Blob,
            Box::new(FromSqlError::InvalidType),
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_as_written() {
        let header = |name: &str, value: &[u8]| Header {
            name: name.into(),
            value: Bytes::copy_from_slice(value),
        };
        let headers: Headers = vec![header("a", b""), header("", &[0, 255]), header("é", b"value")];
        let bytes = header_bytes(&headers).unwrap();
        assert_eq!(parse_headers(&bytes), Some(headers));
        assert_eq!(parse_headers(&bytes[..bytes.len() - 1]), None);
        assert_eq!(header_bytes(&Headers::default()), None);
    }
}
