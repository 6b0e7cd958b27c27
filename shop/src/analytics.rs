//! Analytics: revenue by day, orders by outcome, products by how often they are ordered.
//!
//! Three projections over what other services publish; nothing here is asked of anybody.

use crate::{
    events::{
        Item, OrderCancelled, OrderCompleted, OrderCreated, PaymentCompleted, PaymentRefunded,
    },
    ids::ProductId,
    money::Money,
};
use serde::{Deserialize, Serialize};
use sillage::prelude::*;
use std::collections::BTreeMap;

/// The money of one day, by the day it moved.
#[derive(Document, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[document(collection = "revenue")]
pub struct Revenue {
    /// The day, in UTC: `2026-11-23`.
    #[document(id, sort)]
    pub day: String,
    /// What was charged.
    pub charged: Money,
    /// What was paid back.
    pub refunded: Money,
}

/// How many orders ended one way.
#[derive(Document, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[document(collection = "outcomes")]
pub struct Outcome {
    /// `completed`, or why they were cancelled: `declined`, `unpaid`, `out-of-stock`.
    #[document(id, sort)]
    pub outcome: String,
    /// How many.
    pub orders: u64,
}

/// How often each product was ordered.
#[derive(Document, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[document(collection = "demand")]
pub struct Demand {
    /// There is one such document.
    #[document(id)]
    pub id: String,
    /// How many of each.
    pub products: BTreeMap<ProductId, u64>,
}

/// The one [`Demand`].
pub const DEMAND: &str = "all";

/// The service.
pub fn service() -> Service {
    Service::new("analytics")
        .follow(["order", "payment"])
        .projection(revenue())
        .projection(outcomes())
        .projection(demand())
}

/// Revenue by day.
pub fn revenue() -> Projection<Revenue> {
    Projection::<Revenue>::new("revenue", 1)
        .on_each::<PaymentCompleted>(
            |payment| Key::of(day(payment.time)),
            |revenue, payment| {
                revenue.day = day(payment.time);
                revenue.charged = revenue.charged + payment.amount;
            },
        )
        .on_each::<PaymentRefunded>(
            |refund| Key::of(day(refund.time)),
            |revenue, refund| {
                revenue.day = day(refund.time);
                revenue.refunded = revenue.refunded + refund.amount;
            },
        )
}

/// Orders by outcome.
pub fn outcomes() -> Projection<Outcome> {
    Projection::<Outcome>::new("outcomes", 1)
        .on_each::<OrderCompleted>(
            |_| Key::of("completed"),
            |outcome, _| outcome.count("completed"),
        )
        .on_each::<OrderCancelled>(
            |order| Key::of(order.why.word()),
            |outcome, order| outcome.count(order.why.word()),
        )
}

/// Products by how often they are ordered.
pub fn demand() -> Projection<Demand> {
    Projection::<Demand>::new("demand", 1)
        .on_each::<OrderCreated>(|_| Key::of(DEMAND), |demand, order| demand.count(&order.items))
}

impl Outcome {
    fn count(&mut self, outcome: &str) {
        outcome.clone_into(&mut self.outcome);
        self.orders += 1;
    }
}

impl Demand {
    fn count(&mut self, items: &[Item]) {
        DEMAND.clone_into(&mut self.id);
        for item in items {
            *self.products.entry(item.product_id.clone()).or_default() += u64::from(item.quantity);
        }
    }

    /// The products ordered most, the first first.
    pub fn top(&self, most: usize) -> Vec<(&ProductId, u64)> {
        let mut products: Vec<_> = self.products.iter().map(|(id, n)| (id, *n)).collect();
        products.sort_by_key(|(id, ordered)| (std::cmp::Reverse(*ordered), *id));
        products.truncate(most);
        products
    }
}

/// The day of a time, in UTC.
fn day(time: Timestamp) -> String {
    time.to_string().chars().take_while(|c| *c != 'T').collect()
}
