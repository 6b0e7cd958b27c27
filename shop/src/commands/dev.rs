//! `shop dev`.

use super::{
    child::GatewayChild, folder::Folder, out, serve::Outside, stand::Stand, tree, visitor::Visitor,
};
use crate::{
    audit::Orders,
    order::{OrderView, Status},
    parts::Part,
    sample::{Fate, Sampler},
};
use anyhow::Context as _;
use sillage::{Clock as _, Database, Running, SystemClock, admin::Admin, ms, secs};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet};

/// Where the HTTP API listens if nobody else does; else on one of the next, else anywhere.
const PORT: u16 = 8080;
const NEXT_PORTS: u16 = 20;
/// How often a sample customer orders something.
const EVERY: Duration = secs(1);
/// The first line of the file that tells the `sillage` command where the database is.
const CONFIG_MARK: &str = "# Written by `shop dev`: where `sillage` finds the shop.";
const CONFIG: &str = "sillage.toml";

/// Run everything here, with sample customers: what happens without a command.
#[derive(clap::Args)]
pub(super) struct Dev {
    /// No sample customers: the shop waits for orders.
    #[arg(long)]
    quiet: bool,
    /// Throw away what an earlier run left.
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    outside: Outside,
    #[command(flatten)]
    folder: Folder,
}

impl Dev {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        if self.fresh {
            self.folder.empty()?;
        }
        self.folder.make()?;
        let url = self.folder.database();
        let database = sillage::connect(&url).await?;
        let gateway = GatewayChild::start(&self.folder.ledger()).await?;
        let needs = self.outside.needs(&gateway.url, &self.folder)?;
        let broker = self.outside.connect_broker().await?;
        let listener = listen().await?;
        let stand =
            Stand::open(database.clone(), broker.clone(), &Part::all(), &needs, listener).await?;
        configure(Path::new(CONFIG), &url, &self.outside.broker)?;
        self.welcome(&stand, &gateway, &url);
        let mut visitors = JoinSet::new();
        if !self.quiet {
            visitors.spawn(visits(
                stand.url(),
                stand.running.clone(),
                Admin::new(database.clone(), "shop dev").broker(broker),
            ));
        }
        sillage::shutdown_signal().await;
        out("\nThe shop closes…");
        visitors.shutdown().await;
        stand.close().await?;
        farewell(database).await
    }

    fn welcome(&self, stand: &Stand, gateway: &GatewayChild, database: &str) {
        out(format_args!(
            "The shop is open. Everything it knows is in {}.\n",
            self.folder.path().display()
        ));
        out(format_args!(
            "  API       {}   /products /orders /analytics /openapi.json",
            stand.url()
        ));
        out(format_args!("  gateway   {}   /ledger /faults", gateway.url));
        out(format_args!("  database  {database}"));
        out(format_args!("  broker    {}", self.outside.broker));
        let customers = if self.quiet {
            "It waits for orders."
        } else {
            "A customer orders something every second."
        };
        out(format_args!("\n{customers} Ctrl-C closes the shop."));
    }
}

/// The usual port, or one of the next, or any.
async fn listen() -> anyhow::Result<TcpListener> {
    for port in (PORT..=PORT + NEXT_PORTS).chain([0]) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let Ok(listener) = TcpListener::bind(address).await {
            return Ok(listener);
        }
    }
    anyhow::bail!("no port of the loopback is free")
}

/// Tells the `sillage` command where the database is, unless somebody else wrote that file.
fn configure(path: &Path, database: &str, broker: &str) -> anyhow::Result<()> {
    let ours = match std::fs::read_to_string(path) {
        Ok(text) => text.starts_with(CONFIG_MARK),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if ours {
        let text = format!("{CONFIG_MARK}\ndatabase = {database:?}\nbroker = {broker:?}\n");
        std::fs::write(path, text)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// Sample customers come and order, for ever.
async fn visits(url: String, running: Running, admin: Admin) {
    let seed = SystemClock.now().as_micros().unsigned_abs();
    let sampler = Sampler { seed, customers: 20, decline_percent: 10, shortage_percent: 5 };
    let Ok(visitor) = Visitor::of(&url, secs(10)) else { return };
    let mut shown = JoinSet::new();
    for n in 0.. {
        let customer = sampler.customer_of(n);
        if let Err(error) = visitor.register(&sampler, customer).await {
            tracing::error!(%error, "a customer could not register");
        }
        match visitor.order(&sampler, n).await {
            Ok(placed) if shown.is_empty() && sampler.fate(n) == Fate::Completed => {
                let (running, admin) = (running.clone(), admin.clone());
                let (url, order_id) = (url.clone(), placed.order_id.to_string());
                shown.spawn(async move {
                    let shown = show_first(&running, &admin, &url, &order_id);
                    if let Err(error) = shown.await {
                        tracing::error!(%error, "the first order cannot be shown");
                    }
                });
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "an order could not be placed"),
        }
        SystemClock.sleep(EVERY).await;
    }
}

/// Waits until the first order is through, and shows what followed from it.
async fn show_first(
    running: &Running,
    admin: &Admin,
    url: &str,
    order_id: &str,
) -> anyhow::Result<()> {
    let view = running.view::<OrderView>("order");
    while view.get(order_id).await?.is_none_or(|order| order.status != Status::Completed) {
        SystemClock.sleep(ms(20)).await;
    }
    let trace = admin.trace(order_id).await?.context("the first order is not in the log")?;
    out("\nThe first order is through:\n");
    out(tree::draw(&trace));
    out("Look for yourself:\n");
    out(format_args!("  cargo sillage trace {}", trace.correlation_id));
    out("  cargo sillage tail");
    out(format_args!("  curl -s {url}/orders/{order_id}\n"));
    let pid = std::process::id();
    out(format_args!("Kill it, with `kill -9 {pid}`, and start it again: nothing is lost, and"));
    out(
        "nothing is done twice. When it is closed, `cargo run --release -p shop -- verify` proves it.",
    );
    Ok(())
}

async fn farewell(database: Arc<dyn Database>) -> anyhow::Result<()> {
    let mut orders = Orders::default();
    orders.catch_up(&[database]).await?;
    match orders.open() {
        0 => out(format_args!("All {} orders have ended.", orders.stories.len())),
        open => out(format_args!(
            "{open} of {} orders are under way; they go on when the shop opens again.",
            orders.stories.len()
        )),
    }
    Ok(())
}
