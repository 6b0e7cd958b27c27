//! Brokers that break a promise, and the test of the suite that sees it.

#![allow(clippy::unwrap_used)] // Helpers of tests may panic as tests do.

use sillage_core::{
    BoxFuture, Broker, Capabilities, Delivery, Epoch, Error, Inbound, Message, Offset, Partition,
    Progress, PublishError, Receipt, Receiver, Result, Settled, Settler, Subscribed, Subscription,
    Text, TopicSpec, TopicStatus, TopologyDiff,
};
use sillage_testkit::{
    MemoryBroker,
    conformance::{BrokerFixture, broker, run},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// Of two messages of a key that came together the later one is delivered first.
    Reorders,
    /// A message without its headers that come twice.
    DropsHeaders,
    /// Where one message of a batch is refused, all are.
    RefusesAll,
    /// What a dropped call had taken is gone.
    LosesOnCancel,
    /// Pausing does nothing.
    NeverPauses,
    /// Nothing is stored.
    SettlesNothing,
    /// The newest finished delivery is the settled place.
    SettlesPastUnfinished,
    /// The first batch of a partition that comes back is lost.
    DropsAtRelease,
    /// Of a partition that comes back, an old batch comes first.
    KeepsAtRelease,
    /// What one member was given is given to the other one too.
    DeliversToBoth,
    /// Nobody shares: the first has everything.
    SharesNothing,
}

struct Fixture {
    bug: Bug,
    broker: MemoryBroker,
    seen: Seen,
}

/// What members were given last, and which of them it was.
type Seen = Arc<Mutex<Option<(usize, Delivery)>>>;

impl Fixture {
    fn new(bug: Bug) -> Self {
        Fixture { bug, broker: MemoryBroker::new(4, true), seen: Seen::default() }
    }
}

impl BrokerFixture for Fixture {
    async fn open(&self) -> Arc<dyn Broker> {
        Arc::new(Broken { bug: self.bug, broker: self.broker.clone(), seen: self.seen.clone() })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(5)
    }
}

struct Broken {
    bug: Bug,
    broker: MemoryBroker,
    seen: Seen,
}

impl Broker for Broken {
    fn capabilities(&self) -> Capabilities {
        // Offsets that go back are seen by every test; here the promise itself is looked at.
        Capabilities { offsets: false, ..self.broker.capabilities() }
    }
    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        self.broker.ensure(topics)
    }
    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        let (bug, limit) = (self.bug, self.capabilities().max_message_bytes);
        let refused = || Err(PublishError::Refused(Error::invalid("too large")));
        if bug == Bug::RefusesAll && batch.iter().any(|message| message.size() > limit) {
            return Box::pin(async move { batch.iter().map(|_| refused()).collect() });
        }
        self.broker.publish(batch)
    }
    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        Box::pin(async move {
            let (receiver, settler) = self.broker.subscribe(subscription).await?;
            let receiver = BrokenReceiver {
                bug: self.bug,
                receiver,
                member: Arc::as_ptr(&settler).cast::<()>() as usize,
                seen: self.seen.clone(),
                last: BTreeMap::new(),
                ready: None,
                lost: None,
            };
            let settler = Arc::new(BrokenSettler { bug: self.bug, settler });
            Ok((Box::new(receiver) as Box<_>, settler as Arc<_>))
        })
    }
    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        self.broker.topics(names)
    }
    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        self.broker.progress(consumer, topics)
    }
}

struct BrokenReceiver {
    bug: Bug,
    receiver: Box<dyn Receiver>,
    member: usize,
    seen: Seen,
    last: BTreeMap<Partition, Vec<Delivery>>,
    ready: Option<Inbound>,
    lost: Option<Partition>,
}

