//! Which services run in a process, and what they need.

use crate::{
    analytics,
    audit::Orders,
    customer,
    email::{self, Mailer},
    gateway::Gateway,
    inventory,
    order::{self, PaymentTerm},
    payment, shipping,
};
use anyhow::ensure;
use clap::ValueEnum;
use sillage::{App, Service, admin::Admin};

/// A service of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Customers and their registration.
    Customer,
    /// Orders and how they end.
    Order,
    /// Stock and what is set aside.
    Inventory,
    /// Charges and refunds.
    Payment,
    /// Parcels.
    Shipping,
    /// Letters.
    Email,
    /// Figures.
    Analytics,
}

/// Who says what comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Flow {
    /// Nobody: each service reacts to what the others publish.
    #[default]
    Choreography,
    /// The checkout saga: it asks one service after the other.
    Orchestration,
}

/// What the services need from outside.
#[derive(Clone)]
pub struct Needs {
    /// The way to the payment gateway.
    pub gateway: Gateway,
    /// The way to the customers' mailboxes.
    pub mailer: Mailer,
    /// How long an order may stay unpaid.
    pub term: PaymentTerm,
    /// Who says what comes next.
    pub flow: Flow,
    /// Which share of handlings is to fail.
    pub failing: Option<f64>,
}

impl Part {
    /// All of them.
    pub fn all() -> Vec<Part> {
        Part::value_variants().to_vec()
    }

    fn service(self, needs: &Needs) -> Service {
        match self {
            Part::Customer => customer::service(),
            Part::Order => order::service(needs.term, needs.flow),
            Part::Inventory => inventory::service(needs.flow),
            Part::Payment => payment::service(needs.gateway.clone(), needs.flow),
            Part::Shipping => shipping::service(needs.flow),
            Part::Email => email::service(needs.mailer.clone()),
            Part::Analytics => analytics::service(),
        }
    }
}

/// Whether this flow can take over what is in the database.
///
/// # Errors
/// Orders were placed in the other flow: those that are open would never end, as nobody would hear
/// what they wait for, and the saga would begin anew with those that have ended.
pub async fn check_flow(admin: &Admin, flow: Flow) -> anyhow::Result<()> {
    let manifests = admin.manifests().await?;
    let Some(order) = manifests.iter().find(|of| of["service"] == "order") else { return Ok(()) };
    let is_led = order["sagas"].as_array().is_some_and(|sagas| !sagas.is_empty());
    let (before, word) = if is_led {
        (Flow::Orchestration, "orchestration")
    } else {
        (Flow::Choreography, "choreography")
    };
    if before == flow {
        return Ok(());
    }
    let mut orders = Orders::default();
    orders.catch_up(std::slice::from_ref(admin.database())).await?;
    let (all, open) = (orders.stories.len(), orders.open());
    ensure!(
        all == 0,
        "this shop runs in {word}: of its {all} orders {open} are open, and in the other flow nobody \
         would end them. Start it with `--flow {word}`, which finishes them; the other flow takes a \
         database of its own, as by `--data` or `--database`"
    );
    Ok(())
}

/// The app with these services in it.
pub fn assemble(app: App, parts: &[Part], needs: &Needs) -> App {
    let app = match needs.failing {
        Some(share) => app.fail_handlers(share),
        None => app,
    };
    parts.iter().fold(app, |app, part| app.service(part.service(needs)))
}
