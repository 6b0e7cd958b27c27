//! A schema of one's own on the server that the tests share.

use sillage_postgres::Postgres;
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
}

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
