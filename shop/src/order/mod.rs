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
mod dunning;
mod view;

pub use decider::{Order, OrderCommand, OrderEvent, OrderRefusal};
pub use dunning::{Dunning, PaymentTerm, dunning};
pub use view::{Moment, OrderView, Status, orders, sort_key};

use crate::{
    checkout::checkout,
    events::{
        CancelOrder, CompleteOrder, CreateOrder, OrderRejected, OrderShipped, PaymentCompleted,
        PaymentFailed, PaymentRefunded, Why,
    },
    parts::Flow,
};
use sillage::prelude::*;

/// The service. In choreography it hears what others say of its orders; in orchestration a saga
/// tells it how each ends.
pub fn service(term: PaymentTerm, flow: Flow) -> Service {
    let consumer = Consumer::new("order").on(create).on(give_up);
    let service = match flow {
        Flow::Choreography => Service::new("order")
            .consumer(consumer.on(paid).on(declined).on(refunded).on(shipped))
            .process(dunning(term)),
        Flow::Orchestration => {
            Service::new("order").consumer(consumer.on(complete)).saga(checkout(term))
        }
    };
    service.follow(["payment", "stock", "shipping"]).projection(orders())
}

/// A command from the broker; its refusal is a fact as well.
pub(crate) async fn create(command: CreateOrder, order: Aggregate<Order>) -> Effects {
    let order_id = command.order_id;
    order
        .decide(OrderCommand::Create(command))
        .unwrap_or_else(|refused| publish(OrderRejected { order_id, why: refused.0.to_string() }))
}

/// Too late for an order that took its payment: then nothing comes of it.
pub(crate) async fn give_up(
    command: CancelOrder,
    order: Aggregate<Order>,
) -> Result<Effects, Failure> {
    order.decide(OrderCommand::GiveUp(command.why)).or_permanent()
}

pub(crate) async fn complete(
    _: CompleteOrder,
    order: Aggregate<Order>,
) -> Result<Effects, Failure> {
    order.decide(OrderCommand::Close).or_permanent()
}

pub(crate) async fn paid(_: PaymentCompleted, order: Aggregate<Order>) -> Result<Effects, Failure> {
    order.decide(OrderCommand::Pay).or_permanent()
}

pub(crate) async fn declined(
    failed: PaymentFailed,
    order: Aggregate<Order>,
) -> Result<Effects, Failure> {
    let why = Why::Declined { code: failed.code };
    order.decide(OrderCommand::GiveUp(why)).or_permanent()
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
