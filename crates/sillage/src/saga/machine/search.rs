//! Searches the machine exhaustively: every interleaving of commands, answers, time-outs,
//! duplicates, late and lost messages with participants that keep tombstones.
//!
//! Explicit-state model checking (Holzmann, *The Spin Model Checker*, 2003), breadth first. Each
//! bug that the algorithm guards against is planted once, and the search must find it. Longer sagas
//! are walked at random by proptest, which shrinks what it finds.

use super::{Input, Kind, Output, Planned, Progress, State, Status};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

/// What is on its way. Everything may be overtaken, and a command may become a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Sent {
    Do(usize),
    Undo(usize),
    Answer(usize, bool),
    UndoAnswer(usize),
}

/// What a participant knows of one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Operation {
    /// What it answered: the same for every attempt.
    answer: Option<bool>,
    /// Its undo has come: a command that comes later is dropped.
    tombstone: bool,
    done: u8,
    undone: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// Participants do not keep tombstones.
    NoTombstone,
    /// A step that timed out counts as not done.
    UnknownIsNotDone,
    /// All undos are sent at once.
    NotInReverse,
    /// An answer to what is stuck is not heard any more.
    StuckIsDeaf,
    /// Participants do not know attempts of one operation from others.
    NoOperationId,
    /// What was refused is undone as well.
    RefusedIsUndone,
}

#[derive(Clone, Hash)]
struct World {
    saga: State,
    /// Timers that are set, by step.
    timers: BTreeSet<usize>,
    wire: BTreeMap<Sent, u8>,
    operations: Vec<Operation>,
    /// Steps in the order in which they were undone.
    undone: Vec<usize>,
    copies: u8,
    /// So many commands may still get lost.
    losses: u8,
    lost: u8,
    ended: u8,
    /// The operator may still cancel.
    cancels: u8,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Start,
    Take(Sent, bool),
    /// The participant refuses, instead of doing it.
    Refuse(Sent),
    Lose(Sent),
    Due(usize),
    Cancel,
}

/// How often each may happen.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    copies: u8,
    losses: u8,
    cancels: u8,
}

struct Plan {
    steps: Vec<Planned>,
    bug: Bug,
}

fn planned(stage: usize, kind: Kind) -> Planned {
    let tries = if kind == Kind::Undoable { 1 } else { 2 };
    Planned { stage, kind, tries, undo_tries: 2 }
}

impl World {
    fn new(plan: &Plan, bounds: Bounds) -> Self {
        let count = plan.steps.len();
        let Bounds { copies, losses, cancels } = bounds;
        World {
            saga: State::new(count),
            timers: BTreeSet::new(),
            wire: BTreeMap::new(),
            operations: vec![Operation::default(); count],
            undone: vec![],
            copies,
            losses,
            lost: 0,
            ended: 0,
            cancels,
        }
    }

    fn acts(&self, plan: &Plan) -> Vec<Act> {
        if self.saga.steps.iter().all(|s| s.progress == Progress::Waiting) && !self.saga.back {
            return vec![Act::Start];
        }
        let mut acts = vec![];
        for sent in self.wire.keys() {
            acts.push(Act::Take(*sent, false));
            if self.copies > 0 {
                acts.push(Act::Take(*sent, true));
            }
            if self.losses > 0 && matches!(sent, Sent::Do(_) | Sent::Undo(_)) {
                acts.push(Act::Lose(*sent));
            }
            if let Sent::Do(step) = sent
                && self.operations[*step].answer.is_none()
                && plan.steps[*step].kind != Kind::Forward
            {
                acts.push(Act::Refuse(*sent));
            }
        }
        acts.extend(self.timers.iter().map(|step| Act::Due(*step)));
        if self.cancels > 0 && self.saga.can_cancel(&plan.steps) {
            acts.push(Act::Cancel);
        }
        acts
    }

    fn act(&mut self, plan: &Plan, act: Act) {
        match act {
            Act::Start => self.input(plan, Input::Start),
            Act::Cancel => {
                self.cancels -= 1;
                self.input(plan, Input::Cancel);
            }
            Act::Due(step) => {
                self.timers.remove(&step);
                self.input(plan, Input::Due(step));
            }
            Act::Lose(sent) => {
                (self.losses, self.lost) = (self.losses - 1, self.lost + 1);
                self.remove(sent);
            }
            Act::Refuse(sent) => {
                if let Sent::Do(step) = sent {
                    self.operations[step].answer = Some(false);
                }
                self.take(plan, sent);
            }
            Act::Take(sent, stays) => {
                if stays {
                    self.copies -= 1;
                    self.put(sent);
                }
                self.take(plan, sent);
            }
        }
    }

    fn put(&mut self, sent: Sent) {
        *self.wire.entry(sent).or_default() += 1;
    }

