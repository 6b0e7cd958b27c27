//! A database that counts the batches it is handed: each is one durable write.

use sillage::{
    BoxFuture, Commit, CommitError, Committed, Database, Decision, Epoch, Filter, Head, Page,
    Position, Range, Recorded, Result, Stored, Text, Timestamp, Transaction, Version,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use uuid::Uuid;

pub(crate) struct Counting {
    database: Arc<dyn Database>,
    batches: AtomicU64,
}

impl Counting {
    pub(crate) fn new(database: Arc<dyn Database>) -> Arc<Self> {
        Arc::new(Counting { database, batches: AtomicU64::new(0) })
    }

    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }
}

impl Database for Counting {
    fn commit(&self, batch: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, CommitError>>> {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.database.commit(batch)
    }
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>>> {
        self.database.begin()
    }
    fn stream<'a>(
        &'a self,
        stream: &'a str,
        after: Version,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>>> {
        self.database.stream(stream, after, max)
    }
    fn log<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        max: usize,
    ) -> BoxFuture<'a, Result<Page>> {
        self.database.log(after, filter, max)
    }
    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        self.database.head()
    }
    fn get<'a>(
        &'a self,
        collection: &'a str,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        self.database.get(collection, ids)
    }
    fn list<'a>(
        &'a self,
        collection: &'a str,
        range: Range<'a>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Stored>>> {
        self.database.list(collection, range, max)
    }
    fn decisions<'a>(
        &'a self,
        consumer: &'a str,
        deliveries: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Vec<Option<Decision>>>> {
        self.database.decisions(consumer, deliveries)
    }
    fn lease<'a>(
        &'a self,
        name: &'a str,
        owner: Uuid,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Epoch>>> {
        self.database.lease(name, owner, ttl)
    }
    fn now(&self) -> BoxFuture<'_, Result<Timestamp>> {
        self.database.now()
    }
    fn changed(&self, position: Position, filter: &Filter) -> BoxFuture<'_, ()> {
        self.database.changed(position, filter)
    }
}
