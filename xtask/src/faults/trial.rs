//! One trial: orders are placed over HTTP while processes are killed; then the shop is left alone,
//! has to finish, drains, and is audited.
//!
//! Slots and projections stay with a dead process until their leases run out, 15 s. So the kills
//! while orders are placed leave most of the work undone; then power cuts kill everything at once,
//! after which leases may be made to run out by hand, as nobody is there to tell the difference; and
//! kills amid the work that goes on then leave their leases to time.
//!
//! A message on which process after process dies becomes a dead letter, and should; so a shop process
//! is spared while one is in danger of that.

use super::audit::{Audit, deaths, ended, head, let_leases_run_out, open};
use super::stage::{GATEWAY, Layout, Stage};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

/// One process; two, and three that share consumers.
const LAYOUTS: [Layout; 3] =
    [&[None], &[None, Some("payment,inventory")], &[None, None, Some("payment,inventory")]];

/// Kills while orders are placed, each a few milliseconds to a second after the last one.
const FIRST_WAVE: (RangeInclusive<u32>, RangeInclusive<u64>) = (4..=7, 20..=1_200);
/// Power cuts when all orders are placed.
const CUTS: RangeInclusive<u32> = 1..=2;
/// Kills when work goes on: what is left then is done within a second.
const SECOND_WAVE: (RangeInclusive<u32>, RangeInclusive<u64>) = (2..=4, 20..=300);
/// From when there is something to do to the kill, in milliseconds.
const MOMENT: RangeInclusive<u64> = 0..=300;
/// How long the gateway takes for an answer, in milliseconds, so that many kills come between the
/// movement of money and the commit that knows of it.
pub(super) const DELAY: RangeInclusive<u64> = 50..=400;

/// How long to wait for something to do, before a kill.
const WORK_LIMIT: Duration = Duration::from_secs(2);
/// How long placing takes at most: a process that is killed is back at once.
const PLACE_LIMIT: Duration = Duration::from_secs(130);
/// How long processes are spared: then what is in danger has been handled, or had to wait for leases.
const SPARE_LIMIT: Duration = Duration::from_secs(20);
/// Until work goes on, when no lease is in the way.
const RESUME_LIMIT: Duration = Duration::from_secs(20);
/// Until everything has ended: what was tried in vain while a process was dead may be parked for
/// over a minute.
pub(super) const FINISH_LIMIT: Duration = Duration::from_secs(240);

/// What a trial is to do.
pub(super) struct Trial {
    pub(super) number: u32,
    /// Everything about it follows from this, except what the system makes of it.
    pub(super) seed: u64,
    pub(super) orders: u64,
}

/// What became of it.
pub(super) struct Outcome {
    pub(super) number: u32,
    pub(super) processes: usize,
    pub(super) kills: u32,
    pub(super) of_gateway: u32,
    /// Kills while an order was open.
    pub(super) amid_work: u32,
    pub(super) audit: Audit,
    /// What went wrong besides.
    pub(super) problems: Vec<String>,
    pub(super) took: Duration,
}

impl Outcome {
    pub(super) fn passed(&self) -> bool {
        self.problems.is_empty() && self.audit.holds()
    }
}

impl Trial {
    /// Plays it in this folder.
    pub(super) async fn run(&self, shop: &Path, folder: &Path) -> Result<Outcome> {
        let layout = LAYOUTS[self.number as usize % LAYOUTS.len()];
        let start = Instant::now();
        let mut kills = Kills::new(self.seed);
        let mut stage = Stage::open(shop, folder, layout)?;
        let mut problems = Vec::new();
        let mut failed = |result: Result<()>| {
            problems.extend(result.err().map(|error| format!("{error:#}")));
        };
        failed(self.play(&mut stage, &mut kills).await);
        failed(stage.drain().await);
        let audit = match Audit::of(&stage, self.seed, self.orders).await {
            Ok(audit) => audit,
            Err(error) => {
                failed(Err(error));
                Audit::default()
            }
        };
        Ok(Outcome {
            number: self.number,
            processes: stage.size() - 1,
            kills: kills.count,
            of_gateway: kills.of_gateway,
            amid_work: kills.amid_work,
            audit,
            problems,
            took: start.elapsed(),
        })
    }