impl BrokenReceiver {
    async fn step(&mut self) -> Result<Inbound> {
        if let Some(ready) = self.ready.take() {
            return Ok(ready);
        }
        let mut inbound = self.receiver.next().await?;
        if self.bug == Bug::LosesOnCancel {
            tokio::task::yield_now().await;
        }
        match &mut inbound {
            Inbound::Batch(partition, given) => {
                let partition = partition.clone();
                let mut deliveries: Vec<_> = given.collect();
                if self.lost.as_ref() == Some(&partition) {
                    self.lost = None;
                    deliveries.clear();
                }
                self.spoil(&mut deliveries);
                *given = deliveries.clone().into();
                self.last.insert(partition, deliveries);
            }
            Inbound::Assigned(partitions) => {
                let again = partitions.iter().find_map(|p| Some((p.clone(), self.last.remove(p)?)));
                match (self.bug, again) {
                    (Bug::DropsAtRelease, Some((partition, _))) => self.lost = Some(partition),
                    (Bug::KeepsAtRelease, Some((partition, old))) => {
                        self.ready = Some(Inbound::Batch(partition, old.into()));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(inbound)
    }

    fn spoil(&self, deliveries: &mut Vec<Delivery>) {
        match self.bug {
            Bug::Reorders => {
                for at in 1..deliveries.len() {
                    let key = deliveries[at].message.key.clone();
                    let before = deliveries[..at].iter().position(|d| d.message.key == key);
                    if let Some(before) = before {
                        return deliveries.swap(before, at);
                    }
                }
            }
            Bug::DropsHeaders => {
                for delivery in deliveries {
                    let mut message = (*delivery.message).clone();
                    message.headers.sort_by(|a, b| a.name.cmp(&b.name));
                    message.headers.dedup_by(|a, b| a.name == b.name);
                    delivery.message = Arc::new(message);
                }
            }
            Bug::DeliversToBoth => {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                let last = deliveries.last().cloned();
                if let Some((_, delivery)) = seen.take_if(|(member, _)| *member != self.member) {
                    let offset = Offset(delivery.offset.0 + 1_000_000);
                    deliveries.push(Delivery { offset, ..delivery });
                }
                *seen = last.map(|last| (self.member, last)).or_else(|| seen.take());
            }
            _ => {}
        }
    }
}

impl Receiver for BrokenReceiver {
    fn next(&mut self) -> BoxFuture<'_, Result<Inbound>> {
        Box::pin(self.step())
    }
}

struct BrokenSettler {
    bug: Bug,
    settler: Arc<dyn Settler>,
}

impl Settler for BrokenSettler {
    fn settle<'a>(&'a self, settled: &'a [Settled]) -> BoxFuture<'a, Result<()>> {
        let mut settled = settled.to_vec();
        match self.bug {
            Bug::SettlesNothing => settled.clear(),
            Bug::SettlesPastUnfinished => {
                for settled in &mut settled {
                    let newest = settled.finished.iter().max().copied();
                    settled.watermark = settled.watermark.max(newest);
                }
            }
            _ => {}
        }
        Box::pin(async move { self.settler.settle(&settled).await })
    }
    fn open<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        self.settler.open(partitions)
    }
    fn release<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        if self.bug == Bug::SharesNothing {
            return Box::pin(async { Ok(()) });
        }
        self.settler.release(partitions)
    }
    fn pause(&self, partitions: &[Partition]) -> Result<()> {
        if self.bug == Bug::NeverPauses { Ok(()) } else { self.settler.pause(partitions) }
    }
    fn resume(&self, partitions: &[Partition]) -> Result<()> {
        self.settler.resume(partitions)
    }
    fn fence(&self, partition: &Partition) -> Option<(Text, Epoch)> {
        self.settler.fence(partition)
    }
    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.settler.close()
    }
}

macro_rules! sees {
    ($($test:ident: $bug:ident, $expected:literal;)+) => {$(
        #[test]
        #[should_panic(expected = $expected)]
        fn $test() {
            run(async { broker::$test(&Fixture::new(Bug::$bug)).await });
        }
    )+};
}

sees! {
    a_key_arrives_in_the_order_of_publishing: Reorders, "of the key";
    a_message_arrives_whole: DropsHeaders, "headers of";
    a_message_over_the_limit_is_refused_alone: RefusesAll, "left: (60, 0)";
    a_call_that_is_dropped_at_any_moment_loses_and_doubles_nothing: LosesOnCancel, "only was given";
    a_paused_partition_waits_and_the_others_go_on: NeverPauses, "of paused partitions came";
    what_was_settled_does_not_come_again: SettlesNothing, "of the key";
    the_settled_place_never_passes_what_is_unfinished: SettlesPastUnfinished, "had come";
    what_is_given_up_comes_again_from_the_settled_place: DropsAtRelease, "had come again";
    no_old_batch_comes_behind_a_new_assignment: KeepsAtRelease, "assignment ";
    members_share_the_work: DeliversToBoth, "of the key";
    a_joining_member_gets_a_share: SharesNothing, "were shared out";
}
