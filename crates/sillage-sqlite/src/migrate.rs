//! Brings the schema of a file to the version this software knows, or refuses a newer one.

use crate::error::describe;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use sillage_core::{Error, ErrorKind, Result};
use std::path::Path;
use uuid::Uuid;

/// Each with the version it makes.
const MIGRATIONS: [(u32, &str); 2] = [
    (1, include_str!("../migrations/0001_log_and_documents.sql")),
    (2, include_str!("../migrations/0002_sagas.sql")),
];

/// The version this software knows.
const KNOWN: u32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Runs the migrations that this file lacks, in one transaction. Several processes may do so at
/// once.
pub(crate) fn migrate(path: &Path, connection: &mut Connection) -> Result<()> {
    let found = version(connection).map_err(|error| describe(path, &error))?;
    if found > KNOWN {
        return Err(Error::new(
            ErrorKind::NewerSchema,
            format!(
                "`{}` has schema version {found}, this software knows versions up to {KNOWN}: \
                 upgrade it, or name another file",
                path.display(),
            ),
        ));
    }
    if found < KNOWN {
        run(connection).map_err(|error| describe(path, &error))?;
    }
    Ok(())
}

fn run(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been quicker.
    let found = version(&transaction)?;
    let set_meta = include_str!("sql/set_meta.sql");
    for (version, migration) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
        transaction.execute_batch(migration)?;
        transaction.execute(set_meta, ("schema", version))?;
    }
    if found == 0 {
        transaction.execute(set_meta, ("incarnation", Uuid::new_v4().to_string()))?;
    }
    transaction.commit()
}

/// 0 for a file without a schema of ours.
fn version(connection: &Connection) -> rusqlite::Result<u32> {
    let has_meta: bool =
        connection.query_row(include_str!("sql/has_meta.sql"), [], |row| row.get(0))?;
    if !has_meta {
        return Ok(0);
    }
    let version = connection.query_row(include_str!("sql/schema.sql"), [], |row| row.get(0));
    Ok(version.optional()?.unwrap_or(0))
}
