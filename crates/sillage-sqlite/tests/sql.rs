//! SQL of users inside commits: it succeeds with its commit or fails with it, alone.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests may panic as tests do

use rusqlite::Connection;
use sillage_core::{
    Class, Commit, CommitError, Committed, Condition, Database, Effect, Effects, ErrorKind,
    Expected, Failure, Message, MessageId, Statement, Timestamp, Version, Write,
};
use sillage_sqlite::{Sqlite, sql};
use sillage_testkit::ManualClock;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tempfile::TempDir;

struct Shop {
    folder: TempDir,
    database: Sqlite,
}

impl Shop {
    async fn open() -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::default());
        let database = Sqlite::open(folder.path().join("shop.db"), clock).unwrap();
        let shop = Shop { folder, database };
        let made = shop.commit(vec![runs(sql(|tx| {
            tx.execute_batch("CREATE TABLE orders (id TEXT PRIMARY KEY, total INTEGER NOT NULL)")?;
            Ok(())
        }))]);
        assert!(made.await[0].is_ok());
        shop
    }

    async fn commit(&self, batch: Vec<Commit>) -> Vec<Result<Committed, CommitError>> {
        self.database.commit(batch).await
    }

    /// What is in the user's table, as somebody with a shell sees it.
    fn orders(&self) -> Vec<String> {
        let shell = Connection::open(self.folder.path().join("shop.db")).unwrap();
        let mut rows = shell.prepare("SELECT id FROM orders ORDER BY rowid").unwrap();
        let rows = rows.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    async fn log(&self) -> Vec<String> {
        let entries = self.database.stream("s", Version(0), 1000).await.unwrap();
        entries.iter().map(|entry| entry.id.to_string()).collect()
    }
}

/// A commit of an effect.
fn runs(effects: Effects) -> Commit {
    let write = |effect| match effect {
        Effect::Sql(statement) => Write::Run(statement),
        other => panic!("{other:?}"),
    };
    Commit { conditions: vec![], writes: effects.into_iter().map(write).collect() }
}

fn append(id: &str) -> Write {
    let message = Message {
        id: MessageId::new(id),
        source: "shop".into(),
        name: "order.created".into(),
        version: 1,
        topic: None,
        key: None,
        time: Timestamp::default(),
        correlation_id: "flow".into(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload: "{}".into(),
    };
    Write::Append { stream: Some("s".into()), message: Arc::new(message) }
}

/// A row of that id and an entry of that id.
fn order(id: &str) -> Commit {
    let row = id.to_owned();
    let mut commit = runs(sql(move |tx| {
        tx.execute("INSERT INTO orders (id, total) VALUES (?1, 1)", [&row])?;
        Ok(())
    }));
    commit.writes.insert(0, append(id));
    commit
}

/// With the class that each fails with, and what it says.
fn mistakes() -> Vec<(Effects, Class, &'static str)> {
    let statement = |statement: &'static str| {
        sql(move |tx| {
            tx.execute("INSERT INTO orders VALUES ('half', 1)", [])?;
            tx.execute_batch(statement)?;
            Ok(())
        })
    };
    let own = "may not begin or end transactions";
    vec![
        (statement("INSERT INTO orders VALUES ('before 0', 1)"), Class::Permanent, "UNIQUE"),
        (statement("INSERT INTO orders VALUES ('x', NULL)"), Class::Permanent, "NOT NULL"),
        (statement("INSERT INTO missing VALUES (1)"), Class::Transient, "no such table: missing"),
        (statement("COMMIT"), Class::Permanent, own),
        (statement("ROLLBACK TO sillage"), Class::Permanent, own),
        (statement("DELETE FROM log"), Class::Permanent, own),
        (statement("UPDATE documents SET version = 1"), Class::Permanent, own),
        (statement("DROP TABLE inbox"), Class::Permanent, own),
        (statement("PRAGMA synchronous = OFF"), Class::Permanent, own),
        (sql(|_| Err(Failure::transient("not yet"))), Class::Transient, "not yet"),
        (sql(|_| Err(Failure::permanent("sold out"))), Class::Permanent, "sold out"),
        (
            sql(|_| Err(Failure::unavailable("stock", "away"))),
            Class::Unavailable("stock".into()),
            "away",
        ),
        (sql(|_| panic!("a bug")), Class::Permanent, "`sql` panicked: a bug"),
    ]
}

