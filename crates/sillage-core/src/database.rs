//! The database port: one append-only log, documents of current state, and one verb, `commit`.
//!
//! A [`Commit`] is conditions and writes; it is applied whole or not at all. A batch of commits
//! costs one durable write, and each of them succeeds or fails on its own, each seeing the writes
//! of those accepted before it.

use crate::{
    BoxFuture, Error, Failure, Message, Position, Recorded, Result, Statement, Text, Timestamp,
    Version,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{any::Any, fmt, sync::Arc, time::Duration};
use uuid::Uuid;

/// Conditions and writes, applied atomically to one database.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// All must hold, else nothing is written.
    pub conditions: Vec<Condition>,
    /// Applied in this order.
    pub writes: Vec<Write>,
}

/// Names a delivery to a consumer: identity is (source, id).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delivered {
    /// The consumer, as `service/name`.
    pub consumer: Text,
    /// The message's source.
    pub source: Text,
    /// The message's id.
    pub id: Text,
}

/// What a consumer decided about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Its effects are committed.
    Done,
    /// Set aside with its key, for a later try or as a dead letter.
    Parked,
    /// An operator passed over it.
    Skipped,
    /// An operator put an edited copy in its place.
    Replaced,
}

impl Decision {
    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Done => "done",
            Decision::Parked => "parked",
            Decision::Skipped => "skipped",
            Decision::Replaced => "replaced",
        }
    }

    /// Reads the stored word.
    pub fn parse(word: &str) -> Result<Decision> {
        match word {
            "done" => Ok(Decision::Done),
            "parked" => Ok(Decision::Parked),
            "skipped" => Ok(Decision::Skipped),
            "replaced" => Ok(Decision::Replaced),
            other => Err(Error::corrupt(format!("`{other}` is no inbox decision"))),
        }
    }
}

/// The fencing number of a lease: it grows with every change of owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The version a stream must have for a commit to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is.
    Any,
    /// The stream has never had an entry.
    NoStream,
    /// Exactly this.
    Exact(Version),
}

/// What must hold for a commit to be accepted. Conditions see the state before the commit's own
/// writes.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The consumer has decided nothing about this delivery.
    FirstTime(Delivered),
    /// This is what the consumer has decided about this delivery.
    Decided(Delivered, Decision),
    /// The stream has this version.
    Stream {
        /// The stream's whole name.
        stream: Text,
        /// Its version.
        expected: Expected,
    },
    /// The document has this version; `None`: it is absent.
    Document {
        /// Its collection.
        collection: Text,
        /// Its id.
        id: Text,
        /// Its version.
        expected: Option<Version>,
    },
    /// The document is absent, or its sort key is below this one: a watermark that only rises.
    Below {
        /// Its collection.
        collection: Text,
        /// Its id.
        id: Text,
        /// What its sort key must be below.
        sort: Text,
    },
    /// The lease still has this epoch.
    Lease {
        /// The lease's name.
        name: Text,
        /// Its epoch.
        epoch: Epoch,
    },
}

/// The ordered, indexed value of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Sort {
    /// This text.
    Text(Text),
    /// The database's time at the commit plus this delay, as a [`Timestamp`] is written.
    After(Duration),
}

/// A change. Bodies and payloads are opaque bytes.
#[derive(Clone, Debug)]
pub enum Write {
    /// An entry to the log; to the end of its stream if it names one.
    Append {
        /// The stream's whole name.
        stream: Option<Text>,
        /// The message. Its (source, id) must be new to the log.
        message: Arc<Message>,
    },
    /// A document: made with version 1, or replaced with the next version.
    Put {
        /// Its collection.
        collection: Text,
        /// Its id.
        id: Text,
        /// Its sort key.
        sort: Option<Sort>,
        /// Its body.
        body: Bytes,
    },
    /// Removes a document; nothing where there is none.
    Delete {
        /// Its collection.
        collection: Text,
        /// Its id.
        id: Text,
    },
    /// The inbox row of a delivery: made or replaced.
    Decide {
        /// Whose delivery.
        delivery: Delivered,
        /// What was decided.
        decision: Decision,
        /// Where the row may be forgotten: once [`Write::Forget`] passes this place. `None`
        /// keeps it.
        until: Option<(Text, u64)>,
    },
    /// Drops the consumer's inbox rows of this partition up to an offset: what can never be
    /// delivered again.
    Forget {
        /// Whose rows.
        consumer: Text,
        /// The partition, as the rows name it.
        partition: Text,
        /// The last offset to forget.
        through: u64,
    },
    /// SQL of the user's own. All of a commit's run before its other writes, in their order; where
    /// one fails the commit is refused, and nothing of it is left.
    Run(Statement),
    /// Removes entries from the log for good. Their (source, id) go with them: such a message would
    /// be new. Streams keep their versions.
    Trim {
        /// Entries of this stream, by its whole name. `None`: those without a stream; then
        /// [`Page::trimmed_before`] moves to `through`.
        stream: Option<Text>,
        /// The last position that is removed, at most the stable position.
        through: Position,
    },
    /// Puts an entry of a stream back in the place it had before [`Write::Trim`]. Its (source, id)
    /// must not be in the log.
    Restore(Recorded),
}

