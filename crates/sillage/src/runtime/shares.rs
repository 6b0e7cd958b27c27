//! Which partitions are this process's: leases in the database, fair shares, hand-over.
//!
//! Every commit for a partition is conditional on its lease's epoch, so a process that lost a
//! partition without knowing it can commit nothing. Where the broker does not share partitions
//! out, members take fair shares of them; where it does, they take the leases of what it assigns.

use crate::names;
use sillage_core::{
    Clock, Commit, Database, Epoch, Error, Partition, Range, Result, Sort, Text, Timestamp, Write,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a partition stays with a process that died.
const LEASE: Duration = Duration::from_secs(15);
/// How often leases are renewed and shares looked at.
const RENEW: Duration = Duration::from_secs(3);
/// How often a lease that another member still has is asked for.
const ASK: Duration = Duration::from_millis(200);

/// What happened to a partition, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Assigned(u32),
    Revoked(u32),
    Lost(u32),
}

/// Which leases a member takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// A fair share of all partitions.
    Fair,
    /// Those it is told to want.
    Wanted,
    /// None: everything is its own, unfenced.
    All,
}

#[derive(Default)]
struct State {
    /// Only grows: an index stays a partition's.
    partitions: Vec<Partition>,
    wanted: BTreeSet<u32>,
    owned: BTreeMap<u32, Epoch>,
    leaving: BTreeSet<u32>,
    paused: BTreeSet<u32>,
    changes: VecDeque<Change>,
}

