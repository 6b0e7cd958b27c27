use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Serialize, Deserialize)]
struct OrderCreated {
    order_id: String,
}

async fn invoice(_order: OrderCreated) -> Effects {
    Effects::none()
}

fn main() {
    let _ = Consumer::new("billing").on(invoice);
}