/// A commit that was accepted and is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The position of its last entry, or the head of the log where it appended none.
    pub position: Position,
}

/// Why a commit was not accepted; [`Database::commit`] says which reason ranks first. Nothing of
/// it was written, but for `Failed`, whose outcome is unknown: trying again with the same ids never
/// doubles it.
#[derive(Debug)]
pub enum CommitError {
    /// It was done before, perhaps by this same commit, whose answer was lost: a delivery that
    /// must be new was decided, or a message of it is in the log, by (source, id). Also where its
    /// `Stream`, `Document`, `Decided` and `Below` conditions fail: its own first try may be why.
    /// And: a `Decided` condition fails.
    AlreadyHandled,
    /// A stream or document has another version. Versions are `None` where it is absent.
    Conflict {
        /// What was expected.
        expected: Option<Version>,
        /// What is there.
        actual: Option<Version>,
    },
    /// The lease has another epoch: somebody else owns it now. Or a document is not `Below`.
    Fenced,
    /// Somebody else holds a row of it, and it was handed over with others, which do not wait for
    /// that: here it is again. Handed over alone it waits.
    Held(Commit),
    /// It can never be accepted as it is: it is over a limit, or appends a message twice.
    Rejected(Error),
    /// SQL of the user's own failed in it, as this failure's class says.
    Sql(Failure),
    /// The database did not answer, or could not save; the outcome is unknown.
    Failed(Error),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommitError::AlreadyHandled => f.write_str("already handled"),
            CommitError::Conflict { expected, actual } => {
                let word = |version: &Option<Version>| {
                    version.map_or_else(|| "none".to_owned(), |version| version.to_string())
                };
                write!(f, "expected version {}, found {}", word(expected), word(actual))
            }
            CommitError::Fenced => f.write_str("the lease has another owner now"),
            CommitError::Sql(failure) => failure.fmt(f),
            CommitError::Held(_) => f.write_str("somebody else holds a row of it"),
            CommitError::Rejected(error) | CommitError::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CommitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CommitError::Rejected(error) | CommitError::Failed(error) => error.source(),
            CommitError::Sql(failure) => Some(&*failure.source),
            _ => None,
        }
    }
}

/// A document as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its id.
    pub id: Text,
    /// Its version, from 1.
    pub version: Version,
    /// Its sort key.
    pub sort: Option<Text>,
    /// Its body.
    pub body: Bytes,
}

/// Which entries of the log are wanted: all that are in every list that is not empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Only these topics.
    pub topics: Vec<Text>,
    /// Only these names.
    pub names: Vec<Text>,
    /// Only this stream.
    pub stream: Option<Text>,
    /// Only what follows from this first message.
    pub correlation_id: Option<Text>,
}

impl Filter {
    /// Whether it takes this entry.
    pub fn takes(&self, entry: &Recorded) -> bool {
        let listed = |list: &[Text], value: Option<&Text>| {
            list.is_empty() || value.is_some_and(|value| list.contains(value))
        };
        listed(&self.topics, entry.topic.as_ref())
            && listed(&self.names, Some(&entry.name))
            && (self.stream.is_none()
                || self.stream.as_ref() == entry.stream.as_ref().map(|(name, _)| name))
            && self.correlation_id.as_ref().is_none_or(|wanted| *wanted == entry.correlation_id)
    }
}

/// A page of the log.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Entries that match, in order of position.
    pub entries: Vec<Recorded>,
    /// Everything that matches up to here is in this page or before it: where a reader's
    /// checkpoint moves, also where nothing matched.
    pub through: Position,
    /// Entries without a stream are gone from the log up to here; what is left comes all the same.
    pub trimmed_before: Position,
}

/// Where the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last position given out.
    pub last: Position,
    /// The highest position under which no entry can still appear.
    pub stable: Position,
    /// Changes when the database was restored or failed over.
    pub incarnation: Uuid,
}

