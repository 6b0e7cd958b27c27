//! Reading a projection's documents, up to a position where that is asked.

use super::{Generations, collection, read, stored};
use sillage_core::{
    BoxFuture, Clock, Database, Document, Error, Position, Range, Result, Stored, Text,
};
use std::{
    collections::HashMap,
    fmt,
    fmt::Display,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// How far a generation is, as this process knows.
pub(crate) type Seen = Arc<watch::Sender<Position>>;

/// Moves what is known of a generation on.
pub(crate) fn saw(seen: &Seen, position: Position) {
    seen.send_if_modified(|seen| {
        let moved = *seen < position;
        *seen = (*seen).max(position);
        moved
    });
}

/// The generation that is read.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) tag: Text,
    collection: Text,
    seen: Seen,
}

/// What a process reads of a projection, and how far that is.
pub(crate) struct Progress {
    /// The projection, as `service/name`.
    pub(crate) id: Text,
    /// The version of this process's code.
    pub(crate) version: u32,
    /// The collection of its documents within the service.
    pub(crate) document: &'static str,
    pub(crate) database: Arc<dyn Database>,
    pub(crate) clock: Arc<dyn Clock>,
    reading: watch::Sender<Reading>,
    generations: Mutex<HashMap<Text, Seen>>,
}

impl Progress {
    pub(crate) fn new(
        (id, version): (Text, u32),
        document: &'static str,
        (database, clock): (Arc<dyn Database>, Arc<dyn Clock>),
        generations: &Generations,
    ) -> Self {
        let of = generations.read_by(version);
        let reading = Reading {
            tag: of.tag.clone(),
            collection: collection(&id, document, &of.tag),
            seen: Seen::default(),
        };
        let known = HashMap::from([(reading.tag.clone(), reading.seen.clone())]);
        let (reading, generations) = (watch::Sender::new(reading), Mutex::new(known));
        Progress { id, version, document, database, clock, reading, generations }
    }

    /// How far a generation is.
    pub(crate) fn seen(&self, tag: &Text) -> Seen {
        let mut known = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(tag.clone()).or_default().clone()
    }

    pub(crate) fn reading(&self) -> Reading {
        self.reading.borrow().clone()
    }

    /// Reads the generation that is to be read from now on.
    pub(crate) fn obey(&self, generations: &Generations) {
        let tag = &generations.read_by(self.version).tag;
        let collection = collection(&self.id, self.document, tag);
        let seen = self.seen(tag);
        self.reading.send_if_modified(|reading| {
            let moves = reading.tag != *tag;
            if moves {
                *reading = Reading { tag: tag.clone(), collection, seen };
            }
            moves
        });
    }

    /// Whether another generation is to be read than was: what is missing in a discarded one may
    /// be there.
    async fn moved(&self, from: &Reading) -> Result<bool> {
        if let Some((generations, _)) = stored(&*self.database, &self.id).await? {
            self.obey(&generations);
        }
        Ok(self.reading.borrow().tag != from.tag)
    }

    /// Waits until what is read has seen that position, and says what that is.
    pub(crate) async fn wait_for(
        &self,
        position: Position,
        within: Duration,
    ) -> Result<Reading, ReadError> {
        let reading = self.reading();
        if *reading.seen.borrow() >= position {
            return Ok(reading);
        }
        if self.database.head().await.map_err(ReadError::Database)?.last < position {
            return Err(ReadError::Unknown);
        }
        tokio::select! {
            biased;
            reading = self.reached(position) => Ok(reading),
            () = self.clock.sleep(within) => {
                let seen = self.reading.borrow().seen.borrow().0;
                Err(ReadError::Stale { behind: position.0.saturating_sub(seen) })
            }
        }
    }

    async fn reached(&self, position: Position) -> Reading {
        let mut turns = self.reading.subscribe();
        loop {
            let reading = turns.borrow_and_update().clone();
            let mut seen = reading.seen.subscribe();
            tokio::select! {
                biased;
                // Both senders are in `self`, so neither can fail.
                _ = seen.wait_for(|seen| *seen >= position) => return reading,
                _ = turns.changed() => {}
            }
        }
    }
}

