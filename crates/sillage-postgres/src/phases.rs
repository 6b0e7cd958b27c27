//! The four phases of a batch within one SQL transaction: lock, evaluate in memory, write, commit.
//!
//! Rows that others hold are passed over: the commits that are about them leave the batch, and with
//! them those that come later and share a row with one that left.

use crate::{
    log::Log,
    rows::{self, Entries, decision, optional_text, positions, signed, text, unsigned},
    run::{self, Ended},
    state::{Key, Puts, Row, State, Value, keys},
};
use sillage_core::{
    Commit, CommitError, Committed, Decision, Position, Recorded, Text, Timestamp, Write,
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use std::collections::HashSet;

/// What became of one commit; `None`: somebody else holds a row of it, nothing is decided.
pub(crate) type Outcome = Option<Result<Committed, CommitError>>;

/// Whether rows that others hold are passed over or waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locking {
    PassOver,
    Wait,
}

/// What a transaction has done, if it is committed.
pub(crate) struct Done {
    /// One a commit, in order.
    pub(crate) outcomes: Vec<Outcome>,
    /// Whether anything was written.
    pub(crate) writes: bool,
    pub(crate) appended: Vec<Recorded>,
}

/// Tries the commits. The transaction has begun, and is to be committed or rolled back.
pub(crate) async fn run(
    log: &Log,
    connection: &mut PgConnection,
    commits: &[&Commit],
    locking: Locking,
) -> sqlx::Result<Done> {
    let mut wanted = Wanted::of(commits);
    let mut state = lock(log, connection, &wanted, locking).await?;
    wanted.keys.retain(|key| !state.rows.contains_key(key));
    claim(log, connection, (&wanted, commits), &mut state).await?;
    // What is still missing is held: locked by others, or made by them in this moment.
    let mut held: HashSet<&Key> =
        wanted.keys.iter().filter(|key| !state.rows.contains_key(key)).collect();
    let all: Vec<Vec<Key>> = commits.iter().map(|commit| keys(commit).collect()).collect();
    let mut accepted = Vec::with_capacity(commits.len());
    for (number, (commit, keys)) in commits.iter().zip(&all).enumerate() {
        if keys.iter().any(|key| held.contains(key)) {
            held.extend(keys.iter().filter(|key| key.is_exclusive()));
            accepted.push(None);
        } else {
            let outcome = match refusal(log, connection, &mut state, commit).await? {
                Some(refusal) => Some(Err(refusal)),
                None => accept(log, connection, &mut state, (number, commit)).await?,
            };
            if outcome.is_none() {
                held.extend(keys.iter().filter(|key| key.is_exclusive()));
            }
            accepted.push(outcome);
        }
    }
    let appended: Vec<usize> = state.appended.iter().map(|entry| entry.commit).collect();
    let writes = accepted
        .iter()
        .zip(commits)
        .any(|(accepted, commit)| matches!(accepted, Some(Ok(()))) && !commit.writes.is_empty());
    let written = if writes { write(log, connection, &state, commits).await? } else { vec![] };
    let positions: Vec<_> = written.iter().map(|entry| entry.position.0).collect();
    let outcomes = outcomes(accepted, (&appended, &positions), state.head);
    Ok(Done { outcomes, writes, appended: written })
}

/// Why a commit is refused, if it is. Rows are locked as they are now, messages were looked up as it was
/// when that began: where a row has changed, the commit's own first try may have done it meanwhile.
async fn refusal(
    log: &Log,
    connection: &mut PgConnection,
    state: &mut State,
    commit: &Commit,
) -> sqlx::Result<Option<CommitError>> {
    let refusal = state.refusal(commit);
    if !matches!(refusal, Some(CommitError::Conflict { .. } | CommitError::Fenced)) {
        return Ok(refusal);
    }
    let (sources, ids): (Vec<_>, Vec<_>) = messages(&commit.writes).unzip();
    if ids.is_empty() {
        return Ok(refusal);
    }
    let query = log.query(&log.sql.known).bind(sources).bind(ids);
    for row in query.fetch_all(connection).await? {
        state.known.insert((text(&row, 0)?, text(&row, 1)?));
    }
    Ok(state.refusal(commit))
}

