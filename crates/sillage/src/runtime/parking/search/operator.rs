//! The model of an operator: each verb reads first and commits later, as in `admin/dead_letters`.

use super::{
    Held, Plan, Steps, System,
    member::{read_head, read_key},
    message, number, parked,
};
use crate::{
    names,
    runtime::parking::{Key, Skipped},
};
use sillage_core::{Commit, Condition, Decision, Stored, Text, Timestamp, Write};

/// What an operator may do, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Verb {
    Redrive,
    Skip,
    Edit,
    Restore,
}

/// How far it is.
#[derive(Clone, Hash)]
pub(super) enum Operator {
    Waits(Verb),
    HasKey(Verb, Held),
    HasHead(Verb, Held, Text),
    HasSkipped(u64, Held2),
    HasBoth(u64, Held2, Option<Held>),
    Ended,
}

/// A skipped delivery as it was read.
#[derive(Clone)]
pub(super) struct Held2(Skipped);

impl std::hash::Hash for Held2 {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.0.parked.id, Held(self.key())).hash(state);
    }
}

impl Held2 {
    fn key(&self) -> Key {
        Key { id: self.0.key_id.clone(), version: None, state: self.0.key.clone() }
    }
}

impl Operator {
    pub(super) fn steps(place: usize, system: &System, plan: &Plan, steps: &mut Steps) {
        let mut step = |what, operator: Operator, change: &dyn Fn(&mut System)| {
            let mut next = system.clone();
            change(&mut next);
            next.operators[place] = operator;
            steps.push(("operator", what, next));
        };
        match &system.operators[place] {
            Operator::Waits(verb) => {
                step("does nothing", Operator::Ended, &|_| {});
                if *verb == Verb::Restore {
                    if let Some((stored, skipped)) = read_skipped(system) {
                        let read = Operator::HasSkipped(stored.version.0, Held2(skipped));
                        step("reads what was skipped", read, &|_| {});
                    }
                } else if let Some(key) = read_key(system) {
                    step("reads the key", Operator::HasKey(*verb, key), &|_| {});
                }
            }
            Operator::HasKey(Verb::Redrive, key) => {
                let (_, commit) = key.0.redrive(Timestamp::default()).unwrap();
                step("redrives", Operator::Ended, &|next| next.act(commit.clone(), plan));
            }
            Operator::HasKey(verb, key) => match read_head(system, &key.0) {
                Some(id) => {
                    step("reads the head", Operator::HasHead(*verb, key.clone(), id), &|_| {});
                }
                None => step("finds no head", Operator::Ended, &|_| {}),
            },
            Operator::HasHead(verb, key, id) if *verb == Verb::Skip => {
                step("skips", Operator::Ended, &|next| next.act(skip(&key.0, id), plan));
            }
            Operator::HasHead(_, key, id) => step("edits", Operator::Ended, &|next| {
                let copy = message(&format!("c{}", number(id)));
                let commit = key.0.edit(&parked(id), &copy, Timestamp::default()).unwrap();
                next.act(commit, plan);
            }),
            Operator::HasSkipped(version, skipped) => {
                let read = Operator::HasBoth(*version, skipped.clone(), read_key(system));
                step("reads the key", read, &|_| {});
            }
            Operator::HasBoth(version, skipped, key) => {
                step("restores", Operator::Ended, &|next| {
                    let key = key.as_ref().map(|key| &key.0);
                    let made = Key::restore(key, &skipped.0, Timestamp::default());
                    let Ok((_, mut commit)) = made else { return };
                    take_skipped(&mut commit, skipped.0.key_id.clone(), *version);
                    let acts = next.acts;
                    next.act(commit, plan);
                    if next.acts > acts {
                        next.restored.insert(number(&skipped.0.parked.id));
                    }
                });
            }
            Operator::Ended => {}
        }
    }
}

impl System {
    /// Members notice what was committed; what was refused is told to the operator.
    fn act(&mut self, mut commit: Commit, plan: &Plan) {
        plan.bug.plant(&mut commit, "act");
        self.acts += u8::from(self.store.commit(commit).is_ok());
    }
}

/// As `Admin::skip`.
fn skip(key: &Key, id: &str) -> Commit {
    let head = parked(id);
    let (_, mut commit) = key.pop(&head, Decision::Skipped, Timestamp::default()).unwrap();
    let skipped = Skipped { key_id: key.id.clone(), key: key.state.clone(), parked: head };
    let body = serde_json::to_vec(&skipped).unwrap().into();
    let collection = names::SKIPPED.into();
    commit.writes.push(Write::Put { collection, id: key.id.clone(), sort: None, body });
    commit
}

/// As `Admin::restore`.
fn take_skipped(commit: &mut Commit, id: Text, version: u64) {
    let (collection, expected) = (Text::from(names::SKIPPED), Some(sillage_core::Version(version)));
    let unchanged =
        Condition::Document { collection: collection.clone(), id: id.clone(), expected };
    commit.conditions.push(unchanged);
    commit.writes.push(Write::Delete { collection, id });
}

fn read_skipped(system: &System) -> Option<(Stored, Skipped)> {
    let stored = system.store.list(names::SKIPPED).pop()?;
    let skipped = serde_json::from_slice(&stored.body).unwrap();
    Some((stored, skipped))
}
