//! Exit codes, and what stands beside the data.

use crate::fixture::{Fixture, created};
use sillage::prelude::*;
use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Stdio},
};

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_2() {
    let fixture = Fixture::filled().await;
    fixture.run(&["dlq", "redrive", "--all"]).await.fails(2, "Nobody is here to answer");
    fixture.run(&["publish", "--name", "order.created"]).await.fails(2, "no topic");
    fixture.run(&["publish", "order", "--name", "x"]).await.fails(2, "no payload");
    fixture.run(&["publish", "order", "--name", "x", "--data", "{"]).await.fails(2, "no JSON");
    fixture.run(&["dlq", "edit", "bad"]).await.fails(2, "no change");
    let partitions = ["topics", "create", "order", "--partitions", "3"];
    fixture.run(&partitions).await.fails(2, "no partitions of its own");
    let yaml = fixture.run(&["topics", "list", "-o", "yaml"]).await.exits(2);
    assert!(yaml.err.contains("table, json, jsonl"), "{}", yaml.err);
    for wrong in [&["nonsense"][..], &["tail", "--from", "middle"], &["dlq", "redrive"]] {
        let ran = fixture.run(wrong).await.exits(2);
        assert!(ran.out.is_empty() && ran.err.contains("--help"), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_3_and_is_not_made() {
    let fixture = Fixture::filled().await;
    fixture.run(&["trace", "nothing"]).await.fails(3, "no message");
    fixture.run(&["topics", "show", "nothing"]).await.fails(3, "no topic");
    fixture.run(&["dlq", "show", "nothing"]).await.fails(3, "no parked key");
    fixture.run(&["dlq", "restore", "nothing"]).await.fails(3, "no skipped delivery");
    fixture.run(&["consumers", "pause", "nobody", "--why", "x"]).await.fails(3, "no consumer");
    fixture.run(&["doctor", "--database", "sqlite:none.db"]).await.fails(3, "does not exist");
    assert!(!fixture.folder.join("none.db").exists());
    std::fs::write(fixture.folder.join("empty.db"), "").unwrap();
    fixture.run(&["doctor", "--database", "sqlite:empty.db"]).await.fails(3, "is empty");
    assert_eq!(std::fs::metadata(fixture.folder.join("empty.db")).unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_late_is_6() {
    let fixture = Fixture::empty().await;
    fixture.run(&["tail", "--timeout", "200ms"]).await.fails(6, "not done within 200ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_check_is_8() {
    let fixture = Fixture::filled().await;
    fixture.run(&["doctor"]).await.fails(8, "checks failed");
    fixture.run(&["consumers", "lag", "--max-messages", "0"]).await.exits(0);
    let admin = fixture.admin().await;
    admin.publish(order("o-2")).await.unwrap();
    let over = ["consumers", "lag", "--max-messages", "0"];
    fixture.run(&over).await.fails(8, "wait for shop/billing");
    let late = ["consumers", "lag", "--max-seconds", "0"];
    fixture.run(&late).await.fails(8, "a message has waited");
}

fn order(id: &str) -> sillage::admin::Outgoing {
    sillage::admin::Outgoing {
        name: "order.created".into(),
        version: 1,
        topic: "order".into(),
        key: Some(id.into()),
        payload: serde_json::to_vec(&created(id)).unwrap(),
    }
}

/// A watch ends when one is over its limit, and is one JSON value.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_8_when_a_limit_is_passed() {
    let fixture = Fixture::filled().await;
    let admin = fixture.admin().await;
    admin.publish(order("o-2")).await.unwrap();
    let watch = ["consumers", "lag", "billing", "--watch", "--every", "100ms", "-o", "json"];
    let mut watch = fixture.command(&[&watch[..], &["--max-messages", "1"]].concat());
    let mut child = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let first = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        while !text.contains("lag") {
            assert!(out.read_line(&mut text).unwrap() > 0, "{text}");
        }
        (out, text)
    });
    let (mut out, mut text) = first.await.unwrap();
    admin.publish(order("o-3")).await.unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        out.read_to_string(&mut text).unwrap();
        (child.wait_with_output().unwrap(), text)
    });
    let (ended, text) = ended.await.unwrap();
    assert_eq!(ended.status.code(), Some(8));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("2 messages wait for shop/billing"));
    let looks: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!((&looks[0][0]["lag"], &looks.last().unwrap()[0]["lag"]), (&1.into(), &2.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_is_130_and_leaves_whole_json() {
    let fixture = Fixture::filled().await;
    let mut tail = fixture.command(&["tail", "--from", "start", "-o", "json"]);
    let mut child = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        while text.lines().count() < 3 {
            out.read_line(&mut text).unwrap();
        }
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        out.read_to_string(&mut text).unwrap();
        (child.wait().unwrap().code(), text)
    });
    let (code, text) = ended.await.unwrap();
    assert_eq!(code, Some(130));
    let list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(list.len() >= 5, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_failure() {
    let fixture = Fixture::filled().await;
    let mut tail = fixture.command(&["tail", "--until-end"]);
    let mut child = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = output.await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_are_not_data() {
    let fixture = Fixture::filled().await;
    let ran = fixture.run(&["dlq", "list", "-o", "json", "--consumer", "nobody"]).await.exits(0);
    assert_eq!(ran.out.trim(), "[]");
    assert!(ran.err.contains("nothing"), "{}", ran.err);
    let ran = fixture.run(&["dlq", "list", "-q", "--consumer", "nobody"]).await.exits(0);
    assert_eq!(ran.err, "");
    let app = fixture.start(&std::sync::Arc::default()).await;
    app.service("shop").commit(publish(created("o-3"))).await.unwrap();
    app.drain().await;
}
