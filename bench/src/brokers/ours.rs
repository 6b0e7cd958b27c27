//! Our side: the broker port to publish, an app without a database to consume.

use super::{
    BATCH, Placed,
    meter::{Figure, Meter},
};
use futures_util::future::join_all;
use sillage::{App, Broker, Consumer, Message, Service, State};
use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// Publishes all, and waits until each is confirmed: the shares beside each other, of each at most so
/// many unconfirmed.
pub(crate) async fn publish(
    broker: &dyn Broker,
    shares: &[Vec<Arc<Message>>],
    most: usize,
) -> Figure {
    let meter = Meter::start();
    join_all(shares.iter().map(|share| publish_one(broker, share, most))).await;
    meter.figure(shares.iter().map(|share| share.len() as u64).sum())
}

async fn publish_one(broker: &dyn Broker, messages: &[Arc<Message>], most: usize) {
    let mut waiting = VecDeque::new();
    for batch in messages.chunks(BATCH) {
        if waiting.len() * BATCH >= most
            && let Some(first) = waiting.pop_front()
        {
            confirmed(first).await;
        }
        waiting.push_back(broker.publish(batch.to_vec()));
    }
    for batch in waiting {
        confirmed(batch).await;
    }
}

async fn confirmed(
    batch: impl Future<Output = Vec<Result<sillage::Receipt, sillage::PublishError>>>,
) {
    assert!(batch.await.iter().all(Result::is_ok), "not published");
}

/// What has been handled.
#[derive(Default)]
struct Handled {
    count: AtomicU64,
    /// Since the last was handled before those that are measured, and until the last of all.
    meter: OnceLock<Meter>,
    figure: OnceLock<Figure>,
    end: Notify,
    before: u64,
    all: u64,
}

async fn handle(placed: Placed, State(handled): State<Arc<Handled>>) {
    assert!(placed.total > 0);
    let count = handled.count.fetch_add(1, Ordering::Relaxed) + 1;
    if count == handled.before {
        let _ = handled.meter.set(Meter::behind(count));
    } else if count == handled.all {
        let figure = handled.meter.get().map(|meter| meter.figure(count));
        let _ = figure.map(|figure| handled.figure.set(figure));
        handled.end.notify_one();
    }
}

fn app(broker: Arc<dyn Broker>, name: &'static str, handled: Arc<Handled>) -> App {
    let consumer = Consumer::new("count").on(handle);
    App::stateless(broker).service(Service::new(name).state(handled).consumer(consumer))
}

/// Handles so many messages, decoded, and settles them; measures those behind the first so many.
pub(crate) async fn consume(
    broker: Arc<dyn Broker>,
    name: &'static str,
    (before, all): (u64, u64),
) -> Figure {
    let handled = Arc::new(Handled { before, all, ..Handled::default() });
    let app = app(broker, name, handled.clone()).start().await.expect("the bench starts");
    handled.end.notified().await;
    app.drain().await;
    *handled.figure.get().expect("more messages than come before the measured ones")
}

/// Makes what the consumer needs at the broker, and leaves.
#[cfg(feature = "rabbitmq")]
pub(crate) async fn join(broker: Arc<dyn Broker>, name: &'static str) {
    let app = app(broker, name, Arc::default()).start().await.expect("the bench starts");
    app.drain().await;
}
