//! Kills a shop's processes at random moments and audits what is left: `cargo xtask faults`.
//!
//! First it has to show that it can fail: planted bugs must be found. Then trials: each in a folder
//! below `target/faults`, which stays if anything is wrong.

mod apart;
mod audit;
mod detour;
mod memory;
mod plant;
mod rebuild;
mod server;
mod stage;
mod trial;
mod trouble;

use crate::process;
use crate::services::{ForTests, Service};
use anyhow::{Context, Result, bail, ensure};
use apart::Apart;
use clap::ValueEnum;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use plant::Bug;
pub(crate) use rebuild::Rebuild;
use server::Server;
use std::fs;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use trial::{Outcome, Trial};
use trouble::Trouble;

/// How many trials `--short` has: each layout, and one more.
const SHORT: u32 = 4;
/// How many orders a trial places unless said.
const ORDERS: u64 = 60;

#[derive(clap::Args)]
pub(crate) struct Faults {
    /// How many trials
    #[arg(long, default_value_t = 100)]
    trials: u32,
    /// How many orders a trial places: 60, or as long as troubles last, 20 a second
    #[arg(long)]
    orders: Option<u64>,
    /// What orders and kills follow from; another one each time unless said
    #[arg(long)]
    seed: Option<u32>,
    /// Four trials, of the shop as the tests build it; with a broker, less of each trouble
    #[arg(long, conflicts_with = "trials")]
    short: bool,
    /// Only the planted bugs
    #[arg(long)]
    planted: bool,
    /// Only this planted bug
    #[arg(long, value_enum, value_name = "BUG", conflicts_with = "planted")]
    plant: Option<Bug>,
    /// Keep the folders also of trials that passed
    #[arg(long)]
    keep: bool,
    /// Instead: each service with a process and a database of its own, this broker between them,
    /// and trouble; with several brokers, at the same time
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        conflicts_with_all = ["planted", "plant", "trials"]
    )]
    broker: Vec<Service>,
    /// What befalls them, one after the other
    #[arg(long, value_enum, value_delimiter = ',', requires = "broker", default_value = "kills")]
    troubles: Vec<Trouble>,
    /// Instead: all services on this database server, `postgres`; it is killed, and they with it
    #[arg(
        long,
        value_enum,
        conflicts_with_all = ["planted", "plant", "trials", "broker"]
    )]
    database: Option<Service>,
    /// How often each process, and the broker, is killed then; or PostgreSQL
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How many trials run at once: they mostly wait
    #[arg(long, default_value_t = 2)]
    at_once: usize,
}

/// Plants, then tries; fails if a planted bug is not found, or anything else is.
pub(crate) fn run(faults: &Faults) -> Result<()> {
    let seed = faults.seed.unwrap_or_else(rand::random);
    let folder = process::root().join(format!("target/faults/{seed}"));
    let shop = faults.build(&folder)?;
    until_interrupted(faults.run(&shop, &folder, seed))?;
    if !faults.keep {
        fs::remove_dir_all(&folder).with_context(|| process::relative(&folder))?;
    }
    Ok(())
}

/// Runs it; what is dropped when somebody interrupts kills its processes.
fn until_interrupted(run: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            done = run => done,
            interrupted = interrupted() => interrupted,
        }
    })
}

async fn interrupted() -> Result<()> {
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = int.recv() => bail!("interrupted"),
        _ = term.recv() => bail!("told to stop"),
    }
}

impl Faults {
    /// A copy of the shop, so that a build meanwhile changes nothing.
    fn build(&self, folder: &Path) -> Result<PathBuf> {
        let (profile, built) = if self.short { ("dev", "debug") } else { ("release", "release") };
        let features = match (&*self.broker, self.database) {
            ([_, ..], _) => " --features kafka,rabbitmq",
            ([], Some(_)) => " --features postgres",
            ([], None) => "",
        };
        let command = format!("build --profile {profile} -p shop --bin shop{features}");
        process::run(process::cargo(&command))?;
        fs::create_dir_all(folder).with_context(|| process::relative(folder))?;
        let shop = folder.join("shop");
        fs::copy(process::built(&format!("target/{built}/shop")), &shop)?;
        Ok(shop)
    }