/// Takes a commit that is not refused, unless SQL of users in it fails, finds its rows held, or has
/// to wait as others took too long.
async fn accept(
    log: &Log,
    connection: &mut PgConnection,
    state: &mut State,
    (number, commit): (usize, &Commit),
) -> sqlx::Result<Option<Result<(), CommitError>>> {
    if state.ran >= run::ENOUGH && run::has_sql(commit) {
        return Ok(None);
    }
    let began = log.clock.elapsed();
    let ended = run::run(log, connection, commit).await?;
    state.ran += log.clock.elapsed().saturating_sub(began);
    Ok(match ended {
        Ended::Done => {
            state.take(number, commit);
            Some(Ok(()))
        }
        Ended::Refused(failure) => Some(Err(CommitError::Sql(failure))),
        Ended::Held => None,
    })
}

/// What a batch is about: rows in the order in which they are locked, and messages.
struct Wanted<'c> {
    keys: Vec<Key>,
    sources: Vec<&'c str>,
    ids: Vec<&'c str>,
}

impl<'c> Wanted<'c> {
    fn of(commits: &[&'c Commit]) -> Self {
        let mut all: Vec<Key> = commits.iter().flat_map(|commit| keys(commit)).collect();
        all.sort_unstable();
        all.dedup();
        let (sources, ids) = messages(commits.iter().flat_map(|commit| &commit.writes)).unzip();
        Wanted { keys: all, sources, ids }
    }

    fn leases<'w>(&'w self) -> Vec<&'w str> {
        let name = |key: &'w Key| match key {
            Key::Lease(name) => Some(&**name),
            _ => None,
        };
        self.keys.iter().filter_map(name).collect()
    }

    fn streams<'w>(&'w self) -> Vec<&'w str> {
        let name = |key: &'w Key| match key {
            Key::Stream(name) => Some(&**name),
            _ => None,
        };
        self.keys.iter().filter_map(name).collect()
    }

    fn documents<'w>(&'w self) -> (Vec<&'w str>, Vec<&'w str>) {
        let names = |key: &'w Key| match key {
            Key::Document(collection, id) => Some((&**collection, &**id)),
            _ => None,
        };
        self.keys.iter().filter_map(names).unzip()
    }

    fn deliveries<'w>(&'w self) -> (Vec<&'w str>, Vec<&'w str>, Vec<&'w str>) {
        let names = |key: &'w Key| match key {
            Key::Delivery(consumer, source, id) => Some((&**consumer, &**source, &**id)),
            _ => None,
        };
        let names: Vec<_> = self.keys.iter().filter_map(names).collect();
        (
            names.iter().map(|names| names.0).collect(),
            names.iter().map(|names| names.1).collect(),
            names.iter().map(|names| names.2).collect(),
        )
    }
}

/// Source and id of messages that are to be new to the log.
fn messages<'c>(
    writes: impl IntoIterator<Item = &'c Write>,
) -> impl Iterator<Item = (&'c str, &'c str)> {
    writes.into_iter().filter_map(|write| match write {
        Write::Append { message, .. } => Some((&*message.source, message.id.as_str())),
        Write::Restore(entry) => Some((&*entry.body.source, entry.body.id.as_str())),
        _ => None,
    })
}

/// Locks the rows that are there.
async fn lock(
    log: &Log,
    connection: &mut PgConnection,
    wanted: &Wanted<'_>,
    locking: Locking,
) -> sqlx::Result<State> {
    let sql = match locking {
        Locking::PassOver => &log.sql.lock,
        Locking::Wait => &log.sql.lock_waiting,
    };
    let (collections, documents) = wanted.documents();
    let (consumers, sources, ids) = wanted.deliveries();
    let query = log
        .query(sql)
        .bind(wanted.leases())
        .bind(wanted.streams())
        .bind(collections)
        .bind(documents)
        .bind(consumers)
        .bind(sources)
        .bind(ids)
        .bind(&wanted.sources[..])
        .bind(&wanted.ids[..])
        .bind(log.sequence);
    let mut state = State::default();
    let mut leases = HashSet::new();
    for row in query.fetch_all(connection).await? {
        found(&mut state, &mut leases, &row)?;
    }
    // A lease that nobody ever had cannot be claimed: it is absent.
    for key in &wanted.keys {
        if let Key::Lease(name) = key
            && !leases.contains(name)
        {
            state.rows.insert(key.clone(), Row::default());
        }
    }
    Ok(state)
}

