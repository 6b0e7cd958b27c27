//! A member of a consumer, as the runtime is one: it takes what comes, answers what is asked back,
//! and settles by the lowest unfinished delivery.

use super::{
    BrokerFixture,
    case::{Case, Got},
    group::Step,
};
use sillage_core::{
    Deliveries, Inbound, Offset, Partition, Receiver, Settled, Settler, Subscription,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

/// A member, and all that it was given.
pub(super) struct Joined<'a, F> {
    case: &'a Case<'a, F>,
    subscription: Subscription,
    number: usize,
    receiver: Box<dyn Receiver>,
    pub(super) settler: Arc<dyn Settler>,
    /// Whatever it is given is finished at once.
    pub(super) settles: bool,
    places: BTreeMap<Partition, Place>,
    assignments: BTreeMap<Partition, usize>,
    pub(super) got: Vec<Got>,
}

/// How far a partition is that a member owns.
#[derive(Default)]
struct Place {
    /// From the first unfinished delivery on.
    deliveries: VecDeque<(Offset, bool)>,
    watermark: Option<Offset>,
    /// Finished and not yet told.
    finished: Vec<Offset>,
}

impl Place {
    fn push(&mut self, offset: Offset, finished: bool) {
        self.deliveries.push_back((offset, finished));
        self.pass();
    }

    /// True where the delivery is known and was not finished before.
    fn finish(&mut self, offset: Offset) -> bool {
        let mut unfinished = self.deliveries.iter_mut().filter(|(_, finished)| !finished);
        let Some(delivery) = unfinished.find(|(known, _)| *known == offset) else { return false };
        delivery.1 = true;
        self.finished.push(offset);
        self.pass();
        true
    }

    fn pass(&mut self) {
        while let Some((offset, true)) = self.deliveries.front().copied() {
            self.deliveries.pop_front();
            self.watermark = Some(offset);
        }
    }

    fn settled(&mut self, partition: &Partition) -> Option<Settled> {
        let finished = std::mem::take(&mut self.finished);
        let told = Settled { partition: partition.clone(), watermark: self.watermark, finished };
        (!told.finished.is_empty()).then_some(told)
    }
}

impl<'a, F: BrokerFixture> Joined<'a, F> {
    /// One more member, with a handle of its own.
    pub(super) async fn join(case: &'a Case<'a, F>, subscription: Subscription) -> Self {
        let broker = case.fixture.open().await;
        let (receiver, settler) = broker.subscribe(subscription.clone()).await.unwrap();
        let topics = broker.topics(&subscription.topics).await.unwrap();
        let all: Vec<_> = topics
            .iter()
            .flat_map(|topic| {
                topic.partitions.iter().map(|partition| Partition {
                    topic: topic.name.clone(),
                    number: partition.number,
                })
            })
            .collect();
        let number = case.group(&subscription.consumer, |group| group.join(all));
        Joined {
            case,
            subscription,
            number,
            receiver,
            settler,
            settles: true,
            places: BTreeMap::new(),
            assignments: BTreeMap::new(),
            got: vec![],
        }
    }

    /// Receives for so long.
    pub(super) async fn turn(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.balance().await;
        while let Ok(inbound) = timeout_at(end, self.receiver.next()).await {
            self.take(inbound.expect("receiving failed")).await;
        }
        self.settle().await;
    }

    /// Asks for what is next, and gives up after so many turns of the other tasks.
    pub(super) async fn ask(&mut self, turns: usize) {
        self.balance().await;
        let give_up = async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        let inbound = tokio::select! {
            biased;
            inbound = self.receiver.next() => inbound,
            () = give_up => return,
        };
        self.take(inbound.expect("receiving failed")).await;
    }

