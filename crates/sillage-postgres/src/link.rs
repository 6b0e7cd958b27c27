//! A connection of one's own, made when it is needed and again when it broke.

use crate::{
    config::{Config, Purpose},
    error::{Cause, cause},
};
use sillage_core::{Clock, Error};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, SqlSafeStr, SqlStr, postgres::PgConnectOptions,
};
use std::{sync::Arc, time::Duration};

/// How long a connection may take to be made, and a statement to be answered, whatever the server's
/// own limits: it may be frozen.
const LIMIT: Duration = Duration::from_secs(45);

/// How to connect for one purpose, and how its transactions begin.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) options: PgConnectOptions,
    pub(crate) begin: SqlStr,
    /// Whether nothing outlives a transaction.
    pub(crate) pooler: bool,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Way {
    pub(crate) fn new(
        config: &Config,
        purpose: Purpose,
        synchronous: &str,
        clock: Arc<dyn Clock>,
    ) -> Way {
        Way {
            options: config.options(purpose, synchronous),
            begin: AssertSqlSafe(config.begin(purpose, synchronous)).into_sql_str(),
            pooler: config.pooler,
            clock,
        }
    }

    /// Whether a statement by itself is a transaction with the right settings.
    pub(crate) fn commits_alone(&self) -> bool {
        !self.pooler
    }

    pub(crate) async fn begin(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        sqlx::raw_sql(self.begin.clone()).execute(connection).await.map(drop)
    }

    /// Begins a transaction around what reads, where its settings do not last.
    pub(crate) async fn begin_reading(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        if self.commits_alone() { Ok(()) } else { self.begin(connection).await }
    }

    /// Ends what `begin_reading` began.
    pub(crate) async fn end_reading<T>(
        &self,
        connection: &mut PgConnection,
        done: sqlx::Result<T>,
    ) -> sqlx::Result<T> {
        if self.commits_alone() { done } else { end(connection, done).await }
    }

    /// The outcome, or an error when it takes too long.
    pub(crate) async fn limited<T>(
        &self,
        work: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.clock.sleep(LIMIT) => Err(late()),
        }
    }
}

/// Commits what was done, rolls back what failed.
pub(crate) async fn end<T>(
    connection: &mut PgConnection,
    done: sqlx::Result<T>,
) -> sqlx::Result<T> {
    match done {
        Ok(done) => {
            sqlx::raw_sql("COMMIT").execute(connection).await?;
            Ok(done)
        }
        Err(error) => {
            if cause(&error) != Cause::Server {
                rollback(connection).await?;
            }
            Err(error)
        }
    }
}

pub(crate) async fn rollback(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql("ROLLBACK").execute(connection).await.map(drop)
}

/// One connection.
pub(crate) struct Link {
    pub(crate) way: Way,
    connection: Option<PgConnection>,
}

impl Link {
    pub(crate) fn new(way: Way) -> Link {
        Link { way, connection: None }
    }

    /// The connection, made if there is none. One that is not kept afterwards is closed.
    pub(crate) async fn open(&mut self) -> sqlx::Result<PgConnection> {
        match self.connection.take() {
            Some(open) => Ok(open),
            None => self.way.limited(PgConnection::connect_with(&self.way.options)).await,
        }
    }

    /// Keeps the connection for the next time, unless it broke, or nobody knows its state.
    pub(crate) fn keep<T>(&mut self, open: PgConnection, done: &sqlx::Result<T>) {
        self.connection = is_sound(done).then_some(open);
    }
}

/// Whether the connection is as it was, after this.
pub(crate) fn is_sound<T>(done: &sqlx::Result<T>) -> bool {
    done.as_ref().err().is_none_or(|error| cause(error) != Cause::Server)
}

fn late() -> sqlx::Error {
    let error = Error::unavailable(format!("no answer within {} s", LIMIT.as_secs()));
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, error))
}
