//! Publishing, and the way from `tail` to `publish`.

use crate::fixture::Fixture;
use bytes::Bytes;
use sillage::{Header, Message, MessageId, from_json, prelude::*, to_json};

#[tokio::test(flavor = "multi_thread")]
async fn what_tail_writes_publish_takes() {
    let fixture = Fixture::filled().await;
    let odd = Message {
        id: MessageId::new("odd"),
        source: "elsewhere".into(),
        name: "order.noted".into(),
        version: 3,
        topic: Some("order".into()),
        key: Some(Key::from_bytes(vec![0xff, 1])),
        time: Timestamp::from_micros(1_700_000_000_000_001),
        correlation_id: "c".into(),
        causation_id: None,
        operation_id: Some("op".into()),
        traceparent: None,
        headers: ["1", "2"]
            .map(|value| Header {
                name: "twice".into(),
                value: Bytes::from_static(value.as_bytes()),
            })
            .to_vec(),
        payload: Bytes::from_static(&[0, 159, 146, 150]),
    };
    fixture.admin().await.append(odd.clone()).await.unwrap();
    for format in ["jsonl", "json"] {
        let tail = ["tail", "--until-end", "-o", format];
        let written = fixture.run(&tail).await.exits(0);
        let other = Fixture::empty().await;
        let ran = other.run_with(&["publish", "-", "-o", "json"], &written.out).await.exits(0);
        assert_eq!(ran.json()["published"], 6);
        assert_eq!(other.run(&tail).await.exits(0).out, written.out);
        let last = other.run(&["tail", "--from", "-1", "--until-end", "-o", "jsonl"]).await;
        assert_eq!(from_json(last.out.as_bytes()).unwrap(), odd);
        // Again: every id is there already, and nothing is doubled.
        let again = other.run_with(&["publish", "-o", "json"], &written.out).await;
        let again = again.fails(7, "6 messages not published");
        assert_eq!((&again.json()["duplicates"], &again.json()["failed"]), (&6.into(), &0.into()));
        assert_eq!(other.run(&tail).await.exits(0).out, written.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn some_of_many_may_fail() {
    let fixture = Fixture::empty().await;
    let event = |id: &str, topic: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/x","type":"order.noted","time":"2026-01-01T00:00:00Z"{topic},"data":1}}"#
        )
    };
    let topic = r#","topic":"order""#;
    let long = event(&"x".repeat(600), topic);
    let lines = [&event("1", topic), "not json", "", &event("2", ""), &long, &event("3", topic)];
    let args = ["publish", "-o", "json"];
    let ran = fixture.run_with(&args, &lines.join("\n")).await.fails(7, "3 messages not");
    let summary = ran.json();
    assert_eq!(summary["published"], 2);
    let failed: Vec<_> = summary["not_published"].as_array().unwrap().iter().collect();
    let places: Vec<_> = failed.iter().map(|one| one["line"].as_u64().unwrap()).collect();
    assert_eq!(places, [2, 4, 5]);
    assert!(ran.err.contains("line 4: it names no `topic`"), "{}", ran.err);
    let ran = fixture.run_with(&["publish", "order", "-o", "json"], &event("2", "")).await;
    assert_eq!(ran.exits(0).json()["published"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_with_changes() {
    let fixture = Fixture::empty().await;
    std::fs::write(fixture.folder.join("order.json"), "{\"items\":[{\"n\":1}]}\n").unwrap();
    let args = ["publish", "order", "--name", "order.created", "--version", "2", "--key", "o-7"];
    let data = ["--data", "@order.json", "--set", "items.0.n=2", "--set", "note=as text"];
    let published = fixture.json(&[&args[..], &data].concat()).await;
    assert_eq!((&published["position"], &published["key"]), (&1.into(), &"o-7".into()));
    let tail = fixture.run(&["tail", "--until-end", "-o", "jsonl"]).await.exits(0);
    let message = from_json(tail.out.as_bytes()).unwrap();
    assert_eq!(message.payload, r#"{"items":[{"n":2}],"note":"as text"}"#);
    assert_eq!((message.version, &*message.source), (2, "operator"));
    assert_eq!(message.id.as_str(), published["id"].as_str().unwrap());

    let stdin = ["publish", "order", "--name", "order.noted", "--data", "-"];
    fixture.run_with(&stdin, "{\"a\": 1.50}\n").await.exits(0);
    let tail = fixture.run(&["tail", "--until-end", "--from", "2", "-o", "jsonl"]).await;
    assert_eq!(from_json(tail.out.as_bytes()).unwrap().payload, "{\"a\": 1.50}");
    assert!(to_json(&message).is_ok());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_editor_has_the_last_word() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::empty().await;
    let editor = fixture.folder.join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/draft/final/' \"$1\"\n").unwrap();
    std::fs::set_permissions(&editor, PermissionsExt::from_mode(0o755)).unwrap();
    let args = ["publish", "order", "--name", "order.noted", "--set", "state=draft", "--edit"];
    fixture.run(&args).await.fails(2, "no editor");
    let mut command = fixture.command(&args);
    command.env("EDITOR", &editor);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let tail = fixture.run(&["tail", "--until-end", "--fmt", "{data.state}"]).await.exits(0);
    assert_eq!(tail.lines(), ["final"]);
}
