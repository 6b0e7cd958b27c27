//! Retention: entries that belong to no stream leave the log once every reader has passed them and
//! they are old enough.
//!
//! ```
//! # use sillage::{App, Database};
//! # use std::{sync::Arc, time::Duration};
//! # fn doc(database: Arc<dyn Database>) -> App {
//! App::new(database).retention(Duration::from_secs(30 * 24 * 3600))
//! # }
//! ```
//!
//! Streams are history and stay. How old an entry is says neither its
//! message nor its producer: the trimmer notes now and then where the log ends, on the database's
//! time, so the first entries go one retention after it was switched on.
//!
//! *Guarantees.* Nothing is removed that a consumer of the log, the relay, a generation of a
//! projection or a parked delivery still needs. A reader that is new, or goes back, says so in the
//! commit that makes it one, and every trim is conditional on nobody having done so since the readers
//! were looked at. One process trims at a time, under a lease, in commits of at most 500 positions.

use crate::{
    archive::archived_through,
    consumer::HORIZON,
    log_broker::{EMBEDDED, passed},
    names,
    projection::{Generations, checkpoints},
    runtime::{health::Vital, parking::Parked},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sillage_core::{
    Clock, Commit, CommitError, Condition, Database, Epoch, Error, ErrorKind, Filter, Position,
    Result, Text, Timestamp, Version, Write,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The shortest retention. A commit that is tried again, or a message that a broker brings again, is
/// known by its entry: for as long as brokers may do so.
pub const SHORTEST: Duration = HORIZON;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(600);
/// Where the log ended is noted so many times a retention.
const NOTES: u32 = 64;
/// Positions of one commit, and the pause behind it.
const STEP: (u64, Duration) = (500, Duration::from_millis(50));
const LEASE: (&str, Duration) = ("retention", Duration::from_secs(30));
/// The document of what was trimmed and noted, and the one that readers change.
const LOG: &str = "log";
const READERS: &str = "readers";

/// How the log is trimmed, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Seconds.
    pub(crate) keep: u64,
    /// Where the log ended, and when.
    notes: Vec<(Position, Timestamp)>,
}

impl State {
    /// Notes where the log ends, unless that was done not long ago.
    fn note(&mut self, end: Position, now: Timestamp) -> bool {
        let pause = Duration::from_secs(self.keep) / NOTES;
        let due = self.notes.last().is_none_or(|(_, then)| now.since(*then) >= pause);
        if due {
            self.notes.push((end, now));
        }
        due
    }

    /// Up to where entries are old enough; what was noted before that is forgotten.
    pub(crate) fn due(&mut self, now: Timestamp) -> Position {
        let keep = Duration::from_secs(self.keep);
        let old = self.notes.partition_point(|(_, then)| now.since(*then) >= keep);
        self.notes.drain(..old.saturating_sub(1));
        if old == 0 { Position(0) } else { self.notes[0].0 }
    }
}

/// Somebody who reads the log, and up to where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogReader {
    /// `consumer shop/billing`, `projection shop/orders@1`, `parked shop/billing/order/o-1`.
    pub name: String,
    /// It needs nothing up to here any more.
    pub position: Position,
}

/// A reader is new or goes back: part of the commit that makes it so.
pub(crate) fn joins() -> Write {
    let (collection, id) = (names::RETENTION.into(), READERS.into());
    Write::Put { collection, id, sort: None, body: "{}".into() }
}

