use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created", version = 1)]
struct OrderCreatedV1 {
    #[event(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created", version = 2, was = OrderCreatedV1)]
struct OrderCreated {
    #[event(key)]
    order_id: String,
    total: u64,
}

fn main() {}
