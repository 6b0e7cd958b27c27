//! Projections that are far behind: they read the next page while they fold the last, and go on
//! folding while a commit is on its way.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, created};
use serde::{Deserialize, Serialize};
use sillage::{Database as _, Range, admin::GenerationStatus, prelude::*};
use sillage_testkit::Memory;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

#[derive(Document, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[document(collection = "counts")]
struct Counted {
    #[document(id)]
    id: String,
    count: u64,
}

/// Counts, and does something at the events that are folded first at these numbers.
fn counting(harness: &Harness, at: &'static [u64], happens: fn(&Memory)) -> Service {
    let (memory, folded) = (harness.memory.clone(), Arc::new(AtomicU64::new(0)));
    let counts = Projection::<Counted>::new("counts", 1).on::<Created>(move |view, order| {
        let number = folded.fetch_add(1, Ordering::Relaxed) + 1;
        if at.contains(&number) {
            happens(&memory);
        }
        view.id.clone_from(&order.order_id);
        view.count += 1;
    });
    Service::new("shop").projection(counts).follow(["order"])
}

fn nothing(_: &Memory) {}

/// Events of so many orders in turn, and the end of the log.
async fn events(harness: &Harness, count: u64, orders: u64) -> Position {
    let app = harness.start_service(Service::new("shop")).await;
    let mut last = Position(0);
    for first in (0..count).step_by(1000) {
        let some = first..count.min(first + 1000);
        let some = some.map(|n| publish(created(&format!("o{:06}", n % orders))));
        let all = some.reduce(Effects::and).unwrap();
        last = app.service("shop").commit(all).await.unwrap().position;
    }
    app.drain().await;
    last
}

async fn counts(harness: &Harness) -> Vec<u64> {
    let range = Range::Ids { prefix: "", after: "" };
    let found = harness.memory.list("shop/counts", range, 100_000).await.unwrap();
    let count = |stored: sillage::Stored| {
        serde_json::from_slice::<Counted>(&stored.body).map(|counted| counted.count)
    };
    found.into_iter().map(count).collect::<Result<_, _>>().unwrap()
}

async fn live(harness: &Harness) -> GenerationStatus {
    harness.admin().projection("shop/counts").await.unwrap().live
}

/// More documents than stay in memory: one that went is loaded when it is changed again.
#[tokio::test(start_paused = true)]
async fn what_was_let_go_from_memory_is_loaded_again() {
    let harness = Harness::new();
    let last = events(&harness, 45_000, 15_000).await;
    let app = harness.start_service(counting(&harness, &[], nothing)).await;
    app.view::<Counted>("shop").wait_for(last, secs(100)).await.unwrap();
    assert_eq!(counts(&harness).await, vec![3; 15_000]);
    assert_eq!(live(&harness).await.digest.documents, 15_000);
    app.drain().await;
}

/// What is folded on top of a commit that is not accepted is folded again; what was accepted, and
/// its answer lost, is not.
#[tokio::test(start_paused = true)]
async fn commits_that_fail_while_it_folds_on_count_once_or_not_at_all() {
    for fails in
        [|memory: &Memory| memory.fail_next(1), |memory: &Memory| memory.fail_after_apply(1)]
    {
        let harness = Harness::new();
        let last = events(&harness, 30_000, 3_000).await;
        let app = harness.start_service(counting(&harness, &[5_000, 14_000, 27_000], fails)).await;
        app.view::<Counted>("shop").wait_for(last, secs(100)).await.unwrap();
        assert_eq!(counts(&harness).await, vec![10; 3_000]);
        let digest = live(&harness).await.digest;
        app.drain().await;

        let other = Harness::new();
        events(&other, 30_000, 3_000).await;
        let app = other.start_service(counting(&other, &[], nothing)).await;
        app.view::<Counted>("shop").wait_for(last, secs(100)).await.unwrap();
        assert_eq!(live(&other).await.digest, digest, "the digest is that of what is there");
        app.drain().await;
    }
}

/// A view has seen a position once the documents up to there are stored, and not when they are on
/// their way.
#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_is_not_seen() {
    let harness = Harness::new();
    let last = events(&harness, 30_000, 3_000).await;
    // Nothing is answered from there on; what is on its way stays there.
    let app = harness.start_service(counting(&harness, &[9_000], Memory::freeze)).await;
    let view = app.view::<Counted>("shop");
    harness.settle().await;
    let seen = view.position();
    assert!(seen < Position(9_000), "{seen}");
    harness.memory.thaw();
    let stored: u64 = counts(&harness).await.iter().sum();
    assert!(stored >= seen.0, "{stored} events are in the documents, {seen} were seen");
    view.wait_for(last, secs(100)).await.unwrap();
    assert_eq!(counts(&harness).await, vec![10; 3_000]);
    app.drain().await;
}

/// An entry that cannot be read, in the middle of a page that is read ahead: all before it is
/// stored, nothing behind it.
#[tokio::test(start_paused = true)]
async fn it_stands_at_the_entry_that_cannot_be_read() {
    let harness = Harness::new();
    let good = events(&harness, 9_500, 9_500).await;
    harness.garbage("o000000", "garbage").await;
    let last = events(&harness, 9_500, 9_500).await;
    let app = harness.start_service(counting(&harness, &[], nothing)).await;
    harness.until(|| async { live(&harness).await.position == good }).await;
    harness.settle().await;
    assert_eq!(counts(&harness).await, vec![1; 9_500]);
    harness.admin().resume_projection("shop/counts", true).await.unwrap();
    app.view::<Counted>("shop").wait_for(last, secs(100)).await.unwrap();
    assert_eq!(counts(&harness).await, vec![2; 9_500]);
    app.drain().await;
}
