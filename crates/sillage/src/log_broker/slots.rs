//! Which slots are this process's: leases, fair shares, hand-over.

use super::SLOTS;
use crate::names;
use sillage_core::{
    BoxFuture, Clock, Commit, Database, Epoch, Error, Partition, Range, Result, Settled, Settler,
    Sort, Subscription, Text, Timestamp, Write,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a slot stays with a process that died.
const LEASE: Duration = Duration::from_secs(15);
/// How often leases are renewed and shares looked at.
const RENEW: Duration = Duration::from_secs(3);

/// The partition of a slot.
pub(crate) fn partition(slot: u32) -> Partition {
    Partition { topic: "log".into(), number: slot }
}

/// What happened to a slot, for the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Assigned(u32),
    Revoked(u32),
    Lost(u32),
}

#[derive(Default)]
struct State {
    owned: BTreeMap<u32, Epoch>,
    leaving: BTreeSet<u32>,
    paused: BTreeSet<u32>,
    changes: VecDeque<Change>,
}

/// The slots of one member of a consumer.
pub(super) struct Slots {
    database: Arc<dyn Database>,
    clock: Arc<dyn Clock>,
    consumer: Text,
    member: Uuid,
    state: Mutex<State>,
    pub(super) notify: Notify,
    closed: CancellationToken,
}

