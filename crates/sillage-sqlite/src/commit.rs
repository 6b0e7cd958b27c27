//! A batch of commits as one SQL transaction; a batch that `SQLite` refuses is retried by halves.
//!
//! The file's write lock is held from the start, so conditions are asked of the file itself and
//! each commit sees the writes of those accepted before it.

use crate::{
    changed::Seen,
    error::{is_the_file, refuse},
    statements::Statements,
};
use sillage_core::{
    Clock, Commit, CommitError, Committed, Condition, Expected, Position, Sort, Timestamp, Version,
    Write,
};
use std::{collections::HashSet, path::Path};

/// What became of one commit.
pub(crate) type Outcome = Result<Committed, CommitError>;

/// Applies the batch. One outcome a commit, in order, and what the last transaction that succeeded
/// left to be seen.
pub(crate) fn apply(
    statements: &mut Statements<'_>,
    path: &Path,
    clock: &dyn Clock,
    commits: &[Commit],
) -> (Vec<Outcome>, Option<Seen>) {
    let outcomes = Vec::with_capacity(commits.len());
    let mut batch = Batch { statements, path, clock, outcomes, seen: None };
    batch.apply(commits);
    (batch.outcomes, batch.seen)
}

struct Batch<'b, 'c> {
    statements: &'b mut Statements<'c>,
    path: &'b Path,
    clock: &'b dyn Clock,
    outcomes: Vec<Outcome>,
    seen: Option<Seen>,
}

impl Batch<'_, '_> {
    fn apply(&mut self, commits: &[Commit]) {
        let clock = self.clock;
        // The time is read under the lock, so that it rises with the log.
        match self.statements.transaction(|file| accept(file, clock.now(), commits)) {
            Ok((outcomes, seen)) => {
                self.outcomes.extend(outcomes);
                self.seen = Some(seen);
            }
            Err(error) if commits.len() <= 1 || is_the_file(&error) => {
                tracing::warn!(commits = commits.len(), %error, "commits were not saved");
                let refused = commits.iter().map(|_| Err(refuse(self.path, &error)));
                self.outcomes.extend(refused);
            }
            Err(error) => {
                tracing::debug!(commits = commits.len(), %error, "a batch is retried by halves");
                let (first, second) = commits.split_at(commits.len() / 2);
                self.apply(first);
                self.apply(second);
            }
        }
    }
}

/// All commits, within one SQL transaction. An error is `SQLite`'s and condemns them all.
fn accept(
    statements: &mut Statements<'_>,
    now: Timestamp,
    commits: &[Commit],
) -> rusqlite::Result<(Vec<Outcome>, Seen)> {
    let (head, timers) = statements.seen()?;
    let mut seen = Seen { head, timers };
    let mut timer_set = false;
    let mut outcomes = Vec::with_capacity(commits.len());
    for commit in commits {
        if let Some(refusal) = refusal(statements, commit)? {
            outcomes.push(Err(refusal));
            continue;
        }
        for write in &commit.writes {
            timer_set |= sets_timer(write);
            if let Some(position) = write_one(statements, now, write)? {
                seen.head = position;
            }
        }
        outcomes.push(Ok(Committed { position: Position(seen.head) }));
    }
    if timer_set {
        seen.timers = statements.timers_set()?;
    }
    Ok((outcomes, seen))
}

/// Why this commit may not be accepted. Nothing of it is written yet.
fn refusal(
    statements: &mut Statements<'_>,
    commit: &Commit,
) -> rusqlite::Result<Option<CommitError>> {
    for condition in &commit.conditions {
        let refusal = unmet(statements, condition)?;
        if refusal.is_some() {
            return Ok(refusal);
        }
    }
    let mut own = HashSet::new();
    for write in &commit.writes {
        if let Write::Append { message, .. } = write {
            let repeated = !own.insert((&message.source, &message.id));
            if repeated || statements.is_known(&message.source, &message.id)? {
                return Ok(Some(CommitError::AlreadyHandled));
            }
        }
    }
    Ok(None)
}

