//! A hundred `execute` calls at once on one stream, counted in durable writes.

use serde::{Deserialize, Serialize};
use sillage::{SystemClock, prelude::*};
use std::sync::Arc;

#[derive(Event, Serialize, Deserialize, Clone)]
#[event(name = "seat.taken")]
struct Taken {
    #[event(key)]
    row: String,
}

#[derive(Events, Clone)]
enum RowEvent {
    Taken(Taken),
}

#[derive(Clone)]
struct Row(u32);

impl Decider for Row {
    const STREAM: &'static str = "row";
    type Command = ();
    type Event = RowEvent;
    type Refusal = ();
    fn initial() -> Self {
        Row(0)
    }
    fn decide(&self, (): ()) -> Result<Vec<RowEvent>, ()> {
        Ok(vec![Taken { row: "a".to_owned() }.into()])
    }
    fn evolve(self, _: &RowEvent) -> Self {
        Row(self.0 + 1)
    }
}

pub(crate) async fn run() {
    let path = std::env::temp_dir().join(format!("sillage-bench-{}.db", uuid::Uuid::now_v7()));
    let database = sillage_sqlite::Sqlite::open(&path, Arc::new(SystemClock));
    let database = Arc::new(database.expect("a new file opens"));
    let app = App::new(database.clone()).service(Service::new("hall"));
    let app = app.start().await.expect("starts");
    let before = database.durable_writes();
    let calls = (0..100).map(|_| {
        let hall = app.service("hall");
        tokio::spawn(async move { hall.execute::<Row>("a", ()).await.is_ok() })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.expect("a call ends"), "accepted");
    }
    println!(
        "execute: 100 calls on one stream in {} durable writes",
        database.durable_writes() - before
    );
    app.drain().await;
    let _ = std::fs::remove_file(path);
}
