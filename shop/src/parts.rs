//! Which services run in a process, and what they need.

use crate::{
    analytics, customer,
    email::{self, Mailer},
    gateway::Gateway,
    inventory,
    order::{self, PaymentTerm},
    payment, shipping,
};
use clap::ValueEnum;
use sillage::{App, Service};

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

/// The app with these services in it.
pub fn assemble(app: App, parts: &[Part], needs: &Needs) -> App {
    parts.iter().fold(app, |app, part| app.service(part.service(needs)))
}
