//! What a customer sees of an order: its status, and everything that happened to it with its time.

use crate::{
    events::{
        Item, OrderCancelled, OrderCompleted, OrderCreated, OrderPaid, OrderRejected, OrderShipped,
        PaymentCompleted, PaymentFailed, PaymentRefunded, StockReleased, StockReserved, StockShort,
    },
    ids::OrderId,
    money::Money,
};
use serde::{Deserialize, Serialize};
use sillage::{Contract, prelude::*};

/// Where an order stands.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Something of it was heard, but not yet that it was placed.
    #[default]
    Unknown,
    /// It was refused; there is no order.
    Rejected,
    /// It was placed and waits for its payment.
    Placed,
    /// Its payment was taken.
    Paid,
    /// It was shipped: the end.
    Completed,
    /// It was given up: the end.
    Cancelled,
}

/// One thing that happened to an order.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Moment {
    /// The event's name.
    pub event: String,
    /// When it happened.
    pub at: Timestamp,
    /// What else is to say about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// An order as its customer sees it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct OrderView {
    /// Which order.
    pub order_id: OrderId,
    /// Who ordered; empty where the order was refused.
    pub customer_id: String,
    /// Where it stands.
    pub status: Status,
    /// What was ordered.
    pub items: Vec<Item>,
    /// What it costs.
    pub total: Money,
    /// Where in the log it was placed.
    pub position: Position,
    /// Everything that happened to it, in order.
    pub timeline: Vec<Moment>,
}

/// By hand, as the sort key is of two fields.
impl Document for OrderView {
    const COLLECTION: &'static str = "orders";

    fn id(&self) -> String {
        self.order_id.to_string()
    }

    fn sort(&self) -> Option<String> {
        Some(sort_key(&self.customer_id, self.position))
    }
}

/// Sorts a customer's orders after each other as they were placed.
///
/// A customer's id has no `/`, so between `sort_key(customer, a)` and `sort_key(customer, b)` there
/// is nobody else's order.
pub fn sort_key(customer_id: &str, position: Position) -> String {
    format!("{customer_id}/{:020}", position.0)
}

/// The view of all orders.
pub fn orders() -> Projection<OrderView> {
    Projection::<OrderView>::new("orders", 1)
        .on::<OrderCreated>(OrderView::placed)
        .on::<OrderRejected>(OrderView::rejected)
        .on::<OrderPaid>(|view, event| view.becomes(Status::Paid, event, None))
        .on::<OrderCompleted>(|view, event| view.becomes(Status::Completed, event, None))
        .on::<OrderCancelled>(|view, event| {
            view.becomes(Status::Cancelled, event, Some(event.why.to_string()));
        })
        .on::<PaymentCompleted>(|view, event| view.note(event, Some(event.amount.to_string())))
        .on::<PaymentFailed>(|view, event| view.note(event, Some(event.code.clone())))
        .on::<PaymentRefunded>(|view, event| view.note(event, Some(event.amount.to_string())))
        .on::<StockReserved>(|view, event| view.note(event, None))
        .on::<StockShort>(|view, event| view.note(event, Some(event.product_id.to_string())))
        .on::<StockReleased>(|view, event| view.note(event, None))
        .on::<OrderShipped>(|view, event| view.note(event, Some(event.tracking.clone())))
}

impl OrderView {
    fn placed(&mut self, event: &Recorded<OrderCreated>) {
        self.order_id = event.order_id;
        self.customer_id = event.customer_id.to_string();
        self.items.clone_from(&event.items);
        self.total = event.total;
        self.position = event.position;
        self.becomes(Status::Placed, event, None);
    }

    /// A refusal shows only where there is no order: an order is not changed by it.
    fn rejected(&mut self, event: &Recorded<OrderRejected>) {
        if self.status == Status::Unknown {
            self.order_id = event.order_id;
            self.position = event.position;
            self.becomes(Status::Rejected, event, Some(event.why.clone()));
        }
    }

    fn becomes<E: Contract>(&mut self, status: Status, event: &Recorded<E>, note: Option<String>) {
        self.status = status;
        self.note(event, note);
    }

    fn note<E: Contract>(&mut self, event: &Recorded<E>, note: Option<String>) {
        self.timeline.push(Moment { event: E::NAME.to_owned(), at: event.time, note });
    }
}
