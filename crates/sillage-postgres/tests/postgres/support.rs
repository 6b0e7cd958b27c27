//! A schema of one's own on the server that the tests share.

use bytes::Bytes;
use sillage_core::{Commit, Database as _, Error, Message, MessageId, Timestamp, Write};
use sillage_postgres::{PgTransaction, Postgres};
use sillage_testkit::{SystemClock, servers};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{sync::Arc, thread};
use uuid::Uuid;

/// The server itself, and PgBouncer before it, which lends a connection for one transaction.
pub(crate) const DIRECT: &str = "SILLAGE_TEST_POSTGRES";
pub(crate) const POOLED: &str = "SILLAGE_TEST_PGBOUNCER";

/// A schema that is gone when this is dropped.
pub(crate) struct Schema {
    pub(crate) name: String,
    /// Names the schema.
    pub(crate) url: String,
    server: String,
}

impl Schema {
    /// On the server of that variable; `None`: the test is to be skipped.
    pub(crate) fn new(variable: &str) -> Option<Schema> {
        let (url, server) = (servers::url(variable)?, servers::url(DIRECT)?);
        let name = format!("test_{}", Uuid::new_v4().simple());
        let mark = if url.contains('?') { '&' } else { '?' };
        Some(Schema { url: format!("{url}{mark}schema={name}"), name, server })
    }

    pub(crate) async fn open(&self) -> Postgres {
        Postgres::connect(&self.url, Arc::new(SystemClock)).await.unwrap()
    }

    pub(crate) async fn refusal(&self) -> Error {
        Postgres::connect(&self.url, Arc::new(SystemClock)).await.unwrap_err()
    }

    /// A connection as somebody else would have it.
    pub(crate) async fn shell(&self) -> PgConnection {
        PgConnection::connect(&self.server).await.unwrap()
    }

    /// Statements in which `@@` is the schema.
    pub(crate) async fn run(&self, connection: &mut PgConnection, statements: &str) {
        let statements = statements.replace("@@", &self.name);
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.unwrap();
    }

    /// Completes when somebody waits for a connection, with a statement in which this stands.
    pub(crate) async fn until_waiting(&self, holder: &mut PgConnection, what: &str) {
        let holder = self.number(holder, "SELECT pg_backend_pid()::bigint").await;
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE {holder} = ANY (pg_blocking_pids(pid)) AND query LIKE '%{what}%'"
        );
        let mut shell = self.shell().await;
        while self.number(&mut shell, &waiting).await == 0 {}
    }

    /// A number that a statement answers, in which `@@` is the schema.
    pub(crate) async fn number(&self, connection: &mut PgConnection, statement: &str) -> i64 {
        let statement = AssertSqlSafe(statement.replace("@@", &self.name));
        sqlx::query_scalar(statement).fetch_one(connection).await.unwrap()
    }
}

pub(crate) fn message(id: &str) -> Message {
    Message {
        id: MessageId::new(id),
        source: "test".into(),
        name: "test.happened".into(),
        version: 1,
        topic: Some("test".into()),
        key: None,
        time: Timestamp::from_micros(1_700_000_000_000_001),
        correlation_id: "flow".into(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload: Bytes::from_static(b"{}"),
    }
}

/// An entry to the end of that stream, or to none.
pub(crate) fn append(stream: Option<&str>, id: &str) -> Write {
    Write::Append { stream: stream.map(Into::into), message: message(id).into() }
}

pub(crate) fn commit(writes: impl Into<Vec<Write>>) -> Commit {
    Commit { conditions: vec![], writes: writes.into() }
}

/// A transaction as handlers take it.
pub(crate) async fn begun(database: &Postgres) -> Box<PgTransaction> {
    database.begin().await.unwrap().as_any().downcast().unwrap()
}

/// Runs on a runtime with several threads; panics where the suites do: after two minutes.
pub(crate) use sillage_testkit::conformance::run;

impl Drop for Schema {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let drop = async move {
            let mut connection = PgConnection::connect(&server).await.unwrap();
            let drop = format!("DROP SCHEMA IF EXISTS {name} CASCADE");
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
        };
        // On a runtime of its own: the test's may be at its end.
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dropped = thread::spawn(move || runtime().block_on(drop)).join();
        assert!(dropped.is_ok() || thread::panicking(), "the schema stays behind");
    }
}
