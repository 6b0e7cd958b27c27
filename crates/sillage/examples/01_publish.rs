//! A fact is committed from outside, and a consumer reacts to it.
#![allow(clippy::print_stdout)]

use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.created")]
struct OrderCreated {
    #[event(key)]
    order_id: String,
}

#[derive(Event, Serialize, Deserialize)]
#[event(name = "invoice.sent")]
struct InvoiceSent {
    #[event(key)]
    order_id: String,
    number: u32,
}

/// What should happen, as a value: nothing has happened when this returns.
async fn invoice(order: OrderCreated) -> Effects {
    publish(InvoiceSent { order_id: order.order_id, number: 1 })
}

async fn celebrate(sent: InvoiceSent, State(done): State<tokio::sync::mpsc::Sender<String>>) {
    let _ = done.send(format!("invoice {} for {}", sent.number, sent.order_id)).await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::temp_dir().join(format!("sillage-{}.db", std::process::id()));
    let (done, mut sent) = tokio::sync::mpsc::channel::<String>(1);
    let billing = Service::new("billing")
        .state(done)
        .consumer(Consumer::new("invoices").on(invoice).on(celebrate));
    let database = sillage::connect(&format!("sqlite:{}", file.display())).await?;
    let app = App::new(database).service(billing).start().await?;

    app.service("billing").commit(publish(OrderCreated { order_id: "o-1".into() })).await?;
    println!("{}", sent.recv().await.unwrap_or_default());

    app.drain().await;
    std::fs::remove_file(file)?;
    Ok(())
}
