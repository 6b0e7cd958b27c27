//! A saga asks one service after the other; what was done is undone when a step is refused.
#![allow(clippy::print_stdout)]

use serde::{Deserialize, Serialize};
use sillage::prelude::*;
use tokio::sync::mpsc::{Sender, channel};

macro_rules! messages {
    ($($derive:ident $attribute:ident $name:ident $meta:tt;)*) => {$(
        #[derive($derive, Serialize, Deserialize)]
        #[$attribute $meta]
        struct $name {
            #[$attribute(key)]
            order_id: String,
        }
    )*};
}

messages! {
    Event event OrderCreated (name = "order.created");
    Event event OrderCancelled (name = "order.cancelled");
    Command command ReserveStock (name = "stock.reserve", done = StockReserved);
    Event event StockReserved (name = "stock.reserved");
    Command command ReleaseStock (name = "stock.release", done = StockReleased);
    Event event StockReleased (name = "stock.released");
    Command command Charge (name = "payment.charge", done = Paid, failed = Declined);
    Event event Paid (name = "payment.completed");
    Event event Declined (name = "payment.failed");
}

#[derive(Serialize, Deserialize)]
struct Checkout(String);

fn checkout() -> Saga<Checkout> {
    let id = |checkout: &Checkout| checkout.0.clone();
    Saga::<Checkout>::new("checkout", 1)
        .start_on::<OrderCreated>(|order| Checkout(order.order_id.clone()))
        .step(
            "reserve",
            move |c| ReserveStock { order_id: id(c) },
            move |c| ReleaseStock { order_id: id(c) },
        )
        .pivot("charge", move |c| Charge { order_id: id(c) })
        .finish(|_| (), move |c| publish(OrderCancelled { order_id: id(c) }))
}

async fn reserve(command: ReserveStock) -> Effects {
    publish(StockReserved { order_id: command.order_id })
}

async fn release(command: ReleaseStock) -> Effects {
    publish(StockReleased { order_id: command.order_id })
}

async fn charge(command: Charge) -> Effects {
    publish(Declined { order_id: command.order_id })
}

async fn tell(order: OrderCancelled, State(out): State<Sender<String>>) {
    let _ = out.send(format!("{} is cancelled", order.order_id)).await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::temp_dir().join(format!("sillage-{}.db", std::process::id()));
    let (out, mut told) = channel::<String>(1);
    let parts = Consumer::new("parts").on(reserve).on(release).on(charge).on(tell);
    let shop = Service::new("shop").state(out).saga(checkout()).consumer(parts);
    let database = sillage::connect(&format!("sqlite:{}", file.display())).await?;
    let app = App::new(database.clone()).service(shop).start().await?;
    app.service("shop").commit(publish(OrderCreated { order_id: "o-1".into() })).await?;
    println!("{}", told.recv().await.unwrap_or_default());
    let admin = sillage::admin::Admin::new(database, "example");
    for step in admin.saga("shop/checkout/o-1").await?.steps {
        println!("{}: {}", step.name, step.progress.word());
    }
    app.drain().await;
    std::fs::remove_file(file)?;
    Ok(())
}
