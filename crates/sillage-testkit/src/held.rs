//! One process's way to a database, which a test can hold up.

use sillage_core::{
    BoxFuture, Commit, CommitError, Committed, Database, Decision, Epoch, Filter, Head, Page,
    Position, Range, Recorded, Result, Stored, Text, Timestamp, Transaction, Version,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use uuid::Uuid;

/// One process's way to a database. While it is held up nothing that goes this way is answered or
/// has any effect, as for a process that is stopped; other ways go on.
#[derive(Clone)]
pub struct Held {
    database: Arc<dyn Database>,
    is_held: watch::Sender<bool>,
}

impl Held {
    /// A way to this database, open at first.
    pub fn new(database: Arc<dyn Database>) -> Self {
        Held { database, is_held: watch::channel(false).0 }
    }

    /// Holds up everything, or lets it go on with what waits.
    pub fn hold(&self, is_held: bool) {
        self.is_held.send_replace(is_held);
    }

    /// Whether it is held up.
    pub fn is_held(&self) -> bool {
        *self.is_held.borrow()
    }

    fn then<'a, T: 'a>(&'a self, call: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
        let mut is_held = self.is_held.subscribe();
        Box::pin(async move {
            // Its sender is in `self`, which is borrowed: it is there.
            let _ = is_held.wait_for(|held| !held).await;
            call.await
        })
    }
}

impl Database for Held {
    fn commit(&self, batch: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, CommitError>>> {
        self.then(self.database.commit(batch))
    }
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>>> {
        self.then(self.database.begin())
    }
    fn stream<'a>(
        &'a self,
        stream: &'a str,
        after: Version,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>>> {
        self.then(self.database.stream(stream, after, max))
    }
    fn log<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        max: usize,
    ) -> BoxFuture<'a, Result<Page>> {
        self.then(self.database.log(after, filter, max))
    }
    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        self.then(self.database.head())
    }
    fn get<'a>(
        &'a self,
        collection: &'a str,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        self.then(self.database.get(collection, ids))
    }
    fn list<'a>(
        &'a self,
        collection: &'a str,
        range: Range<'a>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Stored>>> {
        self.then(self.database.list(collection, range, max))
    }
    fn decisions<'a>(
        &'a self,
        consumer: &'a str,
        deliveries: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Vec<Option<Decision>>>> {
        self.then(self.database.decisions(consumer, deliveries))
    }
    fn lease<'a>(
        &'a self,
        name: &'a str,
        owner: Uuid,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Epoch>>> {
        self.then(self.database.lease(name, owner, ttl))
    }
    fn now(&self) -> BoxFuture<'_, Result<Timestamp>> {
        self.then(self.database.now())
    }
    fn changed(&self, position: Position) -> BoxFuture<'_, ()> {
        self.then(self.database.changed(position))
    }
}
