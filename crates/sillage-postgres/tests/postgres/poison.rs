//! What may not harm others: a commit that cannot be, and a transaction that holds a row.

use crate::support::{DIRECT, POOLED, Schema, append, begun, commit, message, run};
use bytes::Bytes;
use futures_util::future::join_all;
use sillage_core::{
    Clock, Commit, CommitError, Condition, Database, Decision, Delivered, Expected, Filter,
    Message, Position, Version, Write,
};
use sillage_testkit::SystemClock;
use std::{sync::Arc, time::Duration};

/// Each of these makes a batch fail somewhere; only the guilty commit is refused, and what is merely
/// odd is stored as it is.
#[test]
fn a_poison_in_a_batch_fails_alone() {
    for variable in [DIRECT, POOLED] {
        let Some(schema) = Schema::new(variable) else { return };
        run(async {
            let database = schema.open().await;
            let kept = commit([append(Some("s"), "there before")]);
            assert!(database.commit(vec![kept]).await[0].is_ok());
            for (number, (poison, is_odd)) in poisons().into_iter().enumerate() {
                let neighbour = |side: &str| {
                    let id = format!("{side} {number}");
                    let condition = Condition::Stream {
                        stream: id.as_str().into(),
                        expected: Expected::NoStream,
                    };
                    Commit { conditions: vec![condition], writes: vec![append(Some(&id), &id)] }
                };
                let mut batch: Vec<Commit> =
                    (0..20).map(|n| neighbour(&format!("before {n}"))).collect();
                batch.push(poison);
                batch.extend((0..20).map(|n| neighbour(&format!("after {n}"))));
                let answers = database.commit(batch).await;
                for (place, answer) in answers.iter().enumerate() {
                    let refused = place == 20 && !is_odd;
                    assert_eq!(answer.is_err(), refused, "poison {number}: {place}: {answer:?}");
                }
                assert!(
                    !matches!(&answers[20], Err(CommitError::Failed(_))),
                    "poison {number} would be tried for ever: {:?}",
                    answers[20]
                );
            }
        });
    }
}

/// With whether it is odd only.
fn poisons() -> Vec<(Commit, bool)> {
    let payload = |payload: &'static [u8]| {
        let id = String::from_utf8_lossy(payload);
        let message =
            Message { payload: Bytes::from_static(payload), ..message(&id.replace('\0', "0")) };
        commit([Write::Append { stream: None, message: message.into() }])
    };
    let entry = |id: &str| commit([append(Some("s"), id)]);
    let put = |id: &str, body: &'static [u8]| {
        let body = Bytes::from_static(body);
        commit([Write::Put { collection: "c".into(), id: id.into(), sort: None, body }])
    };
    vec![
        (payload(br#"{"nul":"\u0000"}"#), true),
        (payload(b"\0"), true),
        (payload(b"1e400000"), true),
        (put("json", br#"{"nul":"\u0000","large":1e400000}"#), true),
        (put("no text", &[0xff, 0xfe, 0]), true),
        (entry(&"x".repeat(12_000)), false),
        (entry("a\0b"), false),
        (put("a\0b", b"x"), false),
        (entry("there before"), false),
        (commit([append(Some("s"), "twice"), append(Some("t"), "twice")]), false),
    ]
}

/// A user's transaction that holds rows, also one that it has only just made, delays commits about
/// them and no others; they are done when it ends.
#[test]
fn a_held_row_delays_only_commits_about_it() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = Arc::new(schema.open().await);
        let before = commit([append(Some("held"), "1"), append(Some("free"), "2")]);
        assert!(database.commit(vec![before]).await[0].is_ok());
        let mut shell = schema.shell().await;
        let hold = "BEGIN; SELECT version FROM @@.streams WHERE name = 'held' FOR UPDATE; \
                    INSERT INTO @@.streams VALUES ('new', 0)";
        schema.run(&mut shell, hold).await;

        let waiting = ["held", "new"].map(|stream| {
            let database = database.clone();
            let waits = commit([append(Some(stream), &format!("waits for {stream}"))]);
            tokio::spawn(async move { database.commit(vec![waits]).await })
        });
        // Commits of 64 callers go on, one after the other, while the row is held.
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..64 {
            let database = database.clone();
            callers.spawn(async move {
                for number in 0..10 {
                    let id = format!("{caller} {number}");
                    let answers = database.commit(vec![commit([append(Some("free"), &id)])]).await;
                    assert!(answers[0].is_ok(), "{answers:?}");
                }
            });
        }
        callers.join_all().await;
        // And so do those of a batch in which somebody waits, but for what comes behind him.
        let read = database.stream("held", Version(0), 10).await.unwrap();
        assert_eq!(read.len(), 1, "nobody has waited for the row that is held");
        assert!(waiting.iter().all(|waits| !waits.is_finished()));
        schema.run(&mut shell, "ROLLBACK").await;
        for waits in waiting {
            let answers = waits.await.unwrap();
            assert!(answers[0].is_ok(), "{answers:?}");
        }
    });
}

