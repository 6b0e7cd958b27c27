//! `shop place`.

use super::{out, visitor::Visitor};
use crate::{
    customer::{Customer, register},
    events::CreateOrder,
    http::{NewCustomer, NewOrder},
    order::{Order, OrderCommand},
    sample::Sampler,
};
use anyhow::Context as _;
use sillage::{App, CommitError, Running, Service};
use std::time::Duration;

/// Place sample orders; those that were placed before are not placed again.
#[derive(clap::Args)]
pub(super) struct Place {
    #[command(flatten)]
    samples: Samples,
    /// The shop's address: orders go over HTTP, and are asked for again until they are answered.
    #[arg(long, required_unless_present = "database", conflicts_with = "database")]
    url: Option<String>,
    /// Where customers are registered, if their service runs elsewhere.
    #[arg(long, value_name = "URL", requires = "url")]
    customers_url: Option<String>,
    /// The shop's database: orders go straight into it, without an HTTP server.
    #[arg(long, env = "SILLAGE_DATABASE", value_name = "URL")]
    database: Option<String>,
    /// How many orders are placed at once.
    #[arg(long, default_value_t = 16)]
    at_once: usize,
    /// How many orders a second at most, over HTTP.
    #[arg(long, requires = "url", value_parser = clap::value_parser!(u32).range(1..))]
    per_second: Option<u32>,
    /// How long to ask again for an order that is not answered, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
}

/// Which orders to make up.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Samples {
    /// How many orders.
    #[arg(long, default_value_t = 100)]
    pub(super) orders: u64,
    /// Everything about them follows from it.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// How many customers place them.
    #[arg(long, default_value_t = 50)]
    pub(super) customers: u64,
    /// How many orders of a hundred have a card that is declined.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=100))]
    pub(super) decline_percent: u64,
    /// How many orders of a hundred have a product that is sold out.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=100))]
    pub(super) shortage_percent: u64,
}

impl Samples {
    pub(super) fn sampler(&self) -> Sampler {
        Sampler {
            seed: self.seed,
            customers: self.customers.max(1),
            decline_percent: self.decline_percent,
            shortage_percent: self.shortage_percent,
        }
    }
}

impl Place {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (sampler, orders) = (self.samples.sampler(), self.samples.orders);
        if let Some(url) = &self.url {
            let mut visitor = Visitor::of(url, Duration::from_secs(self.patience))?;
            if let Some(url) = &self.customers_url {
                visitor = visitor.registering_at(url);
            }
            if let Some(rate) = self.per_second {
                visitor = visitor.at_most(rate);
            }
            visitor.visit(sampler, orders, self.at_once.max(1), |_| {}).await?;
        } else {
            let database = self.database.context("say --url or --database")?;
            let app = App::new(sillage::connect(&database).await?)
                .service(Service::new("customer"))
                .service(Service::new("order"));
            let running = app.start().await?;
            place_all(&running, &sampler, orders).await?;
            running.drain().await;
        }
        out(format_args!("{orders} orders are placed"));
        Ok(())
    }
}

async fn place_all(running: &Running, sampler: &Sampler, orders: u64) -> anyhow::Result<()> {
    let customers = running.service("customer");
    for n in 0..sampler.customers {
        let NewCustomer { name, email } = sampler.customer(n);
        let customer = Customer { customer_id: sampler.customer_id(n), name, email };
        match customers.commit(register(customer)).await {
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error).context("a customer cannot be registered"),
        }
    }
    let service = running.service("order");
    for n in 0..orders {
        let order_id = sampler.order_id(n);
        let NewOrder { customer_id, items, card } = sampler.order(n);
        let create = OrderCommand::Create(CreateOrder { order_id, customer_id, items, card });
        let placed = service.execute::<Order>(order_id, create).await;
        placed.with_context(|| format!("order {order_id} cannot be placed"))?;
    }
    Ok(())
}
