//! A projection folds events into documents; a reader waits until it has seen its own write.
#![allow(clippy::print_stdout)]

use serde::{Deserialize, Serialize};
use sillage::prelude::*;

#[derive(Event, Serialize, Deserialize)]
#[event(name = "order.line-added")]
struct LineAdded {
    #[event(key)]
    order_id: String,
    cents: i64,
}

#[derive(Document, Serialize, Deserialize, Default)]
#[document(collection = "totals")]
struct Total {
    #[document(id)]
    order_id: String,
    lines: u32,
    cents: i64,
}

fn totals() -> Projection<Total> {
    Projection::<Total>::new("totals", 1).on::<LineAdded>(|total, line| {
        total.order_id.clone_from(&line.order_id);
        total.lines += 1;
        total.cents += line.cents;
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::temp_dir().join(format!("sillage-{}.db", std::process::id()));
    let database = sillage::connect(&format!("sqlite:{}", file.display())).await?;
    let service = Service::new("order").projection(totals());
    let app = App::new(database).service(service).start().await?;

    let line = |cents| publish(LineAdded { order_id: "o-1".into(), cents });
    let done = app.service("order").commit(line(250).and(line(100))).await?;
    let view = app.view::<Total>("order");
    let total = view.get("o-1").at_least(done.position).within(secs(10)).await?;
    let total = total.unwrap_or_default();
    println!("{}: {} lines, {} cents", total.order_id, total.lines, total.cents);

    app.drain().await;
    std::fs::remove_file(file)?;
    Ok(())
}
