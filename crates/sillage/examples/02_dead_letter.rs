//! A handler fails for one key: the key is a dead letter, the others flow, and after a redrive it
//! goes on in order.
#![allow(clippy::print_stdout)]

use serde::{Deserialize, Serialize};
use sillage::{admin::Admin, prelude::*};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::mpsc::{Sender, channel};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "parcel.sent")]
struct ParcelSent {
    #[event(key)]
    customer: String,
    number: u32,
}

type Bug = Arc<AtomicBool>;

async fn notify(
    parcel: ParcelSent,
    State(bug): State<Bug>,
    State(done): State<Sender<String>>,
) -> Result<(), Failure> {
    if parcel.customer == "bob" && bug.load(Ordering::SeqCst) {
        return Err(Failure::permanent("bob's address has no street"));
    }
    done.send(format!("{} {}", parcel.customer, parcel.number)).await.or_permanent()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::temp_dir().join(format!("sillage-{}.db", std::process::id()));
    let (done, mut notified) = channel::<String>(9);
    let bug = Bug::new(AtomicBool::new(true));
    let mail = Service::new("mail")
        .state(bug.clone())
        .state(done)
        .consumer(Consumer::new("notices").on(notify));
    let database = sillage::connect(&format!("sqlite:{}", file.display())).await?;
    let app = App::new(database.clone()).service(mail).start().await?;

    let parcel = |customer: &str, number| ParcelSent { customer: customer.into(), number };
    let parcels = [parcel("bob", 1), parcel("bob", 2), parcel("eve", 1)].map(publish);
    app.service("mail").commit(Vec::from(parcels)).await?;
    println!("{}", notified.recv().await.unwrap_or_default());

    let admin = Admin::new(database, "example");
    let dead = loop {
        let dead = admin.dead_letters(None, false).await?;
        if dead.first().is_some_and(|dead| dead.deliveries == 2) {
            break dead;
        }
        tokio::task::yield_now().await;
    };
    println!("dead: {} ({} deliveries): {}", dead[0].id, dead[0].deliveries, dead[0].key.failure);

    bug.store(false, Ordering::SeqCst);
    admin.redrive(&dead[0].id, false, false).await?;
    println!("{}", notified.recv().await.unwrap_or_default());
    println!("{}", notified.recv().await.unwrap_or_default());

    app.drain().await;
    std::fs::remove_file(file)?;
    Ok(())
}
