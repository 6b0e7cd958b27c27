//! SQLite as the database of Sillage: one file, which several processes may share.
//!
//! ```no_run
//! # use sillage_core::{Clock, Commit, Database, Result};
//! # use std::sync::Arc;
//! # async fn example(clock: Arc<dyn Clock>, commit: Commit) -> Result<()> {
//! let database = sillage_sqlite::Sqlite::open("shop.db", clock)?;
//! let outcomes = database.commit(vec![commit]).await;
//! # Ok(())
//! # }
//! ```
//!
//! *Guarantees.* A commit that was accepted survives a crash of the process, of the system and a
//! loss of power, as far as the disk tells the truth: the write-ahead log is synchronised before
//! the answer. A batch is one durable write, and batches of several callers that wait at the same
//! time share it. A batch that SQLite refuses is retried by halves, so that only the guilty
//! commit fails. Positions have no gaps that an entry could still fill: the end of the log is
//! stable. Reads see one snapshot each and never wait for the writer. When the disk is full or the
//! file is locked for more than 10 s, commits fail, nothing is acknowledged, and later ones
//! succeed without anybody's help once the cause is gone. A process that is stopped (not killed: by
//! SIGSTOP, a debugger, a suspended container) while it writes keeps the file's lock: until it goes
//! on or is ended, no other process can write.
//!
//! SQL of users is an effect, [`sql`], which runs inside the commit.
//!
//! The database's time is the [`Clock`]'s: processes that share a file run on one machine.

mod accept;
mod changed;
mod commit;
mod error;
mod file;
mod lease;
mod migrate;
mod read;
mod rows;
mod run;
mod statements;
mod writer;

pub use run::sql;
pub use rusqlite;

