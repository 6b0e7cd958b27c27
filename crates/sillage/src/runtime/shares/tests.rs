//! Members that come, go, stall and die, on one database and virtual time.

use super::*;
use crate::log_broker::{SLOTS, partition};
use proptest::{prelude::*, sample::Index};
use sillage_core::{
    BoxFuture, CommitError, Committed, Condition, Decision, Filter, Head, Page, Position, Recorded,
    Stored, Transaction, Version,
};
use sillage_testkit::{Memory, TokioClock};
use tokio::sync::watch;

#[test]
fn shares_are_fair_and_together_are_all_slots() {
    for count in 1..=20 {
        let members: Vec<_> = (0..count).map(Uuid::from_u128).collect();
        let shares: Vec<_> =
            members.iter().map(|member| share_of(SLOTS, &members, *member)).collect();
        assert_eq!(shares.iter().sum::<usize>(), SLOTS as usize);
        assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
    }
}

/// What happens.
#[derive(Clone, Debug)]
enum Act {
    Join,
    /// It drains and leaves.
    Leave(Index),
    /// It is gone without a word.
    Die(Index),
    /// Its calls of the database are not answered, or are again.
    Stall(Index),
    Pass(Duration),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Join),
        1 => any::<Index>().prop_map(Act::Leave),
        1 => any::<Index>().prop_map(Act::Die),
        3 => any::<Index>().prop_map(Act::Stall),
        6 => (0..20_000_u64).prop_map(|time| Act::Pass(Duration::from_millis(time))),
    ]
}

/// A member and its way to the database, which can be held up.
struct Member {
    slots: Arc<Shares>,
    stalled: watch::Sender<bool>,
    /// Slots that it drains, and when it is done.
    draining: Vec<(u32, Duration)>,
}

struct World {
    memory: Memory,
    clock: Arc<TokioClock>,
    members: Vec<Member>,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(TokioClock::default());
        World { memory: Memory::new(clock.clone()), clock, members: vec![] }
    }

    async fn act(&mut self, act: Act) {
        let count = self.members.len();
        match act {
            Act::Join if count < 4 => self.join(),
            Act::Leave(member) if count > 0 => {
                let member = self.members.swap_remove(member.index(count));
                member.stalled.send_replace(false);
                member.slots.close().await.unwrap();
            }
            Act::Die(member) if count > 0 => drop(self.members.swap_remove(member.index(count))),
            Act::Stall(member) if count > 0 => {
                let stalled = &self.members[member.index(count)].stalled;
                stalled.send_modify(|stalled| *stalled = !*stalled);
            }
            Act::Pass(time) => self.pass(time).await,
            _ => {}
        }
    }

    fn join(&mut self) {
        let (stalled, until) = watch::channel(false);
        let database = Arc::new(Held { memory: self.memory.clone(), stalled: until });
        let all = (0..SLOTS).map(partition).collect();
        let consumer = "shop/billing".into();
        let slots = Shares::new(database, self.clock.clone(), consumer, Policy::Fair, all);
        let slots = Arc::new(slots);
        slots.keep();
        self.members.push(Member { slots, stalled, draining: vec![] });
    }

    async fn pass(&mut self, time: Duration) {
        let end = self.clock.elapsed() + time;
        while self.clock.elapsed() < end {
            self.clock.sleep(Duration::from_millis(500)).await;
            for member in &mut self.members {
                member.drain(self.clock.elapsed()).await;
            }
            self.check().await;
        }
    }

    /// Of each slot at most one member can commit anything.
    async fn check(&self) {
        for slot in 0..SLOTS {
            let mut able = 0;
            for member in &self.members {
                let Some((name, epoch)) = member.slots.fence(&partition(slot)) else { continue };
                let lease = Condition::Lease { name, epoch };
                let commit = Commit { conditions: vec![lease], writes: vec![] };
                able += usize::from(self.memory.commit(vec![commit]).await[0].is_ok());
            }
            assert!(able <= 1, "{able} members can commit for slot {slot}");
        }
    }
}

