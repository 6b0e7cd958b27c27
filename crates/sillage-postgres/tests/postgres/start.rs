//! What is looked at before a database is used: each thing that is wrong is named.

use crate::{
    absent::unless,
    support::{DIRECT, Schema, append, commit, run},
};
use sillage_core::{Clock, CommitError, Database, ErrorKind, Filter, Position, Timestamp, Write};
use sillage_postgres::Postgres;
use sillage_testkit::{ManualClock, SystemClock, servers};
use std::{sync::Arc, time::Duration};

/// Does this to a database that was in use, and tries to open it again.
fn refused(harm: &str, kind: ErrorKind, said: &str) {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        drop(schema.open().await);
        let mut shell = schema.shell().await;
        schema.run(&mut shell, harm).await;
        let error = schema.refusal().await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains(&schema.name), "{error}");
    });
}

#[test]
fn a_newer_schema_is_refused() {
    let harm = "UPDATE @@.meta SET value = '99' WHERE key = 'schema'";
    refused(harm, ErrorKind::NewerSchema, "schema version 99");
}

/// With what is in it, step by step.
#[test]
fn an_older_schema_is_brought_up_to_date() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = schema.open().await;
        assert!(database.commit(vec![commit([append(None, "before")])]).await[0].is_ok());
        drop(database);
        let mut shell = schema.shell().await;
        let back = "DROP FUNCTION @@.let_go CASCADE; DROP VIEW @@.sagas; \
                    UPDATE @@.meta SET value = '1' WHERE key = 'schema'";
        schema.run(&mut shell, back).await;
        let database = schema.open().await;
        assert!(database.commit(vec![unless("absent", "after")]).await[0].is_ok());
        let page = database.log(Position(0), &Filter::default(), 10).await.unwrap();
        let ids: Vec<_> = page.entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["before", "after"]);
        assert_eq!(schema.number(&mut shell, "SELECT count(*) FROM @@.sagas").await, 0);
    });
}

#[test]
fn a_sequence_that_keeps_numbers_for_later_is_refused() {
    let harm = "ALTER SEQUENCE @@.log_position CACHE 20";
    refused(harm, ErrorKind::Unsupported, "CACHE 20");
}

#[test]
fn a_checkpoint_above_the_end_of_the_log_is_refused_by_name() {
    let harm = r#"INSERT INTO @@.documents VALUES
        ('checkpoints', 'order/orders@1', 1, NULL, '{"position":7}')"#;
    refused(harm, ErrorKind::Corrupt, "`order/orders@1` is at 7");
}

/// Others may write while a process starts.
#[test]
fn a_checkpoint_that_moves_meanwhile_is_not_above_the_end() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        drop(schema.open().await);
        let mut shell = schema.shell().await;
        schema.run(&mut shell, "BEGIN; LOCK TABLE @@.documents IN ACCESS EXCLUSIVE MODE").await;
        let starting = tokio::spawn({
            let url = schema.url.clone();
            async move { Postgres::connect(&url, Arc::new(SystemClock)).await }
        });
        schema.until_waiting(&mut shell, "checkpoints").await;
        let moves = r#"SELECT nextval('@@.log_position'); INSERT INTO @@.documents VALUES
            ('checkpoints', 'order/orders@1', 1, NULL, '{"position":1}'); COMMIT"#;
        schema.run(&mut shell, moves).await;
        let started = starting.await.unwrap();
        assert!(started.is_ok(), "{started:?}");
    });
}

#[test]
fn a_reader_beyond_the_end_of_the_log_is_told_that_it_was_restored() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = schema.open().await;
        let error = database.log(Position(5), &Filter::default(), 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("restored"), "{error}");
    });
}

#[test]
fn commits_that_a_crash_could_lose_are_refused() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let role = format!("role_{}", schema.name);
        let mut shell = schema.shell().await;
        let make = format!(
            "CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'secret'; \
             ALTER ROLE {role} SET synchronous_commit = off"
        );
        schema.run(&mut shell, &make).await;
        let url = schema.url.replace("postgres:secret@", &format!("{role}:secret@"));
        let error = Postgres::connect(&url, Arc::new(SystemClock)).await.unwrap_err();
        schema.run(&mut shell, &format!("DROP ROLE {role}")).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("`synchronous_commit` is off"), "{error}");
    });
}

#[test]
fn a_user_without_rights_is_told_which_are_missing() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let role = format!("role_{}", schema.name);
        let mut shell = schema.shell().await;
        schema.run(&mut shell, &format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await;
        let url = schema.url.replace("postgres:secret@", &format!("{role}:secret@"));
        let connect = async || Postgres::connect(&url, Arc::new(SystemClock)).await.unwrap_err();
        let making = connect().await;
        drop(schema.open().await);
        let grant = format!(
            "GRANT USAGE ON SCHEMA @@ TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA @@ TO {role}"
        );
        schema.run(&mut shell, &grant).await;
        let writing = connect().await;
        schema.run(&mut shell, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
        assert_eq!(making.kind(), ErrorKind::Denied, "{making}");
        assert!(making.to_string().contains("grant it CREATE"), "{making}");
        assert_eq!(writing.kind(), ErrorKind::Denied, "{writing}");
        assert!(writing.to_string().contains("lacks INSERT on"), "{writing}");
    });
}

