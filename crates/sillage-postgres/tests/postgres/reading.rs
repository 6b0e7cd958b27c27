//! The connections that are read on.

use crate::support::{DIRECT, Schema, append, commit, message, run};
use bytes::Bytes;
use futures_util::future::join_all;
use sillage_core::{Clock as _, Database, Filter, Message, Position, Version, Write};
use sillage_postgres::Postgres;
use sillage_testkit::SystemClock;
use std::{sync::Arc, time::Duration};

/// Commits, held commits, leases and the end of the log have theirs, as many as these.
const OTHERS: i64 = 6;

/// As many as the URL says, however many read at once; and those that the server has closed are replaced.
#[test]
fn reads_share_a_few_connections_and_survive_their_end() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let url = format!("{}&connections=3&application_name={}", schema.url, schema.name);
        let database = Postgres::connect(&url, Arc::new(SystemClock)).await.unwrap();
        assert!(database.commit(vec![commit([append(Some("s"), "one")])]).await[0].is_ok());
        let mut shell = schema.shell().await;
        for _ in 0..3 {
            let reads = (0..100).map(|_| database.stream("s", Version(0), 10));
            for entries in join_all(reads).await {
                assert_eq!(entries.unwrap().len(), 1);
            }
            let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = '@@'";
            let count = schema.number(&mut shell, count).await;
            assert!(count <= 3 + OTHERS, "{count} connections");
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE \
                       application_name = '@@'";
            assert!(schema.number(&mut shell, end).await > 0);
            // Who has rested is asked.
            SystemClock.sleep(Duration::from_millis(400)).await;
        }
    });
}

/// Pages of large entries are short, whatever is asked for, and nobody is left to sleep beside them.
#[test]
fn large_entries_come_a_few_at_a_time() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let (writing, database) = (schema.open().await, schema.open().await);
        let named = Filter { names: vec!["last".into()], ..Filter::default() };
        let last_comes = database.changed(Position(0), &named);
        let payload = Bytes::from(vec![b'x'; 800 << 10]);
        for number in 0..40 {
            let name = if number == 39 { "last" } else { "large" };
            let large = Message {
                name: name.into(),
                payload: payload.clone(),
                ..message(&number.to_string())
            };
            let append = Write::Append { stream: None, message: large.into() };
            assert!(writing.commit(vec![commit([append])]).await[0].is_ok());
        }
        last_comes.await;
        for (filter, count) in [(Filter::default(), 40), (named, 1), (Filter::default(), 40)] {
            let (mut at, mut found, mut pages) = (Position(0), 0, 0);
            while at < Position(40) {
                let page = database.log(at, &filter, 2_000).await.unwrap();
                assert!(page.entries.len() <= 12, "{} large entries a page", page.entries.len());
                assert!(page.through > at);
                found += page.entries.len();
                pages += 1;
                at = page.through;
            }
            assert_eq!(found, count);
            assert!(pages > 3 || count == 1, "{pages} pages");
        }
    });
}
