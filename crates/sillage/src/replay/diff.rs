//! What a handling would record now, beside what it recorded then.

use super::Replayed;
use crate::names;
use serde::Serialize;
use serde_json::Value;
use sillage_core::{Failure, Message, MessageId, Position, Recorded, Text, Write};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// So many effects of a handling are looked for, and so many events of each.
const ORDINALS: (usize, usize) = (64, 64);

/// What became of the effects of one name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Change {
    /// As they were recorded.
    pub same: u64,
    /// With another body, version, key or topic.
    pub changed: u64,
    /// Now, and not recorded.
    pub added: u64,
    /// Recorded, and not now.
    pub gone: u64,
    /// The first that differ.
    pub examples: Vec<Example>,
}

/// An effect that is not as it was recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// Where the message is in the log that was handled.
    pub position: Position,
    /// Its name.
    pub message: Text,
    /// What orders it.
    pub key: Option<String>,
    /// What was recorded.
    pub was: Option<Value>,
    /// What would be recorded now.
    pub now: Option<Value>,
}

/// Effects of one name: then, and now.
type Pair<'a> = (Vec<&'a Arc<Message>>, Vec<&'a Arc<Message>>);

/// What was recorded because of a message, by its id.
#[derive(Default)]
pub(super) struct Caused(HashMap<MessageId, Vec<Recorded>>);

impl Caused {
    pub(super) fn note(&mut self, entry: &Recorded) {
        if let Some(cause) = &entry.causation_id {
            self.0.entry(cause.clone()).or_default().push(entry.clone());
        }
    }

    pub(super) fn of(&self, cause: &MessageId) -> Option<&[Recorded]> {
        self.0.get(cause).map(Vec::as_slice)
    }
}

/// Of what a service recorded because of a message, what this consumer did: its ids say so.
pub(super) fn of_consumer(all: &[Recorded], cause: &Recorded, consumer: &str) -> Vec<Recorded> {
    let mut left: Vec<&Recorded> = all.iter().collect();
    let mut found = vec![];
    for effect in 0..ORDINALS.0 {
        for event in 0..ORDINALS.1 {
            if left.is_empty() {
                return found;
            }
            let ordinal = (effect << 16) + event;
            let id = MessageId::derived(&cause.source, &cause.id, consumer, ordinal);
            let Some(place) = left.iter().position(|entry| entry.id == id) else { break };
            found.push(left.remove(place).clone());
        }
    }
    found
}

pub(super) struct Diff {
    found: Replayed,
    examples: usize,
}

impl Diff {
    pub(super) fn new(examples: usize) -> Self {
        Diff { found: Replayed::default(), examples }
    }

    pub(super) fn end(self) -> Replayed {
        self.found
    }

    /// A handler that fails records nothing.
    pub(super) fn failed(&mut self, cause: &Recorded, recorded: &[Recorded], failure: &Failure) {
        self.found.failed += 1;
        *self.found.failures.entry(failure.to_string()).or_default() += 1;
        self.compare(cause, recorded, &[]);
    }

    /// Pairs effects of a name in their order.
    pub(super) fn compare(&mut self, cause: &Recorded, recorded: &[Recorded], now: &[Write]) {
        self.found.handled += 1;
        let mut pairs: BTreeMap<&str, Pair<'_>> = BTreeMap::new();
        for entry in recorded {
            pairs.entry(&entry.name).or_default().0.push(&entry.body);
        }
        for write in now {
            match write {
                Write::Append { message, .. } => {
                    pairs.entry(&message.name).or_default().1.push(message);
                }
                Write::Put { collection, .. } if **collection == *names::TIMERS => {
                    self.found.scheduled += 1;
                }
                _ => {}
            }
        }
        let mut differs = false;
        for (name, (was, now)) in pairs {
            let change = self.found.effects.entry(name.to_owned()).or_default();
            for place in 0..was.len().max(now.len()) {
                let (was, now) = (was.get(place).copied(), now.get(place).copied());
                match (was, now) {
                    (Some(was), Some(now)) if is_same(was, now) => {
                        change.same += 1;
                        continue;
                    }
                    (Some(_), Some(_)) => change.changed += 1,
                    (None, _) => change.added += 1,
                    (_, None) => change.gone += 1,
                }
                differs = true;
                if change.examples.len() < self.examples {
                    change.examples.push(Example {
                        position: cause.position,
                        message: cause.name.clone(),
                        key: cause.key.as_ref().map(|key| key.label().into_owned()),
                        was: was.map(|message| said(message)),
                        now: now.map(|message| said(message)),
                    });
                }
            }
        }
        self.found.different += u64::from(differs);
    }
}

fn is_same(was: &Message, now: &Message) -> bool {
    let rest = |message: &Message| (message.version, message.topic.clone(), message.key.clone());
    rest(was) == rest(now) && (was.payload == now.payload || said(was) == said(now))
}

fn said(message: &Message) -> Value {
    let text = || String::from_utf8_lossy(&message.payload).into_owned().into();
    serde_json::from_slice(&message.payload).unwrap_or_else(|_| text())
}
