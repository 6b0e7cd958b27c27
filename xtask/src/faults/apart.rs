//! Services apart: a process and a database for each, a real broker between them, and trouble for
//! processes, broker and connections while orders come in.

use super::audit::{Audit, ended, open};
use super::detour::Proxy;
use super::stage::Stage;
use super::trial::{DELAY, FINISH_LIMIT, is_harmless};
use super::trouble::Trouble;
use crate::services::{self, Service};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

/// From one kill to the next, in milliseconds.
const PAUSE: RangeInclusive<u64> = 200..=1_500;
/// How long the broker stays away, in milliseconds.
const AWAY: RangeInclusive<u64> = 0..=3_000;
/// RabbitMQ 3.10 loses quorum queues when it is killed within some seconds of their declaration, by
/// nothing that a client could do: longer than that.
const DECLARED: Duration = Duration::from_secs(10);
/// How long placing may take: every kill of the order service holds it up.
const PLACE_LIMIT: Duration = Duration::from_secs(600);
/// How long orders may take to be answered.
const PATIENCE: u64 = 300;

/// Orders a second, while there are troubles of another kind than kills.
const RATE: u64 = 20;

/// What is to be done.
pub(super) struct Apart {
    pub(super) broker: Service,
    pub(super) seed: u64,
    /// How many orders are placed; what the troubles last for unless said.
    pub(super) orders: Option<u64>,
    /// How often each process, and the broker, is killed.
    pub(super) rounds: u32,
    pub(super) troubles: Vec<Trouble>,
    /// The short form of each.
    pub(super) short: bool,
}

impl Apart {
    /// Plays it; fails if anything is broken in the end.
    pub(super) async fn run(&self, shop: &Path, folder: &Path) -> Result<()> {
        let mut url = services::up(&[self.broker])?.pop().context("the broker has no URL")?.1;
        let is_spoiled = self.troubles.contains(&Trouble::Network);
        let proxy = if is_spoiled { Some(Proxy::to(self.broker).await?) } else { None };
        url = proxy.as_ref().map_or(url, |proxy| proxy.url.clone());
        let mark = if url.contains('?') { '&' } else { '?' };
        let broker = format!("{url}{mark}prefix=faults-{:x}.", self.seed);
        let start = Instant::now();
        let mut stage = Stage::open_apart(shop, folder, &broker)?;
        let (told, audit) = self.play(&mut stage, proxy.as_ref()).await?;
        print!(
            "{} processes and {}, seed {}: {} orders, {} completed, {} cancelled; {:.1} s\n{told}",
            stage.size(),
            self.broker.name(),
            self.seed,
            audit.completed + audit.cancelled,
            audit.completed,
            audit.cancelled,
            start.elapsed().as_secs_f64()
        );
        let failed = stage.made_to_fail()?;
        println!("  {failed} handlings failed after their handler had returned");
        ensure!(failed > 0, "no handling was made to fail: see {}", folder.display());
        for broken in &audit.broken {
            println!("  {broken}");
        }
        ensure!(audit.holds(), "something is broken: see {}", folder.display());
        Ok(())
    }

    async fn play(&self, stage: &mut Stage, proxy: Option<&Proxy>) -> Result<(String, Audit)> {
        let mut lot = StdRng::seed_from_u64(self.seed);
        stage.until("all listen", FINISH_LIMIT, async |stage| stage.listens()).await?;
        if matches!(self.broker, Service::Rabbitmq) {
            sleep(DECLARED).await;
        }
        stage.slow_gateway(lot.random_range(DELAY)).await?;
        let seconds: u64 = self.troubles.iter().map(|trouble| trouble.seconds(self.short)).sum();
        // Troubles may take longer than they are to, and orders must come in all the while.
        let orders = self.orders.unwrap_or((seconds * RATE * 3 / 2).max(60));
        let mut placing = self.place(stage, orders, seconds > 0)?;
        let mut told = String::new();
        for trouble in &self.troubles {
            told += "  ";
            told += &trouble.make(self, stage, proxy, &mut lot).await?;
        }
        let placed =
            timeout(PLACE_LIMIT, placing.wait()).await.context("placing takes too long")?;
        ensure!(placed?.success(), "not every order could be placed: see place.log");
        let finished = async |stage: &Stage| {
            Ok(ended(&stage.folder)? >= orders
                && Audit::of(stage, self.seed, orders).await?.holds())
        };
        if let Err(late) = stage.until("everything has ended", FINISH_LIMIT, finished).await {
            // What is broken says more than that it took too long.
            let broken = Audit::of(stage, self.seed, orders).await?.broken.join("; ");
            return Err(late.context(broken));
        }
        stage.drain().await?;
        Ok((told, Audit::of(stage, self.seed, orders).await?))
    }

    fn place(&self, stage: &Stage, orders: u64, paced: bool) -> Result<Child> {
        let mut place = format!(
            "place --url {} --customers-url {} --seed {} --orders {orders} --at-once 16 --patience \
             {PATIENCE}",
            stage.url(),
            stage.customers_url(),
            self.seed,
        );
        if paced {
            let _ = write!(place, " --per-second {RATE}");
        }
        stage.spawn("place", &place)
    }

    /// Kills each process and the broker in turn, and starts it again.
    pub(super) async fn kills(&self, stage: &mut Stage, lot: &mut StdRng) -> Result<String> {
        let mut amid_work = 0;
        for _ in 0..self.rounds {
            let mut victims: Vec<usize> = (0..=stage.size()).collect();
            victims.shuffle(lot);
            for victim in victims {
                sleep(Duration::from_millis(lot.random_range(PAUSE))).await;
                amid_work += u32::from(open(&stage.folder)? > 0);
                if victim == stage.size() {
                    self.kill_broker(stage, lot).await?;
                } else {
                    kill(stage, victim).await?;
                }
            }
        }
        Ok(format!("each killed {} times, {amid_work} kills amid work\n", self.rounds))
    }

    async fn kill_broker(&self, stage: &mut Stage, lot: &mut StdRng) -> Result<()> {
        // One that is starting cannot do without it, and ends: somebody else starts it again then.
        stage.until("all listen", FINISH_LIMIT, async |stage| stage.listens()).await?;
        stage.note(format_args!("killed {}", self.broker.name()))?;
        services::kill(self.broker)?;
        sleep(Duration::from_millis(lot.random_range(AWAY))).await;
        services::up(&[self.broker])?;
        stage.note(format_args!("started {}", self.broker.name()))
    }
}

/// A message on which process after process dies becomes a dead letter, and should: so a process is
/// killed when no message is in danger of that.
async fn kill(stage: &mut Stage, victim: usize) -> Result<()> {
    let end = Instant::now() + FINISH_LIMIT;
    while !is_harmless(stage).await? {
        let name = stage.name(victim).to_owned();
        ensure!(Instant::now() < end, "{name} cannot be killed: it always dies on one message");
    }
    stage.kill(victim).await?;
    stage.start(victim)
}
