//! Kafka's own bytes: what the client's interface cannot say.

use super::server;
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

/// Publishes to partition 0 of the topic a record with this body and these headers, whose names
/// are any bytes. A produce request, version 3.
pub(crate) fn produce(topic: &str, body: &[u8], headers: &[(&[u8], &[u8])]) {
    let mut request = vec![];
    request.extend([0, 0, 0, 3, 0, 0, 0, 7]); // produce, version, correlation
    request.extend([0xff, 0xff]); // no client id
    request.extend([0xff, 0xff]); // no transaction
    request.extend([0xff, 0xff]); // acks: all
    request.extend(10_000_i32.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    request.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    request.extend(topic.as_bytes());
    request.extend(1_i32.to_be_bytes());
    request.extend(0_i32.to_be_bytes());
    let batch = batch(&record(body, headers));
    request.extend(length(&batch));
    request.extend(batch);
    let mut stream = TcpStream::connect(server()).unwrap();
    stream.write_all(&length(&request)).unwrap();
    stream.write_all(&request).unwrap();
    let mut size = [0; 4];
    stream.read_exact(&mut size).unwrap();
    let mut response = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut response).unwrap();
    // Correlation, one topic with its name, one partition with its number; then the error.
    let error = 4 + 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(response[error..error + 2], [0, 0], "Kafka refuses the record");
}

fn record(body: &[u8], headers: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut record = vec![0, 0, 0]; // attributes, time, offset
    varint(&mut record, -1); // no key
    bytes(&mut record, body);
    varint(&mut record, i64::try_from(headers.len()).unwrap());
    for (name, value) in headers {
        bytes(&mut record, name);
        bytes(&mut record, value);
    }
    let mut framed = vec![];
    bytes(&mut framed, &record);
    framed
}

fn batch(record: &[u8]) -> Vec<u8> {
    let mut rest = vec![0; 2 + 4 + 8 + 8]; // attributes, last offset, first and last time
    rest.extend([0xff; 8 + 2 + 4]); // not idempotent
    rest.extend(1_i32.to_be_bytes());
    rest.extend(record);
    let mut batch = vec![0; 8];
    batch.extend(u32::try_from(4 + 1 + 4 + rest.len()).unwrap().to_be_bytes());
    batch.extend([0xff; 4]); // no epoch
    batch.push(2);
    batch.extend(crc32c(&rest).to_be_bytes());
    batch.extend(rest);
    batch
}

fn length(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).unwrap().to_be_bytes()
}

fn bytes(to: &mut Vec<u8>, part: &[u8]) {
    varint(to, i64::try_from(part.len()).unwrap());
    to.extend(part);
}

fn varint(to: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest > 0x7f {
        to.push(0x80 | u8::try_from(rest & 0x7f).unwrap());
        rest >>= 7;
    }
    to.push(u8::try_from(rest).unwrap());
}

fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}