    fn remove(&mut self, sent: Sent) {
        let count = self.wire.entry(sent).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.wire.remove(&sent);
        }
    }

    fn take(&mut self, plan: &Plan, sent: Sent) {
        self.remove(sent);
        match sent {
            Sent::Do(step) => self.participate(plan, step),
            Sent::Undo(step) => self.undo(step),
            Sent::Answer(step, true) => {
                self.input(plan, Input::Done(step));
            }
            Sent::Answer(step, false) => self.input(plan, Input::Refused(step)),
            Sent::UndoAnswer(step) => self.input(plan, Input::Undone(step)),
        }
    }

    /// The same answer to every attempt of an operation, done once; nothing once it was undone.
    fn participate(&mut self, plan: &Plan, step: usize) {
        let operation = &mut self.operations[step];
        if operation.tombstone && plan.bug != Bug::NoTombstone {
            return;
        }
        let answer = *operation.answer.get_or_insert(true);
        let is_new = operation.done == 0 || operation.tombstone;
        if answer && (is_new || plan.bug == Bug::NoOperationId) {
            operation.done += 1;
        }
        self.put(Sent::Answer(step, answer));
    }

    fn undo(&mut self, step: usize) {
        let operation = &mut self.operations[step];
        operation.tombstone = true;
        if operation.done > operation.undone {
            operation.undone += 1;
            self.undone.push(step);
        }
        self.put(Sent::UndoAnswer(step));
    }

    fn input(&mut self, plan: &Plan, input: Input) {
        if let (Bug::UnknownIsNotDone, Input::Due(step)) = (plan.bug, input)
            && self.saga.steps[step].progress == Progress::Sent
            && plan.steps[step].kind == Kind::Undoable
        {
            return self.input(plan, Input::Refused(step));
        }
        if let (Bug::StuckIsDeaf, Input::Done(step) | Input::Undone(step)) = (plan.bug, input)
            && matches!(self.saga.steps[step].progress, Progress::Stuck | Progress::UndoStuck)
        {
            return;
        }
        let outputs = self.saga.apply(&plan.steps, input);
        for output in outputs {
            match output {
                Output::Do(step) => {
                    self.put(Sent::Do(step));
                    self.timers.insert(step);
                }
                Output::Undo(step) => self.send_undo(plan, step),
                Output::Rest(step) => drop(self.timers.insert(step)),
                Output::Settle(step) => drop(self.timers.remove(&step)),
                Output::Completed | Output::Compensated => self.ended += 1,
                Output::Stuck(_) => {}
            }
        }
    }

    fn send_undo(&mut self, plan: &Plan, step: usize) {
        self.put(Sent::Undo(step));
        self.timers.insert(step);
        if plan.bug == Bug::NotInReverse {
            let done = |other: &usize| self.saga.steps[*other].progress == Progress::Done;
            for other in (0..plan.steps.len()).filter(done).collect::<Vec<_>>() {
                self.put(Sent::Undo(other));
            }
        }
        if plan.bug == Bug::RefusedIsUndone {
            let refused = |other: &usize| self.saga.steps[*other].progress == Progress::Refused;
            for other in (0..plan.steps.len()).filter(refused).collect::<Vec<_>>() {
                self.operations[other].undone += 1;
            }
        }
    }

    /// What is wrong now.
    fn wrong(&self, plan: &Plan) -> Option<String> {
        for (step, operation) in self.operations.iter().enumerate() {
            if operation.done > 1 || operation.undone > operation.done {
                return Some(format!("step {step}: {operation:?}"));
            }
        }
        let stages = self.undone.iter().map(|step| plan.steps[*step].stage);
        if !stages.rev().is_sorted() {
            return Some(format!("undone in the order {:?}", self.undone));
        }
        (self.ended > 1).then(|| format!("it has ended {} times", self.ended))
    }

    /// What is wrong when nothing more happens.
    fn wrong_end(&self, plan: &Plan) -> Option<String> {
        let status = self.saga.status;
        let undoable = |step: &usize| plan.steps[*step].kind == Kind::Undoable;
        let operations = self.operations.iter().enumerate();
        match status {
            Status::Completed => {
                let mut kept = operations.filter(|(_, o)| (o.done, o.undone) != (1, 0));
                kept.next().map(|(step, o)| format!("completed, but step {step} is {o:?}"))
            }
            Status::Compensated => {
                let mut kept = operations.filter(|(step, o)| undoable(step) && o.done != o.undone);
                kept.next().map(|(step, o)| format!("compensated, but step {step} is {o:?}"))
            }
            Status::Stuck if self.lost > 0 => None,
            Status::Stuck => Some("stuck, although everything was answered".to_owned()),
            Status::Running | Status::Compensating => Some(format!("left {status:?}")),
        }
    }
}

struct Found {
    states: usize,
    ends: HashSet<Status>,
    wrong: Option<(String, Vec<Act>)>,
}

