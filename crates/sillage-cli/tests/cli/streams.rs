//! `sillage streams` and `sillage retention`.

use crate::fixture::{Cancelled, Fixture, OrderView, until};
use serde_json::json;
use sillage::{Expected, prelude::*};

#[derive(Events, Clone, Debug, PartialEq)]
enum OrderEvent {
    Cancelled(Cancelled),
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_archived_and_restored() {
    let fixture = Fixture::empty().await;
    let orders = Projection::<OrderView>::new("orders", 1).on::<Cancelled>(|_, _| {});
    let app = App::new(fixture.database().await);
    let app = app.service(Service::new("shop").projection(orders)).start().await.unwrap();
    let events = ["o-1", "o-2"].map(|id| OrderEvent::Cancelled(Cancelled { order_id: id.into() }));
    let all = append("orders", Expected::NoStream, &events);
    let at = app.service("shop").commit(all).await.unwrap().position;
    let admin = fixture.admin().await;
    until(|| async { admin.projections().await.unwrap()[0].position >= at }).await;
    app.drain().await;

    let archive = ["streams", "archive", "shop/orders", "--to", "."];
    fixture.run(&["streams", "archive", "no", "--to", "."]).await.fails(3, "has no entries");
    fixture.run(&archive).await.fails(2, "Nobody is here to answer");
    let planned = fixture.json(&[&archive[..], &["--dry-run"]].concat()).await;
    assert_eq!((&planned["entries"], &planned["last"]), (&json!(2), &json!(2)));
    assert_eq!(fixture.json(&["streams", "list"]).await, json!([]));
    let archived = fixture.json(&[&archive[..], &["--yes"]].concat()).await;
    assert_eq!(fixture.json(&["streams", "list"]).await, json!([archived]));
    let file = archived["file"].as_str().unwrap();
    fixture.run(&["streams", "archive", "shop/orders", "--to", "."]).await.exits(3);
    fixture.run(&["streams", "restore", "no.jsonl"]).await.fails(3, "cannot be read");
    fixture.run(&["streams", "restore", file, "--dry-run"]).await.exits(0);
    fixture.run(&["streams", "restore", file]).await.exits(0);
    fixture.run(&["streams", "restore", file]).await.fails(3, "restored already");
    assert_eq!(fixture.json(&["streams", "list"]).await, json!([]));
    let args = ["tail", "--all", "--until-end", "--name", "order.cancelled", "-o", "jsonl"];
    assert_eq!(fixture.run(&args).await.exits(0).lines().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_back_retention_is_shown_and_forgotten() {
    let fixture = Fixture::filled().await;
    let show = fixture.json(&["retention", "show"]).await;
    assert_eq!((&show["keep_seconds"], &show["trimmed_before"]), (&json!(null), &json!(0)));
    let names = async || {
        let readers = fixture.json(&["retention", "readers"]).await;
        let name = |reader: &serde_json::Value| reader["name"].as_str().unwrap().to_owned();
        readers.as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    let before = names().await;
    for one in ["consumer shop/billing", "projection shop/orders@1"] {
        assert!(before.iter().any(|name| name == one), "{before:?}");
    }
    assert!(before.iter().any(|name| name.starts_with("parked shop/billing/order/bad")));
    fixture.run(&["retention", "forget", "shop"]).await.fails(2, "Nobody is here to answer");
    fixture.run(&["retention", "forget", "sop", "--yes"]).await.fails(3, "there are: shop");
    fixture.run(&["retention", "forget", "shop", "--yes"]).await.exits(0);
    assert!(!names().await.iter().any(|name| name.starts_with("consumer")));
}
