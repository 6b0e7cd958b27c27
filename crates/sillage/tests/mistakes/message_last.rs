use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created")]
struct OrderCreated {
    #[event(key)]
    order_id: String,
}

async fn invoice(State(_rate): State<u32>, _order: OrderCreated) -> Effects {
    Effects::none()
}

fn main() {
    let _ = Consumer::new("billing").on(invoice);
}
