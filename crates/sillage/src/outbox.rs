//! The outbox by itself: a service that has transactions of its own publishes from within them.
//!
//! ```no_run
//! # use sillage::prelude::*;
//! # use serde::{Serialize, Deserialize};
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "customer.created")]
//! # struct CustomerCreated { #[event(key)] id: String }
//! # async fn doc(pool: sillage::postgres::sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! use sillage::postgres::{Outbox, Postgres, sqlx::query};
//! use std::sync::Arc;
//!
//! let clock = Arc::new(sillage::SystemClock);
//! let database = Arc::new(Postgres::connect("postgres://localhost/crm", clock).await?);
//! let outbox = Outbox::new(database.clone(), "crm");
//! // What publishes: to the broker that it is given, or to whoever reads this log.
//! let app = App::new(database).service(Service::new("crm")).start().await?;
//!
//! let mut tx = pool.begin().await?;
//! query("INSERT INTO customers (id) VALUES ('c-1')").execute(&mut *tx).await?;
//! outbox.write(&mut tx, publish(CustomerCreated { id: "c-1".into() })).await?;
//! tx.commit().await?;
//! # Ok(()) }
//! ```
//!
//! *Guarantees.* What was written is published if and only if the transaction is committed, and the
//! savepoint around the call was not rolled back; in the order of each key. Readers skip nothing,
//! however long the transaction takes: they wait for it.

use crate::{clock::SystemClock, runtime::assemble::Origin};
use sillage_core::{Clock, CommitError, Effects, Error, Text};
use sillage_postgres::{Postgres, sqlx::PgConnection};
use std::{fmt, sync::Arc};

/// Writes effects within transactions of the caller's own. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    database: Arc<Postgres>,
    service: Text,
    clock: Arc<dyn Clock>,
}

impl Outbox {
    /// For the service of this name, which is the source of what is published and the prefix of what
    /// is stored. An [`App`](crate::App) with that service on the same database publishes it, in this
    /// process or another.
    pub fn new(database: Arc<Postgres>, service: &'static str) -> Self {
        Outbox { database, service: service.into(), clock: Arc::new(SystemClock) }
    }

    /// Another clock for the times of messages, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Writes effects within a transaction, on any connection to the same database, to be committed
    /// and seen with it. The transaction may go on, and write more.
    ///
    /// It should be READ COMMITTED, and short from here on: until it ends, readers of the log wait at
    /// what it has written, as do commits about the same streams and documents. It is made durable
    /// whatever `synchronous_commit` the session has. To be published at once, and not within a
    /// second, call [`Outbox::committed`] after the commit.
    ///
    /// # Errors
    /// As of [`ServiceHandle::commit`](crate::ServiceHandle::commit), and `Rejected` where there is no
    /// transaction. Then the transaction, or the savepoint around this call, is to be rolled back.
    pub async fn write(
        &self,
        tx: &mut PgConnection,
        effects: impl Into<Effects>,
    ) -> Result<(), CommitError> {
        let origin = Origin { service: &self.service, now: self.clock.now(), cause: None };
        let commit = origin.commit(effects.into(), vec![]);
        let commit = commit
            .map_err(|failure| CommitError::Rejected(Error::invalid(failure.source.to_string())))?;
        self.database.write(tx, &commit).await.map(drop)
    }

    /// A transaction in which something was written has been committed: readers look now, in all
    /// processes. Without it they find it by themselves, within a second.
    pub fn committed(&self) {
        self.database.committed();
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("service", &self.service).finish_non_exhaustive()
    }
}
