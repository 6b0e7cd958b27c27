//! Replay into a topic: part of the log published again, for consumers that were not there, or that are
//! to handle it once more.

use super::{Admin, Search, journal::PAGE, refused};
use crate::{log_broker::EMBEDDED, retention};
use serde::Serialize;
use serde_json::json;
use sillage_core::{
    Commit, CommitError, Error, ErrorKind, Header, Key, Message, MessageId, Position, PublishError,
    Recorded, Result, Text, TopicSpec, Write,
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// Messages on their way at once, each of another key.
const BATCH: usize = 100;

/// What is replayed, and where to.
#[derive(Clone, Debug, Default)]
pub struct Replaying {
    /// Which entries of the log. Those without a topic only where they are asked for by name.
    pub search: Search,
    /// The topic that they are published to.
    pub topic: Text,
    /// `None`: they keep their ids, and a consumer that has handled one drops it. A name: each has an
    /// id of its own that follows from its old one and the name, so every consumer handles it, once
    /// for each name.
    pub as_new: Option<Text>,
}

/// What is replayed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplayCount {
    /// Messages.
    pub messages: u64,
    /// How many of each name.
    pub names: BTreeMap<Text, u64>,
    /// Where the first is in the log.
    pub first: Option<Position>,
    /// Where the last is.
    pub last: Option<Position>,
    /// Of them, those that were in the log already: replayed under this name before.
    pub known: u64,
    /// Entries without a stream are gone from the log up to here.
    pub trimmed_before: Position,
}

impl ReplayCount {
    fn add(&mut self, entry: &Recorded) {
        self.messages += 1;
        *self.names.entry(entry.name.clone()).or_default() += 1;
        self.first = self.first.or(Some(entry.position));
        self.last = Some(entry.position);
    }
}

impl Replaying {
    fn takes(&self, entry: &Recorded) -> bool {
        let asked_for = entry.topic.is_some() || !self.search.names.is_empty();
        asked_for && self.search.takes(entry)
    }

    /// The message as it is published: on the topic, and marked with where it is from.
    fn message(&self, entry: &Recorded) -> Arc<Message> {
        let mut message = (*entry.body).clone();
        message.headers.retain(|header| !PLACE.contains(&&*header.name));
        let mark =
            |name: &str, value: &str| Header { name: name.into(), value: value.to_owned().into() };
        message.headers.push(mark(Message::REPLAY, &entry.position.to_string()));
        if let Some(name) = &self.as_new {
            message.headers.push(mark(Message::REPLAY_OF, message.id.as_str()));
            let replay = format!("replay/{name}");
            // What is called outside stays idempotent.
            message.operation_id = Some(entry.operation());
            message.id = MessageId::derived(&message.source, &message.id, &replay, 0);
        }
        message.topic = Some(self.topic.clone());
        Arc::new(message)
    }
}

/// What says of a message that it is a copy, and where it was: not of one that is published again.
const PLACE: [&str; 4] = ["ce_sequence", "ce_incarnation", "ce_previous", Message::COPY];

/// Whether it has another key than those: of one key the next waits until the last is confirmed.
fn is_other(keys: &mut HashSet<Key>, entry: &Recorded) -> bool {
    entry.key.as_ref().is_none_or(|key| keys.insert(key.clone()))
}

impl Admin {
    /// What a replay would publish.
    pub async fn count_replay(&self, what: &Replaying) -> Result<ReplayCount> {
        self.check_replay(what).await?;
        let trimmed_before = retention::trimmed_before(&*self.database).await?;
        let mut count = ReplayCount { trimmed_before, ..ReplayCount::default() };
        self.search(&what.search, |entry| {
            if what.takes(entry) {
                count.add(entry);
            }
            true
        })
        .await?;
        Ok(count)
    }

    /// Publishes what matches to the topic, in the order of the log: to the broker outside where this
    /// has one, else into the log. An error says up to where it came.
    pub async fn replay(&self, what: &Replaying) -> Result<ReplayCount> {
        let planned = self.count_replay(what).await?;
        let said = json!({
            "topic": what.topic,
            "as_new": what.as_new,
            "messages": planned.messages,
            "first": planned.first,
            "last": planned.last,
        });
        self.act("replay", said, Commit::default()).await?;
        if let Some(broker) = &self.broker {
            broker.ensure(&[TopicSpec { name: what.topic.clone(), partitions: None }]).await?;
        }
        let mut done = ReplayCount { trimmed_before: planned.trimmed_before, ..planned.clone() };
        done.known = 0;
        let (filter, mut at) = (what.search.filter(), what.search.after);
        let Some(last) = planned.last else { return Ok(done) };
        while at < last {
            let page = self.database.log(at, &filter, PAGE).await?;
            let wanted = page.entries.iter().filter(|entry| entry.position <= last);
            let mut wanted = wanted.filter(|entry| what.takes(entry)).peekable();
            while wanted.peek().is_some() {
                let (mut batch, mut keys) = (vec![], HashSet::new());
                while let Some(entry) =
                    wanted.next_if(|entry| batch.len() < BATCH && is_other(&mut keys, entry))
                {
                    batch.push(entry);
                }
                done.known += self.publish_again(what, &batch).await?;
            }
            at = page.through.max(Position(at.0 + 1));
        }
        Ok(done)
    }

    async fn check_replay(&self, what: &Replaying) -> Result<()> {
        if self.broker.is_none() && what.as_new.is_none() {
            return Err(Error::invalid(format!(
                "the {EMBEDDED} has each message once by its id: say `--as-new NAME` to give them \
                 ids of their own, or name a broker"
            )));
        }
        let from_position = what.search.after > Position(0) || what.search.since.is_none();
        if from_position {
            retention::all_from(&*self.database, what.search.after).await?;
        }
        Ok(())
    }

    /// In this order; answers how many were known.
    async fn publish_again(&self, what: &Replaying, batch: &[&Recorded]) -> Result<u64> {
        let messages: Vec<_> = batch.iter().map(|entry| what.message(entry)).collect();
        let (mut known, mut stopped) = (0, None);
        if let Some(broker) = &self.broker {
            let answers = broker.publish(messages).await;
            for (entry, answer) in batch.iter().zip(answers) {
                if let Err(PublishError::Refused(error) | PublishError::Unknown(error)) = answer {
                    stopped = stopped.or(Some((entry.position, error)));
                }
            }
        } else {
            let append = |message| Commit {
                conditions: vec![],
                writes: vec![Write::Append { stream: None, message }],
            };
            let answers = self.database.commit(messages.into_iter().map(append).collect()).await;
            for (entry, answer) in batch.iter().zip(answers) {
                match answer {
                    Ok(_) => {}
                    Err(CommitError::AlreadyHandled) => known += 1,
                    Err(error) => stopped = stopped.or(Some((entry.position, refused(error)))),
                }
            }
        }
        let Some((position, error)) = stopped else { return Ok(known) };
        let kind = if error.is_transient() { ErrorKind::Unavailable } else { error.kind() };
        let what =
            format!("the replay stopped at position {position}: go on with `--from {position}`");
        Err(Error::new(kind, what).because(error))
    }
}
