//! The suite that every database passes, each handle with its own connections as another process
//! would have.

#![allow(clippy::unwrap_used)] // Helpers of tests may panic as tests do.

use sillage_core::Database;
use sillage_sqlite::Sqlite;
use sillage_testkit::{ManualClock, conformance::DatabaseFixture};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;

struct Fixture {
    clock: Arc<ManualClock>,
    folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Fixture { clock: Arc::default(), folder: tempfile::tempdir().unwrap() }
    }
}

impl DatabaseFixture for Fixture {
    async fn open(&self) -> Arc<dyn Database> {
        let file = self.folder.path().join("test.db");
        Arc::new(Sqlite::open(file, self.clock.clone()).unwrap())
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

sillage_testkit::database_conformance!(Fixture::new());
