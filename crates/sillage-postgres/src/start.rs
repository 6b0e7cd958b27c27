//! What is looked at before a database is used: each thing that is wrong is named, with what to do.

use crate::{
    config::{Config, Purpose},
    error::describe,
    link::{Link, Way, end},
    log::Log,
    migrate,
    sql::Sql,
};
use sillage_core::{Clock, Error, ErrorKind, Result, Timestamp};
use sqlx::{PgConnection, Row, SqlStr, postgres::types::Oid};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// The oldest server that has what is needed.
const OLDEST: i32 = 140_000;

/// How far the clocks of the server and of this process may be apart.
const APART: Duration = Duration::from_secs(3600);

/// What was found out.
pub(crate) struct Started {
    pub(crate) log: Log,
    /// What `synchronous_commit` is to be.
    pub(crate) synchronous: String,
}

/// Checks the server, brings the schema up to date and checks that.
pub(crate) async fn start(config: &Config, clock: Arc<dyn Clock>) -> Result<Started> {
    let way = Way::new(config, Purpose::Checks, "on", clock.clone());
    let mut link = Link::new(way.clone());
    let mut open = link.open().await.map_err(|error| describe(&config.place(), error))?;
    let start = Start { config, place: config.place(), sql: Sql::new(&config.schema) };
    let checked = way.limited(async {
        let is_there = match start.transaction(&way, &mut open, Step::Server(&*clock)).await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) =
            start.transaction(&way, &mut open, Step::Migrate(is_there.there)).await?
        {
            return Ok(Err(error));
        }
        let log = start.transaction(&way, &mut open, Step::Schema).await?;
        Ok(log.map(|found| (found.oids, is_there.synchronous)))
    });
    let (oids, synchronous) = checked.await.map_err(|error| describe(&start.place, error))??;
    Ok(Started { log: Log::new(config, oids, clock), synchronous })
}

/// What is done in a transaction of its own.
enum Step<'c> {
    Server(&'c dyn Clock),
    /// Whether there is a schema.
    Migrate(bool),
    Schema,
}

/// What a step found out.
#[derive(Default)]
struct Found {
    there: bool,
    synchronous: String,
    oids: [Oid; 2],
}

struct Start<'c> {
    config: &'c Config,
    place: String,
    sql: Sql,
}

fn query(sql: &SqlStr) -> crate::rows::Bound {
    sqlx::query(sql.clone()).persistent(false)
}

