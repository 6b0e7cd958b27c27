//! Projections rebuilt beside the one that is read, on the reference database with virtual time.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Invoiced, Switch, created};
use serde::{Deserialize, Serialize};
use sillage::{
    Clock as _, Database as _, Range, ReadError,
    admin::{Admin, ProjectionStatus},
    prelude::*,
};
use sillage_testkit::TokioClock;
use std::{collections::HashMap, sync::Arc};

#[derive(Document, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[document(collection = "counts")]
struct Counted {
    #[document(id)]
    id: String,
    count: u32,
    /// In no order: what a document says counts, and not how it is written.
    notes: HashMap<String, u32>,
    #[serde(default)]
    doubled: u32,
}

/// Version 1 counts; later versions double as well.
fn counts(version: u32) -> Projection<Counted> {
    counting(version, Switch::on())
}

fn counting(version: u32, right: Switch) -> Projection<Counted> {
    Projection::<Counted>::new("counts", version)
        .on::<Created>(move |view, order| {
            view.id.clone_from(&order.order_id);
            view.count += u32::from(right.is_on());
            *view.notes.entry(order.note.clone()).or_default() += 1;
            if version > 1 {
                view.doubled += 2;
            }
        })
        .delete_on::<Invoiced>()
}

fn service(version: u32) -> Service {
    Service::new("shop").projection(counts(version)).follow(["order"])
}

const NAME: &str = "shop/counts";

async fn status(admin: &Admin) -> ProjectionStatus {
    admin.projection(NAME).await.unwrap()
}

async fn documents(harness: &Harness, collection: &str) -> Vec<(String, u32)> {
    let range = Range::Ids { prefix: "", after: "" };
    let found = harness.memory.list(collection, range, 10_000).await.unwrap();
    let count = |stored: sillage::Stored| {
        let count: Counted = serde_json::from_slice(&stored.body).unwrap();
        (stored.id.to_string(), count.count)
    };
    found.into_iter().map(count).collect()
}

async fn caught_up(harness: &Harness) {
    let admin = harness.admin();
    harness
        .until(|| async {
            let shadow = status(&admin).await.shadow;
            shadow.is_some_and(|shadow| shadow.lag <= 2)
        })
        .await;
}

/// Writes orders as fast as it can, and reads each back, until told to stop. Of every ten orders
/// of a key the last is taken back.
async fn load(app: Running, clock: Arc<TokioClock>, key: usize, on: Switch) -> u32 {
    let (shop, view) = (app.service("shop"), app.view::<Counted>("shop"));
    let (id, mut written, mut there) = (format!("k{key}"), 0, 0);
    while on.is_on() {
        let mut order = created(&id);
        order.note = format!("n{}", written % 5);
        let done = shop.commit(publish(order)).await.unwrap();
        (written, there) = (written + 1, there + 1);
        let seen = view.get(&id).at_least(done.position).within(secs(100)).await.unwrap();
        assert_eq!(seen.unwrap().count, there, "a read sees what was written before it");
        if written % 10 == 0 {
            let done = shop.commit(publish(Invoiced { order_id: id.clone() })).await.unwrap();
            let seen = view.get(&id).at_least(done.position).within(secs(100)).await.unwrap();
            assert_eq!(seen, None);
            there = 0;
        }
        clock.sleep(ms(7)).await;
    }
    written
}

/// What was there all the time is there, whatever is switched and discarded.
async fn look(app: Running, clock: Arc<TokioClock>, on: Switch) {
    let view = app.view::<Counted>("shop");
    while on.is_on() {
        assert_eq!(view.get("always").await.unwrap().map(|always| always.count), Some(1));
        assert!(view.page("", 100).await.unwrap().iter().any(|seen| seen.id == "always"));
        clock.sleep(ms(5)).await;
    }
}

