//! SQL of users inside commits: it succeeds with its commit or fails with it, alone.

use crate::support::{DIRECT, POOLED, Schema, append, commit, run};
use sillage_core::{
    BoxFuture, Class, Clock, Commit, CommitError, Condition, Database, Effect, Effects, ErrorKind,
    Expected, Failure, Position, Statement, Timestamp, Version, Write,
};
use sillage_postgres::{
    Postgres, sql,
    sqlx::{AssertSqlSafe, PgConnection, raw_sql},
};
use sillage_testkit::SystemClock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const TABLES: &str = "CREATE TABLE @@.orders (id text PRIMARY KEY, total bigint NOT NULL, \
                      UNIQUE (total) DEFERRABLE INITIALLY DEFERRED)";

/// Statements in which `@@` is the schema.
fn statements(schema: &Schema, statements: &str) -> Effects {
    let statements = statements.replace("@@", &schema.name);
    sql(move |tx| {
        let statements = AssertSqlSafe(statements.clone());
        Box::pin(async move {
            raw_sql(statements).execute(tx).await?;
            Ok(())
        })
    })
}

/// What the effects run, and then these writes.
fn runs(effects: Effects, writes: impl IntoIterator<Item = Write>) -> Commit {
    let write = |effect| match effect {
        Effect::Sql(statement) => Write::Run(statement),
        other => panic!("{other:?}"),
    };
    commit(effects.into_iter().map(write).chain(writes).collect::<Vec<_>>())
}

/// A row and an entry.
fn order(schema: &Schema, id: &str, total: u32) -> Commit {
    let insert = format!("INSERT INTO @@.orders VALUES ('{id}', {total})");
    runs(statements(schema, &insert), [append(Some("s"), id)])
}

async fn ids(database: &impl Database) -> Vec<String> {
    let entries = database.stream("s", Version(0), 1000).await.unwrap();
    entries.iter().map(|entry| entry.id.to_string()).collect()
}

/// With the class that each fails with, and what it says.
fn mistakes(schema: &Schema) -> Vec<(Effects, Class, &'static str)> {
    let statement = |statement: &str| {
        statements(schema, &format!("INSERT INTO @@.orders VALUES ('half', 999); {statement}"))
    };
    let fails = |failure: fn() -> Failure| sql(move |_| Box::pin(async move { Err(failure()) }));
    vec![
        (
            statement("INSERT INTO @@.orders VALUES ('before 0', 500)"),
            Class::Permanent,
            "duplicate",
        ),
        (statement("INSERT INTO @@.orders VALUES ('x', NULL)"), Class::Permanent, "null value"),
        (statement("INSERT INTO @@.orders VALUES ('x', 100)"), Class::Permanent, "duplicate"),
        (statement("INSERT INTO @@.missing VALUES (1)"), Class::Transient, "does not exist"),
        (fails(|| Failure::transient("not yet")), Class::Transient, "not yet"),
        (fails(|| Failure::permanent("sold out")), Class::Permanent, "sold out"),
        (sql(|_| Box::pin(async { panic!("a bug") })), Class::Permanent, "`sql` panicked: a bug"),
        (sql(|tx| Box::pin(passes_over(tx))), Class::Permanent, "`sql` passed over an error"),
    ]
}

async fn passes_over(connection: &mut PgConnection) -> Result<(), Failure> {
    let _ = raw_sql("SELECT 1 / 0").execute(connection).await;
    Ok(())
}

