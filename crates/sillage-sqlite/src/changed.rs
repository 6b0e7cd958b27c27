//! Tells those who wait that the log has grown: at once for commits of this process, after at most
//! 20 ms for those of others.

use crate::{error::describe, file, rows};
use rusqlite::Connection;
use sillage_core::{Clock, Position, Result};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// How often other processes' commits are looked for, while somebody waits.
const INTERVAL: Duration = Duration::from_millis(20);

/// What waiting is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The end of the log.
    pub(crate) head: u64,
    /// How often timers were set.
    pub(crate) timers: u64,
}

/// What this process knows of the file's growth.
pub(crate) struct Changes {
    seen: watch::Sender<Seen>,
    lookout: Arc<Mutex<Lookout>>,
    clock: Arc<dyn Clock>,
}

/// A connection that sees others' commits by a counter in shared memory.
struct Lookout {
    connection: Connection,
    data_version: i64,
}

impl Changes {
    pub(crate) fn new(path: &Path, clock: Arc<dyn Clock>) -> Result<Changes> {
        let open = || {
            let connection = file::reader(path)?;
            let mut lookout = Lookout { connection, data_version: -1 };
            let seen = lookout.look()?.unwrap_or_default();
            Ok((lookout, seen))
        };
        let (lookout, seen) = open().map_err(|error| describe(path, &error))?;
        let (seen, _) = watch::channel(seen);
        Ok(Changes { seen, lookout: Arc::new(Mutex::new(lookout)), clock })
    }

    /// Wakes those whom this concerns.
    pub(crate) fn publish(&self, new: Seen) {
        self.seen.send_if_modified(|seen| {
            let grown = Seen { head: seen.head.max(new.head), timers: seen.timers.max(new.timers) };
            std::mem::replace(seen, grown) != grown
        });
    }

    /// Completes when the log has grown past `position`, or a timer was set since this call.
    pub(crate) fn wait(&self, position: Position) -> impl Future<Output = ()> + Send {
        let mut seen = self.seen.subscribe();
        let timers = seen.borrow_and_update().timers;
        async move {
            tokio::select! {
                biased;
                _ = seen.wait_for(|seen| seen.head > position.0 || seen.timers != timers) => {}
                () = self.look_out() => {}
            }
        }
    }

    /// One of those who wait looks out for all; ends only if it cannot.
    async fn look_out(&self) {
        let mut lookout = self.lookout.clone().lock_owned().await;
        loop {
            let looked = tokio::task::spawn_blocking(|| look(lookout)).await;
            let Ok((returned, seen)) = looked else { return };
            lookout = returned;
            match seen {
                Ok(Some(seen)) => self.publish(seen),
                Ok(None) => {}
                // Whatever it is, readers will meet it and say so.
                Err(error) => tracing::debug!(%error, "cannot look for other processes' commits"),
            }
            self.clock.sleep(INTERVAL).await;
        }
    }
}

type Looked = (OwnedMutexGuard<Lookout>, rusqlite::Result<Option<Seen>>);

fn look(mut lookout: OwnedMutexGuard<Lookout>) -> Looked {
    let seen = lookout.look();
    (lookout, seen)
}

impl Lookout {
    /// What is to be seen now; `None` if nothing was committed since it was asked last.
    fn look(&mut self) -> rusqlite::Result<Option<Seen>> {
        let data_version: i64 =
            self.connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        if data_version == self.data_version {
            return Ok(None);
        }
        let mut statement = self.connection.prepare_cached(include_str!("sql/seen.sql"))?;
        let seen = statement.query_row([], |row| {
            Ok(Seen { head: rows::unsigned(row, 0)?, timers: rows::unsigned(row, 1)? })
        })?;
        self.data_version = data_version;
        Ok(Some(seen))
    }
}
