//! The connections that are read on.

use crate::support::{DIRECT, Schema, append, commit, run};
use futures_util::future::join_all;
use sillage_core::{Clock as _, Database, Version};
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
