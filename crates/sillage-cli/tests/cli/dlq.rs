//! Dead letters, with the shop running beside the command.

use crate::fixture::{Fixture, HOSTILE, created, until};
use sillage::prelude::*;
use std::sync::{Arc, atomic::AtomicBool};

async fn none_left(fixture: &Fixture) {
    let admin = fixture.admin().await;
    let gone = || async { admin.dead_letters(None, true).await.unwrap().is_empty() };
    until(gone).await;
}

async fn billed(fixture: &Fixture) -> Vec<String> {
    let args = ["tail", "--until-end", "--name", "payment.failed", "--key", "bad"];
    let ran = fixture.run(&[&args[..], &["--fmt", "{causationid}"]].concat()).await.exits(0);
    ran.lines().iter().map(|&line| line.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_filter_and_group() {
    let fixture = Fixture::filled().await;
    let groups = fixture.json(&["dlq", "list"]).await;
    let group = &groups[0];
    assert_eq!(groups.as_array().unwrap().len(), 1);
    assert_eq!(
        (&group["consumer"], &group["name"], &group["class"], &group["keys"], &group["deliveries"]),
        (
            &"shop/billing".into(),
            &"order.created".into(),
            &"transient".into(),
            &1.into(),
            &2.into()
        )
    );
    assert_eq!(group["failure"], HOSTILE);
    let count = async |args: &[&str]| {
        let list = fixture.json(&[&["dlq", "list", "--all"], args].concat()).await;
        list.as_array().unwrap().len()
    };
    for matching in [
        &["--consumer", "billing"][..],
        &["--consumer", "shop/billing"],
        &["--name", "order.created"],
        &["--error", "GONE"],
        &["--since", "10m"],
    ] {
        assert_eq!(count(matching).await, 1, "{matching:?}");
    }
    for other in
        [&["--consumer", "bill"][..], &["--name", "order"], &["--error", "x"], &["--since", "0s"]]
    {
        assert_eq!(count(other).await, 0, "{other:?}");
    }
    let ran = fixture.run(&["dlq", "list"]).await.exits(0);
    assert!(!ran.out.contains('\u{1b}') && ran.out.contains("gone \\u{1b}[2J"), "{}", ran.out);
    let shown = fixture.run(&["dlq", "show", "order/bad"]).await.exits(0);
    assert!(!shown.out.contains('\u{1b}') && shown.out.contains("\"note\":\"fragile\""));
    let shown = fixture.run(&["dlq", "show", "bad", "--hide-payload"]).await.exits(0);
    assert!(!shown.out.contains("fragile") && shown.out.contains(" bytes"), "{}", shown.out);
    let shown = fixture.json(&["dlq", "show", "bad"]).await;
    assert_eq!(shown["messages"][1]["data"]["order_id"], "bad");
}

#[tokio::test(flavor = "multi_thread")]
async fn redrive_plans_asks_empties_and_keeps_order() {
    let fixture = Fixture::filled().await;
    let dry = fixture.run(&["dlq", "redrive", "--all", "--dry-run", "-o", "json"]).await.exits(0);
    assert_eq!(dry.json()[0]["outcome"], "would be redriven");
    assert!(dry.err.contains("shop/billing: 1 key at order.created with 2 deliveries"));
    fixture.run(&["dlq", "redrive", "--all"]).await.fails(2, "Send 1 key back?");

    let app = fixture.start(&Arc::new(AtomicBool::new(false))).await;
    let args = ["dlq", "redrive", "--all", "--yes", "--rate", "50/s", "-o", "json"];
    let done = fixture.run(&args).await.exits(0).json();
    assert_eq!(done[0]["outcome"], "redriven");
    none_left(&fixture).await;
    app.drain().await;
    let ids = ["tail", "--until-end", "--name", "order.created", "--key", "bad", "--fmt", "{id}"];
    let sent = fixture.run(&ids).await.exits(0);
    assert_eq!(billed(&fixture).await, sent.lines(), "both, in the order they came");
    let nothing = fixture.run(&["dlq", "redrive", "--all", "--yes", "-o", "json"]).await.exits(0);
    assert_eq!(nothing.out.trim(), "[]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_a_conflict_and_among_many_a_part() {
    let fixture = Fixture::filled().await;
    let app = fixture.start(&Arc::new(AtomicBool::new(true))).await;
    app.service("shop").commit(publish(created("bad-2"))).await.unwrap();
    let admin = fixture.admin().await;
    let two = || async { admin.dead_letters(None, false).await.unwrap().len() == 2 };
    until(two).await;
    app.drain().await;
    // Nobody runs: a key that was sent back waits for its owner.
    fixture.run(&["dlq", "redrive", "order/bad-2", "--yes"]).await.exits(0);
    let again = fixture.run(&["dlq", "redrive", "order/bad-2", "--yes"]).await;
    again.fails(5, "being tried again already");
    let both = ["dlq", "redrive", "--all", "--parked", "--yes", "-o", "json"];
    let ran = fixture.run(&both).await.fails(7, "1 of 2 keys not sent back");
    let outcomes = ran.json();
    assert_eq!(outcomes.as_array().unwrap().len(), 2);
    let outcome = |id: &str| {
        let mut all = outcomes.as_array().unwrap().iter();
        all.find(|one| one["id"] == id).unwrap()["outcome"].clone()
    };
    assert_eq!(outcome("shop/billing/order/bad"), "redriven");
    assert_eq!(outcome("shop/billing/order/bad-2"), "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn edit_skip_and_restore() {
    let fixture = Fixture::filled().await;
    // The head is passed over, and taken back.
    let skipped = fixture.json(&["dlq", "skip", "bad", "--why", "a test"]).await;
    assert_eq!(skipped["outcome"], "skipped");
    assert_eq!(fixture.json(&["dlq", "list", "--all", "--parked"]).await[0]["deliveries"], 1);
    fixture.run(&["dlq", "restore", "bad"]).await.exits(0);
    assert_eq!(fixture.json(&["dlq", "list", "--all"]).await[0]["deliveries"], 2);
    fixture.run(&["dlq", "restore", "bad"]).await.fails(3, "no skipped delivery");

    let edited = fixture.json(&["dlq", "edit", "bad", "--set", "order_id=mended"]).await;
    assert_eq!(edited["outcome"], "is sent back as");
    let head = &fixture.json(&["dlq", "show", "bad"]).await["messages"][0];
    assert_eq!(head["data"]["order_id"], "mended");
    assert_eq!(head["data"]["note"], "fragile");
    assert_eq!(head["id"], edited["why"]);

    let app = fixture.start(&Arc::new(AtomicBool::new(false))).await;
    none_left(&fixture).await;
    app.drain().await;
    let acts = fixture.run(&["tail", "--all", "--until-end", "--fmt", "{name}"]).await.exits(0);
    for act in ["operator.skip", "operator.restore", "operator.edit"] {
        assert!(acts.out.contains(act), "{}", acts.out);
    }
}
