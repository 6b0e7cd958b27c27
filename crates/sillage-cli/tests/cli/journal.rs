//! `sillage journal` on a log.

use crate::fixture::Fixture;

/// With the embedded broker the log itself is the journal of its services.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_embedded_broker_is_its_journal() {
    let fixture = Fixture::filled().await;
    let found = fixture.json(&["journal", "search", "--key", "o-1", "--since", "-1h"]).await;
    let names: Vec<_> =
        found.as_array().unwrap().iter().map(|f| f["message"]["type"].clone()).collect();
    assert!(names.contains(&"order.created".into()) && names.len() >= 2, "{names:?}");
    let none = fixture.json(&["journal", "search", "--until", "-1h"]).await;
    assert_eq!(none, serde_json::json!([]));
    fixture.run(&["journal", "check"]).await.exits(0);
    fixture.run(&["journal"]).await.fails(2, "none is named");
    let file = fixture.folder.join("out.jsonl");
    let to = file.display().to_string();
    fixture.run(&["journal", "export", "--to", &to]).await.exits(0);
    assert!(std::fs::read_to_string(&file).unwrap().lines().count() >= 5);
    fixture.run(&["journal", "export", "--to", &to]).await.exits(1);
}
