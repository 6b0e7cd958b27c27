//! Beside raw clients of real brokers: publishing, and consuming with typed decode.

#[cfg(feature = "kafka")]
mod kafka;
pub(crate) mod left;
mod meter;
pub(crate) mod ours;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;

use meter::{Figure, ratios};
use serde::{Deserialize, Serialize};
use sillage::{Event, Key, Message, MessageId, Timestamp};
use std::sync::Arc;
use uuid::Uuid;

/// Keys of the messages.
const KEYS: u64 = 1_000;
/// Partitions of their topic.
const PARTITIONS: u32 = 12;
/// So many differ, and come again and again: what was made a million messages before is in no cache any
/// more, and how long both sides wait for memory would be measured.
const DISTINCT: u64 = 10_000;
/// Messages handed over at once.
const BATCH: usize = 500;

/// About 230 bytes of JSON.
#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[event(name = "bench.placed")]
pub(crate) struct Placed {
    #[event(key)]
    pub(crate) order_id: String,
    customer_id: String,
    items: Vec<Item>,
    pub(crate) total: u64,
    currency: String,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Item {
    product_id: String,
    quantity: u32,
    price: u64,
}

#[derive(clap::Args)]
pub(crate) struct Brokers {
    /// `kafka://…` or `amqp://…`
    #[arg(long)]
    broker: String,
    /// How many messages a round and side.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Only one of both directions, of Kafka.
    #[arg(long, value_enum)]
    only: Option<Direction>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Direction {
    Publish,
    Consume,
}

impl Brokers {
    fn measures(&self, direction: Direction) -> bool {
        self.only.is_none_or(|only| only == direction)
    }
}

/// Messages as an app would publish them, and the same as headers and bodies.
pub(crate) fn messages(topic: &str, count: u64) -> Vec<Arc<Message>> {
    (0..count).map(|number| Arc::new(message(topic, number))).collect()
}

/// So many, of which no more than `DISTINCT` differ.
fn again<T>(some: &[T], count: u64) -> impl Iterator<Item = &T> {
    some.iter().cycle().take(usize::try_from(count).unwrap_or(usize::MAX))
}

fn message(topic: &str, number: u64) -> Message {
    let order_id = format!("order-{:08}", number % KEYS);
    let item = |n| Item { product_id: format!("product-{n:05}"), quantity: 2, price: 1_999 };
    let placed = Placed {
        customer_id: format!("customer-{:08}", number % 77),
        items: vec![item(number % 100), item(number % 101)],
        total: 7_996,
        currency: "EUR".into(),
        order_id,
    };
    let id = MessageId::new(Uuid::new_v4().to_string());
    Message {
        source: "bench".into(),
        name: "bench.placed".into(),
        version: 1,
        topic: Some(topic.into()),
        key: Some(Key::of(&placed.order_id)),
        time: Timestamp::from_micros(1_800_000_000_000_000 + i64::try_from(number).unwrap_or(0)),
        correlation_id: id.text(),
        causation_id: None,
        operation_id: None,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        headers: vec![],
        payload: serde_json::to_vec(&placed).unwrap_or_default().into(),
        id,
    }
}

/// Measures both sides in turn, and prints medians and ratios.
pub(crate) async fn run(what: Brokers) {
    match what.broker.split(':').next() {
        #[cfg(feature = "kafka")]
        Some("kafka") => kafka::run(&what).await,
        #[cfg(feature = "rabbitmq")]
        Some("amqp") => rabbitmq::run(&what).await,
        _ => println!("`{}` needs `--features kafka` or `--features rabbitmq`", what.broker),
    }
}

/// What was measured of each side, round by round.
#[derive(Default)]
pub(crate) struct Sides {
    bare: Vec<Figure>,
    same: Vec<Figure>,
    pub(crate) ours: Vec<Figure>,
}

impl Sides {
    /// The raw client, with the headers of ours or without.
    pub(crate) fn raw(&mut self, headers: bool) -> &mut Vec<Figure> {
        if headers { &mut self.same } else { &mut self.bare }
    }

    fn print(&self, what: &str, bare: &str, same: &str) {
        println!("\n{what}: messages a second, CPU microseconds a message (medians)");
        for (side, figures) in [(bare, &self.bare), (same, &self.same), ("Sillage", &self.ours)] {
            println!("  {side:<42} {}", meter::median(figures));
        }
        for (side, figures) in [(same, &self.same), (bare, &self.bare)] {
            println!("  of {side}: {}", ratios(&self.ours, figures));
        }
    }
}
