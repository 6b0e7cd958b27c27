//! Parked keys: deliveries set aside with all later ones of their key, for a later try or as dead
//! letters, and what an operator may do with them.
//!
//! A parked key is one document; its deliveries are documents beside it, numbered from `head` to
//! before `tail`. Parking, appending, taking the head and ending are each one commit on the
//! version of that document, together with the inbox row of the delivery: so a redelivery is
//! dropped, nothing overtakes, and pressing a button twice is harmless.

use crate::names;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sillage_core::{
    Class, Commit, Condition, Decision, Delivered, Error, Failure, Message, Position, Result, Sort,
    Stored, Text, Timestamp, Version, Write, from_json, to_json,
};
use std::sync::Arc;

/// The most deliveries of one parked key.
pub(crate) const MOST: u64 = 10_000;
/// The most bytes of one parked key.
pub(crate) const MOST_BYTES: u64 = 64 << 20;

/// A parked key, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParkedKey {
    /// Whose deliveries, as `service/name`.
    pub consumer: Text,
    /// Their topic.
    pub topic: Text,
    /// Their key's label; `None`: a single message without a key.
    pub key: Option<Text>,
    /// The partition that brings them: its owner tries them again.
    pub partition: Text,
    /// The number of the delivery that failed.
    pub head: u64,
    /// The number the next delivery gets.
    pub tail: u64,
    /// Bytes of the copies it holds.
    pub bytes: u64,
    /// Its attempts are used up, or trying again cannot help: it waits for an operator.
    pub dead: bool,
    /// How many tries the head has had.
    pub attempts: u32,
    /// How often an operator sent the head back.
    pub redrives: u32,
    /// When the head is tried next.
    pub next_try: Timestamp,
    /// The name of the head's message.
    pub name: Text,
    /// Why the head failed last.
    pub failure: String,
    /// The class of that failure: transient or permanent.
    pub class: String,
    /// When the head failed first.
    pub first_failed_at: Timestamp,
    /// When the head failed last.
    pub last_failed_at: Timestamp,
}

/// A parked delivery, as it is stored: its place in the log of this database, or a copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Parked {
    pub(crate) source: Text,
    pub(crate) id: Text,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<Position>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<Box<RawValue>>,
}

impl Parked {
    /// Of a message that stays readable at `position` of this database's log.
    pub(crate) fn at(position: Position, message: &Message) -> Self {
        let (source, id) = (message.source.clone(), message.id.text());
        Parked { source, id, position: Some(position), message: None }
    }

    /// With a copy of the message.
    pub(crate) fn copy(message: &Message) -> Result<Self> {
        let copy = Some(RawValue::from_string(to_json(message)?)?);
        Ok(Parked { message: copy, position: None, ..Parked::at(Position(0), message) })
    }

    /// The copy it holds.
    pub(crate) fn copied(&self) -> Option<Result<Arc<Message>>> {
        self.message.as_ref().map(|message| from_json(message.get().as_bytes()).map(Arc::new))
    }

    fn bytes(&self) -> u64 {
        self.message.as_ref().map_or(0, |message| message.get().len() as u64)
    }
}

/// A parked delivery as it was read: its number under the key, and its message.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) number: u64,
    pub(crate) parked: Parked,
    pub(crate) message: Arc<Message>,
}

/// A delivery that an operator passed over, kept so that it can be restored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) key_id: Text,
    pub(crate) key: ParkedKey,
    pub(crate) parked: Parked,
}

/// A failed try, as it is noted on the key.
pub(crate) struct Failed<'a> {
    pub(crate) name: &'a Text,
    pub(crate) failure: &'a Failure,
    pub(crate) attempts: u32,
    pub(crate) now: Timestamp,
    /// `None`: it is dead.
    pub(crate) next_try: Option<Timestamp>,
}

/// A parked key with its id and the version it was read at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) id: Text,
    pub(crate) version: Option<Version>,
    pub(crate) state: ParkedKey,
}

impl Key {
    pub(crate) fn read(stored: &Stored) -> Result<Self> {
        let state = serde_json::from_slice(&stored.body)?;
        Ok(Key { id: stored.id.clone(), version: Some(stored.version), state })
    }

