//! One process's way to a database, which a test can hold up.

use sillage_core::{
    BoxFuture, Commit, CommitError, Committed, Database, Decision, Epoch, Filter, Head, Page,
    Position, Range, Recorded, Result, Stored, Text, Timestamp, Transaction, Version, Write,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use uuid::Uuid;

/// One process's way to a database. While it is held up nothing that goes this way is answered or
/// has any effect, as for a process that is stopped; other ways go on.
#[derive(Clone)]
pub struct Held {
    database: Arc<dyn Database>,
    all: watch::Sender<bool>,
    row: watch::Sender<Option<Text>>,
}

impl Held {
    /// A way to this database, open at first.
    pub fn new(database: Arc<dyn Database>) -> Self {
        Held { database, all: watch::channel(false).0, row: watch::channel(None).0 }
    }

    /// Holds up everything, or lets it go on with what waits.
    pub fn hold(&self, is_held: bool) {
        self.all.send_replace(is_held);
    }

    /// Holds up what is committed together with an entry of this stream, given by its whole name,
    /// as somebody does who holds its row; nothing, if `None`.
    pub fn hold_row(&self, stream: Option<&str>) {
        self.row.send_replace(stream.map(Text::from));
    }

    /// Whether it is held up.
    pub fn is_held(&self) -> bool {
        *self.all.borrow()
    }

    async fn but_for_the_row(&self, batch: Vec<Commit>) -> Vec<Result<Committed, CommitError>> {
        let mut row = self.row.subscribe();
        if batch.len() == 1 {
            // Its sender is in `self`, which is borrowed: it is there.
            let _ = row.wait_for(|row| !is_about(&batch[0], row.as_ref())).await;
            return self.database.commit(batch).await;
        }
        let row = row.borrow().clone();
        let (mut free, mut outcomes) = (vec![], vec![]);
        for commit in batch {
            if is_about(&commit, row.as_ref()) {
                outcomes.push(Some(CommitError::Held(commit)));
            } else {
                free.push(commit);
                outcomes.push(None);
            }
        }
        let mut answers = self.database.commit(free).await.into_iter();
        let answer = |held: Option<CommitError>| held.map(Err).or_else(|| answers.next());
        outcomes.into_iter().filter_map(answer).collect()
    }

    fn then<'a, T: 'a>(&'a self, call: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
        let mut is_held = self.all.subscribe();
        Box::pin(async move {
            // Its sender is in `self`, which is borrowed: it is there.
            let _ = is_held.wait_for(|held| !held).await;
            call.await
        })
    }
}

impl Database for Held {
    fn commit(&self, batch: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, CommitError>>> {
        self.then(Box::pin(self.but_for_the_row(batch)))
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
    fn changed(&self, position: Position, filter: &Filter) -> BoxFuture<'_, ()> {
        self.then(self.database.changed(position, filter))
    }
}

fn is_about(commit: &Commit, row: Option<&Text>) -> bool {
    commit.writes.iter().any(|write| match write {
        Write::Append { stream: Some(stream), .. } => Some(stream) == row,
        _ => false,
    })
}
