//! A subscription to a broker outside the database, whose partitions are owned by lease in it.
//!
//! The broker knows which member receives a partition; only the database can say whose commits
//! count. So a partition reaches the member when both agree: the broker has assigned it and its
//! lease is taken. Where the broker does not assign partitions, the leases do, in fair shares, and
//! the broker is told what to open.
//!
//! *Guarantees.* Every commit for a partition is conditional on its lease's epoch: a process that
//! lost a partition without knowing it commits nothing. A partition that comes back to the member
//! is delivered again from its last settled place.

use super::{
    Mark,
    shares::{Change, Policy, Shares},
};
use crate::names;
use sillage_core::{
    BoxFuture, Broker, Capabilities, Clock, Database, Epoch, Inbound, Offset, Partition,
    PartitionStatus, Reached, Receiver, Result, Settled, Settler, Subscribed, Subscription, Text,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long to wait before a partition is opened or given back again.
const AGAIN: Duration = Duration::from_secs(1);

/// Joins a consumer of `broker`, with its partitions leased in `database`.
pub(crate) async fn subscribe(
    broker: &dyn Broker,
    database: Arc<dyn Database>,
    clock: Arc<dyn Clock>,
    mut subscription: Subscription,
) -> Result<Subscribed> {
    let Capabilities { assigns, cluster, .. } = broker.capabilities();
    if let Some(cluster) = cluster {
        subscription.reached = reached(&*database, &subscription.consumer, &cluster).await?;
    }
    let consumer = subscription.consumer.clone();
    let partitions =
        if assigns { vec![] } else { partitions(broker, &subscription.topics).await? };
    let (receiver, settler) = broker.subscribe(subscription).await?;
    let policy = if assigns { Policy::Wanted } else { Policy::Fair };
    let shares = Shares::new(database, clock.clone(), consumer, policy, partitions);
    let shares = Arc::new(shares.expiring(!assigns));
    shares.keep();
    let settler = Arc::new(Leased { settler, shares, clock, assigns });
    let stopped = CancellationToken::new();
    let receiver = LeasedReceiver {
        receiver,
        leased: settler.clone(),
        waiting: HashMap::new(),
        here: HashSet::new(),
        ready: VecDeque::new(),
        calls: HashMap::new(),
        stopped: stopped.clone(),
        _stop: stopped.drop_guard(),
    };
    Ok((Box::new(receiver), settler))
}

/// How far a consumer is in the partitions of this cluster.
async fn reached(database: &dyn Database, consumer: &str, cluster: &str) -> Result<Vec<Reached>> {
    let prefix = names::watermarks(consumer);
    let mut reached = vec![];
    for stored in names::all(database, names::WATERMARKS, &prefix).await? {
        let mark: Mark = serde_json::from_slice(&stored.body)?;
        // 0 is for nothing, too.
        if mark.cluster.as_deref() == Some(cluster)
            && mark.offset > Offset(0)
            && let Some((topic, number)) = stored.id[prefix.len()..].rsplit_once('/')
            && let (Ok(number), Some(at)) = (number.parse(), mark.at)
        {
            let partition = Partition { topic: topic.into(), number };
            reached.push(Reached { partition, offset: mark.offset, at });
        }
    }
    Ok(reached)
}

/// All partitions of these topics.
pub(crate) async fn partitions(broker: &dyn Broker, topics: &[Text]) -> Result<Vec<Partition>> {
    let topics = broker.topics(topics).await?.into_iter();
    let of = |topic: sillage_core::TopicStatus| {
        let name = topic.name;
        let partition =
            move |p: PartitionStatus| Partition { topic: name.clone(), number: p.number };
        topic.partitions.into_iter().map(partition)
    };
    Ok(topics.flat_map(of).collect())
}

/// The settling side.
struct Leased {
    settler: Arc<dyn Settler>,
    shares: Arc<Shares>,
    clock: Arc<dyn Clock>,
    /// The broker shares partitions out, not the leases.
    assigns: bool,
}

struct LeasedReceiver {
    receiver: Box<dyn Receiver>,
    leased: Arc<Leased>,
    /// Assigned by the broker, not yet by lease: what came of them meanwhile.
    waiting: HashMap<Partition, Vec<Inbound>>,
    /// The member has them.
    here: HashSet<Partition>,
    ready: VecDeque<Inbound>,
    /// What the broker or the database is asked for, the last of each.
    calls: HashMap<Partition, JoinHandle<()>>,
    stopped: CancellationToken,
    _stop: DropGuard,
}

impl LeasedReceiver {
    async fn step(&mut self) -> Result<Inbound> {
        loop {
            if let Some(change) = self.leased.shares.change() {
                self.leased.shares.change_taken();
                self.changed(change);
            }
            if let Some(inbound) = self.ready.pop_front() {
                return Ok(inbound);
            }
            tokio::select! {
                biased;
                () = self.leased.shares.notify.notified() => {}
                inbound = self.receiver.next() => self.received(inbound?),
            }
        }
    }

    /// A lease was taken, is wanted by another member, or is lost.
    fn changed(&mut self, change: Change) {
        let (Change::Assigned(index) | Change::Revoked(index) | Change::Lost(index)) = change;
        let Some(partition) = self.leased.shares.partition(index) else { return };
        match change {
            Change::Assigned(_) => self.leased_now(partition),
            Change::Revoked(_) if self.here.contains(&partition) => {
                self.ready.push_back(Inbound::Revoked(vec![partition]));
            }
            Change::Revoked(_) => self.give_back(partition),
            Change::Lost(_) => {
                self.lost(&partition);
                if !self.leased.assigns {
                    self.close(partition);
                }
            }
        }
    }

    fn leased_now(&mut self, partition: Partition) {
        if !self.leased.assigns {
            return self.open(partition);
        }
        match self.waiting.remove(&partition) {
            Some(held) => {
                self.here.insert(partition.clone());
                let resumed = self.leased.settler.resume(std::slice::from_ref(&partition));
                if let Err(error) = resumed {
                    tracing::warn!(%partition, %error, "resuming failed");
                }
                self.ready.push_back(Inbound::Assigned(vec![partition]));
                self.ready.extend(held);
            }
            // The lease was lost and is here again: what came meanwhile was dropped.
            None => self.close(partition),
        }
    }

    fn received(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Assigned(partitions) => {
                for partition in partitions {
                    self.assigned(partition);
                }
            }
            Inbound::Batch(ref partition, _) | Inbound::Passed(ref partition, _) => {
                if let Some(held) = self.waiting.get_mut(partition) {
                    held.push(inbound);
                } else if self.here.contains(partition) {
                    self.ready.push_back(inbound);
                }
            }
            Inbound::Revoked(partitions) => {
                for partition in partitions {
                    if self.here.contains(&partition) {
                        self.ready.push_back(Inbound::Revoked(vec![partition]));
                    } else {
                        self.give_back(partition);
                    }
                }
            }
            Inbound::Lost(partitions) => {
                for partition in partitions {
                    self.lost(&partition);
                    // Where leases assign, it stays leased until it can be opened again.
                    if self.leased.assigns {
                        // At once: the broker may assign it again before the lease is ended.
                        for partition in self.leased.shares.let_go(&[partition]) {
                            self.end(partition);
                        }
                    } else if self.leased.shares.is_leaving(&partition) {
                        self.give_back(partition);
                    }
                }
            }
        }
    }

    /// The broker delivers it from now on.
    fn assigned(&mut self, partition: Partition) {
        // Of an earlier assignment nothing may come any more.
        self.lost(&partition);
        if self.leased.shares.is_leaving(&partition) {
            return self.give_back(partition);
        }
        if self.leased.shares.owns(&partition) {
            self.here.insert(partition.clone());
            return self.ready.push_back(Inbound::Assigned(vec![partition]));
        }
        if !self.leased.assigns {
            return self.close(partition);
        }
        self.leased.shares.want(&partition);
        if let Err(error) = self.leased.settler.pause(std::slice::from_ref(&partition)) {
            tracing::warn!(%partition, %error, "pausing failed");
        }
        self.waiting.insert(partition, vec![]);
    }

    /// The member loses it, where it has it.
    fn lost(&mut self, partition: &Partition) {
        self.waiting.remove(partition);
        let of_it = |inbound: &Inbound| match inbound {
            Inbound::Batch(other, _) | Inbound::Passed(other, _) => other == partition,
            Inbound::Assigned(others) | Inbound::Revoked(others) => others.contains(partition),
            Inbound::Lost(_) => false,
        };
        self.ready.retain(|inbound| !of_it(inbound));
        if self.here.remove(partition) {
            self.ready.push_back(Inbound::Lost(vec![partition.clone()]));
        }
    }

    fn open(&mut self, partition: Partition) {
        let leased = self.leased.clone();
        self.until_done(partition, move |partition| {
            let leased = leased.clone();
            async move {
                let wanted = leased.shares.owns(&partition);
                if wanted { leased.settler.open(&[partition]).await } else { Ok(()) }
            }
        });
    }

    /// The broker is to begin with it anew, or not to deliver it any more.
    fn close(&mut self, partition: Partition) {
        let leased = self.leased.clone();
        self.until_done(partition, move |partition| {
            let leased = leased.clone();
            async move { leased.settler.release(&[partition]).await }
        });
    }

    /// A partition that never reached the member.
    fn give_back(&mut self, partition: Partition) {
        self.waiting.remove(&partition);
        let leased = self.leased.clone();
        self.until_done(partition, move |partition| {
            let leased = leased.clone();
            async move { leased.release(&[partition]).await }
        });
    }

    fn end(&mut self, partition: Partition) {
        let leased = self.leased.clone();
        self.until_done(partition, move |partition| {
            let leased = leased.clone();
            async move { leased.shares.end(&[partition]).await }
        });
    }

    /// In the background, behind what was called for this partition before, again and again until it is
    /// done or nobody receives any more.
    fn until_done<F>(
        &mut self,
        partition: Partition,
        call: impl Fn(Partition) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<()>> + Send,
    {
        let before = self.calls.remove(&partition).filter(|before| !before.is_finished());
        let (clock, stopped) = (self.leased.clock.clone(), self.stopped.clone());
        let of = partition.clone();
        let done = async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            while let Err(error) = call(partition.clone()).await {
                tracing::warn!(%partition, %error, "a partition was not opened or given back");
                clock.sleep(AGAIN).await;
            }
        };
        let call = tokio::spawn(async move {
            let _ = stopped.run_until_cancelled(done).await;
        });
        self.calls.insert(of, call);
    }
}

