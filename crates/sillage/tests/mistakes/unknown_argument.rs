use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(nam = "order.created")]
struct OrderCreated {
    #[event(key)]
    order_id: String,
}

fn main() {}