use changed::Changes;
use lease::Leases;
use read::{Readers, Wanted};
use sillage_core::{
    BoxFuture, Clock, Commit, CommitError, Committed, Database, Decision, Epoch, Error, ErrorKind,
    Filter, Head, Limits, Page, Position, Range, Recorded, Result, Stored, Text, Timestamp,
    Transaction, Version,
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;
use writer::{Context, Writer};

/// A Sillage database in one SQLite file.
///
/// Its methods must be awaited within a tokio runtime. Dropping it blocks until batches that were
/// handed over are saved and the file is closed; where no other process has it open, the file is
/// then complete by itself and may be copied.
pub struct Sqlite {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    readers: Readers,
    leases: Leases,
    changes: Arc<Changes>,
    /// Last, so that its connection is closed last: that one moves the write-ahead log into the
    /// file.
    writer: Writer,
}

impl Sqlite {
    /// Opens the file, makes it where there is none, and brings its schema up to date.
    ///
    /// Blocks the thread while it does so, for at most about 10 s if others hold the file's lock.
    ///
    /// # Errors
    /// `NotFound`: the folder does not exist. `Invalid`: a folder, or no SQLite database.
    /// `NewerSchema`: written by a newer version of this software. `Full`: it cannot be written.
    /// `Unavailable`: it cannot be opened, or stays locked.
    pub fn open(path: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Sqlite> {
        let path = path.as_ref().to_path_buf();
        file::check(&path)?;
        let mut connection = file::writer(&path)?;
        migrate::migrate(&path, &mut connection)?;
        let enlarged = connection.pragma_update(None, "cache_size", -65_536); // KiB
        enlarged.map_err(|error| error::describe(&path, &error))?;
        let changes = Arc::new(Changes::new(&path, clock.clone())?);
        let leases = Leases::open(path.clone())?;
        let context =
            Context { path: path.clone(), clock: clock.clone(), changes: changes.clone() };
        let writer = Writer::start(connection, context)?;
        let readers = Readers::start(path.clone())?;
        Ok(Sqlite { path, clock, readers, leases, changes, writer })
    }

    /// How many durable writes of commits there were since it was opened: what group commit saves
    /// is seen here.
    pub fn durable_writes(&self) -> u64 {
        self.writer.writes()
    }

    /// Commits over the limits are refused here, without a durable write; the others go on.
    async fn commit_all(&self, batch: Vec<Commit>) -> Vec<Result<Committed, CommitError>> {
        let limits = Limits::default();
        let mut within = Vec::with_capacity(batch.len());
        let mut refused = Vec::with_capacity(batch.len());
        for commit in batch {
            match limits.check(&commit).and_then(|()| commit.runs_on::<run::Sql>(run::NAME)) {
                Ok(()) => {
                    within.push(commit);
                    refused.push(None);
                }
                Err(error) => refused.push(Some(CommitError::Rejected(error))),
            }
        }
        if within.is_empty() {
            return refused.into_iter().flatten().map(Err).collect();
        }
        let mut saved = self.writer.commit(within).await.into_iter();
        let outcome = |refused: Option<CommitError>| match refused {
            Some(refused) => Some(Err(refused)),
            None => saved.next(),
        };
        refused.into_iter().filter_map(outcome).collect()
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Database for Sqlite {
    fn commit(&self, batch: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, CommitError>>> {
        Box::pin(self.commit_all(batch))
    }

    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>>> {
        Box::pin(std::future::ready(Err(Error::new(
            ErrorKind::Unsupported,
            "SQLite has one writer, which a handler's own transaction would stop for everybody: \
             return the effect `sql(|tx| …)` of `sillage::sqlite` instead, which runs inside the \
             commit",
        ))))
    }

    fn stream<'a>(
        &'a self,
        stream: &'a str,
        after: Version,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>>> {
        let stream = stream.to_owned();
        let read = self.readers.run(move |file| read::stream(file, &stream, after, max));
        Box::pin(async move { read.await? })
    }

    fn log<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        max: usize,
    ) -> BoxFuture<'a, Result<Page>> {
        let filter = filter.clone();
        Box::pin(self.readers.run(move |file| read::log(file, after, &filter, max)))
    }

    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        Box::pin(self.readers.run(read::head))
    }

    fn get<'a>(
        &'a self,
        collection: &'a str,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        let collection = collection.to_owned();
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        Box::pin(self.readers.keys(ids.len(), move |file| read::get(file, &collection, &ids)))
    }

    fn list<'a>(
        &'a self,
        collection: &'a str,
        range: Range<'a>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Stored>>> {
        let collection = collection.to_owned();
        let wanted = match range {
            Range::Ids { prefix, after } => {
                Wanted::Ids { prefix: prefix.to_owned(), after: after.to_owned() }
            }
            Range::Sort { from, until } => {
                Wanted::Sort { from: from.to_owned(), until: until.to_owned() }
            }
            Range::Due => Wanted::Due { now: self.clock.now().to_string() },
        };
        Box::pin(self.readers.run(move |file| read::list(file, &collection, &wanted, max)))
    }

    fn decisions<'a>(
        &'a self,
        consumer: &'a str,
        deliveries: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Vec<Option<Decision>>>> {
        let (consumer, deliveries) = (consumer.to_owned(), deliveries.to_vec());
        let rows = deliveries.len();
        let read =
            move |file: &rusqlite::Transaction<'_>| read::decisions(file, &consumer, &deliveries);
        Box::pin(self.readers.keys(rows, read))
    }

    fn lease<'a>(
        &'a self,
        name: &'a str,
        owner: Uuid,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Epoch>>> {
        Box::pin(self.leases.take(name.to_owned(), owner, ttl, self.clock.now()))
    }

    fn now(&self) -> BoxFuture<'_, Result<Timestamp>> {
        Box::pin(std::future::ready(Ok(self.clock.now())))
    }

    fn changed(&self, position: Position, filter: &Filter) -> BoxFuture<'_, ()> {
        Box::pin(self.changes.wait(position, filter.clone()))
    }

    fn next<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        max: usize,
    ) -> BoxFuture<'a, Option<Page>> {
        let changed = self.changes.wait(after, filter.clone());
        Box::pin(async move {
            changed.await;
            self.changes.page(after, filter, max)
        })
    }
}
