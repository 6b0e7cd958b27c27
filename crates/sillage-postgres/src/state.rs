//! What a batch is about, as it is in the database and as its commits change it, in memory.
//!
//! Rows are locked while this lives, so that each commit sees what the accepted ones before it
//! wrote, and nobody else changes anything.

use bytes::Bytes;
use sillage_core::{
    Commit, CommitError, Condition, Decision, Delivered, Expected, Recorded, Sort, Text, Timestamp,
    Version, Write,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

/// A row that a batch reads or writes. They are locked in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Lease(Text),
    Stream(Text),
    /// Collection and id.
    Document(Text, Text),
    /// Consumer, source and id.
    Delivery(Text, Text, Text),
}

impl Key {
    fn delivery(delivery: &Delivered) -> Key {
        let Delivered { consumer, source, id } = delivery.clone();
        Key::Delivery(consumer, source, id)
    }

    /// Whether only one transaction may hold it.
    pub(crate) fn is_exclusive(&self) -> bool {
        !matches!(self, Key::Lease(_))
    }
}

/// The rows that a commit is about; some more than once.
pub(crate) fn keys(commit: &Commit) -> impl Iterator<Item = Key> {
    let conditions = commit.conditions.iter().filter_map(|condition| match condition {
        Condition::FirstTime(delivery) | Condition::Decided(delivery, _) => {
            Some(Key::delivery(delivery))
        }
        Condition::Stream { expected: Expected::Any, .. } => None,
        Condition::Stream { stream, .. } => Some(Key::Stream(stream.clone())),
        Condition::Document { collection, id, .. } | Condition::Below { collection, id, .. } => {
            Some(Key::Document(collection.clone(), id.clone()))
        }
        Condition::Lease { name, .. } => Some(Key::Lease(name.clone())),
    });
    let writes = commit.writes.iter().filter_map(|write| match write {
        Write::Append { stream, .. } | Write::Trim { stream, .. } => {
            stream.clone().map(Key::Stream)
        }
        Write::Put { collection, id, .. } | Write::Delete { collection, id } => {
            Some(Key::Document(collection.clone(), id.clone()))
        }
        Write::Decide { delivery, .. } => Some(Key::delivery(delivery)),
        Write::Restore(entry) => entry.stream.clone().map(|(stream, _)| Key::Stream(stream)),
        Write::Forget { .. } | Write::Run(_) => None,
    });
    conditions.chain(writes)
}

/// What is in a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Epoch(u64),
    Version(u64),
    Document {
        version: u64,
        sort: Option<Text>,
        /// What this batch put; `None`: as it is in the database.
        body: Option<Bytes>,
    },
    Decided {
        decision: Decision,
        until: Option<(Text, u64)>,
    },
}

/// A row that is locked, or was made by this transaction.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// What is in it; `None`: it is absent.
    pub(crate) value: Option<Value>,
    /// It was absent, and is in the table only so that nobody else makes it.
    pub(crate) claimed: bool,
    /// It was claimed with what the only commit that writes it puts there.
    pub(crate) filled: bool,
    /// An accepted commit wrote it.
    pub(crate) written: bool,
}

/// An entry that an accepted commit appends: of which commit, which of its writes, and its version
/// in its stream.
pub(crate) struct Appended {
    pub(crate) commit: usize,
    pub(crate) write: usize,
    pub(crate) version: u64,
}

/// What a batch is about.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) rows: BTreeMap<Key, Row>,
    /// Messages that are in the log, and those appended here: source and id.
    pub(crate) known: HashSet<(Text, Text)>,
    /// How long SQL of users has taken.
    pub(crate) ran: Duration,
    /// The database's time.
    pub(crate) now: Timestamp,
    /// The last position given out.
    pub(crate) head: u64,
    pub(crate) appended: Vec<Appended>,
    /// Consumer, partition and offset.
    pub(crate) forgotten: BTreeSet<(Text, Text, u64)>,
    /// Stream and position.
    pub(crate) trimmed: BTreeSet<(Option<Text>, u64)>,
    pub(crate) restored: Vec<Recorded>,
}