/// A row of the statement `lock`.
fn found(state: &mut State, leases: &mut HashSet<Text>, row: &PgRow) -> sqlx::Result<()> {
    let number = || unsigned(row, 6);
    let (key, value) = match row.try_get::<i32, _>(0)? {
        0 => (Key::Lease(text(row, 1)?), Value::Epoch(number()?)),
        1 => (Key::Stream(text(row, 1)?), Value::Version(number()?)),
        2 => {
            let (version, sort) = (number()?, optional_text(row, 5)?);
            let key = Key::Document(text(row, 1)?, text(row, 2)?);
            (key, Value::Document { version, sort, body: None })
        }
        3 => {
            let key = Key::Delivery(text(row, 1)?, text(row, 2)?, text(row, 3)?);
            let until = match optional_text(row, 5)? {
                Some(partition) => Some((partition, number()?)),
                None => None,
            };
            (key, Value::Decided { decision: decision(row.try_get(4)?)?, until })
        }
        4 => {
            state.known.insert((text(row, 1)?, text(row, 2)?));
            return Ok(());
        }
        5 => {
            state.now = Timestamp::from_micros(row.try_get(6)?);
            return Ok(());
        }
        6 => {
            state.head = number()?;
            return Ok(());
        }
        _ => {
            leases.insert(text(row, 1)?);
            return Ok(());
        }
    };
    state.rows.insert(key, Row { value: Some(value), ..Row::default() });
    Ok(())
}

