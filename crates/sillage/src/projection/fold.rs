//! Folding entries into documents that are held in memory until they are written.
//!
//! A document is loaded once, changed by as many entries as there are for it, and written once
//! when what changed is written. Up to some documents stay, so that a reader that is far behind
//! neither loads nor writes one again for every entry.

use super::{Changed, Digest, Fold, Folds, Hash, read};
use sillage_core::{DecodeError, Document, Error, Position, Recorded, Result, Statement, Stored};
use std::collections::{HashMap, HashSet};

/// After a write so many documents stay in memory, at most twice as many.
const HELD: usize = 4096;
/// Entries read at once.
const PAGE: usize = 1000;
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
    /// Entries read at once.
    fn page(&self) -> usize;
    /// Whether what is unwritten is to be written, by its number.
    fn is_full(&self) -> bool;
    /// Takes entries in, up to the first that cannot be read; says which documents it needs.
    fn take_in(&mut self, entries: &[Recorded]) -> (Vec<String>, Option<Poison>);
    /// Folds what was taken in; `stored` answers what it needed.
    fn fold(&mut self, needed: Vec<String>, stored: &[Option<Stored>]) -> Result<()>;
    /// Documents that are changed and not written.
    fn changed(&self) -> usize;
    /// What changed since the last write, with the digest of the view after it.
    fn write(&mut self, digest: &mut Digest) -> Result<Vec<Folded>>;
    /// Holds no document any more.
    fn forget(&mut self);
}

/// A document in memory.
struct Held<D> {
    document: Option<D>,
    /// Its hash as it is stored.
    stored: Option<Hash>,
    changed: bool,
}

/// Which document, and what happens to it; `None` removes it.
type Step<D> = (String, Option<Changed<D>>);

pub(super) struct Documents<D> {
    folds: Folds<D>,
    /// Those used since the last turn, and those that go at the next.
    young: HashMap<String, Held<D>>,
    old: HashMap<String, Held<D>>,
    /// In the order of their first change.
    changed: Vec<String>,
    steps: Vec<Step<D>>,
}

impl<D: Document + Default> Documents<D> {
    pub(super) fn new(folds: Folds<D>) -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Documents { folds, young, old, changed: vec![], steps: vec![] }
    }

    fn step(&self, entry: &Recorded) -> Option<Result<Step<D>, DecodeError>> {
        let step = match &**self.folds.get(&*entry.name)? {
            Fold::Change(change) => change(entry).map(|(id, change)| (id, Some(change))),
            Fold::Delete(delete) => delete(entry).map(|id| (id, None)),
        };
        Some(step.map(|(id, change)| (id.label().into_owned(), change)))
    }

    /// Whether it is in memory; then it is among the young.
    fn holds(&mut self, id: &str) -> bool {
        if self.young.contains_key(id) {
            return true;
        }
        match self.old.remove_entry(id) {
            Some((id, held)) => self.young.insert(id, held).is_none(),
            None => false,
        }
    }

    fn turn(&mut self) {
        if self.young.len() >= HELD {
            self.old = std::mem::take(&mut self.young);
        }
    }
}

impl<D: Document + Default> Folder for Documents<D> {
    fn page(&self) -> usize {
        PAGE
    }

    fn is_full(&self) -> bool {
        self.changed.len() >= UNWRITTEN
    }

    fn take_in(&mut self, entries: &[Recorded]) -> (Vec<String>, Option<Poison>) {
        let (mut needed, mut asked) = (vec![], HashSet::new());
        for entry in entries {
            match self.step(entry) {
                None => {}
                Some(Ok((id, change))) => {
                    if !self.holds(&id) && asked.insert(id.clone()) {
                        needed.push(id.clone());
                    }
                    self.steps.push((id, change));
                }
                Some(Err(error)) => {
                    let (position, why) = (entry.position, error.to_string());
                    return (needed, Some(Poison { position, why }));
                }
            }
        }
        (needed, None)
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
        for (id, change) in self.steps.drain(..) {
            let Some(held) = self.young.get_mut(&id) else {
                return Err(Error::corrupt(format!("document `{id}` was folded and not loaded")));
            };
            match change {
                Some(change) => change(held.document.get_or_insert_default()),
                None => held.document = None,
            }
            if !std::mem::replace(&mut held.changed, true) {
                self.changed.push(id);
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
    }
}

fn written<D: Document>(document: &D) -> Result<(Option<String>, Vec<u8>)> {
    let body = serde_json::to_vec(document)
        .map_err(|error| Error::invalid("a view cannot be written as JSON").because(error))?;
    Ok((document.sort(), body))
}
