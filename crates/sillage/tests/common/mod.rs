//! A running app on the reference database, and ways to wait for what it does.
#![allow(dead_code, unreachable_pub, clippy::missing_panics_doc, missing_docs)]

use serde::{Deserialize, Serialize};
use sillage::{
    Clock as _, Database, Filter, Message, MessageId,
    admin::{Admin, ConsumerStatus, DeadLetter},
    prelude::*,
};
use sillage_testkit::{Memory, TokioClock};
use std::{
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};
use tokio::sync::watch;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.created")]
pub struct Created {
    #[event(key)]
    pub order_id: String,
    pub note: String,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "invoice.sent")]
pub struct Invoiced {
    #[event(key)]
    pub order_id: String,
}

pub fn created(id: &str) -> Created {
    Created { order_id: id.into(), note: String::new() }
}

/// An order as somebody else publishes it.
pub fn foreign_order(id: &str) -> Arc<Message> {
    Arc::new(Message {
        id: MessageId::new(id),
        source: "elsewhere".into(),
        name: "order.created".into(),
        version: 1,
        topic: Some("order".into()),
        key: Some(Key::of(id)),
        time: Timestamp::default(),
        correlation_id: id.into(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload: serde_json::to_vec(&created(id)).unwrap().into(),
    })
}

pub struct Harness {
    pub memory: Memory,
    pub clock: Arc<TokioClock>,
}

impl Harness {
    pub fn new() -> Self {
        let clock = Arc::new(TokioClock::new(Timestamp::from_micros(1_700_000_000_000_000)));
        Harness { memory: Memory::new(clock.clone()), clock }
    }

    pub fn database(&self) -> Arc<dyn Database> {
        Arc::new(self.memory.clone())
    }

    pub async fn start(&self, consumer: Consumer) -> Running {
        self.start_service(Service::new("shop").consumer(consumer)).await
    }

    pub async fn start_service(&self, service: Service) -> Running {
        App::new(self.database()).clock(self.clock.clone()).service(service).start().await.unwrap()
    }

    pub fn admin(&self) -> Admin {
        Admin::new(self.database(), "test").clock(self.clock.clone())
    }

    /// Waits, in virtual time, until a condition holds.
    pub async fn until<F: Future<Output = bool>>(&self, condition: impl Fn() -> F) {
        for _ in 0..20_000 {
            if condition().await {
                return;
            }
            self.clock.sleep(Duration::from_millis(50)).await;
        }
        panic!("it did not happen within a thousand seconds");
    }

    /// Lets everything that can happen now happen.
    pub async fn settle(&self) {
        self.clock.sleep(Duration::from_secs(10)).await;
    }

    async fn log(&self) -> Vec<Recorded> {
        let page = self.memory.log(Position(0), &Filter::default(), 10_000).await.unwrap();
        let entries = page.entries.into_iter();
        entries.filter(|entry| !entry.name.starts_with("operator.")).collect()
    }

    pub async fn log_until(&self, entries: usize) -> Vec<Recorded> {
        self.until(|| async { self.log().await.len() >= entries }).await;
        self.log().await
    }

    pub async fn dead_letters_until(&self, count: usize) -> Vec<DeadLetter> {
        let admin = self.admin();
        let found = || async { admin.dead_letters(None, false).await.unwrap() };
        self.until(|| async { found().await.len() == count }).await;
        found().await
    }

    pub async fn consumer(&self, name: &str) -> ConsumerStatus {
        let consumers = self.admin().consumers().await.unwrap();
        consumers.into_iter().find(|consumer| &*consumer.name == name).unwrap()
    }

    pub async fn passed(&self, consumer: &str, deliveries: u64) {
        self.until(|| async { self.consumer(consumer).await.tally.received >= deliveries }).await;
    }

    /// received = done + parked + ignored + duplicates, and nothing is behind.
    pub async fn accounted(&self, consumer: &str, received: u64) {
        let status = self.consumer(consumer).await;
        let tally = status.tally;
        assert_eq!(tally.received, received, "{tally:?}");
        let sum = tally.done + tally.parked + tally.ignored + tally.duplicates;
        assert_eq!(tally.received, sum, "{tally:?}");
        assert_eq!(status.lag, Some(0));
    }

    pub async fn garbage(&self, key: &str, payload: &str) {
        self.garbage_named("order", "order.created", key, payload).await;
    }

    pub async fn garbage_named(&self, topic: &str, name: &str, key: &str, payload: &str) {
        let outgoing = sillage::admin::Outgoing {
            name: name.into(),
            version: 1,
            topic: topic.into(),
            key: Some(key.into()),
            payload: payload.as_bytes().to_vec(),
        };
        self.admin().publish(outgoing).await.unwrap();
    }
}

/// Notes what happened, in order, and waits for it.
#[derive(Clone)]
pub struct Probe(Arc<watch::Sender<Vec<String>>>);

impl Default for Probe {
    fn default() -> Self {
        Probe(Arc::new(watch::channel(vec![]).0))
    }
}

impl Probe {
    pub fn note(&self, what: &str) {
        self.0.send_modify(|notes| notes.push(what.to_owned()));
    }

    pub fn notes(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    pub async fn reached(&self, what: &str) {
        self.wait(|note| note == what).await;
    }

    pub async fn reached_start(&self, what: &str) {
        self.wait(|note| note.starts_with(what)).await;
    }

    async fn wait(&self, is_it: impl Fn(&str) -> bool) {
        let mut notes = self.0.subscribe();
        let limit = Duration::from_secs(1000);
        let reached = notes.wait_for(|notes| notes.iter().any(|note| is_it(note)));
        let found = tokio::time::timeout(limit, reached).await.is_ok();
        assert!(found, "not reached; notes: {:?}", self.notes());
    }
}

/// Something a test turns on and off.
#[derive(Clone)]
pub struct Switch(Arc<AtomicBool>);

impl Switch {
    pub fn on() -> Self {
        Switch(Arc::new(AtomicBool::new(true)))
    }
    pub fn off(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
    pub fn turn_on(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
