//! Projections: folds of events into documents, with a checkpoint, readable up to a position.
//!
//! ```
//! # use sillage::prelude::*;
//! # use serde::{Serialize, Deserialize};
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "order.created")]
//! # struct OrderCreated { #[event(key)] order_id: String, total: i64 }
//! #[derive(Document, Serialize, Deserialize, Default)]
//! #[document(collection = "totals")]
//! struct Total { #[document(id)] order_id: String, total: i64 }
//!
//! let totals = Projection::<Total>::new("totals", 1).on::<OrderCreated>(|view, order| {
//!     view.order_id = order.order_id.clone();
//!     view.total += order.total;
//! });
//! ```
//!
//! *Guarantees.* A view at checkpoint p is the fold of the events up to p: documents and
//! checkpoint are one commit, and the checkpoint moves only from the position it had. An event
//! that cannot be read pauses the projection, and health says so.

mod runner;

pub(crate) use runner::{Runner, identity};
use serde::{Deserialize, Serialize};
use sillage_core::{
    BoxFuture, Clock, Database, DecodeError, Document, Error, Event, Key, Position, Range,
    Recorded, Result, Stored, Text,
};
use std::{
    collections::HashMap, fmt, fmt::Display, marker::PhantomData, sync::Arc, time::Duration,
};
use tokio::sync::watch;

/// What an event does to a view.
enum Fold<D> {
    Change(Reading<(Key, Changed<D>)>),
    Delete(Reading<Key>),
}

type Reading<T> = Box<dyn Fn(&Recorded) -> Result<T, DecodeError> + Send + Sync>;

type Changed<D> = Box<dyn FnOnce(&mut D) + Send>;

/// Folds events into documents of one type.
#[must_use = "a projection does nothing until it is given to a service"]
pub struct Projection<D> {
    name: &'static str,
    version: u32,
    folds: HashMap<&'static str, Arc<Fold<D>>>,
    errors: Vec<String>,
}

impl<D: Document + Default> Projection<D> {
    /// A projection of that name. A new version starts from the beginning of the log, in
    /// documents of its own.
    pub fn new(name: &'static str, version: u32) -> Self {
        Projection { name, version, folds: HashMap::new(), errors: vec![] }
    }

    /// Folds an event into the document that its key names, made when it is not there.
    pub fn on<E: Event>(
        self,
        fold: impl Fn(&mut D, &Recorded<E>) + Send + Sync + Clone + 'static,
    ) -> Self {
        self.on_each::<E>(|event| event.key().unwrap_or_else(|| Key::of("")), fold)
    }

    /// Folds an event into the document that `id` names.
    pub fn on_each<E: Event>(
        self,
        id: impl Fn(&Recorded<E>) -> Key + Send + Sync + 'static,
        fold: impl Fn(&mut D, &Recorded<E>) + Send + Sync + Clone + 'static,
    ) -> Self {
        let change = move |entry: &Recorded| {
            let event = entry.with(E::read(entry.body.version, &entry.payload)?);
            let (id, fold) = (id(&event), fold.clone());
            let change: Changed<D> = Box::new(move |document| fold(document, &event));
            Ok((id, change))
        };
        self.fold(E::NAME, Fold::Change(Box::new(change)))
    }

    /// Removes the document that the event's key names.
    pub fn delete_on<E: Event>(self) -> Self {
        let delete = |entry: &Recorded| {
            let event = E::read(entry.body.version, &entry.payload)?;
            Ok(event.key().unwrap_or_else(|| Key::of("")))
        };
        self.fold(E::NAME, Fold::Delete(Box::new(delete)))
    }

    fn fold(mut self, name: &'static str, fold: Fold<D>) -> Self {
        if self.folds.insert(name, Arc::new(fold)).is_some() {
            self.errors.push(format!("projection `{}` folds `{name}` twice", self.name));
        }
        self
    }

    /// Folds entries in memory, as a test does: documents by id.
    pub fn fold_all(&self, entries: &[Recorded]) -> Result<HashMap<String, D>, DecodeError> {
        let mut documents = HashMap::new();
        for entry in entries {
            match self.folds.get(&*entry.name).map(|fold| &**fold) {
                Some(Fold::Change(change)) => {
                    let (id, change) = change(entry)?;
                    change(documents.entry(id.label().into_owned()).or_default());
                }
                Some(Fold::Delete(delete)) => {
                    documents.remove(&*delete(entry)?.label());
                }
                None => {}
            }
        }
        Ok(documents)
    }
}

/// A projection whose document type is forgotten.
pub(crate) trait AnyProjection: Send + Sync {
    fn name(&self) -> &'static str;
    fn version(&self) -> u32;
    fn collection(&self) -> &'static str;
    fn events(&self) -> Vec<Text>;
    fn errors(&self) -> Vec<String>;
    /// Sorts out what these entries change, up to the first that cannot be read.
    fn begin(&self, entries: &[Recorded]) -> (Box<dyn Batch>, Option<Poison>);
}

/// An entry that cannot be read.
pub(crate) struct Poison {
    pub(crate) position: Position,
    pub(crate) error: DecodeError,
}

/// What some entries change: documents by id, each loaded once.
pub(crate) trait Batch: Send {
    fn ids(&self) -> &[String];
    /// Folds; `stored` answers `ids`.
    fn finish(self: Box<Self>, stored: &[Option<Stored>]) -> Result<Vec<Folded>>;
}

/// A document after a batch: its sort key and body, or `None` where it is removed.
pub(crate) struct Folded {
    pub(crate) id: String,
    pub(crate) document: Option<(Option<String>, Vec<u8>)>,
}

