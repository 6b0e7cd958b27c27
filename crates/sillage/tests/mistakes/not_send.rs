use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created")]
struct OrderCreated {
    #[event(key)]
    order_id: String,
}

async fn invoice(order: OrderCreated) -> Effects {
    let order_id = std::rc::Rc::new(order.order_id);
    tokio::task::yield_now().await;
    drop(order_id);
    Effects::none()
}

fn main() {
    let _ = Consumer::new("billing").on(invoice);
}
