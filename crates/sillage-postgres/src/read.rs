//! Reads, on connections that are shared.
//!
//! *Guarantees.* A read that was begun goes on by itself: a caller that stops polling it holds up
//! nobody.

use crate::{
    error::describe,
    free::Free,
    link::{Way, is_sound},
    log::Log,
    recent::{Recent, STEP},
    rows::{self, Bound, Shared, decision, limit, recorded, signed, text, unsigned},
    start::restored,
    tail::{Seen, Tail},
};
use futures_util::TryStreamExt as _;
use sillage_core::{
    BoxFuture, Decision, Error, Filter, Head, Page, Position, Recorded, Result, Stored, Text,
    Timestamp, Version,
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

/// A filtered read looks at this many positions at most, so that it never takes long.
const WINDOW: u64 = 10_000;

/// The end of the log is read by about so many bytes at a time.
const BYTES: usize = 4 << 20;

/// A reader that is so far behind need not know where the log ends in this moment. Sooner than a log can
/// be restored it asks again.
const FAR: u64 = 4 * WINDOW;
/// Pages of so many entries it reads in halves, of at most so many each.
const HALVED: usize = 1_000;
const HALF: usize = 5_000;
const RECENTLY: Duration = Duration::from_millis(200);

/// The readers of one schema.
#[derive(Clone)]
pub(crate) struct Readers {
    log: Arc<Log>,
    way: Way,
    free: Arc<Free>,
    recent: Arc<Mutex<Recent>>,
    /// Where the log ended, and when somebody asked.
    known: watch::Sender<(Seen, Duration)>,
}

impl Readers {
    pub(crate) fn new(log: Arc<Log>, way: Way, free: Free, recent: Arc<Mutex<Recent>>) -> Readers {
        Readers { log, way, free: Arc::new(free), recent, known: watch::Sender::default() }
    }

    /// Runs `read` on a connection.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        read: impl for<'c> FnOnce(&'c Log, &'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>>
        + Send
        + 'static,
    ) -> Result<T> {
        let Readers { log, way, free, .. } = self.clone();
        let reading = tokio::spawn(async move {
            let limited = way.limited(async {
                let mut taken = free.take(&way).await?;
                way.begin_reading(&mut taken.connection).await?;
                let done = read(&log, &mut taken.connection).await;
                let done = way.end_reading(&mut taken.connection, done).await;
                if is_sound(&done) {
                    free.give_back(taken, &way);
                }
                done
            });
            limited.await.map_err(|error| describe(&log.place, error))
        });
        match reading.await {
            Ok(read) => read,
            Err(error) => Err(Error::unavailable("the runtime is stopping").because(error)),
        }
    }

    /// A page of the log, up to the position that is stable now.
    pub(crate) async fn page(
        &self,
        tail: &Tail,
        after: Position,
        filter: &Filter,
        max: usize,
    ) -> Result<Page> {
        let filtered = !filter.topics.is_empty() || !filter.names.is_empty();
        let scans = filtered && filter.stream.is_none() && filter.correlation_id.is_none();
        let known = if scans { self.known(after) } else { None };
        let seen = match known {
            Some(seen) => seen,
            None => self.ask(tail).await?,
        };
        if after.0 > seen.last {
            return Err(restored(&self.log.place, "this reader", after, signed(seen.last)));
        }
        let (from, mut trimmed_before) = (after.0, seen.trimmed_before);
        let Seen { stable, .. } = seen;
        let until = if scans { stable.min(from.saturating_add(WINDOW)) } else { stable };
        let wanted = (from, until, max);
        if max == 0 || until <= from {
            let through = Position(if max == 0 { from } else { until.max(from) });
            return Ok(Page { entries: vec![], through, trimmed_before: Position(trimmed_before) });
        }
        let (entries, gone, through) = if stable - from <= STEP {
            self.at_the_end(wanted, filter.clone(), seen.rewritten).await?
        } else if known.is_some() && max >= HALVED {
            self.halves(wanted, filter).await?
        } else {
            self.part(wanted, filter).await?
        };
        trimmed_before = trimmed_before.max(gone);
        Ok(Page { entries, through, trimmed_before: Position(trimmed_before) })
    }

    /// A page in two parts, read at once: while one waits for the server, the other is decoded.
    async fn halves(&self, (from, until, max): (u64, u64, usize), filter: &Filter) -> Result<Part> {
        // As many positions have at most as many entries.
        let half = (max / 2).min(HALF);
        let middle = until.min(from.saturating_add(half as u64));
        let first = self.part((from, middle, half), filter);
        let second = self.part((middle, until, max - half), filter);
        let (mut first, second) = tokio::try_join!(first, second)?;
        first.0.extend(second.0);
        Ok((first.0, first.1.max(second.1), second.2))
    }

    async fn part(&self, wanted: (u64, u64, usize), filter: &Filter) -> Result<Part> {
        let (_, until, max) = wanted;
        let filter = filter.clone();
        let read =
            self.run(move |log, c| Box::pin(async move { entries(log, c, wanted, &filter).await }));
        let (entries, gone) = read.await?;
        let through = through(&entries, max, until);
        Ok((entries, gone, through))
    }

    /// Where the log ended a moment ago, for a reader that is far behind that: nothing changes in its
    /// window, but that it may be gone, as the page itself says.
    fn known(&self, after: Position) -> Option<Seen> {
        let (known, asked) = *self.known.borrow();
        let is_far = after.0.saturating_add(FAR) <= known.stable;
        (is_far && self.way.clock.elapsed() <= asked + RECENTLY).then_some(known)
    }

    async fn ask(&self, tail: &Tail) -> Result<Seen> {
        let now = self.way.clock.elapsed();
        let seen = tail.ask().await?;
        self.known.send_replace((seen, now));
        Ok(seen)
    }

    /// Entries at the end of the log, which one reads for all.
    async fn at_the_end(
        &self,
        wanted: (u64, u64, usize),
        filter: Filter,
        rewritten: u64,
    ) -> Result<Part> {
        let readers = self.clone();
        // By itself: others wait for it.
        let reading = tokio::spawn(async move { readers.shared(wanted, filter, rewritten).await });
        reading.await.unwrap_or_else(|error| {
            Err(Error::unavailable("the runtime is stopping").because(error))
        })
    }

    async fn shared(
        &self,
        wanted: (u64, u64, usize),
        filter: Filter,
        rewritten: u64,
    ) -> Result<Part> {
        let (from, until, max) = wanted;
        let mut recent = self.recent.lock().await;
        if recent.through() < from || recent.is_outdated(rewritten) {
            recent.begin(from, rewritten);
        }
        let at = recent.through();
        if recent.has(from) && at < until {
            let all = (at, until, usize::MAX);
            let read = self.run(move |log, c| {
                Box::pin(async move { latest(log, c, all, &Filter::default()).await })
            });
            let (read, trimmed_before, through) = read.await?;
            recent.extend(read, through.0, trimmed_before);
        }
        if recent.has(from) {
            let until = until.min(recent.through());
            let found = recent.read((from, until), &filter, max);
            let through = through(&found, max, until);
            return Ok((found, recent.trimmed_before(), through));
        }
        // It is behind what is kept.
        drop(recent);
        self.run(move |log, c| Box::pin(async move { latest(log, c, wanted, &filter).await })).await
    }

    /// Where the log ends.
    pub(crate) async fn head(&self, tail: &Tail) -> Result<Head> {
        let Seen { last, stable, .. } = tail.ask().await?;
        let incarnation = self.run(|log, c| Box::pin(incarnation(log, c))).await?;
        Ok(Head { last: Position(last), stable: Position(stable), incarnation })
    }
}

