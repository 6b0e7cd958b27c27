//! Commits of a member, as `member/outcome` and `member/parked` make them.

use super::{Held, Plan, System, message, number, parked};
use crate::runtime::parking::{Failed, Key};
use sillage_core::{
    Commit, CommitError, Condition, Decision, Delivered, Epoch, Failure, Text, Timestamp, Write,
};
use std::sync::Arc;

pub(super) const CONSUMER: &str = "shop/billing";
pub(super) const PARTITION: &str = "log/0";

/// What a commit is for.
#[derive(Clone, Hash)]
pub(super) enum Intent {
    Handled(Text),
    Parked(Text, bool),
    Appended(Held, Text),
    Popped(Held, Text),
    Failed(Held, Text, bool),
}

#[derive(Clone, Hash)]
pub(super) enum Answer {
    /// With the parked key as it is then.
    Done(Option<Held>),
    AlreadyHandled,
    Conflict,
    Fenced,
}

impl Intent {
    /// Whether it changes the parked key.
    pub(super) fn is_of_key(&self) -> bool {
        !matches!(self, Intent::Handled(_))
    }

    pub(super) fn verb(&self) -> &'static str {
        match self {
            Intent::Handled(_) => "commits the effect",
            Intent::Parked(..) => "commits the parking",
            Intent::Appended(..) => "commits the append",
            Intent::Popped(..) => "commits the effect of the head",
            Intent::Failed(..) => "commits the failure of the head",
        }
    }

    /// The commit, fenced by an epoch, and the parked key after it.
    fn commit(&self, epoch: Option<u64>) -> (Commit, Option<Held>) {
        let now = Timestamp::default();
        let (mut commit, next) = match self {
            Intent::Handled(id) => (handled(id), None),
            Intent::Parked(id, dead) => {
                let (consumer, partition, name) = (CONSUMER.into(), PARTITION.into(), name());
                let failure = Failure::transient(&**id);
                let failed = failed(&name, &failure, 1, *dead);
                let (message, parked) = (message(id), parked(id));
                let made = Key::park(&consumer, &partition, &message, &parked, &failed).unwrap();
                (made.1, Some(made.0))
            }
            Intent::Appended(key, id) => {
                let (next, commit) = key.0.append(&parked(id)).unwrap();
                (commit, Some(next))
            }
            Intent::Popped(key, id) => {
                let (next, mut commit) = key.0.pop(&parked(id), Decision::Done, now).unwrap();
                commit.writes.insert(0, effect(id));
                (commit, next)
            }
            Intent::Failed(key, id, dead) => {
                let (name, failure) = (name(), Failure::transient(&**id));
                let failed = failed(&name, &failure, key.0.state.attempts + 1, *dead);
                let (next, commit) = key.0.failed(&parked(id), &failed).unwrap();
                (commit, Some(next))
            }
        };
        commit.conditions.extend(fence(epoch));
        (commit, next.map(|next| Held(next.into())))
    }

    pub(super) fn apply(&self, epoch: Option<u64>, system: &mut System, plan: &Plan<'_>) -> Answer {
        let (mut commit, next) = self.commit(epoch);
        plan.bug.plant(&mut commit, self.verb());
        match system.store.commit(commit) {
            Ok(()) => Answer::Done(next),
            Err(CommitError::AlreadyHandled) => Answer::AlreadyHandled,
            Err(CommitError::Conflict { .. }) => Answer::Conflict,
            Err(CommitError::Fenced) => Answer::Fenced,
            Err(other) => panic!("{other}"),
        }
    }
}

fn handled(id: &str) -> Commit {
    let (consumer, source) = (CONSUMER.into(), "shop".into());
    let delivery = Delivered { consumer, source, id: id.into() };
    let until = Some((PARTITION.into(), number(id).into()));
    let decide = Write::Decide { delivery: delivery.clone(), decision: Decision::Done, until };
    let writes = vec![effect(id), decide];
    Commit { conditions: vec![Condition::FirstTime(delivery)], writes }
}

fn effect(id: &str) -> Write {
    Write::Append { stream: None, message: Arc::new(message(id)) }
}

fn fence(epoch: Option<u64>) -> Option<Condition> {
    epoch.map(|epoch| Condition::Lease { name: "slot".into(), epoch: Epoch(epoch) })
}

fn name() -> Text {
    "order.created".into()
}

fn failed<'a>(name: &'a Text, failure: &'a Failure, attempts: u32, dead: bool) -> Failed<'a> {
    let now = Timestamp::default();
    Failed { name, failure, attempts, now, next_try: (!dead).then_some(now) }
}
