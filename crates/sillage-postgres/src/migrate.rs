//! Brings the schema to the version this software knows, or refuses a newer one.

use crate::sql::{Sql, in_schema};
use sillage_core::{Error, ErrorKind, Result};
use sqlx::{AssertSqlSafe, PgConnection, Row};

/// Each with the version it makes.
const MIGRATIONS: [(u32, &str); 3] = [
    (1, include_str!("../migrations/0001_log_and_documents.sql")),
    (2, include_str!("../migrations/0002_sagas.sql")),
    (3, include_str!("../migrations/0003_claims.sql")),
];

/// The version this software knows.
const KNOWN: u32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Only one process at a time makes or changes a schema: the number says "sillage".
const LOCK: i64 = 0x0073_696c_6c61_6765;

/// The schema's version; an error where it is newer than this software knows.
pub(crate) async fn version(
    sql: &Sql,
    place: &str,
    connection: &mut PgConnection,
) -> sqlx::Result<Result<u32>> {
    let query = sqlx::query(sql.meta.clone()).persistent(false).bind("schema");
    let value: Option<String> =
        query.fetch_optional(connection).await?.map(|row| row.try_get(0)).transpose()?;
    let found = value.and_then(|value| value.parse().ok()).unwrap_or(0);
    Ok(if found > KNOWN {
        Err(Error::new(
            ErrorKind::NewerSchema,
            format!(
                "{place} has schema version {found}, this software knows versions up to {KNOWN}: \
                 upgrade it, or name another schema"
            ),
        ))
    } else {
        Ok(found)
    })
}

/// Whether a schema of this version lacks migrations.
pub(crate) fn is_old(found: u32) -> bool {
    found < KNOWN
}

/// Waits until no other process changes a schema; the transaction holds that off.
pub(crate) async fn exclude(connection: &mut PgConnection) -> sqlx::Result<()> {
    let query = sqlx::query("SELECT pg_advisory_xact_lock($1)").persistent(false);
    query.bind(LOCK).execute(connection).await.map(drop)
}

/// Runs the migrations that a schema of version `found` lacks; makes the schema where there is none.
pub(crate) async fn run(
    sql: &Sql,
    schema: &str,
    connection: &mut PgConnection,
    found: u32,
) -> sqlx::Result<()> {
    if found == 0 {
        let create = format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\"");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *connection).await?;
    }
    for (version, migration) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
        sqlx::raw_sql(in_schema(migration, schema)).execute(&mut *connection).await?;
        let query = sqlx::query(sql.set_meta.clone()).persistent(false);
        query.bind("schema").bind(version.to_string()).execute(&mut *connection).await?;
    }
    Ok(())
}