    async fn play(&self, stage: &mut Stage, kills: &mut Kills) -> Result<()> {
        stage.slow_gateway(kills.delay).await?;
        let waves = kills.lot.random_range(FIRST_WAVE.0);
        let mut visits = Vec::new();
        for wave in 1..=waves {
            kills.pause(FIRST_WAVE.1).await;
            // Each also asks again for all orders before its own.
            let orders = self.orders * u64::from(wave) / u64::from(waves);
            visits.push(self.place(stage, orders)?);
            kills.one(stage).await?;
        }
        for visit in visits {
            placed(visit).await?;
        }
        stage.note("all orders are placed")?;
        for _ in 0..kills.lot.random_range(CUTS) {
            kills.all(stage).await?;
            let before = head(&stage.folder)?;
            let resumed = async |stage: &Stage| {
                Ok(head(&stage.folder)? > before || ended(&stage.folder)? >= self.orders)
            };
            stage.until("work goes on", RESUME_LIMIT, resumed).await?;
            kills.pause(SECOND_WAVE.1).await;
        }
        for _ in 0..kills.lot.random_range(SECOND_WAVE.0) {
            kills.pause(SECOND_WAVE.1).await;
            if ended(&stage.folder)? < self.orders {
                kills.one(stage).await?;
            }
        }
        let finished = async |stage: &Stage| {
            Ok(ended(&stage.folder)? >= self.orders
                && Audit::of(stage, self.seed, self.orders).await?.holds())
        };
        stage.until("everything has ended", FINISH_LIMIT, finished).await
    }

    fn place(&self, stage: &Stage, orders: u64) -> Result<Child> {
        let (seed, url) = (self.seed, stage.url());
        let place =
            format!("place --url {url} --seed {seed} --orders {orders} --customers 10 --at-once 4");
        stage.spawn("place", &place)
    }
}

/// Waits until a visit has placed all its orders.
pub(super) async fn placed(mut visit: Child) -> Result<()> {
    let status = timeout(PLACE_LIMIT, visit.wait()).await.context("placing takes too long")??;
    ensure!(status.success(), "not every order could be placed: see place.log");
    Ok(())
}

/// Who is killed when.
struct Kills {
    lot: StdRng,
    delay: u64,
    count: u32,
    of_gateway: u32,
    amid_work: u32,
}

impl Kills {
    fn new(seed: u64) -> Self {
        let mut lot = StdRng::seed_from_u64(seed);
        let delay = lot.random_range(DELAY);
        Kills { lot, delay, count: 0, of_gateway: 0, amid_work: 0 }
    }

    async fn pause(&mut self, milliseconds: RangeInclusive<u64>) {
        sleep(Duration::from_millis(self.lot.random_range(milliseconds))).await;
    }

    /// Kills a process while there is something to do, and starts it again at once.
    async fn one(&mut self, stage: &mut Stage) -> Result<()> {
        let end = Instant::now() + WORK_LIMIT;
        while open(&stage.folder)? == 0 && Instant::now() < end {
            self.pause(5..=5).await;
        }
        self.pause(MOMENT).await;
        let of_gateway = self.lot.random_ratio(1, 4);
        let victim = if of_gateway { GATEWAY } else { self.lot.random_range(1..stage.size()) };
        if !of_gateway && !is_harmless(stage).await? {
            return stage.note("spared a process");
        }
        self.kill(stage, victim).await?;
        stage.start(victim)?;
        if of_gateway {
            stage.slow_gateway(self.delay).await?;
        }
        Ok(())
    }

    /// Kills everything, and starts it again when the leases have run out.
    async fn all(&mut self, stage: &mut Stage) -> Result<()> {
        if !is_harmless(stage).await? {
            return stage.note("spared all processes");
        }
        for victim in 0..stage.size() {
            self.kill(stage, victim).await?;
        }
        let_leases_run_out(&stage.folder)?;
        for victim in 0..stage.size() {
            stage.start(victim)?;
        }
        stage.slow_gateway(self.delay).await
    }

    async fn kill(&mut self, stage: &mut Stage, victim: usize) -> Result<()> {
        self.amid_work += u32::from(open(&stage.folder)? > 0);
        stage.kill(victim).await?;
        self.count += 1;
        self.of_gateway += u32::from(victim == GATEWAY);
        Ok(())
    }
}

/// Whether no message would become a dead letter if the next two processes died on it: one may have
/// begun with it unseen. Waits a while for that.
pub(super) async fn is_harmless(stage: &Stage) -> Result<bool> {
    let end = Instant::now() + SPARE_LIMIT;
    while deaths(&stage.folder)? > 0 {
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(true)
}
