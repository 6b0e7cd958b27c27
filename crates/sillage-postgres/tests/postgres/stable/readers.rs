//! Readers: ours, and three with a bug each.

use super::Stage;
use sillage_core::{Clock, Database, Filter, Position};
use sillage_postgres::Postgres;
use sillage_testkit::SystemClock;
use sqlx::{AssertSqlSafe, PgConnection, Row, SqlSafeStr};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As the port has it.
    Ours,
    /// The same, in pages as small as the largest batch.
    Far,
    /// Bug: what is there is all there will be.
    Naive,
    /// Bug: reads the sequence's row, not its last value.
    LastValue,
    /// Bug: one snapshot for the stable position and for the entries.
    RepeatableRead,
}

/// The positions that a reader saw until the end was reached.
pub(super) async fn follow(
    stage: Arc<Stage>,
    database: Arc<Postgres>,
    kind: Kind,
) -> Vec<Position> {
    match kind {
        Kind::Ours => follow_port(&stage, &database, 1_000).await,
        Kind::Far => follow_port(&stage, &database, stage.batch.try_into().unwrap()).await,
        _ => follow_with_bug(&stage, kind).await,
    }
}

/// Says, once, that this reader has read.
fn ready(stage: &Stage, is_ready: &mut bool) {
    if !std::mem::replace(is_ready, true) {
        stage.ready.fetch_add(1, Ordering::Relaxed);
    }
}

/// The end; 0 while it is not known.
fn end(stage: &Stage) -> u64 {
    stage.end.load(Ordering::Relaxed)
}

async fn follow_port(stage: &Stage, database: &Postgres, max: usize) -> Vec<Position> {
    let (mut seen, mut checkpoint, mut is_ready) = (vec![], Position(0), false);
    while end(stage) == 0 || checkpoint.0 < end(stage) {
        // The connection may be one that was killed.
        let Ok(page) = database.log(checkpoint, &Filter::default(), max).await else { continue };
        checkpoint = page.through;
        ready(stage, &mut is_ready);
        seen.extend(page.entries.iter().map(|entry| entry.position));
        if page.entries.is_empty() {
            tokio::select! {
                () = database.changed(checkpoint, &Filter::default()) => {}
                () = SystemClock.sleep(Duration::from_millis(50)) => {}
            }
        }
    }
    seen
}

async fn follow_with_bug(stage: &Stage, kind: Kind) -> Vec<Position> {
    let mut connection = stage.schema.shell().await;
    let (mut seen, mut checkpoint, mut is_ready) = (vec![], 0, false);
    while end(stage) == 0 || checkpoint < end(stage).cast_signed() {
        let page = page(stage, &mut connection, kind, checkpoint).await;
        checkpoint = page.0.max(checkpoint);
        ready(stage, &mut is_ready);
        seen.extend(page.1.into_iter().map(|position| Position(position.cast_unsigned())));
        tokio::task::yield_now().await;
    }
    seen
}

/// Where the checkpoint moves to, and the entries.
async fn page(
    stage: &Stage,
    connection: &mut PgConnection,
    kind: Kind,
    checkpoint: i64,
) -> (i64, Vec<i64>) {
    if kind == Kind::RepeatableRead {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM @@.documents";
        stage.schema.run(connection, begin).await;
    }
    let stable = match kind {
        Kind::Naive => i64::MAX,
        _ => stable(stage, connection, kind == Kind::LastValue).await,
    };
    let sql =
        "SELECT position FROM @@.log WHERE position > $1 AND position <= $2 ORDER BY position";
    let sql = AssertSqlSafe(sql.replace("@@", &stage.schema.name));
    let query = sqlx::query_scalar(sql).bind(checkpoint).bind(stable);
    let positions: Vec<i64> = query.fetch_all(&mut *connection).await.unwrap();
    if kind == Kind::RepeatableRead {
        stage.schema.run(connection, "COMMIT").await;
    }
    let last = positions.last().copied().unwrap_or(checkpoint);
    // A gap at the end, by a transaction that was rolled back, is passed at the end only.
    let last = match (kind, end(stage)) {
        (Kind::Naive, 0) => last,
        (Kind::Naive, end) => end.cast_signed(),
        _ => stable.max(last),
    };
    (last, positions)
}

/// The stable position as in `src/sql/stable.sql`; with a bug, by the sequence's row.
async fn stable(stage: &Stage, connection: &mut PgConnection, last_value: bool) -> i64 {
    let value = if last_value {
        "(SELECT last_value FROM @@.log_position)"
    } else {
        "coalesce(pg_sequence_last_value('@@.log_position'), 0)"
    };
    let sql = format!(
        "WITH s AS MATERIALIZED (SELECT {value} AS v)
         SELECT least(s.v, (
             SELECT min(s.v + (((objid::bigint - s.v) & 4294967295) # 2147483648) - 2147483648)
             FROM pg_locks
             WHERE locktype = 'advisory' AND objsubid = 2 AND classid = '@@.log'::regclass::oid
         )) FROM s"
    );
    let sql = AssertSqlSafe(sql.replace("@@", &stage.schema.name));
    sqlx::query(sql).fetch_one(connection).await.unwrap().get(0)
}

/// Reads the sequence so many times while `writers` draw from it.
pub(super) async fn monotonic(stage: &Arc<Stage>, writers: usize, reads: usize) {
    let mut drawing = JoinSet::new();
    for _ in 0..writers {
        let stage = stage.clone();
        drawing.spawn(async move {
            let mut shell = stage.schema.shell().await;
            while !stage.done.load(Ordering::Relaxed) {
                let draw = "SELECT count(nextval('@@.log_position')) FROM generate_series(1, 100)";
                stage.schema.number(&mut shell, draw).await;
            }
        });
    }
    let mut shell = stage.schema.shell().await;
    let read = "SELECT coalesce(pg_sequence_last_value('@@.log_position'), 0)";
    let read = AssertSqlSafe(read.replace("@@", &stage.schema.name)).into_sql_str();
    let mut last = 0;
    for _ in 0..reads {
        let now: i64 = sqlx::query_scalar(read.clone()).fetch_one(&mut shell).await.unwrap();
        assert!(now >= last, "{now} after {last}");
        last = now;
    }
    stage.done.store(true, Ordering::Relaxed);
    drawing.join_all().await;
    assert!(last > 0);
}
