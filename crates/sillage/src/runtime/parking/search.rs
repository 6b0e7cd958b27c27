//! Searches parking, inbox and rebalance exhaustively: every interleaving of two members, their
//! retries and operators on one key of a few messages.
//!
//! Explicit-state model checking (Holzmann, *The Spin Model Checker*, 2003), breadth first, so
//! that the history of a violation is the shortest; visited states are kept as 64-bit
//! fingerprints. The commits are made by the real transitions of a parked key; members and
//! operators are modelled step by step. Each bug that the algorithm guards against is planted
//! once, and the search must find it.

mod intent;
mod invariants;
mod member;
mod operator;
mod store;

use super::{Key, Parked};
use member::Member;
use operator::{Operator, Verb};
use sillage_core::{
    Commit, Condition, Decision, Key as MessageKey, Message, MessageId, Position, Timestamp, Write,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};
use store::Store;

/// A parked key as somebody read it.
#[derive(Clone, PartialEq)]
pub(super) struct Held(pub(super) Arc<Key>);

impl Hash for Held {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let key = &self.0.state;
        (self.0.version, key.head, key.tail, key.bytes, key.dead, key.attempts).hash(state);
        (key.redrives, &key.failure).hash(state);
    }
}

/// Everything there is, at one moment.
#[derive(Clone, Hash)]
pub(super) struct System {
    store: Store,
    members: [Member; 2],
    operators: [Operator; 2],
    /// How many acts of operators were committed.
    acts: u8,
    /// How often a handler may still fail.
    failures: u8,
    /// How often the partition may still change hands.
    handovers: u8,
    /// Messages that an operator took back: they come late by intent.
    restored: u8,
}

/// Who does what, and everything as it is then.
pub(super) struct Step {
    who: &'static str,
    what: &'static str,
    next: System,
}

/// What is searched.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    messages: u8,
    failures: u8,
    handovers: u8,
    /// The second owner runs deliveries one by one, beside the lane of the parked key.
    careful: bool,
    /// A member that lost the partition for good goes on until it learns that.
    zombies: bool,
    verbs: &'a [Verb],
    bug: Bug,
}

/// What may be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    /// A delivery goes behind a parked key whatever became of that meanwhile.
    AppendUnconditionally,
    /// A parked delivery has no row in the inbox.
    NoRow,
    /// A retry asks for the first time instead of for the row that says parked.
    RetryAsFirst,
    /// The head is taken out whatever became of the key meanwhile.
    PopUnconditionally,
    /// Commits are not fenced by the lease.
    NoLease,
    /// What an ended assignment brought is committed under the next one.
    OldWork,
    /// The failure of a retry is noted on whatever delivery is the head then.
    FailureOfAnother,
    /// A retry takes out whatever is the head then.
    MovedHead,
    /// Keys that were read again count, whatever happened since they were asked for.
    TakesWhatIsOlder,
}

impl Bug {
    /// Makes a commit as it would be with the bug.
    fn plant(self, commit: &mut Commit, verb: &str) {
        let is_version = |condition: &Condition| matches!(condition, Condition::Document { .. });
        match self {
            Bug::AppendUnconditionally if verb == "commits the append" => {
                commit.conditions.retain(|condition| !is_version(condition));
            }
            Bug::PopUnconditionally if deletes(commit) => {
                commit.conditions.retain(|condition| !is_version(condition));
            }
            Bug::NoRow => {
                commit.writes.retain(|write| !decides(write, Decision::Parked));
                commit.conditions.iter_mut().for_each(first_time);
            }
            Bug::RetryAsFirst if verb == "commits the effect of the head" => {
                commit.conditions.iter_mut().for_each(first_time);
            }
            Bug::FailureOfAnother if verb == "commits the failure of the head" => {
                commit.conditions.retain(|c| !matches!(c, Condition::Decided(..)));
            }
            Bug::NoLease => commit.conditions.retain(|c| !matches!(c, Condition::Lease { .. })),
            _ => {}
        }
    }
}

fn deletes(commit: &Commit) -> bool {
    commit.writes.iter().any(|write| matches!(write, Write::Delete { .. }))
}

