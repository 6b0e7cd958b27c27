//! `shop demo`.

use super::{
    child::GatewayChild,
    counts::{Counts, is_quiet},
    folder::Folder,
    meter::{Meter, say},
    out,
    place::Samples,
    serve::{Outside, connect},
    stand::Stand,
    verify::table,
    visitor::Visitor,
};
use crate::{
    audit::{End, Evidence, Invariant, Orders, Report, Source},
    gateway::{Faults, Gateway},
    ids::OrderId,
    parts::{Flow, Needs, Part},
    sample::{Fate, Sampler},
};
use anyhow::{Context as _, anyhow, ensure};
use serde::Serialize;
use sillage::{Broker, Clock as _, Position, SystemClock, admin::Admin, ms, saga::Status, secs};
use std::{collections::BTreeSet, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};
use tokio::net::TcpListener;

/// How often it is looked at how far the orders are.
const LOOK: Duration = ms(100);

/// Place many orders, wait until all have ended, and audit the result.
#[derive(clap::Args)]
pub(super) struct Demo {
    #[command(flatten)]
    samples: Samples,
    /// How many orders are placed at once.
    #[arg(long, default_value_t = 64)]
    at_once: usize,
    /// The database, which should be empty; a fresh one in the data folder unless said.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The folder for the database, the ledger and the letters: emptied first.
    #[arg(long, value_name = "DIR", default_value = "shop-data/demo")]
    data: PathBuf,
    #[command(flatten)]
    outside: Outside,
    /// Every charge of this sample customer fails, as if by a bug: its orders become dead letters,
    /// and all others go on.
    #[arg(long, value_name = "NUMBER")]
    fail_customer: Option<u64>,
    /// Then mend it, send its dead letters back, and wait for them as well.
    #[arg(long, requires = "fail_customer")]
    mend: bool,
    /// The gateway goes down after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    gateway_down_after: Option<u64>,
    /// The gateway is down for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, requires = "gateway_down_after")]
    gateway_down_for: u64,
    /// How long to wait for the last order, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    time_limit: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// What a demonstration shows.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    report: Report,
    #[serde(flatten)]
    deliveries: Counts,
    /// Orders that wait as dead letters, and are left out of the rest.
    blocked: usize,
    seconds: f64,
    orders_per_second: f64,
}

impl Demo {
    /// Whether everything held.
    pub(super) async fn run(self) -> anyhow::Result<bool> {
        let folder = Folder::at(&self.data);
        folder.make()?;
        folder.empty()?;
        let child = GatewayChild::start(&folder.ledger()).await?;
        let needs = self.outside.needs(&child.url, &folder)?;
        let url = self.database.clone().unwrap_or_else(|| folder.database());
        let database = connect(&url).await?;
        ensure!(
            database.head().await?.last == Position(0),
            "the database is not empty, so that its orders would be counted again: name another, \
             as by `?schema=…` in the URL of PostgreSQL"
        );
        let broker = self.outside.connect_broker().await?;
        let admin = Admin::new(database, "shop demo").broker(broker.clone());
        let shown = self.show(admin, broker, &folder, needs).await?;
        if self.json {
            out(serde_json::to_string(&shown)?);
        } else {
            out(table(&shown.report));
            out(format_args!(
                "  {:.1} s, {:.0} orders a second",
                shown.seconds, shown.orders_per_second
            ));
        }
        if shown.blocked > 0 {
            say(format_args!(
                "{} orders wait as dead letters. Mend what fails, and send them back:\n  \
                 sillage dlq list --database {url}",
                shown.blocked
            ));
        }
        for broken in shown.report.invariants.iter().filter(|invariant| !invariant.holds) {
            say(format_args!("broken: {}: {}", broken.name, broken.detail));
        }
        Ok(shown.report.holds())
    }