/// A row that somebody is changing is known to be there: nobody waits in order to make it, and the others
/// are committed together.
#[test]
fn a_row_that_is_being_changed_splits_no_batch() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = schema.open().await;
        let put = |id: &str| Write::Put {
            collection: "c".into(),
            id: id.into(),
            sort: None,
            body: Bytes::from_static(b"{}"),
        };
        let delivery = Delivered { consumer: "c".into(), source: "test".into(), id: "d".into() };
        let decide =
            Write::Decide { delivery: delivery.clone(), decision: Decision::Done, until: None };
        let before = commit([append(Some("held"), "before"), put("held"), decide]);
        assert!(database.commit(vec![before]).await[0].is_ok());
        let mut shell = schema.shell().await;
        let change = "BEGIN; UPDATE @@.streams SET version = version; \
                      UPDATE @@.documents SET version = version; UPDATE @@.inbox SET at = at";
        schema.run(&mut shell, change).await;
        let free = |id: &str| commit([append(Some(id), id)]);
        let decided = Condition::Decided(delivery, Decision::Done);
        let batch = vec![
            free("a"),
            free("b"),
            commit([append(Some("held"), "held")]),
            commit([put("held")]),
            Commit { conditions: vec![decided], writes: vec![put("x")] },
            free("c"),
        ];
        let writes = database.durable_writes();
        let answers = database.commit(batch).await;
        let batches = i64::try_from(database.durable_writes() - writes).unwrap();
        for (place, answer) in answers.iter().enumerate() {
            let is_held = matches!(answer, Err(CommitError::Held(_)));
            assert_eq!(is_held, (2..=4).contains(&place), "{place}: {answer:?}");
        }
        let transactions = "SELECT count(DISTINCT xmin::text) FROM @@.log WHERE id <> 'before'";
        assert_eq!(schema.number(&mut schema.shell().await, transactions).await, batches);
        schema.run(&mut shell, "ROLLBACK").await;
    });
}

/// A document that somebody writes while a commit that removes it is on its way goes all the same.
#[test]
fn what_is_written_meanwhile_is_removed() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = Arc::new(schema.open().await);
        let (mut holds, mut writes) = (schema.shell().await, schema.shell().await);
        let holder = schema.number(&mut holds, "SELECT pg_backend_pid()::bigint").await;
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE {holder} = ANY (pg_blocking_pids(pid))"
        );
        for round in 0..5 {
            let put = "INSERT INTO @@.documents VALUES ('c', 'x', 1, NULL, '')";
            schema.run(&mut writes, put).await;
            let stream = format!("s{round}");
            let hold = format!("BEGIN; INSERT INTO @@.streams VALUES ('{stream}', 0)");
            schema.run(&mut holds, &hold).await;
            let removes = Commit {
                conditions: vec![Condition::Stream {
                    stream: stream.as_str().into(),
                    expected: Expected::NoStream,
                }],
                writes: vec![
                    append(Some(&stream), &stream),
                    Write::Delete { collection: "c".into(), id: "x".into() },
                ],
            };
            let removing = tokio::spawn({
                let database = database.clone();
                async move { database.commit(vec![removes]).await }
            });
            while schema.number(&mut writes, &waiting).await == 0 {}
            schema.run(&mut writes, "UPDATE @@.documents SET version = 2").await;
            schema.run(&mut holds, "ROLLBACK").await;
            let answers = removing.await.unwrap();
            assert!(answers[0].is_ok(), "{answers:?}");
            assert_eq!(database.get("c", &["x"]).await.unwrap(), [None]);
        }
    });
}

/// Commits that wait for a row are done in the order in which they were handed over, and what shares
/// a row with one of them does not overtake it.
#[test]
fn what_waits_for_a_row_keeps_its_order() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = Arc::new(schema.open().await);
        assert!(database.commit(vec![commit([append(Some("held"), "0")])]).await[0].is_ok());
        let mut shell = schema.shell().await;
        let hold = "BEGIN; SELECT version FROM @@.streams WHERE name = 'held' FOR UPDATE";
        schema.run(&mut shell, hold).await;
        let step = |stream: &str, version: u64| {
            let expected = Expected::Exact(Version(version));
            let condition = Condition::Stream { stream: stream.into(), expected };
            let id = format!("{stream} {version}");
            Commit { conditions: vec![condition], writes: vec![append(Some(stream), &id)] }
        };
        // The second is about both streams, so the third, about the other one, stays behind it.
        let mut both = step("held", 2);
        both.writes.push(append(Some("other"), "other 0"));
        let batch = vec![step("held", 1), both, step("other", 1)];
        // Of one task, so that they are handed over in this order.
        let waiting = tokio::spawn({
            let database = database.clone();
            async move { join_all(batch.into_iter().map(|c| database.commit(vec![c]))).await }
        });
        // Beside them.
        let behind = vec![commit([append(Some("free"), "free")]), step("held", 3)];
        let answers = database.commit(behind).await;
        assert!(answers[0].is_ok(), "{answers:?}");
        // In company it does not wait.
        let Err(CommitError::Held(again)) = &answers[1] else { panic!("{answers:?}") };
        assert_eq!(again.conditions, step("held", 3).conditions);
        schema.run(&mut shell, "COMMIT").await;
        let answers: Vec<_> = waiting.await.unwrap().into_iter().flatten().collect();
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        let page = database.log(Position(0), &Filter::default(), 10).await.unwrap();
        let ids: Vec<_> = page.entries.iter().map(|entry| entry.id.to_string()).collect();
        assert_eq!(ids, ["0", "free", "held 1", "held 2", "other 0", "other 1"]);
    });
}