/// The partitions of one member of a consumer.
pub(crate) struct Shares {
    database: Arc<dyn Database>,
    clock: Arc<dyn Clock>,
    consumer: Text,
    policy: Policy,
    /// Leases that could not be renewed for as long as they hold are lost.
    expires: bool,
    member: Uuid,
    state: Mutex<State>,
    /// Something changed that a receiver should look at.
    pub(crate) notify: Notify,
    hurry: Notify,
    closed: CancellationToken,
    /// What renews leases.
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Shares {
    pub(crate) fn new(
        database: Arc<dyn Database>,
        clock: Arc<dyn Clock>,
        consumer: Text,
        policy: Policy,
        partitions: Vec<Partition>,
    ) -> Self {
        let mut state = State::default();
        if policy == Policy::All {
            let all = 0..u32::try_from(partitions.len()).unwrap_or(u32::MAX);
            state.owned = all.clone().map(|index| (index, Epoch(0))).collect();
            state.changes = all.map(Change::Assigned).collect();
        }
        state.partitions = partitions;
        Shares {
            database,
            clock,
            consumer,
            policy,
            expires: false,
            member: Uuid::from_bytes(rand::random()),
            state: Mutex::new(state),
            notify: Notify::new(),
            hurry: Notify::new(),
            closed: CancellationToken::new(),
            keeper: Mutex::default(),
        }
    }

    /// What cannot be renewed is lost here as well, as it is for all others: a broker that brings
    /// partitions to whoever reads them could not bring them elsewhere.
    pub(crate) fn expiring(mut self, expires: bool) -> Self {
        self.expires = expires;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest change that was not taken in.
    pub(crate) fn change(&self) -> Option<Change> {
        self.state().changes.front().copied()
    }

    /// That change is taken in.
    pub(crate) fn change_taken(&self) {
        self.state().changes.pop_front();
    }

    pub(crate) fn is_open(&self, index: u32) -> bool {
        let state = self.state();
        state.owned.contains_key(&index)
            && !state.leaving.contains(&index)
            && !state.paused.contains(&index)
    }

    /// The partition of an index.
    pub(crate) fn partition(&self, index: u32) -> Option<Partition> {
        self.state().partitions.get(index as usize).cloned()
    }

    fn index(&self, partition: &Partition) -> Option<u32> {
        let place = self.state().partitions.iter().position(|known| known == partition)?;
        u32::try_from(place).ok()
    }

    fn lease(&self, index: u32) -> Text {
        let partition = self.partition(index).map(|partition| partition.to_string());
        format!("partition/{}/{}", self.consumer, partition.unwrap_or_default()).into()
    }

    /// The broker has assigned it: its lease is taken as soon as nobody else has it.
    pub(crate) fn want(&self, partition: &Partition) {
        let known = self.index(partition);
        let mut state = self.state();
        let index = known.unwrap_or_else(|| {
            state.partitions.push(partition.clone());
            u32::try_from(state.partitions.len() - 1).unwrap_or(u32::MAX)
        });
        state.wanted.insert(index);
        drop(state);
        self.hurry.notify_one();
    }

    /// Whether its lease is this member's.
    pub(crate) fn owns(&self, partition: &Partition) -> bool {
        self.index(partition).is_some_and(|index| self.state().owned.contains_key(&index))
    }

    /// Whether it was offered to other members and is this member's still.
    pub(crate) fn is_leaving(&self, partition: &Partition) -> bool {
        self.index(partition).is_some_and(|index| self.state().leaving.contains(&index))
    }

    /// The lease that every commit for the partition is conditional on. Where it is not this member's any
    /// more it has an epoch that no lease has: nothing is committed.
    pub(crate) fn fence(&self, partition: &Partition) -> Option<(Text, Epoch)> {
        let index = self.index(partition)?;
        let epoch = self.state().owned.get(&index).copied();
        (self.policy != Policy::All).then(|| (self.lease(index), epoch.unwrap_or(Epoch(0))))
    }

    /// Nothing comes of these.
    pub(crate) fn pause(&self, partitions: &[Partition]) {
        let indices: Vec<_> = partitions.iter().filter_map(|p| self.index(p)).collect();
        self.state().paused.extend(indices);
    }

    /// They go on.
    pub(crate) fn resume(&self, partitions: &[Partition]) {
        let indices: Vec<_> = partitions.iter().filter_map(|p| self.index(p)).collect();
        self.state().paused.retain(|paused| !indices.contains(paused));
        self.notify.notify_one();
    }

    /// Renews leases, takes what is due and balances shares until the member closes, or is gone
    /// without a word: its leases run out then.
    pub(crate) fn keep(self: &Arc<Self>) {
        if self.policy == Policy::All {
            return;
        }
        let (shares, closed) = (Arc::downgrade(self), self.closed.clone());
        let clock = self.clock.clone();
        let keeper = tokio::spawn(async move {
            let (mut renewal, mut renewed) = (Duration::ZERO, clock.elapsed());
            while let Some(shares) = shares.upgrade() {
                let now = clock.elapsed();
                let renews = now >= renewal;
                let turn =
                    async { if renews { shares.renew().await } else { shares.take().await } };
                let turn = tokio::select! {
                    biased;
                    turn = turn => turn,
                    () = clock.sleep(LEASE) => {
                        Err(Error::unavailable("the database does not answer"))
                    }
                };
                if renews {
                    renewal = now + RENEW;
                }
                match turn {
                    Ok(()) if renews => renewed = now,
                    Ok(()) => {}
                    Err(error) => {
                        tracing::warn!(consumer = %shares.consumer, %error, "leases not renewed");
                        if shares.expires && clock.elapsed() >= renewed + LEASE {
                            shares.lose_all();
                        }
                    }
                }
                let wait = if shares.lacks() { ASK } else { renewal.saturating_sub(now) };
                tokio::select! {
                    biased;
                    () = closed.cancelled() => return,
                    () = shares.hurry.notified() => {}
                    () = clock.sleep(wait) => {}
                }
            }
        });
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
    }

    /// Whether something is wanted that another member still has.
    fn lacks(&self) -> bool {
        let state = self.state();
        state.wanted.iter().any(|index| !state.owned.contains_key(index))
    }

    async fn renew(&self) -> Result<()> {
        let owned: Vec<_> =
            self.state().owned.iter().map(|(index, epoch)| (*index, *epoch)).collect();
        for (index, epoch) in owned {
            if self.closed.is_cancelled() {
                return Ok(());
            }
            let renewed = self.database.lease(&self.lease(index), self.member, LEASE).await?;
            if renewed != Some(epoch) {
                self.lose(index, renewed);
            }
        }
        if self.closed.is_cancelled() {
            return Ok(());
        }
        let members = self.sign_of_life().await?;
        match self.policy {
            Policy::Fair => self.balance(members).await,
            Policy::Wanted | Policy::All => self.take().await,
        }
    }

    /// Takes the leases that are wanted and free.
    async fn take(&self) -> Result<()> {
        let wanted: Vec<_> = self.state().wanted.iter().copied().collect();
        for index in wanted {
            if !self.state().owned.contains_key(&index) {
                self.ask(index).await?;
            }
        }
        Ok(())
    }

    /// Asks for a lease; what comes of it is a change.
    async fn ask(&self, index: u32) -> Result<()> {
        let lease = self.lease(index);
        let Some(epoch) = self.database.lease(&lease, self.member, LEASE).await? else {
            return Ok(());
        };
        let unwanted = {
            let mut state = self.state();
            let unwanted = self.policy == Policy::Wanted && !state.wanted.contains(&index);
            if !unwanted {
                state.owned.insert(index, epoch);
                state.paused.remove(&index);
                state.changes.push_back(Change::Assigned(index));
            }
            unwanted
        };
        if unwanted {
            // Given up while the question was under way.
            self.database.lease(&lease, self.member, Duration::ZERO).await?;
        }
        self.notify.notify_one();
        Ok(())
    }

    /// Nobody knows whose they are by now.
    fn lose_all(&self) {
        let owned: Vec<_> = self.state().owned.keys().copied().collect();
        for index in owned {
            self.lose(index, None);
        }
    }

    /// The lease went to somebody else, or came back with another epoch.
    fn lose(&self, index: u32, renewed: Option<Epoch>) {
        let mut state = self.state();
        // Released meanwhile, by this member itself.
        if state.owned.remove(&index).is_none() {
            return;
        }
        state.leaving.remove(&index);
        state.paused.remove(&index);
        state.changes.push_back(Change::Lost(index));
        if let Some(epoch) = renewed {
            state.owned.insert(index, epoch);
            state.changes.push_back(Change::Assigned(index));
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

    /// Takes free partitions up to the fair share, and offers what is over it.
    async fn balance(&self, members: Vec<Uuid>) -> Result<()> {
        let count = u32::try_from(self.state().partitions.len()).unwrap_or(u32::MAX);
        let share = share_of(count, &members, self.member);
        if self.offer_over(share) {
            self.notify.notify_one();
            return Ok(());
        }
        // Members start looking at different partitions, so that they seldom meet.
        let index = members.iter().position(|member| *member == self.member).unwrap_or(0);
        let start = u32::try_from(index * share).unwrap_or(0);
        for index in (0..count).map(|index| (index + start) % count) {
            if self.state().owned.len() >= share || self.closed.is_cancelled() {
                return Ok(());
            }
            if !self.state().owned.contains_key(&index) {
                self.ask(index).await?;
            }
        }
        Ok(())
    }

    /// Whether there was anything over the share.
    fn offer_over(&self, share: usize) -> bool {
        let mut state = self.state();
        let kept: Vec<_> = state.owned.keys().copied().collect();
        let kept: Vec<_> = kept.into_iter().filter(|i| !state.leaving.contains(i)).collect();
        let over = kept.len().saturating_sub(share);
        for index in kept.iter().rev().take(over) {
            state.leaving.insert(*index);
            state.changes.push_back(Change::Revoked(*index));
        }
        over > 0
    }

    /// Gives these back: another member may have them at once.
    pub(crate) async fn release(&self, partitions: &[Partition]) -> Result<()> {
        let owned = self.let_go(partitions);
        self.end(&owned).await
    }

    /// They are not this member's any more, and not wanted; those whose leases it had.
    pub(crate) fn let_go(&self, partitions: &[Partition]) -> Vec<Partition> {
        let owned = |partition: &&Partition| {
            let Some(index) = self.index(partition) else { return false };
            let mut state = self.state();
            state.wanted.remove(&index);
            state.leaving.remove(&index);
            state.owned.remove(&index).is_some()
        };
        partitions.iter().filter(owned).cloned().collect()
    }

    /// Ends the leases of partitions that were let go, but for those that it has or wants again.
    pub(crate) async fn end(&self, partitions: &[Partition]) -> Result<()> {
        for index in partitions.iter().filter_map(|partition| self.index(partition)) {
            let again = {
                let state = self.state();
                state.wanted.contains(&index) || state.owned.contains_key(&index)
            };
            if !again && self.policy != Policy::All {
                self.database.lease(&self.lease(index), self.member, Duration::ZERO).await?;
            }
        }
        Ok(())
    }

    /// Gives everything back, and is no member any more.
    pub(crate) async fn close(&self) -> Result<()> {
        self.closed.cancel();
        if self.policy == Policy::All {
            return Ok(());
        }
        // What it has asked the database for may still be on its way: it would take back what is given
        // back here.
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            tokio::select! {
                _ = keeper => {}
                () = self.clock.sleep(LEASE) => {}
            }
        }
        let owned: Vec<_> = self.state().owned.keys().copied().collect();
        let owned: Vec<_> = owned.into_iter().filter_map(|index| self.partition(index)).collect();
        self.release(&owned).await?;
        let id = format!("{}/{}", self.consumer, self.member).into();
        self.write(vec![Write::Delete { collection: names::MEMBERS.into(), id }]).await
    }
}

/// How many of so many partitions a member may own: all shares together are all of them.
fn share_of(count: u32, members: &[Uuid], member: Uuid) -> usize {
    let (slots, count) = (count as usize, members.len().max(1));
    let index = members.iter().position(|other| *other == member).unwrap_or(0);
    slots / count + usize::from(index < slots % count)
}

impl Drop for Shares {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

#[cfg(test)]
mod tests;
