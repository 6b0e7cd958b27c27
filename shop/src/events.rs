//! Everything the services tell each other: events, and commands with the events that answer them.
//!
//! An event is published on the topic that its name starts with (`order.created` on `order`), a
//! command on its owner's (`order.create` on `order.commands`). All but the customer's are keyed
//! by the order, so that one order's facts of one topic come in order; *across* topics there is no
//! order, and no service relies on one.

use crate::{
    ids::{CustomerId, OrderId, ProductId},
    money::{Card, Money},
};
use serde::{Deserialize, Serialize};
use sillage::prelude::*;
use std::fmt;

/// So many of a product.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Which product.
    pub product_id: ProductId,
    /// How many of it.
    pub quantity: u32,
}

/// Why an order did not come about.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Why {
    /// The card was declined.
    Declined {
        /// What the gateway said: `card_declined`.
        code: String,
    },
    /// No payment came in time.
    Unpaid,
    /// There is not enough of a product.
    OutOfStock {
        /// Which product.
        product_id: ProductId,
    },
}

impl Why {
    /// The reason in a word, for counts.
    pub fn word(&self) -> &'static str {
        match self {
            Why::Declined { .. } => "declined",
            Why::Unpaid => "unpaid",
            Why::OutOfStock { .. } => "out-of-stock",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Declined { code } => write!(f, "the card was declined ({code})"),
            Why::Unpaid => f.write_str("no payment came in time"),
            Why::OutOfStock { product_id } => write!(f, "`{product_id}` is out of stock"),
        }
    }
}

// ---- customer ----------------------------------------------------------------------------------

/// A customer has registered: an integration event, for whoever keeps addresses.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "integration.customer.created", version = 1, topic = "customer")]
pub struct CustomerCreated {
    /// Who.
    #[event(key)]
    pub customer_id: CustomerId,
    /// What to call them.
    pub name: String,
    /// Where to write to.
    pub email: String,
}

// ---- order -------------------------------------------------------------------------------------

/// Place an order. Answered by `order.created` or `order.rejected`.
#[derive(Command, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[command(name = "order.create", done = OrderCreated, failed = OrderRejected)]
pub struct CreateOrder {
    /// The order's id, chosen by who places it, so that asking twice places one.
    #[command(key)]
    pub order_id: OrderId,
    /// Who orders.
    pub customer_id: CustomerId,
    /// What.
    pub items: Vec<Item>,
    /// What pays for it.
    pub card: Card,
}

/// An order was placed.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.created", version = 2, was = OrderCreatedV1)]
pub struct OrderCreated {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
    /// Who ordered.
    pub customer_id: CustomerId,
    /// What, each product once.
    pub items: Vec<Item>,
    /// What pays for it.
    pub card: Card,
    /// What it costs.
    pub total: Money,
}

/// `order.created` as it once was: one product an order, and the total a float.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.created", version = 1)]
pub struct OrderCreatedV1 {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
    /// Who ordered.
    pub customer_id: CustomerId,
    /// The product.
    pub product_id: ProductId,
    /// How many of it.
    pub quantity: u32,
    /// What pays for it.
    pub card: Card,
    /// What it costs, in euro.
    pub total: f64,
}

impl From<OrderCreatedV1> for OrderCreated {
    fn from(old: OrderCreatedV1) -> Self {
        // Within ±10¹³ euro every cent is exact in a float; beyond that there are no orders.
        #[allow(clippy::cast_possible_truncation)]
        let cents = (old.total.clamp(-1e13, 1e13) * 100.0).round() as i64;
        OrderCreated {
            order_id: old.order_id,
            customer_id: old.customer_id,
            items: vec![Item { product_id: old.product_id, quantity: old.quantity }],
            card: old.card,
            total: Money::cents(cents),
        }
    }
}

/// An order was refused, and there is none.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.rejected")]
pub struct OrderRejected {
    /// Which order it would have been.
    #[event(key)]
    pub order_id: OrderId,
    /// What is wrong with it.
    pub why: String,
}

