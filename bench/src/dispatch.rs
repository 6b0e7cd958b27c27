//! In-process dispatch of an undecoded message: run it under callgrind with two counts, and the
//! difference divided by the difference of the counts is the cost of one message.

use sillage::{
    App, BoxFuture, Broker, Capabilities, Consumer, Delivery, Epoch, Inbound, Key, Message,
    MessageId, Offset, Partition, Progress, PublishError, Raw, Receipt, Receiver, Result, Service,
    Settled, Settler, Subscribed, Subscription, Text, Timestamp, TopicSpec, TopicStatus,
    TopologyDiff,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::sync::Notify;

const KEYS: u64 = 1000;
const BATCH: u64 = 512;

/// Hands out messages that were made before.
struct Canned {
    messages: Arc<Vec<Arc<Message>>>,
    count: u64,
    settled: Arc<Settling>,
}

#[derive(Default)]
struct Settling {
    watermark: AtomicU64,
    done: Notify,
    count: u64,
}

struct Cursor {
    messages: Arc<Vec<Arc<Message>>>,
    next: u64,
    count: u64,
}

impl Receiver for Cursor {
    fn next(&mut self) -> BoxFuture<'_, Result<Inbound>> {
        Box::pin(async move {
            let partition = Partition { topic: "order".into(), number: 0 };
            if self.next == 0 {
                self.next = 1;
                return Ok(Inbound::Assigned(vec![partition]));
            }
            if self.next > self.count {
                return std::future::pending().await;
            }
            let end = (self.next + BATCH).min(self.count + 1);
            let delivery = |offset: u64| Delivery {
                offset: Offset(offset),
                message: self.messages[usize::try_from(offset % KEYS).unwrap_or(0)].clone(),
            };
            let batch: Vec<_> = (self.next..end).map(delivery).collect();
            self.next = end;
            Ok(Inbound::Batch(partition, batch.into()))
        })
    }
}

impl Settler for Settling {
    fn settle<'a>(&'a self, settled: &'a [Settled]) -> BoxFuture<'a, Result<()>> {
        for watermark in settled.iter().filter_map(|settled| settled.watermark) {
            self.watermark.fetch_max(watermark.0, Ordering::SeqCst);
            if watermark.0 == self.count {
                self.done.notify_one();
            }
        }
        Box::pin(async { Ok(()) })
    }
    fn open<'a>(&'a self, _: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn release<'a>(&'a self, _: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn pause(&self, _: &[Partition]) -> Result<()> {
        Ok(())
    }
    fn resume(&self, _: &[Partition]) -> Result<()> {
        Ok(())
    }
    fn fence(&self, _: &Partition) -> Option<(Text, Epoch)> {
        None
    }
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

impl Broker for Canned {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "canned messages",
            ordered_by_key: true,
            replay: false,
            is_log: false,
            shared: false,
            assigns: true,
            offsets: true,
            cluster: None,
            max_message_bytes: 1 << 20,
        }
    }
    fn ensure<'a>(&'a self, _: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        Box::pin(async { Ok(TopologyDiff::default()) })
    }
    fn publish(
        &self,
        _: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        Box::pin(async { vec![] })
    }
    fn subscribe(&self, _: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        let cursor = Cursor { messages: self.messages.clone(), next: 0, count: self.count };
        let settler: Arc<dyn Settler> = self.settled.clone();
        Box::pin(async move { Ok((Box::new(cursor) as Box<dyn Receiver>, settler)) })
    }
    fn topics<'a>(&'a self, _: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        Box::pin(async { Ok(vec![]) })
    }
    fn progress<'a>(&'a self, _: &'a str, _: &'a [Text]) -> BoxFuture<'a, Result<Vec<Progress>>> {
        Box::pin(async { Ok(vec![]) })
    }
}

fn message(key: u64) -> Arc<Message> {
    Arc::new(Message {
        id: MessageId::new(format!("{key}")),
        source: "bench".into(),
        name: "order.created".into(),
        version: 1,
        topic: Some("order".into()),
        key: Some(Key::of(format!("order-{key:08}"))),
        time: Timestamp::default(),
        correlation_id: "c".into(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload: bytes::Bytes::from_static(&[b'x'; 229]),
    })
}

async fn nothing(_: Raw) {}

pub(crate) async fn run(count: u64) {
    let settled = Arc::new(Settling { count, ..Settling::default() });
    let messages = Arc::new((0..KEYS).map(message).collect());
    let broker = Arc::new(Canned { messages, count, settled: settled.clone() });
    let consumer = Consumer::new("count").on_any(["order"], nothing);
    let app = App::stateless(broker).service(Service::new("bench").consumer(consumer));
    let app = app.start().await.expect("the bench starts");
    let (before, start) = (allocations(), Instant::now());
    settled.done.notified().await;
    let (after, elapsed) = (allocations(), start.elapsed());
    app.drain().await;
    #[allow(clippy::cast_precision_loss)]
    let each = |what: f64| what / count as f64;
    print!("dispatch: {count} messages, {:.0} ns each", each(elapsed.as_secs_f64() * 1e9));
    if let (Some(before), Some(after)) = (before, after) {
        let allocations = u32::try_from(after - before).unwrap_or(u32::MAX);
        print!(", {:.4} allocations each", each(f64::from(allocations)));
    }
    println!();
}

#[cfg(feature = "allocations")]
#[allow(clippy::unnecessary_wraps)]
fn allocations() -> Option<usize> {
    let stats = crate::ALLOCATIONS.stats();
    Some(stats.allocations + stats.reallocations)
}

#[cfg(not(feature = "allocations"))]
fn allocations() -> Option<usize> {
    None
}
