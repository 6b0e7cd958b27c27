//! Deciders: an aggregate as three pure functions, on a stream of events.
//!
//! Source of the pattern: Jérémie Chassaing, "Functional Event Sourcing Decider", 2021.
//!
//! *Guarantees.* Of several decisions on the same version one is appended; the others are decided
//! again on what is there then. A refusal appends nothing.

mod executor;
mod snapshots;
mod together;

use crate::{
    archive,
    handler::{Context, Extract, Needs},
    names,
};
pub(crate) use executor::Executor;
use sillage_core::{
    CommitError, Condition, Database, Effects, Error, ErrorKind, Events, Expected, Failure,
    OrFail as _, Position, Recorded, Result, Source, Text, Version, append,
};
pub use snapshots::Snapshots;
use std::{fmt, ops::Deref};
pub use together::{Aggregates, Together};

/// How many events are read at once.
const PAGE: usize = 1000;
/// So often a command is decided again because another process changed its stream.
const TRIES: u32 = 32;

/// An aggregate as three pure functions.
///
/// ```
/// # use sillage::prelude::*;
/// # use serde::{Serialize, Deserialize};
/// #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
/// #[event(name = "door.opened")]
/// struct Opened { #[event(key)] door: String }
/// #[derive(Events, Clone, Debug, PartialEq)]
/// enum DoorEvent { Opened(Opened) }
///
/// #[derive(Clone, Default)]
/// struct Door { open: bool }
/// impl Decider for Door {
///     const STREAM: &'static str = "door";
///     type Command = Opened;
///     type Event = DoorEvent;
///     type Refusal = &'static str;
///     fn initial() -> Self { Door::default() }
///     fn decide(&self, open: Opened) -> Result<Vec<DoorEvent>, &'static str> {
///         if self.open { return Err("it is open") }
///         Ok(vec![open.into()])
///     }
///     fn evolve(self, _: &DoorEvent) -> Self { Door { open: true } }
/// }
/// let open = || Opened { door: "front".into() };
/// assert_eq!(Door::initial().decide(open()).unwrap(), [open().into()]);
/// ```
pub trait Decider: Clone + Send + Sync + Sized + 'static {
    /// What its streams' names start with: the stream of `7` is `order-7`.
    const STREAM: &'static str;
    /// What is asked of it.
    type Command: Clone + Send + 'static;
    /// What it decides.
    type Event: Events + Clone;
    /// Why it decides nothing.
    type Refusal: fmt::Debug + Send + Sync + 'static;
    /// The state before the first event.
    fn initial() -> Self;
    /// The events that follow from a command in this state, or why there are none.
    fn decide(&self, command: Self::Command) -> Result<Vec<Self::Event>, Self::Refusal>;
    /// The state after an event.
    #[must_use]
    fn evolve(self, event: &Self::Event) -> Self;
    /// When and how the state is kept beside its stream; not, unless said.
    fn snapshots() -> Option<Snapshots<Self>> {
        None
    }
}

/// A refusal is an answer, not a failure: `?` does not take it for one. Match on it, or say
/// `.or_permanent()`.
#[derive(Debug)]
pub struct Refused<R>(pub R);

impl<R: fmt::Debug> From<Refused<R>> for Source {
    fn from(refused: Refused<R>) -> Source {
        format!("refused: {:?}", refused.0).into()
    }
}

/// The entity that the message's key names, folded from its stream.
///
/// Its stream must be unchanged when the handler's effects are committed.
pub struct Aggregate<D> {
    state: D,
    id: String,
    version: Version,
}

impl<D> Deref for Aggregate<D> {
    type Target = D;
    fn deref(&self) -> &D {
        &self.state
    }
}

impl<D: Decider> Aggregate<D> {
    /// Decides on the state that was read; the effects append what was decided.
    pub fn decide(&self, command: D::Command) -> Result<Effects, Refused<D::Refusal>> {
        let events = self.state.decide(command).map_err(Refused)?;
        if events.is_empty() {
            return Ok(Effects::none());
        }
        let now = Version(self.version.0 + events.len() as u64);
        let appended = append(local_stream::<D>(&self.id), expected(self.version), &events);
        if D::snapshots().is_none() {
            return Ok(appended);
        }
        let state = events.iter().fold(self.state.clone(), Decider::evolve);
        Ok(appended.and(snapshots::keep(&self.id, self.version, &state, now)))
    }

    /// The aggregate of that id, with the condition that its stream is unchanged.
    async fn load(
        database: &dyn Database,
        service: &str,
        id: String,
    ) -> Result<(Self, Condition), Failure> {
        let (state, version) = fold::<D>(database, service, &id).await?;
        let stream = names::stream(service, &local_stream::<D>(&id));
        let unchanged = Condition::Stream { stream, expected: expected(version) };
        Ok((Aggregate { state, id, version }, unchanged))
    }

