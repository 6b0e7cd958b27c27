//! The payment gateway: an HTTP process of its own, as a real one would be.
//!
//! `POST /charges` and `POST /refunds` take an `Idempotency-Key`: the same key gets the same answer
//! and moves money once, also after the gateway was killed. `GET /ledger` shows every movement,
//! `POST /faults` makes it misbehave.

mod book;
mod client;
mod ledger;
mod server;

pub use book::{Book, Reply};
pub use client::{Charge, Gateway};
pub use ledger::{Ledger, read_ledger};
pub use server::{GatewayState, router, serve};

use crate::{
    ids::{CustomerId, OrderId},
    money::{Card, Money},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The header that names an operation.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Asks for money.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ChargeRequest {
    /// For which order: the merchant's reference.
    pub order_id: OrderId,
    /// Who pays.
    pub customer_id: CustomerId,
    /// With what.
    pub card: Card,
    /// How much.
    pub amount: Money,
}

/// Asks for all of a payment to be paid back.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RefundRequest {
    /// Which payment.
    pub payment_id: String,
}

/// One line of the ledger.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Entry {
    /// Money was taken.
    Charge {
        /// The operation.
        key: Uuid,
        /// What the gateway calls the payment.
        payment_id: String,
        /// For which order.
        order_id: OrderId,
        /// How much.
        amount: Money,
    },
    /// Money was refused.
    Decline {
        /// The operation.
        key: Uuid,
        /// For which order.
        order_id: OrderId,
        /// How much was asked.
        amount: Money,
        /// Why: `card_declined`.
        code: String,
    },
    /// Money was paid back.
    Refund {
        /// The operation.
        key: Uuid,
        /// Which payment.
        payment_id: String,
        /// For which order.
        order_id: OrderId,
        /// How much.
        amount: Money,
    },
}

/// How the gateway misbehaves. What is not said is off: `{}` mends everything.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The share of orders that are declined, 0 to 1: always the same orders.
    pub decline_share: f64,
    /// The share of requests that are answered with an error, 0 to 1: half of them after the money
    /// has moved.
    pub error_share: f64,
    /// How long every answer takes, in milliseconds.
    pub delay_ms: u64,
    /// Every request is answered 503, and no money moves.
    pub down: bool,
    /// The customer whose charges are refused as malformed: what a bug would look like.
    pub fail_customer: Option<CustomerId>,
}
