//! A part of a broker with names of its own, so that tests share a server and nothing else.

use sillage_core::{
    BoxFuture, Broker, Capabilities, Delivery, Epoch, Inbound, Message, Partition, Progress,
    PublishError, Reached, Receipt, Receiver, Result, Settled, Settler, Subscribed, Subscription,
    Text, TopicSpec, TopicStatus, TopologyDiff,
};
use std::sync::Arc;

/// A broker whose topics and consumers have a prefix on the server. Who uses it does not see that.
///
/// ```
/// # use sillage_core::{Broker, TopicSpec};
/// # use sillage_testkit::{Apart, MemoryBroker};
/// # use std::sync::Arc;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let server = MemoryBroker::new(4, true);
/// let mine = Apart::new(Arc::new(server.clone()), "test-1-");
/// mine.ensure(&[TopicSpec { name: "order".into(), partitions: None }]).await.unwrap();
/// assert_eq!(&*mine.topics(&[]).await.unwrap()[0].name, "order");
/// assert_eq!(&*server.topics(&[]).await.unwrap()[0].name, "test-1-order");
/// # });
/// ```
///
/// *Guarantees.* Those of the broker. Nothing of another prefix is seen.
#[derive(Clone)]
pub struct Apart {
    broker: Arc<dyn Broker>,
    names: Names,
}

#[derive(Clone)]
struct Names(Text);

impl Apart {
    /// A part of `broker`: the names of all topics and consumers begin with `prefix` there.
    pub fn new(broker: Arc<dyn Broker>, prefix: impl Into<Text>) -> Self {
        Apart { broker, names: Names(prefix.into()) }
    }
}

impl Names {
    fn there(&self, name: &str) -> Text {
        format!("{}{name}", self.0).into()
    }

    fn here(&self, name: &str) -> Option<Text> {
        name.strip_prefix(&*self.0).map(Text::from)
    }

    fn all_there(&self, names: &[Text]) -> Vec<Text> {
        names.iter().map(|name| self.there(name)).collect()
    }

    fn partition_there(&self, partition: &Partition) -> Partition {
        Partition { topic: self.there(&partition.topic), number: partition.number }
    }

    fn partitions_there(&self, partitions: &[Partition]) -> Vec<Partition> {
        partitions.iter().map(|partition| self.partition_there(partition)).collect()
    }

    fn partition_here(&self, partition: Partition) -> Partition {
        match self.here(&partition.topic) {
            Some(topic) => Partition { topic, ..partition },
            None => partition,
        }
    }

    fn partitions_here(&self, partitions: Vec<Partition>) -> Vec<Partition> {
        partitions.into_iter().map(|partition| self.partition_here(partition)).collect()
    }

    fn delivery_here(&self, delivery: &Delivery) -> Delivery {
        let topic = delivery.message.topic.as_ref().and_then(|topic| self.here(topic));
        let message = Message { topic, ..(*delivery.message).clone() };
        Delivery { message: Arc::new(message), ..*delivery }
    }

    fn inbound_here(&self, inbound: Inbound) -> Inbound {
        match inbound {
            Inbound::Batch(partition, deliveries) => {
                let deliveries: Vec<_> = deliveries.map(|d| self.delivery_here(&d)).collect();
                Inbound::Batch(self.partition_here(partition), deliveries.into())
            }
            Inbound::Passed(partition, offset) => {
                Inbound::Passed(self.partition_here(partition), offset)
            }
            Inbound::Assigned(partitions) => Inbound::Assigned(self.partitions_here(partitions)),
            Inbound::Revoked(partitions) => Inbound::Revoked(self.partitions_here(partitions)),
            Inbound::Lost(partitions) => Inbound::Lost(self.partitions_here(partitions)),
        }
    }
}

impl Broker for Apart {
    fn capabilities(&self) -> Capabilities {
        self.broker.capabilities()
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        Box::pin(async move {
            let there =
                |spec: &TopicSpec| TopicSpec { name: self.names.there(&spec.name), ..*spec };
            let topics: Vec<_> = topics.iter().map(there).collect();
            let diff = self.broker.ensure(&topics).await?;
            let created = diff.created.iter().filter_map(|name| self.names.here(name)).collect();
            Ok(TopologyDiff { created, ..diff })
        })
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        let there = |message: Arc<Message>| {
            let topic = message.topic.as_ref().map(|topic| self.names.there(topic));
            Arc::new(Message { topic, ..(*message).clone() })
        };
        let published = self.broker.publish(batch.into_iter().map(there).collect());
        let names = self.names.clone();
        Box::pin(async move {
            let here = |receipt: Receipt| Receipt {
                partition: receipt.partition.map(|partition| names.partition_here(partition)),
                ..receipt
            };
            published.await.into_iter().map(|receipt| receipt.map(here)).collect()
        })
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        Box::pin(async move {
            let names = self.names.clone();
            let subscription = Subscription {
                consumer: names.there(&subscription.consumer),
                topics: names.all_there(&subscription.topics),
                reached: (subscription.reached.iter())
                    .map(|reached| Reached {
                        partition: names.partition_there(&reached.partition),
                        ..reached.clone()
                    })
                    .collect(),
                ..subscription
            };
            let (receiver, settler) = self.broker.subscribe(subscription).await?;
            let receiver = ApartReceiver { receiver, names: names.clone() };
            let settler = Arc::new(ApartSettler { settler, names });
            Ok((Box::new(receiver) as Box<_>, settler as Arc<_>))
        })
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        Box::pin(async move {
            let found = self.broker.topics(&self.names.all_there(names)).await?.into_iter();
            let here = |topic: TopicStatus| {
                Some(TopicStatus { name: self.names.here(&topic.name)?, ..topic })
            };
            Ok(found.filter_map(here).collect())
        })
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        Box::pin(async move {
            let (consumer, topics) = (self.names.there(consumer), self.names.all_there(topics));
            let found = self.broker.progress(&consumer, &topics).await?.into_iter();
            let here = |progress: Progress| Progress {
                partition: self.names.partition_here(progress.partition),
                ..progress
            };
            Ok(found.map(here).collect())
        })
    }
}

struct ApartReceiver {
    receiver: Box<dyn Receiver>,
    names: Names,
}

impl Receiver for ApartReceiver {
    fn next(&mut self) -> BoxFuture<'_, Result<Inbound>> {
        Box::pin(async move { Ok(self.names.inbound_here(self.receiver.next().await?)) })
    }
}

struct ApartSettler {
    settler: Arc<dyn Settler>,
    names: Names,
}

impl Settler for ApartSettler {
    fn settle<'a>(&'a self, settled: &'a [Settled]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let there = |settled: &Settled| Settled {
                partition: self.names.partition_there(&settled.partition),
                ..settled.clone()
            };
            let settled: Vec<_> = settled.iter().map(there).collect();
            self.settler.settle(&settled).await
        })
    }

    fn open<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        let partitions = self.names.partitions_there(partitions);
        Box::pin(async move { self.settler.open(&partitions).await })
    }

    fn release<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        let partitions = self.names.partitions_there(partitions);
        Box::pin(async move { self.settler.release(&partitions).await })
    }

    fn pause(&self, partitions: &[Partition]) -> Result<()> {
        self.settler.pause(&self.names.partitions_there(partitions))
    }

    fn resume(&self, partitions: &[Partition]) -> Result<()> {
        self.settler.resume(&self.names.partitions_there(partitions))
    }

    fn fence(&self, partition: &Partition) -> Option<(Text, Epoch)> {
        self.settler.fence(&self.names.partition_there(partition))
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.settler.close()
    }
}
