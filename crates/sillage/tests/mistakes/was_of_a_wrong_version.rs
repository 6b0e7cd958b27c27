use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created", version = 1)]
struct OrderCreatedV1 {
    #[event(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created", version = 3, was = OrderCreatedV1)]
struct OrderCreated {
    #[event(key)]
    order_id: String,
    total: u64,
}

impl From<OrderCreatedV1> for OrderCreated {
    fn from(old: OrderCreatedV1) -> Self {
        OrderCreated { order_id: old.order_id, total: 0 }
    }
}

fn main() {}
