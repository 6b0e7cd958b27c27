use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created")]
struct OrderCreated {
    #[event(key)]
    order_id: String,
}

#[derive(Command, Serialize, Deserialize)]
#[command(name = "stock.reserve", done = StockReserved)]
struct ReserveStock {
    #[command(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "stock.reserved")]
struct StockReserved {
    #[event(key)]
    order_id: String,
}

fn main() {
    let _ = Saga::<String>::new("checkout", 1)
        .start_on::<OrderCreated>(|order| order.order_id.clone())
        .step("reserve", |id| ReserveStock { order_id: id.clone() });
}
