//! PostgreSQL as the database of Sillage: several processes, several services a server.
//!
//! ```no_run
//! # use sillage_core::{Clock, Commit, Database, Result};
//! # use std::sync::Arc;
//! # async fn example(clock: Arc<dyn Clock>, commit: Commit) -> Result<()> {
//! let url = "postgres://shop:secret@localhost/shop?schema=order";
//! let database = sillage_postgres::Postgres::connect(url, clock).await?;
//! let outcomes = database.commit(vec![commit]).await;
//! # Ok(())
//! # }
//! ```
//!
//! *Guarantees.* A commit that was accepted survives a crash of the server, and of its machine where
//! its disk tells the truth; that of a primary only with a synchronous standby. Batches of several
//! callers that wait at the same time are one transaction. A batch that PostgreSQL refuses is retried
//! by halves, so that only the guilty commit fails. A commit whose rows another transaction holds
//! waits for it by itself, at most 30 s; those about other rows go on. Readers never pass the stable
//! position, under which nothing can still appear, however transactions commit, fail or are killed.
//! Time is the server's. While the server does not answer commits fail, nothing is acknowledged, and
//! later ones succeed without anybody's help once it is back.
//!
//! *URLs.* `postgres://user:password@host:port/database`, with `schema=` (`sillage`; several services
//! may share a server), `create=no` (a schema that is not there is an error), `pooler=transaction` behind PgBouncer in that mode, `connections=` (8) for
//! reads, and `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `application_name`.

mod commit;
mod common;
mod config;
mod error;
mod free;
mod lease;
mod link;
mod log;
mod migrate;
mod phases;
mod read;
mod recent;
mod rows;
mod run;
mod sql;
mod start;
mod state;
mod tail;
mod transaction;
mod writer;

pub use run::sql;
pub use sqlx;
pub use transaction::PgTransaction;

use config::{Config, Purpose};
use free::{Free, RESTED};
use lease::Leases;
use link::Way;
use log::Log;
use read::{Readers, Wanted};
use sillage_core::{
    BoxFuture, Clock, Commit, CommitError, Committed, Database, Decision, Epoch, Filter, Head,
    Limits, Page, Position, Range, Recorded, Result, Stored, Text, Timestamp, Transaction, Version,
};
use sqlx::{
    Connection as _, PgConnection, PgPool, pool::PoolConnectionMetadata, postgres::PgPoolOptions,
};
use start::Started;
use std::{fmt, sync::Arc, time::Duration};
use tail::Tail;
use uuid::Uuid;
use writer::Writer;

/// How long a read waits for a connection, and one that is given back for a last answer.
const ACQUIRE: Duration = Duration::from_secs(10);

/// How many leases are taken or renewed at the same time, and how many transactions of users run.
const LEASES: u32 = 3;
const TRANSACTIONS: u32 = 32;

/// A Sillage database in one schema of a PostgreSQL database.
///
/// Its methods must be awaited within a tokio runtime. What was handed over before it is dropped is
/// still committed.
pub struct Postgres {
    log: Arc<Log>,
    readers: Readers,
    leases: Leases,
    tail: Arc<Tail>,
    writer: Writer,
    transactions: (PgPool, Way),
}

impl Postgres {
    /// Connects, checks the server, makes the schema where there is none, and brings it up to date.
    ///
    /// # Errors
    /// `Invalid`: the URL. `Denied`: credentials or rights. `NotFound`: no such database.
    /// `Unsupported`: a server that is too old, a standby, not durable, or whose clock is wrong.
    /// `NewerSchema`: written by a newer version of this software. `Corrupt`: a checkpoint is above
    /// the end of the log, as after a backup was restored. `Unavailable`: it does not answer.
    pub async fn connect(url: &str, clock: Arc<dyn Clock>) -> Result<Postgres> {
        let config = Config::parse(url)?;
        let Started { log, synchronous } = start::start(&config, clock.clone()).await?;
        let log = Arc::new(log);
        let way = |purpose| Way::new(&config, purpose, &synchronous, clock.clone());
        let pool = |purpose, connections| {
            let options = PgPoolOptions::new().max_connections(connections);
            let options = options.acquire_timeout(ACQUIRE).test_before_acquire(false);
            let options = options.before_acquire(awake).after_release(released(clock.clone()));
            options.connect_lazy_with(way(purpose).options)
        };
        // It only reads and tells: nothing of it has to survive a crash.
        let tail = Way::new(&config, Purpose::Reads, "off", clock.clone());
        let recent = Arc::default();
        let tail = Tail::start(log.clone(), tail, Arc::clone(&recent));
        let writer =
            Writer::start(log.clone(), tail.clone(), way(Purpose::Commits), way(Purpose::Held));
        let reads = pool(Purpose::Reads, config.connections);
        let reads = Free::new(reads, config.connections, ACQUIRE);
        let leases = Free::new(pool(Purpose::Leases, LEASES), LEASES, ACQUIRE);
        Ok(Postgres {
            readers: Readers::new(log.clone(), way(Purpose::Reads), reads, recent),
            leases: Leases::new(log.clone(), way(Purpose::Leases), leases),
            tail,
            writer,
            transactions: (pool(Purpose::Transactions, TRANSACTIONS), way(Purpose::Transactions)),
            log,
        })
    }

    /// How many durable writes of commits there were since it was opened, those of transactions of
    /// the caller's not counted: what group commit saves is seen here.
    pub fn durable_writes(&self) -> u64 {
        self.writer.writes()
    }

