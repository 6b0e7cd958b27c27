//! What waits to be handed over by `next`.

use super::{Waker, decode::Records};
use crate::{error, watch::lock};
use rdkafka::types::RDKafkaErrorCode as Code;
use sillage_core::{Error, ErrorKind, Inbound, Partition, Result};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// So many deliveries wait at most, and a batch: beyond it partitions are held.
pub(super) const HIGH: usize = 8_192;
/// And below it they go on.
pub(super) const LOW: usize = 2_048;
/// So many bytes wait at most, and a batch.
pub(super) const HIGH_BYTES: usize = 32 << 20;
/// So many emptied batches are kept for what comes next, on either side.
const SPARE: usize = 32;
/// How often a partition that is stopped says so.
const AGAIN: Duration = Duration::from_secs(5);

pub(crate) struct Outbox {
    state: Mutex<State>,
    ready: Notify,
    waker: Arc<Waker>,
}

/// What waits.
pub(super) enum Item {
    Inbound(Inbound),
    /// Of which whoever takes them makes a batch.
    Records(Partition, Records),
}

#[derive(Default)]
struct State {
    /// Emptied, with the memory they had.
    spare: Vec<Records>,
    items: VecDeque<Result<Item>>,
    deliveries: usize,
    bytes: usize,
    /// The poller waits for room.
    is_full: bool,
    /// Partitions of which nothing more comes until somebody decides, and why.
    stopped: BTreeMap<Partition, (ErrorKind, String)>,
    /// How often a stop was told.
    told: usize,
    tell_at: Option<Instant>,
    closed: bool,
    /// Why offsets were not committed the last time.
    trouble: Option<Code>,
}

impl Outbox {
    pub(super) fn new(waker: Arc<Waker>) -> Outbox {
        Outbox { state: Mutex::default(), ready: Notify::new(), waker }
    }

    /// What comes next. Cancel-safe: what is taken is returned at once.
    pub(super) async fn next(&self) -> Result<Item> {
        loop {
            let tell_at = {
                let mut state = lock(&self.state);
                if let Some(stop) = state.stop() {
                    return Err(stop);
                }
                if let Some(item) = state.pop() {
                    if state.is_full && state.deliveries <= LOW && state.bytes <= HIGH_BYTES / 8 {
                        state.is_full = false;
                        self.waker.wake();
                    }
                    return item;
                }
                if state.closed {
                    return Err(Error::unavailable("the consumer is closed"));
                }
                state.tell_at
            };
            match tell_at {
                // Either it is time to tell again, or there is something.
                Some(at) => drop(timeout_at(at, self.ready.notified()).await),
                None => self.ready.notified().await,
            }
        }
    }

    /// These were read: what comes next may have their memory.
    pub(super) fn give_back(&self, records: Records) {
        if let Some(records) = records.emptied() {
            let spare = &mut lock(&self.state).spare;
            if spare.len() < SPARE {
                spare.push(records);
            }
        }
    }

    /// Takes what was given back.
    pub(super) fn spare(&self, into: &mut Vec<Records>) {
        into.append(&mut lock(&self.state).spare);
        into.truncate(SPARE);
    }

    /// Hands over.
    pub(super) fn push(&self, items: impl IntoIterator<Item = Item>) {
        let mut state = lock(&self.state);
        for item in items {
            if let Item::Records(_, records) = &item {
                state.deliveries += records.len();
                state.bytes += records.size();
            }
            state.items.push_back(Ok(item));
        }
        state.is_full |= state.deliveries >= HIGH || state.bytes >= HIGH_BYTES;
        drop(state);
        self.ready.notify_one();
    }

    /// Whether partitions have to be paused.
    pub(super) fn is_full(&self) -> bool {
        lock(&self.state).is_full
    }

    /// An error to be told; one at a time, as they repeat themselves.
    pub(super) fn fail(&self, error: Error) {
        let mut state = lock(&self.state);
        if state.items.iter().any(Result::is_err) {
            tracing::debug!(target: "sillage_kafka", %error, "another error waits to be told");
            return;
        }
        state.items.push_back(Err(error));
        drop(state);
        self.ready.notify_one();
    }

    /// Forgets what waits of these: nothing of it comes out any more.
    pub(super) fn forget(&self, partitions: &[Partition]) {
        let mut state = lock(&self.state);
        for partition in partitions {
            state.stopped.remove(partition);
        }
        let (mut deliveries, mut size) = (0, 0);
        state.items.retain(|item| match item {
            Ok(Item::Records(partition, records)) if partitions.contains(partition) => {
                deliveries += records.len();
                size += records.size();
                false
            }
            _ => true,
        });
        state.deliveries -= deliveries;
        state.bytes -= size;
        state.is_full &= state.deliveries > LOW;
    }

    /// Tells now, and again and again, why nothing of this partition comes.
    pub(super) fn stop(&self, partition: Partition, kind: ErrorKind, why: String) {
        let mut state = lock(&self.state);
        if state.stopped.insert(partition, (kind, why)).is_none() {
            state.tell_at = Some(Instant::now());
        }
        drop(state);
        self.ready.notify_one();
    }

    /// How committing went.
    pub(super) fn settled(&self, trouble: Option<Code>) {
        lock(&self.state).trouble = trouble;
    }

    /// Why what was settled is not committed.
    pub(crate) fn trouble(&self) -> Option<Error> {
        let code = lock(&self.state).trouble?;
        let sentence = format!(
            "offsets cannot be committed: {code}; what is settled since then would be delivered \
             again"
        );
        Some(Error::new(error::kind(code), sentence))
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.ready.notify_one();
    }
}

impl State {
    /// A stop that has to be told now.
    fn stop(&mut self) -> Option<Error> {
        if self.stopped.is_empty() {
            self.tell_at = None;
            return None;
        }
        let now = Instant::now();
        if self.tell_at.is_some_and(|at| at > now) {
            return None;
        }
        let (kind, why) = self.stopped.values().nth(self.told % self.stopped.len())?.clone();
        self.told += 1;
        self.tell_at = Some(now + AGAIN);
        Some(Error::new(kind, why))
    }

    fn pop(&mut self) -> Option<Result<Item>> {
        let item = self.items.pop_front()?;
        if let Ok(Item::Records(_, records)) = &item {
            self.deliveries -= records.len();
            self.bytes -= records.size();
        }
        Some(item)
    }
}