/// Everybody who reads the log, the last one first, and what must still be so for a trim.
pub(crate) async fn readers(database: &dyn Database) -> Result<(Vec<LogReader>, Vec<Condition>)> {
    // Before anything else: whoever joins later changes it.
    let mut unchanged = vec![unchanged(database, names::RETENTION, READERS).await?];
    let mut found = vec![];
    for stored in names::all(database, names::MANIFESTS, "").await? {
        let manifest: Value = serde_json::from_slice(&stored.body)?;
        if manifest["broker"].as_str() != Some(EMBEDDED) {
            continue;
        }
        let consumers = manifest["consumers"].as_array().into_iter().flatten();
        // One that is told everything from now on has no place to go on from.
        for consumer in consumers.filter(|consumer| consumer["broadcast"] != true) {
            let consumer = consumer["name"].as_str().unwrap_or_default();
            let slots = passed(database, consumer).await?.into_iter();
            let position = Position(slots.map(Option::unwrap_or_default).min().unwrap_or_default());
            found.push(LogReader { name: format!("consumer {consumer}"), position });
        }
    }
    for stored in names::all(database, names::PROJECTIONS, "").await? {
        let of: Generations = serde_json::from_slice(&stored.body)?;
        for generation in of.all() {
            let [(at, _), _] = checkpoints(database, &stored.id, [generation, generation]).await?;
            let name = crate::projection::checkpoint(&stored.id, &generation.tag);
            found.push(LogReader { name: format!("projection {name}"), position: at.position });
        }
        unchanged.push(document(names::PROJECTIONS, stored.id, Some(stored.version)));
    }
    // After the consumers: what their watermarks have passed is parked before that.
    for stored in names::all(database, names::PARKED, "").await? {
        let parked: Parked = serde_json::from_slice(&stored.body)?;
        if let Some(position) = parked.position {
            let position = Position(position.0.saturating_sub(1));
            found.push(LogReader { name: format!("parked {}", stored.id), position });
        }
    }
    found.sort_by_key(|reader| reader.position);
    Ok((found, unchanged))
}

/// How the log is trimmed; `None`: no app has switched it on.
pub(crate) async fn stored(database: &dyn Database) -> Result<Option<(State, Version)>> {
    let stored = database.get(names::RETENTION, &[LOG]).await?.pop().flatten();
    stored.map(|stored| Ok((serde_json::from_slice(&stored.body)?, stored.version))).transpose()
}

/// Up to where entries without a stream are gone.
pub(crate) async fn trimmed_before(database: &dyn Database) -> Result<Position> {
    Ok(database.log(Position(0), &Filter::default(), 0).await?.trimmed_before)
}

/// That nothing behind this position was removed: an error where something was.
pub(crate) async fn all_from(database: &dyn Database, after: Position) -> Result<()> {
    let gone = trimmed_before(database).await?;
    let archived = archived_through(database).await?;
    let what = if gone > after {
        format!("entries up to position {gone} were trimmed from the log: begin behind that")
    } else if archived > after {
        format!(
            "streams with entries up to position {archived} are archived: restore them (`sillage \
             streams list` shows which), or begin behind that"
        )
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Trimmed, what))
}

async fn unchanged(database: &dyn Database, collection: &str, id: &str) -> Result<Condition> {
    let stored = database.get(collection, &[id]).await?.pop().flatten();
    Ok(document(collection, id, stored.map(|stored| stored.version)))
}

fn document(collection: &str, id: impl Into<Text>, expected: Option<Version>) -> Condition {
    Condition::Document { collection: collection.into(), id: id.into(), expected }
}

/// Trims the log of one database.
pub(crate) struct Trimmer {
    pub(crate) database: Arc<dyn Database>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) vital: Arc<Vital>,
    pub(crate) stop: CancellationToken,
    pub(crate) keep: Duration,
}

impl Trimmer {
    pub(crate) async fn run(self) {
        let owner = Uuid::from_bytes(rand::random());
        while !self.stop.is_cancelled() {
            let failed = self.look(owner).await.err().map(|error| error.to_string());
            self.vital.problem("retention", failed);
            let _ = self.database.lease(LEASE.0, owner, Duration::ZERO).await;
            self.pause(PERIOD).await;
        }
    }

