//! The log: what is stored comes back byte for byte, once, and in order.

use super::super::{DatabaseFixture, values::*};
use bytes::Bytes;
use sillage_core::{
    CommitError, Expected, Filter, Header, Key, Message, MessageId, Position, Timestamp, Version,
    Write,
};
use std::{sync::Arc, time::Duration};

/// Positions rise along the log, and the versions of each stream are 1, 2, 3 …, also where
/// commits in between were refused.
pub async fn positions_rise_and_stream_versions_are_gapless<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    for round in 0..20 {
        let id = |what: &str| format!("{what} {round}");
        let refused = when([stream_is("s-1", Expected::NoStream)], [append("s-1", &id("no"))]);
        let answers = database
            .commit(vec![
                writes([append("s-1", &id("a")), append("s-2", &id("b")), append("s-1", &id("c"))]),
                refused,
                writes([entry(message(&id("d"))), append("s-2", &id("e"))]),
            ])
            .await;
        let accepted: Vec<_> = answers.iter().map(Result::is_ok).collect();
        assert_eq!(accepted, [true, false, true]);
    }
    let log = log(&database).await;
    assert_eq!(log.len(), 100);
    assert!(log[0].position > Position(0));
    assert!(log.windows(2).all(|pair| pair[0].position < pair[1].position));
    for name in ["s-1", "s-2"] {
        let entries = stream(&database, name).await;
        assert_eq!(entries.len(), 40);
        for (index, entry) in (1..).zip(&entries) {
            assert_eq!(entry.stream, Some((name.into(), Version(index))));
            assert!(log.contains(entry), "the log shows the same entry as the stream");
        }
    }
}

/// Payloads of messages and bodies of documents are bytes, whatever they look like.
pub async fn payloads_and_bodies_are_opaque<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let values: [Bytes; 10] = [
        Bytes::new(),
        Bytes::from_static(br#"{"nul":"\u0000"}"#),
        Bytes::from_static(b"\0"),
        Bytes::from_static(b"1e400000"),
        Bytes::from_static(b"{\"a\": 1,\n \"a\" : 2 }"),
        Bytes::from_static(&[0xff, 0xfe, 0xc0, 0x80, 0xed, 0xa0, 0x80]),
        Bytes::from_static(b"'; drop table log; -- $1 ? :x %s"),
        deep.into(),
        (0..=255).collect::<Vec<u8>>().into(),
        vec![0; 800 * 1024].into(),
    ];
    for (number, value) in values.iter().enumerate() {
        let id = number.to_string();
        let body = value.clone();
        let put = Write::Put { collection: "c".into(), id: id.as_str().into(), sort: None, body };
        let message = Message { payload: value.clone(), ..message(&id) };
        accept(&database, writes([entry(message), put])).await;
    }
    let log = log(&database).await;
    for (number, value) in values.iter().enumerate() {
        assert!(log[number].payload == value, "payload {number} has changed");
        let stored = document(&database, "c", &number.to_string()).await.unwrap();
        assert!(stored.body == value, "body {number} has changed");
    }
}

/// Every field of a message comes back as it was: read by the log, by the stream, and as it is told
/// to who follows the log.
pub async fn every_field_of_a_message_comes_back<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let messages = messages();
    let append = |message: &Message| Write::Append {
        stream: Some("größe/1 'x' \"y\"".into()),
        message: Arc::new(message.clone()),
    };
    let any = Filter::default();
    let told = database.next(Position(0), &any, 100);
    accept(&database, writes(messages.iter().map(append).collect::<Vec<_>>())).await;
    let told = told.await;
    let (log, stream) = (log(&database).await, stream(&database, "größe/1 'x' \"y\"").await);
    assert_eq!(log, stream);
    assert_eq!(log.len(), messages.len());
    assert!(told.is_none_or(|told| told.entries == log));
    for (entry, message) in log.iter().zip(&messages) {
        assert!(*entry.body == *message, "{:?} is not {message:?}", entry.body);
        assert_eq!(entry.time, message.time);
        assert_eq!(entry.correlation_id, message.correlation_id);
    }
}

