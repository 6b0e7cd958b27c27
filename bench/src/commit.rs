//! Group commit with waiting writers on SQLite, beside raw rusqlite writing the same rows in
//! batches of the same size, with the same settings and indexes.

use crate::saga::{fsyncs, median};
use serde::{Deserialize, Serialize};
use sillage::{Expected, SystemClock, append, prelude::*};
use std::{path::Path, sync::Arc, time::Instant};

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "order.created")]
struct Created {
    #[event(key)]
    order_id: String,
    note: String,
}

#[derive(Events, Clone)]
enum OrderEvent {
    Created(Created),
}

fn event(round: u32, n: u64) -> OrderEvent {
    Created { order_id: format!("{round}-{n}"), note: "x".repeat(180) }.into()
}

pub(crate) async fn run(commits: u64, writers: u64, rounds: u32) {
    let folder = std::env::temp_dir().join(format!("sillage-bench-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&folder).expect("a folder for the files");
    let database = sillage_sqlite::Sqlite::open(folder.join("bench.db"), Arc::new(SystemClock));
    let database = Arc::new(database.expect("a new file opens"));
    let app = App::new(database.clone()).service(Service::new("shop"));
    let app = app.start().await.expect("starts");
    let mut ratios = vec![];
    for round in 0..rounds {
        let before = database.durable_writes();
        let ours = grouped(&app.service("shop"), commits, writers, round).await;
        let batches = database.durable_writes() - before;
        let each = (commits / batches.max(1)).max(1);
        let raw = raw(&folder, commits, each, round);
        ratios.push(ours / raw);
        println!(
            "round {round}: group commit {ours:.0}/s in {batches} durable writes, {each} each; \
             raw rusqlite at {each} a batch {raw:.0}/s; ratio {:.2}",
            ours / raw
        );
    }
    ratios.sort_by(f64::total_cmp);
    let flush = median(fsyncs(&folder)).as_micros();
    println!("commit: median ratio to raw {:.2}, {flush} µs a flush", ratios[ratios.len() / 2]);
    app.drain().await;
    let _ = std::fs::remove_dir_all(folder);
}

#[allow(clippy::cast_precision_loss)]
async fn grouped(shop: &ServiceHandle, commits: u64, writers: u64, round: u32) -> f64 {
    let start = Instant::now();
    let writer = |writer: u64| {
        let shop = shop.clone();
        tokio::spawn(async move {
            for n in (writer..commits).step_by(usize::try_from(writers).unwrap_or(1)) {
                let stream = format!("order-{round}-{n}");
                let append = append(stream, Expected::NoStream, &[event(round, n)]);
                shop.commit(append).await.expect("accepted");
            }
        })
    };
    for task in (0..writers).map(writer).collect::<Vec<_>>() {
        task.await.expect("a writer ends");
    }
    commits as f64 / start.elapsed().as_secs_f64()
}

struct Row {
    stream: String,
    id: String,
    key: String,
    payload: Vec<u8>,
}

fn row(round: u32, n: u64) -> Row {
    let OrderEvent::Created(created) = event(round, n);
    Row {
        stream: format!("shop/order-{round}-{n}"),
        id: uuid::Uuid::now_v7().to_string(),
        key: created.order_id.clone(),
        payload: serde_json::to_vec(&created).expect("plain data"),
    }
}

/// How many entries a second raw rusqlite writes, so many in each transaction.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn raw(folder: &Path, commits: u64, each: u64, round: u32) -> f64 {
    let path = folder.join("raw.db");
    if !path.exists() {
        // The same tables and indexes: a file that was opened once.
        let made = sillage_sqlite::Sqlite::open(&path, Arc::new(SystemClock));
        drop(made.expect("a new file opens"));
    }
    let mut connection = rusqlite::Connection::open(path).expect("the file opens");
    connection
        .execute_batch(
            "pragma journal_mode = wal; pragma synchronous = full; pragma cache_size = -65536; \
             pragma wal_autocheckpoint = 10000;",
        )
        .expect("the same settings");
    let start = Instant::now();
    let mut n = 0;
    while n < commits {
        let end = (n + each).min(commits);
        let transaction = connection.transaction().expect("a transaction");
        for row in (n..end).map(|n| row(round, n)) {
            insert(&transaction, &row).expect("inserted");
        }
        transaction.commit().expect("committed");
        n = end;
    }
    commits as f64 / start.elapsed().as_secs_f64()
}

fn insert(transaction: &rusqlite::Transaction<'_>, row: &Row) -> rusqlite::Result<()> {
    let mut streams =
        transaction.prepare_cached("insert into streams (name, version) values (?1, 1)")?;
    let stream = streams.insert([&row.stream])?;
    let mut log = transaction.prepare_cached(
        "insert into log (source, id, name, version, topic, key, stream_id, stream_version, time, \
         correlation_id, payload) values ('shop', ?1, 'order.created', 1, 'order', ?2, ?3, 1, ?4, \
         ?1, ?5)",
    )?;
    let time = 1_700_000_000_000_000_i64;
    log.execute(rusqlite::params![row.id, row.key.as_bytes(), stream, time, row.payload])?;
    Ok(())
}
