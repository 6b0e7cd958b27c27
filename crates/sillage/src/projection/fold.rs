//! Folding entries into documents that are held in memory until they are written.
//!
//! A document is loaded once, changed by as many entries as there are for it, and written once
//! when what changed is written. Up to some documents stay, so that a reader that is far behind
//! neither loads nor writes one again for every entry.

use super::{Changed, Digest, Fold, Folds, Hash, Target, read, unseen::Unseen};
use foldhash::fast::RandomState;
use sillage_core::{DecodeError, Document, Error, Position, Recorded, Result, Statement, Stored};
use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
};

/// After a write so many documents stay in memory, at most twice as many.
const HELD: usize = 4096;
/// Entries read at once.
const PAGES: RangeInclusive<usize> = 1000..=4000;
/// So many documents a reader that is behind holds unwritten at most.
const UNWRITTEN: usize = 2000;

/// An entry that cannot be folded.
pub(crate) struct Poison {
    pub(crate) position: Position,
    pub(crate) why: String,
}

/// What is to be written after a fold.
pub(crate) enum Folded {
    /// A document: its id, sort key and body.
    Put(String, Option<String>, Vec<u8>),
    /// Its id.
    Delete(String),
    /// To be run.
    Sql(Statement),
}

/// What a folder holds that is not written yet.
pub(crate) trait Folder: Send {
    /// Entries read at once: at first, and at most where they are small and there are many.
    fn pages(&self) -> RangeInclusive<usize>;
    /// Whether what is unwritten is to be written, by its number.
    fn is_full(&self) -> bool;
    /// Folds entries, up to the first that cannot be read; says which documents it needs for the
    /// rest of them.
    fn take_in(
        &mut self,
        entries: &mut dyn Iterator<Item = Recorded>,
    ) -> (Vec<String>, Option<Poison>);
    /// Folds the rest of what was taken in; `stored` answers what it needed.
    fn fold(&mut self, needed: Vec<String>, stored: &[Option<Stored>]) -> Result<()>;
    /// Documents that are changed and not written.
    fn changed(&self) -> usize;
    /// What changed since the last write, with the digest of the view after it.
    fn write(&mut self, digest: &mut Digest) -> Result<Vec<Folded>>;
    /// Holds nothing any more; what is not written is thrown away.
    fn forget(&mut self);
}

/// A document in memory.
#[derive(Default)]
struct Held<D> {
    document: Option<D>,
    /// Its hash as it is stored.
    stored: Option<Hash>,
    changed: bool,
}

/// Which document, and what happens to it; `None` removes it.
type Step<D> = (String, Option<Changed<D>>);

pub(super) struct Documents<D> {
    folds: Arc<Folds<D>>,
    /// Those used since the last turn, and those that go at the next.
    young: HashMap<String, Held<D>, RandomState>,
    old: HashMap<String, Held<D>, RandomState>,
    /// Where all that are stored were in memory once: those that never were.
    unseen: Option<Unseen>,
    /// In the order of their first change.
    changed: Vec<String>,
    /// For documents that are to be loaded, and these.
    steps: Vec<Step<D>>,
    needed: Vec<String>,
    asked: HashSet<String, RandomState>,
}

impl<D: Default> Held<D> {
    /// Whether this is the first change since it was written.
    fn change(&mut self, change: impl FnOnce(&mut Option<D>)) -> bool {
        change(&mut self.document);
        !std::mem::replace(&mut self.changed, true)
    }
}

impl<D: Document + Default> Documents<D> {
    pub(super) fn new(folds: Folds<D>, begins: bool) -> Self {
        let (young, old) = (HashMap::default(), HashMap::default());
        let unseen = begins.then(Unseen::new);
        let (changed, steps, needed) = (vec![], vec![], vec![]);
        let (folds, asked) = (Arc::new(folds), HashSet::default());
        Documents { folds, young, old, unseen, changed, steps, needed, asked }
    }

