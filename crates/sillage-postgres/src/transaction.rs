//! A transaction of the user's own, which is committed together with what a handler returns.

use crate::{
    error::{Cause, cause, code, describe, refuse},
    link::Way,
    log::Log,
    phases::{self, Locking},
    run::{NAME, Sql, simple},
    tail::Tail,
};
use sillage_core::{BoxFuture, Commit, CommitError, Committed, Error, Failure, Limits, Recorded};
use sqlx::{PgConnection, PgPool, Postgres, Row as _};
use std::{
    any::Any,
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// How often a commit is tried whose rows somebody else made in this moment.
const TRIES: usize = 3;

/// A transaction on the connection that it dereferences to. Dropped without a commit, it is rolled
/// back.
///
/// It holds the rows it has written until it ends; commits that are about the same rows wait for
/// it, and readers of the log do not pass what it has appended.
pub struct PgTransaction {
    log: Arc<Log>,
    tail: Arc<Tail>,
    way: Way,
    transaction: sqlx::Transaction<'static, Postgres>,
}

impl PgTransaction {
    /// Begins one on a connection of the pool.
    pub(crate) async fn begin(
        (log, tail): (Arc<Log>, Arc<Tail>),
        (pool, way): &(PgPool, Way),
    ) -> sqlx::Result<Self> {
        let transaction = way.limited(pool.begin_with(way.begin.clone())).await?;
        Ok(PgTransaction { log, tail, way: way.clone(), transaction })
    }

    async fn finish(self, commit: Commit) -> Result<Committed, CommitError> {
        let PgTransaction { log, tail, way, mut transaction } = self;
        let done = way.limited(async {
            let written = match write(&log, &mut transaction, &commit).await {
                Ok(written) => written,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let done = transaction.commit().await;
            Ok(done.map(|()| written).map_err(|error| at_the_end(&log, error)))
        });
        let (committed, appended) = done.await.map_err(|late| refuse(&log.place, late))??;
        tail.committed(appended);
        Ok(committed)
    }
}

/// Whether the connection is in a transaction, which is durable from now on.
pub(crate) async fn check(log: &Log, connection: &mut PgConnection) -> Result<(), CommitError> {
    // In one message: what comes in several would be later than its own beginning.
    let found = sqlx::raw_sql(log.sql.own.clone()).fetch_one(connection).await;
    match found.and_then(|row| row.try_get(0)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CommitError::Rejected(Error::invalid(
            "what is written outside of a transaction is not written together with anything: begin \
             a transaction first, or use `commit`",
        ))),
        Err(error) => Err(refused(log, error)),
    }
}

/// Why nothing can be written in a transaction: for good where its user has broken it before.
fn refused(log: &Log, error: sqlx::Error) -> CommitError {
    if code(&error).as_deref() == Some("25P02") {
        let why = "the transaction has passed over an error of PostgreSQL, after which nothing can be \
                   committed in it: return it, or put a savepoint around what may fail";
        return CommitError::Sql(Failure::permanent(why));
    }
    refuse(&log.place, error)
}

/// Why a transaction could not be committed: what is checked only then is the user's.
fn at_the_end(log: &Log, error: sqlx::Error) -> CommitError {
    let is_of_users = |code: String| code.starts_with("22") || code.starts_with("23");
    if code(&error).is_some_and(is_of_users) {
        return CommitError::Sql(Failure::permanent(error));
    }
    CommitError::Failed(describe(&log.place, error))
}

/// A commit, and what it has appended.
type Written = (Committed, Vec<Recorded>);

/// Applies a commit within a transaction, which goes on, and answers what it has appended as well;
/// where it is refused, the transaction is to be rolled back.
pub(crate) async fn write(
    log: &Log,
    connection: &mut PgConnection,
    commit: &Commit,
) -> Result<Written, CommitError> {
    let checked = Limits::default().check(commit).and_then(|()| commit.runs_on::<Sql>(NAME));
    checked.map_err(CommitError::Rejected)?;
    let written = tries(log, connection, commit).await;
    match written {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Err(crate::commit::held_too_long(log, 0)),
        // Its entries or rows are there by now: somebody was quicker.
        Err(error) if cause(&error) == Cause::Race && is_duplicate(&error) => {
            Err(CommitError::AlreadyHandled)
        }
        Err(error) => Err(refused(log, error)),
    }
}

/// Tries until nobody has just made one of the rows; each time as if it were the first, for what was
/// claimed would be in the way.
async fn tries(
    log: &Log,
    connection: &mut PgConnection,
    commit: &Commit,
) -> sqlx::Result<Option<Result<Written, CommitError>>> {
    simple(connection, "SAVEPOINT sillage_try").await?;
    for _ in 0..TRIES {
        let mut done = phases::run(log, connection, &[commit], Locking::Wait).await?;
        match done.outcomes.pop().flatten() {
            Some(Ok(committed)) => {
                simple(connection, "RELEASE SAVEPOINT sillage_try").await?;
                return Ok(Some(Ok((committed, done.appended))));
            }
            Some(Err(refusal)) => return Ok(Some(Err(refusal))),
            None => simple(connection, "ROLLBACK TO SAVEPOINT sillage_try").await?,
        }
    }
    Ok(None)
}

fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

impl fmt::Debug for PgTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgTransaction").field("at", &self.log.place).finish_non_exhaustive()
    }
}

impl Deref for PgTransaction {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl DerefMut for PgTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}

impl sillage_core::Transaction for PgTransaction {
    fn commit(
        self: Box<Self>,
        commit: Commit,
    ) -> BoxFuture<'static, Result<Committed, CommitError>> {
        Box::pin(self.finish(commit))
    }

    fn as_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}
