//! Transactions of users: what refuses them for good, and what they wait for.

use crate::support::{DIRECT, POOLED, Schema, append, begun, commit, run};
use bytes::Bytes;
use sillage_core::{
    Class, Commit, CommitError, Committed, Condition, Database, Decision, Delivered, Expected,
    Filter, Position, Transaction, Version, Write,
};
use sillage_postgres::{
    PgTransaction,
    sqlx::{Connection as _, raw_sql},
};
use std::sync::Arc;

async fn committed(
    transaction: Box<PgTransaction>,
    commit: Commit,
) -> Result<Committed, CommitError> {
    Transaction::commit(transaction, commit).await
}

/// What the handler has done wrong is a failure of the handler's: it is not tried for ever.
#[test]
fn mistakes_in_a_transaction_of_the_users_are_its_failure() {
    for variable in [DIRECT, POOLED] {
        let Some(schema) = Schema::new(variable) else { return };
        run(async {
            let database = schema.open().await;
            let mut shell = schema.shell().await;
            let tables = "CREATE TABLE @@.own (number bigint UNIQUE DEFERRABLE INITIALLY DEFERRED)";
            schema.run(&mut shell, tables).await;
            let mut passes_over = begun(&database).await;
            assert!(raw_sql("SELECT 1 / 0").execute(&mut **passes_over).await.is_err());
            let mut violates = begun(&database).await;
            schema.run(&mut violates, "INSERT INTO @@.own VALUES (1), (1)").await;
            let mistakes =
                [(passes_over, "passed over an error"), (violates, "duplicate key value")];
            for (transaction, says) in mistakes {
                let answer = committed(transaction, commit([append(None, says)])).await;
                let Err(CommitError::Sql(failure)) = answer else { panic!("{says}: {answer:?}") };
                assert_eq!(failure.class, Class::Permanent, "{failure}");
                assert!(failure.to_string().contains(says), "`{says}` is not in: {failure}");
            }
            // Those behind it have a connection as it was.
            for id in ["a", "b"] {
                let mut transaction = begun(&database).await;
                let mut inner = transaction.begin().await.unwrap();
                schema.run(&mut inner, "INSERT INTO @@.own VALUES (1)").await;
                inner.rollback().await.unwrap();
                let answer = committed(transaction, commit([append(None, id)])).await;
                assert!(answer.is_ok(), "{answer:?}");
            }
            assert_eq!(schema.number(&mut shell, "SELECT count(*) FROM @@.own").await, 0);
        });
    }
}

/// Where somebody made one of its rows meanwhile, a commit begins again, and what it had claimed is
/// not in its own way.
#[test]
fn a_second_try_does_not_meet_the_first() {
    for variable in [DIRECT, POOLED] {
        let Some(schema) = Schema::new(variable) else { return };
        run(async {
            let database = Arc::new(schema.open().await);
            let mut shell = schema.shell().await;
            schema.run(&mut shell, "BEGIN; INSERT INTO @@.streams VALUES ('s', 3)").await;
            let delivery =
                Delivered { consumer: "c".into(), source: "test".into(), id: "d".into() };
            let put = |id: &str| Write::Put {
                collection: "c".into(),
                id: id.into(),
                sort: None,
                body: Bytes::from_static(b"{}"),
            };
            let decide =
                Write::Decide { delivery: delivery.clone(), decision: Decision::Done, until: None };
            let commit = Commit {
                conditions: vec![Condition::FirstTime(delivery)],
                writes: vec![append(Some("s"), "a"), put("y"), decide],
            };
            let waiting = tokio::spawn({
                let transaction = begun(&database).await;
                async move { committed(transaction, commit).await }
            });
            schema.until_waiting(&mut shell, "INSERT").await;
            schema.run(&mut shell, "COMMIT").await;
            let answer = waiting.await.unwrap();
            assert!(answer.is_ok(), "{answer:?}");
            let put = database.get("c", &["y"]).await.unwrap().remove(0);
            assert_eq!(put.map(|put| put.version), Some(Version(1)));
            let page = database.log(Position(0), &Filter::default(), 9).await.unwrap();
            let streams: Vec<_> = page.entries.iter().map(|e| e.stream.clone()).collect();
            assert_eq!(streams, [Some(("s".into(), Version(4)))]);
        });
    }
}

/// The same commit once more, while its first try is not committed yet.
fn again() -> Commit {
    let expected = Expected::Exact(Version(1));
    let condition = Condition::Stream { stream: "s".into(), expected };
    Commit { conditions: vec![condition], writes: vec![append(Some("s"), "again")] }
}

/// A try that waits for an earlier one of the same commit is told that it was done, and not that
/// somebody else was quicker.
#[test]
fn a_try_that_overlaps_its_own_first_was_handled() {
    for is_in_transaction in [true, false] {
        let Some(schema) = Schema::new(DIRECT) else { return };
        run(async {
            let database = Arc::new(schema.open().await);
            let first = database.commit(vec![commit([append(Some("s"), "first")])]).await;
            assert!(first[0].is_ok(), "{first:?}");
            let mut shell = schema.shell().await;
            schema.run(&mut shell, "BEGIN").await;
            database.write(&mut shell, &again()).await.unwrap();
            let waiting = tokio::spawn({
                let database = database.clone();
                async move {
                    if is_in_transaction {
                        return committed(begun(&database).await, again()).await;
                    }
                    database.commit(vec![again()]).await.remove(0)
                }
            });
            schema.until_waiting(&mut shell, "FOR UPDATE").await;
            schema.run(&mut shell, "COMMIT").await;
            let answer = waiting.await.unwrap();
            assert!(matches!(answer, Err(CommitError::AlreadyHandled)), "{answer:?}");
        });
    }
}
