//! One pass over a batch within one SQL transaction: each commit's conditions, then its writes.
//!
//! The file's write lock is held, so conditions are asked of the file itself and each commit sees
//! the writes of those accepted before it. Only streams' versions are kept in memory until the
//! end, as many commits of a batch may grow one stream.

use crate::{
    changed::Grown,
    commit::Outcome,
    run::{NAME, Sql},
    statements::{Place, Statements},
};
use sillage_core::{
    Commit, CommitError, Committed, Condition, Expected, Position, Recorded, Sort, Text, Timestamp,
    Version, Write,
};
use std::collections::{HashMap, hash_map::Entry};

/// A pass: what is known so far within the SQL transaction.
pub(crate) struct Pass<'s, 'c> {
    statements: &'s mut Statements<'c>,
    now: Timestamp,
    looks_up_ids: bool,
    streams: Streams,
    /// Where the log ended before, and the entries since.
    after: u64,
    appended: Vec<Recorded>,
    head: u64,
}

type Streams = HashMap<Text, Stream, foldhash::fast::RandomState>;

struct Stream {
    /// `None`: it has no entries yet.
    last: Option<Place>,
    /// The file has an older version.
    grown: bool,
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

impl<'s, 'c> Pass<'s, 'c> {
    /// `now` is the database's time. Ids of messages to append are looked up only on demand, or
    /// where a condition fails: almost all are new, and one that is not fails the pass by the
    /// log's index.
    pub(crate) fn begin(
        statements: &'s mut Statements<'c>,
        now: Timestamp,
        looks_up_ids: bool,
    ) -> rusqlite::Result<Self> {
        let after = statements.end()?;
        let (streams, appended) = (Streams::default(), vec![]);
        Ok(Pass { statements, now, looks_up_ids, streams, after, appended, head: after })
    }

    /// One outcome a commit, in order, and how the log has grown. An error is SQLite's and condemns
    /// the whole pass.
    pub(crate) fn run(mut self, commits: &[Commit]) -> rusqlite::Result<(Vec<Outcome>, Grown)> {
        let mut outcomes = Vec::with_capacity(commits.len());
        for commit in commits {
            outcomes.push(match self.refusal(commit)? {
                Some(refusal) => Err(refusal),
                None => self.write(commit)?,
            });
        }
        for (id, version) in self.streams.values().filter(|s| s.grown).filter_map(|s| s.last) {
            self.statements.grow_stream(id, version)?;
        }
        let (after, through) = (Position(self.after), Position(self.head));
        Ok((outcomes, Grown { after, through, entries: self.appended }))
    }

    /// Why this commit may not be accepted: the reason that ranks first, of several in a rank the
    /// first in its order. Nothing of it is written yet.
    fn refusal(&mut self, commit: &Commit) -> rusqlite::Result<Option<CommitError>> {
        let mut refused: Option<(Rank, CommitError)> = None;
        for condition in &commit.conditions {
            let rank = Rank::of(condition);
            if refused.as_ref().is_none_or(|(first, _)| rank < *first)
                && let Some(refusal) = self.unmet(condition)?
            {
                refused = Some((rank, refusal));
            }
        }
        let asks = match &refused {
            Some((rank, _)) => *rank > Rank::Done,
            None => self.looks_up_ids,
        };
        if asks && self.repeats_an_entry(&commit.writes)? {
            return Ok(Some(CommitError::AlreadyHandled));
        }
        Ok(refused.map(|(_, refusal)| refusal))
    }

    fn unmet(&mut self, condition: &Condition) -> rusqlite::Result<Option<CommitError>> {
        let (holds, refusal) = match condition {
            Condition::FirstTime(delivery) => {
                (self.statements.decision(delivery)?.is_none(), CommitError::AlreadyHandled)
            }
            Condition::Decided(delivery, decision) => {
                let decided = self.statements.decision(delivery)?;
                (decided == Some(*decision), CommitError::AlreadyHandled)
            }
            Condition::Stream { expected: Expected::Any, .. } => return Ok(None),
            Condition::Stream { stream, expected } => {
                let last = self.stream(stream)?.last;
                return Ok(conflict(version_of(*expected), last.map(|(_, version)| version)));
            }
            Condition::Document { collection, id, expected } => {
                let actual = self.statements.document_version(collection, id)?;
                return Ok(conflict(*expected, actual));
            }
            Condition::Below { collection, id, sort } => {
                (self.statements.is_below(collection, id, sort)?, CommitError::Fenced)
            }
            Condition::Lease { name, epoch } => {
                (self.statements.lease_epoch(name)? == Some(*epoch), CommitError::Fenced)
            }
        };
        Ok((!holds).then_some(refusal))
    }

