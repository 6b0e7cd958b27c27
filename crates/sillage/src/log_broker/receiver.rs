//! Reads the log for the slots that are this process's.

use super::{SLOTS, partition};
use crate::{
    names,
    runtime::{
        Mark,
        shares::{Change, Shares},
    },
};
use sillage_core::{
    BoxFuture, Database, Delivery, Error, ErrorKind, Filter, Inbound, Message, Offset, Page,
    Position, Receiver, Recorded, Result, Subscription, Text, slot_of,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use tokio_util::task::AbortOnDropHandle;

/// Entries read at once.
const PAGE: usize = 512;
/// A slot without deliveries is told its place after this many positions.
const PASSED: u64 = 512;

/// A read that goes on by itself, so that whoever waits for it may stop and wait again.
///
/// As a future that is polled only now and then it could hold its turn at the database while
/// others wait behind it: with enough of them, for ever.
type Reading<T> = AbortOnDropHandle<T>;

fn begin<T: Send + 'static>(read: impl Future<Output = T> + Send + 'static) -> Reading<T> {
    AbortOnDropHandle::new(tokio::spawn(read))
}

fn cut_off(error: tokio::task::JoinError) -> Error {
    Error::unavailable("a read was cut off").because(error)
}

pub(super) struct LogReceiver {
    database: Arc<dyn Database>,
    consumer: Text,
    broadcast: bool,
    start: Position,
    filter: Arc<Filter>,
    reading: Option<Reading<(Position, Result<Page>)>>,
    placing: Option<Reading<(u32, Result<Position>)>>,
    slots: Arc<Shares>,
    /// For each owned slot: everything up to there was handed over.
    places: BTreeMap<u32, Position>,
    /// For each owned slot: the last place that the member was told.
    told: BTreeMap<u32, Position>,
    /// Everything up to here was read for all slots that are not behind.
    scanned: Position,
    /// The last page ended here, and was not full: there is nothing to read before the log changes.
    end: Option<Position>,
    ready: VecDeque<Inbound>,
}

impl LogReceiver {
    pub(super) async fn new(
        database: Arc<dyn Database>,
        subscription: Subscription,
        slots: Arc<Shares>,
    ) -> Result<Self> {
        let start = if subscription.broadcast {
            super::place_of(&*database, &subscription).await?
        } else {
            Position::default()
        };
        let filter = Arc::new(Filter { topics: subscription.topics, ..Filter::default() });
        Ok(LogReceiver {
            database,
            consumer: subscription.consumer,
            broadcast: subscription.broadcast,
            start,
            filter,
            reading: None,
            placing: None,
            slots,
            places: BTreeMap::new(),
            told: BTreeMap::new(),
            scanned: Position(u64::MAX),
            end: None,
            ready: VecDeque::new(),
        })
    }

    async fn step(&mut self) -> Result<Inbound> {
        loop {
            if let Some(change) = self.slots.change() {
                let inbound = self.change(change).await?;
                self.slots.change_taken();
                return Ok(inbound);
            }
            if let Some(inbound) = self.ready.pop_front() {
                return Ok(inbound);
            }
            let behind = self.places.iter().filter(|(slot, _)| self.slots.is_open(**slot));
            let Some(from) = behind.map(|(_, place)| *place).min() else {
                self.slots.notify.notified().await;
                continue;
            };
            if self.end != Some(from) && self.read(from).await? {
                continue;
            }
            let at = from.max(self.scanned);
            let next = self.database.next(at, &self.filter, PAGE);
            tokio::select! {
                biased;
                () = self.slots.notify.notified() => {}
                page = next => {
                    self.end = None;
                    if let Some(page) = page.filter(|_| at == from) {
                        self.take(from, page)?;
                    }
                }
            }
        }
    }

    async fn change(&mut self, change: Change) -> Result<Inbound> {
        match change {
            Change::Assigned(slot) => {
                let place = if self.broadcast { self.start } else { self.stored(slot).await? };
                // What was read under an earlier assignment must not come behind this one.
                self.forget(slot);
                self.places.insert(slot, place);
                Ok(Inbound::Assigned(vec![partition(slot)]))
            }
            Change::Revoked(slot) => {
                self.forget(slot);
                Ok(Inbound::Revoked(vec![partition(slot)]))
            }
            Change::Lost(slot) => {
                self.forget(slot);
                Ok(Inbound::Lost(vec![partition(slot)]))
            }
        }
    }

    /// Where the slot's watermark is.
    async fn stored(&mut self, slot: u32) -> Result<Position> {
        loop {
            let placing = self.placing.get_or_insert_with(|| {
                let (database, consumer) = (self.database.clone(), self.consumer.clone());
                begin(async move { (slot, stored(&*database, &consumer, slot).await) })
            });
            let placed = placing.await;
            self.placing = None;
            match placed.map_err(cut_off)? {
                (placed, place) if placed == slot => return place,
                _ => {}
            }
        }
    }

