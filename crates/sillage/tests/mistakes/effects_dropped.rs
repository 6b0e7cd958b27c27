#![deny(unused_must_use)]

use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created")]
struct OrderCreated {
    #[event(key)]
    order_id: String,
}

async fn invoice(order: OrderCreated) {
    publish(order);
}

fn main() {
    let _ = Consumer::new("billing").on(invoice);
}
