use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "order.created")]
struct OrderCreated {
    #[event(key)]
    order_id: String,
}

#[derive(Events, Clone)]
enum OrderEvent {
    Created(OrderCreated),
}

#[derive(Debug)]
struct AlreadyCreated;

#[derive(Clone)]
struct Order {
    created: bool,
}

impl Decider for Order {
    const STREAM: &'static str = "order";
    type Command = String;
    type Event = OrderEvent;
    type Refusal = AlreadyCreated;
    fn initial() -> Self {
        Order { created: false }
    }
    fn decide(&self, order_id: String) -> Result<Vec<OrderEvent>, AlreadyCreated> {
        if self.created {
            return Err(AlreadyCreated);
        }
        Ok(vec![OrderCreated { order_id }.into()])
    }
    fn evolve(self, _event: &OrderEvent) -> Self {
        Order { created: true }
    }
}

#[derive(Command, Serialize, Deserialize)]
#[command(name = "payment.charge")]
struct ChargePayment {
    #[command(key)]
    order_id: String,
}

async fn charge(command: ChargePayment, order: Aggregate<Order>) -> Result<Effects, Failure> {
    Ok(order.decide(command.order_id)?)
}

fn main() {
    let _ = Consumer::new("billing").on(charge);
}
