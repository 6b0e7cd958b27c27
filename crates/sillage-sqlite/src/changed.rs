//! Tells those who wait that the log has grown by what they wait for: at once for commits of this
//! process; after some 20 ms that it has grown by those of others, whatever they appended.

use crate::{error::describe, file, rows};
use rusqlite::Connection;
use sillage_core::{Clock, Filter, Page, Position, Recorded, Result, Waiters};
use std::{
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tokio::sync::Mutex;

/// How often other processes' commits are looked for, while somebody waits.
const INTERVAL: Duration = Duration::from_millis(20);

/// How a transaction has made the log grow.
pub(crate) struct Grown {
    pub(crate) after: Position,
    pub(crate) through: Position,
    pub(crate) entries: Vec<Recorded>,
}

/// Held from before this process commits until it has told what, so that it is not taken for
/// another one.
type Own = Arc<std::sync::Mutex<()>>;

/// What this process knows of the file's growth.
pub(crate) struct Changes {
    waiters: Waiters,
    own: Own,
    lookout: Arc<Mutex<Lookout>>,
    clock: Arc<dyn Clock>,
}

/// A connection that sees others' commits by a counter in shared memory.
struct Lookout {
    connection: Connection,
    data_version: Option<i64>,
    /// When it looks again, in elapsed time, whoever waits then.
    next: Duration,
    own: Own,
    waiters: Waiters,
}

impl Changes {
    pub(crate) fn new(path: &Path, clock: Arc<dyn Clock>) -> Result<Changes> {
        let (waiters, own) = (Waiters::default(), Own::default());
        let open = || {
            let connection = file::reader(path)?;
            let (own, waiters) = (own.clone(), waiters.clone());
            let mut lookout =
                Lookout { connection, data_version: None, next: Duration::ZERO, own, waiters };
            lookout.look()?;
            Ok(Arc::new(Mutex::new(lookout)))
        };
        let lookout = open().map_err(|error| describe(path, &error))?;
        Ok(Changes { waiters, own, lookout, clock })
    }

    /// Commits, and wakes those whom it concerns.
    pub(crate) fn of<T>(&self, commit: impl FnOnce() -> (T, Vec<Grown>)) -> T {
        let _own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, grown) = commit();
        for Grown { after, through, entries } in grown {
            self.waiters.appended(after, through, entries);
        }
        done
    }

    /// Completes when there may be something for who waits.
    pub(crate) fn wait(
        &self,
        position: Position,
        filter: Filter,
    ) -> impl Future<Output = ()> + Send {
        let told = self.waiters.wait(position, filter);
        async move {
            tokio::select! {
                biased;
                () = told => {}
                () = self.look_out() => {}
            }
        }
    }

    /// What there is for who waited, where it is in memory.
    pub(crate) fn page(&self, after: Position, filter: &Filter, max: usize) -> Option<Page> {
        self.waiters.page(after, filter, max)
    }

    /// One of those who wait looks out for all; ends only with the runtime.
    async fn look_out(&self) {
        let mut lookout = self.lookout.clone().lock_owned().await;
        loop {
            self.clock.sleep(lookout.next.saturating_sub(self.clock.elapsed())).await;
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
            lookout.next = self.clock.elapsed() + INTERVAL;
        }
    }
}

impl Lookout {
    /// Tells where the log ends, if anything was committed since it looked last.
    fn look(&mut self) -> rusqlite::Result<()> {
        let _own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let data_version =
            self.connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
        if self.data_version != Some(data_version) {
            let mut statement = self.connection.prepare_cached(include_str!("sql/end.sql"))?;
            let end = statement.query_row([], |row| rows::unsigned(row, 0))?;
            self.waiters.grown(Position(end));
            self.data_version = Some(data_version);
        }
        Ok(())
    }
}
