//! Short ways to say commits, and to make and look at them.

use bytes::Bytes;
use sillage_core::{
    Commit, CommitError, Committed, Condition, Database, Decision, Delivered, Epoch, Expected,
    Filter, Message, MessageId, Page, Position, Range, Recorded, Result, Sort, Stored, Text,
    Timestamp, Version, Write,
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// A handle on the database under test.
pub(super) type Handle = Arc<dyn Database>;

/// More than any of these tests writes.
pub(super) const ALL: usize = 1_000_000;

/// A plain message of the source `test`, on the topic `thing`.
pub(crate) fn message(id: &str) -> Message {
    Message {
        id: MessageId::new(id),
        source: "test".into(),
        name: "thing.happened".into(),
        version: 1,
        topic: Some("thing".into()),
        key: Some(id.into()),
        time: Timestamp::from_micros(1_700_000_000_123_456),
        correlation_id: "correlation".into(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload: Bytes::from_static(b"{}"),
    }
}

/// An entry that belongs to no stream.
pub(super) fn entry(message: Message) -> Write {
    Write::Append { stream: None, message: Arc::new(message) }
}

/// An entry of a stream.
pub(super) fn append(stream: &str, id: &str) -> Write {
    Write::Append { stream: Some(stream.into()), message: Arc::new(message(id)) }
}

/// A document without a sort key.
pub(super) fn put(collection: &str, id: &str, body: &str) -> Write {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Write::Put { collection: collection.into(), id: id.into(), sort: None, body }
}

/// A document with a sort key.
pub(super) fn sorted(collection: &str, id: &str, sort: Sort) -> Write {
    let body = Bytes::from_static(b"sorted");
    Write::Put { collection: collection.into(), id: id.into(), sort: Some(sort), body }
}

/// A sort key.
pub(super) fn text(sort: &str) -> Sort {
    Sort::Text(sort.into())
}

pub(super) fn delete(collection: &str, id: &str) -> Write {
    Write::Delete { collection: collection.into(), id: id.into() }
}

/// A delivery of a message of the source `test`.
pub(super) fn delivered(consumer: &str, id: &str) -> Delivered {
    Delivered { consumer: consumer.into(), source: "test".into(), id: id.into() }
}

/// An inbox row that is kept.
pub(super) fn decide(consumer: &str, id: &str, decision: Decision) -> Write {
    Write::Decide { delivery: delivered(consumer, id), decision, until: None }
}

/// An inbox row that may be forgotten.
pub(super) fn decide_until(consumer: &str, id: &str, partition: &str, offset: u64) -> Write {
    let until = Some((partition.into(), offset));
    Write::Decide { delivery: delivered(consumer, id), decision: Decision::Done, until }
}

pub(super) fn first(consumer: &str, id: &str) -> Condition {
    Condition::FirstTime(delivered(consumer, id))
}

pub(super) fn stream_is(stream: &str, expected: Expected) -> Condition {
    Condition::Stream { stream: stream.into(), expected }
}

pub(super) fn exact(version: u64) -> Expected {
    Expected::Exact(Version(version))
}

pub(super) fn document_is(collection: &str, id: &str, expected: Option<u64>) -> Condition {
    let expected = expected.map(Version);
    Condition::Document { collection: collection.into(), id: id.into(), expected }
}

pub(super) fn below(collection: &str, id: &str, sort: &str) -> Condition {
    Condition::Below { collection: collection.into(), id: id.into(), sort: sort.into() }
}

pub(super) fn lease_is(name: &str, epoch: Epoch) -> Condition {
    Condition::Lease { name: name.into(), epoch }
}

/// A commit without conditions.
pub(super) fn writes(writes: impl Into<Vec<Write>>) -> Commit {
    when([], writes)
}

/// A commit with conditions.
pub(super) fn when(conditions: impl Into<Vec<Condition>>, writes: impl Into<Vec<Write>>) -> Commit {
    Commit { conditions: conditions.into(), writes: writes.into() }
}

/// Commits one.
pub(super) async fn try_one(database: &Handle, commit: Commit) -> Result<Committed, CommitError> {
    let mut answers = database.commit(vec![commit]).await;
    assert_eq!(answers.len(), 1, "one commit has one answer");
    answers.remove(0)
}

/// Commits one that must be accepted.
pub(super) async fn accept(database: &Handle, commit: Commit) -> Committed {
    let shown = format!("{commit:?}");
    match try_one(database, commit).await {
        Ok(committed) => committed,
        Err(error) => panic!("this should be accepted, not `{error:?}`: {shown}"),
    }
}

/// Commits one that must be refused.
pub(super) async fn refuse(database: &Handle, commit: Commit) -> CommitError {
    let shown = format!("{commit:?}");
    match try_one(database, commit).await {
        Ok(committed) => panic!("this should be refused, not `{committed:?}`: {shown}"),
        Err(error) => error,
    }
}

/// Commits one each at the same time, on several handles by turns.
pub(super) async fn at_once(
    handles: &[Handle],
    commits: impl IntoIterator<Item = Commit>,
) -> Vec<Result<Committed, CommitError>> {
    let mut tasks = JoinSet::new();
    for (handle, commit) in handles.iter().cycle().zip(commits) {
        let handle = handle.clone();
        tasks.spawn(async move { try_one(&handle, commit).await });
    }
    tasks.join_all().await
}

pub(super) fn is_already_handled<T>(answer: &Result<T, CommitError>) -> bool {
    matches!(answer, Err(CommitError::AlreadyHandled))
}

pub(super) fn is_conflict<T>(answer: &Result<T, CommitError>) -> bool {
    matches!(answer, Err(CommitError::Conflict { .. }))
}

pub(super) fn is_fenced<T>(answer: &Result<T, CommitError>) -> bool {
    matches!(answer, Err(CommitError::Fenced))
}

/// A page of the whole log.
pub(super) async fn page(database: &Handle, after: Position, max: usize) -> Page {
    database.log(after, &Filter::default(), max).await.unwrap()
}

/// Every entry there is.
pub(super) async fn log(database: &Handle) -> Vec<Recorded> {
    page(database, Position(0), ALL).await.entries
}

/// The ids of entries.
pub(super) fn ids(entries: &[Recorded]) -> Vec<&str> {
    entries.iter().map(|entry| entry.id.as_str()).collect()
}

/// A whole stream.
pub(super) async fn stream(database: &Handle, name: &str) -> Vec<Recorded> {
    database.stream(name, Version(0), ALL).await.unwrap()
}

/// One document.
pub(super) async fn document(database: &Handle, collection: &str, id: &str) -> Option<Stored> {
    let mut documents = database.get(collection, &[id]).await.unwrap();
    assert_eq!(documents.len(), 1, "one id has one answer");
    documents.remove(0)
}

/// The version of one document, 0 where it is absent.
pub(super) async fn version(database: &Handle, collection: &str, id: &str) -> u64 {
    document(database, collection, id).await.map_or(0, |document| document.version.0)
}

/// The ids of the documents in a range, in its order.
pub(super) async fn listed(
    database: &Handle,
    collection: &str,
    range: Range<'_>,
    max: usize,
) -> Vec<Text> {
    let documents = database.list(collection, range, max).await.unwrap();
    documents.into_iter().map(|document| document.id).collect()
}

/// What one consumer decided about one delivery of the source `test`.
pub(super) async fn decision(database: &Handle, consumer: &str, id: &str) -> Option<Decision> {
    let asked = [("test".into(), id.into())];
    let mut decisions = database.decisions(consumer, &asked).await.unwrap();
    assert_eq!(decisions.len(), 1, "one delivery has one answer");
    decisions.remove(0)
}

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