/// Claims the wanted rows, which are absent. A document that will be put once is claimed as that,
/// so that most are written once.
async fn claim(
    log: &Log,
    connection: &mut PgConnection,
    (absent, commits): (&Wanted<'_>, &[&Commit]),
    state: &mut State,
) -> sqlx::Result<()> {
    if !absent.keys.iter().any(Key::is_exclusive) {
        return Ok(());
    }
    let (collections, documents) = absent.documents();
    let puts = Puts::of(commits);
    let puts: Vec<_> = collections
        .iter()
        .zip(&documents)
        .map(|(collection, id)| puts.get(collection, id))
        .collect();
    let sorts: Vec<_> = puts.iter().map(|put| put.and_then(|put| state.sort(put.0))).collect();
    let (consumers, sources, ids) = absent.deliveries();
    let query = log
        .query(&log.sql.claim)
        .bind(absent.streams())
        .bind(collections)
        .bind(documents)
        .bind(puts.iter().map(|put| i64::from(put.is_some())).collect::<Vec<_>>())
        .bind(sorts.iter().map(Option::as_deref).collect::<Vec<_>>())
        .bind(puts.iter().map(|put| put.map_or(&[][..], |put| put.1)).collect::<Vec<_>>())
        .bind(consumers)
        .bind(sources)
        .bind(ids);
    for row in query.fetch_all(connection).await? {
        let key = match row.try_get::<i32, _>(0)? {
            1 => Key::Stream(text(&row, 1)?),
            2 => Key::Document(text(&row, 1)?, text(&row, 2)?),
            _ => Key::Delivery(text(&row, 1)?, text(&row, 2)?, text(&row, 3)?),
        };
        let filled = row.try_get::<Option<i64>, _>(4)? == Some(1);
        state.rows.insert(key, Row { claimed: true, filled, ..Row::default() });
    }
    Ok(())
}

/// Writes what accepted commits wrote, takes claims of others back, and answers what was appended.
async fn write(
    log: &Log,
    connection: &mut PgConnection,
    state: &State,
    commits: &[&Commit],
) -> sqlx::Result<Vec<Recorded>> {
    for (consumer, partition, through) in &state.forgotten {
        let query = log.query(&log.sql.forget).bind(&**consumer).bind(&**partition);
        query.bind(signed(*through)).execute(&mut *connection).await?;
    }
    trim(log, connection, state).await?;
    let mut changes = Changes::default();
    for (key, row) in &state.rows {
        changes.push(key, row);
    }
    let mut entries = Entries::default();
    for entry in &state.appended {
        if let Write::Append { stream, message } = &commits[entry.commit].writes[entry.write] {
            entries.push(stream.as_deref().map(|stream| (stream, entry.version)), message);
        }
    }
    let query = changes.bind(log.query(&log.sql.write), state.now);
    let query = entries.bind(query).bind(log.oid).bind(log.sequence);
    let positions = positions(&query.fetch_all(connection).await?, entries.len())?;
    Ok(entries.recorded(&positions))
}

/// Removes entries, and puts others back.
async fn trim(log: &Log, connection: &mut PgConnection, state: &State) -> sqlx::Result<()> {
    if !state.trimmed.is_empty() || !state.restored.is_empty() {
        log.query(&log.sql.rewritten).execute(&mut *connection).await?;
    }
    for (stream, through) in &state.trimmed {
        let query = match stream {
            Some(stream) => log.query(&log.sql.trim_stream).bind(&**stream),
            None => log.query(&log.sql.trim),
        };
        query.bind(signed(*through)).execute(&mut *connection).await?;
    }
    if state.restored.is_empty() {
        return Ok(());
    }
    let (mut entries, mut places) = (Entries::default(), vec![]);
    for entry in &state.restored {
        let place = entry.stream.as_ref().map(|(stream, version)| (&**stream, version.0));
        entries.push(place, &entry.body);
        places.push(signed(entry.position.0));
    }
    let query = entries.bind(log.query(&log.sql.restore).bind(places));
    query.execute(connection).await.map(drop)
}

/// Rows to be written, a column an array.
#[derive(Default)]
struct Changes<'s> {
    streams: (Vec<&'s str>, Vec<i64>),
    put: (Vec<&'s str>, Vec<&'s str>),
    put_values: (Vec<i64>, Vec<Option<&'s str>>, Vec<&'s [u8]>),
    deleted: (Vec<&'s str>, Vec<&'s str>),
    decided: (Vec<&'s str>, Vec<&'s str>, Vec<&'s str>),
    decided_values: (Vec<&'static str>, Vec<Option<&'s str>>, Vec<Option<i64>>),
    undecided: (Vec<&'s str>, Vec<&'s str>, Vec<&'s str>),
}

impl<'s> Changes<'s> {
    fn push(&mut self, key: &'s Key, row: &'s Row) {
        if !row.written && !row.claimed {
            return;
        }
        match (key, &row.value) {
            (Key::Lease(_), _) => {}
            (Key::Stream(name), value) => {
                let version = match value {
                    Some(Value::Version(version)) => *version,
                    _ => 0,
                };
                self.streams.0.push(name);
                self.streams.1.push(signed(version));
            }
            (Key::Document(..), Some(_)) if row.filled => {}
            (Key::Document(collection, id), Some(Value::Document { version, sort, body })) => {
                self.put.0.push(collection);
                self.put.1.push(id);
                self.put_values.0.push(signed(*version));
                self.put_values.1.push(sort.as_deref());
                self.put_values.2.push(body.as_deref().unwrap_or_default());
            }
            (Key::Document(collection, id), _) => {
                self.deleted.0.push(collection);
                self.deleted.1.push(id);
            }
            (Key::Delivery(consumer, source, id), Some(Value::Decided { decision, until })) => {
                push(&mut self.decided, (consumer, source, id));
                self.decided_values.0.push(Decision::as_str(*decision));
                self.decided_values.1.push(until.as_ref().map(|(partition, _)| &**partition));
                self.decided_values.2.push(until.as_ref().map(|(_, offset)| signed(*offset)));
            }
            (Key::Delivery(consumer, source, id), _) => {
                push(&mut self.undecided, (consumer, source, id));
            }
        }
    }

    /// As nineteen arguments.
    fn bind(self, query: rows::Bound, now: Timestamp) -> rows::Bound {
        let at = vec![now.as_micros(); self.decided.0.len()];
        query
            .bind(self.streams.0)
            .bind(self.streams.1)
            .bind(self.put.0)
            .bind(self.put.1)
            .bind(self.put_values.0)
            .bind(self.put_values.1)
            .bind(self.put_values.2)
            .bind(self.deleted.0)
            .bind(self.deleted.1)
            .bind(self.decided.0)
            .bind(self.decided.1)
            .bind(self.decided.2)
            .bind(self.decided_values.0)
            .bind(self.decided_values.1)
            .bind(self.decided_values.2)
            .bind(at)
            .bind(self.undecided.0)
            .bind(self.undecided.1)
            .bind(self.undecided.2)
    }
}

fn push<'s>(
    columns: &mut (Vec<&'s str>, Vec<&'s str>, Vec<&'s str>),
    (a, b, c): (&'s str, &'s str, &'s str),
) {
    columns.0.push(a);
    columns.1.push(b);
    columns.2.push(c);
}

/// The answers: each accepted commit has the position of its last entry, or of what was the end of
/// the log at its turn.
fn outcomes(
    accepted: Vec<Option<Result<(), CommitError>>>,
    (appended, positions): (&[usize], &[u64]),
    head: u64,
) -> Vec<Outcome> {
    let (mut last, mut entries) = (head, 0);
    let mut outcomes = Vec::with_capacity(accepted.len());
    for (number, accepted) in accepted.into_iter().enumerate() {
        while appended.get(entries).is_some_and(|commit| *commit <= number) {
            last = positions.get(entries).copied().unwrap_or(last);
            entries += 1;
        }
        let committed = Committed { position: Position(last) };
        outcomes.push(accepted.map(|accepted| accepted.map(|()| committed)));
    }
    outcomes
}
