//! Following the log.

use crate::fixture::{Fixture, created};
use sillage::{Filter, Recorded, prelude::*};
use std::sync::Arc;

async fn positions(fixture: &Fixture, args: &[&str]) -> Vec<u64> {
    let args = [&["tail", "--until-end", "--fmt", "{position}"], args].concat();
    let ran = fixture.run(&args).await.exits(0);
    ran.lines().iter().map(|line| line.parse().unwrap()).collect()
}

async fn log(fixture: &Fixture) -> Vec<Recorded> {
    let database = fixture.database().await;
    database.log(Position(0), &sillage::Filter::default(), 1000).await.unwrap().entries
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_begins_and_what_it_shows() {
    let fixture = Fixture::filled().await;
    let log = log(&fixture).await;
    assert_eq!(log.len(), 5);
    assert_eq!(positions(&fixture, &[]).await, [1, 2, 3, 4, 5]);
    assert_eq!(positions(&fixture, &["--from", "end"]).await, [0; 0]);
    assert_eq!(positions(&fixture, &["--from", "-2"]).await, [4, 5]);
    assert_eq!(positions(&fixture, &["order", "--from", "-2"]).await, [3, 5]);
    assert_eq!(positions(&fixture, &["--from", "-99"]).await, [1, 2, 3, 4, 5]);
    assert_eq!(positions(&fixture, &["--from", "4"]).await, [4, 5]);
    assert_eq!(positions(&fixture, &["--from", "@-1h"]).await, [1, 2, 3, 4, 5]);
    assert_eq!(positions(&fixture, &["--from", "@-2h:-1h"]).await, [0; 0]);
    let (first, last) = (log[0].time, log[4].time);
    let range = format!("@{first}:{last}");
    assert!(!positions(&fixture, &["--from", &range]).await.contains(&5));
    assert_eq!(positions(&fixture, &["payment"]).await, [4]);
    assert_eq!(positions(&fixture, &["--name", "order.cancelled"]).await, [5]);
    assert_eq!(positions(&fixture, &["--key", "bad"]).await, [1, 2]);
    assert_eq!(positions(&fixture, &["--where", "data.why=card_declined"]).await, [4]);
    assert_eq!(positions(&fixture, &["--limit", "2"]).await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_what_comes() {
    let fixture = Fixture::filled().await;
    let tail = fixture.run(&["tail", "--limit", "3", "--fmt", "{name} {key} {data.order_id}"]);
    let app = fixture.start(&Arc::default()).await;
    let shop = app.service("shop");
    let publishing = async {
        // It may have begun after the first of them.
        loop {
            shop.commit(publish(created("o-2"))).await.unwrap();
            let admin = fixture.admin().await;
            let _ = tokio::time::timeout(
                ms(300),
                admin.database().changed(Position(u64::MAX), &Filter::default()),
            )
            .await;
        }
    };
    let ran = tokio::select! {
        ran = tail => ran.exits(0),
        () = publishing => unreachable!(),
    };
    assert_eq!(ran.lines().len(), 3);
    assert!(ran.out.contains("o-2 o-2"), "{}", ran.out);
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_hostile_reaches_the_terminal() {
    let fixture = Fixture::empty().await;
    let data = "{\"note\":\"\u{9b}31m \u{202e} \u{7f}\"}";
    let args = ["publish", "order", "--name", "order.noted", "--key", "\u{1b}]0;x\u{7}"];
    fixture.run(&[&args[..], &["--data", data]].concat()).await.exits(0);
    let raw = ["publish", "order", "--name", "order.noted", "--raw", "--data", "\u{1b}[2J\r\n"];
    fixture.run(&raw).await.exits(0);
    for args in [
        &["tail", "--until-end"][..],
        &["tail", "--until-end", "--fmt", "{key} {data} {data.note}"],
        &["trace", "%1B]0;x%07"],
        &["trace", "\u{1b}]0;x\u{7}"],
    ] {
        let ran = fixture.run(args).await;
        for text in [&ran.out, &ran.err] {
            let hostile = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
            assert!(!text.contains(hostile), "{args:?}: {text:?}");
        }
    }
    let hidden = fixture.run(&["tail", "--until-end", "--hide-payload"]).await.exits(0);
    assert!(hidden.lines()[1].ends_with(&format!("{} bytes", data.len())), "{}", hidden.out);
    let hidden = ["tail", "--until-end", "--hide-payload", "-o", "jsonl"];
    let hidden = fixture.run(&hidden).await.exits(0);
    assert!(!hidden.out.contains("31m") && hidden.out.contains("payload_bytes"));
}
