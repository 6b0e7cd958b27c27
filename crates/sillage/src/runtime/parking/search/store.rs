//! A store with the port's semantics, small enough to be copied at every step of the search.

use bytes::Bytes;
use sillage_core::{
    Commit, CommitError, Condition, Decision, Delivered, Epoch, Stored, Text, Version, Write,
};
use std::collections::BTreeMap;

/// What the database holds: of one consumer, one source and one lease.
///
/// Unlike the port it takes the same message twice: effects on documents have no identity of
/// their own, so that must not be what keeps an effect from being doubled.
#[derive(Clone, Default, Hash)]
pub(super) struct Store {
    pub(super) documents: BTreeMap<(Text, Text), (Version, Bytes)>,
    pub(super) inbox: BTreeMap<Text, (Decision, Option<u64>)>,
    /// The lease's epoch: it grows with every change of owner.
    pub(super) epoch: u64,
    /// Ids of the messages whose effects are committed, in order.
    pub(super) effects: Vec<Text>,
}

impl Store {
    pub(super) fn commit(&mut self, commit: Commit) -> Result<(), CommitError> {
        commit.conditions.iter().try_for_each(|condition| self.holds(condition))?;
        for write in commit.writes {
            self.apply(write);
        }
        Ok(())
    }

    fn holds(&self, condition: &Condition) -> Result<(), CommitError> {
        let decided = |delivery: &Delivered| self.inbox.get(&delivery.id).map(|row| row.0);
        let (holds, otherwise) = match condition {
            Condition::FirstTime(delivery) => {
                (decided(delivery).is_none(), CommitError::AlreadyHandled)
            }
            Condition::Decided(delivery, decision) => {
                (decided(delivery) == Some(*decision), CommitError::AlreadyHandled)
            }
            Condition::Document { collection, id, expected } => {
                let actual = self.get(collection, id).map(|stored| stored.version);
                (actual == *expected, CommitError::Conflict { expected: *expected, actual })
            }
            Condition::Lease { epoch, .. } => (*epoch == Epoch(self.epoch), CommitError::Fenced),
            other => panic!("the search has no {other:?}"),
        };
        if holds { Ok(()) } else { Err(otherwise) }
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Append { message, .. } => self.effects.push(message.id.text()),
            Write::Put { collection, id, body, .. } => {
                let stored = self.documents.entry((collection, id)).or_default();
                *stored = (stored.0.next(), body);
            }
            Write::Delete { collection, id } => {
                self.documents.remove(&(collection, id));
            }
            Write::Decide { delivery, decision, until } => {
                self.inbox.insert(delivery.id, (decision, until.map(|(_, offset)| offset)));
            }
            Write::Forget { through, .. } => {
                self.inbox.retain(|_, (_, until)| until.is_none_or(|until| until > through));
            }
        }
    }

    pub(super) fn get(&self, collection: &str, id: &str) -> Option<Stored> {
        let (version, body) = self.documents.get(&(collection.into(), id.into()))?.clone();
        Some(Stored { id: id.into(), version, sort: None, body })
    }

    pub(super) fn list(&self, collection: &str) -> Vec<Stored> {
        let of_it = |((c, id), (version, body)): (&(Text, Text), &(Version, Bytes))| {
            let (id, version, body) = (id.clone(), *version, body.clone());
            (**c == *collection).then_some(Stored { id, version, sort: None, body })
        };
        self.documents.iter().filter_map(of_it).collect()
    }
}