#[test]
fn what_fails_is_refused_alone() {
    for variable in [DIRECT, POOLED] {
        let Some(schema) = Schema::new(variable) else { return };
        run(async {
            let database = schema.open().await;
            let mut shell = schema.shell().await;
            schema.run(&mut shell, TABLES).await;
            for (mistake, class, says) in mistakes(&schema) {
                let guilty = runs(mistake, [append(Some("s"), "guilty")]);
                let mut batch: Vec<Commit> =
                    (0..10).map(|n| order(&schema, &format!("before {n}"), 100 + n)).collect();
                batch.push(guilty);
                batch.extend((0..10).map(|n| order(&schema, &format!("after {n}"), 200 + n)));
                let mut answers = database.commit(batch).await;
                let refused = answers.remove(10);
                let Err(CommitError::Sql(failure)) = refused else { panic!("{says}: {refused:?}") };
                assert_eq!(failure.class, class, "{says}: {failure}");
                assert!(failure.to_string().contains(says), "`{says}` is not in: {failure}");
                assert!(answers.iter().all(Result::is_ok), "{says}: {answers:?}");
                assert!(!ids(&database).await.contains(&"guilty".to_owned()), "{says}");
                let count = "SELECT count(*) FROM @@.orders WHERE id <> 'half'";
                assert_eq!(schema.number(&mut shell, count).await, 20, "{says}");
                let count = "SELECT count(*) FROM @@.orders";
                assert_eq!(schema.number(&mut shell, count).await, 20, "{says}");
                schema.run(&mut shell, "DELETE FROM @@.orders").await;
                // As if there had never been an entry.
                schema.run(&mut shell, "DELETE FROM @@.log; DELETE FROM @@.streams").await;
            }
        });
    }
}

/// A batch in which a deferred constraint fails at the end is rolled back and done again in halves.
#[test]
fn what_ran_more_than_once_is_committed_once() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = schema.open().await;
        let mut shell = schema.shell().await;
        schema.run(&mut shell, TABLES).await;
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = |id: &str, total| {
            let (mut commit, runs) = (order(&schema, id, total), runs.clone());
            let counts = sql(move |_| {
                runs.fetch_add(1, Ordering::Relaxed);
                Box::pin(async { Ok(()) })
            });
            commit.writes.extend(self::runs(counts, []).writes);
            commit
        };
        assert!(database.commit(vec![order(&schema, "known", 1)]).await[0].is_ok());
        let batch = vec![counted("a", 2), order(&schema, "same total", 1), counted("b", 3)];
        let answers = database.commit(batch).await;
        let Err(CommitError::Sql(failure)) = &answers[1] else { panic!("{answers:?}") };
        assert_eq!(failure.class, Class::Permanent, "{failure}");
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
        assert!(runs.load(Ordering::Relaxed) > 2, "this is about what runs again");
        assert_eq!(ids(&database).await, ["known", "a", "b"]);
        assert_eq!(schema.number(&mut shell, "SELECT count(*) FROM @@.orders").await, 3);
    });
}

/// Conditions come first, and what is refused by SQL has not happened for those behind it.
#[test]
fn a_refused_commit_is_seen_by_none_behind_it() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = schema.open().await;
        let mut shell = schema.shell().await;
        schema.run(&mut shell, TABLES).await;
        let step = |version: u64, mut commit: Commit| {
            let expected = Expected::Exact(Version(version));
            commit.conditions.push(Condition::Stream { stream: "s".into(), expected });
            commit
        };
        let fails = sql(|_| Box::pin(async { Err(Failure::permanent("no")) }));
        let failing = runs(fails, [append(Some("s"), "b")]);
        let behind = |id: &str, total| step(1, order(&schema, id, total));
        let batch = vec![order(&schema, "a", 1), step(1, failing), behind("c", 2), behind("d", 3)];
        let answers = database.commit(batch).await;
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
        assert!(matches!(answers[1], Err(CommitError::Sql(_))), "{answers:?}");
        assert!(matches!(answers[3], Err(CommitError::Conflict { .. })), "{answers:?}");
        assert_eq!(ids(&database).await, ["a", "c"]);
        assert_eq!(schema.number(&mut shell, "SELECT count(*) FROM @@.orders").await, 2);
    });
}

