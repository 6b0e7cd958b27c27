//! The shipping service: a parcel leaves when the order was paid and its items are set aside.
//!
//! Both facts meet in the order's [`Shipment`], whichever comes first. It is `order.paid` that
//! counts, not `payment.completed`: a payment may come too late, and only the order knows. After
//! `order.paid` nothing but a shortage can cancel the order, and then its items were never set
//! aside; so whatever is shipped is never cancelled, in every interleaving.

use crate::{
    events::{OrderCancelled, OrderPaid, OrderShipped, ShipOrder, StockReserved, StockShort},
    ids::OrderId,
    parts::Flow,
};
use serde::{Deserialize, Serialize};
use sillage::prelude::*;

/// What is known of an order that may be shipped.
#[derive(Document, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[document(collection = "shipments")]
pub struct Shipment {
    /// Which order.
    #[document(id)]
    pub order_id: OrderId,
    /// Whether the order took its payment.
    pub paid: bool,
    /// Whether its items are set aside.
    pub reserved: bool,
    /// How far it is.
    pub state: ShipmentState,
}

/// How far a shipment is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ShipmentState {
    /// Something is missing.
    Waiting,
    /// On its way.
    Shipped,
    /// There will be none.
    Closed,
}

/// The service.
pub fn service(flow: Flow) -> Service {
    let consumer = Consumer::new("shipping").on(ship);
    let consumer = match flow {
        Flow::Choreography => consumer.on(paid).on(reserved).on(short).on(cancelled),
        Flow::Orchestration => consumer,
    };
    Service::new("shipping").consumer(consumer)
}

impl Shipment {
    pub(crate) fn of(known: Option<Self>, order_id: OrderId) -> Self {
        let state = ShipmentState::Waiting;
        known.unwrap_or(Shipment { order_id, paid: false, reserved: false, state })
    }

    pub(crate) fn advance(mut self) -> Effects {
        let ready = self.state == ShipmentState::Waiting && self.paid && self.reserved;
        if !ready {
            return put(self);
        }
        let order_id = self.order_id;
        self.state = ShipmentState::Shipped;
        put(self).and(publish(OrderShipped { order_id, tracking: tracking(order_id) }))
    }

    fn close(mut self) -> Effects {
        if self.state == ShipmentState::Waiting {
            self.state = ShipmentState::Closed;
        }
        put(self)
    }
}

pub(crate) async fn paid(order: OrderPaid, Load(known): Load<Shipment>) -> Effects {
    Shipment { paid: true, ..Shipment::of(known, order.order_id) }.advance()
}

pub(crate) async fn reserved(stock: StockReserved, Load(known): Load<Shipment>) -> Effects {
    Shipment { reserved: true, ..Shipment::of(known, stock.order_id) }.advance()
}

pub(crate) async fn short(stock: StockShort, Load(known): Load<Shipment>) -> Effects {
    Shipment::of(known, stock.order_id).close()
}

pub(crate) async fn cancelled(order: OrderCancelled, Load(known): Load<Shipment>) -> Effects {
    Shipment::of(known, order.order_id).close()
}

/// The same as an answer to a command.
pub async fn ship(command: ShipOrder, Load(known): Load<Shipment>) -> Effects {
    let known = Shipment::of(known, command.order_id);
    Shipment { paid: true, reserved: true, ..known }.advance()
}

fn tracking(order_id: OrderId) -> String {
    let id = order_id.to_string().to_uppercase();
    format!("SLG-{}", id.split('-').next().unwrap_or_default())
}
