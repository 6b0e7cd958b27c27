//! A timer is a message that is published when it is due; it can be taken back.
#![allow(clippy::print_stdout)]

use serde::{Deserialize, Serialize};
use sillage::prelude::*;
use tokio::sync::mpsc::{Sender, channel};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created")]
struct OrderCreated {
    #[event(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.paid")]
struct OrderPaid {
    #[event(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.payment-due")]
struct PaymentDue {
    #[event(key)]
    order_id: String,
}

async fn wait(order: OrderCreated) -> Effects {
    schedule(after(ms(300)), "unpaid", PaymentDue { order_id: order.order_id })
}

async fn paid(_: OrderPaid) -> Effects {
    cancel("unpaid")
}

async fn remind(due: PaymentDue, State(out): State<Sender<String>>) {
    let _ = out.send(format!("{} is not paid", due.order_id)).await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::temp_dir().join(format!("sillage-{}.db", std::process::id()));
    let (out, mut reminders) = channel::<String>(9);
    let consumer = Consumer::new("dunning").on(wait).on(paid).on(remind);
    let dunning = Service::new("dunning").state(out).consumer(consumer);
    let database = sillage::connect(&format!("sqlite:{}", file.display())).await?;
    let app = App::new(database).service(dunning).start().await?;

    let shop = app.service("dunning");
    shop.commit(publish(OrderCreated { order_id: "o-1".into() })).await?;
    shop.commit(publish(OrderPaid { order_id: "o-1".into() })).await?;
    shop.commit(publish(OrderCreated { order_id: "o-2".into() })).await?;
    println!("{}", reminders.recv().await.unwrap_or_default());
    println!("{} more", reminders.len());

    app.drain().await;
    std::fs::remove_file(file)?;
    Ok(())
}
