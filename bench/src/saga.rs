//! A saga of four steps, its participants beside it, on SQLite or PostgreSQL: how long one takes, one
//! at a time and 64 at once, beside what its durable writes cost by themselves.

use serde::{Deserialize, Serialize};
use sillage::{Database, SystemClock, prelude::*};
use sillage_sqlite::Sqlite;
use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

#[derive(clap::Args)]
pub(crate) struct Saga {
    /// How many one at a time; twenty times as many 64 at once.
    #[arg(long, default_value_t = 200)]
    sagas: usize,
    /// `postgres://…`; the schema `sillage_bench_saga` in it is made anew. SQLite unless said.
    #[cfg(feature = "postgres")]
    #[arg(long)]
    database: Option<String>,
}

macro_rules! messages {
    ($($derive:ident $attribute:ident $name:ident $meta:tt;)*) => {$(
        #[derive($derive, Serialize, Deserialize, Clone)]
        #[$attribute $meta]
        struct $name {
            #[$attribute(key)]
            id: String,
        }
    )*};
}

messages! {
    Event event Ordered (name = "order.created");
    Event event Ended (name = "order.ended");
    Command command Reserve (name = "stock.reserve", done = Reserved);
    Command command Release (name = "stock.release", done = Released);
    Event event Reserved (name = "stock.reserved");
    Event event Released (name = "stock.released");
    Command command Charge (name = "payment.charge", done = Charged);
    Command command Refund (name = "payment.refund", done = Refunded);
    Event event Charged (name = "payment.charged");
    Event event Refunded (name = "payment.refunded");
    Command command Pack (name = "parcel.pack", done = Packed);
    Command command Unpack (name = "parcel.unpack", done = Unpacked);
    Event event Packed (name = "parcel.packed");
    Event event Unpacked (name = "parcel.unpacked");
    Command command Ship (name = "shipping.ship", done = Shipped);
    Event event Shipped (name = "shipping.shipped");
}

#[derive(Serialize, Deserialize)]
struct Memory {
    id: String,
}

fn id(memory: &Memory) -> String {
    memory.id.clone()
}

fn checkout() -> sillage::saga::Saga<Memory> {
    sillage::saga::Saga::<Memory>::new("checkout", 1)
        .start_on::<Ordered>(|order| Memory { id: order.id.clone() })
        .step("reserve", |m| Reserve { id: id(m) }, |m| Release { id: id(m) })
        .step("charge", |m| Charge { id: id(m) }, |m| Refund { id: id(m) })
        .step("pack", |m| Pack { id: id(m) }, |m| Unpack { id: id(m) })
        .pivot("ship", |m| Ship { id: id(m) })
        .finish(|m| publish(Ended { id: id(m) }), |_| ())
}

async fn reserve(command: Reserve) -> Effects {
    publish(Reserved { id: command.id })
}

async fn charge(command: Charge) -> Effects {
    publish(Charged { id: command.id })
}

async fn pack(command: Pack) -> Effects {
    publish(Packed { id: command.id })
}

async fn ship(command: Ship) -> Effects {
    publish(Shipped { id: command.id })
}

type Ends = mpsc::UnboundedReceiver<(String, Instant)>;

async fn start(database: Arc<dyn Database>) -> (Running, Ends) {
    let (sender, ends) = mpsc::unbounded_channel();
    let end = move |ended: Ended| {
        let _ = sender.send((ended.id, Instant::now()));
        async {}
    };
    let parts = Service::new("parts")
        .consumer(Consumer::new("stock").on(reserve))
        .consumer(Consumer::new("payment").on(charge))
        .consumer(Consumer::new("parcel").on(pack))
        .consumer(Consumer::new("shipping").on(ship))
        .consumer(Consumer::new("ends").on(end));
    let app = App::new(database).service(Service::new("order").saga(checkout())).service(parts);
    (app.start().await.expect("starts"), ends)
}

/// Where sagas run, how many durable writes that has made, and how long a raw client takes for one.
type Place = (Arc<dyn Database>, Box<dyn Fn() -> u64>, Option<fn(&Path) -> Duration>);

fn file(folder: &Path) -> Place {
    let file = Sqlite::open(folder.join("bench.db"), Arc::new(SystemClock));
    let file = Arc::new(file.expect("a new file opens"));
    let raw = |folder: &Path| Duration::from_secs(1).div_f64(crate::commit::raw(folder, 300, 1, 0));
    (file.clone(), Box::new(move || file.durable_writes()), Some(raw))
}

