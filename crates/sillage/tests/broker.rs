//! The embedded broker through its port, where it takes virtual time or is its own: slots, fences,
//! wake-ups, cancelled calls and pauses by many seeds. The rest is in the suite of the test kit.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, created};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sillage::{
    Broker as _, Clock as _, Delivery, Inbound, LogBroker, Message, MessageId, Offset, Partition,
    Receiver, SLOTS, Settler, Start, Subscription, prelude::*,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::task::yield_now;

/// Long enough for whatever comes to have come, in virtual time.
const QUIET: Duration = Duration::from_secs(100);

fn broker(harness: &Harness) -> LogBroker {
    LogBroker::new(harness.database(), harness.clock.clone())
}

fn subscription(consumer: &str) -> Subscription {
    Subscription {
        consumer: consumer.into(),
        topics: vec!["order".into()],
        start: Start::Earliest,
        broadcast: false,
        reached: vec![],
    }
}

fn message(topic: &str, key: Option<&str>, number: u32) -> Arc<Message> {
    let id = MessageId::new(format!("{topic}-{number}"));
    Arc::new(Message {
        correlation_id: id.text(),
        id,
        source: "shop".into(),
        name: "order.created".into(),
        version: 1,
        topic: Some(topic.into()),
        key: key.map(Key::from),
        time: Timestamp::default(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload: "{}".into(),
    })
}

/// Messages of twenty keys, in turn.
fn orders(numbers: std::ops::Range<u32>) -> Vec<Arc<Message>> {
    numbers.map(|n| message("order", Some(&format!("k{}", n % 20)), n)).collect()
}

async fn publish_all(broker: &LogBroker, messages: &[Arc<Message>]) {
    let receipts = broker.publish(messages.to_vec()).await;
    assert_eq!(receipts.len(), messages.len());
    assert!(receipts.iter().all(Result::is_ok), "{receipts:?}");
}

/// One member of a consumer, and all that it was given.
struct Member {
    receiver: Box<dyn Receiver>,
    settler: Arc<dyn Settler>,
    partitions: BTreeSet<Partition>,
    got: Vec<(Partition, Delivery)>,
}

impl Member {
    async fn join(broker: &LogBroker, subscription: Subscription) -> Self {
        let (receiver, settler) = broker.subscribe(subscription).await.unwrap();
        Member { receiver, settler, partitions: BTreeSet::new(), got: vec![] }
    }

    fn take(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Batch(partition, deliveries) => {
                assert!(self.partitions.contains(&partition), "{partition} is not this member's");
                let delivery = |delivery| (partition.clone(), delivery);
                self.got.extend(deliveries.map(delivery));
            }
            Inbound::Assigned(partitions) => self.partitions.extend(partitions),
            Inbound::Passed(..) => {}
            other => panic!("nobody else is there: {other:?}"),
        }
    }

    /// Receives until nothing more comes.
    async fn quiet(&mut self) {
        while let Ok(inbound) = tokio::time::timeout(QUIET, self.receiver.next()).await {
            self.take(inbound.unwrap());
        }
    }

    /// Asks for what is next, and gives up after that many turns of the other tasks.
    async fn ask(&mut self, turns: usize) {
        let give_up = async {
            for _ in 0..turns {
                yield_now().await;
            }
        };
        let inbound = tokio::select! {
            biased;
            inbound = self.receiver.next() => inbound.unwrap(),
            () = give_up => return,
        };
        self.take(inbound);
    }

    fn ids(&self) -> Vec<&str> {
        self.got.iter().map(|(_, delivery)| delivery.message.id.as_str()).collect()
    }

    /// Each of these once, per key in this order, per partition by rising offset.
    fn assert_got(&self, expected: &[Arc<Message>]) {
        let mut got: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut offsets: HashMap<&Partition, Offset> = HashMap::new();
        for (partition, delivery) in &self.got {
            let before = offsets.insert(partition, delivery.offset);
            assert!(before.is_none_or(|before| before < delivery.offset), "{partition} goes back");
            got.entry(&delivery.message.key).or_default().push(&delivery.message.id);
        }
        let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for message in expected {
            wanted.entry(&message.key).or_default().push(&message.id);
        }
        assert_eq!(got, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_without_a_key_come_each_once_and_are_spread() {
    let harness = Harness::new();
    let broker = broker(&harness);
    let orders: Vec<_> = (0..200).map(|n| message("order", None, n)).collect();
    publish_all(&broker, &orders).await;
    let mut member = Member::join(&broker, subscription("shop/billing")).await;
    member.quiet().await;
    let (mut got, count) = (member.ids(), member.got.len());
    got.sort_unstable();
    got.dedup();
    assert_eq!((got.len(), count), (200, 200));
    let used: BTreeSet<_> = member.got.iter().map(|(partition, _)| partition).collect();
    assert_eq!(used.len(), SLOTS as usize);
}

#[tokio::test(start_paused = true)]
async fn a_paused_partition_brings_nothing_until_it_is_resumed_and_then_everything() {
    let harness = Harness::new();
    let (broker, orders) = (broker(&harness), orders(0..2000));
    let mut member = Member::join(&broker, subscription("shop/billing")).await;
    publish_all(&broker, &orders[..100]).await;
    member.quiet().await;
    let paused: Vec<_> = member.partitions.iter().filter(|p| p.number % 2 == 0).cloned().collect();
    member.settler.pause(&paused).unwrap();
    publish_all(&broker, &orders[100..1500]).await;
    member.quiet().await;
    let late = member.got.iter().skip(100).filter(|(partition, _)| paused.contains(partition));
    assert_eq!(late.count(), 0);
    assert!(member.got.len() > 500, "the other partitions go on");
    // It wakes a call that waits already, and not only at the next renewal of the leases.
    let (settler, moment) = (member.settler.clone(), harness.clock.sleep(ms(1)));
    let resume = async {
        moment.await;
        settler.resume(&paused[..2]).unwrap();
    };
    let next = tokio::time::timeout(ms(2), member.receiver.next());
    let inbound = tokio::join!(next, resume).0.unwrap().unwrap();
    member.take(inbound);
    member.quiet().await;
    assert!(!member.got.iter().skip(100).any(|(partition, _)| paused[2..].contains(partition)));
    member.settler.resume(&paused).unwrap();
    publish_all(&broker, &orders[1500..]).await;
    member.quiet().await;
    member.assert_got(&orders);
}

#[tokio::test(start_paused = true)]
async fn a_resume_while_a_call_waits_for_its_read_skips_nothing() {
    let harness = Harness::new();
    let (broker, orders) = (broker(&harness), orders(0..1500));
    let mut member = Member::join(&broker, subscription("shop/billing")).await;
    member.quiet().await;
    let paused: Vec<_> = member.partitions.iter().filter(|p| p.number % 2 == 0).cloned().collect();
    member.settler.pause(&paused).unwrap();
    publish_all(&broker, &orders[..1400]).await;
    member.quiet().await;
    publish_all(&broker, &orders[1400..]).await;
    let resume = async { member.settler.resume(&paused) };
    // In this order: the call has begun to read for the others when these are resumed.
    let (inbound, resumed) = tokio::join!(biased; member.receiver.next(), resume);
    resumed.unwrap();
    member.take(inbound.unwrap());
    member.quiet().await;
    member.assert_got(&orders);
}

#[tokio::test(start_paused = true)]
async fn pauses_at_any_moment_lose_and_double_nothing() {
    for seed in 0..20 {
        let harness = Harness::new();
        let mut random = StdRng::seed_from_u64(seed);
        let (broker, orders) = (broker(&harness), orders(0..2000));
        let mut member = Member::join(&broker, subscription("shop/billing")).await;
        let mut rest = &orders[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(random.random_range(0..=rest.len().min(200)));
            publish_all(&broker, now).await;
            rest = later;
            let some = member.partitions.iter().filter(|_| random.random_bool(0.3));
            let some: Vec<_> = some.cloned().collect();
            if random.random_bool(0.5) {
                member.settler.pause(&some).unwrap();
            } else {
                member.settler.resume(&some).unwrap();
            }
            for _ in 0..random.random_range(0..40) {
                member.ask(random.random_range(0..4)).await;
            }
        }
        let all: Vec<_> = member.partitions.iter().cloned().collect();
        member.settler.resume(&all).unwrap();
        member.quiet().await;
        member.assert_got(&orders);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_any_moment_loses_and_doubles_nothing() {
    for seed in 0..20 {
        let harness = Harness::new();
        let mut random = StdRng::seed_from_u64(seed);
        let (broker, orders) = (broker(&harness), orders(0..2000));
        let publisher = tokio::spawn({
            let (broker, orders) = (broker.clone(), orders.clone());
            async move {
                for some in orders.chunks(37) {
                    publish_all(&broker, some).await;
                    yield_now().await;
                }
            }
        });
        let mut member = Member::join(&broker, subscription("shop/billing")).await;
        let mut asked = 0;
        while member.got.len() < orders.len() {
            asked += 1;
            assert!(asked < 100_000, "{} came and no more", member.got.len());
            member.ask(random.random_range(0..5)).await;
        }
        publisher.await.unwrap();
        member.quiet().await;
        member.assert_got(&orders);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_member_starts_behind_the_stored_watermark() {
    let harness = Harness::new();
    let ignore = async |_order: Created| {};
    let app = harness.start(Consumer::new("billing").on(ignore)).await;
    for n in 0..100 {
        app.service("shop").commit(publish(created(&format!("k{}", n % 20)))).await.unwrap();
    }
    harness.passed("shop/billing", 100).await;
    app.drain().await;
    let (broker, orders) = (broker(&harness), orders(0..50));
    publish_all(&broker, &orders).await;
    let mut member = Member::join(&broker, subscription("shop/billing")).await;
    member.quiet().await;
    member.assert_got(&orders);
    let mut other = Member::join(&broker, subscription("shop/other")).await;
    other.quiet().await;
    assert_eq!(other.got.len(), 150, "another consumer has its own place");
}

#[tokio::test(start_paused = true)]
async fn members_share_the_partitions_and_a_released_one_goes_on_where_it_was_settled() {
    let harness = Harness::new();
    let broker = broker(&harness);
    let mut first = Member::join(&broker, subscription("shop/billing")).await;
    first.quiet().await;
    let mut second = Member::join(&broker, subscription("shop/billing")).await;
    let mut leaving = BTreeSet::new();
    while leaving.len() < SLOTS as usize / 2 {
        match tokio::time::timeout(QUIET, first.receiver.next()).await.unwrap().unwrap() {
            Inbound::Revoked(partitions) => leaving.extend(partitions),
            other => panic!("{other:?}"),
        }
    }
    // What is leaving is no longer delivered, and stays fenced until it is released.
    publish_all(&broker, &orders(0..200)).await;
    first.quiet().await;
    assert!(first.got.iter().all(|(partition, _)| !leaving.contains(partition)));
    assert!(leaving.iter().all(|partition| first.settler.fence(partition).is_some()));
    let released: Vec<_> = leaving.iter().cloned().collect();
    first.settler.release(&released).await.unwrap();
    // No lease has this epoch: what comes too late is refused.
    let is_shut = |p: &Partition| first.settler.fence(p).is_some_and(|(_, epoch)| epoch.0 == 0);
    assert!(leaving.iter().all(is_shut));
    while second.partitions.len() < leaving.len() {
        let inbound = tokio::time::timeout(QUIET, second.receiver.next()).await.unwrap();
        second.take(inbound.unwrap());
    }
    second.quiet().await;
    assert_eq!(second.partitions, leaving);
    first.got.append(&mut second.got);
    first.assert_got(&orders(0..200));
}
