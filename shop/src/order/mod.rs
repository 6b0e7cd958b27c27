//! The order service: it alone decides how an order ends.
//!
//! ```text
//!                 order.create ──refused──▶ order.rejected, and there is no order
//!                      │
//!                      ▼        payment.failed, or the time to pay is over
//!             order.created (placed) ─────────────────────────┐
//!                      │ payment.completed                    │
//!                      ▼        payment.refunded (short)      ▼
//!                 order.paid ─────────────────────────▶ order.cancelled
//!                      │ shipping.shipped
//!                      ▼
//!               order.completed
//! ```
//!
//! Facts of other services come in any order between topics, twice, or late. The aggregate answers
//! each of them by its state, and what no longer matters with no event at all: a payment that
//! comes after the order was cancelled changes nothing here, and is paid back because payment
//! hears `order.cancelled`.

mod decider;
mod view;

pub use decider::{Order, OrderCommand, OrderEvent, OrderRefusal};
pub use view::{Moment, OrderView, Status, orders, sort_key};

use crate::events::{
    CreateOrder, OrderCreated, OrderRejected, OrderShipped, PaymentCompleted, PaymentDue,
    PaymentFailed, PaymentRefunded, Why,
};
use sillage::prelude::*;
use std::time::Duration;

/// How long an order may stay unpaid before it is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaymentTerm(pub Duration);

impl Default for PaymentTerm {
    fn default() -> Self {
        PaymentTerm(mins(15))
    }
}

/// Names an order's one timer.
const UNPAID: &str = "unpaid";

/// The service.
pub fn service(term: PaymentTerm) -> Service {
    let consumer = Consumer::new("order")
        .on(create)
        .on(await_payment)
        .on(payment_due)
        .on(paid)
        .on(declined)
        .on(refunded)
        .on(shipped);
    Service::new("order")
        .state(term)
        .consumer(consumer)
        .follow(["payment", "stock", "shipping"])
        .projection(orders())
}

/// A command from the broker; its refusal is a fact as well.
pub(crate) async fn create(command: CreateOrder, order: Aggregate<Order>) -> Effects {
    let order_id = command.order_id;
    order
        .decide(OrderCommand::Create(command))
        .unwrap_or_else(|refused| publish(OrderRejected { order_id, why: refused.0.to_string() }))
}

/// The payment may have come first: then there is nothing to wait for.
pub(crate) async fn await_payment(
    created: OrderCreated,
    State(term): State<PaymentTerm>,
    order: Aggregate<Order>,
) -> Option<Effects> {
    let due = PaymentDue { order_id: created.order_id };
    order.awaits_payment().then(|| schedule(after(term.0), UNPAID, due))
}

pub(crate) async fn payment_due(
    _: PaymentDue,
    order: Aggregate<Order>,
) -> Result<Effects, Failure> {
    order.decide(OrderCommand::GiveUp(Why::Unpaid)).or_permanent()
}

pub(crate) async fn paid(_: PaymentCompleted, order: Aggregate<Order>) -> Result<Effects, Failure> {
    Ok(order.decide(OrderCommand::Pay).or_permanent()?.and(cancel(UNPAID)))
}

pub(crate) async fn declined(
    failed: PaymentFailed,
    order: Aggregate<Order>,
) -> Result<Effects, Failure> {
    let why = Why::Declined { code: failed.code };
    Ok(order.decide(OrderCommand::GiveUp(why)).or_permanent()?.and(cancel(UNPAID)))
}

pub(crate) async fn refunded(
    refund: PaymentRefunded,
    order: Aggregate<Order>,
) -> Result<Effects, Failure> {
    order.decide(OrderCommand::TakeBack(refund.why)).or_permanent()
}

pub(crate) async fn shipped(_: OrderShipped, order: Aggregate<Order>) -> Result<Effects, Failure> {
    order.decide(OrderCommand::Complete).or_permanent()
}