impl Receiver for LeasedReceiver {
    fn next(&mut self) -> BoxFuture<'_, Result<Inbound>> {
        Box::pin(self.step())
    }
}

impl Settler for Leased {
    fn settle<'a>(&'a self, settled: &'a [Settled]) -> BoxFuture<'a, Result<()>> {
        self.settler.settle(settled)
    }

    fn open<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        self.settler.open(partitions)
    }

    fn release<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            // The broker may assign again what it has back, before its lease is ended.
            let owned = if self.assigns { self.shares.let_go(partitions) } else { vec![] };
            // First the broker: whoever has the lease then finds everything settled.
            self.settler.release(partitions).await?;
            let owned = if self.assigns { owned } else { self.shares.let_go(partitions) };
            self.shares.end(&owned).await
        })
    }

    fn pause(&self, partitions: &[Partition]) -> Result<()> {
        self.settler.pause(partitions)
    }

    fn resume(&self, partitions: &[Partition]) -> Result<()> {
        // What the broker has assigned and waits for its lease stays paused.
        let flows = |partition: &&Partition| !self.assigns || self.shares.owns(partition);
        let flowing: Vec<_> = partitions.iter().filter(flows).cloned().collect();
        self.settler.resume(&flowing)
    }

    fn fence(&self, partition: &Partition) -> Option<(Text, Epoch)> {
        self.shares.fence(partition)
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let closed = self.settler.close().await;
            self.shares.close().await?;
            closed
        })
    }
}
