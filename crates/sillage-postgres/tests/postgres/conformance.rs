//! The suites that every database passes, directly and through PgBouncer.

use crate::support::{DIRECT, POOLED, Schema};
use sillage_core::{Clock, Database};
use sillage_testkit::{
    SystemClock,
    conformance::{ConsumerFixture, DatabaseFixture},
};
use std::{sync::Arc, time::Duration};

/// A database of one's own; or the test is left out.
macro_rules! schema {
    ($variable:expr) => {
        match Schema::new($variable) {
            Some(schema) => schema,
            None => return,
        }
    };
}

impl DatabaseFixture for Schema {
    async fn open(&self) -> Arc<dyn Database> {
        Arc::new(Schema::open(self).await)
    }

    async fn pass(&self, time: Duration) {
        SystemClock.sleep(time).await;
    }
}

impl ConsumerFixture for Schema {
    async fn database(&self) -> Arc<dyn Database> {
        Arc::new(Schema::open(self).await)
    }
}

mod direct {
    use super::{DIRECT, Schema};
    sillage_testkit::database_conformance!(schema!(DIRECT));
}

mod pooled {
    use super::{POOLED, Schema};
    sillage_testkit::database_conformance!(schema!(POOLED));
}

mod broker {
    use super::{DIRECT, Schema};
    use sillage_testkit::conformance::broker::Embedded;
    sillage_testkit::broker_conformance!(Embedded(schema!(DIRECT)));
}

mod consumer {
    use super::{DIRECT, Schema};
    sillage_testkit::consumer_conformance!(schema!(DIRECT));
}