fn unmet(
    statements: &mut Statements<'_>,
    condition: &Condition,
) -> rusqlite::Result<Option<CommitError>> {
    let (holds, refusal) = match condition {
        Condition::FirstTime(delivery) => {
            (statements.decision(delivery)?.is_none(), CommitError::AlreadyHandled)
        }
        Condition::Decided(delivery, decision) => {
            (statements.decision(delivery)? == Some(*decision), CommitError::AlreadyHandled)
        }
        Condition::Stream { expected: Expected::Any, .. } => return Ok(None),
        Condition::Stream { stream, expected } => {
            return Ok(conflict(version_of(*expected), statements.stream_version(stream)?));
        }
        Condition::Document { collection, id, expected } => {
            return Ok(conflict(*expected, statements.document_version(collection, id)?));
        }
        Condition::Below { collection, id, sort } => {
            (statements.is_below(collection, id, sort)?, CommitError::Fenced)
        }
        Condition::Lease { name, epoch } => {
            (statements.lease_epoch(name)? == Some(*epoch), CommitError::Fenced)
        }
    };
    Ok((!holds).then_some(refusal))
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

/// The position, where the write is an entry to the log.
fn write_one(
    statements: &mut Statements<'_>,
    now: Timestamp,
    write: &Write,
) -> rusqlite::Result<Option<u64>> {
    match write {
        Write::Append { stream, message } => {
            let place = match stream {
                Some(stream) => Some(statements.grow_stream(stream)?),
                None => None,
            };
            return statements.append(place, message).map(Some);
        }
        Write::Put { collection, id, sort, body } => {
            let document = (&**collection, &**id);
            match sort {
                None => statements.put(document, None, body)?,
                Some(Sort::Text(sort)) => statements.put(document, Some(sort), body)?,
                Some(Sort::After(delay)) => {
                    statements.put(document, Some(&(now + *delay).to_string()), body)?;
                }
            }
        }
        Write::Delete { collection, id } => statements.delete(collection, id)?,
        Write::Decide { delivery, decision, until } => {
            let until = until.as_ref().map(|(partition, offset)| (&**partition, *offset));
            statements.decide(delivery, *decision, until, now)?;
        }
        Write::Forget { consumer, partition, through } => {
            statements.forget(consumer, partition, *through)?;
        }
    }
    Ok(None)
}

/// Whether somebody who waits for due documents should look again: the sort key is a time.
fn sets_timer(write: &Write) -> bool {
    match write {
        Write::Put { sort: Some(Sort::After(_)), .. } => true,
        Write::Put { sort: Some(Sort::Text(sort)), .. } => {
            sort.ends_with('Z') && sort.as_bytes().get(10) == Some(&b'T')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{file, migrate::migrate};
    use sillage_core::ErrorKind;
    use sillage_testkit::ManualClock;

    fn put(id: usize, bytes: usize) -> Commit {
        let write = Write::Put {
            collection: "c".into(),
            id: id.to_string().into(),
            sort: None,
            body: vec![b'x'; bytes].into(),
        };
        Commit { conditions: vec![], writes: vec![write] }
    }

    /// A bound on the file's pages fails as a full disk does.
    #[test]
    fn a_full_disk_fails_the_batch_and_spoils_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full.db");
        let mut connection = file::writer(&path).unwrap();
        migrate(&path, &mut connection).unwrap();
        connection.pragma_update(None, "max_page_count", 60).unwrap();
        let mut statements = Statements::prepare(&connection).unwrap();
        let clock = ManualClock::default();
        let large: Vec<_> = (0..16).map(|id| put(id, 20_000)).collect();
        let (outcomes, seen) = apply(&mut statements, &path, &clock, &large);
        assert_eq!((outcomes.len(), seen), (16, None));
        for outcome in outcomes {
            let Err(CommitError::Failed(error)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        }
        let (outcomes, _) = apply(&mut statements, &path, &clock, &[put(99, 10)]);
        assert!(outcomes[0].is_ok(), "what has room is saved: {outcomes:?}");
        connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        let (outcomes, _) = apply(&mut statements, &path, &clock, &large);
        assert!(outcomes.iter().all(Result::is_ok), "once there is room again: {outcomes:?}");
        let documents: i64 =
            connection.query_row("SELECT count(*) FROM documents", [], |row| row.get(0)).unwrap();
        assert_eq!(documents, 17);
    }
}