/// Which refusal is the answer where there are several: the lowest.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Rank {
    /// Somebody else owns what the commit is about.
    Lease,
    /// It was done before; a message that is in the log says so too.
    Done,
    /// What its own first try, whose answer was lost, may have changed.
    State,
}

impl Rank {
    fn of(condition: &Condition) -> Rank {
        match condition {
            Condition::Lease { .. } => Rank::Lease,
            Condition::FirstTime(_) => Rank::Done,
            Condition::Decided(..)
            | Condition::Stream { .. }
            | Condition::Document { .. }
            | Condition::Below { .. } => Rank::State,
        }
    }
}

impl State {
    /// Takes the writes of a commit that is not refused, the `number`th of its batch.
    pub(crate) fn take(&mut self, number: usize, commit: &Commit) {
        for (write, what) in commit.writes.iter().enumerate() {
            self.write((number, write), what);
        }
    }

    /// The reason that ranks first, of several in a rank the first in its order.
    pub(crate) fn refusal(&self, commit: &Commit) -> Option<CommitError> {
        let mut refused: Option<(Rank, CommitError)> = None;
        for condition in &commit.conditions {
            let rank = Rank::of(condition);
            if refused.as_ref().is_none_or(|(first, _)| rank < *first)
                && let Some(refusal) = self.unmet(condition)
            {
                refused = Some((rank, refusal));
            }
        }
        let asks = refused.as_ref().is_none_or(|(rank, _)| *rank > Rank::Done);
        if asks && commit.writes.iter().any(|write| self.repeats(write)) {
            return Some(CommitError::AlreadyHandled);
        }
        refused.map(|(_, refusal)| refusal)
    }

    /// Whether it appends a message that is in the log.
    fn repeats(&self, write: &Write) -> bool {
        let message = match write {
            Write::Append { message, .. } => message,
            Write::Restore(entry) => &entry.body,
            _ => return false,
        };
        self.known.contains(&(message.source.clone(), message.id.text()))
    }

    fn unmet(&self, condition: &Condition) -> Option<CommitError> {
        let (holds, refusal) = match condition {
            Condition::FirstTime(delivery) => {
                (self.decision(delivery).is_none(), CommitError::AlreadyHandled)
            }
            Condition::Decided(delivery, decision) => {
                (self.decision(delivery) == Some(*decision), CommitError::AlreadyHandled)
            }
            Condition::Stream { stream, expected } => {
                let expected = match expected {
                    Expected::Any => return None,
                    Expected::NoStream => None,
                    Expected::Exact(version) => Some(*version),
                };
                return conflict(expected, self.version(&Key::Stream(stream.clone())));
            }
            Condition::Document { collection, id, expected } => {
                let key = Key::Document(collection.clone(), id.clone());
                return conflict(*expected, self.version(&key));
            }
            Condition::Below { collection, id, sort } => {
                let holds = match self.value(&Key::Document(collection.clone(), id.clone())) {
                    // A document without a sort key is below nothing.
                    Some(Value::Document { sort: old, .. }) => {
                        old.as_ref() < Some(sort) && old.is_some()
                    }
                    _ => true,
                };
                (holds, CommitError::Fenced)
            }
            Condition::Lease { name, epoch } => {
                let found = self.value(&Key::Lease(name.clone()));
                (found == Some(&Value::Epoch(epoch.0)), CommitError::Fenced)
            }
        };
        (!holds).then_some(refusal)
    }

    fn value(&self, key: &Key) -> Option<&Value> {
        self.rows.get(key)?.value.as_ref()
    }

    fn version(&self, key: &Key) -> Option<Version> {
        match self.value(key)? {
            Value::Version(version) | Value::Document { version, .. } => Some(Version(*version)),
            Value::Epoch(_) | Value::Decided { .. } => None,
        }
    }

    fn decision(&self, delivery: &Delivered) -> Option<Decision> {
        match self.value(&Key::delivery(delivery))? {
            Value::Decided { decision, .. } => Some(*decision),
            _ => None,
        }
    }

