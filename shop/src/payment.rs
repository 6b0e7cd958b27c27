//! The payment service: one charge an order, and at most one refund of it.
//!
//! ```text
//! order.created ─▶ charge ─┬─▶ payment.completed ──┐ stock.short, order.cancelled
//!                          └─▶ payment.failed      └─▶ refund ─▶ payment.refunded
//! ```
//!
//! `order.created` and `order.cancelled` are of one topic and key: when a cancelled order is
//! heard of, its charge was answered before. So whatever was taken for it, however late, goes back.
//! A shortage and a cancelled order may ask for the same refund at once; the gateway pays a payment
//! back once, and of the two commits one finds the document changed, runs again, and does nothing.

use crate::{
    events::{
        ChargePayment, OrderCancelled, OrderCreated, PaymentCompleted, PaymentFailed,
        PaymentRefunded, RefundPayment, StockShort, Why,
    },
    gateway::{Charge, Gateway},
    ids::OrderId,
    money::Money,
    parts::Flow,
};
use serde::{Deserialize, Serialize};
use sillage::prelude::*;

/// What became of an order's payment.
#[derive(Document, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[document(collection = "payments")]
pub struct Payment {
    /// Which order.
    #[document(id)]
    pub order_id: OrderId,
    /// Whether the money is here.
    pub state: PaymentState,
}

/// Whether the money is here.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum PaymentState {
    /// It is.
    Charged {
        /// What the gateway calls the payment.
        payment_id: String,
        /// How much.
        amount: Money,
    },
    /// It never was.
    Declined,
    /// It was, and was paid back.
    Refunded,
}

/// The service.
pub fn service(gateway: Gateway, flow: Flow) -> Service {
    let consumer = match flow {
        Flow::Choreography => Consumer::new("payment")
            .on(take_payment)
            .on(charge)
            .on(refund_short)
            .on(refund_cancelled)
            .on(refund),
        Flow::Orchestration => Consumer::new("payment").on(charge).on(undo_charge),
    };
    let consumer = consumer.retry(Retry::in_lane([ms(50), ms(500)]).then_park([
        secs(2),
        secs(10),
        mins(1),
        mins(10),
        hours(1),
    ]));
    // While the gateway is down nobody asks it but one order now and then.
    let breaker = Breaker::failures(0.5).open_for(secs(5));
    Service::new("payment").state(gateway).breaker("gateway", breaker).consumer(consumer)
}

/// The first step of every order.
pub async fn take_payment(
    order: OrderCreated,
    gateway: State<Gateway>,
    known: Load<Payment>,
    meta: Meta,
) -> Result<Effects, Failure> {
    let OrderCreated { order_id, customer_id, card, total, .. } = order;
    let command = ChargePayment { order_id, customer_id, card, amount: total };
    charge(command, gateway, known, meta).await
}

/// The same as an answer to a command.
pub async fn charge(
    command: ChargePayment,
    State(gateway): State<Gateway>,
    Load(known): Load<Payment>,
    meta: Meta,
) -> Result<Effects, Failure> {
    if known.is_some() {
        return Ok(Effects::none());
    }
    let (order_id, amount) = (command.order_id, command.amount);
    Ok(match gateway.charge(&command, meta.idempotency_key("charge")).await? {
        Charge::Accepted { payment_id } => {
            let state = PaymentState::Charged { payment_id: payment_id.clone(), amount };
            put(Payment { order_id, state }).and(publish(PaymentCompleted {
                order_id,
                payment_id,
                amount,
            }))
        }
        Charge::Declined { code } => put(Payment { order_id, state: PaymentState::Declined })
            .and(publish(PaymentFailed { order_id, code })),
    })
}

pub(crate) async fn refund_short(
    short: StockShort,
    gateway: State<Gateway>,
    payment: Load<Payment>,
    meta: Meta,
) -> Result<Effects, Failure> {
    let why = Why::OutOfStock { product_id: short.product_id };
    refund(RefundPayment { order_id: short.order_id, why }, gateway, payment, meta).await
}

pub(crate) async fn refund_cancelled(
    order: OrderCancelled,
    gateway: State<Gateway>,
    payment: Load<Payment>,
    meta: Meta,
) -> Result<Effects, Failure> {
    let command = RefundPayment { order_id: order.order_id, why: order.why };
    refund(command, gateway, payment, meta).await
}

/// Pays back what is here, if anything is.
pub async fn refund(
    command: RefundPayment,
    State(gateway): State<Gateway>,
    Load(payment): Load<Payment>,
    meta: Meta,
) -> Result<Effects, Failure> {
    let RefundPayment { order_id, why } = command;
    let Some(PaymentState::Charged { payment_id, amount }) = payment.map(|known| known.state)
    else {
        return Ok(Effects::none());
    };
    gateway.refund(&payment_id, meta.idempotency_key("refund")).await?;
    Ok(put(Payment { order_id, state: PaymentState::Refunded }).and(publish(PaymentRefunded {
        order_id,
        amount,
        why,
    })))
}

/// The undo of a charge in orchestration: answered also where there is nothing to pay back, as the
/// saga waits for the answer.
pub(crate) async fn undo_charge(
    command: RefundPayment,
    gateway: State<Gateway>,
    payment: Load<Payment>,
    meta: Meta,
) -> Result<Effects, Failure> {
    let RefundPayment { order_id, why } = command.clone();
    let back = refund(command, gateway, payment, meta).await?;
    if back.is_empty() {
        return Ok(publish(PaymentRefunded { order_id, amount: Money::cents(0), why }));
    }
    Ok(back)
}
