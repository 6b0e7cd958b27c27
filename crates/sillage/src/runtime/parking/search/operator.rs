//! The model of an operator: each verb reads first and commits later, as in `admin/dead_letters`.

use super::{Held, Plan, Steps, System, message, number, parked};
use crate::{
    names,
    runtime::parking::{Key, Skipped},
};
use sillage_core::{Commit, Condition, Decision, Text, Timestamp, Version, Write};
use std::hash::{Hash, Hasher};

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
    Read(Verb, Held, Text),
    ReadSkipped(Taken, Option<Held>),
    Ended,
}

/// A skipped delivery as it was read.
#[derive(Clone)]
pub(super) struct Taken(Version, Skipped);

impl Hash for Taken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Skipped { key_id, key, parked } = &self.1;
        let key = Key { id: key_id.clone(), version: None, state: key.clone() };
        (self.0, &parked.id, Held(key)).hash(state);
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
        let now = Timestamp::default();
        match &system.operators[place] {
            Operator::Waits(Verb::Restore) => {
                if let Some(read) = read_skipped(system) {
                    step("reads what was skipped", read, &|_| {});
                }
            }
            Operator::Waits(verb) => {
                let Some(key) = system.store.key() else { return };
                let Some(head) = system.store.head(&key) else { return };
                step("reads the key", Operator::Read(*verb, key, head), &|_| {});
            }
            Operator::Read(verb, key, head) => {
                let (what, commit) = match verb {
                    Verb::Redrive => ("redrives", key.0.redrive(&parked(head), now).unwrap().1),
                    Verb::Skip => ("skips", skip(&key.0, head)),
                    _ => {
                        let copy = message(&format!("c{}", number(head)));
                        ("edits", key.0.edit(&parked(head), &copy, now).unwrap())
                    }
                };
                step(what, Operator::Ended, &|next| {
                    next.act(commit.clone(), plan);
                });
            }
            Operator::ReadSkipped(taken, key) => step("restores", Operator::Ended, &|next| {
                let key = key.as_ref().map(|key| &key.0);
                let Ok((_, mut commit)) = Key::restore(key, &taken.1, now) else { return };
                take_skipped(&mut commit, taken);
                if next.act(commit, plan) {
                    next.restored.insert(number(&taken.1.parked.id));
                }
            }),
            Operator::Ended => {}
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self, Operator::Read(..) | Operator::ReadSkipped(..))
    }
}

impl System {
    /// Members notice what was committed; what was refused is told to the operator.
    fn act(&mut self, mut commit: Commit, plan: &Plan) -> bool {
        plan.bug.plant(&mut commit, "act");
        let done = self.store.commit(commit).is_ok();
        self.acts += u8::from(done);
        done
    }
}

/// As `Admin::skip`.
fn skip(key: &Key, head: &str) -> Commit {
    let parked = parked(head);
    let (_, mut commit) = key.pop(&parked, Decision::Skipped, Timestamp::default()).unwrap();
    let skipped = Skipped { key_id: key.id.clone(), key: key.state.clone(), parked };
    let (collection, body) = (names::SKIPPED.into(), serde_json::to_vec(&skipped).unwrap().into());
    commit.writes.push(Write::Put { collection, id: key.id.clone(), sort: None, body });
    commit
}

/// As `Admin::restore`.
fn take_skipped(commit: &mut Commit, taken: &Taken) {
    let (collection, id) = (Text::from(names::SKIPPED), taken.1.key_id.clone());
    commit.conditions.push(Condition::Document {
        collection: collection.clone(),
        id: id.clone(),
        expected: Some(taken.0),
    });
    commit.writes.push(Write::Delete { collection, id });
}

fn read_skipped(system: &System) -> Option<Operator> {
    let stored = system.store.list(names::SKIPPED).pop()?;
    let skipped: Skipped = serde_json::from_slice(&stored.body).unwrap();
    Some(Operator::ReadSkipped(Taken(stored.version, skipped), system.store.key()))
}
