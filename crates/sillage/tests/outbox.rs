//! The outbox by itself: what is written within a user's transaction is published if and only if that
//! is committed, and readers pass nothing of it.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;
#[path = "common/tables.rs"]
mod tables;

use common::{Created, created};
use sillage::{
    CommitError, Filter,
    postgres::{
        Outbox,
        sqlx::{self, Acquire, Connection, PgConnection},
    },
    prelude::*,
};
use std::sync::Arc;
use tables::{Tables, everywhere, on_postgres::Schema};

/// On PostgreSQL, if there is one.
fn on_postgres(test: impl AsyncFn(Tables, Arc<Schema>, Outbox)) {
    everywhere(async |tables| {
        if let Tables::Postgres(schema) = &tables {
            let outbox = Outbox::new(schema.database.clone(), "crm");
            test(tables.clone(), schema.clone(), outbox).await;
        }
    });
}

async fn write(outbox: &Outbox, tx: &mut PgConnection, id: &str) {
    outbox.write(tx, publish(created(id))).await.unwrap();
}

/// The orders that readers have seen up to where their checkpoint moves, from `after` on.
async fn read(tables: &Tables, after: &mut Position) -> Vec<String> {
    let page = tables.database().log(*after, &Filter::default(), 1000).await.unwrap();
    *after = page.through;
    let orders = page.entries.iter().filter(|entry| &*entry.name == "order.created");
    let id = |entry: &Recorded| serde_json::from_slice::<Created>(&entry.payload).unwrap().order_id;
    orders.map(id).collect()
}

#[test]
fn it_is_published_with_the_transaction_or_not_at_all() {
    on_postgres(async |tables, schema, outbox| {
        let seen = common::Probe::default();
        let notes = seen.clone();
        let consumer = Consumer::new("welcome").on(move |order: Created| {
            let notes = notes.clone();
            async move { notes.note(&order.order_id) }
        });
        let mail = Service::new("mail").consumer(consumer);
        let app = App::new(tables.database()).service(Service::new("crm")).service(mail);
        let app = app.start().await.unwrap();

        let mut tx = schema.pool.begin().await.unwrap();
        write(&outbox, &mut tx, "rolled back").await;
        tx.rollback().await.unwrap();
        let mut tx = schema.pool.begin().await.unwrap();
        write(&outbox, &mut tx, "before").await;
        let mut savepoint = tx.begin().await.unwrap();
        write(&outbox, &mut savepoint, "in a savepoint that is rolled back").await;
        savepoint.rollback().await.unwrap();
        let mut savepoint = tx.begin().await.unwrap();
        write(&outbox, &mut savepoint, "in a savepoint").await;
        savepoint.commit().await.unwrap();
        write(&outbox, &mut tx, "after").await;
        tx.commit().await.unwrap();
        outbox.committed();
        let all = ["after", "before", "in a savepoint"];
        let handled = || {
            let mut notes = seen.notes();
            notes.sort_unstable();
            notes
        };
        tables.until(async |_| handled().len() >= 3).await;
        assert_eq!(handled(), all);
        app.drain().await;
        assert_eq!(handled(), all);
    });
}

/// A savepoint that is rolled back gives up the lock on the stable position: what is written behind it
/// takes a new one, so that nobody reads past it.
#[test]
fn readers_skip_nothing_behind_a_savepoint() {
    on_postgres(async |tables, schema, outbox| {
        let mut at = Position(0);
        let mut tx = schema.pool.begin().await.unwrap();
        let mut savepoint = tx.begin().await.unwrap();
        write(&outbox, &mut savepoint, "rolled back").await;
        savepoint.rollback().await.unwrap();
        write(&outbox, &mut tx, "early").await;
        let mut other = schema.pool.begin().await.unwrap();
        write(&outbox, &mut other, "late").await;
        other.commit().await.unwrap();
        assert!(read(&tables, &mut at).await.is_empty(), "`early` could still appear");
        tx.commit().await.unwrap();
        assert_eq!(read(&tables, &mut at).await, ["early", "late"]);
    });
}

#[test]
fn without_a_transaction_it_is_refused() {
    on_postgres(async |tables, schema, outbox| {
        let mut alone = schema.pool.acquire().await.unwrap();
        let refused = outbox.write(&mut alone, publish(created("a"))).await.unwrap_err();
        let CommitError::Rejected(error) = refused else { panic!("{refused:?}") };
        assert!(error.to_string().contains("begin a transaction"), "{error}");
        assert_eq!(tables.log("order.created").await, 0);
    });
}

/// A crash would give out again positions that readers have seen.
#[test]
fn a_session_without_durability_is_durable_all_the_same() {
    on_postgres(async |_, schema, outbox| {
        let mut session =
            PgConnection::connect(schema.url.split('?').next().unwrap()).await.unwrap();
        sqlx::raw_sql("SET synchronous_commit = off").execute(&mut session).await.unwrap();
        let mut tx = Connection::begin(&mut session).await.unwrap();
        write(&outbox, &mut tx, "a").await;
        let show = sqlx::query_scalar("SELECT current_setting('synchronous_commit')");
        let is: String = show.fetch_one(&mut *tx).await.unwrap();
        assert_eq!(is, "on");
        tx.commit().await.unwrap();
    });
}