    async fn pause(&self, length: Duration) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            () = self.clock.sleep(length) => {}
        }
    }

    /// One look, by the process that has the lease.
    async fn look(&self, owner: Uuid) -> Result<()> {
        let Some(epoch) = self.database.lease(LEASE.0, owner, LEASE.1).await? else {
            return Ok(());
        };
        let (mut state, version) = stored(&*self.database).await?.unzip();
        let mut state = state.take().unwrap_or_default();
        let (before, now) = (state.clone(), self.database.now().await?);
        state.keep = self.keep.as_secs();
        state.note(self.database.head().await?.stable, now);
        let due = state.due(now);
        if state != before {
            let mut commit = fenced(epoch);
            commit.conditions.push(document(names::RETENTION, LOG, version));
            let body = serde_json::to_vec(&state)?.into();
            let (collection, id) = (names::RETENTION.into(), LOG.into());
            commit.writes.push(Write::Put { collection, id, sort: None, body });
            if !self.commit(commit).await? {
                return Ok(());
            }
        }
        self.trim(owner, epoch, due).await
    }

    /// Up to there, as far as everybody has read; somebody who joins ends it until the next look.
    async fn trim(&self, owner: Uuid, epoch: Epoch, due: Position) -> Result<()> {
        let mut at = trimmed_before(&*self.database).await?;
        if at >= due {
            return Ok(());
        }
        let (readers, unchanged) = readers(&*self.database).await?;
        let last = readers.first().map_or(due, |reader| reader.position.min(due));
        if let Some(reader) = readers.first().filter(|reader| reader.position < due) {
            tracing::info!(reader = reader.name, position = %reader.position, "holds back retention");
        }
        while at < last && !self.stop.is_cancelled() {
            if self.database.lease(LEASE.0, owner, LEASE.1).await? != Some(epoch) {
                return Ok(());
            }
            at = Position((at.0 + STEP.0).min(last.0));
            let mut commit = fenced(epoch);
            commit.conditions.extend(unchanged.iter().cloned());
            commit.writes.push(Write::Trim { stream: None, through: at });
            if !self.commit(commit).await? {
                return Ok(());
            }
            self.pause(STEP.1).await;
        }
        Ok(())
    }

    /// False where somebody else was first.
    async fn commit(&self, commit: Commit) -> Result<bool> {
        match self.database.commit(vec![commit]).await.pop() {
            Some(Ok(_)) => Ok(true),
            Some(Err(CommitError::Rejected(error) | CommitError::Failed(error))) => Err(error),
            Some(Err(_)) => Ok(false),
            None => Err(Error::unavailable("the database gave no answer")),
        }
    }
}

fn fenced(epoch: Epoch) -> Commit {
    let lease = Condition::Lease { name: LEASE.0.into(), epoch };
    Commit { conditions: vec![lease], writes: vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sillage_testkit::{ManualClock, Memory};

    /// Between the look at the readers and the trim somebody joins, or a projection begins again.
    #[tokio::test]
    async fn a_reader_that_joins_meanwhile_is_not_passed() {
        let database = Memory::new(Arc::new(ManualClock::default()));
        let projection = || Write::Put {
            collection: names::PROJECTIONS.into(),
            id: "shop/orders".into(),
            sort: None,
            body: serde_json::to_vec(&Generations::first("orders", 1, Timestamp::default()))
                .unwrap()
                .into(),
        };
        let commit = async |conditions, write| {
            let commit = Commit { conditions, writes: vec![write] };
            database.commit(vec![commit]).await.pop().unwrap()
        };
        commit(vec![], projection()).await.unwrap();
        let trim = || Write::Trim { stream: None, through: Position(0) };
        for joining in [joins(), joins(), projection()] {
            let (_, unchanged) = readers(&database).await.unwrap();
            commit(unchanged.clone(), trim()).await.unwrap();
            commit(vec![], joining).await.unwrap();
            let refused = commit(unchanged, trim()).await.unwrap_err();
            assert!(matches!(refused, CommitError::Conflict { .. }), "{refused}");
        }
    }

    #[test]
    fn entries_are_old_enough_one_retention_after_they_were_seen() {
        let hours = |hours: i64| Timestamp::from_micros(hours * 3_600_000_000);
        let mut state = State { keep: 64 * 3600, ..State::default() };
        for hour in 0..200 {
            let end = Position(u64::try_from(hour).unwrap() * 10);
            state.note(end, hours(hour));
            let due = state.due(hours(hour)).0;
            let then = u64::try_from(hour - 64).unwrap_or(0) * 10;
            assert_eq!(due, then, "hour {hour}");
            assert!(state.notes.len() <= 66, "{}", state.notes.len());
        }
        assert!(!state.note(Position(5_000), hours(199)), "once a 64th of it");
    }
}
