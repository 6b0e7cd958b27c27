use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created")]
struct OrderCreated {
    #[event(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created")]
struct OrderPlaced {
    #[event(key)]
    order_id: String,
}

#[derive(Events)]
enum OrderEvent {
    Created(OrderCreated),
    Placed(OrderPlaced),
}

fn main() {}