    /// Applies a commit within a transaction of the caller's, which must be READ COMMITTED, on any
    /// connection to this database. It is durable, and seen, when that transaction is committed,
    /// whatever `synchronous_commit` the session has; where it is refused, the transaction, or the
    /// savepoint around this call, is to be rolled back. `Rejected` where there is no transaction.
    pub async fn write(
        &self,
        connection: &mut PgConnection,
        commit: &Commit,
    ) -> Result<Committed, CommitError> {
        transaction::check(&self.log, connection).await?;
        let written = transaction::write(&self.log, connection, commit).await;
        written.map(|(committed, _)| committed)
    }

    /// Transactions with [`Postgres::write`] were committed: whoever waits for changes looks now, in
    /// all processes, and not only within a second.
    pub fn committed(&self) {
        self.tail.committed(vec![]);
    }

    /// Commits over the limits are refused here; the others go on.
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

    async fn begin_own(&self) -> Result<Box<dyn Transaction>> {
        let known = (self.log.clone(), self.tail.clone());
        let begun = PgTransaction::begin(known, &self.transactions).await;
        Ok(Box::new(begun.map_err(|error| error::describe(&self.log.place, error))?))
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("at", &self.log.place).finish_non_exhaustive()
    }
}

/// Asks a connection that has rested whether it is still there: the server may have been restarted.
#[allow(clippy::needless_pass_by_value)] // as the pool passes it
fn awake(
    connection: &mut PgConnection,
    rested: PoolConnectionMetadata,
) -> BoxFuture<'_, sqlx::Result<bool>> {
    Box::pin(async move {
        if rested.idle_for > RESTED {
            connection.ping().await?;
        }
        Ok(true)
    })
}

/// Asks a connection that is given back, which rolls back what is open on it, whether it is there; the
/// pool would wait for an answer for ever.
fn released(
    clock: Arc<dyn Clock>,
) -> impl Fn(&mut PgConnection, PoolConnectionMetadata) -> BoxFuture<'_, sqlx::Result<bool>> {
    move |connection, _| {
        let late = clock.sleep(ACQUIRE);
        Box::pin(async move {
            tokio::select! {
                biased;
                asked = connection.ping() => asked.map(|()| true),
                () = late => Err(sqlx::Error::PoolTimedOut),
            }
        })
    }
}

impl Database for Postgres {
    fn commit(&self, batch: Vec<Commit>) -> BoxFuture<'_, Vec<Result<Committed, CommitError>>> {
        Box::pin(self.commit_all(batch))
    }

    /// It is a [`PgTransaction`]: what it writes is committed with the commit it is given.
    fn begin(&self) -> BoxFuture<'_, Result<Box<dyn Transaction>>> {
        Box::pin(self.begin_own())
    }

    fn stream<'a>(
        &'a self,
        stream: &'a str,
        after: Version,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Recorded>>> {
        let wanted = (stream.to_owned(), after, max);
        let read = self.readers.run(move |log, c| Box::pin(read::stream(log, c, wanted)));
        Box::pin(async move { read.await? })
    }

    fn log<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        max: usize,
    ) -> BoxFuture<'a, Result<Page>> {
        Box::pin(self.readers.page(&self.tail, after, filter, max))
    }

    fn head(&self) -> BoxFuture<'_, Result<Head>> {
        Box::pin(self.readers.head(&self.tail))
    }

    fn get<'a>(
        &'a self,
        collection: &'a str,
        ids: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<Option<Stored>>>> {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let wanted = (collection.to_owned(), ids);
        Box::pin(self.readers.run(move |log, c| Box::pin(read::get(log, c, wanted))))
    }

    fn list<'a>(
        &'a self,
        collection: &'a str,
        range: Range<'a>,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Stored>>> {
        let wanted = match range {
            Range::Ids { prefix, after } => {
                Wanted::Ids { prefix: prefix.to_owned(), after: after.to_owned() }
            }
            Range::Sort { from, until } => {
                Wanted::Sort { from: from.to_owned(), until: until.to_owned() }
            }
            Range::Due => Wanted::Due,
        };
        let wanted = (collection.to_owned(), wanted, max);
        Box::pin(self.readers.run(move |log, c| Box::pin(read::documents(log, c, wanted))))
    }

    fn decisions<'a>(
        &'a self,
        consumer: &'a str,
        deliveries: &'a [(Text, Text)],
    ) -> BoxFuture<'a, Result<Vec<Option<Decision>>>> {
        let wanted = (consumer.to_owned(), deliveries.to_vec());
        Box::pin(self.readers.run(move |log, c| Box::pin(read::decisions(log, c, wanted))))
    }

    fn lease<'a>(
        &'a self,
        name: &'a str,
        owner: Uuid,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Epoch>>> {
        Box::pin(self.leases.take(name.to_owned(), owner, ttl))
    }

    fn now(&self) -> BoxFuture<'_, Result<Timestamp>> {
        Box::pin(self.readers.run(|log, c| Box::pin(read::now(log, c))))
    }

    fn changed(&self, position: Position, filter: &Filter) -> BoxFuture<'_, ()> {
        Box::pin(self.tail.wait(position, filter))
    }

    fn next<'a>(
        &'a self,
        after: Position,
        filter: &'a Filter,
        max: usize,
    ) -> BoxFuture<'a, Option<Page>> {
        let wait = self.tail.wait(after, filter);
        Box::pin(async move {
            wait.await;
            self.tail.page(after, filter, max)
        })
    }
}