/// Messages with everything, with nothing, and with odd values.
fn messages() -> Vec<Message> {
    let header = |name: &str, value: &[u8]| Header {
        name: name.into(),
        value: Bytes::copy_from_slice(value),
    };
    let full = Message {
        source: "quelle/ö".into(),
        name: "order.created".into(),
        version: u32::MAX,
        key: Some(Key::from("schlüssel")),
        causation_id: Some(MessageId::new("cause")),
        operation_id: Some("operation".into()),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        headers: vec![
            header("b", &[0, 255, 128]),
            header("a", b""),
            header("b", b"again"),
            header("x-json", b"{\"a\":\"\\u0000\"}"),
        ],
        ..message("full")
    };
    let bare = Message { topic: None, key: None, ..message("bare") };
    let binary_key = Key::from_bytes((1..=255).collect::<Vec<u8>>());
    let times = [Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX)];
    let mut all = vec![
        full,
        bare.clone(),
        Message { key: Some(Key::from("")), topic: Some("".into()), ..message("empty, not none") },
        Message { operation_id: Some("".into()), ..message("no operation") },
        Message { key: Some(binary_key), ..message("any bytes but NUL") },
        Message { correlation_id: "c'--".into(), ..message("an id with ' and \" and é") },
    ];
    let edges = times.into_iter().chain([times[0] + Duration::from_micros(1)]);
    all.extend(edges.zip(1..).map(|(time, n)| Message { time, ..message(&format!("time {n}")) }));
    all
}

/// The log has each (source, id) once: a second one is refused, alone, within a batch and in
/// another stream. The same id of another source is another message.
pub async fn an_identity_is_in_the_log_once<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    accept(&database, writes([append("s", "1")])).await;
    assert!(is_already_handled(&try_one(&database, writes([append("s", "1")])).await));
    assert!(is_already_handled(&try_one(&database, writes([append("t", "1")])).await));
    assert!(is_already_handled(&try_one(&database, writes([entry(message("1"))])).await));
    let batch = vec![
        writes([append("s", "3")]),
        writes([append("s", "4"), append("t", "3")]),
        writes([append("s", "4")]),
    ];
    let answers = database.commit(batch).await;
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(is_already_handled(&answers[1]), "{answers:?}");
    let foreign = Message { source: "foreign".into(), ..message("1") };
    accept(&database, writes([entry(foreign)])).await;
    assert_eq!(ids(&log(&database).await), ["1", "3", "4", "1"]);
}

/// A commit that appends a (source, id) twice is a mistake, which must not look as if it had been
/// done; others of its batch are accepted.
pub async fn a_message_twice_in_a_commit_is_rejected<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let foreign = Message { source: "foreign".into(), ..message("1") };
    accept(&database, writes([append("s", "1"), entry(foreign)])).await;
    for twice in [
        writes([append("s", "2"), append("t", "2")]),
        writes([entry(message("1")), entry(message("1"))]),
        when([stream_is("s", Expected::NoStream)], [append("s", "2"), append("s", "2")]),
    ] {
        let after = append("s", &format!("after {}", log(&database).await.len()));
        let answers = database.commit(vec![twice, writes([after])]).await;
        assert!(matches!(&answers[0], Err(CommitError::Rejected(_))), "{answers:?}");
        assert!(answers[1].is_ok(), "{answers:?}");
    }
    assert_eq!(ids(&log(&database).await), ["1", "1", "after 2", "after 3", "after 4"]);
}

/// The head is the last position; its incarnation is the same on every handle.
pub async fn the_head_is_where_the_log_ends<F: DatabaseFixture>(fixture: &F) {
    let (database, other) = (fixture.open().await, fixture.open().await);
    let empty = database.head().await.unwrap();
    assert_eq!((empty.last, empty.stable), (Position(0), Position(0)));
    let committed = accept(&database, writes([append("s", "1"), append("s", "2")])).await;
    for handle in [&database, &other] {
        let head = handle.head().await.unwrap();
        assert_eq!((head.last, head.stable), (committed.position, committed.position));
        assert_eq!(head.incarnation, empty.incarnation);
    }
    refuse(&database, writes([append("s", "1")])).await;
    assert_eq!(database.head().await.unwrap().stable, committed.position);
}

/// A stream is read from after a version, at most so many, and holds nothing of others.
pub async fn a_stream_is_read_in_pages<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    for number in 1..=5 {
        let all = [
            append("order-1", &format!("a{number}")),
            append("order-10", &format!("b{number}")),
            append("ORDER-1", &format!("c{number}")),
            entry(message(&format!("d{number}"))),
        ];
        accept(&database, writes(all)).await;
    }
    let read = async |name: &str, after, max| {
        let entries = database.stream(name, Version(after), max).await.unwrap();
        ids(&entries).join(" ")
    };
    assert_eq!(read("order-1", 0, 10).await, "a1 a2 a3 a4 a5");
    assert_eq!(read("order-1", 0, 2).await, "a1 a2");
    assert_eq!(read("order-1", 2, 2).await, "a3 a4");
    assert_eq!(read("order-1", 4, 2).await, "a5");
    assert_eq!(read("order-1", 5, 2).await, "");
    assert_eq!(read("order-1", 0, 0).await, "");
    assert_eq!(read("order-10", 3, ALL).await, "b4 b5");
    assert_eq!(read("order", 0, ALL).await, "");
    assert_eq!(read("", 0, ALL).await, "");
}
