//! Dunning: who does not pay is reminded after a third of the time to pay, and when that is over the
//! order is given up.
//!
//! A process manager beside the aggregate: it knows time and no rules, the aggregate rules and no
//! time. Whatever it asks, the order answers by its state; a payment in between stops it, and its
//! timer goes with it. All it hears is of one topic, so what stops it never comes before what
//! starts it.

use crate::{
    events::{
        CancelOrder, OrderCancelled, OrderCreated, OrderPaid, PaymentDue, PaymentReminded, Why,
    },
    ids::OrderId,
};
use serde::{Deserialize, Serialize};
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

/// An order that is not paid.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Dunning {
    order_id: OrderId,
    reminded: bool,
}

/// The process manager.
pub fn dunning(PaymentTerm(term): PaymentTerm) -> Process<Dunning> {
    let reminder = term / 3;
    let rest = term.saturating_sub(reminder);
    Process::<Dunning>::new("dunning", 1)
        .start_on::<OrderCreated>(move |order| {
            let order_id = order.order_id;
            let due = schedule(after(reminder), UNPAID, PaymentDue { order_id });
            (Dunning { order_id, reminded: false }, due)
        })
        .on::<PaymentDue>(move |dunning, due| {
            let order_id = dunning.order_id;
            if dunning.reminded {
                return send(CancelOrder { order_id, why: Why::Unpaid }).and(end());
            }
            dunning.reminded = true;
            let again = schedule(after(rest), UNPAID, due.clone());
            publish(PaymentReminded { order_id }).and(again)
        })
        .stop_on::<OrderPaid>(|_, _| Effects::none())
        .stop_on::<OrderCancelled>(|_, _| Effects::none())
}