/// Why a view could not be read as asked.
#[derive(Debug)]
pub enum ReadError {
    /// The view has not seen that position in time; it is that many positions behind it.
    Stale {
        /// Positions of the log.
        behind: u64,
    },
    /// This database has never given out that position: the token is another database's.
    Unknown,
    /// The database did not answer, or a document cannot be read.
    Database(Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Stale { behind } => write!(f, "the view is {behind} positions behind"),
            ReadError::Unknown => f.write_str("this database has never given out that position"),
            ReadError::Database(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// The documents of a projection. Cheap to clone.
pub struct View<D> {
    progress: Arc<Progress>,
    document: PhantomData<fn() -> D>,
}

impl<D> Clone for View<D> {
    fn clone(&self) -> Self {
        View { progress: self.progress.clone(), document: PhantomData }
    }
}

impl<D: Document> View<D> {
    pub(crate) fn new(progress: Arc<Progress>) -> Self {
        View { progress, document: PhantomData }
    }

    /// The document of that id; `.at_least(position)` waits for the view to have seen a commit.
    pub fn get(&self, id: impl Display) -> Get<'_, D> {
        Get { view: self, id: id.to_string(), at_least: None, within: Duration::from_secs(1) }
    }

    /// Documents with sort keys from `from` up to, not including, `until`.
    pub async fn list(&self, from: &str, until: &str, max: usize) -> Result<Vec<D>, ReadError> {
        self.range(Range::Sort { from, until }, max).await
    }

    /// Documents whose ids come after `after`, by id.
    pub async fn page(&self, after: &str, max: usize) -> Result<Vec<D>, ReadError> {
        self.range(Range::Ids { prefix: "", after }, max).await
    }

    async fn range(&self, range: Range<'_>, max: usize) -> Result<Vec<D>, ReadError> {
        let progress = &self.progress;
        loop {
            let reading = progress.reading();
            let page = progress.database.list(&reading.collection, range, max).await;
            let page = page.map_err(ReadError::Database)?;
            if !progress.moved(&reading).await.map_err(ReadError::Database)? {
                let read = |stored: &Stored| read(&reading.collection, stored);
                return page
                    .iter()
                    .map(|stored| read(stored).map_err(ReadError::Database))
                    .collect();
            }
        }
    }

    /// The position up to which the view has seen the log, as this process knows.
    pub fn position(&self) -> Position {
        *self.progress.reading().seen.borrow()
    }

    /// Waits until the view has seen the log up to `position`.
    pub async fn wait_for(&self, position: Position, within: Duration) -> Result<(), ReadError> {
        self.progress.wait_for(position, within).await.map(drop)
    }
}

/// A read of one document; await it.
#[must_use = "a read does nothing until it is awaited"]
pub struct Get<'v, D> {
    view: &'v View<D>,
    id: String,
    at_least: Option<Position>,
    within: Duration,
}

impl<D> Get<'_, D> {
    /// Waits until the view has seen the log up to there.
    pub fn at_least(mut self, position: Position) -> Self {
        self.at_least = Some(position);
        self
    }

    /// How long to wait at most; one second unless said.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }
}

impl<'v, D: Document> IntoFuture for Get<'v, D> {
    type Output = Result<Option<D>, ReadError>;
    type IntoFuture = BoxFuture<'v, Self::Output>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let progress = &self.view.progress;
            loop {
                let reading = match self.at_least {
                    Some(position) => progress.wait_for(position, self.within).await?,
                    None => progress.reading(),
                };
                let stored = progress.database.get(&reading.collection, &[&self.id]).await;
                let stored = stored.map_err(ReadError::Database)?.pop().flatten();
                if let Some(stored) = stored {
                    return read(&reading.collection, &stored)
                        .map(Some)
                        .map_err(ReadError::Database);
                }
                if !progress.moved(&reading).await.map_err(ReadError::Database)? {
                    return Ok(None);
                }
            }
        })
    }
}