/// Up to where a page goes, of what was read up to there.
fn through(entries: &[Recorded], max: usize, until: u64) -> Position {
    match entries.last() {
        Some(last) if entries.len() >= max => last.position,
        _ => Position(until),
    }
}

async fn incarnation(log: &Log, connection: &mut PgConnection) -> sqlx::Result<Uuid> {
    let row = log.query(&log.sql.meta).bind("incarnation").fetch_one(connection).await?;
    let text: &str = row.try_get(0)?;
    Uuid::parse_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// With up to where entries without a stream were gone when these were read.
type Entries = (Vec<Recorded>, u64);

/// And how far these go.
pub(crate) type Part = (Vec<Recorded>, u64, Position);

/// Entries at the end of the log, where a few may be large: less than all where they are large together.
pub(crate) async fn latest(
    log: &Log,
    connection: &mut PgConnection,
    wanted: (u64, u64, usize),
    filter: &Filter,
) -> sqlx::Result<Part> {
    let (from, until, max) = wanted;
    if filter.stream.is_some() || filter.correlation_id.is_some() {
        let (found, gone) = entries(log, connection, wanted, filter).await?;
        let through = through(&found, max, until);
        return Ok((found, gone, through));
    }
    let query = log.query(&log.sql.log_end).bind(signed(from)).bind(signed(until));
    let query = query.bind(list(&filter.topics)).bind(list(&filter.names)).bind(limit(max));
    let (found, gone) = collect(query.bind(limit(BYTES)), connection).await?;
    let is_large = found.iter().map(|entry| entry.body.payload.len()).sum::<usize>() >= BYTES;
    let through = through(&found, if is_large { 0 } else { max }, until);
    Ok((found, gone, through))
}

async fn entries(
    log: &Log,
    connection: &mut PgConnection,
    (from, until, max): (u64, u64, usize),
    filter: &Filter,
) -> sqlx::Result<Entries> {
    let scan = |sql| {
        let query = log.query(sql).bind(signed(from)).bind(signed(until));
        query.bind(list(&filter.topics)).bind(list(&filter.names)).bind(limit(max))
    };
    let correlation = filter.correlation_id.as_deref();
    let query = match (&filter.stream, correlation) {
        (Some(stream), _) => scan(&log.sql.log_stream).bind(&**stream).bind(correlation),
        (None, Some(correlation)) => scan(&log.sql.log_correlation).bind(correlation),
        (None, None) => scan(&log.sql.log),
    };
    collect(query, connection).await
}

async fn collect(query: Bound, connection: &mut PgConnection) -> sqlx::Result<Entries> {
    // Row by row, so that the next one finds the memory of the last.
    let mut rows = query.fetch(connection);
    let (mut found, mut trimmed_before, mut shared) = (vec![], 0, Shared::default());
    while let Some(row) = rows.try_next().await? {
        match recorded(&row, &mut shared)? {
            Some(entry) => found.push(entry),
            None => trimmed_before = unsigned(&row, rows::ENTRY)?,
        }
    }
    // A union has no order of its own; to sort what has one already costs the server more than to look.
    if !found.is_sorted_by_key(|entry| entry.position) {
        found.sort_unstable_by_key(|entry| entry.position);
    }
    Ok((found, trimmed_before))
}

/// A list as PostgreSQL takes it; `None` where any will do.
fn list(list: &[Text]) -> Option<Vec<&str>> {
    (!list.is_empty()).then(|| list.iter().map(|text| &**text).collect())
}

async fn all<T>(
    query: Bound,
    connection: &mut PgConnection,
    read: impl Fn(&PgRow) -> sqlx::Result<T>,
) -> sqlx::Result<Vec<T>> {
    query.fetch_all(connection).await?.iter().map(read).collect()
}

/// Entries of a stream; an error where the first of them is gone.
pub(crate) async fn stream(
    log: &Log,
    connection: &mut PgConnection,
    (stream, after, max): (String, Version, usize),
) -> sqlx::Result<Result<Vec<Recorded>>> {
    let query = log.query(&log.sql.stream).bind(stream.clone());
    let rows = query.bind(signed(after.0)).bind(limit(max)).fetch_all(connection).await?;
    let found = rows::entries(&rows)?;
    let first = found.first().and_then(|entry| entry.stream.as_ref()).map(|(_, version)| *version);
    let version = rows.first().map_or(Ok(0), |row| unsigned(row, rows::ENTRY))?;
    if max > 0 && version > after.0 && first != Some(after.next()) {
        return Ok(Err(Error::trimmed_stream(&stream, after.next())));
    }
    Ok(Ok(found))
}

/// Documents by id, one answer an id.
pub(crate) async fn get(
    log: &Log,
    connection: &mut PgConnection,
    (collection, ids): (String, Vec<String>),
) -> sqlx::Result<Vec<Option<Stored>>> {
    let query = log.query(&log.sql.documents).bind(collection).bind(&ids[..]);
    let found = all(query, connection, rows::stored).await?;
    let found: HashMap<Text, Stored> =
        found.into_iter().map(|stored| (stored.id.clone(), stored)).collect();
    Ok(ids.iter().map(|id| found.get(&**id).cloned()).collect())
}

/// What a consumer decided about each (source, id).
pub(crate) async fn decisions(
    log: &Log,
    connection: &mut PgConnection,
    (consumer, deliveries): (String, Vec<(Text, Text)>),
) -> sqlx::Result<Vec<Option<Decision>>> {
    let (sources, ids): (Vec<&str>, Vec<&str>) =
        deliveries.iter().map(|(source, id)| (&**source, &**id)).unzip();
    let query = log.query(&log.sql.decisions).bind(consumer).bind(sources).bind(ids);
    let read = |row: &PgRow| {
        let names = (text(row, 0)?, text(row, 1)?);
        Ok((names, decision(row.try_get(2)?)?))
    };
    let found: HashMap<_, _> = all(query, connection, read).await?.into_iter().collect();
    Ok(deliveries.iter().map(|names| found.get(names).copied()).collect())
}

/// A [`sillage_core::Range`] that owns its bounds.
pub(crate) enum Wanted {
    Ids { prefix: String, after: String },
    Sort { from: String, until: String },
    Due,
}

/// Documents of a collection.
pub(crate) async fn documents(
    log: &Log,
    connection: &mut PgConnection,
    (collection, wanted, max): (String, Wanted, usize),
) -> sqlx::Result<Vec<Stored>> {
    let query = match wanted {
        Wanted::Ids { prefix, after } => {
            log.query(&log.sql.documents_by_id).bind(collection).bind(prefix).bind(after)
        }
        Wanted::Sort { from, until } => {
            log.query(&log.sql.documents_by_sort).bind(collection).bind(from).bind(until)
        }
        Wanted::Due => log.query(&log.sql.documents_due).bind(collection),
    };
    all(query.bind(limit(max)), connection, rows::stored).await
}

/// The database's clock.
pub(crate) async fn now(log: &Log, connection: &mut PgConnection) -> sqlx::Result<Timestamp> {
    let row = log.query(&log.sql.now).fetch_one(connection).await?;
    row.try_get(0).map(Timestamp::from_micros)
}
