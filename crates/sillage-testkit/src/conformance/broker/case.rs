//! One test's corner of a broker: names of its own, messages, waiting, and what must have come.

use super::{super::values, BrokerFixture, group::Group, joined::Joined};
use sillage::{SLOTS, SystemClock};
use sillage_core::{
    Broker, Capabilities, Clock, Delivery, Key, Message, Partition, PublishError, Receipt, Result,
    Start, Subscription, Text, TopicSpec,
};
use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How many partitions topics get, where topics have partitions.
pub(super) const PARTITIONS: u32 = 4;
/// How many keys most tests use.
pub(super) const KEYS: u64 = 20;
/// How long members are driven before a condition is looked at again.
const TURN: Duration = Duration::from_millis(20);

/// A test's topic, consumers and members.
pub(super) struct Case<'a, F> {
    pub(super) fixture: &'a F,
    /// The handle that publishes and asks; each member has another.
    pub(super) broker: Arc<dyn Broker>,
    pub(super) can: Capabilities,
    /// What all its names begin with.
    pub(super) name: String,
    pub(super) topic: Text,
    received: AtomicU64,
    groups: Mutex<BTreeMap<Text, Group>>,
}

/// A delivery that a member was given.
#[derive(Clone, Debug)]
pub(super) struct Got {
    /// Which one it was among all that members of the test were given.
    pub(super) number: u64,
    pub(super) partition: Partition,
    /// The how-manieth time the partition was assigned to the member, from 1.
    pub(super) assignment: usize,
    pub(super) delivery: Delivery,
}

impl Got {
    pub(super) fn id(&self) -> &str {
        self.delivery.message.id.as_str()
    }
}

impl<F> Case<'_, F> {
    /// Where a consumer's partitions are shared out by the test.
    pub(super) fn group<T>(&self, consumer: &Text, step: impl FnOnce(&mut Group) -> T) -> T {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        step(groups.entry(consumer.clone()).or_default())
    }
}

