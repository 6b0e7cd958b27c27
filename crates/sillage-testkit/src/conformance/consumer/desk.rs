//! A handler that notes what it does, and fails as it is told to.

use super::world::Noted;
use serde::{Deserialize, Serialize};
use sillage::prelude::*;
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// An order: its note says what its handler does.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(name = "order.placed")]
pub(super) struct Placed {
    #[event(key)]
    pub(super) order_id: String,
    pub(super) note: String,
}

impl Placed {
    pub(super) fn new(key: &str, note: &str) -> Self {
        Placed { order_id: key.into(), note: note.into() }
    }
}

/// What comes of an order.
#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(name = "invoice.sent")]
pub(super) struct Invoiced {
    #[event(key)]
    pub(super) order_id: String,
    pub(super) note: String,
}

impl Noted for Placed {
    fn noted(self) -> (String, String) {
        (self.order_id, self.note)
    }
}

impl Noted for Invoiced {
    fn noted(self) -> (String, String) {
        (self.order_id, self.note)
    }
}

/// What the handlers of a test share, in all its apps.
#[derive(Clone)]
pub(super) struct Desk {
    /// Every call, as `key note@attempt`.
    pub(super) calls: Probe,
    /// What was done, as `key note`.
    pub(super) done: Probe,
    /// Orders `slow` wait until this is noted `open`.
    pub(super) gate: Probe,
    /// What a handler must never see.
    pub(super) wrong: Probe,
    /// While it is on, orders `bad`, `failing` and `away` fail: for good, for now, for want of the
    /// gateway.
    pub(super) broken: Switch,
    pub(super) busy: Arc<Mutex<HashSet<String>>>,
    /// How long each takes.
    pub(super) takes: Duration,
}

impl Desk {
    pub(super) fn new() -> Self {
        Desk {
            calls: Probe::default(),
            done: Probe::default(),
            gate: Probe::default(),
            wrong: Probe::default(),
            broken: Switch::on(),
            busy: Arc::default(),
            takes: Duration::ZERO,
        }
    }

    /// Each order takes so long.
    pub(super) fn taking(takes: Duration) -> Self {
        Desk { takes, ..Desk::new() }
    }

    /// The consumer `billing`, that invoices orders.
    #[allow(clippy::unused_self)] // so that a test reads well
    pub(super) fn billing(&self) -> Consumer {
        Consumer::new("billing").on(invoice)
    }

    /// What was done of a key, in order.
    pub(super) fn done_of(&self, key: &str) -> Vec<String> {
        let of_it = |done: &String| done.strip_prefix(key)?.strip_prefix(' ').map(str::to_owned);
        self.done.notes().iter().filter_map(of_it).collect()
    }

    /// Nothing happened that must not.
    pub(super) fn assert_right(&self) {
        assert!(self.wrong.notes().is_empty(), "{:?}", self.wrong.notes());
    }

    /// Somebody is at work on the key until this is dropped.
    fn begin(&self, key: &str) -> Busy {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(key.to_owned()) {
            self.wrong.note(&format!("two handlers of {key} at once"));
        }
        Busy { busy: self.busy.clone(), key: key.to_owned() }
    }
}

struct Busy {
    busy: Arc<Mutex<HashSet<String>>>,
    key: String,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Invoices an order, or fails as its note says.
pub(super) async fn invoice(
    order: Placed,
    State(desk): State<Desk>,
    meta: Meta,
) -> Result<Effects, Failure> {
    let Placed { order_id, note } = order;
    let busy = desk.begin(&order_id);
    desk.calls.note(&format!("{order_id} {note}@{}", meta.attempt));
    if desk.takes > Duration::ZERO {
        tokio::time::sleep(desk.takes).await;
    }
    let word = note.split(' ').next().unwrap_or_default();
    match word {
        "bad" if desk.broken.is_on() => return Err(Failure::permanent("it is bad")),
        "failing" if desk.broken.is_on() => return Err(Failure::transient("the supplier is gone")),
        "away" if desk.broken.is_on() => return Err(Failure::unavailable("gateway", "refused")),
        "once" if meta.attempt == 1 => return Err(Failure::transient("not the first time")),
        "thrice" if meta.attempt <= 3 => return Err(Failure::transient("not so soon")),
        "panic" => panic!("out of luck"),
        "stuck" => std::future::pending().await,
        "slow" => desk.gate.reached("open").await,
        _ => {}
    }
    desk.done.note(&format!("{order_id} {note}"));
    drop(busy);
    Ok(publish(Invoiced { order_id, note }))
}

/// Notes what happened, in order, and waits for it.
#[derive(Clone)]
pub(super) struct Probe(Arc<watch::Sender<Vec<String>>>);

impl Default for Probe {
    fn default() -> Self {
        Probe(Arc::new(watch::channel(vec![]).0))
    }
}

impl Probe {
    pub(super) fn note(&self, what: &str) {
        self.0.send_modify(|notes| notes.push(what.to_owned()));
    }

    pub(super) fn notes(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    pub(super) fn count(&self, of: impl Fn(&str) -> bool) -> usize {
        self.0.borrow().iter().filter(|note| of(note)).count()
    }

    pub(super) async fn reached(&self, what: &str) {
        self.until(&format!("`{what}` was noted"), |notes| notes.iter().any(|n| n == what)).await;
    }

    pub(super) async fn until(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let mut notes = self.0.subscribe();
        let reached = notes.wait_for(|notes| holds(notes));
        let reached = tokio::time::timeout(Duration::from_secs(60), reached).await.is_ok();
        let notes = self.notes();
        let last = &notes[notes.len().saturating_sub(100)..];
        assert!(reached, "in vain waited until {what}; {} notes: {last:?}", notes.len());
    }
}

/// Something a test turns off.
#[derive(Clone)]
pub(super) struct Switch(Arc<AtomicBool>);

impl Switch {
    pub(super) fn on() -> Self {
        Switch(Arc::new(AtomicBool::new(true)))
    }

    pub(super) fn off(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
