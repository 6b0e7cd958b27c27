//! Random calls against a naive model: what a lane may do, and in which order lanes are served.

use super::*;
use bytes::Bytes;
use proptest::{prelude::*, sample::Index};
use sillage_core::{Message, MessageId, Timestamp};
use std::{collections::HashSet, sync::Arc};

const NAMES: u64 = 4;
const PARTITIONS: usize = 2;

/// What a member does with its lanes.
#[derive(Clone, Debug)]
enum Call {
    /// A delivery comes.
    Push(Option<u64>, usize),
    /// A delivery comes, and runs at once where it can.
    RunAtOnce(Option<u64>, usize),
    /// A slot is free.
    Next,
    /// What one of the busy lanes handles is finished.
    Finish(Index),
    /// It runs again without waiting.
    Again(Index),
    /// It is tried again later.
    Wait(Index, u64),
    /// Time passes.
    Due(u64),
    /// Something parked under that name is due.
    Wake(u64),
    /// A partition goes, and comes back.
    Purge(usize),
}

fn call() -> impl Strategy<Value = Call> {
    let name = || prop::option::weighted(0.9, 0..NAMES);
    let seconds = || 0..20_u64;
    prop_oneof![
        6 => (name(), 0..PARTITIONS).prop_map(|(name, partition)| Call::Push(name, partition)),
        2 => (name(), 0..PARTITIONS).prop_map(|(name, partition)| Call::RunAtOnce(name, partition)),
        6 => Just(Call::Next),
        4 => any::<Index>().prop_map(Call::Finish),
        1 => any::<Index>().prop_map(Call::Again),
        2 => (any::<Index>(), seconds()).prop_map(|(busy, delay)| Call::Wait(busy, delay)),
        2 => seconds().prop_map(Call::Due),
        1 => (0..NAMES).prop_map(Call::Wake),
        1 => (0..PARTITIONS).prop_map(Call::Purge),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    partition: usize,
    assignment: u64,
    number: u64,
}

impl Item {
    fn of(work: &Work) -> Self {
        Item { partition: work.partition, assignment: work.assignment, number: work.number }
    }

    fn work(self, message: &Arc<Message>) -> Work {
        Work {
            partition: self.partition,
            assignment: self.assignment,
            number: self.number,
            delivery: Delivery { offset: Offset(self.number), message: message.clone() },
            attempt: 1,
            waits: 0,
            careful: false,
            guarded: true,
        }
    }
}

/// A lane of the model. The lanes that are ready stand in `Model::lanes` in their order.
#[derive(Debug)]
struct Queue {
    name: Option<u64>,
    items: VecDeque<Item>,
    stage: Stage,
    woken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Ready,
    Busy(LaneId),
    Waiting(Duration, LaneId),
}

/// One list of lanes, searched from its start each time: whoever becomes ready goes to its end.
#[derive(Default)]
struct Model {
    lanes: Vec<Queue>,
}

impl Model {
    fn named(&mut self, name: Option<u64>) -> Option<&mut Queue> {
        self.lanes.iter_mut().find(|lane| lane.name.is_some() && lane.name == name)
    }

    fn add(&mut self, name: Option<u64>, item: Option<Item>, stage: Stage) {
        if let Some(lane) = self.named(name) {
            return lane.items.extend(item);
        }
        let items = item.into_iter().collect();
        self.lanes.push(Queue { name, items, stage, woken: false });
    }

    fn make_ready(&mut self, place: usize) {
        let mut lane = self.lanes.remove(place);
        lane.stage = Stage::Ready;
        self.lanes.push(lane);
    }

    fn wake(&mut self, name: u64) {
        let place = self.lanes.iter().position(|lane| lane.name == Some(name));
        match place.map(|place| (place, self.lanes[place].stage)) {
            None => self.add(Some(name), None, Stage::Ready),
            Some((place, Stage::Busy(_))) => self.lanes[place].woken = true,
            Some((place, Stage::Waiting(..))) => self.make_ready(place),
            Some((_, Stage::Ready)) => {}
        }
    }

    fn next(&mut self) -> Option<&mut Queue> {
        let lane = self.lanes.iter_mut().find(|lane| lane.stage == Stage::Ready)?;
        lane.woken = false;
        Some(lane)
    }

    fn rest(&mut self, place: usize) {
        if self.lanes[place].items.is_empty() && !self.lanes[place].woken {
            self.lanes.remove(place);
        } else {
            self.make_ready(place);
        }
    }

    /// Lanes whose time has come, the earliest first.
    fn due(&mut self, now: Duration) {
        let due = |lane: &Queue| match lane.stage {
            Stage::Waiting(until, lane) if until <= now => Some((until, lane)),
            _ => None,
        };
        while let Some(first) = self.lanes.iter().filter_map(due).min() {
            let place = self.lanes.iter().position(|lane| due(lane) == Some(first)).unwrap();
            self.make_ready(place);
        }
    }

    fn purge(&mut self, partition: usize, assignment: u64) {
        let mut emptied = vec![];
        for lane in &mut self.lanes {
            let before = lane.items.len();
            let handled = lane.items.front().copied().filter(|_| lane.busy().is_some());
            lane.items.retain(|item| {
                (item.partition, item.assignment) != (partition, assignment)
                    || Some(*item) == handled
            });
            if let Stage::Waiting(_, id) = lane.stage
                && lane.items.is_empty()
                && before > 0
            {
                emptied.push(id);
            }
        }
        emptied.sort_unstable();
        for id in emptied {
            let is_it = |lane: &Queue| matches!(lane.stage, Stage::Waiting(_, lane) if lane == id);
            let place = self.lanes.iter().position(is_it).unwrap();
            self.make_ready(place);
        }
    }

    fn busy(&self) -> Vec<usize> {
        let busy = |place: &usize| self.lanes[*place].busy().is_some();
        (0..self.lanes.len()).filter(busy).collect()
    }

    fn next_due(&self) -> Option<Duration> {
        let until = |lane: &Queue| match lane.stage {
            Stage::Waiting(until, _) => Some(until),
            _ => None,
        };
        self.lanes.iter().filter_map(until).min()
    }
}

impl Queue {
    fn busy(&self) -> Option<LaneId> {
        match self.stage {
            Stage::Busy(lane) => Some(lane),
            _ => None,
        }
    }
}

/// The lanes and their model, driven by the same calls.
struct Both {
    lanes: Lanes,
    model: Model,
    now: Duration,
    numbers: u64,
    assignments: [u64; PARTITIONS],
    /// The last number that was finished under each name.
    finished: HashMap<u64, u64>,
    message: Arc<Message>,
}

impl Both {
    fn new() -> Self {
        let message = Message {
            id: MessageId::new("1"),
            source: "shop".into(),
            name: "order.created".into(),
            version: 1,
            topic: Some("order".into()),
            key: None,
            time: Timestamp::default(),
            correlation_id: "1".into(),
            causation_id: None,
            operation_id: None,
            traceparent: None,
            headers: vec![],
            payload: Bytes::new(),
        };
        Both {
            lanes: Lanes::default(),
            model: Model::default(),
            now: Duration::ZERO,
            numbers: 0,
            assignments: [0; PARTITIONS],
            finished: HashMap::new(),
            message: message.into(),
        }
    }

    fn apply(&mut self, call: &Call) {
        match *call {
            Call::Push(name, partition) => self.push(name, partition),
            Call::RunAtOnce(name, partition) => {
                if self.lanes.is_clear(name) {
                    let item = self.item(partition);
                    let lane = self.lanes.push_busy(name, item.work(&self.message));
                    self.model.add(name, Some(item), Stage::Busy(lane));
                } else {
                    self.push(name, partition);
                }
            }
            Call::Next => drop(self.next()),
            Call::Finish(index) => self.with_busy(index, Both::finish),
            Call::Again(index) => self.with_busy(index, Both::rest),
            Call::Wait(index, delay) => self.with_busy(index, |both, place, lane| {
                let until = both.now + Duration::from_secs(delay);
                both.lanes.wait(lane, until);
                both.model.lanes[place].stage = Stage::Waiting(until, lane);
            }),
            Call::Due(delay) => {
                self.now += Duration::from_secs(delay);
                self.lanes.due(self.now);
                self.model.due(self.now);
                assert_eq!(self.lanes.next_due(), self.model.next_due());
            }
            Call::Wake(name) => {
                self.lanes.wake(name);
                self.model.wake(name);
            }
            Call::Purge(partition) => {
                self.lanes.purge(partition, self.assignments[partition]);
                self.model.purge(partition, self.assignments[partition]);
                self.assignments[partition] += 1;
            }
        }
        self.agree();
    }

    fn item(&mut self, partition: usize) -> Item {
        self.numbers += 1;
        Item { partition, assignment: self.assignments[partition], number: self.numbers }
    }

    fn push(&mut self, name: Option<u64>, partition: usize) {
        let item = self.item(partition);
        self.lanes.push(name, item.work(&self.message));
        self.model.add(name, Some(item), Stage::Ready);
    }

    /// Serves a lane; its head is the one of the lane whose turn it is in the model.
    fn next(&mut self) -> Option<LaneId> {
        let served = self.lanes.next();
        let expected = self.model.next();
        let (Some(lane), Some(queue)) = (served, expected) else {
            assert!(served.is_none(), "a lane was served that is not ready");
            assert!(self.model.next().is_none(), "a ready lane was not served");
            return None;
        };
        assert_eq!(self.lanes.name_of(lane), queue.name);
        assert_eq!(self.lanes.front(lane).map(|work| Item::of(work)), queue.items.front().copied());
        queue.stage = Stage::Busy(lane);
        Some(lane)
    }

    fn with_busy(&mut self, index: Index, then: impl Fn(&mut Self, usize, LaneId)) {
        let busy = self.model.busy();
        if !busy.is_empty() {
            let place = *index.get(&busy);
            let lane = self.model.lanes[place].busy().unwrap();
            then(self, place, lane);
        }
    }

    fn finish(&mut self, place: usize, lane: LaneId) {
        let done = self.lanes.pop(lane).as_ref().map(Item::of);
        assert_eq!(done, self.model.lanes[place].items.pop_front());
        if let (Some(done), Some(name)) = (done, self.model.lanes[place].name) {
            let before = self.finished.insert(name, done.number).unwrap_or_default();
            assert!(before < done.number, "{before} was finished before {}", done.number);
        }
        self.rest(place, lane);
    }

    fn rest(&mut self, place: usize, lane: LaneId) {
        self.lanes.rest(lane);
        self.model.rest(place);
    }

    fn agree(&self) {
        let (lanes, model) = (&self.lanes, &self.model);
        assert_eq!(lanes.works(), model.lanes.iter().map(|lane| lane.items.len()).sum::<usize>());
        let busy: Vec<_> = model.lanes.iter().filter_map(Queue::busy).collect();
        assert_eq!(busy.len(), busy.iter().collect::<HashSet<_>>().len(), "one lane is busy twice");
        let active: Vec<_> = model.lanes.iter().filter_map(|lane| lane.name).collect();
        let line = model.lanes.iter().any(|lane| lane.stage == Stage::Ready);
        assert_eq!(lanes.is_clear(None), !line);
        for name in 0..NAMES {
            assert_eq!(lanes.is_clear(Some(name)), !line && !active.contains(&name));
        }
        // A lane that was woken early leaves its time behind until time is looked at again.
        let due = lanes.next_due();
        assert!(model.next_due().is_none_or(|until| due.is_some_and(|due| due <= until)));
        for (partition, assignments) in self.assignments.iter().enumerate() {
            for assignment in 0..=*assignments {
                let handled = model.lanes.iter().filter(|lane| lane.busy().is_some()).any(|lane| {
                    let head = lane.items.front();
                    head.is_some_and(|h| (h.partition, h.assignment) == (partition, assignment))
                });
                assert_eq!(lanes.has_busy(partition, assignment), handled);
            }
        }
    }

    /// Finishes whatever there is.
    fn finish_all(&mut self) {
        let end = self.now + Duration::from_secs(1000);
        self.now = end;
        self.lanes.due(end);
        self.model.due(end);
        loop {
            while self.next().is_some() {}
            let Some(place) = self.model.busy().first().copied() else { return };
            let lane = self.model.lanes[place].busy().unwrap();
            self.finish(place, lane);
            self.agree();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn lanes_do_as_their_model_does(calls in prop::collection::vec(call(), 0..200)) {
        let mut both = Both::new();
        for call in &calls {
            both.apply(call);
        }
        both.finish_all();
        let lanes = &both.lanes;
        prop_assert!(both.model.lanes.is_empty());
        prop_assert_eq!((lanes.works(), lanes.names.len(), lanes.ready.len()), (0, 0, 0));
        prop_assert_eq!(lanes.next_due(), None);
        prop_assert!(lanes.all.iter().all(|lane| lane.state == State::Free && !lane.woken));
        let free: HashSet<_> = lanes.free.iter().collect();
        prop_assert_eq!((free.len(), lanes.free.len()), (lanes.all.len(), lanes.all.len()));
    }
}
