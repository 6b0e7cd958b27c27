//! Apps on one database and one broker, and waiting for what they do.

use super::{
    super::ConsumerFixture,
    desk::{Desk, Invoiced, Placed},
};
use sillage::{
    Database, Event, Filter,
    admin::{Admin, ConsumerStatus, DeadLetter, Outgoing},
    prelude::*,
};
use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// The consumer that most tests look at.
pub(super) const BILLING: &str = "shop/billing";
/// How long a test waits for what should come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What apps of a test run on.
pub(super) struct World<'a, F> {
    fixture: &'a F,
    pub(super) database: Arc<dyn Database>,
    pub(super) admin: Admin,
    /// An app that only commits.
    pub(super) shop: Running,
    is_relayed: bool,
}

impl<'a, F: ConsumerFixture> World<'a, F> {
    pub(super) async fn new(fixture: &'a F) -> World<'a, F> {
        let database = fixture.database().await;
        let shop = app(fixture).await.service(Service::new("shop")).start().await.unwrap();
        let is_relayed = fixture.broker().await.is_some();
        let admin = Admin::new(database.clone(), "test");
        World { fixture, database, admin, shop, is_relayed }
    }

    /// An app with the consumer `billing` of a desk.
    pub(super) async fn start(&self, desk: &Desk) -> Running {
        self.start_with(desk, desk.billing()).await
    }

    /// Lets `billing` be there once: on some brokers what is published before that is not for it.
    pub(super) async fn has_been_there(&self, desk: &Desk) {
        self.start(desk).await.drain().await;
    }

    /// An app with one consumer, whose handlers take a desk.
    pub(super) async fn start_with(&self, desk: &Desk, consumer: Consumer) -> Running {
        self.start_service(Service::new("shop").state(desk.clone()).consumer(consumer)).await
    }

    pub(super) async fn start_service(&self, service: Service) -> Running {
        app(self.fixture).await.service(service).start().await.unwrap()
    }

    /// Commits events together.
    pub(super) async fn commit<E: Event>(&self, events: impl IntoIterator<Item = E>) {
        let effects: Effects = events.into_iter().map(publish).collect();
        self.shop.service("shop").commit(effects).await.unwrap();
    }

    /// Places orders of one key, one commit each.
    pub(super) async fn place(&self, key: &str, notes: &[&str]) {
        for note in notes {
            self.commit([Placed::new(key, note)]).await;
        }
    }

    /// Places numbered orders, one of each of twenty keys a number, in one commit.
    pub(super) async fn place_many(&self, numbers: Range<u32>) {
        for number in numbers {
            let order = |key| Placed::new(&format!("k{key}"), &format!("{number:04}"));
            self.commit((0..20).map(order)).await;
        }
    }

    /// Publishes something by its name.
    pub(super) async fn send(&self, name: &str, version: u32, key: &str, payload: &str) {
        let topic = name.split('.').next().unwrap_or_default();
        let outgoing = Outgoing {
            name: name.into(),
            version,
            topic: topic.into(),
            key: Some(key.into()),
            payload: payload.as_bytes().to_vec(),
        };
        self.admin.publish(outgoing).await.unwrap();
    }

    /// Waits until something holds.
    pub(super) async fn until<T: Future<Output = bool>>(&self, what: &str, holds: impl Fn() -> T) {
        let end = Instant::now() + PATIENCE;
        while !holds().await {
            let found = self.admin.consumers().await;
            assert!(Instant::now() < end, "in vain waited until {what}: {found:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What was committed under that name, in order.
    pub(super) async fn log(&self, name: &str) -> Vec<Recorded> {
        let filter = Filter { names: vec![name.into()], ..Filter::default() };
        let (mut all, mut after) = (vec![], Position(0));
        loop {
            let page = self.database.log(after, &filter, 10_000).await.unwrap();
            all.extend(page.entries);
            if page.through <= after {
                return all;
            }
            after = page.through;
        }
    }

    pub(super) async fn log_until(&self, name: &str, count: usize) -> Vec<Recorded> {
        let what = format!("`{name}` was {count} times in the log");
        self.until(&what, || async { self.log(name).await.len() >= count }).await;
        self.log(name).await
    }

    pub(super) async fn consumer(&self, name: &str) -> Option<ConsumerStatus> {
        let found = self.admin.consumers().await.unwrap();
        found.into_iter().find(|consumer| &*consumer.name == name)
    }

    /// Waits until every order has its invoice, and a consumer has passed them all.
    pub(super) async fn invoiced(&self, consumer: &str) {
        let orders = self.log("order.placed").await.len();
        self.log_until("invoice.sent", orders).await;
        self.passed(consumer, orders as u64).await;
    }

    /// Waits until a consumer has passed so many deliveries.
    pub(super) async fn passed(&self, consumer: &str, deliveries: u64) {
        let passed = || async {
            let tally = self.consumer(consumer).await.map(|consumer| consumer.tally);
            tally.is_some_and(|tally| tally.received >= deliveries)
        };
        self.until(&format!("{consumer} had passed {deliveries}"), passed).await;
    }

    /// received = done + parked + ignored + duplicates; and it was handed just so many, unless a
    /// relay may have published some of them again.
    pub(super) async fn accounted(&self, consumer: &str, deliveries: u64) {
        let tally = self.consumer(consumer).await.unwrap().tally;
        let sum = tally.done + tally.parked + tally.ignored + tally.duplicates;
        assert_eq!(tally.received, sum, "{tally:?}");
        let more = tally.received.checked_sub(deliveries);
        let is_right =
            if self.is_relayed { more <= Some(tally.duplicates) } else { more == Some(0) };
        assert!(more.is_some() && is_right, "{deliveries} deliveries: {tally:?}");
    }

    pub(super) async fn dead_letters_until(&self, count: usize) -> Vec<DeadLetter> {
        let found = || async { self.admin.dead_letters(None, false).await.unwrap() };
        let what = format!("there were {count} dead letters");
        self.until(&what, || async { found().await.len() == count }).await;
        found().await
    }

    /// Waits until no key is parked.
    pub(super) async fn nothing_parked(&self) {
        let none = || async { self.admin.dead_letters(None, true).await.unwrap().is_empty() };
        self.until("no key was parked", none).await;
    }

    /// Each effect once, and of each key in the order in which the orders were placed.
    pub(super) async fn assert_once_and_in_order(&self) {
        let mut placed = by_key::<Placed>(&self.log("order.placed").await);
        for (key, notes) in by_key::<Invoiced>(&self.log("invoice.sent").await) {
            assert_eq!(Some(notes), placed.remove(&key), "of the key {key}");
        }
        assert!(placed.is_empty(), "without an effect: {:?}", placed.keys());
    }
}

async fn app<F: ConsumerFixture>(fixture: &F) -> App {
    let app = App::new(fixture.database().await);
    match fixture.broker().await {
        Some(broker) => app.broker(broker),
        None => app,
    }
}

/// An order or its invoice.
pub(super) trait Noted: Event {
    /// Whose, and which.
    fn noted(self) -> (String, String);
}

fn by_key<E: Noted>(entries: &[Recorded]) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for entry in entries {
        let (key, note) = serde_json::from_slice::<E>(&entry.payload).unwrap().noted();
        keys.entry(key).or_default().push(note);
    }
    keys
}
