//! Random batches of random commits, to the database under test and to [`Memory`]: the same
//! answers, the same log, documents, decisions and leases.
//!
//! Positions and epochs may have gaps, so places in the log are compared, not positions, and
//! each database is given its own epochs. Times may differ by what the two clocks differ.

use super::super::{DatabaseFixture, values::*};
use crate::{ManualClock, Memory};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use sillage_core::{
    Clock, Commit, CommitError, Committed, Condition, Decision, Delivered, Epoch, Expected, Filter,
    Message, Position, Range, Recorded, Result, Sort, Stored, Text, Timestamp, Version, Write,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use uuid::Uuid;

const ROUNDS: u64 = 12;
const BATCHES: usize = 40;
const STREAMS: [&str; 3] = ["a-1", "a-10", "b"];
const COLLECTIONS: [&str; 2] = ["c", "d"];
const DOCUMENTS: [&str; 4] = ["x", "x/1", "x/2", "y"];
const SORTS: [&str; 5] = ["k0", "k1", "k2", "k3", "k4"];
const CONSUMERS: [&str; 2] = ["shop/k", "shop/l"];
const LEASES: [&str; 2] = ["l", "m"];
const SOON: Duration = Duration::from_millis(50);
const DELAYS: [Duration; 3] = [Duration::ZERO, SOON, secs(24 * 3600)];

/// The database answers as [`Memory`] does to whatever is committed, and holds the same after.
pub async fn equivalent_to_memory<F: DatabaseFixture>(fixture: &F) {
    let mut pair = Pair::new(fixture).await;
    for round in 0..ROUNDS {
        let mut random = Random::new(round);
        for batch in 0..BATCHES {
            let place = format!("round {round}, batch {batch}");
            pair.lease(&mut random, &place).await;
            let commits = random.batch(&pair).await;
            pair.commit(commits, &place).await;
        }
        fixture.pass(SOON * 2).await;
        pair.compare(&mut random, &format!("round {round}")).await;
    }
    let often = |kind: &str| pair.answers.get(kind).is_some_and(|count| *count > 25);
    let kinds = ["accepted", "already handled", "conflict", "fenced", "rejected"];
    assert!(kinds.into_iter().all(often), "this says little: {:?}", pair.answers);
}

/// The database under test by two handles, and what it must agree with.
struct Pair {
    handles: [Handle; 2],
    memory: Handle,
    clock: Arc<ManualClock>,
    /// Both logs, as far as they were read.
    tested: Vec<Recorded>,
    reference: Vec<Recorded>,
    /// Epochs that were given out: lease, in the database under test, in memory.
    epochs: Vec<(&'static str, Epoch, Epoch)>,
    /// How often each kind of answer was given.
    answers: BTreeMap<&'static str, usize>,
}

impl Pair {
    async fn new<F: DatabaseFixture>(fixture: &F) -> Self {
        let handles = [fixture.open().await, fixture.open().await];
        let clock = Arc::new(ManualClock::new(handles[0].now().await.unwrap()));
        let memory = Arc::new(Memory::new(clock.clone()));
        let (tested, reference, epochs) = Default::default();
        let answers = BTreeMap::new();
        Pair { handles, memory, clock, tested, reference, epochs, answers }
    }

    async fn synchronise(&self) {
        let now = self.handles[0].now().await.unwrap();
        self.clock.advance(now.since(self.clock.now()));
    }

    /// Takes or gives back a lease in both.
    async fn lease(&mut self, random: &mut Random, place: &str) {
        self.synchronise().await;
        let (name, owner) = (random.of(LEASES), Uuid::from_u128(random.of([1, 2])));
        let ttl = if random.chance(30) { Duration::ZERO } else { secs(3600) };
        let tested = self.handles[0].lease(name, owner, ttl).await.unwrap();
        let reference = self.memory.lease(name, owner, ttl).await.unwrap();
        if ttl.is_zero() {
            return;
        }
        assert_eq!(tested.is_some(), reference.is_some(), "{place}: lease `{name}`");
        if let (Some(tested), Some(reference)) = (tested, reference) {
            let given = (name, tested, reference);
            let same =
                |(n, t, r): &&(&str, Epoch, Epoch)| *n == name && (*t == tested || *r == reference);
            match self.epochs.iter().find(same) {
                Some(known) => assert_eq!(*known, given, "{place}"),
                None => self.epochs.push(given),
            }
        }
    }

    /// The commit with the epochs of the database under test.
    fn translated(&self, mut commit: Commit) -> Commit {
        for condition in &mut commit.conditions {
            if let Condition::Lease { name, epoch } = condition {
                let known = self.epochs.iter().find(|(n, _, r)| *n == &**name && r == epoch);
                *epoch = known.map_or(Epoch(u64::MAX >> 1), |(_, tested, _)| *tested);
            }
        }
        commit
    }

    async fn commit(&mut self, batch: Vec<Commit>, place: &str) {
        self.synchronise().await;
        let translated = batch.iter().map(|commit| self.translated(commit.clone())).collect();
        let handle = &self.handles[batch.len() % 2];
        let tested = handle.commit(translated).await;
        let reference = self.memory.commit(batch.clone()).await;
        assert_eq!(tested.len(), batch.len(), "{place}");
        read_on(handle, &mut self.tested).await;
        read_on(&self.memory, &mut self.reference).await;
        for ((tested, reference), commit) in tested.iter().zip(&reference).zip(&batch) {
            let shown = || format!("{place}: {tested:?}, not {reference:?}, to {commit:?}");
            assert!(same_answer(tested, reference), "{}", shown());
            *self.answers.entry(kind(reference)).or_default() += 1;
            if let (Ok(tested), Ok(reference)) = (tested, reference) {
                let (tested, reference) =
                    (rank(&self.tested, *tested), rank(&self.reference, *reference));
                // One without entries answers the head, which others may have moved meanwhile.
                let appends = commit.writes.iter().any(|w| matches!(w, Write::Append { .. }));
                assert!(tested == reference || !appends && tested > reference, "{}", shown());
            }
        }
        same_entries(&self.tested, &self.reference, place);
    }

    async fn compare(&self, random: &mut Random, place: &str) {
        self.synchronise().await;
        for handle in &self.handles {
            self.compare_log(handle, random, place).await;
            self.compare_documents(handle, random, place).await;
            for consumer in CONSUMERS {
                let all: Vec<(Text, Text)> =
                    (0..IDS).map(|id| ("test".into(), id.to_string().into())).collect();
                let tested = handle.decisions(consumer, &all).await.unwrap();
                assert_eq!(tested, self.memory.decisions(consumer, &all).await.unwrap(), "{place}");
            }
        }
    }

    async fn compare_log(&self, handle: &Handle, random: &mut Random, place: &str) {
        same_entries(&log(handle).await, &self.reference, place);
        for name in STREAMS {
            let (after, max) = (Version(random.below(60).into()), random.size());
            let tested = handle.stream(name, after, max).await.unwrap();
            let reference = self.memory.stream(name, after, max).await.unwrap();
            same_entries(&tested, &reference, &format!("{place}: {name} after {after}, {max}"));
        }
        for _ in 0..8 {
            let (filter, max) = (random.filter(), random.size());
            let place = format!("{place}: {filter:?} in pages of {max}");
            let tested = pages(handle, &filter, max).await;
            same_entries(&tested, &pages(&self.memory, &filter, max).await, &place);
        }
    }

    async fn compare_documents(&self, handle: &Handle, random: &mut Random, place: &str) {
        for collection in COLLECTIONS {
            let asked = [(); 6].map(|()| random.of(["none", "y", "x/2", "x/1", "x"]));
            let tested = handle.get(collection, &asked).await.unwrap();
            let reference = self.memory.get(collection, &asked).await.unwrap();
            for (tested, reference) in tested.iter().zip(&reference) {
                same_documents(tested.as_slice(), reference.as_slice(), place);
            }
            let mut due = handle.list(collection, Range::Due, ALL).await.unwrap();
            let mut expected = self.memory.list(collection, Range::Due, ALL).await.unwrap();
            due.sort_by(|a, b| a.id.cmp(&b.id));
            expected.sort_by(|a, b| a.id.cmp(&b.id));
            same_documents(&due, &expected, &format!("{place}: due"));
            for _ in 0..8 {
                let (range, max) = (random.range(), random.size());
                let tested = handle.list(collection, range, max).await.unwrap();
                let reference = self.memory.list(collection, range, max).await.unwrap();
                same_documents(&tested, &reference, &format!("{place}: {range:?}, {max}"));
            }
        }
    }
}

async fn read_on(database: &Handle, entries: &mut Vec<Recorded>) {
    let last = entries.last().map_or(Position(0), |entry| entry.position);
    entries.extend(page(database, last, ALL).await.entries);
}

async fn pages(database: &Handle, filter: &Filter, max: usize) -> Vec<Recorded> {
    let (mut seen, mut checkpoint) = (vec![], Position(0));
    let head = database.head().await.unwrap().stable;
    while checkpoint < head {
        let page = database.log(checkpoint, filter, max).await.unwrap();
        assert!(page.through > checkpoint);
        seen.extend(page.entries);
        checkpoint = page.through;
    }
    seen
}

/// How many entries there are up to the position.
fn rank(log: &[Recorded], committed: Committed) -> usize {
    log.partition_point(|entry| entry.position <= committed.position)
}

fn kind(answer: &Result<Committed, CommitError>) -> &'static str {
    match answer {
        Ok(_) => "accepted",
        Err(CommitError::AlreadyHandled) => "already handled",
        Err(CommitError::Conflict { .. }) => "conflict",
        Err(CommitError::Fenced) => "fenced",
        Err(CommitError::Held(_)) => "held",
        Err(CommitError::Rejected(_)) => "rejected",
        Err(CommitError::Sql(_)) => "sql failed",
        Err(CommitError::Failed(_)) => "failed",
    }
}

/// Whether two answers are of one kind, with the same versions.
fn same_answer(
    tested: &Result<Committed, CommitError>,
    reference: &Result<Committed, CommitError>,
) -> bool {
    let versions = |answer: &Result<Committed, CommitError>| match answer {
        Err(CommitError::Conflict { expected, actual }) => Some((*expected, *actual)),
        _ => None,
    };
    kind(tested) == kind(reference) && versions(tested) == versions(reference)
}

fn same_entries(tested: &[Recorded], reference: &[Recorded], place: &str) {
    assert_eq!(ids(tested), ids(reference), "{place}");
    for (tested, reference) in tested.iter().zip(reference) {
        assert_eq!(tested.stream, reference.stream, "{place}: {tested:?}");
        assert_eq!(tested.body, reference.body, "{place}");
    }
}

fn same_documents(tested: &[Stored], reference: &[Stored], place: &str) {
    let shown = || format!("{place}: {tested:?}, not {reference:?}");
    assert_eq!(tested.len(), reference.len(), "{}", shown());
    for (a, b) in tested.iter().zip(reference) {
        assert_eq!((&a.id, a.version, &a.body), (&b.id, b.version, &b.body), "{}", shown());
        assert!(same_sort(a.sort.as_deref(), b.sort.as_deref()), "{}", shown());
    }
}

/// Whether two sort keys are the same, or times as near as the two clocks were.
fn same_sort(a: Option<&str>, b: Option<&str>) -> bool {
    let time = |sort: Option<&str>| sort?.parse::<Timestamp>().ok();
    match (time(a), time(b)) {
        (Some(a), Some(b)) => a.since(b).max(b.since(a)) < secs(60),
        _ => a == b,
    }
}

/// How many ids of deliveries there are, and of messages that are appended again and again.
const IDS: u32 = 30;

struct Random {
    numbers: SmallRng,
    /// The last fresh id of a message.
    last: String,
}

impl Random {
    fn new(seed: u64) -> Self {
        Random { numbers: SmallRng::seed_from_u64(seed), last: String::new() }
    }

    fn below(&mut self, end: u32) -> u32 {
        self.numbers.random_range(0..end)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    fn of<T: Copy, const N: usize>(&mut self, choice: [T; N]) -> T {
        choice[self.numbers.random_range(0..N)]
    }

    /// A page size: small, or everything.
    fn size(&mut self) -> usize {
        self.of([1, 2, 3, 10, 100, ALL])
    }

    async fn batch(&mut self, pair: &Pair) -> Vec<Commit> {
        let mut commits = vec![];
        for _ in 0..=self.below(8) {
            let mut commit = Commit::default();
            for _ in 0..self.of([0, 1, 1, 2, 3]) {
                commit.conditions.push(self.condition(pair).await);
            }
            for _ in 0..self.of([0, 1, 2, 2, 3, 5]) {
                commit.writes.push(self.write());
            }
            commits.push(commit);
        }
        commits
    }

    /// Mostly one that holds at the start of the batch, or a little later in it.
    async fn condition(&mut self, pair: &Pair) -> Condition {
        let later = self.of([0, 0, 0, 1, 2, 9]);
        match self.below(6) {
            0 => Condition::FirstTime(self.delivery()),
            1 => Condition::Decided(self.delivery(), self.decision()),
            2 => {
                let name = self.of(STREAMS);
                let version = stream(&pair.memory, name).await.len() as u64;
                let exact = exact(version + later);
                stream_is(name, self.of([Expected::Any, Expected::NoStream, exact, exact, exact]))
            }
            3 => {
                let (collection, id) = (self.of(COLLECTIONS), self.of(DOCUMENTS));
                let version = version(&pair.memory, collection, id).await + later;
                document_is(collection, id, (version > 0).then_some(version))
            }
            4 => below(self.of(COLLECTIONS), self.of(DOCUMENTS), self.of(SORTS)),
            _ => {
                let recent = pair.epochs.len().saturating_sub(usize::from(self.chance(20)));
                match pair.epochs[..recent].last() {
                    Some((name, _, epoch)) => lease_is(name, *epoch),
                    None => lease_is(self.of(LEASES), Epoch(1)),
                }
            }
        }
    }

    fn write(&mut self) -> Write {
        let (collection, id) = (self.of(COLLECTIONS).into(), self.of(DOCUMENTS).into());
        match self.below(12) {
            0..4 => {
                let stream = self.chance(75).then(|| self.of(STREAMS).into());
                Write::Append { stream, message: Arc::new(self.message()) }
            }
            4..8 => {
                let body = self.numbers.random::<[u8; 4]>().to_vec().into();
                Write::Put { collection, id, sort: self.sort(), body }
            }
            8 => Write::Delete { collection, id },
            9 | 10 => {
                let bound = self.chance(60);
                let until = bound.then(|| (self.of(["p", "q"]).into(), self.below(20).into()));
                Write::Decide { delivery: self.delivery(), decision: self.decision(), until }
            }
            _ => {
                let consumer = self.of(CONSUMERS).into();
                let partition = self.of(["p", "q"]).into();
                Write::Forget { consumer, partition, through: self.below(20).into() }
            }
        }
    }

    fn sort(&mut self) -> Option<Sort> {
        match self.below(10) {
            0..2 => None,
            2..8 => Some(text(self.of(SORTS))),
            _ => Some(Sort::After(self.of(DELAYS))),
        }
    }

    /// A new message, now and then one that was there before or that no database takes.
    fn message(&mut self) -> Message {
        let id = match self.below(100) {
            0 => "x".repeat(12_000),
            1 => "a\0b".to_owned(),
            2..8 => self.below(IDS).to_string(),
            8..16 => self.last.clone(),
            _ => format!("{:016x}", self.numbers.random::<u64>()),
        };
        if id.len() == 16 {
            self.last.clone_from(&id);
        }
        Message {
            source: self.of(["test", "test", "foreign"]).into(),
            topic: self.of([None, Some("t"), Some("t.u")]).map(Text::from),
            name: self.of(["t.a", "t.b", "t.c"]).into(),
            correlation_id: self.of(["f", "g", "h"]).into(),
            payload: self.numbers.random::<[u8; 8]>().to_vec().into(),
            ..message(&id)
        }
    }

    fn delivery(&mut self) -> Delivered {
        delivered(self.of(CONSUMERS), &self.below(IDS).to_string())
    }

    fn decision(&mut self) -> Decision {
        self.of([Decision::Done, Decision::Parked, Decision::Skipped, Decision::Replaced])
    }

    fn filter(&mut self) -> Filter {
        let mut some = |of: &[&str]| -> Vec<Text> {
            let chosen = of.iter().filter(|_| self.chance(40));
            chosen.map(|text| Text::from(*text)).collect()
        };
        let (topics, names) = (some(&["t", "t.u", "none"]), some(&["t.a", "t.b", "t.c"]));
        let stream = self.chance(30).then(|| self.of(STREAMS).into());
        let correlation_id = self.chance(30).then(|| self.of(["f", "g", "none"]).into());
        Filter { topics, names, stream, correlation_id }
    }

    fn range(&mut self) -> Range<'static> {
        if self.chance(50) {
            let (prefix, after) = (self.of(["", "x", "x/", "y"]), self.of(["", "x", "x/1"]));
            Range::Ids { prefix, after }
        } else {
            Range::Sort { from: self.of(SORTS), until: self.of(SORTS) }
        }
    }
}