    async fn take(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Batch(partition, deliveries) => self.batch(&partition, deliveries),
            Inbound::Passed(partition, offset) => {
                if let Some(place) = self.places.get_mut(&partition) {
                    place.push(offset, true);
                }
            }
            Inbound::Assigned(partitions) => {
                for partition in partitions {
                    *self.assignments.entry(partition.clone()).or_default() += 1;
                    let before = self.places.insert(partition.clone(), Place::default());
                    assert!(before.is_none(), "{partition} was this member's already");
                }
            }
            Inbound::Revoked(partitions) => {
                self.settle().await;
                self.places.retain(|partition, _| !partitions.contains(partition));
                self.settler.release(&partitions).await.unwrap();
            }
            Inbound::Lost(partitions) => {
                self.places.retain(|partition, _| !partitions.contains(partition));
            }
        }
    }

    fn batch(&mut self, partition: &Partition, deliveries: Deliveries) {
        // What is not this member's any more may still be on its way.
        let Some(place) = self.places.get_mut(partition) else { return };
        for delivery in deliveries {
            let offset = delivery.offset;
            if self.case.can.offsets {
                let last = place.deliveries.back().map(|(offset, _)| *offset);
                let last = last.max(place.watermark);
                assert!(
                    last.is_none_or(|last| last < offset),
                    "{partition} goes back to {offset:?}"
                );
            }
            place.push(offset, false);
            if self.settles {
                place.finish(offset);
            }
            self.got.push(Got {
                number: self.case.next_number(),
                partition: partition.clone(),
                assignment: self.assignments[partition],
                delivery,
            });
        }
    }

    /// Tells the broker what is finished.
    pub(super) async fn settle(&mut self) {
        let places = self.places.iter_mut();
        let settled: Vec<_> = places.filter_map(|(name, place)| place.settled(name)).collect();
        if settled.is_empty() {
            return;
        }
        if !self.subscription.broadcast {
            self.case.fixture.settled(&self.subscription.consumer, &settled).await;
        }
        self.settler.settle(&settled).await.unwrap();
    }

    /// A delivery is finished; it is told with the next [`Joined::settle`].
    pub(super) fn finish(&mut self, partition: &Partition, offset: Offset) {
        let place = self.places.get_mut(partition).expect("a partition of this member");
        assert!(place.finish(offset), "{partition}: {offset:?} is not under way");
    }

    /// The first so many unfinished deliveries of a partition are finished: how many there were.
    pub(super) fn finish_first(&mut self, partition: &Partition, count: usize) -> usize {
        let place = self.places.get_mut(partition).expect("a partition of this member");
        let unfinished = place.deliveries.iter().filter(|(_, finished)| !finished);
        let first: Vec<_> = unfinished.take(count).map(|(offset, _)| *offset).collect();
        for offset in &first {
            place.finish(*offset);
        }
        first.len()
    }

    /// Gives partitions up that nobody asked back; they come again.
    pub(super) async fn give_up(&mut self, partitions: &[Partition]) {
        self.places.retain(|partition, _| !partitions.contains(partition));
        self.settler.release(partitions).await.unwrap();
        if !self.case.can.assigns {
            self.settler.open(partitions).await.unwrap();
        }
    }

    /// The partitions that are this member's.
    pub(super) fn owned(&self) -> impl Iterator<Item = &Partition> {
        self.places.keys()
    }

    /// Settles what is finished, and leaves.
    pub(super) async fn close(&mut self) {
        self.settle().await;
        let owned: Vec<_> = self.owned().cloned().collect();
        self.settler.release(&owned).await.unwrap();
        self.settler.close().await.unwrap();
        self.places.clear();
        self.case.group(&self.subscription.consumer, |group| group.leave(self.number));
    }

    /// Where the broker does not, the test shares partitions out, as leases in a database do.
    async fn balance(&mut self) {
        if self.case.can.assigns || self.subscription.broadcast {
            return;
        }
        let consumer = &self.subscription.consumer;
        let step = self.case.group(consumer, |group| group.step(self.number));
        match step {
            Step::Open(partitions) => self.settler.open(&partitions).await.unwrap(),
            Step::Release(partition) => {
                self.settle().await;
                self.places.remove(&partition);
                self.settler.release(std::slice::from_ref(&partition)).await.unwrap();
                let consumer = &self.subscription.consumer;
                self.case.group(consumer, |group| group.free(&partition));
            }
            Step::Stay => {}
        }
    }
}

impl<F> Joined<'_, F> {
    /// What a test that waited in vain says of it.
    pub(super) fn told(&self) -> String {
        let partitions: Vec<_> = self.places.keys().map(ToString::to_string).collect();
        format!("was given {} deliveries, has {}", self.got.len(), partitions.join(" "))
    }
}

impl<F> Drop for Joined<'_, F> {
    /// Stands for leases that run out.
    fn drop(&mut self) {
        self.case.group(&self.subscription.consumer, |group| group.leave(self.number));
    }
}
