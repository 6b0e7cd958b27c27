//! The database as a replay sees it: streams as they were recorded, documents of its own, and
//! nothing that could be written.

use crate::names;
use sillage_core::{
    BoxFuture, Commit, CommitError, Committed, Database, Decision, Epoch, Error, ErrorKind, Filter,
    Head, Page, Position, Range, Recorded, Result, Sort, Stored, Text, Timestamp, Transaction,
    Version, Write,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use uuid::Uuid;

#[derive(Default)]
struct State {
    documents: BTreeMap<Text, BTreeMap<Text, Stored>>,
    /// Streams end before this.
    at: Position,
}

pub(super) struct Overlay {
    inner: Arc<dyn Database>,
    state: Mutex<State>,
}

impl Overlay {
    pub(super) fn new(inner: Arc<dyn Database>) -> Self {
        Overlay { inner, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Streams are read as they were just before this position.
    pub(super) fn at(&self, position: Position) {
        self.state().at = position;
    }

    /// Keeps what a handling would have done to documents.
    pub(super) fn apply(&self, writes: Vec<Write>) {
        let mut state = self.state();
        for write in writes {
            match write {
                Write::Put { collection, id, sort, body } if *collection != *names::TIMERS => {
                    let documents = state.documents.entry(collection).or_default();
                    let version = documents.get(&id).map_or(Version(0), |old| old.version).next();
                    let sort = sort.and_then(|sort| match sort {
                        Sort::Text(text) => Some(text),
                        Sort::After(_) => None,
                    });
                    documents.insert(id.clone(), Stored { id, version, sort, body });
                }
                Write::Delete { collection, id } => {
                    if let Some(documents) = state.documents.get_mut(&collection) {
                        documents.remove(&id);
                    }
                }
                _ => {}
            }
        }
    }
}

fn refused() -> Error {
    Error::new(ErrorKind::Unsupported, "a replay commits nothing")
}

impl Database for Overlay {
    fn commit(&self, batch: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, CommitError>>> {
        let answers = batch.iter().map(|_| Err(CommitError::Rejected(refused()))).collect();
        Box::pin(async move { answers })
    }

    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>>> {
        Box::pin(async { Err(refused()) })
    }

    fn stream<'a>(
        &'a self,
        stream: &'a str,
        after: Version,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>>> {
        let at = self.state().at;
        Box::pin(async move {
            let mut entries = self.inner.stream(stream, after, max).await?;
            entries.retain(|entry| entry.position < at);
            Ok(entries)
        })
    }

    fn log<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        max: usize,
    ) -> BoxFuture<'a, Result<Page>> {
        self.inner.log(after, filter, max)
    }

    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        self.inner.head()
    }

    fn get<'a>(
        &'a self,
        collection: &'a str,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        let state = self.state();
        let documents = state.documents.get(collection);
        let found = ids.iter().map(|id| documents.and_then(|all| all.get(*id)).cloned()).collect();
        Box::pin(async move { Ok(found) })
    }

    fn list<'a>(
        &'a self,
        collection: &'a str,
        range: Range<'a>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Stored>>> {
        let state = self.state();
        let all = state.documents.get(collection).into_iter().flat_map(BTreeMap::values);
        let wanted = |stored: &&Stored| match range {
            Range::Ids { prefix, after } => stored.id.starts_with(prefix) && &*stored.id > after,
            Range::Sort { from, until } => {
                stored.sort.as_deref().is_some_and(|sort| from <= sort && sort < until)
            }
            Range::Due => false,
        };
        let mut found: Vec<_> = all.filter(wanted).cloned().collect();
        if let Range::Sort { .. } = range {
            found.sort_by(|one, other| one.sort.cmp(&other.sort));
        }
        found.truncate(max);
        Box::pin(async move { Ok(found) })
    }

    fn decisions<'a>(
        &'a self,
        consumer: &'a str,
        deliveries: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Vec<Option<Decision>>>> {
        self.inner.decisions(consumer, deliveries)
    }

    fn lease<'a>(
        &'a self,
        _: &'a str,
        _: Uuid,
        _: Duration,
    ) -> BoxFuture<'a, Result<Option<Epoch>>> {
        Box::pin(async { Err(refused()) })
    }

    fn now(&self) -> BoxFuture<'_, Result<Timestamp>> {
        self.inner.now()
    }

    fn changed(&self, position: Position, filter: &Filter) -> BoxFuture<'_, ()> {
        self.inner.changed(position, filter)
    }
}