/// A transaction that holds back the stable position stops readers, and no writers; nobody who waits
/// for changes is woken in vain all the time.
#[test]
fn readers_wait_for_what_could_still_appear() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = schema.open().await;
        let mut transaction = begun(&database).await;
        let early = commit([append(None, "early")]);
        database.write(&mut transaction, &early).await.unwrap();
        let late = database.commit(vec![commit([append(None, "late")])]).await;
        assert!(late[0].is_ok(), "{late:?}");
        let head = database.head().await.unwrap();
        assert!(head.stable < Position(1) && head.last >= Position(2), "{head:?}");
        let page = database.log(Position(0), &Filter::default(), 10).await.unwrap();
        assert_eq!((page.entries.len(), page.through), (0, head.stable));
        let woken = tokio::select! {
            () = database.changed(page.through, &Filter::default()) => true,
            () = SystemClock.sleep(Duration::from_millis(300)) => false,
        };
        assert!(!woken, "there is nothing to be read yet");
        let empty = sillage_core::Transaction::commit(transaction, Commit::default());
        empty.await.unwrap();
        database.changed(page.through, &Filter::default()).await;
        let page = database.log(page.through, &Filter::default(), 10).await.unwrap();
        let ids: Vec<_> = page.entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["early", "late"]);
    });
}

/// Who waits is not woken by what others wait for, whichever process has appended it.
#[test]
fn readers_are_woken_by_what_is_theirs() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let (database, other) = (schema.open().await, schema.open().await);
        let named = |name: &str| {
            let message = Message { name: name.into(), ..message(name) };
            vec![commit([Write::Append { stream: None, message: message.into() }])]
        };
        let head = database.head().await.unwrap().stable;
        let filter = Filter { names: vec!["theirs".into()], ..Filter::default() };
        let mut theirs = database.changed(head, &filter);
        for (committing, name) in [(&database, "first"), (&other, "second")] {
            let head = database.head().await.unwrap().stable;
            let any = database.changed(head, &Filter::default());
            let committed = async { committing.commit(named(name)).await };
            let (answers, ()) = tokio::join!(committed, any);
            assert!(answers[0].is_ok(), "{answers:?}");
            let woken = tokio::select! {
                biased;
                () = &mut theirs => true,
                () = std::future::ready(()) => false,
            };
            assert!(!woken, "woken by `{name}`");
        }
        let answers = other.commit(named("theirs")).await;
        assert!(answers[0].is_ok(), "{answers:?}");
        theirs.await;
    });
}

/// What a user's transaction writes is committed with the commit it is given, or not at all.
#[test]
fn a_transaction_of_the_users_is_committed_with_its_commit() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = schema.open().await;
        let mut shell = schema.shell().await;
        schema.run(&mut shell, "CREATE TABLE @@.own (number bigint)").await;
        let insert = "INSERT INTO @@.own VALUES (1)";
        let expected = |expected| Condition::Stream { stream: "s".into(), expected };
        for (expects, id, rows) in [(Expected::NoStream, "1", 1), (Expected::NoStream, "2", 1)] {
            let mut transaction = begun(&database).await;
            schema.run(&mut transaction, insert).await;
            let conditions = vec![expected(expects)];
            let commit = Commit { conditions, writes: vec![append(Some("s"), id)] };
            let answer = sillage_core::Transaction::commit(transaction, commit).await;
            assert_eq!(answer.is_ok(), id == "1", "{answer:?}");
            let count = schema.number(&mut shell, "SELECT count(*) FROM @@.own").await;
            assert_eq!(count, rows, "after {id}");
        }
        let mut transaction = begun(&database).await;
        schema.run(&mut transaction, insert).await;
        drop(transaction);
        let page = database.log(Position(0), &Filter::default(), 10).await.unwrap();
        assert_eq!(page.entries.len(), 1);
        assert_eq!(schema.number(&mut shell, "SELECT count(*) FROM @@.own").await, 1);
    });
}