/// A row of the user's table that somebody holds delays the commit whose SQL is about it, and no
/// others, those of the same stream apart.
#[test]
fn a_held_row_of_the_users_delays_only_commits_about_it() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = Arc::new(schema.open().await);
        let mut shell = schema.shell().await;
        schema.run(&mut shell, TABLES).await;
        schema.run(&mut shell, "INSERT INTO @@.orders VALUES ('held', 1)").await;
        schema.run(&mut shell, "BEGIN; UPDATE @@.orders SET total = 2").await;
        let update = statements(&schema, "UPDATE @@.orders SET total = total + 10");
        let waits = runs(update, [append(Some("s"), "waits")]);
        let waiting = tokio::spawn({
            let database = database.clone();
            async move { database.commit(vec![waits]).await }
        });
        for number in 0..100 {
            let id = format!("free {number}");
            let answers = database.commit(vec![commit([append(Some("free"), &id)])]).await;
            assert!(answers[0].is_ok(), "{answers:?}");
        }
        assert!(!waiting.is_finished());
        schema.run(&mut shell, "COMMIT").await;
        let answers = waiting.await.unwrap();
        assert!(answers[0].is_ok(), "{answers:?}");
        assert_eq!(schema.number(&mut shell, "SELECT total FROM @@.orders").await, 12);
    });
}

/// A clock that goes ten times as fast.
struct Fast;

impl Clock for Fast {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed() * 10
    }

    fn sleep(&self, delay: Duration) -> BoxFuture<'static, ()> {
        SystemClock.sleep(delay / 10)
    }
}

/// What takes too long fails by itself, and the settings it was run with are gone.
#[test]
fn what_takes_too_long_fails_alone() {
    for variable in [DIRECT, POOLED] {
        let Some(schema) = Schema::new(variable) else { return };
        run(async {
            let database = schema.open().await;
            let takes_long = || statements(&schema, "SELECT pg_sleep(60)");
            let shows = statements(
                &schema,
                "CREATE TABLE @@.shown AS SELECT current_setting('statement_timeout') AS setting",
            );
            let batch = vec![
                runs(shows, []),
                runs(takes_long(), [append(Some("s"), "guilty")]),
                runs(takes_long(), [append(Some("t"), "guilty, too")]),
                commit([append(Some("s"), "free")]),
            ];
            let answers = database.commit(batch).await;
            let Err(CommitError::Sql(failure)) = &answers[1] else { panic!("{answers:?}") };
            assert_eq!(failure.class, Class::Transient, "{failure}");
            // It is to wait for its turn, or has had it: the batch may have been parted before.
            let is_apart = match &answers[2] {
                Err(CommitError::Sql(failure)) => failure.class == Class::Transient,
                answer => matches!(answer, Err(CommitError::Held(_))),
            };
            assert!(is_apart, "{answers:?}");
            assert!(answers[0].is_ok() && answers[3].is_ok(), "{answers:?}");
            assert_eq!(ids(&database).await, ["free"]);
        });
    }
}

/// Each is quick enough, all of them are not: those that are left are tried by themselves.
#[test]
fn what_takes_too_long_together_is_done_apart() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = Postgres::connect(&schema.url, Arc::new(Fast)).await.unwrap();
        let takes_a_while = || statements(&schema, "SELECT pg_sleep(0.4)");
        let entry = |number: u32| [append(None, &number.to_string())];
        let mut batch: Vec<_> = (0..14).map(|n| runs(takes_a_while(), entry(n))).collect();
        let mut tries = 0;
        while !batch.is_empty() {
            let answers = database.commit(std::mem::take(&mut batch)).await;
            for answer in answers {
                match answer {
                    Ok(_) => {}
                    Err(CommitError::Held(commit)) => batch.push(commit),
                    Err(error) => panic!("{error}"),
                }
            }
            tries += 1;
        }
        assert_eq!(database.head().await.unwrap().last, Position(14));
        assert!(tries > 1);
        let effects = (0..10).fold(Effects::none(), |all, _| all.and(takes_a_while()));
        let answer = database.commit(vec![runs(effects, entry(99))]).await.remove(0);
        let Err(CommitError::Sql(failure)) = answer else { panic!("{answer:?}") };
        assert_eq!(failure.class, Class::Transient, "{failure}");
    });
}

#[test]
fn sql_for_another_database_is_refused_by_name() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = schema.open().await;
        let other = Effects::one(Effect::Sql(Statement::new("SQLite", ())));
        let answers = database.commit(vec![runs(other, []), commit([append(None, "a")])]).await;
        let Err(CommitError::Rejected(error)) = &answers[0] else { panic!("{answers:?}") };
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(
            error.to_string().contains("for SQLite, and the database is PostgreSQL"),
            "{error}"
        );
        assert!(answers[1].is_ok());
    });
}