impl Slots {
    pub(super) fn new(
        database: Arc<dyn Database>,
        clock: Arc<dyn Clock>,
        subscription: Subscription,
    ) -> Self {
        let mut state = State::default();
        if subscription.broadcast {
            state.owned = (0..SLOTS).map(|slot| (slot, Epoch(0))).collect();
            state.changes = (0..SLOTS).map(Change::Assigned).collect();
        }
        Slots {
            database,
            clock,
            consumer: subscription.consumer,
            member: Uuid::from_bytes(rand::random()),
            state: Mutex::new(state),
            notify: Notify::new(),
            closed: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest change that was not taken in.
    pub(super) fn change(&self) -> Option<Change> {
        self.state().changes.front().copied()
    }

    /// That change is taken in.
    pub(super) fn change_taken(&self) {
        self.state().changes.pop_front();
    }

    pub(super) fn is_open(&self, slot: u32) -> bool {
        let state = self.state();
        state.owned.contains_key(&slot)
            && !state.leaving.contains(&slot)
            && !state.paused.contains(&slot)
    }

    fn lease(&self, slot: u32) -> Text {
        format!("slot/{}/{slot}", self.consumer).into()
    }

    /// Renews leases and balances shares until the member closes, or is gone without a word: its
    /// leases run out then.
    pub(super) fn keep(self: &Arc<Self>) {
        let (slots, closed) = (Arc::downgrade(self), self.closed.clone());
        let clock = self.clock.clone();
        tokio::spawn(async move {
            while let Some(slots) = slots.upgrade() {
                if let Err(error) = slots.renew().await {
                    tracing::warn!(consumer = %slots.consumer, %error, "leases not renewed");
                }
                drop(slots);
                tokio::select! {
                    biased;
                    () = closed.cancelled() => return,
                    () = clock.sleep(RENEW) => {}
                }
            }
        });
    }

    async fn renew(&self) -> Result<()> {
        let owned: Vec<_> =
            self.state().owned.iter().map(|(slot, epoch)| (*slot, *epoch)).collect();
        for (slot, epoch) in owned {
            let renewed = self.database.lease(&self.lease(slot), self.member, LEASE).await?;
            if renewed != Some(epoch) {
                self.lose(slot, renewed);
            }
        }
        let members = self.sign_of_life().await?;
        self.balance(members).await
    }

    /// The lease went to somebody else, or came back with another epoch.
    fn lose(&self, slot: u32, renewed: Option<Epoch>) {
        let mut state = self.state();
        // Released meanwhile, by this member itself.
        if state.owned.remove(&slot).is_none() {
            return;
        }
        state.leaving.remove(&slot);
        state.paused.remove(&slot);
        state.changes.push_back(Change::Lost(slot));
        if let Some(epoch) = renewed {
            state.owned.insert(slot, epoch);
            state.changes.push_back(Change::Assigned(slot));
        }
        self.notify.notify_one();
    }

    /// Says that this member lives, and counts those who do.
    async fn sign_of_life(&self) -> Result<Vec<Uuid>> {
        let prefix = format!("{}/", self.consumer);
        let put = Write::Put {
            collection: names::MEMBERS.into(),
            id: format!("{prefix}{}", self.member).into(),
            sort: Some(Sort::After(LEASE)),
            body: "{}".into(),
        };
        let now = self.database.now().await?;
        let range = Range::Ids { prefix: &prefix, after: "" };
        let members = self.database.list(names::MEMBERS, range, 1000).await?;
        let until = |sort: &Option<Text>| sort.as_ref()?.parse::<Timestamp>().ok();
        let (alive, dead): (Vec<_>, Vec<_>) =
            members.iter().partition(|member| until(&member.sort).is_some_and(|time| time > now));
        let id = |id: &str| id.rsplit('/').next().and_then(|id| id.parse().ok());
        let mut alive: Vec<Uuid> = alive.iter().filter_map(|member| id(&member.id)).collect();
        if !alive.contains(&self.member) {
            alive.push(self.member);
        }
        let delete =
            |id: &Text| Write::Delete { collection: names::MEMBERS.into(), id: id.clone() };
        let gone =
            dead.iter().map(|member| &member.id).filter(|dead| id(dead) != Some(self.member));
        let writes = gone.map(delete).chain([put]).collect();
        self.write(writes).await?;
        alive.sort_unstable();
        Ok(alive)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<()> {
        let commit = Commit { conditions: vec![], writes };
        match self.database.commit(vec![commit]).await.pop() {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(Error::unavailable("not saved").because(error)),
            None => Err(Error::unavailable("the database gave no answer")),
        }
    }

    /// Takes free slots up to the fair share, and offers what is over it.
    async fn balance(&self, members: Vec<Uuid>) -> Result<()> {
        let share = share_of(&members, self.member);
        let over = {
            let mut state = self.state();
            let kept: Vec<_> = state.owned.keys().copied().collect();
            let kept: Vec<_> = kept.into_iter().filter(|s| !state.leaving.contains(s)).collect();
            let over = kept.len().saturating_sub(share);
            for slot in kept.iter().rev().take(over) {
                state.leaving.insert(*slot);
                state.changes.push_back(Change::Revoked(*slot));
            }
            over
        };
        if over > 0 {
            self.notify.notify_one();
            return Ok(());
        }
        // Members start looking at different slots, so that they seldom meet.
        let index = members.iter().position(|member| *member == self.member).unwrap_or(0);
        let start = u32::try_from(index * share).unwrap_or(0);
        for slot in (0..SLOTS).map(|slot| (slot + start) % SLOTS) {
            if self.state().owned.len() >= share || self.closed.is_cancelled() {
                return Ok(());
            }
            if self.state().owned.contains_key(&slot) {
                continue;
            }
            if let Some(epoch) = self.database.lease(&self.lease(slot), self.member, LEASE).await? {
                let mut state = self.state();
                state.owned.insert(slot, epoch);
                state.paused.remove(&slot);
                state.changes.push_back(Change::Assigned(slot));
                self.notify.notify_one();
            }
        }
        Ok(())
    }
}

/// How many slots a member may own: all shares together are all slots.
fn share_of(members: &[Uuid], member: Uuid) -> usize {
    let (slots, count) = (SLOTS as usize, members.len().max(1));
    let index = members.iter().position(|other| *other == member).unwrap_or(0);
    slots / count + usize::from(index < slots % count)
}

impl Settler for Slots {
    fn settle<'a>(&'a self, _settled: &'a [Settled]) -> BoxFuture<'a, Result<()>> {
        // The watermark in the database, which the runtime has written, is the place.
        Box::pin(async { Ok(()) })
    }

    fn open<'a>(&'a self, _partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn release<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            for partition in partitions {
                let slot = partition.number;
                let owned = {
                    let mut state = self.state();
                    state.leaving.remove(&slot);
                    state.owned.remove(&slot)
                };
                if owned.is_some() {
                    self.database.lease(&self.lease(slot), self.member, Duration::ZERO).await?;
                }
            }
            Ok(())
        })
    }

    fn pause(&self, partitions: &[Partition]) -> Result<()> {
        self.state().paused.extend(partitions.iter().map(|partition| partition.number));
        Ok(())
    }

    fn resume(&self, partitions: &[Partition]) -> Result<()> {
        let mut state = self.state();
        for partition in partitions {
            state.paused.remove(&partition.number);
        }
        drop(state);
        self.notify.notify_one();
        Ok(())
    }

    fn fence(&self, partition: &Partition) -> Option<(Text, Epoch)> {
        let epoch = self.state().owned.get(&partition.number).copied()?;
        (epoch != Epoch(0)).then(|| (self.lease(partition.number), epoch))
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.closed.cancel();
        Box::pin(async move {
            let owned: Vec<_> = self.state().owned.keys().map(|slot| partition(*slot)).collect();
            self.release(&owned).await?;
            let id = format!("{}/{}", self.consumer, self.member).into();
            self.write(vec![Write::Delete { collection: names::MEMBERS.into(), id }]).await
        })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

#[cfg(test)]
mod tests;
