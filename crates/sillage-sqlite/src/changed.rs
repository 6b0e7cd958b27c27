//! Tells those who wait that the log has grown: at once for commits of this process, after some
//! 20 ms for those of others.

use crate::{error::describe, file, rows};
use rusqlite::Connection;
use sillage_core::{Clock, Position, Result};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::{Mutex, watch};

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
    data_version: Option<i64>,
    seen: watch::Sender<Seen>,
}

impl Changes {
    pub(crate) fn new(path: &Path, clock: Arc<dyn Clock>) -> Result<Changes> {
        let (seen, _) = watch::channel(Seen::default());
        let open = || {
            let connection = file::reader(path)?;
            let mut lookout = Lookout { connection, data_version: None, seen: seen.clone() };
            lookout.look()?;
            Ok(Arc::new(Mutex::new(lookout)))
        };
        let lookout = open().map_err(|error| describe(path, &error))?;
        Ok(Changes { seen, lookout, clock })
    }

    /// Wakes those whom this concerns.
    pub(crate) fn publish(&self, new: Seen) {
        publish(&self.seen, new);
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

    /// One of those who wait looks out for all; ends only with the runtime.
    async fn look_out(&self) {
        let mut lookout = self.lookout.clone().lock_owned().await;
        loop {
            // What is found is published in there: this future may be dropped meanwhile.
            let looked = tokio::task::spawn_blocking(move || {
                if let Err(error) = lookout.look() {
                    // Whatever it is, readers will meet it and say so.
                    tracing::debug!(%error, "cannot look for other processes' commits");
                }
                lookout
            });
            let Ok(returned) = looked.await else { return };
            lookout = returned;
            self.clock.sleep(INTERVAL).await;
        }
    }
}

impl Lookout {
    /// Publishes what is to be seen now, if anything was committed since it looked last.
    fn look(&mut self) -> rusqlite::Result<()> {
        let data_version =
            self.connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        if self.data_version != Some(data_version) {
            let mut statement = self.connection.prepare_cached(include_str!("sql/seen.sql"))?;
            publish(&self.seen, statement.query_row([], rows::seen)?);
            self.data_version = Some(data_version);
        }
        Ok(())
    }
}

fn publish(seen: &watch::Sender<Seen>, new: Seen) {
    seen.send_if_modified(|seen| {
        let grown = Seen { head: seen.head.max(new.head), timers: seen.timers.max(new.timers) };
        std::mem::replace(seen, grown) != grown
    });
}