    /// A key that is parked now, with the delivery that failed.
    pub(crate) fn park(
        consumer: &Text,
        partition: &Text,
        message: &Message,
        parked: &Parked,
        failed: &Failed<'_>,
    ) -> Result<(Self, Commit)> {
        let topic = message.topic.clone().unwrap_or_default();
        let id = names::parked_key(consumer, &topic, message.key.as_ref(), message.id.as_str());
        let state = ParkedKey {
            consumer: consumer.clone(),
            topic,
            key: message.key.as_ref().map(|key| key.label().into()),
            partition: partition.clone(),
            head: 0,
            tail: 1,
            bytes: parked.bytes(),
            dead: false,
            attempts: 0,
            redrives: 0,
            next_try: failed.now,
            name: failed.name.clone(),
            failure: String::new(),
            class: String::new(),
            first_failed_at: failed.now,
            last_failed_at: failed.now,
        };
        let mut key = Key { id, version: None, state };
        let mut commit = key.change();
        key.note(failed);
        commit.conditions.push(Condition::FirstTime(key.delivered(parked)));
        key.set_aside(0, parked, &mut commit)?;
        commit.writes.push(key.put()?);
        Ok((key, commit))
    }

    /// A later delivery of the key goes behind the others.
    pub(crate) fn append(&self, parked: &Parked) -> Result<(Self, Commit)> {
        let mut next = self.clone();
        let mut commit = self.change();
        commit.conditions.push(Condition::FirstTime(self.delivered(parked)));
        next.set_aside(self.state.tail, parked, &mut commit)?;
        next.state.tail += 1;
        next.state.bytes += parked.bytes();
        commit.writes.push(next.put()?);
        Ok((next, commit))
    }

    /// Whether it is there since its first delivery failed, and nothing came behind that.
    pub(crate) fn is_new(&self) -> bool {
        self.state.tail == 1
    }

