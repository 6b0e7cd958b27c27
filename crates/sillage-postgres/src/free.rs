//! Connections that are read on, and leases taken, one after the other.
//!
//! They are made by a pool and taken out of it: a pool asks each whether it is still there when it is given
//! back, which is a second round trip for every read, and waits for a server that has vanished. Here only one that
//! has rested is asked.

use crate::link::Way;
use sqlx::{Connection as _, PgConnection, PgPool, pool::PoolConnection};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Who rested for longer is asked: the server may have been restarted.
pub(crate) const RESTED: Duration = Duration::from_millis(200);

pub(crate) struct Free {
    pool: PgPool,
    /// Each with when it was given back, the last one last.
    connections: Mutex<Vec<(PgConnection, Duration)>>,
    permits: Semaphore,
    patience: Duration,
}

/// A connection that is closed unless it is given back.
pub(crate) struct Taken<'f> {
    pub(crate) connection: PgConnection,
    _permit: SemaphorePermit<'f>,
}

impl Free {
    /// So many at most, of a pool; how long to wait for one of them.
    pub(crate) fn new(pool: PgPool, count: u32, patience: Duration) -> Free {
        let permits = Semaphore::new(count as usize);
        Free { pool, connections: Mutex::default(), permits, patience }
    }

    fn connections(&self) -> MutexGuard<'_, Vec<(PgConnection, Duration)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn take(&self, way: &Way) -> sqlx::Result<Taken<'_>> {
        let permit = tokio::select! {
            biased;
            permit = self.permits.acquire() => permit.map_err(|_| sqlx::Error::PoolClosed)?,
            () = way.clock.sleep(self.patience) => return Err(sqlx::Error::PoolTimedOut),
        };
        while let Some((mut connection, since)) = { self.connections().pop() } {
            let rested = way.clock.elapsed().saturating_sub(since);
            if rested <= RESTED || connection.ping().await.is_ok() {
                return Ok(Taken { connection, _permit: permit });
            }
        }
        let connection = self.pool.acquire().await.map(PoolConnection::detach)?;
        Ok(Taken { connection, _permit: permit })
    }

    /// For the next one. It is here before somebody else may take one.
    pub(crate) fn give_back(&self, taken: Taken<'_>, way: &Way) {
        self.connections().push((taken.connection, way.clock.elapsed()));
    }
}
