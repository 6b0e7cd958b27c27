//! Pruning: what is of use for a while only goes when that is over. Instances of sagas that have
//! ended, recorded events whose instance was never there, and tombstones of undone operations.
//!
//! *Guarantees.* One process prunes a service at a time, by lease, on the database's time, at most
//! [`PAGE`] documents a commit batch and a pause between two. What was changed meanwhile stays. A
//! tombstone stays as long as a command that it is there for may come: for the redelivery horizon
//! of the brokers at least, and while something that failed so long ago is still parked.

use super::committer::Committer;
use crate::{consumer::HORIZON, names, process::Instance, saga::Status};
use futures_util::future::join_all;
use serde::Deserialize;
use sillage_core::{
    Clock, Commit, Condition, Database, Epoch, Range, Result, Stored, Text, Timestamp, Write,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long what has ended is kept, unless said.
pub(crate) const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// The first time after the start, and then.
const FIRST: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(3600);
/// Documents looked at in one read, and the pause behind it.
const PAGE: usize = 256;
const PAUSE: Duration = Duration::from_millis(100);
/// A process that stopped in the middle holds others off so long.
const LEASE: Duration = Duration::from_secs(60);

pub(crate) struct Pruner {
    pub(crate) database: Arc<dyn Database>,
    pub(crate) committer: Committer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: CancellationToken,
    pub(crate) services: Vec<Text>,
    /// How long what has ended is kept.
    pub(crate) kept: Duration,
}

/// One round through what a service keeps.
struct Round<'a> {
    pruner: &'a Pruner,
    service: &'a str,
    lease: Text,
    owner: Uuid,
    /// What is older goes.
    until: Timestamp,
}

#[derive(Deserialize)]
struct Parked {
    first_failed_at: Timestamp,
    head: u64,
    tail: u64,
}

impl Pruner {
    pub(crate) async fn run(self) {
        let mut wait = FIRST;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.clock.sleep(wait) => {}
            }
            for service in &self.services {
                if let Err(error) = self.prune(service).await {
                    tracing::warn!(%service, %error, "pruning goes on later");
                }
            }
            wait = EVERY;
        }
    }

    async fn prune(&self, service: &Text) -> Result<()> {
        let until = self.database.now().await? - self.kept;
        let lease = format!("pruning/{service}").into();
        let round = Round { pruner: self, service, lease, owner: Uuid::now_v7(), until };
        let done = round.all().await;
        let free = self.database.lease(&round.lease, round.owner, Duration::ZERO).await;
        done.and(free.map(drop))
    }
}

impl Round<'_> {
    async fn all(&self) -> Result<()> {
        for status in [Status::Completed, Status::Compensated] {
            self.ended(status.word()).await?;
        }
        let service = format!("{}/", self.service);
        self.old(names::ORPHANS, "", &service).await?;
        if !self.is_awaited().await? {
            self.old(names::TOMBSTONES, "", &service).await?;
        }
        Ok(())
    }

    /// Instances that have ended, a version of a saga after the other: there they are in the order
    /// in which they began.
    async fn ended(&self, status: &str) -> Result<()> {
        let database = &*self.pruner.database;
        let (mut from, until) =
            (format!("{status}/{}/", self.service), format!("{status}/{}/~", self.service));
        loop {
            let range = Range::Sort { from: &from, until: &until };
            let Some(first) = database.list(names::SAGAS, range, 1).await?.pop() else {
                return Ok(());
            };
            let Instance { process, version, .. } = Instance::read(&first)?;
            let group = format!("{status}/{process}/{version:06}/");
            self.old(names::SAGAS, &group, "").await?;
            from = format!("{group}~");
        }
    }

    /// Documents whose sort keys are this and then a time, and whose ids begin so, where they are
    /// old enough.
    async fn old(&self, collection: &str, sort: &str, id: &str) -> Result<()> {
        let (mut from, until) = (sort.to_owned(), format!("{sort}{}", self.until));
        loop {
            let ttl = self.pruner.database.lease(&self.lease, self.owner, LEASE);
            let Some(epoch) = ttl.await? else { return Ok(()) };
            let range = Range::Sort { from: &from, until: &until };
            let page = self.pruner.database.list(collection, range, PAGE).await?;
            let goes =
                |stored: &&Stored| stored.id.starts_with(id) && self.is_over(collection, stored);
            let old: Vec<_> = page.iter().filter(goes).collect();
            let gone = self.remove(collection, &old, epoch).await;
            if page.len() < PAGE || self.pruner.stop.is_cancelled() {
                return Ok(());
            }
            let last = page.last().and_then(|last| last.sort.as_deref());
            if let Some(last) = last.filter(|_| gone < page.len()) {
                // Behind it: those that stay must not be read for ever.
                from = format!("{last} ");
            }
            self.pruner.clock.sleep(PAUSE).await;
        }
    }

    /// Whether it ended so long ago, which is later than it began.
    fn is_over(&self, collection: &str, stored: &Stored) -> bool {
        collection != names::SAGAS
            || Instance::read(stored).is_ok_and(|instance| instance.updated < self.until)
    }

    /// How many are gone.
    async fn remove(&self, collection: &str, old: &[&Stored], epoch: Epoch) -> usize {
        let removals = old.iter().map(|stored| {
            let (collection, id) = (Text::from(collection), stored.id.clone());
            let unchanged = Condition::Document {
                collection: collection.clone(),
                id: id.clone(),
                expected: Some(stored.version),
            };
            let lease = Condition::Lease { name: self.lease.clone(), epoch };
            self.pruner.committer.begin(Commit {
                conditions: vec![lease, unchanged],
                writes: vec![Write::Delete { collection, id }],
            })
        });
        let gone = join_all(removals).await.iter().filter(|answer| answer.is_ok()).count();
        if gone > 0 {
            tracing::info!(service = self.service, collection, gone, "pruned what was over");
        }
        gone
    }

    /// Whether a command may wait here whose undo was handled before what goes now. Its key was parked
    /// by then, or at the latest when a broker brought the command again; what waits behind a head
    /// may be older than the head's first failure.
    async fn is_awaited(&self) -> Result<bool> {
        let latest = self.until + HORIZON;
        for of in [self.service, "broker"] {
            let prefix = format!("{of}/");
            let mut after = Text::from("");
            loop {
                let range = Range::Ids { prefix: &prefix, after: &after };
                let page = self.pruner.database.list(names::PARKED_KEYS, range, PAGE).await?;
                for stored in &page {
                    let parked: Parked = serde_json::from_slice(&stored.body)?;
                    let waits = parked.tail - parked.head > 1;
                    if waits || parked.first_failed_at < latest {
                        return Ok(true);
                    }
                }
                let Some(last) = page.last() else { break };
                after = last.id.clone();
            }
        }
        Ok(false)
    }
}