/// It is time to ask for the money again, or to give the order up: what dunning's own timer says.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.payment-due")]
pub struct PaymentDue {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
}

/// The customer was reminded that the order is not paid.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.payment-reminded")]
pub struct PaymentReminded {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
}

/// Give an order up, unless its payment was taken.
#[derive(Command, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[command(name = "order.cancel")]
pub struct CancelOrder {
    /// Which order.
    #[command(key)]
    pub order_id: OrderId,
    /// For which reason.
    #[serde(flatten)]
    pub why: Why,
}

/// Close an order that was paid for and shipped.
#[derive(Command, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[command(name = "order.complete")]
pub struct CompleteOrder {
    /// Which order.
    #[command(key)]
    pub order_id: OrderId,
}

/// The order took its payment: from here only a shortage can cancel it.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.paid")]
pub struct OrderPaid {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
}

/// The order was shipped, and that is the end of it.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.completed")]
pub struct OrderCompleted {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
    /// Who ordered.
    pub customer_id: CustomerId,
    /// What was paid for it.
    pub total: Money,
}

/// The order was given up, and that is the end of it. Whatever was paid is paid back.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "order.cancelled")]
pub struct OrderCancelled {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
    /// Who ordered.
    pub customer_id: CustomerId,
    /// For which reason.
    #[serde(flatten)]
    pub why: Why,
}

// ---- payment -----------------------------------------------------------------------------------

/// Take the money for an order.
#[derive(Command, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[command(name = "payment.charge", done = PaymentCompleted, failed = PaymentFailed)]
pub struct ChargePayment {
    /// Which order.
    #[command(key)]
    pub order_id: OrderId,
    /// Who pays.
    pub customer_id: CustomerId,
    /// With what.
    pub card: Card,
    /// How much.
    pub amount: Money,
}

/// Pay back what was paid for an order.
#[derive(Command, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[command(name = "payment.refund", done = PaymentRefunded)]
pub struct RefundPayment {
    /// Which order.
    #[command(key)]
    pub order_id: OrderId,
    /// For which reason.
    #[serde(flatten)]
    pub why: Why,
}

/// The money is ours.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "payment.completed")]
pub struct PaymentCompleted {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
    /// What the gateway calls the payment.
    pub payment_id: String,
    /// How much.
    pub amount: Money,
}

/// The card was declined: a fact of business, not a failure.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "payment.failed")]
pub struct PaymentFailed {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
    /// What the gateway said: `card_declined`.
    pub code: String,
}

/// The money was paid back.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "payment.refunded")]
pub struct PaymentRefunded {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
    /// How much.
    pub amount: Money,
    /// For which reason.
    #[serde(flatten)]
    pub why: Why,
}

// ---- inventory ---------------------------------------------------------------------------------

/// Set an order's items aside.
#[derive(Command, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[command(name = "stock.reserve", done = StockReserved, failed = StockShort)]
pub struct ReserveStock {
    /// Which order.
    #[command(key)]
    pub order_id: OrderId,
    /// What.
    pub items: Vec<Item>,
}

/// Put an order's items back on the shelf.
#[derive(Command, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[command(name = "stock.release", done = StockReleased)]
pub struct ReleaseStock {
    /// Which order.
    #[command(key)]
    pub order_id: OrderId,
}

/// All items of an order were set aside.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "stock.reserved")]
pub struct StockReserved {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
}

/// There is not enough of a product; nothing was set aside.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "stock.short")]
pub struct StockShort {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
    /// The first product that is short.
    pub product_id: ProductId,
}

/// The items of an order are back on the shelf.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "stock.released")]
pub struct StockReleased {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
}

// ---- shipping ----------------------------------------------------------------------------------

/// Ship an order.
#[derive(Command, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[command(name = "shipping.ship", done = OrderShipped)]
pub struct ShipOrder {
    /// Which order.
    #[command(key)]
    pub order_id: OrderId,
}

/// The parcel is on its way.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "shipping.shipped")]
pub struct OrderShipped {
    /// Which order.
    #[event(key)]
    pub order_id: OrderId,
    /// What the carrier calls the parcel.
    pub tracking: String,
}
