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
        let shown = || -> String { format!("{guilty:?}").chars().take(200).collect() };
        let (before, after) = (format!("{number} before"), format!("{number} after"));
        let batch =
            vec![writes([append("s", &before)]), guilty.clone(), writes([append("s", &after)])];
        let answers = database.commit(batch).await;
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{}: {answers:?}", shown());
        match &answers[1] {
            Err(CommitError::Rejected(why)) => {
                assert_eq!(why.kind(), ErrorKind::Invalid, "{}", shown());
                assert!(!why.to_string().is_empty(), "{}", shown());
            }
            other => panic!("{}: {other:?}", shown()),
        }
        expected.extend([before, after]);
    }
    assert_eq!(ids(&log(&database).await), expected);
}

fn guilty() -> Vec<Commit> {
    let long = "x".repeat(12_000);
    let plain = message("guilty");
    let header = |bytes: usize| Header { name: "h".into(), value: vec![b'x'; bytes].into() };
    let named = |name: &str| Header { name: name.into(), value: Bytes::new() };
    let messages = [
        message(&long),
        message("a\0b"),
        Message { key: Some(Key::from_bytes(vec![b'a', 0])), ..plain.clone() },
        Message { key: Some(Key::of(&long)), ..plain.clone() },
        Message { payload: vec![b'x'; 2 << 20].into(), ..plain.clone() },
        Message { topic: Some(long.as_str().into()), ..plain.clone() },
        Message { correlation_id: "\0".into(), ..plain.clone() },
        Message { headers: vec![header(1); 65], ..plain.clone() },
        Message { headers: vec![header(33 * 1024)], ..plain.clone() },
        Message { headers: vec![named(&long)], ..plain.clone() },
        Message { headers: vec![named("a\0b")], ..plain },
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
        writes([Write::Put {
            collection: "c".into(),
            id: "large".into(),
            sort: None,
            body: vec![b'x'; Limits::default().document + 1].into(),
        }]),
        writes([sorted("c", "d", text(&long))]),
        writes([sorted("c", "d", text("a\0b"))]),
        writes([row(to(&long, "guilty"))]),
        writes([decide_until("k", "guilty", &long, 1)]),
        writes([decide_until("k", "guilty", "a\0b", 1)]),
        when([below("c", "d", &long)], [append("s", "guilty")]),
        when([below("c", "d", "a\0b")], [append("s", "guilty")]),
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
    message.headers[0] = Header { name: label.as_str().into(), value: Bytes::new() };
    message.payload = vec![b'x'; limits.message - message.size() + message.payload.len()].into();
    assert_eq!(message.size(), limits.message, "the test's own sum");
    let (id, sort) = ("i".repeat(limits.document_id), "s".repeat(limits.document_id));
    let body = Bytes::from(vec![0xff; limits.document]);
    let delivery = Delivered {
        consumer: label.as_str().into(),
        source: message.source.clone(),
        id: message.id.text(),
    };
    let all = [
        Write::Append { stream: Some(label.as_str().into()), message: message.clone().into() },
        Write::Put {
            collection: label.as_str().into(),
            id: id.as_str().into(),
            sort: Some(text(&sort)),
            body: body.clone(),
        },
        Write::Decide {
            delivery: delivery.clone(),
            decision: Decision::Done,
            until: Some((label.as_str().into(), 1)),
        },
    ];
    let conditions = [Condition::FirstTime(delivery.clone()), below(&label, &id, &sort)];
    accept(&database, when(conditions, all)).await;
    assert_eq!(*log(&database).await[0].body, message);
    assert_eq!(*stream(&database, &label).await[0].body, message);
    let stored = document(&database, &label, &id).await.unwrap();
    assert_eq!(stored.sort.as_deref(), Some(sort.as_str()));
    assert!(stored.body == body, "the body has changed");
    let again = when([Condition::FirstTime(delivery)], []);
    assert!(is_already_handled(&try_one(&database, again).await));
}
