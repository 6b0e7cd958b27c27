//! A second service is added beside the first one, and starts at the oldest event: the producer
//! is neither changed nor asked.
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

/// What the new service knows of the contract: only what it needs.
mod added_later {
    use super::{Deserialize, Event, Serialize};

    #[derive(Event, Serialize, Deserialize)]
    #[event(name = "order.created")]
    pub(super) struct Seen {
        #[event(key)]
        pub(super) order_id: String,
    }
}

async fn count(order: added_later::Seen, State(out): State<Sender<String>>) {
    let _ = out.send(format!("analytics saw {}", order.order_id)).await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::temp_dir().join(format!("sillage-{}.db", std::process::id()));
    let database = sillage::connect(&format!("sqlite:{}", file.display())).await?;
    let producer = App::new(database.clone()).service(Service::new("order")).start().await?;
    let order = |id: &str| publish(OrderCreated { order_id: id.into() });
    producer.service("order").commit(order("o-1")).await?;

    let (out, mut seen) = channel::<String>(9);
    let analytics =
        Service::new("analytics").state(out).consumer(Consumer::new("orders").on(count));
    let added = App::new(database).service(analytics).start().await?;
    println!("{}", seen.recv().await.unwrap_or_default());
    producer.service("order").commit(order("o-2")).await?;
    println!("{}", seen.recv().await.unwrap_or_default());

    added.drain().await;
    producer.drain().await;
    std::fs::remove_file(file)?;
    Ok(())
}
