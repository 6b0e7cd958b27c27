//! The suites that every database passes, each handle with its own connections as another process
//! would have.

#![allow(clippy::unwrap_used)] // Helpers of tests may panic as tests do.

use sillage_core::Database;
use sillage_sqlite::Sqlite;
use sillage_testkit::{
    ManualClock, SystemClock,
    conformance::{ConsumerFixture, DatabaseFixture},
};
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

/// On the machine's time.
struct OnTime(TempDir);

impl OnTime {
    fn new() -> Self {
        OnTime(tempfile::tempdir().unwrap())
    }
}

impl ConsumerFixture for OnTime {
    async fn database(&self) -> Arc<dyn Database> {
        let file = self.0.path().join("test.db");
        Arc::new(Sqlite::open(file, Arc::new(SystemClock)).unwrap())
    }
}

mod broker {
    use super::OnTime;
    use sillage_testkit::conformance::broker::Embedded;
    sillage_testkit::broker_conformance!(Embedded(OnTime::new()));
}

mod consumer {
    use super::OnTime;
    sillage_testkit::consumer_conformance!(OnTime::new());
}
