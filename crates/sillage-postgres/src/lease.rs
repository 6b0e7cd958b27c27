//! Leases, on the database's time and on connections of their own: they never wait behind commits
//! in this process.
//!
//! A commit reads its epoch `FOR KEY SHARE`; a renewal is a plain update, which does not wait for it;
//! a new owner locks the row first, which does.

use crate::{
    error::describe,
    free::Free,
    link::{Way, is_sound},
    log::Log,
    rows::signed,
};
use sillage_core::{Epoch, Error, Result};
use sqlx::{PgConnection, SqlStr};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// The leases of one schema.
pub(crate) struct Leases {
    log: Arc<Log>,
    way: Way,
    free: Arc<Free>,
}

impl Leases {
    pub(crate) fn new(log: Arc<Log>, way: Way, free: Free) -> Leases {
        Leases { log, way, free: Arc::new(free) }
    }

    /// Takes or renews, or gives back with a `ttl` of zero; `None`: somebody else has it.
    pub(crate) async fn take(
        &self,
        name: String,
        owner: Uuid,
        ttl: Duration,
    ) -> Result<Option<Epoch>> {
        let (log, way, free) = (self.log.clone(), self.way.clone(), self.free.clone());
        // By itself, so that a caller who stops polling holds up nobody.
        let taken = tokio::spawn(async move {
            let limited = way.limited(async {
                let mut taken = free.take(&way).await?;
                let done = take(&log, &way, &mut taken.connection, (&name, owner, ttl)).await;
                if is_sound(&done) {
                    free.give_back(taken, &way);
                }
                done
            });
            limited.await.map_err(|error| describe(&log.place, error))
        });
        match taken.await {
            Ok(taken) => taken,
            Err(error) => Err(Error::unavailable("the runtime is stopping").because(error)),
        }
    }
}

type Wanted<'w> = (&'w str, Uuid, Duration);

async fn take(
    log: &Log,
    way: &Way,
    connection: &mut PgConnection,
    wanted: Wanted<'_>,
) -> sqlx::Result<Option<Epoch>> {
    let all = [&log.sql.lease_renew, &log.sql.lease_take, &log.sql.lease_make];
    let ways = if wanted.2.is_zero() { &all[..1] } else { &all[..] };
    for sql in ways {
        way.begin_reading(connection).await?;
        let done = one(log, connection, sql, wanted).await;
        if let Some(epoch) = way.end_reading(connection, done).await? {
            return Ok(Some(epoch));
        }
    }
    Ok(None)
}

async fn one(
    log: &Log,
    connection: &mut PgConnection,
    sql: &SqlStr,
    (name, owner, ttl): Wanted<'_>,
) -> sqlx::Result<Option<Epoch>> {
    let micros = u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX);
    let query = log.query(sql).bind(name).bind(owner).bind(signed(micros));
    let row = query.fetch_optional(connection).await?;
    row.map(|row| crate::rows::unsigned(&row, 0).map(Epoch)).transpose()
}