    /// Whether a (source, id) of these is in the log.
    fn repeats_an_entry(&mut self, writes: &[Write]) -> rusqlite::Result<bool> {
        for write in writes {
            let message = match write {
                Write::Append { message, .. } => message,
                Write::Restore(entry) => &entry.body,
                _ => continue,
            };
            if self.statements.is_known(&message.source, &message.id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Users' SQL first, so that nothing else is to be taken back where it fails.
    fn write(&mut self, commit: &Commit) -> rusqlite::Result<Outcome> {
        if commit.writes.iter().any(|write| sql(write).is_some())
            && let Some(failure) = self.statements.run(commit.writes.iter().filter_map(sql))?
        {
            return Ok(Err(CommitError::Sql(failure)));
        }
        for write in &commit.writes {
            self.write_one(write)?;
        }
        Ok(Ok(Committed { position: Position(self.head) }))
    }

    fn write_one(&mut self, write: &Write) -> rusqlite::Result<()> {
        match write {
            Write::Append { stream, message } => {
                let place = match stream {
                    Some(stream) => Some(self.grow(stream)?),
                    None => None,
                };
                self.head = self.statements.append(place, message)?;
                let stream = stream.clone().zip(place.map(|(_, version)| version));
                self.appended.push(Recorded::new(Position(self.head), stream, message.clone()));
                Ok(())
            }
            Write::Put { collection, id, sort, body } => {
                let sort = sort.as_ref().map(|sort| match sort {
                    Sort::Text(text) => text.clone(),
                    Sort::After(delay) => (self.now + *delay).to_string().into(),
                });
                self.statements.put((collection, id), sort.as_deref(), body)
            }
            Write::Delete { collection, id } => self.statements.delete(collection, id),
            Write::Decide { delivery, decision, until } => {
                let until = until.as_ref().map(|(partition, offset)| (&**partition, *offset));
                self.statements.decide(delivery, *decision, until, self.now)
            }
            Write::Forget { consumer, partition, through } => {
                self.statements.forget(consumer, partition, *through)
            }
            // Done already.
            Write::Run(_) => Ok(()),
            Write::Trim { stream: None, through } => self.statements.trim(through.0),
            Write::Trim { stream: Some(stream), through } => match self.stream(stream)?.last {
                Some((id, _)) => self.statements.trim_stream(id, through.0),
                None => Ok(()),
            },
            Write::Restore(entry) => self.restore(entry),
        }
    }

    /// Only of a stream that is there: it keeps its version.
    fn restore(&mut self, entry: &Recorded) -> rusqlite::Result<()> {
        let Some((name, version)) = &entry.stream else { return Ok(()) };
        let Some((id, _)) = self.stream(name)?.last else { return Ok(()) };
        self.statements.restore(entry.position.0, (id, *version), &entry.body)
    }

    /// The place of the stream's next entry, which it takes.
    fn grow(&mut self, name: &Text) -> rusqlite::Result<Place> {
        let stream = known(&mut self.streams, self.statements, name)?;
        let place = match stream.last {
            Some((id, version)) => (id, version.next()),
            None => (self.statements.new_stream(name)?, Version(1)),
        };
        stream.grown = stream.last.replace(place).is_some();
        Ok(place)
    }

    /// Where the stream stands.
    fn stream(&mut self, name: &Text) -> rusqlite::Result<&mut Stream> {
        known(&mut self.streams, self.statements, name)
    }
}

fn known<'p>(
    streams: &'p mut Streams,
    statements: &mut Statements<'_>,
    name: &Text,
) -> rusqlite::Result<&'p mut Stream> {
    match streams.entry(name.clone()) {
        Entry::Occupied(known) => Ok(known.into_mut()),
        Entry::Vacant(unknown) => {
            let last = statements.stream_place(name)?;
            Ok(unknown.insert(Stream { last, grown: false }))
        }
    }
}

/// What a write runs; SQL for other databases was refused before.
fn sql(write: &Write) -> Option<&Sql> {
    match write {
        Write::Run(statement) => statement.run_by(NAME).ok(),
        _ => None,
    }
}

fn version_of(expected: Expected) -> Option<Version> {
    match expected {
        Expected::Exact(version) => Some(version),
        Expected::NoStream | Expected::Any => None,
    }
}

/// Version 0 is "not there yet", the same as none.
fn conflict(expected: Option<Version>, actual: Option<Version>) -> Option<CommitError> {
    let same = expected.unwrap_or_default() == actual.unwrap_or_default();
    (!same).then_some(CommitError::Conflict { expected, actual })
}