fn decides(write: &Write, wanted: Decision) -> bool {
    matches!(write, Write::Decide { decision, .. } if *decision == wanted)
}

fn first_time(condition: &mut Condition) {
    if let Condition::Decided(delivery, Decision::Parked) = condition {
        *condition = Condition::FirstTime(delivery.clone());
    }
}

/// `m1` is the first message, `c1` an edited copy of it.
fn message(id: &str) -> Message {
    Message {
        id: MessageId::new(id),
        source: "shop".into(),
        name: "order.created".into(),
        version: 1,
        topic: Some("order".into()),
        key: Some(MessageKey::of("k")),
        time: Timestamp::default(),
        correlation_id: id.into(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload: "{}".into(),
    }
}

fn number(id: &str) -> u8 {
    id[1..].parse().unwrap()
}

fn parked(id: &str) -> Parked {
    if id.starts_with('m') {
        Parked::at(Position(number(id).into()), &message(id))
    } else {
        Parked::copy(&message(id)).unwrap()
    }
}

/// What a search came to.
struct Found {
    states: usize,
    violation: Option<String>,
}

/// The states that were seen, and how they were reached.
#[derive(Default)]
struct Seen {
    numbers: HashMap<u64, u32>,
    from: Vec<(u32, &'static str, &'static str)>,
    steps: Vec<(u32, u32)>,
    ends: Vec<u32>,
}

impl Seen {
    /// The number of a state, and whether it is new.
    fn number(&mut self, system: &System) -> (u32, bool) {
        let mut hasher = DefaultHasher::new();
        system.hash(&mut hasher);
        let next = u32::try_from(self.numbers.len()).unwrap();
        let number = *self.numbers.entry(hasher.finish()).or_insert(next);
        (number, number == next)
    }

    fn history(&self, mut state: u32, what: &str) -> String {
        let mut lines = vec![what.to_owned()];
        while state != 0 {
            let (from, who, did) = self.from[state as usize];
            lines.push(format!("  {who} {did}"));
            state = from;
        }
        lines.reverse();
        lines.join("\n")
    }

    /// A state from which no end can be reached any more.
    fn endless(&self) -> Option<u32> {
        let mut back = vec![vec![]; self.numbers.len()];
        for (from, to) in &self.steps {
            back[*to as usize].push(*from);
        }
        let mut ends = vec![false; self.numbers.len()];
        let mut open = self.ends.clone();
        while let Some(state) = open.pop() {
            if !std::mem::replace(&mut ends[state as usize], true) {
                open.extend(&back[state as usize]);
            }
        }
        ends.iter().position(|ends| !ends).map(|state| u32::try_from(state).unwrap())
    }
}

impl Plan<'_> {
    fn start(&self) -> System {
        let mut operators = [Operator::Ended, Operator::Ended];
        for (operator, verb) in operators.iter_mut().zip(self.verbs) {
            *operator = Operator::Waits(*verb);
        }
        System {
            store: Store::new(),
            members: [Member::owner(), Member::default()],
            operators,
            acts: 0,
            failures: self.failures,
            handovers: self.handovers,
            restored: 0,
        }
    }

    /// The steps from here; with them, what operators have read before.
    fn steps(&self, system: &System) -> Vec<Step> {
        let mut steps = vec![];
        for place in [0, 1] {
            Member::steps(place, system, self, &mut steps);
            Operator::steps(place, system, self, &mut steps);
        }
        for place in [0, 1] {
            for index in 0..steps.len() {
                let Step { who, what, next } = &steps[index];
                if let Some(read) = next.operators[place].has_read(system, next) {
                    let mut next = next.clone();
                    next.operators[place] = read;
                    steps.push(Step { who, what, next });
                }
            }
        }
        steps
    }

    /// Nothing more happens, but for what operators may still begin.
    fn is_end(system: &System, steps: &[Step]) -> bool {
        steps.iter().all(|step| step.who == "operator")
            && system.operators.iter().all(|operator| operator.is_under_way().is_none())
    }

    fn search(&self) -> Found {
        let (mut seen, start) = (Seen::default(), self.start());
        seen.number(&start);
        seen.from.push((0, "", ""));
        let mut checked = HashSet::new();
        let mut open = VecDeque::from([(0, start)]);
        while let Some((from, system)) = open.pop_front() {
            let steps = self.steps(&system);
            let is_new = checked.insert((system.store.fingerprint(), system.restored));
            let mut violation = if is_new { system.violation() } else { None };
            if Plan::is_end(&system, &steps) {
                seen.ends.push(from);
                violation = violation.or_else(|| system.violation_at_the_end(self));
            }
            if let Some(what) = violation {
                let violation = Some(seen.history(from, &what));
                return Found { states: seen.numbers.len(), violation };
            }
            for Step { who, what, next } in steps {
                let (to, is_new) = seen.number(&next);
                seen.steps.push((from, to));
                if is_new {
                    seen.from.push((from, who, what));
                    open.push_back((to, next));
                }
            }
        }
        let violation = seen.endless().map(|state| seen.history(state, "it can never end"));
        Found { states: seen.numbers.len(), violation }
    }
}

