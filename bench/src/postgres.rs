//! Group commit on PostgreSQL, beside pgbench on the same table in the same run; and what readers
//! that find nothing cost writers.

use sillage::{
    Commit, Condition, Database, Expected, Filter, Message, MessageId, Timestamp, Version, Write,
};
use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Rows of one statement where pgbench writes many.
const ROWS: u32 = 100;
/// About 200 bytes of JSON.
const PAYLOAD: &str = "{\"note\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
                       xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
                       xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}";

#[derive(clap::Args)]
pub(crate) struct Postgres {
    /// `postgres://…`; the schema `sillage_bench` in it is made anew.
    #[arg(long)]
    database: String,
    /// How long each side writes in a round, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How many readers follow the log and find nothing.
    #[arg(long, default_value_t = 100)]
    readers: u32,
}

/// Rows a second, side by side.
struct Round {
    singles: f64,
    ours: f64,
    watched: f64,
    many: f64,
    single: f64,
    alone: f64,
}

pub(crate) async fn run(what: Postgres) {
    let folder = std::env::temp_dir().join(format!("sillage-bench-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&folder).expect("a folder for scripts");
    psql(&what.database, "DROP SCHEMA IF EXISTS sillage_bench CASCADE");
    let mark = if what.database.contains('?') { '&' } else { '?' };
    let url = format!("{}{mark}schema=sillage_bench", what.database);
    let database = sillage::connect(&url).await.expect("connects");
    let mut rounds = vec![];
    for number in 0..what.rounds {
        let round = measure(&what, &database, &folder, number).await;
        println!(
            "round {number}: pgbench, 64 singles {:.0}/s; ours, 64 writers {:.0}/s, with {} readers \
             {:.0}/s; pgbench, UNNEST of {ROWS} {:.0}/s; pgbench, one {:.0}/s; ours, one {:.0}/s",
            round.singles,
            round.ours,
            what.readers,
            round.watched,
            round.many,
            round.single,
            round.alone
        );
        rounds.push(round);
    }
    let median = |ratio: fn(&Round) -> f64| {
        let mut ratios: Vec<f64> = rounds.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
    println!("postgres: 64 writers to 64 singles {:.2}", median(|r| r.ours / r.singles));
    println!("postgres: 64 writers to UNNEST {:.2}", median(|r| r.ours / r.many));
    println!("postgres: one writer to one single {:.2}", median(|r| r.alone / r.single));
    println!("postgres: with readers to without {:.2}", median(|r| r.watched / r.ours));
    psql(&what.database, "DROP SCHEMA IF EXISTS sillage_bench CASCADE");
    let _ = std::fs::remove_dir_all(folder);
}

async fn measure(
    what: &Postgres,
    database: &Arc<dyn Database>,
    folder: &Path,
    round: u32,
) -> Round {
    let bench = |clients, rows| pgbench(what, folder, clients, rows);
    let name = |side: &str| format!("{side}-{round}");
    let singles = bench(64, 1);
    let ours = ours(what, database, 64, &name("many")).await;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> =
        (0..what.readers).map(|_| tokio::spawn(follow(database.clone(), stop.clone()))).collect();
    let watched = self::ours(what, database, 64, &name("watched")).await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.abort();
    }
    let many = bench(1, ROWS);
    let single = bench(1, 1);
    let alone = self::ours(what, database, 1, &name("alone")).await;
    Round { singles, ours, watched, many, single, alone }
}

/// Follows the log from its end, and finds nothing.
async fn follow(database: Arc<dyn Database>, stop: Arc<AtomicBool>) {
    let filter = Filter { topics: vec!["none".into()], ..Filter::default() };
    let mut at = database.head().await.expect("answers").stable;
    while !stop.load(Ordering::Relaxed) {
        at = database.log(at, &filter, 100).await.expect("answers").through;
        database.changed(at, &filter).await;
    }
}

/// Writers that each append to a stream of their own, expect its version and wait for the answer.
#[allow(clippy::cast_precision_loss)]
async fn ours(what: &Postgres, database: &Arc<dyn Database>, writers: u32, side: &str) -> f64 {
    let (start, done) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let until = Duration::from_secs(what.seconds);
    let writer = |writer: u32| {
        let (database, done) = (database.clone(), done.clone());
        let stream = format!("bench/{side}-{writer}");
        tokio::spawn(async move {
            for version in 0.. {
                if start.elapsed() >= until {
                    return;
                }
                let answers = database.commit(vec![append(&stream, version)]).await;
                assert!(answers[0].is_ok(), "{answers:?}");
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    for writer in (0..writers).map(writer).collect::<Vec<_>>() {
        writer.await.expect("a writer ends");
    }
    done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

fn append(stream: &str, version: u64) -> Commit {
    let id = MessageId::new(uuid::Uuid::now_v7().to_string());
    let message = Message {
        source: "bench".into(),
        name: "bench.placed".into(),
        version: 1,
        topic: Some("bench".into()),
        key: Some(stream.into()),
        time: Timestamp::from_micros(1_800_000_000_000_000),
        correlation_id: id.text(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload: PAYLOAD.into(),
        id,
    };
    let expected =
        if version == 0 { Expected::NoStream } else { Expected::Exact(Version(version)) };
    Commit {
        conditions: vec![Condition::Stream { stream: stream.into(), expected }],
        writes: vec![Write::Append { stream: Some(stream.into()), message: message.into() }],
    }
}

/// Rows a second that pgbench inserts into the same table, with its indexes.
fn pgbench(what: &Postgres, folder: &Path, clients: u32, rows: u32) -> f64 {
    let script = folder.join(format!("{rows}.sql"));
    let payloads = vec![format!("'{PAYLOAD}'::bytea"); rows as usize].join(",");
    let sql = format!(
        "INSERT INTO sillage_bench.log (stream, stream_version, source, id, name, version, topic, \
         key, time, correlation_id, payload) SELECT gen_random_uuid()::text, 1, 'bench', \
         gen_random_uuid()::text, 'bench.placed', 1, 'bench', 'bench-1'::bytea, \
         1800000000000000, gen_random_uuid()::text, payload FROM unnest(ARRAY[{payloads}]) AS p \
         (payload);\n"
    );
    std::fs::write(&script, sql).expect("a script");
    let limit = ["-T", &what.seconds.to_string()];
    transactions(&what.database, &script, clients, limit) * f64::from(rows)
}

/// Runs of a script a second, by so many clients.
pub(crate) fn transactions(database: &str, script: &Path, clients: u32, limit: [&str; 2]) -> f64 {
    let mut command = Command::new("pgbench");
    command.args(["-n", "-M", "prepared", "-j", "2", "-c", &clients.to_string()]);
    command.args(limit).arg("-f").arg(script).arg(database);
    let output = command.stderr(Stdio::inherit()).output().expect("pgbench is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    let tps = said.split_once("tps = ").and_then(|(_, said)| said.split_whitespace().next());
    tps.and_then(|tps| tps.parse().ok()).expect("pgbench says how many")
}

pub(crate) fn psql(database: &str, statement: &str) {
    let mut command = Command::new("psql");
    command.args(["-q", "-c", "SET client_min_messages = warning", "-c", statement, database]);
    let status = command.status().expect("psql is installed");
    assert!(status.success(), "psql: {status}");
}
