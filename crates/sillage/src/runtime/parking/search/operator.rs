//! The model of an operator: each verb reads first and commits later, as in `admin/dead_letters`.

use super::{Held, Plan, Step, System, message, number, parked};
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
#[derive(Clone, Default, PartialEq, Hash)]
pub(super) enum Operator {
    Waits(Verb),
    /// It has read the key and the id of its head.
    Read(Verb, Held, Text),
    /// It has read what was skipped, and the key if there is one.
    ReadSkipped(Taken, Option<Held>),
    #[default]
    Ended,
}

/// A skipped delivery as it was read.
#[derive(Clone)]
pub(super) struct Taken(Version, Box<Skipped>);

impl PartialEq for Taken {
    fn eq(&self, other: &Self) -> bool {
        let what = |Taken(version, skipped): &Taken| (*version, skipped.parked.id.clone());
        what(self) == what(other) && self.1.key == other.1.key
    }
}

impl Hash for Taken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0, &self.1.parked.id, self.1.key.head, self.1.key.redrives).hash(state);
    }
}

impl Operator {
    /// What it would read now.
    fn reads(&self, system: &System) -> Option<Operator> {
        match self {
            Operator::Waits(Verb::Restore) => {
                let stored = system.store.list(names::SKIPPED).pop()?;
                let skipped = serde_json::from_slice(&stored.body).unwrap();
                let key = system.store.key().cloned();
                Some(Operator::ReadSkipped(Taken(stored.version, skipped), key))
            }
            Operator::Waits(verb) => {
                let key = system.store.key()?;
                Some(Operator::Read(*verb, key.clone(), system.store.head(key)?))
            }
            _ => None,
        }
    }

    /// What it has read before a step that changes what there is to read. Whatever it reads
    /// earlier is the same, so no other moment needs to be searched.
    pub(super) fn has_read(&self, before: &System, after: &System) -> Option<Operator> {
        if before.store.is_same(&after.store) {
            return None;
        }
        let read = self.reads(before);
        if read == self.reads(after) { None } else { read }
    }

    pub(super) fn steps(place: usize, system: &System, plan: &Plan<'_>, steps: &mut Vec<Step>) {
        let operator = &system.operators[place];
        let Some(read) = operator.reads(system).or_else(|| operator.is_under_way()) else { return };
        let mut next = system.clone();
        next.operators[place] = Operator::Ended;
        let what = next.act(&read, plan);
        steps.push(Step { who: "operator", what, next });
    }

    pub(super) fn is_under_way(&self) -> Option<Operator> {
        let is_it = matches!(self, Operator::Read(..) | Operator::ReadSkipped(..));
        is_it.then(|| self.clone())
    }
}

impl System {
    fn act(&mut self, operator: &Operator, plan: &Plan<'_>) -> &'static str {
        let now = Timestamp::default();
        let (what, commit) = match operator {
            Operator::Read(Verb::Redrive, key, head) => {
                ("redrives", key.0.redrive(&parked(head), now).unwrap().1)
            }
            Operator::Read(Verb::Skip, key, head) => ("skips", skip(&key.0, head)),
            Operator::Read(_, key, head) => {
                let copy = message(&format!("c{}", number(head)));
                ("edits", key.0.edit(&parked(head), &copy, now).unwrap())
            }
            Operator::ReadSkipped(taken, key) => {
                let key = key.as_ref().map(|key| &*key.0);
                let Ok((_, mut commit)) = Key::restore(key, &taken.1, now) else {
                    return "cannot restore";
                };
                take_skipped(&mut commit, taken);
                ("restores", commit)
            }
            Operator::Waits(_) | Operator::Ended => return "does nothing",
        };
        if self.acted(commit, plan)
            && let Operator::ReadSkipped(taken, _) = operator
        {
            self.restored |= 1 << number(&taken.1.parked.id);
        }
        what
    }

    /// Members notice what was committed; what was refused is told to the operator.
    fn acted(&mut self, mut commit: Commit, plan: &Plan<'_>) -> bool {
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
