//! Dead letters and parked keys: list, show, redrive, edit, skip, restore.

use super::Admin;
use crate::{
    names, retention,
    runtime::{
        member::read_parked,
        parking::{Head, Key, ParkedKey, Skipped},
    },
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use sillage_core::{
    Condition, Decision, Error, ErrorKind, Filter, Message, MessageId, Position, Range, Result,
    Text, Write,
};
use std::sync::Arc;

/// So often a dead letter may be sent back before it takes force: a loop helps nobody.
const REDRIVES: u32 = 5;

/// A parked key with its id.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetter {
    /// Names it for the other verbs.
    pub id: Text,
    /// How many deliveries wait in it.
    pub deliveries: u64,
    /// The key, its head and why that failed.
    #[serde(flatten)]
    pub key: ParkedKey,
}

/// A delivery of a parked key.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// Its number within the key.
    pub number: u64,
    /// The message.
    pub message: Arc<Message>,
}

/// What a redrive did, or would do.
#[derive(Clone, Debug, Serialize)]
pub struct Redriven {
    /// The parked key.
    pub id: Text,
    /// Why it was not sent back; `None` where it was, or would be.
    pub refused: Option<String>,
}

impl Admin {
    /// Parked keys of all consumers, or of one; only dead ones unless `parked` as well.
    pub async fn dead_letters(
        &self,
        consumer: Option<&str>,
        parked: bool,
    ) -> Result<Vec<DeadLetter>> {
        let prefix = consumer.map(|consumer| format!("{consumer}/")).unwrap_or_default();
        let (mut found, mut after) = (vec![], Text::from(""));
        loop {
            let range = Range::Ids { prefix: &prefix, after: &after };
            let page = self.database.list(names::PARKED_KEYS, range, 500).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.id.clone();
            for stored in &page {
                let key = Key::read(stored)?;
                if parked || key.state.dead {
                    found.push(letter(key));
                }
            }
        }
    }

    /// A parked key and its deliveries, at most `max` of them.
    pub async fn dead_letter(&self, id: &str, max: u64) -> Result<(DeadLetter, Vec<Delivered>)> {
        let key = self.key(id).await?;
        let (head, tail) = (key.state.head, key.state.tail);
        let mut deliveries = vec![];
        for number in head..tail.min(head.saturating_add(max)) {
            if let Some(head) = read_parked(&*self.database, id, number).await? {
                deliveries.push(Delivered { number, message: head.message });
            }
        }
        Ok((letter(key), deliveries))
    }

    /// Sends a dead letter back to the consumer that failed, and to no other: its key goes on in
    /// order. Pressing twice is harmless. More than five times takes `force`.
    pub async fn redrive(&self, id: &str, dry_run: bool, force: bool) -> Result<Redriven> {
        let key = self.key(id).await?;
        let refused = if key.state.redrives >= REDRIVES && !force {
            let times = key.state.redrives;
            Some(format!("sent back {times} times already; mend the cause, then use --force"))
        } else if !key.state.dead && key.state.next_try <= self.clock.now() {
            Some("it is being tried again already".to_owned())
        } else {
            None
        };
        if refused.is_none() && !dry_run {
            let head = self.head(&key).await?.parked;
            let (_, commit) = key.redrive(&head, self.clock.now())?;
            self.act("redrive", json!({ "id": id, "redrives": key.state.redrives + 1 }), commit)
                .await?;
        }
        Ok(Redriven { id: key.id, refused })
    }

    /// Passes over the head of a parked key: the deliveries behind it go on. Can be restored.
    pub async fn skip(&self, id: &str, why: &str) -> Result<()> {
        let key = self.key(id).await?;
        let head = self.head(&key).await?.parked;
        let (_, mut commit) = key.pop(&head, Decision::Skipped, self.clock.now())?;
        let skipped = Skipped { key_id: key.id.clone(), key: key.state.clone(), parked: head };
        let body = serde_json::to_vec(&skipped)?.into();
        let collection = names::SKIPPED.into();
        commit.writes.push(Write::Put { collection, id: key.id.clone(), sort: None, body });
        self.act("skip", json!({ "id": id, "why": why, "message": skipped.parked.id }), commit)
            .await?;
        Ok(())
    }

    /// Takes back the last skip of a key: the delivery is its head again, as a dead letter.
    pub async fn restore(&self, id: &str) -> Result<()> {
        let stored = self.database.get(names::SKIPPED, &[id]).await?.pop().flatten();
        let stored = stored.ok_or_else(|| missing("skipped delivery", id))?;
        let skipped: Skipped = serde_json::from_slice(&stored.body)?;
        let key = match self.key(id).await {
            Ok(key) => Some(key),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(position) = skipped.parked.position {
            let before = Position(position.0.saturating_sub(1));
            let page = self.database.log(before, &Filter::default(), 1).await?;
            if page.entries.first().is_none_or(|entry| entry.position != position) {
                let what =
                    format!("`{id}`: its message, at position {position}, is past the retention");
                return Err(Error::new(ErrorKind::Trimmed, what));
            }
        }
        let (_, mut commit) = Key::restore(key.as_ref(), &skipped, self.clock.now())?;
        let (collection, expected) = (Text::from(names::SKIPPED), Some(stored.version));
        let id = stored.id.clone();
        commit.conditions.push(Condition::Document {
            collection: collection.clone(),
            id: id.clone(),
            expected,
        });
        commit.writes.push(Write::Delete { collection, id: id.clone() });
        commit.writes.push(retention::joins());
        self.act("restore", json!({ "id": id, "message": skipped.parked.id }), commit).await?;
        Ok(())
    }

    /// Puts an edited payload in the head's place and sends it back. The original id counts as
    /// replaced and never runs again; the copy has an id of its own and, unless
    /// `new_operation`, the original's operation id, so that external calls stay idempotent.
    pub async fn edit(&self, id: &str, payload: Bytes, new_operation: bool) -> Result<MessageId> {
        let key = self.key(id).await?;
        let Head { parked: head, message: original, .. } = self.head(&key).await?;
        let copy = MessageId::fresh(self.clock.now(), rand::random());
        let edited = Message {
            id: copy.clone(),
            operation_id: (!new_operation).then(|| original.operation()),
            payload,
            ..(*original).clone()
        };
        let commit = key.edit(&head, &edited, self.clock.now())?;
        let what = json!({ "id": id, "message": original.id, "copy": copy });
        self.act("edit", what, commit).await?;
        Ok(copy)
    }

    async fn head(&self, key: &Key) -> Result<Head> {
        let found = read_parked(&*self.database, &key.id, key.state.head).await?;
        found.ok_or_else(|| missing("parked delivery", &names::parked(&key.id, key.state.head)))
    }

    async fn key(&self, id: &str) -> Result<Key> {
        let stored = self.database.get(names::PARKED_KEYS, &[id]).await?.pop().flatten();
        Key::read(&stored.ok_or_else(|| missing("parked key", id))?)
    }
}

fn letter(key: Key) -> DeadLetter {
    DeadLetter { id: key.id, deliveries: key.state.tail - key.state.head, key: key.state }
}

fn missing(what: &str, id: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!("no {what} `{id}`; `sillage dlq list --parked` shows what there is"),
    )
}
