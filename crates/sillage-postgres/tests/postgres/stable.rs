//! Nothing is skipped below the stable position, whatever transactions do: twelve writers that are
//! slow, roll back, use savepoints and isolation levels, and are killed. The harness first has to
//! catch bugs that are planted here.

mod planted;
mod readers;
mod writers;

use crate::support::{DIRECT, Schema, append, commit, run};
use planted::Forgetful;
use readers::{Kind, follow};
use sillage_core::{Database, Position};
use sillage_postgres::Postgres;
use sillage_testkit::SystemClock;
use std::{
    env, fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::task::JoinSet;
use writers::{kill, write};

const WRITERS: u64 = 12;

/// What the tasks of one run share.
struct Stage {
    schema: Schema,
    /// Entries that writers have tried to write.
    tried: AtomicU64,
    /// How many are wanted.
    wanted: u64,
    /// How many entries a batch has at most.
    batch: u64,
    killed: AtomicU64,
    /// Readers that have read once.
    ready: AtomicUsize,
    /// All that was written is there: the end of the log.
    end: AtomicU64,
    done: AtomicBool,
    /// Positions that were acknowledged.
    acknowledged: Mutex<Vec<u64>>,
}

impl Stage {
    fn new(schema: Schema, wanted: u64, batch: u64) -> Arc<Stage> {
        let (tried, killed, ready) = Default::default();
        let (end, done, acknowledged) = Default::default();
        Arc::new(Stage { schema, tried, wanted, batch, killed, ready, end, done, acknowledged })
    }

    /// Every connection of a run is known by its name, so that it can be killed.
    fn url(&self) -> String {
        format!("{}&application_name={}", self.schema.url, self.schema.name)
    }

    async fn open(&self) -> Arc<Postgres> {
        let database = Postgres::connect(&self.url(), Arc::new(SystemClock)).await;
        Arc::new(database.unwrap())
    }

    fn is_enough(&self) -> bool {
        self.tried.load(Ordering::Relaxed) >= self.wanted
    }
}

/// What a run has found.
#[derive(Debug, Default)]
struct Found {
    entries: u64,
    killed: u64,
    /// Entries that a reader did not see.
    skipped: u64,
    /// Entries that a reader saw twice, or that are not there.
    wrong: u64,
    /// Acknowledged, and gone.
    lost: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { entries, killed, skipped, wrong, lost } = self;
        write!(
            f,
            "{entries} entries, {killed} killed, {skipped} skipped, {wrong} wrong, {lost} lost"
        )
    }
}

/// Writers and readers at the same time, until all is written and read.
async fn play(stage: Arc<Stage>, kinds: &[Kind], forgetful: bool, kills: bool) -> Found {
    let handles = [stage.open().await, stage.open().await];
    let mut reading = JoinSet::new();
    for (number, kind) in kinds.iter().enumerate() {
        reading.spawn(follow(stage.clone(), handles[number % 2].clone(), *kind));
    }
    // All have read the empty log: one of them is to make a mistake there.
    while stage.ready.load(Ordering::Relaxed) < kinds.len() {
        tokio::task::yield_now().await;
    }
    let first = handles[0].commit(vec![commit([append(None, "first")])]).await;
    assert!(first[0].is_ok(), "{first:?}");
    let mut writing = JoinSet::new();
    for number in 0..WRITERS {
        writing.spawn(write(stage.clone(), handles[usize::from(number % 2 == 0)].clone(), number));
    }
    if forgetful {
        writing.spawn(Forgetful::write(stage.clone()));
    }
    let killing = kills.then(|| tokio::spawn(kill(stage.clone())));
    writing.join_all().await;
    stage.done.store(true, Ordering::Relaxed);
    if let Some(killing) = killing {
        killing.await.unwrap();
    }
    let head = loop {
        // The connection may be one that was killed.
        if let Ok(head) = handles[0].head().await
            && head.stable == head.last
        {
            break head;
        }
        tokio::task::yield_now().await;
    };
    stage.end.store(head.last.0.max(1), Ordering::Relaxed);
    compare(&stage, reading.join_all().await).await
}

async fn compare(stage: &Stage, seen: Vec<Vec<Position>>) -> Found {
    let mut shell = stage.schema.shell().await;
    let all = format!("SELECT position FROM {}.log ORDER BY position", stage.schema.name);
    let all: Vec<i64> =
        sqlx::query_scalar(sqlx::AssertSqlSafe(all)).fetch_all(&mut shell).await.unwrap();
    let all: Vec<Position> = all.into_iter().map(|p| Position(p.cast_unsigned())).collect();
    let killed = stage.killed.load(Ordering::Relaxed);
    let mut found = Found { entries: all.len() as u64, killed, ..Found::default() };
    for seen in seen {
        let there = |position: &&Position| all.binary_search(position).is_ok();
        let right = seen.iter().filter(there).count();
        let rising = seen.windows(2).filter(|pair| pair[0] < pair[1]).count() + 1;
        found.skipped += (all.len() - right.min(all.len())) as u64;
        found.wrong += (seen.len() - right + seen.len().saturating_sub(rising)) as u64;
    }
    let acknowledged = stage.acknowledged.lock().unwrap();
    let gone = |position: &&u64| all.binary_search(&Position(**position)).is_err();
    found.lost = acknowledged.iter().filter(gone).count() as u64;
    found
}

/// For the gate: so many entries, batches of up to 400, and a reading of the sequence as long.
const LONG: &str = "SILLAGE_STABLE_ENTRIES";

#[test]
fn nothing_is_skipped() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    let long: Option<u64> = env::var(LONG).ok().and_then(|entries| entries.parse().ok());
    let (entries, batch) = long.map_or((6_000, 4), |entries| (entries, 400));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stage = Stage::new(schema, entries, batch);
        let found = play(stage, &[Kind::Ours, Kind::Ours, Kind::Far], false, true).await;
        println!("ours: {found}");
        assert_eq!((found.skipped, found.wrong, found.lost), (0, 0, 0), "{found:?}");
        let enough = found.entries > entries / 2 && found.killed > 0;
        assert!(enough, "this says little: {found:?}");
    });
}

/// What the sequence says never goes back while others draw numbers from it.
#[test]
fn the_sequence_is_read_monotonically() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    let reads = if env::var_os(LONG).is_some() { 3_000_000 } else { 10_000 };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stage = Stage::new(schema, 0, 0);
        drop(stage.open().await);
        readers::monotonic(&stage, 6, reads).await;
    });
}

/// A bug is caught when it makes a reader skip an entry; each has a few runs to show itself.
fn caught(bug: &str, kind: Kind, forgetful: bool) {
    const RUNS: usize = 10;
    for _ in 0..RUNS {
        let Some(schema) = Schema::new(DIRECT) else { return };
        let mut found = Found::default();
        run(async {
            let stage = Stage::new(schema, 1_000, 2);
            found = play(stage, &[kind, kind], forgetful, false).await;
        });
        println!("{bug}: {found}");
        if found.skipped > 0 {
            return;
        }
    }
    panic!("{RUNS} runs have not caught it");
}

#[test]
fn a_naive_reader_is_caught() {
    caught("a naive reader", Kind::Naive, false);
}

#[test]
fn a_reader_of_last_value_is_caught() {
    caught("a reader of last_value", Kind::LastValue, false);
}

#[test]
fn a_repeatable_read_reader_is_caught() {
    caught("a REPEATABLE READ reader", Kind::RepeatableRead, false);
}

#[test]
fn a_lock_remembered_across_a_savepoint_is_caught() {
    caught("a lock remembered across a savepoint", Kind::Ours, true);
}
