//! The file: how connections to it are opened, and how they wait for each other.

use crate::error::describe;
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, config::DbConfig};
use sillage_core::{Error, ErrorKind, Result};
use std::{path::Path, time::Duration};

/// About 10 s of waiting: the mean of the longer sleeps is 2.5 ms.
const MOST_SLEEPS: i32 = 4_000;

/// Refuses a path at which there can be no database.
pub(crate) fn check(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::invalid(format!("`{}` is a folder: name a file in it", path.display())));
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "the folder `{}` for the database `{}` does not exist: create it, or name another",
                folder.display(),
                path.display()
            ),
        )),
        _ => Ok(()),
    }
}

/// A connection that writes; makes the file where there is none.
pub(crate) fn writer(path: &Path) -> Result<Connection> {
    let connection = open_writer(path).map_err(|error| describe(path, &error))?;
    let mode = enter_wal(&connection).map_err(|error| describe(path, &error))?;
    if mode != "wal" {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "`{}` cannot have a write-ahead log (its journal stays `{mode}`): put it on a \
                 local disk",
                path.display()
            ),
        ));
    }
    Ok(connection)
}

fn open_writer(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = open(path, flags)?;
    if connection.is_readonly(MAIN_DB)? {
        let read_only = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
        return Err(rusqlite::Error::SqliteFailure(read_only, Some("it is read-only".to_owned())));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    // The log is moved into the file less often, in larger parts: a quarter more commits a second.
    connection.pragma_update(None, "wal_autocheckpoint", 10_000)?;
    Ok(connection)
}

/// The change to a write-ahead log does not always ask the busy handler.
fn enter_wal(connection: &Connection) -> rusqlite::Result<String> {
    let mut tries = 0;
    loop {
        let mode =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0));
        match mode {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && wait(tries) =>
            {
                tries += 1;
            }
            mode => return mode,
        }
    }
}

/// A connection that only reads.
pub(crate) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    open(path, flags)
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    // Else SQLite makes a new plan whenever a bound value changes: at every read.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.busy_handler(Some(wait))?;
    Ok(connection)
}

/// Waits a little for who holds the lock; `false`: for too long already. Short sleeps of random
/// length, as SQLite's own handler starves a process for seconds under load.
#[allow(clippy::disallowed_methods)] // SQLite asks for this from within a blocking call.
fn wait(tries: i32) -> bool {
    if tries >= MOST_SLEEPS {
        return false;
    }
    let longest = if tries < 20 { 500 } else { 5_000 };
    std::thread::sleep(Duration::from_micros(rand::random_range(50..longest)));
    true
}
