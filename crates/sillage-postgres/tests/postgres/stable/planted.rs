//! A writer with a bug: it remembers by itself that it holds the lock, which a savepoint that is
//! rolled back has released.

use super::Stage;
use sillage_core::Clock;
use sillage_testkit::SystemClock;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

pub(super) struct Forgetful;

impl Forgetful {
    pub(super) async fn write(stage: Arc<Stage>) {
        let mut shell = stage.schema.shell().await;
        let mut number = 0;
        while !stage.is_enough() {
            number += 1;
            stage.tried.fetch_add(1, Ordering::Relaxed);
            let append = |id: &str| {
                format!(
                    "INSERT INTO @@.log (source, id, name, version, time, correlation_id, payload) \
                     VALUES ('forgetful', '{id} {number}', 'test.happened', 1, 0, 'flow', '')"
                )
            };
            let lock = "SELECT pg_advisory_xact_lock_shared('@@.log'::regclass::oid::bigint::bit(32)::int, \
                        coalesce(pg_sequence_last_value('@@.log_position'), 0)::bit(32)::int)";
            let first = format!("BEGIN; SAVEPOINT s; {lock}; {}", append("taken back"));
            stage.schema.run(&mut shell, &first).await;
            stage.schema.run(&mut shell, "ROLLBACK TO SAVEPOINT s").await;
            // The lock is gone; it does not know.
            stage.schema.run(&mut shell, &append("kept")).await;
            SystemClock.sleep(Duration::from_millis(3)).await;
            stage.schema.run(&mut shell, "COMMIT").await;
        }
    }
}