    /// Whether its head failed for good, and not only too often.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.state.class == Class::Permanent.to_string()
    }

    /// Whether one more delivery would be over its bounds.
    pub(crate) fn is_full(&self) -> bool {
        self.state.tail - self.state.head >= MOST || self.state.bytes >= MOST_BYTES
    }

    /// The head is handled, or passed over: `None` for the key where it was the last.
    pub(crate) fn pop(
        &self,
        head: &Parked,
        decision: Decision,
        now: Timestamp,
    ) -> Result<(Option<Self>, Commit)> {
        let mut commit = self.change_of(head);
        let delivery = self.delivered(head);
        commit.writes.push(Write::Decide { delivery, decision, until: None });
        let id = names::parked(&self.id, self.state.head);
        commit.writes.push(Write::Delete { collection: names::PARKED.into(), id });
        if self.state.head + 1 == self.state.tail {
            let (collection, id) = (names::PARKED_KEYS.into(), self.id.clone());
            commit.writes.push(Write::Delete { collection, id });
            return Ok((None, commit));
        }
        let mut next = self.clone();
        next.state.head += 1;
        // The head may have been edited since the key was read: then the commit is refused.
        next.state.bytes = next.state.bytes.saturating_sub(head.bytes());
        next.state.dead = false;
        next.state.attempts = 0;
        next.state.redrives = 0;
        next.state.next_try = now;
        // Why its predecessor failed is not why it waits.
        next.state.failure.clear();
        next.state.class.clear();
        commit.writes.push(next.put()?);
        Ok((Some(next), commit))
    }

    /// The head was tried again, and failed again.
    pub(crate) fn failed(&self, head: &Parked, failed: &Failed<'_>) -> Result<(Self, Commit)> {
        let mut next = self.clone();
        if self.state.attempts == 0 {
            next.state.first_failed_at = failed.now;
        }
        next.note(failed);
        let mut commit = self.change_of(head);
        commit.writes.push(next.put()?);
        Ok((next, commit))
    }

    /// An operator sends the head back: it is tried at once, with all its attempts before it.
    pub(crate) fn redrive(&self, head: &Parked, now: Timestamp) -> Result<(Self, Commit)> {
        let mut next = self.clone();
        next.state.dead = false;
        next.state.attempts = 0;
        next.state.redrives += 1;
        next.state.next_try = now;
        let mut commit = self.change_of(head);
        commit.writes.push(next.put()?);
        Ok((next, commit))
    }

    /// An operator takes back a skip: the delivery is the head again, dead, before all others.
    pub(crate) fn restore(
        key: Option<&Self>,
        skipped: &Skipped,
        now: Timestamp,
    ) -> Result<(Self, Commit)> {
        let mut next = key.cloned().unwrap_or_else(|| {
            let state = ParkedKey { head: 1, tail: 1, bytes: 0, ..skipped.key.clone() };
            Key { id: skipped.key_id.clone(), version: None, state }
        });
        let mut commit = key.unwrap_or(&next).change();
        let delivery = next.delivered(&skipped.parked);
        commit.conditions.push(Condition::Decided(delivery, Decision::Skipped));
        next.state =
            ParkedKey {
                head: next.state.head.checked_sub(1).ok_or_else(|| {
                    Error::invalid("nothing was skipped before the head of this key")
                })?,
                tail: next.state.tail,
                bytes: next.state.bytes + skipped.parked.bytes(),
                dead: true,
                next_try: now,
                ..skipped.key.clone()
            };
        next.set_aside(next.state.head, &skipped.parked, &mut commit)?;
        commit.writes.push(next.put()?);
        Ok((next, commit))
    }

    /// An operator puts an edited copy in the head's place: its row says replaced, the copy has
    /// an id of its own and the same operation id.
    pub(crate) fn edit(&self, head: &Parked, edited: &Message, now: Timestamp) -> Result<Commit> {
        let copy = Parked::copy(edited)?;
        let mut resized = self.clone();
        resized.state.bytes = self.state.bytes.saturating_sub(head.bytes()) + copy.bytes();
        let (_, mut commit) = resized.redrive(head, now)?;
        let (delivery, decision) = (self.delivered(head), Decision::Replaced);
        commit.writes.push(Write::Decide { delivery, decision, until: None });
        self.set_aside(self.state.head, &copy, &mut commit)?;
        Ok(commit)
    }

    /// Only if nobody changed the key since it was read.
    fn change(&self) -> Commit {
        let (collection, id) = (names::PARKED_KEYS.into(), self.id.clone());
        let unchanged = Condition::Document { collection, id, expected: self.version };
        Commit { conditions: vec![unchanged], writes: vec![] }
    }

    /// The same, and only while `head` is parked: a key that was drained and parked anew may have
    /// come to the same version.
    fn change_of(&self, head: &Parked) -> Commit {
        let mut commit = self.change();
        commit.conditions.push(Condition::Decided(self.delivered(head), Decision::Parked));
        commit
    }

    fn delivered(&self, parked: &Parked) -> Delivered {
        let (source, id) = (parked.source.clone(), parked.id.clone());
        Delivered { consumer: self.state.consumer.clone(), source, id }
    }

    fn set_aside(&self, number: u64, parked: &Parked, commit: &mut Commit) -> Result<()> {
        let (delivery, decision) = (self.delivered(parked), Decision::Parked);
        commit.writes.push(Write::Decide { delivery, decision, until: None });
        let (collection, id) = (names::PARKED.into(), names::parked(&self.id, number));
        let body = serde_json::to_vec(parked)?.into();
        commit.writes.push(Write::Put { collection, id, sort: None, body });
        Ok(())
    }

    fn note(&mut self, failed: &Failed<'_>) {
        let state = &mut self.state;
        state.name = failed.name.clone();
        state.attempts = failed.attempts;
        state.failure = failed.failure.to_string().chars().take(4_000).collect();
        state.class = failed.failure.class.to_string();
        state.last_failed_at = failed.now;
        state.dead = failed.next_try.is_none();
        state.next_try = failed.next_try.unwrap_or(failed.now);
    }

    fn put(&mut self) -> Result<Write> {
        self.version = Some(self.version.unwrap_or_default().next());
        let sort = if self.state.dead { "dead" } else { "parked" };
        let sort = Some(Sort::Text(format!("{sort} {}", self.state.next_try).into()));
        let body = serde_json::to_vec(&self.state)?.into();
        let (collection, id) = (names::PARKED_KEYS.into(), self.id.clone());
        Ok(Write::Put { collection, id, sort, body })
    }
}

#[cfg(test)]
mod search;
