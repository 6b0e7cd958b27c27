//! Members that come, go, stall and die, on one database and virtual time.

use super::*;
use crate::log_broker::{SLOTS, partition};
use proptest::{prelude::*, sample::Index};
use sillage_core::Condition;
use sillage_testkit::{Held, Memory, TokioClock};

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
    way: Held,
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
                member.way.hold(false);
                member.slots.close().await.unwrap();
            }
            Act::Die(member) if count > 0 => {
                self.members.swap_remove(member.index(count)).way.hold(true);
            }
            Act::Stall(member) if count > 0 => {
                let way = &self.members[member.index(count)].way;
                way.hold(!way.is_held());
            }
            Act::Pass(time) => self.pass(time).await,
            _ => {}
        }
    }

    fn join(&mut self) {
        let way = Held::new(Arc::new(self.memory.clone()));
        let database = Arc::new(way.clone());
        let all = (0..SLOTS).map(partition).collect();
        let consumer = "shop/billing".into();
        let slots = Shares::new(database, self.clock.clone(), consumer, Policy::Fair, all);
        let slots = Arc::new(slots);
        slots.keep();
        self.members.push(Member { slots, way, draining: vec![] });
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
        if self.way.is_held() {
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
                member.way.hold(false);
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