impl Start<'_> {
    async fn transaction(
        &self,
        way: &Way,
        connection: &mut PgConnection,
        step: Step<'_>,
    ) -> sqlx::Result<Result<Found>> {
        way.begin(connection).await?;
        let done = match step {
            Step::Server(clock) => self.server(connection, clock).await,
            Step::Migrate(there) => self.migrate(connection, there).await,
            Step::Schema => self.schema(connection).await,
        };
        end(connection, done).await
    }

    async fn server(
        &self,
        connection: &mut PgConnection,
        clock: &dyn Clock,
    ) -> sqlx::Result<Result<Found>> {
        let row = query(&self.sql.server).bind(&self.config.schema).fetch_one(connection).await?;
        let place = &self.place;
        let version: i32 = row.try_get(0)?;
        if version < OLDEST {
            return Ok(unsupported(format!(
                "the server at {place} is PostgreSQL {}: version {} or later is needed",
                version / 10_000,
                OLDEST / 10_000
            )));
        }
        if row.try_get(1)? {
            return Ok(unsupported(format!(
                "the server at {place} is a standby: connect to the primary, positions are not \
                 stable elsewhere"
            )));
        }
        let synchronous: String = row.try_get(2)?;
        if synchronous == "off" {
            return Ok(unsupported(format!(
                "`synchronous_commit` is off at {place}, so that commits are lost in a crash: set \
                 it to `on` for this user (ALTER ROLE … SET synchronous_commit = on)"
            )));
        }
        let is_there: bool = row.try_get(5)?;
        if !is_there && !self.config.create {
            return Ok(Err(Error::new(
                ErrorKind::NotFound,
                format!("no app has ever started at {place}: start the one that makes the schema"),
            )));
        }
        let encoding: String = row.try_get(3)?;
        if encoding != "UTF8" {
            return Ok(unsupported(format!(
                "the database at {place} has the encoding {encoding}: make one with UTF8"
            )));
        }
        let (there, now) = (Timestamp::from_micros(row.try_get(4)?), clock.now());
        if there.since(now).max(now.since(there)) > APART {
            return Ok(unsupported(format!(
                "the clock of the server at {place} says {there}, this machine's {now}: set the \
                 wrong one"
            )));
        }
        let at_least_on = if synchronous == "remote_apply" { synchronous } else { "on".to_owned() };
        Ok(Ok(Found { there: is_there, synchronous: at_least_on, ..Found::default() }))
    }

    async fn migrate(
        &self,
        connection: &mut PgConnection,
        mut there: bool,
    ) -> sqlx::Result<Result<Found>> {
        let found = Ok(Ok(Found::default()));
        if there {
            match migrate::version(&self.sql, &self.place, connection).await? {
                Ok(version) if !migrate::is_old(version) => return found,
                Ok(_) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        migrate::exclude(connection).await?;
        // Another process may have been quicker.
        let row =
            query(&self.sql.server).bind(&self.config.schema).fetch_one(&mut *connection).await?;
        there = row.try_get(5)?;
        let version =
            if there { migrate::version(&self.sql, &self.place, connection).await? } else { Ok(0) };
        match version {
            Ok(version) => {
                migrate::run(&self.sql, &self.config.schema, connection, version).await?;
                found
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn schema(&self, connection: &mut PgConnection) -> sqlx::Result<Result<Found>> {
        let place = &self.place;
        let missing = query(&self.sql.rights).fetch_optional(&mut *connection).await?;
        if let Some(row) = missing {
            let (right, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            return Ok(Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "this user lacks {right} on `{name}` at {place}: grant it all rights on all \
                     tables and sequences of the schema"
                ),
            )));
        }
        let row = query(&self.sql.oids).fetch_one(&mut *connection).await?;
        let oids: [Oid; 2] = [row.try_get(0)?, row.try_get(1)?];
        let row = query(&self.sql.sequence).bind(oids[1]).fetch_one(&mut *connection).await?;
        let (step, cache, cycle): (i64, i64, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if (step, cache, cycle) != (1, 1, false) {
            let schema = &self.config.schema;
            return Ok(unsupported(format!(
                "the sequence of positions at {place} has CACHE {cache}, so that readers would \
                 skip entries: ALTER SEQUENCE {schema}.log_position INCREMENT 1 CACHE 1 NO CYCLE"
            )));
        }
        if let Some(error) = self.ahead(connection, (oids[1], row.try_get(3)?)).await? {
            return Ok(Err(error));
        }
        let row = query(&self.sql.origin).fetch_one(&mut *connection).await?;
        let origin: String = row.try_get(0)?;
        let renew = query(&self.sql.renew).bind(Uuid::new_v4().to_string()).bind(origin);
        renew.execute(connection).await?;
        Ok(Ok(Found { oids, ..Found::default() }))
    }

    /// That a checkpoint is above the end of the log, if one is. What others write while this looks
    /// moves both: the end is read after the checkpoint again.
    async fn ahead(
        &self,
        connection: &mut PgConnection,
        (sequence, before): (Oid, i64),
    ) -> sqlx::Result<Option<Error>> {
        let ahead = query(&self.sql.ahead).bind(before).fetch_optional(&mut *connection).await?;
        let Some(row) = ahead else { return Ok(None) };
        let (reader, position): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let row = query(&self.sql.sequence).bind(sequence).fetch_one(connection).await?;
        let last: i64 = row.try_get(3)?;
        let whose = format!("the checkpoint of `{reader}`");
        Ok((position > last).then(|| restored(&self.place, &whose, position, last)))
    }
}

fn unsupported<T>(sentence: String) -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, sentence))
}

/// What a reader is told that has read more than there is.
pub(crate) fn restored(place: &str, whose: &str, at: impl std::fmt::Display, last: i64) -> Error {
    Error::corrupt(format!(
        "{whose} is at {at}, but the log at {place} ends at {last}: the database was restored from \
         a backup, or another server took over and lost the end. What was read beyond {last} is \
         not in it any more: restore a later backup, or set the checkpoint back and rebuild what \
         was made from it"
    ))
}