    async fn run(&self, shop: &Path, folder: &Path, seed: u32) -> Result<()> {
        if !self.broker.is_empty() {
            return self.apart(shop, folder, seed).await;
        }
        let orders = self.orders.unwrap_or(ORDERS);
        if let Some(database) = self.database {
            ensure!(database == Service::Postgres, "a broker is no database: `postgres` is one");
            let server = Server { seed: seed.into(), orders, rounds: self.rounds };
            return server.run(shop, &folder.join("server")).await;
        }
        let bugs = self.plant.as_ref().map_or(Bug::value_variants(), std::slice::from_ref);
        self.plant(bugs, shop, folder).await?;
        if self.planted || self.plant.is_some() {
            return Ok(());
        }
        let trials = if self.short { SHORT } else { self.trials };
        println!("{trials} trials of {orders} orders, seed {seed}");
        let trial = |number: u32| {
            let seed = (u64::from(seed) << 32) + u64::from(number);
            let trial = Trial { number, seed, orders };
            let folder = folder.join(number.to_string());
            async move {
                let outcome = trial.run(shop, &folder).await.context(process::relative(&folder))?;
                show(&outcome, &folder);
                if outcome.passed() && !self.keep {
                    fs::remove_dir_all(&folder)?;
                }
                anyhow::Ok(outcome)
            }
        };
        let mut trials = stream::iter(1..=trials).map(trial).buffer_unordered(self.at_once.max(1));
        let mut tally = Tally::default();
        while let Some(outcome) = trials.next().await.transpose()? {
            tally.add(&outcome, orders);
        }
        tally.show();
        ensure!(tally.failed == 0, "{} trials failed; their folders stay", tally.failed);
        Ok(())
    }

    async fn apart(&self, shop: &Path, folder: &Path, seed: u32) -> Result<()> {
        let needed: Vec<_> = self.broker.iter().copied().chain([Service::Toxiproxy]).collect();
        let _stopped_afterwards = ForTests::up(&needed);
        let runs = self.broker.iter().map(|broker| {
            let Faults { orders, rounds, short, ref troubles, .. } = *self;
            let (seed, troubles) = (seed.into(), troubles.clone());
            let apart = Apart { broker: *broker, seed, orders, rounds, troubles, short };
            let folder = folder.join(broker.name());
            async move { apart.run(shop, &folder).await.context(broker.name()) }
        });
        let failed: Vec<_> = join_all(runs).await.into_iter().filter_map(Result::err).collect();
        let told = failed.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>();
        ensure!(failed.is_empty(), "{}", told.join("; "));
        Ok(())
    }

    async fn plant(&self, bugs: &[Bug], shop: &Path, folder: &Path) -> Result<()> {
        let plant = |bug: &Bug| {
            let (bug, folder) = (*bug, folder.join(format!("{bug:?}")));
            async move {
                let found = bug.run(shop, &folder).await;
                let found = found.with_context(|| {
                    format!("planted {bug:?} was not found: see {}", process::relative(&folder))
                })?;
                println!("planted {bug:?} was found: {found}");
                fs::remove_dir_all(&folder).with_context(|| process::relative(&folder))
            }
        };
        let mut plants = stream::iter(bugs).map(plant).buffer_unordered(self.at_once.max(1));
        while plants.next().await.transpose()?.is_some() {}
        Ok(())
    }
}

/// Says what became of a trial.
fn show(outcome: &Outcome, folder: &Path) {
    let Outcome { number, processes, kills, of_gateway, amid_work, audit, .. } = outcome;
    let result = if outcome.passed() { "ok" } else { "FAILED" };
    println!(
        "trial {number:>3}: {processes} × serve, {kills:>2} kills ({of_gateway} of the gateway, \
         {amid_work:>2} amid work); {:>3} completed, {:>2} cancelled; {:>5.1} s  {result}",
        audit.completed,
        audit.cancelled,
        outcome.took.as_secs_f64()
    );
    for wrong in outcome.problems.iter().chain(&audit.broken) {
        println!("  {wrong}");
    }
    if !outcome.passed() {
        println!("  see {}", process::relative(folder));
    }
}

/// All trials together.
#[derive(Default)]
struct Tally {
    trials: u32,
    failed: u32,
    kills: u32,
    of_gateway: u32,
    amid_work: u32,
    orders: u64,
    lost: u64,
    charged_twice: u64,
    broken: usize,
    problems: usize,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome, orders: u64) {
        self.trials += 1;
        self.failed += u32::from(!outcome.passed());
        self.kills += outcome.kills;
        self.of_gateway += outcome.of_gateway;
        self.amid_work += outcome.amid_work;
        self.orders += orders;
        self.lost += outcome.audit.lost;
        self.charged_twice += outcome.audit.charged_twice;
        self.broken += outcome.audit.broken.len();
        self.problems += outcome.problems.len();
    }

    fn show(&self) {
        println!();
        for (name, count) in [
            ("trials", u64::from(self.trials)),
            ("kills", u64::from(self.kills)),
            ("  of the gateway", u64::from(self.of_gateway)),
            ("  amid work", u64::from(self.amid_work)),
            ("orders", self.orders),
            ("orders lost", self.lost),
            ("double charges", self.charged_twice),
            ("broken invariants", self.broken as u64),
            ("other problems", self.problems as u64),
        ] {
            println!("{name:<18}{count:>8}");
        }
    }
}
