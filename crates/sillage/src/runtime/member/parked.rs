//! Parked keys in a running member: later deliveries go behind them, due heads are tried again
//! in the key's own lane, and what an operator changed is taken over.

use super::{Fetched, Head, Member, Pending, Popping, Reading, intake, outcome::copy_of};
use crate::{
    names,
    runtime::{
        committer::Answer,
        lane::LaneId,
        parking::{Failed, Key, Parked},
        retry::Next,
        watermark::Fate,
    },
};
use sillage_core::{
    Commit, CommitError, Condition, Database, Effects, Error, ErrorKind, Failure, Filter, Message,
    Position, Result, Stored, Text,
};
use std::{collections::HashSet, time::Duration};

impl Member {
    /// The lane of a parked key.
    pub(super) fn lane_name(&self, key: &Key) -> u64 {
        let topic = &key.state.topic;
        match &key.state.key {
            Some(label) => self.lanes.name(topic, &sillage_core::Key::from_label(label)),
            None => self.lanes.name(topic, &sillage_core::Key::of(&key.id)),
        }
    }

    /// Takes over a parked key as it is in the database, where its partition is this member's.
    pub(super) fn hold(&mut self, key: Key) {
        let name = self.lane_name(&key);
        self.let_key_go(name);
        if !self.has_loaded(&key.state.partition) {
            return;
        }
        if !key.state.dead {
            self.due.insert((key.state.next_try, name));
        }
        self.parked.insert(name, key);
    }

    fn has_loaded(&self, partition: &str) -> bool {
        self.owned().any(|owned| owned.ready && *owned.name == *partition)
    }

    fn let_key_go(&mut self, name: u64) {
        if let Some(key) = self.parked.remove(&name) {
            self.due.remove(&(key.state.next_try, name));
        }
        if self.reading.is_under_way {
            self.reading.touched.insert(name);
        }
    }

    pub(super) fn forget_keys(&mut self, partition: &str) {
        let of_it =
            |(name, key): (&u64, &Key)| (&*key.state.partition == partition).then_some(*name);
        for name in self.parked.iter().filter_map(of_it).collect::<Vec<_>>() {
            self.let_key_go(name);
        }
    }

    /// When the next parked key is due, on the clock of elapsed time.
    pub(super) fn parked_due(&self, now: Duration) -> Option<Duration> {
        let (due, _) = self.due.first()?;
        Some(now + due.since(self.means.clock.now()))
    }

    pub(super) fn wake_parked(&mut self) {
        let now = self.means.clock.now();
        while let Some((due, name)) = self.due.first().copied() {
            if due > now {
                return;
            }
            self.due.remove(&(due, name));
            self.lanes.wake(name);
        }
    }

    pub(super) fn key_fence(&self, key: &Key) -> Option<Condition> {
        let owned = self.partitions.iter().position(|p| p.owned && p.name == key.state.partition);
        owned.and_then(|place| self.fence(place))
    }

    /// The parked key of a lane, while that is its head.
    pub(super) fn key_of(&self, lane: LaneId, head: &Head) -> Option<Key> {
        let key = self.parked.get(&self.lanes.name_of(lane)?)?;
        (key.state.head == head.number).then(|| key.clone())
    }

    /// A step of a lane whose key is parked. False where it is another key's.
    pub(super) fn step_parked(&mut self, lane: LaneId) -> bool {
        let careful = self.lanes.front(lane).filter(|work| work.careful);
        let careful = careful.and_then(|work| {
            let message = &work.delivery.message;
            Some((message.topic.clone().unwrap_or_default(), message.key.clone()?))
        });
        // After a crash the lane is the whole partition's: it only sets aside.
        let name = match &careful {
            Some((topic, key)) => Some(self.lanes.name(topic, key)),
            None => self.lanes.name_of(lane),
        };
        let key = name.and_then(|name| self.parked.get(&name)).cloned();
        let Some(key) = key else { return false };
        let due = !key.state.dead && key.state.next_try <= self.means.clock.now();
        if due && careful.is_none() {
            self.fetch_head(lane, &key);
            return true;
        }
        let Some(work) = self.lanes.front(lane) else {
            self.lanes.rest(lane);
            return true;
        };
        let message = work.delivery.message.clone();
        if self.key_id(&message) != key.id {
            return false;
        }
        self.append(lane, &key);
        true
    }

    /// The id its key has if it is parked.
    pub(super) fn key_id(&self, message: &Message) -> Text {
        let topic = message.topic.as_deref().unwrap_or_default();
        let (key, id) = (message.key.as_ref(), message.id.as_str());
        names::parked_key(&self.means.spec.name, topic, key, id)
    }