    /// How many events the state is folded from.
    pub fn version(&self) -> Version {
        self.version
    }
}

impl<D: Decider> Extract for Aggregate<D> {
    fn needs(needs: &mut Needs) {
        needs.database = true;
    }

    async fn extract(context: &Context) -> Result<Self, Failure> {
        let key = context.message.key.as_ref();
        let key =
            key.ok_or_else(|| Failure::permanent("a message without key names no aggregate"))?;
        let id = key.label().into_owned();
        let service = &context.shared.service;
        let (aggregate, unchanged) = Self::load(&**context.database()?, service, id).await?;
        context.beside().require(unchanged);
        Ok(aggregate)
    }
}

fn expected(version: Version) -> Expected {
    match version {
        Version(0) => Expected::NoStream,
        version => Expected::Exact(version),
    }
}

fn local_stream<D: Decider>(id: &str) -> String {
    format!("{}-{id}", D::STREAM)
}

/// The state and version of a stream.
async fn fold<D: Decider>(
    database: &dyn Database,
    service: &str,
    id: &str,
) -> Result<(D, Version), Failure> {
    let stream = names::stream(service, &local_stream::<D>(id));
    let known = snapshots::kept::<D>(database, service, id).await?;
    if let Some((state, version)) = known {
        // The entry it ends at must be there, else it is not of this stream.
        let page = read(database, &stream, Version(version.0 - 1)).await?;
        if let Some((last, later)) = page.split_first()
            && last.stream.as_ref().is_some_and(|(_, found)| *found == version)
        {
            let full = page.len() == PAGE;
            let (state, version) = evolve(state, version, later)?;
            return if full {
                rest(database, &stream, state, version).await
            } else {
                Ok((state, version))
            };
        }
        tracing::warn!(%stream, %version, "a snapshot is ahead of its stream, which is read instead");
    }
    rest(database, &stream, D::initial(), Version(0)).await
}

/// Entries of a stream; where they are archived, an error that says which file to restore.
async fn read(
    database: &dyn Database,
    stream: &Text,
    after: Version,
) -> Result<Vec<Recorded>, Failure> {
    match database.stream(stream, after, PAGE).await {
        Ok(page) => Ok(page),
        Err(error) => Err(archive::explained(database, stream, error).await.into()),
    }
}

async fn rest<D: Decider>(
    database: &dyn Database,
    stream: &Text,
    mut state: D,
    mut version: Version,
) -> Result<(D, Version), Failure> {
    loop {
        let page = read(database, stream, version).await?;
        (state, version) = evolve(state, version, &page)?;
        if page.len() < PAGE {
            return Ok((state, version));
        }
    }
}

fn evolve<D: Decider>(
    mut state: D,
    mut version: Version,
    entries: &[Recorded],
) -> Result<(D, Version), Failure> {
    for entry in entries {
        let event = D::Event::read(&entry.name, entry.body.version, &entry.payload);
        state = state.evolve(&event.or_permanent()?);
        version = entry.stream.as_ref().map_or_else(|| version.next(), |(_, version)| *version);
    }
    Ok((state, version))
}

fn unfolded(failure: Failure) -> Error {
    match failure.source.downcast::<Error>() {
        Ok(error) => *error,
        Err(source) => Error::new(ErrorKind::Corrupt, "the stream cannot be read").because(source),
    }
}

/// What a command led to.
#[derive(Clone, Debug)]
pub struct Executed<D: Decider> {
    /// The events that were appended; none where nothing changed.
    pub events: Vec<D::Event>,
    /// Where the last of them is in the log: what to wait for before reading a view.
    pub position: Position,
    /// The stream's version now.
    pub version: Version,
}

/// Why a command led to nothing.
#[derive(Debug)]
pub enum ExecuteError<R> {
    /// The aggregate refused.
    Refused(R),
    /// Other processes kept changing the stream.
    Conflict,
    /// The database did not answer, or the events cannot be stored.
    Database(Error),
}

impl<R: fmt::Debug> fmt::Display for ExecuteError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExecuteError::Refused(refusal) => write!(f, "refused: {refusal:?}"),
            ExecuteError::Conflict => f.write_str("other processes kept changing the stream"),
            ExecuteError::Database(error) => error.fmt(f),
        }
    }
}

impl<R: fmt::Debug> std::error::Error for ExecuteError<R> {}

impl<R> From<CommitError> for ExecuteError<R> {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. }
            | CommitError::AlreadyHandled
            | CommitError::Fenced
            | CommitError::Held(_) => ExecuteError::Conflict,
            CommitError::Rejected(error) | CommitError::Failed(error) => {
                ExecuteError::Database(error)
            }
            CommitError::Sql(failure) => {
                ExecuteError::Database(Error::invalid("SQL in the commit").because(failure.source))
            }
        }
    }
}
