//! Projections are folded again, compared and switched on PostgreSQL while orders come in and reports
//! are read: no read fails, and what was rebuilt is what was there. `cargo xtask rebuild`.

use super::server::Database;
use super::stage::Stage;
use super::trial::FINISH_LIMIT;
use super::until_interrupted;
use crate::process;
use crate::services::{self, ForTests, Service};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

/// The projections of the shop.
const PROJECTIONS: [&str; 3] = ["analytics/revenue", "analytics/outcomes", "analytics/demand"];
/// Orders a second that come in meanwhile.
const LOAD: u64 = 100;
/// For how many seconds, at the least; they go on until all is switched.
const LASTS: u64 = 60;
/// Between one reading of the report and the next.
const READ: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub(crate) struct Rebuild {
    /// How many orders are there before
    #[arg(long, default_value_t = 2_000)]
    orders: u32,
    /// What orders follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// With the optimized build, which a hundred orders a second need on two cores
    #[arg(long)]
    release: bool,
}

/// Readings of the report.
#[derive(Default)]
struct Reads {
    done: u64,
    failed: Vec<String>,
}

impl Rebuild {
    /// Plays it; fails if a read fails, or if what was rebuilt is something else.
    pub(crate) fn run(&self) -> Result<()> {
        let release = if self.release { " --release" } else { "" };
        let build = format!("build -p shop -p sillage-cli --features postgres{release}");
        process::run(process::cargo(&build))?;
        let _stopped_afterwards = ForTests::up(&[Service::Postgres]);
        let folder = process::root().join("target/faults/rebuild");
        until_interrupted(self.play(&self.program("shop"), &folder))?;
        fs::remove_dir_all(&folder).with_context(|| process::relative(&folder))
    }

    fn program(&self, name: &str) -> PathBuf {
        let profile = if self.release { "release" } else { "debug" };
        process::root().join("target").join(profile).join(name)
    }

    async fn play(&self, shop: &Path, folder: &Path) -> Result<()> {
        let url = services::up(&[Service::Postgres])?.pop().context("PostgreSQL has no URL")?.1;
        let database = Database { url, schema: format!("rebuild_{:x}", self.seed) };
        let mut stage = Stage::open_on(shop, folder, &database.name())?;
        stage.until("all listen", FINISH_LIMIT, async |stage| stage.listens()).await?;
        let url = stage.url();
        let before = format!("place --url {url} --seed {} --orders {}", self.seed, self.orders);
        // More than can be placed.
        let load = format!(
            "place --url {url} --seed {} --orders 1000000 --at-once 64 --per-second {LOAD}",
            self.seed + 1
        );
        let placed = stage.spawn("before", &before)?.wait().await?;
        ensure!(placed.success(), "not every order could be placed: see before.log");
        let mut placing = stage.spawn("load", &load)?;
        let start = Instant::now();
        let mut reads = Reads::default();
        for name in PROJECTIONS {
            let said = self.rebuild(&database, name, &stage, &mut reads).await?;
            println!("{name}\n{}", said.trim_end());
            stage.check()?;
        }
        while start.elapsed() < Duration::from_secs(LASTS) {
            reads.one(&stage).await;
        }
        ensure!(placing.try_wait()?.is_none(), "orders have not come in all the time");
        placing.kill().await?;
        let orders = database.number("SELECT count(*) FROM @@.log WHERE name = 'order.created'")?;
        let meanwhile = u32::try_from(orders)?.saturating_sub(self.orders);
        println!(
            "{} projections rebuilt and switched among {} orders: {} placed before, {:.0} a second \
             meanwhile; {} reads, {} failed",
            PROJECTIONS.len(),
            orders,
            self.orders,
            f64::from(meanwhile) / start.elapsed().as_secs_f64(),
            reads.done,
            reads.failed.len()
        );
        ensure!(reads.failed.is_empty(), "reads failed: {}", reads.failed.join("; "));
        stage.drain().await?;
        database.number("DROP SCHEMA @@ CASCADE; SELECT 0").map(drop)
    }

    /// Rebuilds, waits until what was rebuilt is read, and reads the report all the while.
    async fn rebuild(
        &self,
        database: &Database,
        name: &str,
        stage: &Stage,
        reads: &mut Reads,
    ) -> Result<String> {
        let mut command = Command::new(self.program("sillage"));
        command
            .args(["projections", "rebuild", name, "--switch", "--wait"])
            .args(["--database", &database.name()])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let rebuilding = command.output();
        tokio::pin!(rebuilding);
        let Output { status, stdout, stderr } = loop {
            tokio::select! {
                output = &mut rebuilding => break output?,
                () = reads.one(stage) => {}
            }
        };
        let said =
            String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        ensure!(status.success(), "{name} was not rebuilt: {said}");
        Ok(said)
    }
}

impl Reads {
    async fn one(&mut self, stage: &Stage) {
        sleep(READ).await;
        self.done += 1;
        match stage.get("/analytics").await {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => {}
            Ok(answer) => self.failed.push(answer.lines().next().unwrap_or_default().to_owned()),
            Err(error) => self.failed.push(error.to_string()),
        }
    }
}
