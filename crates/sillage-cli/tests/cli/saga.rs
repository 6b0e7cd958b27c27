//! Sagas: one that is stuck and one that waits, seen and mended from outside.

use crate::fixture::{Fixture, until};
use serde::{Deserialize, Serialize};
use sillage::{prelude::*, saga::Saga};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "till.opened")]
struct Opened {
    #[event(key)]
    order_id: String,
}

#[derive(Command, Serialize, Deserialize, Clone)]
#[command(name = "stock.reserve", done = Reserved)]
struct Reserve {
    #[command(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "stock.reserved")]
struct Reserved {
    #[event(key)]
    order_id: String,
}

#[derive(Command, Serialize, Deserialize, Clone)]
#[command(name = "stock.release", done = Released)]
struct Release {
    #[command(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "stock.released")]
struct Released {
    #[event(key)]
    order_id: String,
}

#[derive(Command, Serialize, Deserialize, Clone)]
#[command(name = "shipping.ship", done = Shipped)]
struct Ship {
    #[command(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "shipping.shipped")]
struct Shipped {
    #[event(key)]
    order_id: String,
}

#[derive(Serialize, Deserialize)]
struct Checkout {
    order_id: String,
}

fn checkout() -> Saga<Checkout> {
    let id = |checkout: &Checkout| checkout.order_id.clone();
    Saga::<Checkout>::new("checkout", 1)
        .start_on::<Opened>(|opened| Checkout { order_id: opened.order_id.clone() })
        .step(
            "reserve",
            move |checkout| Reserve { order_id: id(checkout) },
            move |checkout| Release { order_id: id(checkout) },
        )
        .pivot("ship", move |checkout| Ship { order_id: id(checkout) })
        .within(ms(20))
        .retry([])
        .finish(|_| (), |_| ())
}

/// Reserves for `o-7` only; nobody ships.
async fn reserve(command: Reserve) -> Option<Effects> {
    let Reserve { order_id } = command;
    (order_id == "o-7").then(|| publish(Reserved { order_id }))
}

async fn release(command: Release) -> Effects {
    publish(Released { order_id: command.order_id })
}

async fn start(fixture: &Fixture) -> Running {
    let stock = Consumer::new("stock").on(reserve).on(release);
    let till = Service::new("till").saga(checkout()).consumer(stock);
    App::new(fixture.database().await).service(till).start().await.unwrap()
}

async fn is_at(fixture: &Fixture, id: &str, status: &str) {
    let admin = fixture.admin().await;
    let id = format!("till/checkout/{id}");
    let reached = || async {
        admin.saga(&id).await.is_ok_and(|detail| detail.status.status.word() == status)
    };
    until(reached).await;
}

/// `o-7` is stuck, `o-8` waits.
pub(crate) async fn fill(fixture: &Fixture) {
    let app = start(fixture).await;
    let open = |id: &str| publish(Opened { order_id: id.to_owned() });
    app.service("till").commit(open("o-7").and(open("o-8"))).await.unwrap();
    is_at(fixture, "o-7", "stuck").await;
    is_at(fixture, "o-8", "running").await;
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stuck_is_listed_first_with_the_reason() {
    let fixture = Fixture::empty().await;
    fill(&fixture).await;
    let list = fixture.json(&["saga", "list"]).await;
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!((&list[0]["status"], &list[1]["status"]), (&"stuck".into(), &"running".into()));
    assert_eq!(list[0]["at"], serde_json::json!(["ship"]));
    let why = list[0]["why"].as_str().unwrap();
    assert!(why.contains("`shipping.ship` was sent 1 times"), "{why}");
    let stuck = fixture.json(&["saga", "list", "--stuck", "--saga", "till/checkout"]).await;
    assert_eq!(stuck.as_array().unwrap().len(), 1);
    let shown = fixture.json(&["saga", "show", "o-8"]).await;
    let steps: Vec<_> = (0..2).map(|n| shown["steps"][n]["progress"].clone()).collect();
    assert_eq!(steps, ["sent", "waiting"]);
    assert!(shown["steps"][0]["deadline"].is_string(), "{shown}");
    let text = fixture.run(&["saga", "show", "o-7"]).await.exits(0).out;
    assert!(text.contains("reserve      done       stock.reserve (undo stock.release)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_passes_over_a_step_or_takes_all_back() {
    let fixture = Fixture::empty().await;
    fill(&fixture).await;
    let app = start(&fixture).await;
    let why = ["--why", "by hand"];
    fixture.run(&[&["saga", "skip", "o-7"], &why[..]].concat()).await.exits(0);
    is_at(&fixture, "o-7", "completed").await;
    fixture.run(&[&["saga", "skip", "o-7"], &why[..]].concat()).await.fails(2, "is not stuck");
    fixture.run(&[&["saga", "cancel", "o-7"], &why[..]].concat()).await.fails(2, "has ended");
    fixture.run(&[&["saga", "cancel", "o-8"], &why[..]].concat()).await.exits(0);
    is_at(&fixture, "o-8", "compensating").await;
    let reserved = publish(Reserved { order_id: "o-8".into() });
    app.service("till").commit(reserved).await.unwrap();
    is_at(&fixture, "o-8", "compensated").await;
    fixture.run(&["saga", "show", "o-9"]).await.fails(3, "no saga has `o-9`");
    let acts = sillage::Filter { names: vec!["operator.saga-cancel".into()], ..Default::default() };
    let acts = fixture.database().await.log(Position(0), &acts, 10).await.unwrap().entries;
    assert_eq!(acts.len(), 1);
    assert!(String::from_utf8_lossy(&acts[0].payload).contains("by hand"));
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_drawn() {
    let fixture = Fixture::empty().await;
    fill(&fixture).await;
    let mermaid = fixture.run(&["saga", "diagram", "checkout"]).await.exits(0).out;
    for line in [
        "flowchart LR",
        "  s0[\"reserve<br/>stock.reserve\"]",
        "  s1{{\"ship<br/>shipping.ship\"}}",
        "  s0 -->|stock.reserved| s1",
        "  s1 -->|shipping.shipped| completed",
        "  s0 -. not in time .-> u0",
        "  u0 -. stock.released .-> compensated",
    ] {
        assert!(mermaid.lines().any(|drawn| drawn == line), "{line}: {mermaid}");
    }
    let args = ["saga", "diagram", "checkout", "--form", "svg", "--instance", "o-7"];
    let svg = fixture.run(&args).await.exits(0).out;
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("<title>checkout version 1</title>") && svg.contains("ship (stuck)"));
    let missing = fixture.run(&["saga", "diagram", "checkout", "--version", "9"]).await;
    missing.fails(3, "has no version 9");
}