#[test]
fn a_clock_that_is_wrong_is_named() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let past = ManualClock::new(Timestamp::from_micros(0));
        let error = Postgres::connect(&schema.url, Arc::new(past)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("this machine's 1970-01-01"), "{error}");
    });
}

#[test]
fn what_is_not_there_is_named() {
    let Some(url) = servers::url(DIRECT) else { return };
    run(async {
        let connect =
            async |url: &str| Postgres::connect(url, Arc::new(SystemClock)).await.unwrap_err();
        let (server, _) = url.rsplit_once('/').unwrap();
        for (url, kind) in [
            (format!("{server}/nowhere"), ErrorKind::NotFound),
            (url.replace("secret", "wrong"), ErrorKind::Denied),
            ("postgres://postgres@127.0.0.1:1/x".to_owned(), ErrorKind::Unavailable),
            (format!("{url}?schema=never_made&create=no"), ErrorKind::NotFound),
        ] {
            let error = connect(&url).await;
            assert_eq!(error.kind(), kind, "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    });
}

/// Several processes that start at once make one schema; a restored database is another one.
#[test]
fn many_that_start_at_once_make_one_schema() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let (a, b, c, d) = tokio::join!(schema.open(), schema.open(), schema.open(), schema.open());
        let first = a.head().await.unwrap().incarnation;
        for database in [&b, &c, &d] {
            assert_eq!(database.head().await.unwrap().incarnation, first);
        }
        let mut shell = schema.shell().await;
        schema.run(&mut shell, "UPDATE @@.meta SET value = 'elsewhere' WHERE key = 'origin'").await;
        assert_ne!(schema.open().await.head().await.unwrap().incarnation, first);
    });
}

/// Views for people, also where a body is no JSON.
#[test]
fn views_show_what_people_look_for() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let database = schema.open().await;
        let put = |collection: &str, id: &str, body: &'static str| Write::Put {
            collection: collection.into(),
            id: id.into(),
            sort: None,
            body: body.into(),
        };
        let saga = r#"{"process":"order/checkout","version":2,"key":"o-1","status":"stuck",
            "correlation_id":"flow","started":"2026-01-01T00:00:00.000000Z",
            "updated":"2026-01-01T00:15:00.000000Z","memory":{"version":2,"why":"not in time",
            "state":{},"history":[{"step":"reserve"},{"step":"ship","progress":"stuck",
            "because":"saga.deadline"}],"data":{"total":5}}}"#;
        let all = [
            append(None, "1"),
            put("sagas", "order/checkout/o-1", saga),
            put("sagas", "broken", "no json"),
            put("checkpoints", "order/orders@1", r#"{"position":1}"#),
            put("parked_keys", "k", r#"{"consumer":"a/b","dead":true,"attempts":3}"#),
            put("parked_keys", "alive", r#"{"consumer":"a/b","dead":false}"#),
            put("parked_keys", "broken", r#"{"nul":"\u0000"}"#),
            put("timers", "t", r#"{"token":"x","message":{"type":"order.due"}}"#),
            put("timers", "broken", "no json"),
        ];
        assert!(database.commit(vec![commit(all)]).await[0].is_ok());
        let mut shell = schema.shell().await;
        for (count, expected) in [
            ("SELECT count(*) FROM @@.entries WHERE payload = '{}'", 1),
            ("SELECT position FROM @@.checkpoints WHERE reader = 'order/orders@1'", 1),
            ("SELECT count(*) FROM @@.dead_letters WHERE consumer = 'a/b' AND attempts = '3'", 1),
            ("SELECT count(*) FROM @@.dead_letters", 1),
            ("SELECT count(*) FROM @@.parked_keys", 3),
            ("SELECT count(*) FROM @@.timers WHERE name = 'order.due' AND token = 'x'", 1),
            ("SELECT count(*) FROM @@.timers", 2),
            (
                "SELECT count(*) FROM @@.sagas WHERE saga = 'order/checkout' AND status = 'stuck' \
                 AND (definition, key, why) = (2, 'o-1', 'not in time') AND memory ->> 'total' = '5' \
                 AND (step, progress, because) = ('ship', 'stuck', 'saga.deadline') \
                 AND started < updated AND correlation_id = 'flow'",
                1,
            ),
            ("SELECT count(*) FROM @@.sagas", 2),
        ] {
            assert_eq!(schema.number(&mut shell, count).await, expected, "{count}");
        }
    });
}

/// A server that is away fails commits and reads, acknowledges nothing, and needs nobody when it is
/// back: here all connections are ended at once, again and again.
#[test]
fn connections_that_end_are_made_again() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let url = format!("{}&application_name={}", schema.url, schema.name);
        let database = Postgres::connect(&url, Arc::new(SystemClock)).await.unwrap();
        let mut shell = schema.shell().await;
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = '@@'";
        for round in 0..5 {
            schema.number(&mut shell, end).await;
            let mut tries = 0;
            let id = round.to_string();
            while let Err(error) = &database.commit(vec![commit([append(Some("s"), &id)])]).await[0]
            {
                if matches!(error, CommitError::AlreadyHandled) {
                    break; // its first try has landed
                }
                tries += 1;
                assert!(tries < 20, "it does not recover");
                SystemClock.sleep(Duration::from_millis(20)).await;
            }
            while database.head().await.is_err() {
                tries += 1;
                assert!(tries < 40, "reads do not recover");
            }
        }
        assert_eq!(database.head().await.unwrap().last, Position(5));
    });
}
