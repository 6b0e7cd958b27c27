//! A broker that brings messages twice, late, and behind later ones.

use sillage_core::{
    BoxFuture, Broker, Capabilities, Clock, Message, MessageId, Progress, PublishError, Receipt,
    Result, Subscribed, Subscription, Text, TopicSpec, TopicStatus, TopologyDiff,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What goes wrong with messages, of so many in a hundred.
#[derive(Clone, Debug)]
pub struct Disorder {
    /// The topics it happens on.
    pub topics: Vec<Text>,
    /// They come late, and so behind later ones of their key.
    pub late: u64,
    /// They come again: some with the same id, some with another, as from a producer that has
    /// forgotten what it sent.
    pub twice: u64,
    /// The latest that they come.
    pub most: Duration,
}

/// A broker on which some messages come twice, late, and behind later ones. None is lost.
///
/// What goes wrong follows from the seed and from what is published in which order.
///
/// *Guarantees.* Those of the broker, but for the order of the topics that are named, and for
/// messages that come once.
#[derive(Clone)]
pub struct Unruly {
    broker: Arc<dyn Broker>,
    clock: Arc<dyn Clock>,
    disorder: Arc<Disorder>,
    random: Arc<Mutex<u64>>,
}

impl Unruly {
    /// This broker, with this disorder; messages that come late wait on `clock`.
    pub fn new(
        broker: Arc<dyn Broker>,
        clock: Arc<dyn Clock>,
        disorder: Disorder,
        seed: u64,
    ) -> Self {
        let (disorder, random) = (Arc::new(disorder), Arc::new(Mutex::new(seed)));
        Unruly { broker, clock, disorder, random }
    }

    /// `SplitMix64`.
    fn random(&self) -> u64 {
        let mut state = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn happens(&self, of_a_hundred: u64) -> bool {
        self.random() % 100 < of_a_hundred
    }

    /// Publishes it some time later, whatever becomes of who asked.
    fn later(&self, message: Arc<Message>) {
        let most = u64::try_from(self.disorder.most.as_millis()).unwrap_or(u64::MAX).max(1);
        let delay = self.clock.sleep(Duration::from_millis(self.random() % most));
        let broker = self.broker.clone();
        tokio::spawn(async move {
            delay.await;
            broker.publish(vec![message]).await
        });
    }

    /// Whether it is to be published now.
    fn disturb(&self, message: &Arc<Message>) -> bool {
        let topic = message.topic.as_deref().unwrap_or_default();
        if !self.disorder.topics.iter().any(|disturbed| **disturbed == *topic) {
            return true;
        }
        if self.happens(self.disorder.twice) {
            self.later(message.clone());
        }
        if self.happens(self.disorder.twice) {
            let id = MessageId::new(format!("{}-again", message.id));
            self.later(Arc::new(Message { id, ..(**message).clone() }));
        }
        let late = self.happens(self.disorder.late);
        if late {
            self.later(message.clone());
        }
        !late
    }
}

impl Broker for Unruly {
    fn capabilities(&self) -> Capabilities {
        self.broker.capabilities()
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        self.broker.ensure(topics)
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        let now: Vec<bool> = batch.iter().map(|message| self.disturb(message)).collect();
        let kept = batch.into_iter().zip(&now).filter(|(_, now)| **now);
        let published = self.broker.publish(kept.map(|(message, _)| message).collect());
        Box::pin(async move {
            let mut receipts = published.await.into_iter();
            let nowhere = || Ok(Receipt { partition: None, offset: None });
            let receipt =
                |now| if now { receipts.next().unwrap_or_else(nowhere) } else { nowhere() };
            now.into_iter().map(receipt).collect()
        })
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        self.broker.subscribe(subscription)
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
