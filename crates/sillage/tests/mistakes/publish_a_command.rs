use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Command, Serialize, Deserialize)]
#[command(name = "payment.charge")]
struct ChargePayment {
    #[command(key)]
    order_id: String,
}

fn main() {
    let _ = publish(ChargePayment { order_id: "o-1".into() });
}
