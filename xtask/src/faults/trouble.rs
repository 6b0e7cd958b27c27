//! What may befall services apart while orders come in, one after the other, and how long it lasts.

use super::apart::Apart;
use super::audit::{ended, facts};
use super::detour::{Proxy, Toxic};
use super::memory::{Memory, table};
use super::stage::Stage;
use super::trial::{FINISH_LIMIT, is_harmless};
use crate::services::{self, Service};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rand::RngExt;
use rand::rngs::StdRng;
use rusqlite::{Connection, ErrorCode};
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Each process and the broker are killed and started again, again and again
    Kills,
    /// The broker is away for two minutes
    Outage,
    /// Connections to the broker are late, slow, dead and cut
    Network,
    /// Processes are frozen until others have what was theirs, and thaw
    Freezes,
    /// Processes that share the consumers join and leave a hundred times each
    Members,
}

/// Services that any number of processes may share.
const SHARED: [&str; 5] = ["payment", "inventory", "shipping", "email", "analytics"];
/// Longer than a session of Kafka's group (10 s), a lease (15 s), and what RabbitMQ waits for two
/// heartbeats of 10 s, which is nearly 30 s.
const FROZEN: Duration = Duration::from_secs(40);
/// By so much a process may grow while the broker is away, in MiB: the relay holds no more than its
/// window, 16,384 messages.
const FLAT: u64 = 48;
/// Between a process that joins and the next, in milliseconds.
const VISIT: std::ops::RangeInclusive<u64> = 0..=1_000;

/// How often, or how long.
struct Extent {
    /// Seconds without the broker.
    away: u64,
    /// Seconds of each bad connection, and cuts.
    bad: u64,
    cuts: u32,
    freezes: u32,
    joins: u32,
}

const LONG: Extent = Extent { away: 120, bad: 20, cuts: 40, freezes: 4, joins: 100 };
const SHORT: Extent = Extent { away: 10, bad: 4, cuts: 4, freezes: 1, joins: 8 };

impl Trouble {
    /// About how many seconds it takes.
    pub(super) fn seconds(self, short: bool) -> u64 {
        let extent = if short { SHORT } else { LONG };
        match self {
            Trouble::Kills => 0,
            Trouble::Outage => extent.away + 20,
            Trouble::Network => 3 * extent.bad + 2 * u64::from(extent.cuts),
            Trouble::Freezes => u64::from(extent.freezes) * (FROZEN.as_secs() + 5),
            Trouble::Members => 2 * u64::from(extent.joins),
        }
    }

    /// Makes it; what there is to say of it.
    pub(super) async fn make(
        self,
        apart: &Apart,
        stage: &mut Stage,
        proxy: Option<&Proxy>,
        lot: &mut StdRng,
    ) -> Result<String> {
        let extent = if apart.short { SHORT } else { LONG };
        stage.note(format_args!("{self:?}"))?;
        match self {
            Trouble::Kills => apart.kills(stage, lot).await,
            Trouble::Outage => outage(apart.broker, stage, extent.away).await,
            Trouble::Network => network(proxy.context("no proxy")?, stage, &extent, lot).await,
            Trouble::Freezes => freezes(stage, extent.freezes).await,
            Trouble::Members => members(stage, extent.joins, lot).await,
        }
    }
}

async fn outage(broker: Service, stage: &mut Stage, seconds: u64) -> Result<String> {
    let placed = |stage: &Stage| facts(&stage.folder, "order.created");
    let begun = placed(stage)?;
    stage.until("orders come in", FINISH_LIMIT, async |stage| Ok(placed(stage)? > begun)).await?;
    let (before, mut during) = (Memory::of(stage)?, Memory::default());
    // Beside the runtime: other brokers have their troubles at the same time.
    spawn_blocking(move || services::kill(broker)).await??;
    let first = placed(stage)?;
    for _ in 0..seconds {
        sleep(Duration::from_secs(1)).await;
        stage.check()?;
        during.look(stage)?;
    }
    let last = placed(stage)?;
    spawn_blocking(move || services::up(&[broker])).await??;
    stage.note("the broker is back")?;
    let back = Instant::now();
    let caught_up = async |stage: &Stage| {
        during.look(stage)?;
        Ok(ended(&stage.folder)? >= last)
    };
    stage.until("it has caught up", FINISH_LIMIT, caught_up).await?;
    let took = back.elapsed().as_secs();
    let after = Memory::of(stage)?;
    let more = during.more_than(&before);
    let table = table(&before, &during, &after);
    ensure!(last > first, "no order was accepted while the broker was away");
    ensure!(more <= FLAT, "a process grew by {more} MiB while the broker was away:\n{table}");
    Ok(format!(
        "the broker away for {seconds} s: {} orders accepted meanwhile, all ended {took} s after it \
         was back\n{table}",
        last - first
    ))
}

