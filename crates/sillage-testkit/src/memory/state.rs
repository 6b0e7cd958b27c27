//! What a [`Memory`](super::Memory) holds, and what a commit does to it: first every condition
//! is looked at, then every write is made; no write can fail.

use sillage_core::{
    Commit, CommitError, Committed, Condition, Decision, Delivered, Epoch, Error, Expected, Filter,
    Limits, Message, Page, Position, Range, Recorded, Sort, Statement, Stored, Text, Timestamp,
    Version, Write,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

#[derive(Default)]
pub(super) struct State {
    pub(super) fail_next: usize,
    pub(super) fail_after_apply: usize,
    /// By position.
    log: BTreeMap<Position, Recorded>,
    /// The last position given out.
    last: Position,
    trimmed_before: Position,
    streams: BTreeMap<Text, Stream>,
    /// (source, id) of every entry.
    identities: BTreeSet<(Text, Text)>,
    /// By collection and id.
    documents: BTreeMap<Text, BTreeMap<Text, Stored>>,
    /// By consumer, source and id.
    inbox: BTreeMap<(Text, Text, Text), Row>,
    leases: BTreeMap<Text, Lease>,
}

#[derive(Default)]
struct Stream {
    version: Version,
    /// Those that are in the log.
    entries: BTreeMap<Version, Recorded>,
}

struct Row {
    decision: Decision,
    until: Option<(Text, u64)>,
}

struct Lease {
    owner: Uuid,
    epoch: Epoch,
    until: Timestamp,
}

impl State {
    pub(super) fn commit(
        &mut self,
        commit: Commit,
        now: Timestamp,
    ) -> Result<Committed, CommitError> {
        Limits::default().check(&commit).map_err(CommitError::Rejected)?;
        if let Some(statement) = commit.writes.iter().find_map(statement) {
            let error = statement.refused_by("in memory, where there is no SQL");
            return Err(CommitError::Rejected(error));
        }
        if take_one(&mut self.fail_next) {
            return Err(failed("not applied"));
        }
        self.accepts(&commit)?;
        for write in commit.writes {
            self.apply(write, now);
        }
        if take_one(&mut self.fail_after_apply) {
            return Err(failed("applied"));
        }
        // Whatever was appended is at the end now.
        Ok(Committed { position: self.head() })
    }

    /// Leases rank first, then whatever says that the commit was done before, then the others.
    fn accepts(&self, commit: &Commit) -> Result<(), CommitError> {
        let all_hold = |ranked: fn(&Condition) -> bool| {
            let mut conditions = commit.conditions.iter().filter(|condition| ranked(condition));
            conditions.try_for_each(|condition| self.holds(condition))
        };
        all_hold(|condition| matches!(condition, Condition::Lease { .. }))?;
        all_hold(|condition| matches!(condition, Condition::FirstTime(_)))?;
        let appended = |write: &Write| match write {
            Write::Append { message, .. } => self.identities.contains(&identity(message)),
            Write::Restore(entry) => self.identities.contains(&identity(&entry.body)),
            _ => false,
        };
        ensure(!commit.writes.iter().any(appended), CommitError::AlreadyHandled)?;
        all_hold(|_| true)
    }

    fn holds(&self, condition: &Condition) -> Result<(), CommitError> {
        let decided = |delivery: &Delivered| {
            self.decision(&delivery.consumer, &delivery.source, &delivery.id)
        };
        match condition {
            Condition::FirstTime(delivery) => {
                ensure(decided(delivery).is_none(), CommitError::AlreadyHandled)
            }
            Condition::Decided(delivery, decision) => {
                ensure(decided(delivery) == Some(*decision), CommitError::AlreadyHandled)
            }
            Condition::Stream { expected: Expected::Any, .. } => Ok(()),
            Condition::Stream { stream, expected: Expected::NoStream } => {
                same_version(None, self.stream_version(stream))
            }
            Condition::Stream { stream, expected: Expected::Exact(version) } => {
                same_version(Some(*version), self.stream_version(stream))
            }
            Condition::Document { collection, id, expected } => {
                let actual = self.document(collection, id).map(|document| document.version);
                same_version(*expected, actual)
            }
            Condition::Below { collection, id, sort } => {
                let document = self.document(collection, id);
                let below = |found: &Stored| found.sort.as_ref().is_some_and(|old| old < sort);
                ensure(document.is_none_or(below), CommitError::Fenced)
            }
            Condition::Lease { name, epoch } => {
                let lease = self.leases.get(name);
                ensure(lease.is_some_and(|lease| lease.epoch == *epoch), CommitError::Fenced)
            }
        }
    }

    fn apply(&mut self, write: Write, now: Timestamp) {
        match write {
            Write::Append { stream, message } => self.append(stream, message),
            Write::Put { collection, id, sort, body } => {
                let sort = sort.map(|sort| match sort {
                    Sort::Text(text) => text,
                    Sort::After(delay) => (now + delay).to_string().into(),
                });
                let documents = self.documents.entry(collection).or_default();
                let version = documents.get(&id).map_or(Version(0), |old| old.version).next();
                documents.insert(id.clone(), Stored { id, version, sort, body });
            }
            Write::Delete { collection, id } => {
                self.documents.entry(collection).or_default().remove(&id);
            }
            Write::Decide { delivery: Delivered { consumer, source, id }, decision, until } => {
                self.inbox.insert((consumer, source, id), Row { decision, until });
            }
            Write::Forget { consumer, partition, through } => {
                self.inbox.retain(|(owner, ..), row| {
                    let bound = row.until.as_ref();
                    let passed =
                        bound.is_some_and(|(p, offset)| *p == partition && *offset <= through);
                    *owner != consumer || !passed
                });
            }
            // Refused before.
            Write::Run(_) => {}
            Write::Trim { stream, through } => self.trim(stream.as_ref(), through),
            Write::Restore(entry) => self.record(entry),
        }
    }

    fn trim(&mut self, stream: Option<&Text>, through: Position) {
        let of_it = |entry: &Recorded| entry.stream.as_ref().map(|(name, _)| name) == stream;
        let gone = self.log.range(..=through).filter(|(_, entry)| of_it(entry));
        let gone: Vec<Recorded> = gone.map(|(_, entry)| entry.clone()).collect();
        for entry in gone {
            self.log.remove(&entry.position);
            self.identities.remove(&identity(&entry.body));
            if let Some((name, version)) = &entry.stream {
                self.streams.entry(name.clone()).or_default().entries.remove(version);
            }
        }
        if stream.is_none() {
            self.trimmed_before = self.trimmed_before.max(through);
        }
    }

    fn append(&mut self, stream: Option<Text>, message: Arc<Message>) {
        self.last = Position(self.last.0 + 1);
        let place = stream.map(|name| {
            let stream = self.streams.entry(name.clone()).or_default();
            stream.version = stream.version.next();
            (name, stream.version)
        });
        self.record(Recorded::new(self.last, place, message));
    }

    fn record(&mut self, entry: Recorded) {
        self.identities.insert(identity(&entry.body));
        if let Some((name, version)) = &entry.stream {
            let stream = self.streams.entry(name.clone()).or_default();
            stream.entries.insert(*version, entry.clone());
        }
        self.log.insert(entry.position, entry);
    }

    pub(super) fn head(&self) -> Position {
        self.last
    }

    fn stream_version(&self, stream: &str) -> Option<Version> {
        self.streams.get(stream).map(|stream| stream.version)
    }

    pub(super) fn stream(
        &self,
        name: &str,
        after: Version,
        max: usize,
    ) -> Result<Vec<Recorded>, Error> {
        let Some(stream) = self.streams.get(name).filter(|stream| stream.version > after) else {
            return Ok(vec![]);
        };
        if max > 0 && !stream.entries.contains_key(&after.next()) {
            return Err(Error::trimmed_stream(name, after.next()));
        }
        let later = stream.entries.range(after.next()..);
        Ok(later.map(|(_, entry)| entry.clone()).take(max).collect())
    }

    pub(super) fn page(&self, after: Position, filter: &Filter, max: usize) -> Page {
        let later = self.log.range((Bound::Excluded(after), Bound::Unbounded));
        let matching = later.map(|(_, entry)| entry).filter(|entry| filter.takes(entry));
        let entries: Vec<_> = matching.take(max).cloned().collect();
        let through = if entries.len() == max {
            entries.last().map_or(after, |entry| entry.position)
        } else {
            self.head().max(after)
        };
        Page { entries, through, trimmed_before: self.trimmed_before }
    }

    /// Whether a reader at this position should read: there is something for it, or its place can
    /// move by much.
    pub(super) fn is_news(&self, after: Position, filter: &Filter) -> bool {
        const FAR: u64 = 64;
        let page = self.page(after, filter, 1);
        !page.entries.is_empty() || page.through.0 >= after.0 + FAR
    }

    pub(super) fn document(&self, collection: &str, id: &str) -> Option<&Stored> {
        self.documents.get(collection)?.get(id)
    }

    pub(super) fn list(
        &self,
        collection: &str,
        range: Range<'_>,
        max: usize,
        now: Timestamp,
    ) -> Vec<Stored> {
        let now = now.to_string();
        let wanted = |document: &&Stored| {
            let sort = document.sort.as_deref();
            match range {
                Range::Ids { prefix, after } => {
                    document.id.starts_with(prefix) && &*document.id > after
                }
                Range::Sort { from, until } => {
                    sort.is_some_and(|sort| from <= sort && sort < until)
                }
                Range::Due => sort.is_some_and(|sort| sort <= now.as_str()),
            }
        };
        // In order of id, which a stable sort keeps among equal sort keys.
        let all = self.documents.get(collection).into_iter().flat_map(BTreeMap::values);
        let mut documents: Vec<_> = all.filter(wanted).cloned().collect();
        if !matches!(range, Range::Ids { .. }) {
            documents.sort_by(|a, b| a.sort.cmp(&b.sort));
        }
        documents.truncate(max);
        documents
    }

    pub(super) fn decision(&self, consumer: &str, source: &str, id: &str) -> Option<Decision> {
        let row = self.inbox.get(&(consumer.into(), source.into(), id.into()));
        row.map(|row| row.decision)
    }

    pub(super) fn lease(
        &mut self,
        name: &str,
        owner: Uuid,
        ttl: Duration,
        now: Timestamp,
    ) -> Option<Epoch> {
        let until = now + ttl;
        match self.leases.get_mut(name) {
            Some(lease) if lease.owner == owner => {
                lease.until = until;
                Some(lease.epoch)
            }
            Some(lease) if lease.until > now => None,
            _ if ttl.is_zero() => None,
            last => {
                let epoch = Epoch(last.map_or(0, |lease| lease.epoch.0) + 1);
                self.leases.insert(name.into(), Lease { owner, epoch, until });
                Some(epoch)
            }
        }
    }
}

fn statement(write: &Write) -> Option<&Statement> {
    match write {
        Write::Run(statement) => Some(statement),
        _ => None,
    }
}

fn take_one(faults: &mut usize) -> bool {
    let any = *faults > 0;
    *faults = faults.saturating_sub(1);
    any
}

fn failed(what: &str) -> CommitError {
    let sentence = format!("the test wanted this commit to fail; it was {what}");
    CommitError::Failed(Error::unavailable(sentence))
}

fn ensure(holds: bool, otherwise: CommitError) -> Result<(), CommitError> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// Version 0 is "not there yet", so it is the same as none.
fn same_version(expected: Option<Version>, actual: Option<Version>) -> Result<(), CommitError> {
    let same = expected.unwrap_or_default() == actual.unwrap_or_default();
    ensure(same, CommitError::Conflict { expected, actual })
}

fn identity(message: &Message) -> (Text, Text) {
    (message.source.clone(), message.id.text())
}
