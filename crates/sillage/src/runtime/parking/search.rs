//! Searches parking, inbox and rebalance exhaustively: every interleaving of two members, their
//! retries and operators on one key of a few messages.
//!
//! Explicit-state model checking (Holzmann, *The Spin Model Checker*, 2003), breadth first, so
//! that the history of a violation is the shortest; visited states are kept as 128-bit
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
    collections::{BTreeSet, HashMap, HashSet, VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};
use store::Store;

/// A parked key as somebody read it.
#[derive(Clone)]
pub(super) struct Held(pub(super) Key);

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
    operators: Vec<Operator>,
    /// How many acts of operators were committed.
    acts: u8,
    /// How often a handler may still fail.
    failures: u8,
    /// How often the partition may still change hands.
    handovers: u8,
    /// Messages that an operator took back: they come late by intent.
    restored: BTreeSet<u8>,
}

type Steps = Vec<(&'static str, &'static str, System)>;

/// What is searched.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    messages: u8,
    failures: u8,
    handovers: u8,
    careful: bool,
    zombies: bool,
    verbs: &'static [Verb],
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
}

impl Bug {
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
    match id.starts_with('m') {
        true => Parked::at(Position(number(id).into()), &message(id)),
        false => Parked::copy(&message(id)).unwrap(),
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
    numbers: HashMap<u128, u32>,
    from: Vec<(u32, &'static str, &'static str)>,
    steps: Vec<(u32, u32)>,
    ends: Vec<u32>,
}

impl Seen {
    /// The number of a state, and whether it is new.
    fn number(&mut self, system: &System) -> (u32, bool) {
        let mut halves = [DefaultHasher::new(), DefaultHasher::new()];
        1u8.hash(&mut halves[1]);
        let [a, b] = halves.map(|mut hasher| {
            system.hash(&mut hasher);
            hasher.finish()
        });
        let next = u32::try_from(self.numbers.len()).unwrap();
        let number = *self.numbers.entry(u128::from(a) << 64 | u128::from(b)).or_insert(next);
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

impl System {
    fn store_print(&self) -> u64 {
        let mut h = DefaultHasher::new();
        (&self.store, &self.restored).hash(&mut h);
        h.finish()
    }
}

impl Plan {
    fn start(&self) -> System {
        System {
            store: Store::new(),
            members: [Member::owner(), Member::default()],
            operators: self.verbs.iter().map(|verb| Operator::Waits(*verb)).collect(),
            acts: 0,
            failures: self.failures,
            handovers: self.handovers,
            restored: BTreeSet::new(),
        }
    }

    fn steps(&self, system: &System) -> Steps {
        let mut steps = vec![];
        for place in 0..2 {
            Member::steps(place, system, self, &mut steps);
        }
        for place in 0..system.operators.len() {
            Operator::steps(place, system, self, &mut steps);
        }
        steps
    }

    fn search(&self) -> Found {
        let mut seen = Seen::default();
        let start = self.start();
        seen.number(&start);
        seen.from.push((0, "", ""));
        let mut checked = HashSet::new();
        let mut open = VecDeque::from([(0, start)]);
        while let Some((from, system)) = open.pop_front() {
            let steps = self.steps(&system);
            let is_end = steps.iter().all(|(who, ..)| *who == "operator")
                && !system.operators.iter().any(Operator::is_under_way);
            let checked = !checked.insert(system.store_print());
            let violation = (!checked).then(|| system.violation()).flatten();
            let at_the_end = || is_end.then(|| system.violation_at_the_end(self)).flatten();
            let violation = violation.or_else(at_the_end);
            if let Some(what) = violation {
                let violation = Some(seen.history(from, &what));
                return Found { states: seen.numbers.len(), violation };
            }
            if is_end {
                seen.ends.push(from);
            }
            for (who, did, next) in steps {
                let (to, is_new) = seen.number(&next);
                seen.steps.push((from, to));
                if is_new {
                    seen.from.push((from, who, did));
                    open.push_back((to, next));
                }
            }
        }
        let violation = seen.endless().map(|state| seen.history(state, "it can never end"));
        Found { states: seen.numbers.len(), violation }
    }
}

const PLAN: Plan = Plan {
    messages: 3,
    failures: 2,
    handovers: 1,
    careful: false,
    zombies: false,
    verbs: &[],
    bug: Bug::None,
};

fn holds(what: &str, plan: Plan) {
    let found = plan.search();
    println!("{what}: {} states", found.states);
    assert!(found.violation.is_none(), "{what}:\n{}", found.violation.unwrap());
}

fn is_caught(plan: Plan) {
    let found = plan.search();
    let history = found.violation.unwrap_or_else(|| panic!("{:?} is not found", plan.bug));
    println!("{:?}: found after {} states\n{history}", plan.bug, found.states);
}

#[test]
fn a_zombie_and_its_successor() {
    holds("rebalance", PLAN);
}

#[test]
fn a_successor_after_a_crash() {
    holds("crash", Plan { careful: true, ..PLAN });
}

#[test]
fn redrive_pressed_twice() {
    holds("redrive", Plan { verbs: &[Verb::Redrive, Verb::Redrive], ..PLAN });
}

#[test]
fn skip_and_edit() {
    holds("skip and edit", Plan { verbs: &[Verb::Skip, Verb::Edit], ..PLAN });
}

#[test]
fn skip_and_restore() {
    holds("skip and restore", Plan { verbs: &[Verb::Skip, Verb::Restore], ..PLAN });
}

#[test]
fn planted_bugs_are_found() {
    let skip = Plan { verbs: &[Verb::Skip], ..PLAN };
    for bug in [Bug::AppendUnconditionally, Bug::NoRow, Bug::RetryAsFirst, Bug::PopUnconditionally]
    {
        is_caught(Plan { bug, ..skip });
    }
    is_caught(Plan { bug: Bug::NoLease, zombies: true, ..PLAN });
    is_caught(Plan { bug: Bug::OldWork, handovers: 2, ..PLAN });
}

#[test]
fn zz_sizes() {
    let verbs: [&'static [Verb]; 7] = [
        &[Verb::Redrive], &[Verb::Skip], &[Verb::Edit], &[Verb::Redrive, Verb::Redrive],
        &[Verb::Skip, Verb::Edit], &[Verb::Skip, Verb::Restore], &[Verb::Redrive, Verb::Skip],
    ];
    for (messages, handovers, failures) in [(3, 0, 2), (2, 1, 2), (2, 0, 2), (3,0,1), (3,1,1)] {
        for verbs in verbs {
            let found = Plan { messages, handovers, failures, verbs, ..PLAN }.search();
            println!("{messages} {handovers} {failures} {verbs:?}: {} {:?}", found.states, found.violation);
        }
    }
    for handovers in [2] { for messages in [2, 3] {
        let found = Plan { messages, handovers, ..PLAN }.search();
        println!("{messages} {handovers}: {} {:?}", found.states, found.violation);
        let found = Plan { messages, handovers, failures: 1, ..PLAN }.search();
        println!("{messages} {handovers} 1: {} {:?}", found.states, found.violation);
    }}
    let found = Plan { messages: 2, zombies: true, ..PLAN }.search();
    println!("zombies 2: {} {:?}", found.states, found.violation);
    let found = Plan { messages: 3, zombies: true, ..PLAN }.search();
    println!("zombies 3: {} {:?}", found.states, found.violation);
}
