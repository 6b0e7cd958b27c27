//! What no backend stores is refused by itself; what is just within the limits is stored.

use super::super::{DatabaseFixture, values::*};
use bytes::Bytes;
use sillage_core::{
    Commit, CommitError, Condition, Decision, Delivered, ErrorKind, Expected, Header, Key, Limits,
    Message, Write,
};

/// A commit that no database can store is rejected with a reason, and only that one.
pub async fn a_guilty_commit_fails_alone<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let mut expected = vec![];
    for (number, guilty) in guilty().into_iter().enumerate() {
        let shown: String = format!("{guilty:?}").chars().take(200).collect();
        let (before, after) = (format!("{number} before"), format!("{number} after"));
        let batch = vec![writes([append("s", &before)]), guilty, writes([append("s", &after)])];
        let answers = database.commit(batch).await;
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{shown}: {answers:?}");
        match &answers[1] {
            Err(CommitError::Rejected(why)) => {
                assert_eq!(why.kind(), ErrorKind::Invalid, "{shown}");
                assert!(!why.to_string().is_empty(), "{shown}");
            }
            other => panic!("{shown}: {other:?}"),
        }
        expected.extend([before, after]);
    }
    assert_eq!(ids(&log(&database).await), expected);
}

fn guilty() -> Vec<Commit> {
    let long = "x".repeat(12_000);
    let plain = message("guilty");
    let header = |bytes: usize| Header { name: "h".into(), value: vec![b'x'; bytes].into() };
    let messages = [
        message(&long),
        message("a\0b"),
        Message { key: Some(Key::from_bytes(vec![b'a', 0])), ..plain.clone() },
        Message { key: Some(Key::of(&long)), ..plain.clone() },
        Message { payload: vec![b'x'; 2 << 20].into(), ..plain.clone() },
        Message { topic: Some(long.as_str().into()), ..plain.clone() },
        Message { correlation_id: "\0".into(), ..plain.clone() },
        Message { headers: vec![header(1); 65], ..plain.clone() },
        Message { headers: vec![header(33 * 1024)], ..plain },
    ];
    let to = |consumer: &str, id: &str| Delivered {
        consumer: consumer.into(),
        source: "test".into(),
        id: id.into(),
    };
    let row = |delivery| Write::Decide { delivery, decision: Decision::Done, until: None };
    let others = [
        writes([append(&long, "guilty")]),
        writes([put("c", &long, "x")]),
        writes([put("a\0b", "d", "x")]),
        writes([row(to(&long, "guilty"))]),
        when([stream_is(&long, Expected::Any)], [append("s", "guilty")]),
        when([Condition::FirstTime(to("k", "a\0b"))], [append("s", "guilty")]),
    ];
    messages.into_iter().map(|message| writes([entry(message)])).chain(others).collect()
}

/// What is exactly at a limit is accepted, and comes back as it was.
pub async fn what_is_at_the_limit_is_accepted<F: DatabaseFixture>(fixture: &F) {
    let database = fixture.open().await;
    let limits = Limits::default();
    let label = "é".repeat(limits.label / 2);
    let mut message = message(&label);
    message.source = label.as_str().into();
    message.topic = Some(label.as_str().into());
    message.key = Some(Key::from_bytes(vec![0xff; limits.label]));
    let value = Bytes::from(vec![0; limits.header_bytes / limits.headers - 2]);
    message.headers = vec![Header { name: "hh".into(), value }; limits.headers];
    message.payload = vec![b'x'; limits.message - message.size() + message.payload.len()].into();
    assert_eq!(message.size(), limits.message, "the test's own sum");
    let id = "i".repeat(limits.document_id);
    let delivery = Delivered {
        consumer: label.as_str().into(),
        source: message.source.clone(),
        id: message.id.text(),
    };
    let all = [
        Write::Append { stream: Some(label.as_str().into()), message: message.clone().into() },
        put(&label, &id, "body"),
        Write::Decide { delivery: delivery.clone(), decision: Decision::Done, until: None },
    ];
    accept(&database, when([Condition::FirstTime(delivery.clone())], all)).await;
    assert_eq!(*log(&database).await[0].body, message);
    assert_eq!(*stream(&database, &label).await[0].body, message);
    assert_eq!(document(&database, &label, &id).await.unwrap().body, "body");
    let again = when([Condition::FirstTime(delivery)], []);
    assert!(is_already_handled(&try_one(&database, again).await));
}