impl<'a, F: BrokerFixture> Case<'a, F> {
    /// A corner with one topic, and the consumers `billing` and `email`: what is published from now
    /// on is for them.
    pub(super) async fn new(fixture: &'a F, what: &str) -> Case<'a, F> {
        let case = Case::without_consumers(fixture, what).await;
        if fixture.begins_at_subscription() {
            for consumer in ["billing", "email"] {
                let subscribed = case.broker.subscribe(case.subscription(consumer)).await;
                subscribed.unwrap().1.close().await.unwrap();
            }
        }
        case
    }

    /// A corner with one topic, that nobody has subscribed to.
    pub(super) async fn without_consumers(fixture: &'a F, what: &str) -> Case<'a, F> {
        let broker = fixture.open().await;
        let name = format!("{what}-{:08x}", rand::random::<u32>());
        let case = Case {
            fixture,
            can: broker.capabilities(),
            broker,
            topic: name.as_str().into(),
            name,
            received: AtomicU64::new(0),
            groups: Mutex::default(),
        };
        case.broker.ensure(&[case.spec(&case.topic)]).await.unwrap();
        case
    }

    pub(super) fn spec(&self, topic: &str) -> TopicSpec {
        TopicSpec { name: topic.into(), partitions: (!self.can.is_log).then_some(PARTITIONS) }
    }

    /// Over so many partitions a consumer's messages are spread.
    pub(super) fn partitions(&self) -> usize {
        (if self.can.is_log { SLOTS } else { PARTITIONS }) as usize
    }

    pub(super) fn next_number(&self) -> u64 {
        self.received.fetch_add(1, Ordering::Relaxed)
    }

    /// A message of the test, produced now.
    pub(super) fn message(&self, key: Option<&str>, number: u64) -> Message {
        let id = format!("{}-{number}", self.name);
        Message {
            topic: Some(self.topic.clone()),
            key: key.map(Key::from),
            time: SystemClock.now(),
            payload: format!("{{\"number\":{number}}}").into(),
            ..values::message(&id)
        }
    }

    /// Messages of twenty keys, in turn.
    pub(super) fn orders(&self, numbers: Range<u64>) -> Vec<Arc<Message>> {
        let order = |n| Arc::new(self.message(Some(&format!("k{}", n % KEYS)), n));
        numbers.map(order).collect()
    }

    /// Publishes messages; each must be taken.
    pub(super) async fn publish(&self, messages: &[Arc<Message>]) {
        let receipts = self.broker.publish(messages.to_vec()).await;
        assert_taken(&receipts, messages.len());
    }

    /// Publishes in the background, batch by batch.
    pub(super) fn publish_meanwhile(
        &self,
        messages: &[Arc<Message>],
        batch: usize,
    ) -> tokio::task::JoinHandle<()> {
        let (broker, messages) = (self.broker.clone(), messages.to_vec());
        tokio::spawn(async move {
            for some in messages.chunks(batch) {
                assert_taken(&broker.publish(some.to_vec()).await, some.len());
                tokio::task::yield_now().await;
            }
        })
    }

    /// What a consumer of the test's topic wants.
    pub(super) fn subscription(&self, consumer: &str) -> Subscription {
        Subscription {
            consumer: format!("{}/{consumer}", self.name).into(),
            topics: vec![self.topic.clone()],
            start: Start::Earliest,
            broadcast: false,
            reached: vec![],
        }
    }

    /// A member of the test's usual consumer, that settles what it is given.
    pub(super) async fn join(&'a self) -> Joined<'a, F> {
        Joined::join(self, self.subscription("billing")).await
    }

    /// The same, and it settles nothing by itself.
    pub(super) async fn join_idle(&'a self) -> Joined<'a, F> {
        let mut member = self.join().await;
        member.settles = false;
        member
    }

    /// Waits until something holds that members have no part in.
    pub(super) async fn eventually<T: Future<Output = bool>>(
        &self,
        what: &str,
        holds: impl Fn() -> T,
    ) {
        let end = Instant::now() + self.fixture.patience();
        while !holds().await {
            assert!(Instant::now() < end, "in vain waited until {what}");
            sleep(TURN).await;
        }
    }

    /// Lets members receive, all at the same time, until something holds.
    pub(super) async fn until(
        &self,
        members: &mut [Joined<'a, F>],
        what: &str,
        holds: impl Fn(&[Joined<'a, F>]) -> bool,
    ) {
        let end = Instant::now() + self.fixture.patience();
        while !holds(members) {
            if Instant::now() >= end {
                let told: Vec<_> = members.iter().map(Joined::told).collect();
                panic!("in vain waited until {what}; the members: {told:#?}");
            }
            together(members.iter_mut().map(|member| member.turn(TURN))).await;
        }
    }

    /// Lets members receive, all at the same time, so many times.
    pub(super) async fn turns(&self, members: &mut [Joined<'a, F>], times: usize) {
        for _ in 0..times {
            together(members.iter_mut().map(|member| member.turn(TURN))).await;
        }
    }

    /// Lets members receive until they have been given all of these.
    pub(super) async fn until_got(&self, members: &mut [Joined<'a, F>], messages: &[Arc<Message>]) {
        let wanted: HashSet<_> = messages.iter().map(|message| message.id.as_str()).collect();
        let what = format!("all of {} messages had come", wanted.len());
        let all = |members: &[Joined<'a, F>]| {
            let got = members.iter().flat_map(|member| &member.got).map(Got::id);
            got.filter(|id| wanted.contains(id)).collect::<HashSet<_>>().len() == wanted.len()
        };
        self.until(members, &what, all).await;
    }

    /// Lets members receive until all partitions are theirs, and each has its share.
    pub(super) async fn until_shared(&self, members: &mut [Joined<'a, F>]) {
        let shared = |members: &[Joined<'a, F>]| {
            let fair = self.partitions() / members.len();
            let owned: Vec<_> = members.iter().map(|member| member.owned().count()).collect();
            owned.iter().all(|owned| *owned >= fair)
                && owned.iter().sum::<usize>() == self.partitions()
        };
        self.until(members, "the partitions were shared out", shared).await;
    }

    /// Publishes one more message of each key, and waits for these: what else was to come of the
    /// keys has come before.
    pub(super) async fn flush_keys(&self, members: &mut [Joined<'a, F>], number: u64) {
        let markers = self.orders(number..number + KEYS);
        self.publish(&markers).await;
        self.until_got(members, &markers).await;
    }
}

/// Each message was taken.
pub(super) fn assert_taken(receipts: &[Result<Receipt, PublishError>], count: usize) {
    assert_eq!(receipts.len(), count, "a message has one receipt");
    let refused: Vec<_> = receipts.iter().filter_map(|receipt| receipt.as_ref().err()).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// Runs futures at the same time, to the end of the last one.
async fn together(futures: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<Pin<Box<_>>> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// All that members were given, in the order in which it came.
pub(super) fn all_got<F>(members: &[Joined<'_, F>]) -> Vec<Got> {
    let mut all: Vec<_> = members.iter().flat_map(|member| member.got.clone()).collect();
    all.sort_by_key(|got| got.number);
    all
}

/// Without what came before.
pub(super) fn without_redeliveries(got: &[Got]) -> Vec<Got> {
    let mut seen = HashSet::new();
    got.iter().filter(|got| seen.insert(got.delivery.message.id.clone())).cloned().collect()
}

/// Each of these once, and of each key in this order.
pub(super) fn assert_got<'g>(
    got: impl IntoIterator<Item = &'g Got>,
    expected: impl IntoIterator<Item = &'g Arc<Message>>,
) {
    let got = by_key(got.into_iter().map(|got| &got.delivery.message));
    let expected = by_key(expected);
    for (key, ids) in &expected {
        assert_eq!(got.get(key), Some(ids), "of the key {key:?}");
    }
    let more: Vec<_> = got.keys().filter(|key| !expected.contains_key(*key)).collect();
    assert!(more.is_empty(), "these were not to come: {more:?}");
}

fn by_key<'m>(
    messages: impl IntoIterator<Item = &'m Arc<Message>>,
) -> BTreeMap<Option<&'m Key>, Vec<&'m str>> {
    let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for message in messages {
        keys.entry(message.key.as_ref()).or_default().push(message.id.as_str());
    }
    keys
}