    async fn show(
        &self,
        admin: Admin,
        broker: Option<Arc<dyn Broker>>,
        folder: &Folder,
        needs: Needs,
    ) -> anyhow::Result<Shown> {
        let sampler = self.samples.sampler();
        self.misbehave(&needs.gateway, &sampler).await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let database = admin.database().clone();
        let stand = Stand::open(database, broker, &Part::all(), &needs, listener).await?;
        let start = SystemClock.elapsed();
        self.schedule_outage(&needs.gateway);
        let meter = Meter::new(self.samples.orders);
        let visitor = Visitor::of(&stand.url(), secs(30))?;
        let placed = |n| meter.show("placed", n);
        let visit = visitor.visit(sampler, self.samples.orders, self.at_once.max(1), placed);
        visit.await.context("not every order could be placed")?;
        let mut look = Look {
            admin,
            ledger: Source::Gateway(needs.gateway.clone()),
            letters: folder.letters(),
            blocked: self.blocked(&sampler),
        };
        let mut orders = self.wait(&look, &meter).await?;
        if self.mend {
            mend(&look.admin, &needs.gateway).await?;
            look.blocked.clear();
            orders = self.wait(&look, &meter).await?;
        }
        let seconds = SystemClock.elapsed().saturating_sub(start).as_secs_f64();
        if orders.open() > look.blocked.len() {
            stand.running.health().problems.iter().for_each(say);
        }
        stand.close().await?;
        self.shown(&look, orders, &sampler, seconds).await
    }

    /// What there is to see, once everything is closed.
    async fn shown(
        &self,
        look: &Look,
        orders: Orders,
        sampler: &Sampler,
        seconds: f64,
    ) -> anyhow::Result<Shown> {
        let mut report = self.report(&look.gather(orders).await?, sampler, &look.blocked);
        let deliveries = Counts::of(&look.admin).await?;
        report.invariants.push(deliveries.accounted(&look.admin).await?);
        if self.outside.flow == Flow::Orchestration {
            report.invariants.push(sagas(&look.admin, look.blocked.len() as u64).await?);
        }
        #[allow(clippy::cast_precision_loss)] // there are not so many orders
        let orders_per_second = report.orders as f64 / seconds;
        Ok(Shown { report, deliveries, blocked: look.blocked.len(), seconds, orders_per_second })
    }

    /// The orders that will not end by themselves.
    fn blocked(&self, sampler: &Sampler) -> BTreeSet<OrderId> {
        let of_it = |n: &u64| Some(sampler.customer_of(*n)) == self.fail_customer;
        (0..self.samples.orders).filter(of_it).map(|n| sampler.order_id(n)).collect()
    }

    async fn misbehave(&self, gateway: &Gateway, sampler: &Sampler) -> anyhow::Result<()> {
        let fail_customer = self.fail_customer.map(|n| sampler.customer_id(n));
        let faults = Faults { fail_customer, ..Faults::default() };
        gateway.misbehave(&faults).await.map_err(|failure| anyhow!("{failure}"))?;
        Ok(())
    }

    fn schedule_outage(&self, gateway: &Gateway) {
        let Some(after) = self.gateway_down_after else { return };
        let (gateway, lasts) = (gateway.clone(), secs(self.gateway_down_for));
        tokio::spawn(async move {
            SystemClock.sleep(secs(after)).await;
            say("the gateway goes down");
            let _ = gateway.misbehave(&Faults { down: true, ..Faults::default() }).await;
            SystemClock.sleep(lasts).await;
            say("the gateway is back");
            let _ = gateway.misbehave(&Faults::default()).await;
        });
    }

    /// Waits until every order has ended that can, and everything that follows from it has
    /// happened; at most for as long as was said.
    async fn wait(&self, look: &Look, meter: &Meter) -> anyhow::Result<Orders> {
        let until = SystemClock.elapsed() + secs(self.time_limit);
        let mut orders = Orders::default();
        loop {
            orders.catch_up(std::slice::from_ref(look.admin.database())).await?;
            let open = orders.open();
            meter.show("ended", (orders.stories.len() - open) as u64);
            let settled = open <= look.blocked.len()
                && Report::of(&look.gather(orders.clone()).await?, &[]).holds()
                && is_quiet(&look.admin).await?;
            let late = !settled && SystemClock.elapsed() >= until;
            if settled || late {
                meter.end();
                if late {
                    tell_lags(&look.admin).await?;
                }
                return Ok(orders);
            }
            SystemClock.sleep(LOOK).await;
        }
    }

