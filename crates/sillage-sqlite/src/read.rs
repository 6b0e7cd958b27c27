//! Readers: a few threads, each with a read-only connection of its own; and one more connection for
//! reads of little, which are made where they are asked for: the way to a thread and back takes
//! longer than they do.
//!
//! *Guarantees.* A read that was begun goes on by itself: a caller that stops polling it holds up
//! nobody.

use crate::{
    error::describe,
    file,
    rows::{self, limit, signed},
};
use rusqlite::{Connection, OptionalExtension, Transaction};
use sillage_core::{
    Decision, Error, Filter, Head, Page, Position, Recorded, Result, Stored, Text, Version,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};
use tokio::sync::oneshot;
use uuid::Uuid;

/// A filtered read looks at this many positions at most, so that it never takes long.
const WINDOW: u64 = 10_000;

/// As many rows are little, if they are found by their keys.
const LITTLE: usize = 16;

/// A read, with the connection it may use and open.
type Job = Box<dyn FnOnce(&mut Option<Connection>) + Send>;

/// The readers of one file. Dropping them waits until their connections are closed.
pub(crate) struct Readers {
    path: Arc<PathBuf>,
    /// For reads of little.
    here: Mutex<Option<Connection>>,
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Readers {
    /// Starts the threads; connections are opened when they are needed.
    pub(crate) fn start(path: PathBuf) -> Result<Readers> {
        let (jobs, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let (path, here) = (Arc::new(path), Mutex::default());
        let mut readers = Readers { path, here, jobs: Some(jobs), threads: vec![] };
        let most = thread::available_parallelism().map_or(4, |cores| cores.get().clamp(4, 16));
        for _ in 0..most {
            let waiting = waiting.clone();
            let spawned = thread::Builder::new()
                .name("sillage-read".to_owned())
                .spawn(move || work(&waiting))
                .map_err(|error| Error::unavailable("no thread can be started").because(error))?;
            readers.threads.push(spawned);
        }
        Ok(readers)
    }

    /// Runs a read of so many rows by their keys in one snapshot of the file: in this thread, if they
    /// are few and it can begin at once.
    pub(crate) async fn keys<T: Send + 'static>(
        &self,
        rows: usize,
        read: impl Fn(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = (rows <= LITTLE).then(|| self.read_here(&read)).flatten();
        match done {
            Some(done) => Ok(done),
            None => self.run(read).await,
        }
    }

    /// `None` where that cannot be done now, or fails: a thread may wait, or says why.
    fn read_here<T>(&self, read: impl Fn(&Transaction<'_>) -> rusqlite::Result<T>) -> Option<T> {
        let mut here = self.here.try_lock().ok()?;
        let open = |path: &Path| {
            let connection = file::reader(path)?;
            connection.busy_handler(None)?;
            Ok(connection)
        };
        run(&mut here, || open(&self.path), read).ok()
    }

    /// Runs `read` in one snapshot of the file.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let path = self.path.clone();
        let job: Job = Box::new(move |connection| {
            let _ = reply.send(run(connection, || file::reader(&path), read));
        });
        if let Some(jobs) = &self.jobs {
            // Where the threads are gone, so is `reply`.
            let _ = jobs.send(job);
        }
        let stopped = |error| Error::unavailable("the reading threads have stopped").because(error);
        let done = answer.await.map_err(stopped)?;
        done.map_err(|error| describe(&self.path, &error))
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(waiting: &Mutex<mpsc::Receiver<Job>>) {
    let mut connection = None;
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job(&mut connection);
    }
}

fn run<T>(
    kept: &mut Option<Connection>,
    open: impl FnOnce() -> rusqlite::Result<Connection>,
    read: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => open()?,
    };
    let done = read(&connection.transaction()?)?;
    // One that met an error is not used again.
    *kept = Some(connection);
    Ok(done)
}

/// The end of the log, and up to where its entries are gone.
fn bounds(file: &Transaction<'_>) -> rusqlite::Result<(u64, u64)> {
    let mut statement = file.prepare_cached(include_str!("sql/head.sql"))?;
    statement.query_row([], |row| Ok((rows::unsigned(row, 0)?, rows::unsigned(row, 1)?)))
}

/// Where the log ends: with one writer at a time, all of it is stable.
pub(crate) fn head(file: &Transaction<'_>) -> rusqlite::Result<Head> {
    let (last, _) = bounds(file)?;
    let mut statement = file.prepare_cached(include_str!("sql/incarnation.sql"))?;
    let incarnation: String = statement.query_row([], |row| row.get(0))?;
    let incarnation = Uuid::parse_str(&incarnation).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(Head { last: Position(last), stable: Position(last), incarnation })
}

/// A page of the log.
pub(crate) fn log(
    file: &Transaction<'_>,
    after: Position,
    filter: &Filter,
    max: usize,
) -> rusqlite::Result<Page> {
    let (head, trimmed_before) = bounds(file)?;
    let after = after.0;
    let filtered = !filter.topics.is_empty() || !filter.names.is_empty();
    let scans = filtered && filter.stream.is_none() && filter.correlation_id.is_none();
    let until = if scans { head.min(after.saturating_add(WINDOW)) } else { head };
    let entries = entries(file, (after, until), filter, max)?;
    let through = match entries.last() {
        Some(last) if entries.len() >= max => last.position,
        _ => Position(if max == 0 { after } else { until.max(after) }),
    };
    Ok(Page { entries, through, trimmed_before: Position(trimmed_before) })
}

fn entries(
    file: &Transaction<'_>,
    (after, until): (u64, u64),
    filter: &Filter,
    max: usize,
) -> rusqlite::Result<Vec<Recorded>> {
    let (topics, names) = (json(&filter.topics)?, json(&filter.names)?);
    let scan = (signed(after), signed(until), topics, names, limit(max));
    let (after, until, topics, names, max) = &scan;
    let correlation = filter.correlation_id.as_deref();
    let all = |sql, parameters: &[&dyn rusqlite::ToSql]| {
        let mut statement = file.prepare_cached(sql)?;
        statement.query_map(parameters, rows::recorded)?.collect()
    };
    match &filter.stream {
        Some(stream) => all(
            include_str!("sql/log_stream.sql"),
            &[after, until, topics, names, max, &correlation, &&**stream],
        ),
        None if correlation.is_some() => all(
            include_str!("sql/log_correlation.sql"),
            &[after, until, topics, names, max, &correlation],
        ),
        None => all(include_str!("sql/log.sql"), &[after, until, topics, names, max]),
    }
}

/// A list as SQLite takes it; `None` where any will do.
fn json(list: &[Text]) -> rusqlite::Result<Option<String>> {
    if list.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(list)
        .map(Some)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Entries of a stream; an error where the first of them is gone.
pub(crate) fn stream(
    file: &Transaction<'_>,
    stream: &str,
    after: Version,
    max: usize,
) -> rusqlite::Result<Result<Vec<Recorded>>> {
    let mut statement = file.prepare_cached(include_str!("sql/stream.sql"))?;
    let found = statement.query_map((stream, signed(after.0), limit(max)), rows::recorded)?;
    let found: Vec<Recorded> = found.collect::<rusqlite::Result<_>>()?;
    let first = found.first().and_then(|entry| entry.stream.as_ref()).map(|(_, version)| *version);
    if max == 0 || first == Some(after.next()) {
        return Ok(Ok(found));
    }
    let mut statement = file.prepare_cached(include_str!("sql/stream_version.sql"))?;
    let version = statement.query_row([stream], |row| rows::unsigned(row, 0)).optional()?;
    if version.unwrap_or(0) > after.0 {
        return Ok(Err(Error::trimmed_stream(stream, after.next())));
    }
    Ok(Ok(found))
}

/// Documents by id, one answer an id.
pub(crate) fn get(
    file: &Transaction<'_>,
    collection: &str,
    ids: &[String],
) -> rusqlite::Result<Vec<Option<Stored>>> {
    let mut statement = file.prepare_cached(include_str!("sql/document.sql"))?;
    ids.iter().map(|id| statement.query_row((collection, id), rows::stored).optional()).collect()
}

/// What a consumer decided about each (source, id).
pub(crate) fn decisions(
    file: &Transaction<'_>,
    consumer: &str,
    deliveries: &[(Text, Text)],
) -> rusqlite::Result<Vec<Option<Decision>>> {
    let mut statement = file.prepare_cached(include_str!("sql/decision.sql"))?;
    deliveries
        .iter()
        .map(|(source, id)| {
            statement.query_row((consumer, &**source, &**id), rows::decision).optional()
        })
        .collect()
}

/// A [`sillage_core::Range`] that owns its bounds.
pub(crate) enum Wanted {
    Ids { prefix: String, after: String },
    Sort { from: String, until: String },
    Due { now: String },
}

/// Documents of a collection.
pub(crate) fn list(
    file: &Transaction<'_>,
    collection: &str,
    wanted: &Wanted,
    max: usize,
) -> rusqlite::Result<Vec<Stored>> {
    let max = limit(max);
    match wanted {
        Wanted::Ids { prefix, after } => {
            let mut statement = file.prepare_cached(include_str!("sql/documents_by_id.sql"))?;
            let found = statement.query_map((collection, prefix, after, max), rows::stored)?;
            found
                .take_while(|stored| {
                    stored.as_ref().map_or(true, |stored| stored.id.starts_with(&**prefix))
                })
                .collect()
        }
        Wanted::Sort { from, until } => {
            let mut statement = file.prepare_cached(include_str!("sql/documents_by_sort.sql"))?;
            statement.query_map((collection, from, until, max), rows::stored)?.collect()
        }
        Wanted::Due { now } => {
            let mut statement = file.prepare_cached(include_str!("sql/documents_due.sql"))?;
            statement.query_map((collection, now, max), rows::stored)?.collect()
        }
    }
}
