//! The checkout: an order as a saga, for the shop in orchestration.
//!
//! ```text
//!  order.created ─▶ reserve ───▶ charge ───▶ ship ───▶ order.complete
//!                     │ short       │ declined, or not in time
//!                     ▼             ▼
//!                order.cancel ◀─ release ◀─ refund (where it is not known whether it was charged)
//! ```
//!
//! A charge that is not answered in time may yet be made: it is paid back, and the payment service
//! keeps its commands for an order in order. Shipping is the pivot: it cannot be undone, so it is
//! asked until it is done.

use crate::{
    events::{
        CancelOrder, ChargePayment, CompleteOrder, Item, OrderCreated, PaymentFailed,
        RefundPayment, ReleaseStock, ReserveStock, ShipOrder, StockShort, Why,
    },
    ids::{CustomerId, OrderId},
    money::{Card, Money},
    order::PaymentTerm,
};
use serde::{Deserialize, Serialize};
use sillage::prelude::*;

/// What the checkout knows of its order.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Checkout {
    order_id: OrderId,
    customer_id: CustomerId,
    items: Vec<Item>,
    card: Card,
    total: Money,
    /// Why it is undone, if it is.
    why: Why,
}

impl Checkout {
    fn start(order: &OrderCreated) -> Self {
        let OrderCreated { order_id, customer_id, items, card, total } = order.clone();
        Checkout { order_id, customer_id, items, card, total, why: Why::Unpaid }
    }

    fn reserve(&self) -> ReserveStock {
        ReserveStock { order_id: self.order_id, items: self.items.clone() }
    }

    fn release(&self) -> ReleaseStock {
        ReleaseStock { order_id: self.order_id }
    }

    fn charge(&self) -> ChargePayment {
        let Checkout { order_id, customer_id, card, total, .. } = self.clone();
        ChargePayment { order_id, customer_id, card, amount: total }
    }

    fn refund(&self) -> RefundPayment {
        RefundPayment { order_id: self.order_id, why: self.why.clone() }
    }

    fn ship(&self) -> ShipOrder {
        ShipOrder { order_id: self.order_id }
    }

    fn complete(&self) -> Effects {
        send(CompleteOrder { order_id: self.order_id })
    }

    fn cancel(&self) -> Effects {
        send(CancelOrder { order_id: self.order_id, why: self.why.clone() })
    }
}

/// The saga. An order is to be paid within this term.
pub fn checkout(PaymentTerm(term): PaymentTerm) -> Saga<Checkout> {
    Saga::<Checkout>::new("checkout", 1)
        .start_on::<OrderCreated>(Checkout::start)
        .step("reserve", Checkout::reserve, Checkout::release)
        .remember::<StockShort>(|checkout, short| {
            checkout.why = Why::OutOfStock { product_id: short.product_id.clone() };
        })
        .step("charge", Checkout::charge, Checkout::refund)
        .within(term)
        .remember::<PaymentFailed>(|checkout, failed| {
            checkout.why = Why::Declined { code: failed.code.clone() };
        })
        .pivot("ship", Checkout::ship)
        .finish(Checkout::complete, Checkout::cancel)
}