async fn network(
    proxy: &Proxy,
    stage: &mut Stage,
    extent: &Extent,
    lot: &mut StdRng,
) -> Result<String> {
    for toxic in [Toxic::Late, Toxic::Slow, Toxic::BlackHole] {
        let before = ended(&stage.folder)?;
        proxy.spoil(toxic).await?;
        sleep(Duration::from_secs(extent.bad)).await;
        let count = ended(&stage.folder)? - before;
        proxy.mend().await?;
        stage.note(format_args!("{toxic:?} for {} s: {count} orders ended", extent.bad))?;
    }
    for _ in 0..extent.cuts {
        sleep(Duration::from_millis(lot.random_range(500..=2_000))).await;
        proxy.spoil(Toxic::Reset).await?;
        sleep(Duration::from_millis(lot.random_range(50..=300))).await;
        proxy.mend().await?;
        stage.check()?;
    }
    Ok(format!(
        "connections late, slow and dead for {} s each, and cut {} times\n",
        extent.bad, extent.cuts
    ))
}

async fn freezes(stage: &mut Stage, times: u32) -> Result<String> {
    for service in SHARED {
        stage.join(service)?;
    }
    let mut ended_meanwhile = 0;
    for _ in 0..times {
        stage.until("guests listen", FINISH_LIMIT, async |stage| stage.guests_listen()).await?;
        let before = ended(&stage.folder)?;
        for service in SHARED {
            freeze(stage, service).await?;
        }
        sleep(FROZEN).await;
        let go_on = async |stage: &Stage| Ok(ended(&stage.folder)? > before);
        stage.until("others go on", FINISH_LIMIT, go_on).await?;
        SHARED.iter().try_for_each(|service| stage.signal(service, Signal::CONT))?;
        ended_meanwhile += ended(&stage.folder)? - before;
        stage.note("thawed")?;
        sleep(Duration::from_secs(5)).await;
        stage.check()?;
    }
    while stage.guests() > 0 {
        stage.leave(0, true).await?;
    }
    Ok(format!(
        "{} processes frozen {times} times for {} s or more: others ended {ended_meanwhile} orders meanwhile\n",
        SHARED.len(),
        FROZEN.as_secs()
    ))
}

/// Not while it writes: SQLite's lock would be frozen with it, and nobody else of its service could
/// write, whatever becomes of its partitions.
async fn freeze(stage: &Stage, service: &str) -> Result<()> {
    loop {
        stage.signal(service, Signal::STOP)?;
        if is_writable(&stage.folder.join(format!("{service}.db")))? {
            return Ok(());
        }
        stage.signal(service, Signal::CONT)?;
        sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the lock of the file is to be had within a second.
fn is_writable(file: &Path) -> Result<bool> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(1))?;
    match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
        Ok(()) => Ok(true),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Each join and each leave shares the partitions out anew. One in ten leaves without a word.
async fn members(stage: &mut Stage, joins: u32, lot: &mut StdRng) -> Result<String> {
    let mut killed = 0;
    for number in 0..joins {
        stage.join(SHARED[number as usize % SHARED.len()])?;
        stage.until("guests listen", FINISH_LIMIT, async |stage| stage.guests_listen()).await?;
        sleep(Duration::from_millis(lot.random_range(VISIT))).await;
        if stage.guests() == SHARED.len() {
            let politely = !lot.random_ratio(1, 10) || !is_harmless(stage).await?;
            killed += u32::from(!politely);
            stage.leave(0, politely).await?;
        }
        stage.check()?;
    }
    while stage.guests() > 0 {
        stage.leave(0, true).await?;
    }
    Ok(format!(
        "{} rebalances: {joins} processes joined and left, {killed} of them killed\n",
        2 * joins
    ))
}