    /// Tells the places of slots that had nothing for a while: else their watermarks would stay
    /// behind, and a restart would read the log again from there.
    fn passed(&mut self, batches: &BTreeMap<u32, Vec<Delivery>>) -> Vec<Inbound> {
        let mut passed = vec![];
        for (slot, place) in &self.places {
            let told = self.told.entry(*slot).or_insert(*place);
            if batches.contains_key(slot) {
                *told = *place;
            } else if place.0 >= told.0 + PASSED {
                *told = *place;
                passed.push(Inbound::Passed(partition(*slot), Offset(place.0)));
            }
        }
        passed
    }

    fn forget(&mut self, slot: u32) {
        self.places.remove(&slot);
        self.told.remove(&slot);
        let lost = partition(slot);
        let is_of_it = |inbound: &Inbound| match inbound {
            Inbound::Batch(of, _) | Inbound::Passed(of, _) => *of == lost,
            _ => false,
        };
        self.ready.retain(|inbound| !is_of_it(inbound));
    }

    /// Entries that a slot has not read are gone: whoever had no place yet begins with what is left.
    fn lost(&self, trimmed_before: Position) -> Result<()> {
        let lost = |place: &&Position| **place > Position(0) && **place < trimmed_before;
        let Some(place) = self.places.values().find(lost).filter(|_| !self.broadcast) else {
            return Ok(());
        };
        let consumer = &self.consumer;
        Err(Error::new(
            ErrorKind::Trimmed,
            format!(
                "consumer `{consumer}` is at position {place}, and entries up to {trimmed_before} \
                 were trimmed from the log, so that messages are gone which it never saw; stop the \
                 app and say `sillage consumers accept-loss {consumer}` to go on behind them"
            ),
        ))
    }

    /// Reads a page behind `from`; false where there was nothing new.
    async fn read(&mut self, from: Position) -> Result<bool> {
        let reading = self.reading.get_or_insert_with(|| {
            let (database, filter) = (self.database.clone(), self.filter.clone());
            begin(async move { (from, database.log(from, &filter, PAGE).await) })
        });
        let read = reading.await;
        self.reading = None;
        let (read_from, page) = read.map_err(cut_off)?;
        if read_from != from {
            return Ok(true);
        }
        self.take(from, page?)
    }

    /// Hands over a page behind `from`; false where there was nothing new.
    fn take(&mut self, from: Position, page: Page) -> Result<bool> {
        self.lost(page.trimmed_before)?;
        if page.through <= from {
            self.scanned = from;
            return Ok(false);
        }
        self.end = (page.entries.len() < PAGE).then_some(page.through);
        // Looked at once: a slot may be resumed at any moment, and this page begins behind the
        // place of one that was paused when it was asked for.
        let read_for =
            |(slot, place): &(&u32, &Position)| **place >= from && self.slots.is_open(**slot);
        let open: BTreeSet<u32> =
            self.places.iter().filter(read_for).map(|(slot, _)| *slot).collect();
        let mut batches: BTreeMap<u32, Vec<Delivery>> = BTreeMap::new();
        for entry in page.entries {
            let slot = slot_for(&entry);
            // What has no topic is for nobody but its own service.
            let place = self.places.get(&slot).filter(|_| entry.topic.is_some());
            if place.is_some_and(|place| *place < entry.position) && open.contains(&slot) {
                batches.entry(slot).or_default().push(delivery(entry));
            }
        }
        for (slot, place) in &mut self.places {
            if *place < page.through && open.contains(slot) {
                *place = page.through;
            }
        }
        let passed = self.passed(&batches);
        self.ready.extend(passed);
        let batch = |(slot, deliveries): (u32, Vec<Delivery>)| {
            Inbound::Batch(partition(slot), deliveries.into())
        };
        self.ready.extend(batches.into_iter().map(batch));
        self.scanned = page.through;
        Ok(true)
    }
}

pub(super) async fn stored(database: &dyn Database, consumer: &str, slot: u32) -> Result<Position> {
    let id = names::watermark(consumer, &partition(slot));
    let stored = database.get(names::WATERMARKS, &[&id]).await?.pop().flatten();
    let mark: Option<Mark> =
        stored.map(|stored| serde_json::from_slice(&stored.body)).transpose()?;
    Ok(mark.map_or(Position::default(), |mark| Position(mark.offset.0)))
}

/// The slot of an entry.
pub(crate) fn slot_for(entry: &Recorded) -> u32 {
    slot_of_message(&entry.body)
}

/// The slot of a message.
pub(crate) fn slot_of_message(message: &Message) -> u32 {
    let topic = message.topic.as_deref().unwrap_or_default();
    let id = message.id.as_str().as_bytes();
    slot_of(topic, message.key.as_ref().map_or(id, |key| key.as_bytes()), SLOTS)
}

fn delivery(entry: Recorded) -> Delivery {
    let offset = Offset(entry.position.0);
    Delivery { offset, message: entry.body }
}

impl Receiver for LogReceiver {
    fn next(&mut self) -> BoxFuture<'_, Result<Inbound>> {
        Box::pin(self.step())
    }
}
