//! Parked keys while operators act and partitions change hands.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Probe, Switch, created};
use serde::{Deserialize, Serialize};
use sillage::{
    BoxFuture, Clock as _, Commit, CommitError, Committed, Database, Decision, Epoch, Error,
    Filter, Head, Page, Range, Result, SLOTS, Stored, Text, Transaction, Version, prelude::*,
    slot_of,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use uuid::Uuid;

/// A handler that notes what it handles, fails while told to, and waits at its gate.
#[derive(Clone)]
struct Desk {
    log: Probe,
    gate: Probe,
    broken: Switch,
}

impl Desk {
    fn new() -> Self {
        Desk { log: Probe::default(), gate: Probe::default(), broken: Switch::on() }
    }

    /// `bad` fails for good while broken; `slow` waits until its gate opens, and may fail then.
    fn consumer(&self) -> Consumer {
        let desk = self.clone();
        let handler = move |order: Created, meta: Meta| {
            let desk = desk.clone();
            async move { desk.handle(&order.note, &meta).await }
        };
        Consumer::new("billing").on(handler).time_limit(hours(1))
    }

    async fn handle(&self, note: &str, meta: &Meta) -> Result<(), Failure> {
        if note.starts_with("bad") && self.broken.is_on() {
            return Err(Failure::permanent("bad"));
        }
        if note.starts_with("late") && meta.attempt == 1 {
            return Err(Failure::transient("not the first time"));
        }
        if note.starts_with("late") || note.starts_with("slow") {
            self.log.note(&format!("{note} begins"));
            self.gate.reached("open").await;
        }
        if note.starts_with("late") {
            return Err(Failure::transient("nor later"));
        }
        match note {
            "copy" => self.log.note(&format!("copy, attempt {}", meta.attempt)),
            note => self.log.note(note),
        }
        Ok(())
    }

    fn handled(&self) -> Vec<String> {
        self.log.notes().into_iter().filter(|note| !note.ends_with("begins")).collect()
    }
}

async fn place(app: &Running, notes: &[&str]) {
    for note in notes {
        let order = Created { note: (*note).into(), ..created("o") };
        app.service("shop").commit(publish(order)).await.unwrap();
    }
}

fn payload(note: &str) -> bytes::Bytes {
    serde_json::to_vec(&Created { note: note.into(), ..created("o") }).unwrap().into()
}

#[tokio::test(start_paused = true)]
async fn an_edited_copy_goes_before_what_waits_behind_it() {
    let (harness, desk) = (Harness::new(), Desk::new());
    let app = harness.start(desk.consumer()).await;
    place(&app, &["bad", "2", "3"]).await;
    let dead = harness.dead_letters_until(1).await;
    harness.passed("shop/billing", 3).await;
    let copy = payload(&format!("long {}", "x".repeat(1000)));
    harness.admin().edit(&dead[0].id, copy, false).await.unwrap();
    desk.log.reached("3").await;
    assert_eq!(desk.handled()[1..], ["2", "3"]);
    place(&app, &["4"]).await;
    desk.log.reached("4").await;
    app.drain().await;
    assert!(harness.admin().dead_letters(None, true).await.unwrap().is_empty());
}

/// The key is gone and there again before the member looks: its version begins anew.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_skipped_and_restored_at_once_can_be_redriven() {
    let (harness, desk) = (Harness::new(), Desk::new());
    let app = harness.start(desk.consumer().retry(Retry::in_lane([]).then_park([secs(1)]))).await;
    place(&app, &["late"]).await;
    desk.gate.note("open");
    let dead = harness.dead_letters_until(1).await;
    let (admin, id) = (harness.admin(), &dead[0].id);
    admin.skip(id, "a slip of the hand").await.unwrap();
    admin.restore(id).await.unwrap();
    admin.edit(id, payload("mended"), false).await.unwrap();
    desk.log.reached("mended").await;
    place(&app, &["next"]).await;
    desk.log.reached("next").await;
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_delivery_is_not_taken_for_the_one_that_runs() {
    let (harness, desk) = (Harness::new(), Desk::new());
    let app = harness.start(desk.consumer()).await;
    place(&app, &["bad", "slow"]).await;
    let dead = harness.dead_letters_until(1).await;
    harness.passed("shop/billing", 2).await;
    let (admin, id) = (harness.admin(), &dead[0].id);
    admin.skip(id, "later").await.unwrap();
    desk.log.reached("slow begins").await;
    admin.restore(id).await.unwrap();
    harness.settle().await;
    desk.gate.note("open");
    harness.settle().await;
    assert_eq!(harness.dead_letters_until(1).await[0].deliveries, 2);
    desk.broken.off();
    admin.redrive(id, false, false).await.unwrap();
    harness.dead_letters_until(0).await;
    harness
        .until(|| async { desk.handled().iter().filter(|note| *note == "slow").count() == 2 })
        .await;
    assert_eq!(desk.handled().last().unwrap(), "slow");
    app.drain().await;
    assert!(harness.admin().dead_letters(None, true).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failure_does_not_count_for_the_copy_that_replaced_it() {
    let (harness, desk) = (Harness::new(), Desk::new());
    let app = harness.start(desk.consumer().retry(Retry::in_lane([]).then_park([secs(1)]))).await;
    place(&app, &["late"]).await;
    desk.log.reached("late begins").await;
    let admin = harness.admin();
    let parked = admin.dead_letters(None, true).await.unwrap();
    admin.edit(&parked[0].id, payload("copy"), false).await.unwrap();
    harness.settle().await;
    desk.gate.note("open");
    desk.log.reached_start("copy").await;
    assert_eq!(desk.handled(), ["copy, attempt 1"]);
    harness.settle().await;
    assert!(admin.dead_letters(None, true).await.unwrap().is_empty());
    app.drain().await;
}

#[derive(Document, Serialize, Deserialize)]
#[document(collection = "calls")]
struct Calls {
    #[document(id)]
    id: String,
    calls: u32,
}

/// A process that loses a slot and gets it back while a handler runs on what it brought before:
/// by then another process has handled that, and forgotten the row in the inbox.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_assignment_brought_is_not_committed_under_a_later_one() {
    let (harness, gate, calls) = (Harness::new(), Probe::default(), Arc::new(AtomicU32::new(0)));
    let consumer = || {
        let (gate, calls) = (gate.clone(), calls.clone());
        let handler = move |order: Created| {
            let (gate, calls) = (gate.clone(), calls.clone());
            async move {
                let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
                if call == 1 {
                    gate.reached("open").await;
                }
                put_blind(Calls { id: order.order_id, calls: call })
            }
        };
        Consumer::new("billing").on(handler).time_limit(hours(1))
    };
    // The later half of the slots is what a second process gets.
    let in_later_half = |key: &String| slot_of("order", key.as_bytes(), SLOTS) >= SLOTS / 2;
    let key = (0..100).map(|n| format!("k{n}")).find(in_later_half).unwrap();

    let cut_off = Switch::on();
    cut_off.off();
    let database =
        Arc::new(WithoutLeases { database: harness.database(), cut_off: cut_off.clone() });
    let service = Service::new("shop").consumer(consumer());
    let first = App::new(database).clock(harness.clock.clone()).service(service);
    let first = first.start().await.unwrap();
    first.service("shop").commit(publish(created(&key))).await.unwrap();
    harness.until(|| async { calls.load(Ordering::SeqCst) == 1 }).await;
    cut_off.turn_on();
    let second = harness.start(consumer()).await;
    harness.passed("shop/billing", 1).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let document = || async {
        let found = harness.memory.get("shop/calls", &[&key]).await.unwrap();
        found[0].as_ref().map(|stored| stored.version)
    };
    assert_eq!(document().await, Some(Version(1)));
    cut_off.off();
    harness.clock.sleep(mins(2)).await;
    gate.note("open");
    harness.settle().await;
    assert_eq!(document().await, Some(Version(1)), "the effect is doubled");
    first.drain().await;
    second.drain().await;
}

/// A database that cannot be asked for leases while it is cut off.
struct WithoutLeases {
    database: Arc<dyn Database>,
    cut_off: Switch,
}

impl Database for WithoutLeases {
    fn commit(&self, batch: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, CommitError>>> {
        self.database.commit(batch)
    }
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>>> {
        self.database.begin()
    }
    fn stream<'a>(
        &'a self,
        stream: &'a str,
        after: Version,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>>> {
        self.database.stream(stream, after, max)
    }
    fn log<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        max: usize,
    ) -> BoxFuture<'a, Result<Page>> {
        self.database.log(after, filter, max)
    }
    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        self.database.head()
    }
    fn get<'a>(
        &'a self,
        collection: &'a str,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        self.database.get(collection, ids)
    }
    fn list<'a>(
        &'a self,
        collection: &'a str,
        range: Range<'a>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Stored>>> {
        self.database.list(collection, range, max)
    }
    fn decisions<'a>(
        &'a self,
        consumer: &'a str,
        deliveries: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Vec<Option<Decision>>>> {
        self.database.decisions(consumer, deliveries)
    }
    fn lease<'a>(
        &'a self,
        name: &'a str,
        owner: Uuid,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Epoch>>> {
        if self.cut_off.is_on() {
            return Box::pin(async { Err(Error::unavailable("cut off")) });
        }
        self.database.lease(name, owner, ttl)
    }
    fn now(&self) -> BoxFuture<'_, Result<Timestamp>> {
        self.database.now()
    }
    fn changed(&self, position: Position, filter: &Filter) -> BoxFuture<'_, ()> {
        self.database.changed(position, filter)
    }
}