    fn report(
        &self,
        evidence: &Evidence,
        sampler: &Sampler,
        blocked: &BTreeSet<OrderId>,
    ) -> Report {
        let ids = (0..self.samples.orders).map(|n| sampler.order_id(n));
        let expected: Vec<_> = ids.filter(|id| !blocked.contains(id)).collect();
        let mut report = Report::of(evidence, &expected);
        let outage = self.gateway_down_after.map_or(0, |_| self.gateway_down_for);
        if outage < self.outside.unpaid_after {
            report.invariants.push(fates(evidence, sampler, self.samples.orders));
        }
        report
    }
}

/// Who has not come to the end, when the time is over.
async fn tell_lags(admin: &Admin) -> anyhow::Result<()> {
    for consumer in admin.consumers().await? {
        match consumer.lag {
            Some(0) => {}
            Some(lag) => say(format_args!("{lag} messages wait for {}", consumer.name)),
            None => say(format_args!("nobody knows how much waits for {}", consumer.name)),
        }
    }
    Ok(())
}

/// Declines and shortages follow from the order's own data, never from a race.
fn fates(evidence: &Evidence, sampler: &Sampler, orders: u64) -> Invariant {
    let wrong = (0..orders).find_map(|n| {
        let (id, fate) = (sampler.order_id(n), sampler.fate(n));
        let end = evidence.orders.stories.get(&id)?.ends.first()?;
        ((*end == End::Completed) != (fate == Fate::Completed))
            .then(|| format!("order {id} was to be {fate:?}, and ended {end:?}"))
    });
    let detail = wrong.clone().unwrap_or_else(|| format!("seed {}", sampler.seed));
    Invariant { name: "every order ends as its own data says", holds: wrong.is_none(), detail }
}

/// Every saga has come to its end but those that wait for an operator, and none is stuck.
async fn sagas(admin: &Admin, blocked: u64) -> anyhow::Result<Invariant> {
    let counts = admin.saga_counts().await?;
    let of = |status: Status| counts.get(&status).copied().unwrap_or(0);
    let (completed, compensated) = (of(Status::Completed), of(Status::Compensated));
    let (stuck, open) = (of(Status::Stuck), of(Status::Running) + of(Status::Compensating));
    Ok(Invariant {
        name: "every saga is completed or compensated, none is stuck",
        holds: stuck == 0 && open <= blocked,
        detail: format!("{completed} completed, {compensated} compensated, {stuck} stuck"),
    })
}

/// The gateway takes everybody's cards again, and what failed is sent back.
async fn mend(admin: &Admin, gateway: &Gateway) -> anyhow::Result<()> {
    let dead = admin.dead_letters(None, false).await?;
    say(format_args!("{} dead letters; the gateway is mended, and they are sent back", dead.len()));
    let mended = gateway.misbehave(&Faults::default()).await;
    mended.map_err(|failure| anyhow!("{failure}"))?;
    for dead in dead {
        admin.redrive(&dead.id, false, false).await?;
    }
    Ok(())
}

/// Where the evidence is, and what is left out of it.
struct Look {
    admin: Admin,
    ledger: Source,
    letters: PathBuf,
    blocked: BTreeSet<OrderId>,
}

impl Look {
    async fn gather(&self, orders: Orders) -> anyhow::Result<Evidence> {
        let databases = std::slice::from_ref(self.admin.database());
        let gather = Evidence::gather(databases, orders, &self.ledger, &self.letters);
        let mut evidence = gather.await?;
        evidence.orders.stories.retain(|id, _| !self.blocked.contains(id));
        Ok(evidence)
    }
}
