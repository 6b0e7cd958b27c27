//! Projections that cannot go on: they say so while it is so, in every process.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Switch, created};
use serde::{Deserialize, Serialize};
use sillage::{Database as _, Range, prelude::*};

const NAME: &str = "shop/counts";

#[derive(Document, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[document(collection = "counts")]
struct Counted {
    #[document(id)]
    id: String,
    count: u64,
}

/// Counts; a bad order is counted by half.
fn counting(broken: &Switch) -> Service {
    let broken = broken.clone();
    let counts = Projection::<Counted>::new("counts", 1).on::<Created>(move |view, order| {
        view.id.clone_from(&order.order_id);
        view.count += 1;
        assert!(!(broken.is_on() && order.note == "bad"), "no such order");
    });
    Service::new("shop").projection(counts).follow(["order"])
}

async fn place(app: &Running, orders: impl Iterator<Item = (u32, &str)>) -> Position {
    let order = |(n, note): (u32, &str)| Created { note: note.into(), ..created(&format!("o{n}")) };
    let all = orders.map(|of| publish(order(of))).reduce(Effects::and).unwrap();
    app.service("shop").commit(all).await.unwrap().position
}

async fn count(harness: &Harness) -> u64 {
    let range = Range::Ids { prefix: "", after: "" };
    let found = harness.memory.list(NAME, range, 1_000).await.unwrap();
    let count = |stored: &sillage::Stored| {
        serde_json::from_slice::<Counted>(&stored.body).map(|counted| counted.count)
    };
    found.iter().map(|stored| count(stored).unwrap()).sum()
}

fn problems(app: &Running) -> Vec<String> {
    app.health().problems
}

#[tokio::test(start_paused = true)]
async fn a_fold_that_panics_pauses_at_its_entry_and_goes_on_when_it_is_mended() {
    let (harness, broken) = (Harness::new(), Switch::on());
    let app = harness.start_service(Service::new("shop")).await;
    let notes = (0..500).map(|n| (n % 100, if n == 371 { "bad" } else { "good" }));
    let last = place(&app, notes).await;
    app.drain().await;
    let app = harness.start_service(counting(&broken)).await;
    harness.until(|| async { !problems(&app).is_empty() }).await;
    let why = problems(&app).remove(0);
    assert!(why.contains("position 372") && why.contains("no such order"), "{why}");
    harness.settle().await;
    assert_eq!(count(&harness).await, 371);
    app.drain().await;
    broken.off();
    let app = harness.start_service(counting(&broken)).await;
    app.view::<Counted>("shop").wait_for(last, secs(100)).await.unwrap();
    assert_eq!(count(&harness).await, 500);
    assert!(problems(&app).is_empty(), "{:?}", problems(&app));
    app.drain().await;
}

/// One of them has the lease; the others look at what is stored.
#[tokio::test(start_paused = true)]
async fn who_does_not_fold_it_hears_as_well_that_it_goes_on() {
    let (harness, broken) = (Harness::new(), Switch::on());
    let one = harness.start_service(counting(&broken)).await;
    let other = harness.start_service(counting(&broken)).await;
    let last = place(&one, [(1, "good")].into_iter()).await;
    one.view::<Counted>("shop").wait_for(last, secs(10)).await.unwrap();
    let admin = harness.admin();
    let are_well = || problems(&one).is_empty() && problems(&other).is_empty();
    let is_told = || !problems(&one).is_empty() && !problems(&other).is_empty();
    admin.pause_projection(NAME, "the disk is moved").await.unwrap();
    harness.until(|| async { is_told() }).await;
    admin.resume_projection(NAME, false).await.unwrap();
    harness.until(|| async { are_well() }).await;
    one.drain().await;
    other.drain().await;
}