    fn write(&mut self, place: (usize, usize), write: &Write) {
        match write {
            Write::Append { stream, message } => {
                self.known.insert((message.source.clone(), message.id.text()));
                let version = stream.as_ref().map_or(0, |stream| self.grow(stream));
                let (commit, write) = place;
                self.appended.push(Appended { commit, write, version });
            }
            Write::Put { collection, id, sort, body } => {
                let key = Key::Document(collection.clone(), id.clone());
                let version = self.version(&key).unwrap_or_default().next().0;
                let sort = self.sort(sort.as_ref());
                self.set(key, Some(Value::Document { version, sort, body: Some(body.clone()) }));
            }
            Write::Delete { collection, id } => {
                self.set(Key::Document(collection.clone(), id.clone()), None);
            }
            Write::Decide { delivery, decision, until } => {
                let value = Value::Decided { decision: *decision, until: until.clone() };
                self.set(Key::delivery(delivery), Some(value));
            }
            Write::Forget { consumer, partition, through } => {
                self.forget(consumer, partition, *through);
            }
            // Done already.
            Write::Run(_) => {}
            Write::Trim { stream, through } => {
                self.trimmed.insert((stream.clone(), through.0));
            }
            Write::Restore(entry) => {
                self.known.insert((entry.source.clone(), entry.id.text()));
                self.restored.push(entry.clone());
            }
        }
    }

    /// A sort key as it is stored.
    pub(crate) fn sort(&self, sort: Option<&Sort>) -> Option<Text> {
        sort.map(|sort| match sort {
            Sort::Text(text) => text.clone(),
            Sort::After(delay) => (self.now + *delay).to_string().into(),
        })
    }

    fn set(&mut self, key: Key, value: Option<Value>) {
        let row = self.rows.entry(key).or_default();
        row.value = value;
        row.written = true;
    }

    /// The version of the stream's next entry.
    fn grow(&mut self, stream: &Text) -> u64 {
        let key = Key::Stream(stream.clone());
        let version = self.version(&key).unwrap_or_default().next().0;
        self.set(key, Some(Value::Version(version)));
        version
    }

    fn forget(&mut self, consumer: &Text, partition: &Text, through: u64) {
        for (key, row) in &mut self.rows {
            if let (Key::Delivery(of, ..), Some(Value::Decided { until: Some((p, offset)), .. })) =
                (key, &row.value)
                && of == consumer
                && p == partition
                && *offset <= through
            {
                (row.value, row.written) = (None, true);
            }
        }
        self.forgotten.insert((consumer.clone(), partition.clone(), through));
    }
}

/// The sort key and body that a write puts.
type Put<'c> = (Option<&'c Sort>, &'c [u8]);

/// What a batch puts in documents that one write of it is about, and no other; by collection and id.
pub(crate) struct Puts<'c>(HashMap<(&'c str, &'c str), Option<Put<'c>>>);

impl<'c> Puts<'c> {
    pub(crate) fn of(commits: &[&'c Commit]) -> Self {
        let mut puts = HashMap::new();
        for write in commits.iter().flat_map(|commit| &commit.writes) {
            let (collection, id, put) = match write {
                Write::Put { collection, id, sort, body } => {
                    (collection, id, Some((sort.as_ref(), &**body)))
                }
                Write::Delete { collection, id } => (collection, id, None),
                _ => continue,
            };
            puts.entry((&**collection, &**id)).and_modify(|only| *only = None).or_insert(put);
        }
        Puts(puts)
    }

    pub(crate) fn get(&self, collection: &str, id: &str) -> Option<Put<'c>> {
        self.0.get(&(collection, id)).copied().flatten()
    }
}

/// Version 0 is "not there yet", the same as none.
pub(crate) fn conflict(expected: Option<Version>, actual: Option<Version>) -> Option<CommitError> {
    let same = expected.unwrap_or_default() == actual.unwrap_or_default();
    (!same).then_some(CommitError::Conflict { expected, actual })
}