/// A schema of its own, made anew.
#[cfg(feature = "postgres")]
async fn postgres(url: &str) -> Place {
    crate::postgres::psql(url, "DROP SCHEMA IF EXISTS sillage_bench_saga CASCADE");
    let mark = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{mark}schema=sillage_bench_saga");
    let database = sillage::postgres::Postgres::connect(&url, Arc::new(SystemClock)).await;
    let database = Arc::new(database.expect("connects"));
    (database.clone(), Box::new(move || database.durable_writes()), None)
}

#[allow(clippy::cast_precision_loss)]
pub(crate) async fn run(what: Saga) {
    let sagas = what.sagas;
    let folder = std::env::temp_dir().join(format!("sillage-bench-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir_all(&folder).expect("a folder for the files");
    #[cfg(feature = "postgres")]
    let (database, writes, raw) = match &what.database {
        Some(url) => postgres(url).await,
        None => file(&folder),
    };
    #[cfg(not(feature = "postgres"))]
    let (database, writes, raw) = file(&folder);
    let (app, mut ends) = start(database).await;
    let order = app.service("order");
    // The first ones find caches and statements cold, and a write-ahead log that still grows.
    flight(&order, &mut ends, "warm", 200, 4).await;
    let mut fsyncs = fsyncs(&folder);
    let before = writes();
    let ((one, late), one_rate) = flight(&order, &mut ends, "one", sagas, 1).await;
    let each = (writes() - before) as f64 / sagas as f64;
    fsyncs.extend(self::fsyncs(&folder));
    let fsync = median(fsyncs);
    let arithmetic = fsync.mul_f64(each);
    if let Some(raw) = raw {
        let entry = raw(&folder);
        let ratio = one.as_secs_f64() / (entry.as_secs_f64() * each);
        println!("saga: an entry by raw rusqlite {entry:?}; ratio to as many of them {ratio:.2}");
    }
    let before = writes();
    let ((many, _), many_rate) = flight(&order, &mut ends, "many", sagas * 20, 64).await;
    let shared = writes() - before;
    println!(
        "saga: one in flight p50 {one:?}, p95 {late:?}, {each:.1} durable writes each, fsync p50 {fsync:?}, together \
         {arithmetic:?}; ratio {:.2}",
        one.as_secs_f64() / arithmetic.as_secs_f64()
    );
    println!(
        "saga: {one_rate:.0}/s one in flight, {many_rate:.0}/s 64 in flight (p50 {many:?}, {:.1} \
         durable writes each); ratio {:.1}",
        shared as f64 / (sagas * 20) as f64,
        many_rate / one_rate
    );
    app.drain().await;
    let _ = std::fs::remove_dir_all(folder);
}

/// Runs so many sagas, at most so many at once: the median time of one and that of the slowest 5 %,
/// and how many a second.
#[allow(clippy::cast_precision_loss)]
async fn flight(
    order: &ServiceHandle,
    ends: &mut Ends,
    name: &str,
    sagas: usize,
    at_once: usize,
) -> ((Duration, Duration), f64) {
    let begin = Instant::now();
    let (mut started, mut taken) = (std::collections::HashMap::new(), vec![]);
    let mut next = 0;
    while taken.len() < sagas {
        while next < sagas && started.len() < at_once {
            let id = format!("{name}-{next}");
            started.insert(id.clone(), Instant::now());
            let order = order.clone();
            tokio::spawn(async move { order.commit(publish(Ordered { id })).await.is_ok() });
            next += 1;
        }
        let Some((id, end)) = ends.recv().await else { break };
        if let Some(start) = started.remove(&id) {
            taken.push(end - start);
        }
    }
    let rate = sagas as f64 / begin.elapsed().as_secs_f64();
    taken.sort_unstable();
    let late = taken.get(taken.len() * 95 / 100).copied().unwrap_or_default();
    ((median(taken), late), rate)
}

/// What durable writes of a page cost here, by themselves.
pub(crate) fn fsyncs(folder: &Path) -> Vec<Duration> {
    let mut file = File::create(folder.join("fsync")).expect("a file");
    let page = [7_u8; 4096];
    let write = |_| {
        let start = Instant::now();
        file.write_all(&page).and_then(|()| file.sync_data()).expect("written");
        start.elapsed()
    };
    (0..300).map(write).collect()
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
