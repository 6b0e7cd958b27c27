//! Lanes: the queues of active keys. Between keys parallel, within a key strictly in order.
//!
//! A lane is made by the first delivery of its key and gone when it is empty. Lanes that are
//! ready wait in one line for a slot; a lane that waits for its next try holds none, so a failing
//! key never keeps strangers from running.
//!
//! A lane is named by a hash of topic and key. Two keys of one hash share a lane: they are
//! ordered with each other without need, which is harmless and next to never happens.

use sillage_core::{Delivery, Key, Offset};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    hash::{BuildHasher as _, BuildHasherDefault, Hasher},
    time::Duration,
};

/// A delivery on its way through a lane.
#[derive(Debug)]
pub(crate) struct Work {
    /// Index of its partition in the member.
    pub(crate) partition: usize,
    /// Which assignment of the partition brought it.
    pub(crate) assignment: u64,
    /// Its number in the partition's watermark.
    pub(crate) number: u64,
    pub(crate) delivery: Delivery,
    /// 1-based; counts what was spent.
    pub(crate) attempt: u32,
    /// Reruns on conflict and waits for what is unavailable: not spent, but they back off.
    pub(crate) waits: u32,
    /// It runs alone in its partition, after a crash.
    pub(crate) careful: bool,
    /// Its attempt is stored, as far as it must be, so the handler may run.
    pub(crate) guarded: bool,
}

/// Names a lane while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LaneId(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Ready,
    Busy,
    /// Waits for its next try; a heap entry of another turn is stale.
    Waiting,
    Free,
}

#[derive(Debug)]
struct Lane {
    name: Option<u64>,
    queue: VecDeque<Work>,
    state: State,
    turn: u32,
    /// It was woken while it was busy.
    woken: bool,
}

/// A map whose keys are hashes already.
#[derive(Default)]
pub(crate) struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// All lanes of one member of a consumer.
#[derive(Default)]
pub(crate) struct Lanes {
    hasher: foldhash::fast::RandomState,
    names: HashMap<u64, LaneId, BuildHasherDefault<Plain>>,
    all: Vec<Lane>,
    free: Vec<LaneId>,
    ready: VecDeque<LaneId>,
    waiting: BinaryHeap<Reverse<(Duration, LaneId, u32)>>,
    works: usize,
}

impl Lanes {
    /// The lane name of a topic's key.
    pub(crate) fn name(&self, topic: &str, key: &Key) -> u64 {
        self.hasher.hash_one((topic, key.as_bytes()))
    }

    /// Puts a delivery at the end of its lane; one without a name gets a lane of its own.
    pub(crate) fn push(&mut self, name: Option<u64>, work: Work) {
        let lane = self.lane(name);
        self.works += 1;
        self.all[lane.0].queue.push_back(work);
        if self.all[lane.0].state == State::Idle {
            self.make_ready(lane);
        }
    }

    /// Whether a delivery of that name could run at once: its lane is not active, and no other
    /// lane waits for a slot.
    pub(crate) fn is_clear(&self, name: Option<u64>) -> bool {
        self.ready.is_empty() && name.is_none_or(|name| !self.names.contains_key(&name))
    }

    /// Makes a lane for a delivery that runs already: it is busy.
    pub(crate) fn push_busy(&mut self, name: Option<u64>, work: Work) -> LaneId {
        let lane = self.lane(name);
        self.works += 1;
        self.all[lane.0].queue.push_back(work);
        self.all[lane.0].state = State::Busy;
        lane
    }

    /// Makes the named lane run although nothing may be queued in it: something parked is due. A
    /// busy lane runs once more when it rests.
    pub(crate) fn wake(&mut self, name: u64) {
        let lane = self.lane(Some(name));
        match self.all[lane.0].state {
            State::Idle | State::Waiting => self.make_ready(lane),
            State::Busy => self.all[lane.0].woken = true,
            State::Ready | State::Free => {}
        }
    }

    fn lane(&mut self, name: Option<u64>) -> LaneId {
        if let Some(lane) = name.and_then(|name| self.names.get(&name)) {
            return *lane;
        }
        let lane = self.free.pop().unwrap_or_else(|| {
            let (queue, state) = (VecDeque::new(), State::Free);
            self.all.push(Lane { name: None, queue, state, turn: 0, woken: false });
            LaneId(self.all.len() - 1)
        });
        self.all[lane.0].name = name;
        self.all[lane.0].state = State::Idle;
        if let Some(name) = name {
            self.names.insert(name, lane);
        }
        lane
    }