#[tokio::test]
async fn what_fails_is_refused_alone() {
    for (mistake, class, says) in mistakes() {
        let shop = Shop::open().await;
        let mut guilty = runs(mistake);
        guilty.writes.push(append("guilty"));
        let mut batch: Vec<Commit> = (0..10).map(|n| order(&format!("before {n}"))).collect();
        batch.push(guilty);
        batch.extend((0..10).map(|n| order(&format!("after {n}"))));
        let mut answers = shop.commit(batch).await;
        let Err(CommitError::Sql(failure)) = answers.remove(10) else { panic!("{says}") };
        assert_eq!(failure.class, class, "{says}: {failure}");
        assert!(failure.to_string().contains(says), "`{says}` is not in: {failure}");
        assert!(answers.iter().all(Result::is_ok), "{says}: {answers:?}");
        let ids = ["before", "after"].map(|side| (0..10).map(move |n| format!("{side} {n}")));
        let ids: Vec<String> = ids.into_iter().flatten().collect();
        assert_eq!(shop.orders(), ids, "{says}");
        assert_eq!(shop.log().await, ids, "{says}");
    }
}

/// A batch that holds an entry that was there before is rolled back and done again.
#[tokio::test]
async fn what_ran_more_than_once_is_committed_once() {
    let shop = Shop::open().await;
    assert!(shop.commit(vec![order("known")]).await[0].is_ok());
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = |id: &str| {
        let (mut commit, runs) = (order(id), runs.clone());
        commit.writes.extend(
            self::runs(sql(move |_| {
                runs.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }))
            .writes,
        );
        commit
    };
    let again = Commit { conditions: vec![], writes: vec![append("known")] };
    let answers = shop.commit(vec![counted("a"), again, counted("b")]).await;
    assert!(matches!(answers[1], Err(CommitError::AlreadyHandled)), "{answers:?}");
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(runs.load(Ordering::Relaxed) > 2, "this is about what runs again");
    assert_eq!(shop.orders(), ["known", "a", "b"]);
}

/// Conditions come first, and what is refused by SQL has not happened for those behind it.
#[tokio::test]
async fn a_refused_commit_is_seen_by_none_behind_it() {
    let shop = Shop::open().await;
    let step = |version: u64, mut commit: Commit| {
        let expected = Expected::Exact(Version(version));
        commit.conditions.push(Condition::Stream { stream: "s".into(), expected });
        commit
    };
    let mut failing = order("b");
    failing.writes.extend(runs(sql(|_| Err(Failure::permanent("no")))).writes);
    let batch = vec![order("a"), step(1, failing), step(1, order("c")), step(1, order("d"))];
    let answers = shop.commit(batch).await;
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(matches!(answers[1], Err(CommitError::Sql(_))), "{answers:?}");
    assert!(matches!(answers[3], Err(CommitError::Conflict { .. })), "{answers:?}");
    assert_eq!(
        (shop.orders(), shop.log().await),
        (vec!["a".into(), "c".into()], vec!["a".into(), "c".into()])
    );
}

#[tokio::test]
async fn sql_for_another_database_is_refused_by_name() {
    let shop = Shop::open().await;
    let other = Effects::one(Effect::Sql(Statement::new("PostgreSQL", ())));
    let answers = shop.commit(vec![runs(other), order("a")]).await;
    let Err(CommitError::Rejected(error)) = &answers[0] else { panic!("{answers:?}") };
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("for PostgreSQL, and the database is SQLite"), "{error}");
    assert!(answers[1].is_ok());
}
