use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created")]
struct OrderCreated {
    #[event(key)]
    order_id: String,
}

async fn invoice(_order: OrderCreated) -> Result<Effects, String> {
    Err("no rate".into())
}

fn main() {
    let _ = Consumer::new("billing").on(invoice);
}
