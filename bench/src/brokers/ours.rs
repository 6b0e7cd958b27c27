//! Our side: the broker port to publish, an app without a database to consume.

use super::{
    BATCH, Placed,
    meter::{Figure, Meter},
};
use sillage::{App, Broker, Consumer, Message, Service, State};
use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::sync::Notify;

/// Publishes all, at most so many unconfirmed, and waits until each is confirmed.
pub(crate) async fn publish(broker: &dyn Broker, messages: &[Arc<Message>], most: usize) -> Figure {
    let meter = Meter::start();
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
    meter.figure(messages.len() as u64)
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
    /// When the last was handled before those that are measured, and the last of all.
    begun: OnceLock<Instant>,
    ended: OnceLock<Instant>,
    end: Notify,
    before: u64,
    all: u64,
}

async fn handle(placed: Placed, State(handled): State<Arc<Handled>>) {
    assert!(placed.total > 0);
    let count = handled.count.fetch_add(1, Ordering::Relaxed) + 1;
    if count == handled.before {
        let _ = handled.begun.set(Instant::now());
    } else if count == handled.all {
        let _ = handled.ended.set(Instant::now());
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
    let mut meter = Meter::start();
    let app = app(broker, name, handled.clone()).start().await.expect("the bench starts");
    handled.end.notified().await;
    let figure = handled.begun.get().zip(handled.ended.get()).map(|(begun, ended)| {
        meter.begin(*begun, before);
        meter.figure_at(*ended, all)
    });
    app.drain().await;
    figure.expect("more messages than come before the measured ones")
}

/// Makes what the consumer needs at the broker, and leaves.
#[cfg(feature = "rabbitmq")]
pub(crate) async fn join(broker: Arc<dyn Broker>, name: &'static str) {
    let app = app(broker, name, Arc::default()).start().await.expect("the bench starts");
    app.drain().await;
}
