// What answers a command is a fact: an event, and not another command.
use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Command, Serialize, Deserialize)]
#[command(name = "payment.refund")]
struct RefundPayment {
    #[command(key)]
    order_id: String,
}

#[derive(Command, Serialize, Deserialize)]
#[command(name = "payment.charge", done = RefundPayment)]
struct ChargePayment {
    #[command(key)]
    order_id: String,
}

fn main() {}