    fn append(&mut self, lane: LaneId, key: &Key) {
        let is_log = self.means.is_log;
        let now = self.means.clock.elapsed();
        let Some(work) = self.lanes.front(lane) else { return self.lanes.rest(lane) };
        let (delivery, place) = (work.delivery.clone(), work.partition);
        if key.is_full() {
            let why = format!("parked key `{}` is full: redrive or skip its dead letter", key.id);
            self.means.vital.problem("parking", Some(why));
            return self.lanes.wait(lane, now + Duration::from_secs(1));
        }
        match copy_of(&delivery, is_log).and_then(|parked| key.append(&parked)) {
            Ok((next, mut commit)) => {
                commit.conditions.extend(self.fence(place));
                self.commit(commit, Pending::Parked(lane, next));
            }
            Err(error) => self.stuck(lane, &error),
        }
    }

    fn fetch_head(&self, lane: LaneId, key: &Key) {
        let Some(database) = self.database().cloned() else { return };
        let (id, head) = (key.id.clone(), key.state.head);
        self.fetch(async move { Fetched::Head(lane, read_parked(&*database, &id, head).await) });
    }

    pub(super) fn head(&mut self, lane: LaneId, head: Result<Option<Head>>) {
        match head {
            Ok(Some(head)) => {
                self.heads.insert(lane, head);
                // Ready, in line with the others.
                self.lanes.wait(lane, Duration::ZERO);
            }
            Ok(None) => {
                self.reload_keys();
                self.wait_a_little(lane);
            }
            Err(error) => {
                tracing::warn!(consumer = %self.means.spec.name, %error, "parked head unreadable");
                self.wait_a_little(lane);
            }
        }
    }

    fn wait_a_little(&mut self, lane: LaneId) {
        self.lanes.wait(lane, self.means.clock.elapsed() + Duration::from_secs(1));
    }

    pub(super) fn failed_again(
        &mut self,
        lane: LaneId,
        head: &Head,
        failure: &Failure,
        read: Vec<Condition>,
    ) {
        let Some(key) = self.key_of(lane, head) else {
            return self.lanes.rest(lane);
        };
        let attempts = key.state.attempts + 1;
        let retry = &self.means.spec.retry;
        let next = retry.after_parked(attempts, &failure.class, &mut self.random);
        let now = self.means.clock.now();
        let next_try = match next {
            Next::Park(delay) | Next::InLane(delay) => Some(now + delay),
            Next::Dead => None,
        };
        let failed = Failed { name: &head.message.name, failure, attempts, now, next_try };
        match key.failed(&head.parked, &failed) {
            Ok((next, mut commit)) => {
                commit.conditions.extend(read);
                commit.conditions.extend(self.key_fence(&key));
                self.commit(commit, Pending::Noted(lane, next));
            }
            Err(error) => self.stuck(lane, &error),
        }
    }

    pub(super) fn parked(&mut self, lane: LaneId, key: Key, answer: Answer) {
        if self.means.spec.is_users && key.is_new() && key.is_hopeless() {
            let dead = answer.is_ok().then_some(&*key.id);
            self.kill_switch.answered(dead, self.means.clock.elapsed());
        }
        match answer {
            Ok(_) => {
                let state = &key.state;
                if key.is_new() {
                    tracing::warn!(
                        consumer = %state.consumer, name = %state.name, key = %key.id,
                        attempts = state.attempts, dead = state.dead, failure = state.failure,
                        "parked",
                    );
                }
                self.hold(key);
                self.finish(lane, Fate::Parked);
            }
            other => self.not_parked(lane, other),
        }
    }

    fn not_parked(&mut self, lane: LaneId, answer: Answer) {
        match answer {
            Err(CommitError::AlreadyHandled) => self.finish(lane, Fate::Duplicate),
            Err(CommitError::Fenced) => self.fenced(lane),
            Err(CommitError::Conflict { .. }) => {
                self.reload_keys();
                self.rerun(lane, 0);
            }
            Err(CommitError::Rejected(error)) => self.stuck(lane, &error),
            Ok(_) | Err(CommitError::Failed(_) | CommitError::Held(_) | CommitError::Sql(_)) => {
                self.rerun(lane, 0);
            }
        }
    }

    pub(super) fn popped(&mut self, lane: LaneId, popping: Popping, answer: Answer) {
        let Popping { name, next, head } = popping;
        match answer {
            Ok(_) => {
                self.let_key_go(name);
                if let Some(next) = next {
                    self.hold(next);
                }
                self.lanes.rest(lane);
                if self.parked.contains_key(&name) {
                    self.lanes.wake(name);
                }
            }
            Err(CommitError::Rejected(error)) => {
                self.failed_again(lane, &head, &Failure::permanent(error), vec![]);
            }
            Err(CommitError::Sql(failure)) => self.failed(lane, Some(head), &failure),
            Err(CommitError::AlreadyHandled) => self.leave_key(lane, head),
            other => self.try_key_again(lane, &other),
        }
    }