fn search(plan: &Plan, bounds: Bounds) -> Found {
    let mut found = Found { states: 0, ends: HashSet::new(), wrong: None };
    let mut seen = HashSet::new();
    // Where each state came from, so that the way to a wrong one can be told.
    let mut ways: Vec<Option<(usize, Act)>> = vec![];
    let mut open = VecDeque::from([(World::new(plan, bounds), None)]);
    while let Some((world, way)) = open.pop_front() {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        if !seen.insert(hasher.finish()) {
            continue;
        }
        ways.push(way);
        found.states += 1;
        let acts = world.acts(plan);
        let mut wrong = world.wrong(plan);
        if acts.is_empty() {
            found.ends.insert(world.saga.status);
            wrong = wrong.or_else(|| world.wrong_end(plan));
        }
        if let Some(wrong) = wrong {
            let mut way = ways[found.states - 1];
            let path = std::iter::from_fn(|| {
                let (from, act) = way?;
                way = ways[from];
                Some(act)
            });
            let mut path: Vec<_> = path.collect();
            path.reverse();
            found.wrong = Some((wrong, path));
            return found;
        }
        for act in acts {
            let mut next = world.clone();
            next.act(plan, act);
            open.push_back((next, Some((found.states - 1, act))));
        }
    }
    found
}

/// One step, two beside each other, the pivot.
fn small(bug: Bug) -> Plan {
    let steps = vec![
        planned(0, Kind::Undoable),
        planned(1, Kind::Undoable),
        planned(1, Kind::Undoable),
        planned(2, Kind::Pivot),
    ];
    Plan { steps, bug }
}

/// Three in a row, and one behind the pivot.
fn long(bug: Bug) -> Plan {
    let steps = vec![
        planned(0, Kind::Undoable),
        planned(1, Kind::Harmless),
        planned(2, Kind::Undoable),
        planned(3, Kind::Pivot),
        planned(4, Kind::Forward),
    ];
    Plan { steps, bug }
}

const NONE: Bounds = Bounds { copies: 0, losses: 0, cancels: 0 };

#[test]
fn every_saga_ends_and_what_was_done_is_undone_once_in_reverse() {
    let (small, long) = (small(Bug::None), long(Bug::None));
    let (copied, cancelled) = (Bounds { copies: 1, ..NONE }, Bounds { cancels: 1, ..NONE });
    let lost = Bounds { losses: 2, ..NONE };
    for (plan, bounds) in [(&small, copied), (&long, copied), (&small, cancelled), (&long, lost)] {
        let found = search(plan, bounds);
        assert!(found.wrong.is_none(), "{:#?}", found.wrong);
        let mut ends = HashSet::from([Status::Completed, Status::Compensated]);
        ends.extend((bounds.losses > 0).then_some(Status::Stuck));
        assert_eq!(found.ends, ends);
        assert!(found.states > 5_000, "only {} states", found.states);
    }
}

#[test]
fn the_search_finds_every_planted_bug() {
    for bug in [
        Bug::NoTombstone,
        Bug::UnknownIsNotDone,
        Bug::NotInReverse,
        Bug::StuckIsDeaf,
        Bug::NoOperationId,
        Bug::RefusedIsUndone,
    ] {
        let bounds = Bounds { copies: 1, ..NONE };
        let wrong = [small(bug), long(bug)].iter().find_map(|plan| search(plan, bounds).wrong);
        assert!(wrong.is_some(), "{bug:?} was not found");
    }
}

fn kinds() -> impl Strategy<Value = Vec<Planned>> {
    let before = prop::collection::vec((any::<bool>(), any::<bool>(), 1..4_u32), 0..6);
    (before, 0..3_usize, 1..4_u32).prop_map(|(before, behind, undo_tries)| {
        let mut steps: Vec<Planned> = vec![];
        for (beside, undoable, tries) in before {
            let stage = steps.last().map_or(0, |last| last.stage + usize::from(!beside));
            let kind = if undoable { Kind::Undoable } else { Kind::Harmless };
            steps.push(Planned { stage, kind, tries, undo_tries });
        }
        let stage = steps.last().map_or(0, |last| last.stage + 1);
        steps.push(Planned { stage, kind: Kind::Pivot, tries: 2, undo_tries });
        let forward =
            |n| Planned { stage: stage + 1 + n, kind: Kind::Forward, tries: 2, undo_tries };
        steps.extend((0..behind).map(forward));
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever it is made of and whatever comes: it ends, and an operator who retries or skips
    /// brings a stuck one to its end as well.
    #[test]
    fn any_saga_ends(
        steps in kinds(),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 400),
        skips: bool,
    ) {
        let plan = Plan { steps, bug: Bug::None };
        let mut world = World::new(&plan, Bounds { copies: 20, losses: 3, cancels: 1 });
        for choice in choices {
            let acts = world.acts(&plan);
            if acts.is_empty() {
                break;
            }
            world.act(&plan, acts[choice.index(acts.len())]);
            prop_assert_eq!(world.wrong(&plan), None);
        }
        (world.copies, world.losses) = (0, 0);
        for _ in 0..2_000 {
            match world.acts(&plan).first() {
                Some(act) => world.act(&plan, *act),
                None if world.saga.status == Status::Stuck => {
                    world.input(&plan, if skips { Input::Skip } else { Input::Retry });
                }
                None => break,
            }
            prop_assert_eq!(world.wrong(&plan), None);
        }
        prop_assert!(world.saga.status.is_end(), "{:?}", world.saga);
        if !skips {
            prop_assert_eq!(world.wrong_end(&plan), None);
        }
    }
}