    fn make_ready(&mut self, lane: LaneId) {
        self.all[lane.0].state = State::Ready;
        self.all[lane.0].turn = self.all[lane.0].turn.wrapping_add(1);
        self.ready.push_back(lane);
    }

    /// The lane that waited longest; it is busy until [`Lanes::rest`] or [`Lanes::wait`].
    pub(crate) fn next(&mut self) -> Option<LaneId> {
        let lane = self.ready.pop_front()?;
        self.all[lane.0].state = State::Busy;
        self.all[lane.0].woken = false;
        Some(lane)
    }

    /// The delivery at the head of a lane.
    pub(crate) fn front(&mut self, lane: LaneId) -> Option<&mut Work> {
        self.all[lane.0].queue.front_mut()
    }

    /// The name of a lane, for waking it again.
    pub(crate) fn name_of(&self, lane: LaneId) -> Option<u64> {
        self.all[lane.0].name
    }

    /// Takes the delivery at the head of a lane.
    pub(crate) fn pop(&mut self, lane: LaneId) -> Option<Work> {
        let work = self.all[lane.0].queue.pop_front();
        self.works -= usize::from(work.is_some());
        work
    }

    /// A busy lane is no longer: it goes to the end of the line, or is gone when empty.
    pub(crate) fn rest(&mut self, lane: LaneId) {
        if self.all[lane.0].queue.is_empty() && !self.all[lane.0].woken {
            if let Some(name) = self.all[lane.0].name.take() {
                self.names.remove(&name);
            }
            self.all[lane.0].state = State::Free;
            self.free.push(lane);
        } else {
            self.make_ready(lane);
        }
    }

    /// A busy lane waits until then, and holds no slot meanwhile.
    pub(crate) fn wait(&mut self, lane: LaneId, until: Duration) {
        self.all[lane.0].state = State::Waiting;
        self.all[lane.0].turn = self.all[lane.0].turn.wrapping_add(1);
        self.waiting.push(Reverse((until, lane, self.all[lane.0].turn)));
    }

    /// Makes lanes ready whose time has come.
    pub(crate) fn due(&mut self, now: Duration) {
        while let Some(Reverse((until, lane, turn))) = self.waiting.peek().copied() {
            let current = self.all[lane.0].turn == turn;
            if current && until > now {
                return;
            }
            self.waiting.pop();
            if current && self.all[lane.0].state == State::Waiting {
                self.make_ready(lane);
            }
        }
    }

    /// When the next waiting lane is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.waiting.peek().map(|Reverse((until, ..))| *until)
    }

    /// How many deliveries are in lanes.
    pub(crate) fn works(&self) -> usize {
        self.works
    }

    /// Whether a delivery of that assignment is being handled or committed.
    pub(crate) fn has_busy(&self, partition: usize, assignment: u64) -> bool {
        self.all.iter().filter(|lane| lane.state == State::Busy).any(|lane| {
            let front = lane.queue.front();
            front.is_some_and(|work| (work.partition, work.assignment) == (partition, assignment))
        })
    }

    /// The key of the delivery at that offset, for people.
    pub(crate) fn key_at(&self, offset: Offset) -> Option<String> {
        let fronts = self.all.iter().filter_map(|lane| lane.queue.front());
        let message = fronts.map(|work| &work.delivery).find(|d| d.offset == offset)?;
        Some(message.message.key.as_ref().map_or_else(|| "(none)".into(), ToString::to_string))
    }

    /// Drops what an assignment brought; busy lanes end by themselves.
    pub(crate) fn purge(&mut self, partition: usize, assignment: u64) {
        for index in 0..self.all.len() {
            let lane = &mut self.all[index];
            let before = lane.queue.len();
            let keep = |work: &Work| (work.partition, work.assignment) != (partition, assignment);
            // The head of a busy lane stays until its outcome is known.
            let head = (lane.state == State::Busy).then(|| lane.queue.pop_front()).flatten();
            lane.queue.retain(keep);
            if let Some(head) = head {
                lane.queue.push_front(head);
            }
            self.works -= before - lane.queue.len();
            // A lane that is empty now goes when it comes up.
            if before > 0 && lane.queue.is_empty() && lane.state == State::Waiting {
                self.make_ready(LaneId(index));
            }
        }
    }
}

#[cfg(test)]
mod tests;