/// Rebuilt, compared, switched, gone back from and discarded under load: no read fails, none is
/// stale, the documents are the same.
#[tokio::test(start_paused = true)]
async fn a_rebuild_under_load_is_switched_without_a_failed_read() {
    let harness = Harness::new();
    let apps = [harness.start_service(service(1)).await, harness.start_service(service(1)).await];
    let (on, admin) = (Switch::on(), harness.admin());
    let first = apps[0].service("shop").commit(publish(created("always"))).await.unwrap();
    for app in &apps {
        app.service("shop").wait_for(first.position, secs(10)).await.unwrap();
    }
    let load =
        |n: usize| tokio::spawn(load(apps[n % 2].clone(), harness.clock.clone(), n, on.clone()));
    let look = |app: &Running| tokio::spawn(look(app.clone(), harness.clock.clone(), on.clone()));
    let lookers: Vec<_> = apps.iter().map(look).collect();
    let writers: Vec<_> = (0..8).map(load).collect();
    harness.clock.sleep(secs(5)).await;
    for _ in 0..2 {
        admin.rebuild(NAME, false, false).await.unwrap();
        caught_up(&harness).await;
        let compared = admin.compare(NAME, secs(60)).await.unwrap();
        assert!(compared.equal, "{compared:?}");
        assert!(compared.digests.unwrap()[0].documents > 0);
        admin.switch(NAME, false).await.unwrap();
        harness.clock.sleep(secs(2)).await;
        admin.roll_back(NAME, false).await.unwrap();
        harness.clock.sleep(secs(2)).await;
        admin.switch(NAME, false).await.unwrap();
        admin.discard(NAME).await.unwrap();
        harness.clock.sleep(secs(2)).await;
    }
    on.off();
    for looker in lookers {
        looker.await.unwrap();
    }
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap();
    }
    assert!(written > 500, "{written}");
    let at = status(&admin).await;
    assert_eq!((&*at.live.name, at.shadow.is_some()), ("shop/counts@1.3", false));
    assert_eq!(documents(&harness, "shop/counts").await, [], "what is discarded is gone");
    for app in apps {
        app.drain().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_that_differs_is_not_switched_to_unless_forced() {
    let (harness, right) = (Harness::new(), Switch::on());
    right.off();
    let service = Service::new("shop").projection(counting(1, right.clone()));
    let app = harness.start_service(service).await;
    let (shop, admin) = (app.service("shop"), harness.admin());
    let mut last = Position(0);
    for n in 0..10 {
        last = shop.commit(publish(created(&format!("o{n}")))).await.unwrap().position;
    }
    shop.wait_for(last, secs(10)).await.unwrap();
    // The code was wrong and is mended: the rebuild is right, and so it differs.
    right.turn_on();
    admin.rebuild(NAME, true, false).await.unwrap();
    harness.until(|| async { status(&admin).await.held.is_some() }).await;
    let why = status(&admin).await.held.unwrap();
    assert!(why.contains("they differ at position"), "{why}");
    let refused = admin.switch(NAME, false).await.unwrap_err().to_string();
    assert!(refused.contains("differ") && refused.contains("--force"), "{refused}");
    assert!(!admin.compare(NAME, secs(1)).await.unwrap().equal);
    let again = admin.rebuild(NAME, true, false).await.unwrap_err().to_string();
    assert!(again.contains("discard"), "{again}");
    let view = app.view::<Counted>("shop");
    assert_eq!(view.get("o1").await.unwrap().unwrap().count, 0);
    admin.switch(NAME, true).await.unwrap();
    harness.settle().await;
    assert_eq!(view.get("o1").await.unwrap().unwrap().count, 1);
    admin.discard(NAME).await.unwrap();
    let nothing = admin.switch(NAME, false).await.unwrap_err().to_string();
    assert!(nothing.contains("no generation beside"), "{nothing}");
    app.drain().await;
}

/// Old and new processes run side by side; each reads what it can, and the new version is read
/// once it has caught up.
#[tokio::test(start_paused = true)]
async fn a_higher_version_is_rebuilt_beside_and_read_once_it_has_caught_up() {
    let harness = Harness::new();
    let old = harness.start_service(service(1)).await;
    let mut last = Position(0);
    for n in 0..50 {
        let order = publish(created(&format!("o{}", n % 5)));
        last = old.service("shop").commit(order).await.unwrap().position;
    }
    old.service("shop").wait_for(last, secs(10)).await.unwrap();
    let new = harness.start_service(service(2)).await;
    let views = [old.view::<Counted>("shop"), new.view::<Counted>("shop")];
    assert_eq!(views[1].get("o1").await.unwrap().unwrap().count, 10, "from the older version");
    let admin = harness.admin();
    harness.until(|| async { status(&admin).await.live.version == 2 }).await;
    harness.settle().await;
    let done = new.service("shop").commit(publish(created("o1"))).await.unwrap();
    for (view, doubled) in views.iter().zip([0, 22]) {
        let read = view.get("o1").at_least(done.position).within(secs(10)).await.unwrap().unwrap();
        assert_eq!((read.count, read.doubled), (11, doubled));
    }
    // Gone back, the newer version is not begun again by itself.
    admin.roll_back(NAME, false).await.unwrap();
    harness.settle().await;
    assert_eq!(status(&admin).await.live.version, 1);
    admin.switch(NAME, false).await.unwrap();
    old.drain().await;
    let done = new.service("shop").commit(publish(created("o1"))).await.unwrap();
    harness.settle().await;
    // Nobody folds version 1 any more.
    let refused = tokio::time::timeout(secs(1000), admin.roll_back(NAME, false)).await;
    let refused = refused.unwrap().unwrap_err().to_string();
    assert!(refused.contains("code of its version"), "{refused}");
    let read = views[1].get("o1").at_least(done.position).within(secs(10)).await.unwrap();
    assert_eq!(read.unwrap().count, 12);
    new.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_projection_stands_still_until_it_is_resumed() {
    let harness = Harness::new();
    let app = harness.start_service(service(1)).await;
    let (shop, view, admin) = (app.service("shop"), app.view::<Counted>("shop"), harness.admin());
    let done = shop.commit(publish(created("a"))).await.unwrap();
    view.wait_for(done.position, secs(10)).await.unwrap();
    admin.pause_projection(NAME, "the disk is moved").await.unwrap();
    let done = shop.commit(publish(created("a"))).await.unwrap();
    let stale = view.get("a").at_least(done.position).within(secs(20)).await;
    assert!(matches!(stale, Err(ReadError::Stale { .. })), "{stale:?}");
    let health = app.health();
    assert!(health.problems.iter().any(|p| p.contains("the disk is moved")), "{health:?}");
    admin.resume_projection(NAME, false).await.unwrap();
    let read = view.get("a").at_least(done.position).within(secs(20)).await.unwrap();
    assert_eq!(read.unwrap().count, 2);
    harness.settle().await;
    assert!(app.health().ready);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_read_is_passed_over_when_an_operator_says_so() {
    let harness = Harness::new();
    let apps = [harness.start_service(service(1)).await, harness.start_service(service(1)).await];
    let (shop, admin) = (apps[0].service("shop"), harness.admin());
    shop.commit(publish(created("a"))).await.unwrap();
    harness.garbage("a", "garbage").await;
    let after = shop.commit(publish(created("a"))).await.unwrap();
    harness.until(|| async { status(&admin).await.paused.is_some() }).await;
    harness.settle().await;
    let before = harness.memory.batches();
    harness.settle().await;
    let idle = harness.memory.batches() - before;
    assert!(idle <= 4, "who cannot read it does not try again and again: {idle} batches");
    // Trying again changes nothing: it stands at the same entry.
    admin.resume_projection(NAME, false).await.unwrap();
    harness.settle().await;
    let why = status(&admin).await.paused.unwrap();
    assert!(why.contains("position 2:") && why.contains("order.created"), "{why}");
    admin.resume_projection(NAME, true).await.unwrap();
    let view = apps[0].view::<Counted>("shop");
    let read = view.get("a").at_least(after.position).within(secs(10)).await.unwrap().unwrap();
    assert_eq!(read.count, 2);
    assert_eq!(status(&admin).await.live.skipped, 1);
    for app in apps {
        app.drain().await;
    }
}

/// A reader that is far behind writes a document that many entries change a few times, not once
/// for each page.
#[tokio::test(start_paused = true)]
async fn a_rebuild_writes_a_document_once_for_many_entries() {
    let harness = Harness::new();
    let app = harness.start_service(Service::new("shop")).await;
    for _ in 0..20 {
        let orders = (0..1000).map(|n| publish(created(&format!("o{}", n % 50))));
        let all = orders.reduce(Effects::and).unwrap();
        app.service("shop").commit(all).await.unwrap();
    }
    app.drain().await;
    let app = harness.start_service(service(1)).await;
    let before = harness.memory.batches();
    let head = harness.memory.head().await.unwrap().last;
    app.view::<Counted>("shop").wait_for(head, secs(100)).await.unwrap();
    let batches = harness.memory.batches() - before;
    let stored = harness.memory.get("shop/counts", &["o1"]).await.unwrap().pop().flatten();
    let stored = stored.unwrap();
    let read: Counted = serde_json::from_slice(&stored.body).unwrap();
    assert_eq!(read.count, 400);
    assert!(stored.version.0 <= 3, "written {} times", stored.version);
    assert!(batches <= 12, "{batches} batches");
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_shows_how_far_it_is_and_when_it_will_be_there() {
    let harness = Harness::new();
    let app = harness.start_service(service(1)).await;
    let admin = Arc::new(harness.admin());
    for n in 0..100 {
        let order = publish(created(&format!("o{n}")));
        app.service("shop").commit(order).await.unwrap();
    }
    app.drain().await;
    let unknown = admin.rebuild("shop/nothing", false, false).await.unwrap_err().to_string();
    assert!(unknown.contains("there are: shop/counts"), "{unknown}");
    admin.rebuild(NAME, false, false).await.unwrap();
    let shadow = status(&admin).await.shadow.unwrap();
    assert_eq!((&*shadow.name, shadow.position), ("shop/counts@1.2", Position(0)));
    assert_eq!(shadow.eta_seconds, None, "nobody runs it");
    let behind = tokio::time::timeout(secs(100), admin.switch(NAME, false)).await.unwrap();
    assert!(behind.unwrap_err().to_string().contains("the other one at 0"));
    let app = harness.start_service(service(1)).await;
    caught_up(&harness).await;
    assert_eq!(status(&admin).await.shadow.unwrap().digest.documents, 100);
    app.drain().await;
}