impl Member {
    /// As the receiver and the runtime do: what is revoked is drained for a while, then released.
    async fn drain(&mut self, now: Duration) {
        while let Some(change) = self.slots.change() {
            match change {
                Change::Assigned(_) => {}
                Change::Revoked(slot) => {
                    let takes = Duration::from_millis(u64::from(slot) * 300);
                    self.draining.push((slot, now + takes));
                }
                Change::Lost(slot) => self.draining.retain(|(other, _)| *other != slot),
            }
            self.slots.change_taken();
        }
        if *self.stalled.borrow() {
            return;
        }
        let done: Vec<_> = self.draining.extract_if(.., |(_, end)| *end <= now).collect();
        let done: Vec<_> = done.into_iter().map(|(slot, _)| partition(slot)).collect();
        self.slots.release(&done).await.unwrap();
    }

    fn owned(&self) -> usize {
        self.slots.state().owned.len()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Never two of a slot; and once all is quiet, each has its fair share and nothing is left.
    #[test]
    fn a_slot_has_one_owner_and_shares_converge(acts in prop::collection::vec(act(), 1..25)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            world.join();
            for act in acts {
                world.act(act).await;
            }
            for member in &world.members {
                member.stalled.send_replace(false);
            }
            world.join();
            world.pass(Duration::from_secs(60)).await;
            let mut owned: Vec<_> = world.members.iter().map(Member::owned).collect();
            owned.sort_unstable();
            let members: Vec<_> = (0..owned.len()).map(|n| Uuid::from_u128(n as u128)).collect();
            let mut shares: Vec<_> = members.iter().map(|m| share_of(SLOTS, &members, *m)).collect();
            shares.sort_unstable();
            prop_assert_eq!(owned, shares);
            Ok(())
        })?;
    }
}

/// A database that does not answer this member while it stalls.
struct Held {
    memory: Memory,
    stalled: watch::Receiver<bool>,
}

impl Held {
    fn then<'a, T>(&'a self, call: BoxFuture<'a, T>) -> BoxFuture<'a, T>
    where
        T: 'a,
    {
        let mut stalled = self.stalled.clone();
        Box::pin(async move {
            // A member that died is never answered.
            if stalled.wait_for(|stalled| !stalled).await.is_err() {
                std::future::pending::<()>().await;
            }
            call.await
        })
    }
}

impl Database for Held {
    fn commit(&self, batch: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, CommitError>>> {
        self.then(self.memory.commit(batch))
    }
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>>> {
        self.then(self.memory.begin())
    }
    fn stream<'a>(
        &'a self,
        stream: &'a str,
        after: Version,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>>> {
        self.then(self.memory.stream(stream, after, max))
    }
    fn log<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        max: usize,
    ) -> BoxFuture<'a, Result<Page>> {
        self.then(self.memory.log(after, filter, max))
    }
    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        self.then(self.memory.head())
    }
    fn get<'a>(
        &'a self,
        collection: &'a str,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        self.then(self.memory.get(collection, ids))
    }
    fn list<'a>(
        &'a self,
        collection: &'a str,
        range: Range<'a>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Stored>>> {
        self.then(self.memory.list(collection, range, max))
    }
    fn decisions<'a>(
        &'a self,
        consumer: &'a str,
        deliveries: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Vec<Option<Decision>>>> {
        self.then(self.memory.decisions(consumer, deliveries))
    }
    fn lease<'a>(
        &'a self,
        name: &'a str,
        owner: Uuid,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Epoch>>> {
        self.then(self.memory.lease(name, owner, ttl))
    }
    fn now(&self) -> BoxFuture<'_, Result<Timestamp>> {
        self.then(self.memory.now())
    }
    fn changed(&self, position: Position) -> BoxFuture<'_, ()> {
        self.then(self.memory.changed(position))
    }
}
