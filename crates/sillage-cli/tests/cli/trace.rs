//! The causation tree.

use crate::fixture::{Fixture, HOSTILE};

/// Every number as `0`: times differ from run to run.
fn normalised(text: &str) -> String {
    let mut normal = String::new();
    let mut in_number = false;
    for c in text.chars() {
        if !(c.is_ascii_digit() && in_number) {
            normal.push(if c.is_ascii_digit() { '0' } else { c });
        }
        in_number = c.is_ascii_digit();
    }
    normal
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_by_correlation_id_message_id_or_key() {
    let fixture = Fixture::filled().await;
    let golden = "\
order.created          shop  0:0:0.0
└─ payment.failed      shop  +0ms  ✗ card_declined
   └─ order.cancelled  shop  +0ms  ↩
0 messages · 0ms
";
    let by_key = fixture.run(&["trace", "o-1"]).await.exits(0);
    assert_eq!(normalised(&by_key.out), golden);
    let tree = fixture.json(&["trace", "o-1"]).await;
    let correlation_id = tree["correlation_id"].as_str().unwrap();
    let message_id = tree["messages"][2]["id"].as_str().unwrap();
    for id in [correlation_id, message_id] {
        assert_eq!(normalised(&fixture.run(&["trace", id]).await.exits(0).out), golden);
    }
    let follow = ["trace", correlation_id, "--follow"];
    assert_eq!(normalised(&fixture.run(&follow).await.exits(0).out), golden);
    assert_eq!(tree["messages"][2]["depth"], 2);
    assert_eq!(tree["messages"][1]["reason"], "card_declined");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_and_what_waits_behind_them_are_marked() {
    let fixture = Fixture::filled().await;
    let dead = "\
order.created  shop  0:0:0.0  ✗ dead in shop/billing: gone \\u{0b}[0J\\u{0b}0m (0 attempt)
0 message · 0ms · 0 dead
";
    let waits = "\
order.created  shop  0:0:0.0  ⏸ waits in shop/billing behind an earlier one of its key
0 message · 0ms · 0 parked
";
    let ids = ["tail", "--until-end", "--key", "bad", "--fmt", "{id}"];
    let ids = fixture.run(&ids).await.exits(0);
    for (id, golden) in ids.lines().iter().zip([dead, waits]) {
        assert_eq!(normalised(&fixture.run(&["trace", id]).await.exits(0).out), golden);
    }
    let marks = &fixture.json(&["trace", "bad"]).await["messages"][0]["marks"];
    assert_eq!(marks[0]["failure"], HOSTILE);
}

/// Anybody who can publish can make such.
#[tokio::test(flavor = "multi_thread")]
async fn chains_and_circles_are_drawn() {
    let fixture = Fixture::empty().await;
    let event = |correlation: &str, number: usize, cause: usize| {
        format!(
            r#"{{"specversion":"1.0","id":"{correlation}{number}","source":"/x","type":"step.made","topic":"step","time":"2026-01-01T00:00:00Z","correlationid":"{correlation}","causationid":"{correlation}{cause}","data":1}}"#
        )
    };
    let chain: Vec<_> = (1..=9_990).map(|number| event("chain", number, number - 1)).collect();
    let circle = [event("circle", 1, 2), event("circle", 2, 1)];
    for events in [&chain[..], &circle] {
        fixture.run_with(&["publish", "-"], &events.join("\n")).await.exits(0);
    }
    let chain = fixture.json(&["trace", "chain"]).await;
    assert_eq!(chain["messages"][9_989]["depth"], 9_989);
    assert_eq!(chain["messages"][0]["orphan"], true);
    let circle = fixture.run(&["trace", "circle"]).await.exits(0);
    assert_eq!(circle.lines().len(), 3, "{}", circle.out);
}
