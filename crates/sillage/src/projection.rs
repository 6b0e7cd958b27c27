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
//! A projection is rebuilt beside the one that is read, by an operator or because a newer version
//! of it was deployed; then the newer one is read, and the older one can be gone back to.
//!
//! *Guarantees.* A view at checkpoint p is the fold of the events up to p: documents and
//! checkpoint are one commit, and the checkpoint moves only from the position it had. Reads do not
//! fail while it is rebuilt and switched. An event that cannot be read pauses the projection, and
//! health says so.

mod ahead;
mod digest;
mod fold;
mod generations;
mod keeper;
mod runner;
mod store;
mod switch;
mod tables;
mod unseen;
mod view;

pub use digest::{Digest, Hash};
use fold::{Documents, Folder};
use foldhash::fast::RandomState;
pub(crate) use generations::{
    Checkpoint, Generation, Generations, checkpoint, collection, identity, stored,
};
pub(crate) use keeper::{Keeper, Means, sweep};
use sillage_core::{DecodeError, Document, Error, Event, Key, Recorded, Result, Stored, Text};
use std::{collections::HashMap, sync::Arc};
pub(crate) use switch::{Choice, Refused, checkpoints, choose};
pub use tables::SqlProjection;
pub(crate) use view::Progress;
pub use view::{Get, ReadError, View};

/// What an event does to a view.
enum Fold<D> {
    Change(Change<D>),
    Delete(Delete),
}

/// Reads an entry and changes the document that it is about.
type Change<D> =
    Box<dyn Fn(&Recorded, &mut dyn Target<D>) -> Result<(), DecodeError> + Send + Sync>;

type Delete = Box<dyn Fn(&Recorded) -> Result<Key, DecodeError> + Send + Sync>;

type Changed<D> = Box<dyn FnOnce(&mut D) + Send>;

/// The documents that entries are folded into.
trait Target<D> {
    /// Changes the document of that id, made when it is not there; `false`: it is not known yet.
    fn change(&mut self, id: &str, change: &mut dyn FnMut(&mut D)) -> bool;
    /// Keeps the change until the document is known.
    fn change_later(&mut self, id: &str, change: Changed<D>);
}

impl<D: Default> Target<D> for HashMap<String, D> {
    fn change(&mut self, id: &str, change: &mut dyn FnMut(&mut D)) -> bool {
        change(self.entry(id.to_owned()).or_default());
        true
    }

    fn change_later(&mut self, id: &str, change: Changed<D>) {
        change(self.entry(id.to_owned()).or_default());
    }
}

/// What to do with each event, by its name.
type Folds<D> = HashMap<&'static str, Arc<Fold<D>>, RandomState>;

/// Folds events into documents of one type.
#[must_use = "a projection does nothing until it is given to a service"]
pub struct Projection<D> {
    name: &'static str,
    version: u32,
    folds: Folds<D>,
    errors: Vec<String>,
}

impl<D: Document + Default> Projection<D> {
    /// A projection of that name. A higher version than the one that is read is folded from the
    /// beginning of the log, in documents of its own, and read once it has caught up. Until then
    /// reads find the older version's documents: give new fields a `#[serde(default)]`.
    pub fn new(name: &'static str, version: u32) -> Self {
        Projection { name, version, folds: HashMap::default(), errors: vec![] }
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
        let change = move |entry: &Recorded, documents: &mut dyn Target<D>| {
            let event = entry.with(E::read(entry.body.version, &entry.payload)?);
            let id = id(&event);
            let id = id.label();
            if !documents.change(&id, &mut |document| fold(document, &event)) {
                let fold = fold.clone();
                documents.change_later(&id, Box::new(move |document| fold(document, &event)));
            }
            Ok(())
        };
        self.fold::<E>(Fold::Change(Box::new(change)))
    }

    /// Removes the document that the event's key names.
    pub fn delete_on<E: Event>(self) -> Self {
        let delete = |entry: &Recorded| {
            let event = E::read(entry.body.version, &entry.payload)?;
            Ok(event.key().unwrap_or_else(|| Key::of("")))
        };
        self.fold::<E>(Fold::Delete(Box::new(delete)))
    }

    fn fold<E: Event>(mut self, fold: Fold<D>) -> Self {
        let fold = Arc::new(fold);
        let aliases = E::ALIASES.iter().map(|(alias, _)| *alias);
        for name in std::iter::once(E::NAME).chain(aliases) {
            if self.folds.insert(name, fold.clone()).is_some() {
                self.errors.push(format!("projection `{}` folds `{name}` twice", self.name));
            }
        }
        self
    }

    /// Folds entries in memory, as a test does: documents by id.
    pub fn fold_all(&self, entries: &[Recorded]) -> Result<HashMap<String, D>, DecodeError> {
        let mut documents = HashMap::new();
        for entry in entries {
            match self.folds.get(&*entry.name).map(|fold| &**fold) {
                Some(Fold::Change(change)) => change(entry, &mut documents)?,
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
    /// What folds for one reader; `begins` where nothing of its generation is stored.
    fn folder(&self, begins: bool) -> Box<dyn Folder>;
    /// Into tables of the user's own, which a second fold beside it would write twice.
    fn writes_tables(&self) -> bool {
        false
    }
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
    fn folder(&self, begins: bool) -> Box<dyn Folder> {
        Box::new(Documents::new(self.folds.clone(), begins))
    }
}

/// A document as its type.
pub(crate) fn read<D: Document>(collection: &str, stored: &Stored) -> Result<D> {
    serde_json::from_slice(&stored.body).map_err(|error| {
        Error::corrupt(format!("document `{}` in `{collection}` cannot be read", stored.id))
            .because(error)
    })
}
