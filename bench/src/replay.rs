//! A million events into a view on PostgreSQL, beside what that takes at the least: reading and
//! decoding them, and writing as many documents as the view did.

use crate::postgres::psql;
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use sillage::{
    App, Commit, Contract, Database, Document, Event, Key, Message, MessageId, Position,
    Projection, Service, Timestamp, Write, connect,
};
use sqlx::{Connection as _, PgConnection, Row as _};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime;
use uuid::Uuid;

/// Entries of one order, and orders that are under way at once.
const STEPS: u32 = 10;
const ORDERS: u32 = 64;
/// Entries of a batch that is appended.
const BATCH: u32 = 1_000;
/// Rows that the raw side reads and writes at once: as ours.
const READ: i64 = 4_000;
const WRITTEN: usize = 2_000;
/// Columns of the log.
const POSITION: usize = 0;
const NAME: usize = 5;
const PAYLOAD: usize = 15;

#[derive(clap::Args)]
pub(crate) struct Replay {
    /// `postgres://…`; the schema `sillage_replay` in it is made anew.
    #[arg(long)]
    database: String,
    /// How many events.
    #[arg(long, default_value_t = 1_000_000)]
    events: u32,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Leave the events there for the next run, and use those that are there.
    #[arg(long)]
    keep: bool,
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
#[event(name = "order.moved")]
struct Moved {
    #[event(key)]
    order_id: String,
    step: u32,
    total: u64,
    note: String,
}

#[derive(Document, Serialize, Deserialize, Clone, Debug, Default)]
#[document(collection = "orders")]
struct Order {
    #[document(id)]
    id: String,
    steps: u32,
    total: u64,
    note: String,
}

/// On a runtime as a service has it.
pub(crate) async fn run(what: Replay) {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let measured = tokio::task::spawn_blocking(move || runtime.block_on(measure(what)));
    measured.await.expect("it is measured");
}

async fn measure(what: Replay) {
    let drop = || psql(&what.database, "DROP SCHEMA IF EXISTS sillage_replay CASCADE");
    if !what.keep {
        drop();
    }
    let mark = if what.database.contains('?') { '&' } else { '?' };
    let url = format!("{}{mark}schema=sillage_replay", what.database);
    let database = connect(&url).await.expect("connects");
    let last = match database.head().await.expect("a head").last {
        Position(0) => fill(&*database, what.events).await,
        there => there,
    };
    let mut raw = PgConnection::connect(&what.database).await.expect("connects");
    let mut ratios = vec![];
    for round in 0..what.rounds {
        // Views of one document share a collection: each begins with none.
        let none = sqlx::query("TRUNCATE sillage_replay.documents").execute(&mut raw).await;
        none.expect("no documents");
        let ours = project(&database, last).await;
        let written = written(&mut raw).await;
        let (read, events) = scan(&mut raw).await;
        assert_eq!(events, what.events, "all are read");
        let wrote = upsert(&mut raw, written).await;
        let ratio = (read + wrote).as_secs_f64() / ours.as_secs_f64();
        println!(
            "round {round}: ours {ours:.1?}; raw: scan and decode {read:.1?}, {written} documents \
             {wrote:.1?}; ratio {ratio:.2}"
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("replay: raw to ours {:.2}", ratios[ratios.len() / 2]);
    if !what.keep {
        drop();
    }
}

/// Appends all events, and says where the last is.
async fn fill(database: &dyn Database, events: u32) -> Position {
    let mut last = Position(0);
    for first in (0..events).step_by(BATCH as usize) {
        let writes = (first..events.min(first + BATCH)).map(append).collect();
        let answers = database.commit(vec![Commit { conditions: vec![], writes }]).await;
        last = answers[0].as_ref().expect("appended").position;
    }
    last
}

fn append(number: u32) -> Write {
    let order = number / (ORDERS * STEPS) * ORDERS + number % ORDERS;
    let moved = Moved {
        order_id: format!("order-{order:08}"),
        step: number / ORDERS % STEPS,
        total: u64::from(number),
        note: "x".repeat(120),
    };
    let id = MessageId::new(Uuid::now_v7().to_string());
    let message = Message {
        source: "replay".into(),
        name: Moved::NAME.into(),
        version: 1,
        topic: None,
        key: Some(Key::of(&moved.order_id)),
        time: Timestamp::from_micros(1_800_000_000_000_000),
        correlation_id: id.text(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload: serde_json::to_vec(&moved).expect("JSON").into(),
        id,
    };
    Write::Append { stream: None, message: message.into() }
}

/// A new view from the beginning of the log to its end.
async fn project(database: &Arc<dyn Database>, last: Position) -> Duration {
    let projection = Projection::<Order>::new("orders", 1).on::<Moved>(|order, moved| {
        order.id.clone_from(&moved.order_id);
        order.steps += 1;
        order.total += moved.total;
        order.note.clone_from(&moved.note);
    });
    let start = Instant::now();
    let app = App::new(database.clone()).service(Service::new("replay").projection(projection));
    let app = app.start().await.expect("starts");
    let view = app.view::<Order>("replay");
    let within = Duration::from_secs(600);
    let seen = view.get("order-00000000").at_least(last).within(within).await;
    let took = start.elapsed();
    assert_eq!(seen.expect("it catches up").map(|order| order.steps), Some(STEPS));
    app.drain().await;
    took
}

/// How many documents the view has written: each write counts its version up.
async fn written(raw: &mut PgConnection) -> usize {
    let sum = "SELECT coalesce(sum(version), 0)::bigint FROM sillage_replay.documents WHERE id LIKE \
               'order-%'";
    let sum = sqlx::query_scalar::<_, i64>(sum).fetch_one(raw).await;
    usize::try_from(sum.expect("documents are counted")).expect("not negative")
}

async fn scan(raw: &mut PgConnection) -> (Duration, u32) {
    let page = "SELECT * FROM sillage_replay.log WHERE position > $1 ORDER BY position LIMIT $2";
    let (start, mut at, mut events) = (Instant::now(), 0_i64, 0);
    loop {
        let mut rows = sqlx::query(page).bind(at).bind(READ).fetch(&mut *raw);
        let from = at;
        while let Some(row) = rows.try_next().await.expect("a page") {
            at = row.get(POSITION);
            if row.get::<&str, _>(NAME) != Moved::NAME {
                continue;
            }
            let moved: Moved = serde_json::from_slice(row.get(PAYLOAD)).expect("an event");
            std::hint::black_box(moved);
            events += 1;
        }
        if at == from {
            return (start.elapsed(), events);
        }
    }
}

/// Writes so many documents into a table of the same kind.
async fn upsert(raw: &mut PgConnection, count: usize) -> Duration {
    let make = "DROP TABLE IF EXISTS sillage_replay.raw; CREATE TABLE sillage_replay.raw (LIKE \
                sillage_replay.documents INCLUDING ALL)";
    sqlx::raw_sql(make).execute(&mut *raw).await.expect("a table");
    let write = "INSERT INTO sillage_replay.raw (collection, id, version, body) SELECT 'orders', \
                 id, 1, body FROM unnest($1::text[], $2::bytea[]) AS d (id, body) ON CONFLICT \
                 (collection, id) DO UPDATE SET version = raw.version + 1, body = excluded.body";
    let order = Order { id: "order-00000000".into(), steps: 10, total: 9, note: "x".repeat(120) };
    let body = serde_json::to_vec(&order).expect("JSON");
    let start = Instant::now();
    for first in (0..count).step_by(WRITTEN) {
        let ids: Vec<_> =
            (first..count.min(first + WRITTEN)).map(|n| format!("order-{n:08}")).collect();
        let bodies = vec![body.clone(); ids.len()];
        sqlx::query(write).bind(ids).bind(bodies).execute(&mut *raw).await.expect("documents");
    }
    start.elapsed()
}