    /// Folds an entry; what is about a document that is to be loaded is kept.
    fn take(&mut self, folds: &Folds<D>, entry: &Recorded) -> Result<(), DecodeError> {
        match folds.get(&*entry.name).map(|fold| &**fold) {
            Some(Fold::Change(change)) => change(entry, self),
            Some(Fold::Delete(delete)) => {
                let id = delete(entry)?;
                let id = id.label();
                if !self.change_held(&id, |document| *document = None) {
                    self.keep(&id, None);
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Changes a document that is in memory; `false`: it is not.
    fn change_held(&mut self, id: &str, change: impl FnOnce(&mut Option<D>)) -> bool {
        let is_first = if let Some(held) = self.young.get_mut(id) {
            held.change(change)
        } else if self.holds(id) {
            self.young.get_mut(id).is_some_and(|held| held.change(change))
        } else {
            return false;
        };
        if is_first {
            self.changed.push(id.to_owned());
        }
        true
    }

    fn keep(&mut self, id: &str, change: Option<Changed<D>>) {
        if self.asked.insert(id.to_owned()) {
            self.needed.push(id.to_owned());
        }
        self.steps.push((id.to_owned(), change));
    }

    /// Whether what is known of it is in memory; then it is among the young from now on.
    fn holds(&mut self, id: &str) -> bool {
        if let Some((id, held)) = self.old.remove_entry(id) {
            self.young.insert(id, held);
            return true;
        }
        let is_absent = self.unseen.as_ref().is_some_and(|unseen| unseen.has(id));
        if is_absent {
            self.young.insert(id.to_owned(), Held::default());
        }
        is_absent
    }

    fn turn(&mut self) {
        if self.young.len() >= HELD {
            let gone = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            if let Some(unseen) = &mut self.unseen {
                for id in gone.keys() {
                    unseen.let_go(id);
                }
            }
        }
    }
}

impl<D: Document + Default> Folder for Documents<D> {
    fn pages(&self) -> RangeInclusive<usize> {
        PAGES
    }

    fn is_full(&self) -> bool {
        self.changed.len() >= UNWRITTEN
    }

    fn take_in(
        &mut self,
        entries: &mut dyn Iterator<Item = Recorded>,
    ) -> (Vec<String>, Option<Poison>) {
        let (mut poison, folds) = (None, self.folds.clone());
        for entry in entries {
            if let Err(error) = self.take(&folds, &entry) {
                poison = Some(Poison { position: entry.position, why: error.to_string() });
                break;
            }
        }
        self.asked.clear();
        (std::mem::take(&mut self.needed), poison)
    }

    fn fold(&mut self, needed: Vec<String>, stored: &[Option<Stored>]) -> Result<()> {
        for (id, stored) in needed.into_iter().zip(stored) {
            let document = stored.as_ref().map(|stored| read::<D>(D::COLLECTION, stored));
            let hash = |stored: &Stored| Hash::document(&id, stored.sort.as_deref(), &stored.body);
            let held = Held {
                document: document.transpose()?,
                stored: stored.as_ref().map(hash),
                changed: false,
            };
            self.young.insert(id, held);
        }
        for (id, change) in std::mem::take(&mut self.steps) {
            let change = |document: &mut Option<D>| match change {
                Some(change) => change(document.get_or_insert_default()),
                None => *document = None,
            };
            if !self.change_held(&id, change) {
                return Err(Error::corrupt(format!("document `{id}` was folded and not loaded")));
            }
        }
        Ok(())
    }

    fn changed(&self) -> usize {
        self.changed.len()
    }

    fn write(&mut self, digest: &mut Digest) -> Result<Vec<Folded>> {
        let mut folded = Vec::with_capacity(self.changed.len());
        for id in std::mem::take(&mut self.changed) {
            let Some(held) = self.young.get_mut(&id) else { continue };
            held.changed = false;
            let document = held.document.as_ref().map(written).transpose()?;
            let hash = document.as_ref().map(|(sort, body): &(Option<String>, Vec<u8>)| {
                Hash::document(&id, sort.as_deref(), body)
            });
            digest.change(std::mem::replace(&mut held.stored, hash), hash);
            folded.push(match document {
                Some((sort, body)) => Folded::Put(id, sort, body),
                None => Folded::Delete(id),
            });
        }
        self.turn();
        Ok(folded)
    }

    fn forget(&mut self) {
        self.young.clear();
        self.old.clear();
        self.unseen = None;
        self.changed.clear();
        self.steps.clear();
        self.needed.clear();
        self.asked.clear();
    }
}

impl<D: Document + Default> Target<D> for Documents<D> {
    fn change(&mut self, id: &str, change: &mut dyn FnMut(&mut D)) -> bool {
        self.change_held(id, |document| change(document.get_or_insert_default()))
    }

    fn change_later(&mut self, id: &str, change: Changed<D>) {
        self.keep(id, Some(change));
    }
}

fn written<D: Document>(document: &D) -> Result<(Option<String>, Vec<u8>)> {
    let body = serde_json::to_vec(document)
        .map_err(|error| Error::invalid("a view cannot be written as JSON").because(error))?;
    Ok((document.sort(), body))
}