    /// What it would publish is in the log: it was handled before, longer ago than the inbox
    /// remembers, and leaves its key without effects.
    fn leave_key(&mut self, lane: LaneId, head: Head) {
        match self.handling(lane, Some(&head), Effects::none(), Commit::default()) {
            Ok((commit, pending)) => self.commit(commit, pending),
            Err(failure) => self.failed(lane, Some(head), &failure),
        }
    }

    pub(super) fn noted(&mut self, lane: LaneId, key: Key, answer: Answer) {
        match answer {
            Ok(_) => {
                tracing::warn!(
                    consumer = %self.means.spec.name, key = %key.id, dead = key.state.dead,
                    attempts = key.state.attempts, failure = key.state.failure, "failed again",
                );
                self.hold(key);
                self.lanes.rest(lane);
            }
            other => self.try_key_again(lane, &other),
        }
    }

    /// The key, or what the handler read, has changed: it is read again and tried again.
    fn try_key_again(&mut self, lane: LaneId, answer: &Answer) {
        if let Err(CommitError::Fenced) = answer {
            let name = self.lanes.name_of(lane).unwrap_or_default();
            self.let_key_go(name);
            return self.lanes.rest(lane);
        }
        self.reload_keys();
        self.wait_a_little(lane);
    }

    /// Reads all parked keys of the consumer again: an operator may have changed them.
    pub(super) fn reload_keys(&mut self) {
        if self.reading.is_under_way {
            self.reading.is_asked_again = true;
        } else {
            self.read_keys(Duration::ZERO);
        }
    }

    fn read_keys(&mut self, pause: Duration) {
        let Some(database) = self.database().cloned() else { return };
        self.reading = Reading { is_under_way: true, ..Reading::default() };
        let consumer = self.means.spec.name.clone();
        let pause = self.means.clock.sleep(pause);
        self.fetch(async move {
            pause.await;
            Fetched::Keys(intake::keys(&*database, &consumer).await)
        });
    }

    pub(super) fn keys(&mut self, keys: Result<Vec<Stored>>) {
        let reading = std::mem::take(&mut self.reading);
        let keys = match keys {
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(consumer = %self.means.spec.name, %error, "parked keys unreadable");
                return self.read_keys(Duration::from_secs(1));
            }
        };
        let keys = keys.iter().filter_map(|stored| Key::read(stored).ok());
        let keys: Vec<_> = keys.filter(|key| self.has_loaded(&key.state.partition)).collect();
        let (mut there, mut is_unsure) = (HashSet::new(), false);
        for key in keys {
            let name = self.lane_name(&key);
            there.insert(name);
            is_unsure |= !self.take_over(name, Some(key), &reading);
        }
        let gone = self.parked.keys().filter(|name| !there.contains(name)).copied();
        for name in gone.collect::<Vec<_>>() {
            is_unsure |= !self.take_over(name, None, &reading);
        }
        if reading.is_asked_again {
            self.reload_keys();
        } else if is_unsure {
            self.read_keys(Duration::from_millis(200));
        }
    }

    /// Takes over what was found of a key. False where it may be older than what is known here:
    /// the key was changed since the question, or a change of it is being committed.
    fn take_over(&mut self, name: u64, found: Option<Key>, reading: &Reading) -> bool {
        // Not by version alone: a key that was drained and parked anew counts from one again.
        let same = self.parked.get(&name) == found.as_ref();
        if self.is_committing(name) || (reading.touched.contains(&name) && !same) {
            return false;
        }
        match found {
            _ if same => return true,
            Some(key) => self.hold(key),
            None => self.let_key_go(name),
        }
        self.lanes.wake(name);
        true
    }

    /// Whether a change of that parked key is on its way to the database.
    pub(super) fn is_committing(&self, name: u64) -> bool {
        self.pending.values().any(|pending| match pending {
            Pending::Parked(_, key) | Pending::Noted(_, key) => self.lane_name(key) == name,
            Pending::Popped(_, popping) => popping.name == name,
            _ => false,
        })
    }
}

/// Reads the parked delivery of that number: its copy, or its entry in the log.
pub(crate) async fn read_parked(
    database: &dyn Database,
    key: &str,
    number: u64,
) -> Result<Option<Head>> {
    let id = names::parked(key, number);
    let stored = database.get(names::PARKED, &[&id]).await?.pop().flatten();
    let Some(stored) = stored else { return Ok(None) };
    let parked: Parked = serde_json::from_slice(&stored.body)?;
    if let Some(copied) = parked.copied() {
        return Ok(Some(Head { number, message: copied?, parked }));
    }
    let position = parked.position.unwrap_or_default();
    let before = Position(position.0.saturating_sub(1));
    let page = database.log(before, &Filter::default(), 1).await?;
    let entry = page.entries.into_iter().next().filter(|entry| entry.position == position);
    let entry = entry.ok_or_else(|| {
        let what = format!("parked delivery `{id}`: the log has no entry at {position} any more");
        Error::new(ErrorKind::Trimmed, what)
    })?;
    Ok(Some(Head { number, message: entry.body, parked }))
}