const PLAN: Plan<'static> = Plan {
    messages: 3,
    failures: 2,
    handovers: 1,
    careful: false,
    zombies: false,
    verbs: &[],
    bug: Bug::None,
};

fn holds(what: &str, plan: Plan<'_>) {
    let found = plan.search();
    println!("{what}: {} states", found.states);
    assert!(found.violation.is_none(), "{what}:\n{}", found.violation.unwrap());
}

fn is_caught(plan: Plan<'_>) {
    let found = plan.search();
    let history = found.violation.unwrap_or_else(|| panic!("{:?} is not found", plan.bug));
    println!("{:?}, found after {} states:\n{history}", plan.bug, found.states);
}

#[test]
fn the_partition_changes_hands() {
    holds("one rebalance", PLAN);
    holds("there and back", Plan { messages: 2, failures: 1, handovers: 2, ..PLAN });
    holds("after a crash", Plan { careful: true, ..PLAN });
}

/// Elsewhere a member that has lost the partition for good does nothing more: all its commits are
/// refused. Here it goes on until it learns that.
#[test]
fn a_zombie_goes_on() {
    holds("zombie", Plan { messages: 2, zombies: true, ..PLAN });
}

#[test]
fn an_operator_acts_during_a_rebalance() {
    for verbs in [&[Verb::Redrive], &[Verb::Skip], &[Verb::Edit]] {
        holds(&format!("{verbs:?}"), Plan { failures: 1, verbs, ..PLAN });
    }
    holds("skip after a crash", Plan { messages: 2, careful: true, verbs: &[Verb::Skip], ..PLAN });
}

#[test]
fn two_operators_act_at_once() {
    let plan = Plan { handovers: 0, ..PLAN };
    holds("restore", Plan { verbs: &[Verb::Skip, Verb::Restore], ..plan });
    let plan = Plan { failures: 1, ..plan };
    holds("twice", Plan { verbs: &[Verb::Redrive, Verb::Redrive], ..plan });
    holds("skip and edit", Plan { verbs: &[Verb::Skip, Verb::Edit], ..plan });
    holds("redrive and skip", Plan { verbs: &[Verb::Redrive, Verb::Skip], ..plan });
}

#[test]
fn planted_bugs_are_found() {
    is_caught(Plan { bug: Bug::NoLease, zombies: true, ..PLAN });
    is_caught(Plan { bug: Bug::OldWork, handovers: 2, ..PLAN });
    let plan = Plan { handovers: 0, verbs: &[Verb::Skip, Verb::Restore], ..PLAN };
    for bug in [
        Bug::AppendUnconditionally,
        Bug::NoRow,
        Bug::RetryAsFirst,
        Bug::PopUnconditionally,
        Bug::MovedHead,
    ] {
        is_caught(Plan { bug, ..plan });
    }
    is_caught(Plan { bug: Bug::FailureOfAnother, verbs: &[Verb::Edit], ..plan });
    is_caught(Plan { bug: Bug::TakesWhatIsOlder, verbs: &[Verb::Redrive], ..plan });
}
