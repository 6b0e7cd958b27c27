//! Leases, on a connection of their own: they never wait behind commits in this process.

use crate::{error::describe, file, rows};
use rusqlite::{Connection, OptionalExtension};
use sillage_core::{Epoch, Error, Result, Timestamp};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::Mutex;
use uuid::Uuid;

/// The leases of one file.
pub(crate) struct Leases {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

impl Leases {
    pub(crate) fn open(path: PathBuf) -> Result<Leases> {
        let connection = file::writer(&path)?;
        // Who holds a lease runs on this machine and does not outlive its loss of power, so a
        // renewal need not wait for the disk. Commits wait for all that was written before them.
        let relaxed = connection.pragma_update(None, "synchronous", "NORMAL");
        relaxed.map_err(|error| describe(&path, &error))?;
        Ok(Leases { path, connection: Arc::new(Mutex::new(connection)) })
    }

    /// Takes or renews, or gives back with a `ttl` of zero; `None`: somebody else has it.
    pub(crate) async fn take(
        &self,
        name: String,
        owner: Uuid,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Option<Epoch>> {
        let connection = self.connection.clone().lock_owned().await;
        let taken = tokio::task::spawn_blocking(move || {
            let owner = owner.to_string();
            if ttl.is_zero() {
                release(&connection, &name, &owner)
            } else {
                take(&connection, (&name, &owner), now + ttl, now)
            }
        });
        match taken.await {
            Ok(taken) => taken.map_err(|error| describe(&self.path, &error)),
            Err(error) => Err(Error::unavailable("the runtime is stopping").because(error)),
        }
    }
}

fn take(
    connection: &Connection,
    (name, owner): (&str, &str),
    until: Timestamp,
    now: Timestamp,
) -> rusqlite::Result<Option<Epoch>> {
    let mut statement = connection.prepare_cached(include_str!("sql/lease_take.sql"))?;
    let epoch = statement
        .query_row((name, owner, until.as_micros(), now.as_micros()), |row| rows::unsigned(row, 0));
    Ok(epoch.optional()?.map(Epoch))
}

fn release(connection: &Connection, name: &str, owner: &str) -> rusqlite::Result<Option<Epoch>> {
    let mut statement = connection.prepare_cached(include_str!("sql/lease_release.sql"))?;
    let epoch = statement.query_row((name, owner), |row| rows::unsigned(row, 0));
    Ok(epoch.optional()?.map(Epoch))
}