/// Which documents of a collection, and in which order.
#[derive(Clone, Copy, Debug)]
pub enum Range<'a> {
    /// Ids that start with `prefix` and come after `after`, by id.
    Ids {
        /// What the ids start with.
        prefix: &'a str,
        /// The last id of the page before.
        after: &'a str,
    },
    /// Sort keys from `from` up to, not including, `until`, by sort key and id.
    Sort {
        /// The lowest sort key.
        from: &'a str,
        /// The first sort key that is not wanted.
        until: &'a str,
    },
    /// Sort keys that are times up to the database's now, by sort key and id.
    Due,
}

/// One log and the documents beside it.
///
/// Every implementation passes `sillage_testkit::conformance::database`.
pub trait Database: Send + Sync + 'static {
    /// Each commit succeeds or fails on its own, in this order; one durable write for all.
    ///
    /// Where a commit has several faults, the answer is the first of these:
    /// 1. `Rejected`: [`Limits::check`](crate::Limits::check) refuses it.
    /// 2. `Fenced`: a `Lease` condition fails.
    /// 3. `AlreadyHandled`: a `FirstTime` condition fails, or a message it appends is in the log.
    /// 4. The first of its other conditions that fails: `Conflict` for `Stream` and `Document`,
    ///    `AlreadyHandled` for `Decided`, `Fenced` for `Below`.
    /// 5. `Sql`: a statement of the user's own fails. One for another database is `Rejected`.
    ///
    /// `Held` comes before all but the first, where a database lets others hold rows.
    ///
    /// So a commit that was applied but answered `Failed` answers `AlreadyHandled` when it is tried
    /// again, and nobody decides a second time because its own entries are in the way. One that
    /// neither appends nor has a `FirstTime` condition has nothing to be known by.
    fn commit(&self, batch: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, CommitError>>>;

    /// The database's own transaction, for a handler that writes its own tables.
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>>>;

    /// Entries of a stream after version `after`, in order, at most `max`.
    ///
    /// # Errors
    /// `Trimmed` where the first of them is not in the log any more.
    fn stream<'a>(
        &'a self,
        stream: &'a str,
        after: Version,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>>>;

    /// Entries after `position` that match, in order, never past the stable position.
    fn log<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        max: usize,
    ) -> BoxFuture<'a, Result<Page>>;

    /// Where the log ends.
    fn head(&self) -> BoxFuture<'_, Result<Head>>;

    /// Documents by id, one answer an id, in the order asked.
    fn get<'a>(
        &'a self,
        collection: &'a str,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>>;

    /// Documents of a collection, at most `max`.
    fn list<'a>(
        &'a self,
        collection: &'a str,
        range: Range<'a>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Stored>>>;

    /// What the consumer decided about each (source, id), in the order asked.
    fn decisions<'a>(
        &'a self,
        consumer: &'a str,
        deliveries: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Vec<Option<Decision>>>>;

    /// Takes or renews a lease for `ttl` of the database's time; `None`: it has another owner.
    /// A `ttl` of zero gives it back. The epoch grows when the owner changes.
    fn lease<'a>(
        &'a self,
        name: &'a str,
        owner: Uuid,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Epoch>>>;

    /// The database's clock.
    fn now(&self) -> BoxFuture<'_, Result<Timestamp>>;

    /// Completes when an entry that the filter takes may have come after `position`, or when the
    /// log has grown by so much that a reader there should move its place: a hint; callers poll as
    /// well.
    fn changed(&self, position: Position, filter: &Filter) -> BoxFuture<'_, ()>;

    /// Waits as [`Database::changed`] does, for those who follow the log: with the next page, where it
    /// is in memory; else they read. What was committed a moment ago may be missing in it, and comes
    /// with the one after it; [`Page::trimmed_before`] may be lower than it is.
    fn next<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        _max: usize,
    ) -> BoxFuture<'a, Option<Page>> {
        let changed = self.changed(after, filter);
        Box::pin(async {
            changed.await;
            None
        })
    }
}

/// A database's own transaction. Dropped without a commit, it is rolled back.
pub trait Transaction: Send + 'static {
    /// Commits what was done in it together with `commit`, atomically.
    fn commit(
        self: Box<Self>,
        commit: Commit,
    ) -> BoxFuture<'static, Result<Committed, CommitError>>;
    /// To the backend's own type.
    fn as_any(self: Box<Self>) -> Box<dyn Any + Send>;
}
