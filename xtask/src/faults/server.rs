//! PostgreSQL under the shop: it is killed again and again while orders come in, and the shop's
//! processes with it; what was acknowledged has to be there, once.

use super::audit::Audit;
use super::stage::Stage;
use super::trial::{DELAY, FINISH_LIMIT};
use crate::process;
use crate::services::{self, Service};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// From one kill to the next, in milliseconds.
const PAUSE: RangeInclusive<u64> = 300..=1_500;
/// How long the server stays away, in milliseconds.
const AWAY: RangeInclusive<u64> = 0..=800;
/// A shop process is killed as well, once in so many times.
const PROCESS: u32 = 5;
/// How long placing may take: every kill holds it up.
const PLACE_LIMIT: Duration = Duration::from_secs(1_200);
/// How long orders may take to be answered, in seconds.
const PATIENCE: u64 = 300;
/// How often the shop is audited until everything has ended.
const LOOK: Duration = Duration::from_millis(500);

/// What is to be done.
pub(super) struct Server {
    pub(super) seed: u64,
    pub(super) orders: u64,
    /// How often the server is killed.
    pub(super) rounds: u32,
}

impl Server {
    /// Plays it; fails if anything is broken in the end, or if a fact that is taken out is not missed.
    pub(super) async fn run(&self, shop: &Path, folder: &Path) -> Result<()> {
        let url = services::up(&[Service::Postgres])?.pop().context("PostgreSQL has no URL")?.1;
        let database = Database { url, schema: format!("faults_{:x}", self.seed) };
        let start = Instant::now();
        let mut stage = Stage::open_on(shop, folder, &database.name())?;
        let (amid_work, processes) = self.play(&mut stage, &database).await?;
        let audit = Audit::of(&stage, self.seed, self.orders).await?;
        println!(
            "PostgreSQL killed {} times ({amid_work} while orders were placed), processes \
             {processes} times: {} orders, {} completed, {} cancelled, {} lost, {} charged twice; \
             {:.1} s",
            self.rounds,
            self.orders,
            audit.completed,
            audit.cancelled,
            audit.lost,
            audit.charged_twice,
            start.elapsed().as_secs_f64()
        );
        for broken in &audit.broken {
            println!("  {broken}");
        }
        ensure!(audit.holds(), "something is broken: see {}", folder.display());
        // An audit that finds nothing says little unless it can.
        database.number(
            "WITH lost AS (DELETE FROM @@.log WHERE position = (SELECT max(position) FROM @@.log \
             WHERE name = 'order.completed') RETURNING position) SELECT count(*) FROM lost",
        )?;
        let spoiled = Audit::of(&stage, self.seed, self.orders).await?;
        ensure!(!spoiled.holds(), "a fact that was taken out of the log is not missed");
        println!("a fact taken out is missed: {}", spoiled.broken.join("; "));
        database.number("DROP SCHEMA @@ CASCADE; SELECT 0")?;
        Ok(())
    }

    /// How often the server was killed while orders were placed, and how often processes.
    async fn play(&self, stage: &mut Stage, database: &Database) -> Result<(u32, u32)> {
        let mut lot = StdRng::seed_from_u64(self.seed);
        stage.until("all listen", FINISH_LIMIT, async |stage| stage.listens()).await?;
        stage.slow_gateway(lot.random_range(*DELAY.start()..=100)).await?;
        let place = format!(
            "place --url {} --seed {} --orders {} --at-once 16 --patience {PATIENCE}",
            stage.url(),
            self.seed,
            self.orders
        );
        let mut placing = stage.spawn("place", &place)?;
        let (mut amid_work, mut processes) = (0, 0);
        for _ in 0..self.rounds {
            sleep(Duration::from_millis(lot.random_range(PAUSE))).await;
            amid_work += u32::from(placing.try_wait()?.is_none());
            if lot.random_ratio(1, PROCESS) && database.deaths()? == 0 {
                let victim = lot.random_range(1..stage.size());
                stage.kill(victim).await?;
                stage.start(victim)?;
                processes += 1;
            }
            // One that is starting cannot do without the database, and ends.
            stage.until("all listen", FINISH_LIMIT, async |stage| stage.listens()).await?;
            services::kill(Service::Postgres)?;
            stage.note("killed PostgreSQL")?;
            sleep(Duration::from_millis(lot.random_range(AWAY))).await;
            services::up(&[Service::Postgres])?;
            stage.note("started PostgreSQL")?;
        }
        let placed = timeout(PLACE_LIMIT, placing.wait()).await;
        let placed = placed.context("placing takes too long")?;
        ensure!(placed?.success(), "not every order could be placed: see place.log");
        self.finish(stage).await?;
        stage.drain().await?;
        Ok((amid_work, processes))
    }

    async fn finish(&self, stage: &mut Stage) -> Result<()> {
        let end = Instant::now() + FINISH_LIMIT;
        loop {
            stage.check()?;
            let audit = Audit::of(stage, self.seed, self.orders).await?;
            if audit.holds() && audit.completed + audit.cancelled >= self.orders {
                return stage.note("everything has ended");
            }
            // What is broken says more than that it took too long.
            ensure!(Instant::now() < end, "it has not ended: {}", audit.broken.join("; "));
            sleep(LOOK).await;
        }
    }
}

/// The shop's schema.
pub(super) struct Database {
    pub(super) url: String,
    pub(super) schema: String,
}

impl Database {
    pub(super) fn name(&self) -> String {
        format!("{}?schema={}", self.url, self.schema)
    }

    /// How many processes died on a message that is not handled yet; the most of all messages.
    fn deaths(&self) -> Result<u64> {
        self.number(
            "SELECT coalesce(max((@@.as_json(body) #>> '{guard,deaths}')::bigint), 0) \
             FROM @@.documents WHERE collection = 'watermarks'",
        )
    }

    /// What the last of some statements answers, in which `@@` is the schema.
    pub(super) fn number(&self, statements: &str) -> Result<u64> {
        let mut command = Command::new("psql");
        command.args(["-qAt", "-v", "ON_ERROR_STOP=1", "-c", "SET client_min_messages = warning"]);
        command.args(["-c", &statements.replace("@@", &self.schema), &self.url]);
        let said = process::output(command)?;
        said.trim().parse().with_context(|| format!("psql says: {said}"))
    }
}