struct TypedBatch<D> {
    ids: Vec<String>,
    places: HashMap<String, usize>,
    /// Which document, and what happens to it; `None` removes it.
    steps: Vec<(usize, Option<Changed<D>>)>,
}

impl<D: Document + Default> AnyProjection for Projection<D> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn version(&self) -> u32 {
        self.version
    }
    fn collection(&self) -> &'static str {
        D::COLLECTION
    }
    fn events(&self) -> Vec<Text> {
        self.folds.keys().map(|name| Text::from(*name)).collect()
    }
    fn errors(&self) -> Vec<String> {
        self.errors.clone()
    }

    fn begin(&self, entries: &[Recorded]) -> (Box<dyn Batch>, Option<Poison>) {
        let mut batch = TypedBatch::<D> { ids: vec![], places: HashMap::new(), steps: vec![] };
        for entry in entries {
            let Some(fold) = self.folds.get(&*entry.name) else { continue };
            let step = match &**fold {
                Fold::Change(change) => change(entry).map(|(id, change)| (id, Some(change))),
                Fold::Delete(delete) => delete(entry).map(|id| (id, None)),
            };
            match step {
                Ok((id, change)) => batch.push(id.label().into_owned(), change),
                Err(error) => {
                    return (Box::new(batch), Some(Poison { position: entry.position, error }));
                }
            }
        }
        (Box::new(batch), None)
    }
}

impl<D> TypedBatch<D> {
    fn push(&mut self, id: String, change: Option<Changed<D>>) {
        let place = *self.places.entry(id).or_insert_with_key(|id| {
            self.ids.push(id.clone());
            self.ids.len() - 1
        });
        self.steps.push((place, change));
    }
}

impl<D: Document + Default> Batch for TypedBatch<D> {
    fn ids(&self) -> &[String] {
        &self.ids
    }

    fn finish(self: Box<Self>, stored: &[Option<Stored>]) -> Result<Vec<Folded>> {
        let read = |stored: &Option<Stored>| {
            stored.as_ref().map(|stored| read::<D>(D::COLLECTION, stored)).transpose()
        };
        let mut documents = stored.iter().map(read).collect::<Result<Vec<_>>>()?;
        for (place, change) in self.steps {
            match change {
                Some(change) => change(documents[place].get_or_insert_default()),
                None => documents[place] = None,
            }
        }
        let written = |(id, document): (String, Option<D>)| {
            let write = |document: D| Ok((document.sort(), serde_json::to_vec(&document)?));
            let document = document.map(write).transpose();
            document.map(|document| Folded { id, document }).map_err(|error: serde_json::Error| {
                Error::invalid("a view cannot be written as JSON").because(error)
            })
        };
        self.ids.into_iter().zip(documents).map(written).collect()
    }
}

/// A document as its type.
pub(crate) fn read<D: Document>(collection: &str, stored: &Stored) -> Result<D> {
    serde_json::from_slice(&stored.body).map_err(|error| {
        Error::corrupt(format!("document `{}` in `{collection}` cannot be read", stored.id))
            .because(error)
    })
}

/// A projection's checkpoint, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) position: Position,
    /// Why it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paused: Option<String>,
}

/// How far a projection is, as this process knows.
pub(crate) struct Progress {
    pub(crate) collection: Text,
    pub(crate) document: &'static str,
    pub(crate) database: Arc<dyn Database>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) position: watch::Sender<Position>,
}

impl Progress {
    pub(crate) async fn wait_for(
        &self,
        position: Position,
        within: Duration,
    ) -> Result<(), ReadError> {
        let mut progress = self.position.subscribe();
        if *progress.borrow() >= position {
            return Ok(());
        }
        if self.database.head().await.map_err(ReadError::Database)?.last < position {
            return Err(ReadError::Unknown);
        }
        tokio::select! {
            biased;
            seen = progress.wait_for(|seen| *seen >= position) => {
                seen.map(|_| ()).map_err(|_| ReadError::Stale { behind: 0 })
            }
            () = self.clock.sleep(within) => {
                let seen = self.position.borrow().0;
                Err(ReadError::Stale { behind: position.0.saturating_sub(seen) })
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
        let (database, collection) = (&self.progress.database, &self.progress.collection);
        let range = Range::Sort { from, until };
        let page = database.list(collection, range, max).await.map_err(ReadError::Database)?;
        page.iter().map(|stored| read(collection, stored).map_err(ReadError::Database)).collect()
    }

    /// Documents whose ids come after `after`, by id.
    pub async fn page(&self, after: &str, max: usize) -> Result<Vec<D>, ReadError> {
        let (database, collection) = (&self.progress.database, &self.progress.collection);
        let range = Range::Ids { prefix: "", after };
        let page = database.list(collection, range, max).await.map_err(ReadError::Database)?;
        page.iter().map(|stored| read(collection, stored).map_err(ReadError::Database)).collect()
    }

    /// The position up to which the view has seen the log, as this process knows.
    pub fn position(&self) -> Position {
        *self.progress.position.borrow()
    }

    /// Waits until the view has seen the log up to `position`.
    pub async fn wait_for(&self, position: Position, within: Duration) -> Result<(), ReadError> {
        self.progress.wait_for(position, within).await
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
            if let Some(position) = self.at_least {
                progress.wait_for(position, self.within).await?;
            }
            let stored = progress.database.get(&progress.collection, &[&self.id]).await;
            let stored = stored.map_err(ReadError::Database)?.pop().flatten();
            let read = |stored| read(&progress.collection, &stored);
            stored.map(read).transpose().map_err(ReadError::Database)
        })
    }
}
