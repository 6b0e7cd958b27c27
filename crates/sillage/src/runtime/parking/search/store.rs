//! A store with the port's semantics, small enough to be copied at every step of the search.

use super::{
    Held,
    intent::{CONSUMER, PARTITION},
};
use crate::{
    names,
    runtime::parking::{Key, Parked},
};
use bytes::Bytes;
use sillage_core::{
    Commit, CommitError, Condition, Decision, Delivered, Epoch, Stored, Text, Version, Write,
};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// What the database holds.
#[derive(Clone)]
pub(super) struct Store {
    tables: Arc<Tables>,
    /// The parked key in it.
    key: Option<Held>,
    fingerprint: u64,
}

/// Of one consumer, one source and one lease.
///
/// Unlike the port it takes the same message twice: effects on documents have no identity of
/// their own, so that must not be what keeps an effect from being doubled.
#[derive(Clone, Default, Hash)]
struct Tables {
    documents: BTreeMap<(Text, Text), (Version, Bytes)>,
    inbox: BTreeMap<Text, (Decision, Option<u64>)>,
    epoch: u64,
    /// Ids of the messages whose effects are committed, in order.
    effects: Vec<Text>,
}

impl Hash for Store {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.fingerprint.hash(state);
    }
}

impl Store {
    /// Nothing has happened; the lease has its first owner.
    pub(super) fn new() -> Self {
        let tables = Arc::new(Tables { epoch: 1, ..Tables::default() });
        Store { tables, key: None, fingerprint: 0 }
    }

    fn change(&mut self, change: impl FnOnce(&mut Tables)) {
        change(Arc::make_mut(&mut self.tables));
        let mut hasher = DefaultHasher::new();
        self.tables.hash(&mut hasher);
        self.fingerprint = hasher.finish();
        let stored = self.list(names::PARKED_KEYS).pop();
        self.key = stored.map(|stored| Held(Arc::new(Key::read(&stored).unwrap())));
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tables, &other.tables)
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub(super) fn commit(&mut self, commit: Commit) -> Result<(), CommitError> {
        commit.conditions.iter().try_for_each(|condition| self.tables.holds(condition))?;
        self.change(|tables| commit.writes.into_iter().for_each(|write| tables.apply(write)));
        Ok(())
    }

    /// The lease goes to another owner, after the last one has settled up to `mark`.
    pub(super) fn hand_over(&mut self, mark: u8) -> u64 {
        let (collection, id, body) =
            (names::WATERMARKS.into(), PARTITION.into(), vec![mark].into());
        let (consumer, partition) = (CONSUMER.into(), PARTITION.into());
        self.change(|tables| {
            tables.apply(Write::Put { collection, id, sort: None, body });
            tables.apply(Write::Forget { consumer, partition, through: mark.into() });
            tables.epoch += 1;
        });
        self.epoch()
    }

    pub(super) fn settled(&self) -> u8 {
        self.get(names::WATERMARKS, PARTITION).map_or(0, |stored| stored.body[0])
    }

    pub(super) fn epoch(&self) -> u64 {
        self.tables.epoch
    }

    pub(super) fn effects(&self) -> &[Text] {
        &self.tables.effects
    }

    pub(super) fn inbox(&self) -> &BTreeMap<Text, (Decision, Option<u64>)> {
        &self.tables.inbox
    }

    /// The parked key.
    pub(super) fn key(&self) -> Option<&Held> {
        self.key.as_ref()
    }

    /// The id of the parked delivery of that number.
    pub(super) fn parked(&self, key: &Held, number: u64) -> Option<Text> {
        let stored = self.get(names::PARKED, &names::parked(&key.0.id, number))?;
        Some(serde_json::from_slice::<Parked>(&stored.body).unwrap().id)
    }

    /// The id of the head of a parked key, where it is still there.
    pub(super) fn head(&self, key: &Held) -> Option<Text> {
        self.parked(key, key.0.state.head)
    }

    fn get(&self, collection: &str, id: &str) -> Option<Stored> {
        let key = (Text::from(collection), Text::from(id));
        let (version, body) = self.tables.documents.get(&key)?.clone();
        Some(Stored { id: key.1, version, sort: None, body })
    }

    pub(super) fn list(&self, collection: &str) -> Vec<Stored> {
        let all = self.tables.documents.iter();
        let of_it = all.filter(|((of, _), _)| **of == *collection);
        of_it
            .map(|((_, id), (version, body))| {
                let (id, version, body) = (id.clone(), *version, body.clone());
                Stored { id, version, sort: None, body }
            })
            .collect()
    }
}

impl Tables {
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
                let stored = self.documents.get(&(collection.clone(), id.clone()));
                let (actual, expected) = (stored.map(|(version, _)| *version), *expected);
                (actual == expected, CommitError::Conflict { expected, actual })
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
            Write::Trim { .. } | Write::Restore(_) | Write::Run(_) => {}
        }
    }
}
