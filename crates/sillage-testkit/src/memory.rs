//! The reference database: plain maps behind one mutex, small enough to be seen to be right.
//!
//! Clones share the data, so a restart in a test is a new runtime on a clone. Its faults are
//! those a simulator needs: a commit that did not happen, a commit that happened and was not
//! acknowledged, a database that does not answer.
//!
//! *Guarantees.* Those of [`Database`]. Nothing survives the process.

mod state;

use sillage_core::{
    BoxFuture, Clock, Commit, CommitError, Committed, Database, Decision, Epoch, Error, ErrorKind,
    Filter, Head, Page, Position, Range, Recorded, Result, Stored, Text, Timestamp, Transaction,
    Version,
};
use state::State;
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use uuid::Uuid;

/// A [`Database`] in memory, with faults on request. Clones share the data and the faults.
#[derive(Clone)]
pub struct Memory {
    clock: Arc<dyn Clock>,
    incarnation: Uuid,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    batches: AtomicU64,
    calls: AtomicU64,
    frozen: watch::Sender<bool>,
    /// Says that the log has grown.
    grown: watch::Sender<()>,
}

impl Memory {
    /// An empty database whose time is this clock's.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            batches: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            frozen: watch::Sender::new(false),
            grown: watch::Sender::new(()),
        };
        Memory { clock, incarnation: Uuid::new_v4(), shared: Arc::new(shared) }
    }

    /// The next `commits` commits that are within the limits answer `Failed`; nothing of them is
    /// applied.
    pub fn fail_next(&self, commits: usize) {
        self.state().fail_next = commits;
    }

    /// The next `commits` commits that are accepted are applied, and answer `Failed`: to the
    /// caller their outcome is unknown.
    pub fn fail_after_apply(&self, commits: usize) {
        self.state().fail_after_apply = commits;
    }

    /// From now on no call is answered or has any effect, until [`Memory::thaw`].
    pub fn freeze(&self) {
        self.shared.frozen.send_replace(true);
    }

    /// Answers again, also what was asked in the meantime by callers that still wait.
    pub fn thaw(&self) {
        self.shared.frozen.send_replace(false);
    }

    /// How many batches of commits it was handed: what group commit saves is seen here.
    pub fn batches(&self) -> u64 {
        self.shared.batches.load(Ordering::Relaxed)
    }

    /// How many calls it was asked that are not commits.
    pub fn reads(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed).saturating_sub(self.batches())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a call once the database is not frozen. The time is read under the lock, so that
    /// it rises with the log.
    fn answer<'a, T: Send>(
        &'a self,
        call: impl FnOnce(&mut State, Timestamp) -> T + Send + 'a,
    ) -> BoxFuture<'a, T> {
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            // The sender is in `self`, so this cannot fail.
            let _ = self.shared.frozen.subscribe().wait_for(|frozen| !frozen).await;
            let mut state = self.state();
            call(&mut state, self.clock.now())
        })
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

impl Database for Memory {
    fn commit(&self, batch: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, CommitError>>> {
        self.shared.batches.fetch_add(1, Ordering::Relaxed);
        self.answer(move |state, now| {
            let before = state.head();
            let answers = batch.into_iter().map(|commit| state.commit(commit, now)).collect();
            if state.head() > before {
                self.shared.grown.send_replace(());
            }
            answers
        })
    }

    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>>> {
        let sentence = "the in-memory database has no SQL: use PostgreSQL for a handler's own \
                        transaction, or SQLite or PostgreSQL for the effect `sql`";
        Box::pin(async move { Err(Error::new(ErrorKind::Unsupported, sentence)) })
    }

    fn stream<'a>(
        &'a self,
        stream: &'a str,
        after: Version,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>>> {
        self.answer(move |state, _| state.stream(stream, after, max))
    }

    fn log<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        max: usize,
    ) -> BoxFuture<'a, Result<Page>> {
        self.answer(move |state, _| Ok(state.page(after, filter, max)))
    }

    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        let incarnation = self.incarnation;
        self.answer(move |state, _| {
            Ok(Head { last: state.head(), stable: state.head(), incarnation })
        })
    }

    fn get<'a>(
        &'a self,
        collection: &'a str,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        self.answer(move |state, _| {
            Ok(ids.iter().map(|id| state.document(collection, id).cloned()).collect())
        })
    }

    fn list<'a>(
        &'a self,
        collection: &'a str,
        range: Range<'a>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Stored>>> {
        self.answer(move |state, now| Ok(state.list(collection, range, max, now)))
    }

    fn decisions<'a>(
        &'a self,
        consumer: &'a str,
        deliveries: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Vec<Option<Decision>>>> {
        self.answer(move |state, _| {
            let decision = |(source, id): &(Text, Text)| state.decision(consumer, source, id);
            Ok(deliveries.iter().map(decision).collect())
        })
    }

    fn lease<'a>(
        &'a self,
        name: &'a str,
        owner: Uuid,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Epoch>>> {
        self.answer(move |state, now| Ok(state.lease(name, owner, ttl, now)))
    }

    fn now(&self) -> BoxFuture<'_, Result<Timestamp>> {
        self.answer(|_, now| Ok(now))
    }

    fn changed(&self, position: Position, filter: &Filter) -> BoxFuture<'_, ()> {
        // Subscribed before the head is read: growth between the two is not missed.
        let (mut grown, filter) = (self.shared.grown.subscribe(), filter.clone());
        Box::pin(async move {
            while !self.state().is_news(position, &filter) {
                // The sender is in `self`, so this cannot fail.
                let _ = grown.changed().await;
            }
        })
    }
}

#[cfg(test)]
mod tests;
