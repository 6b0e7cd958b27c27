//! A broker that several systems share: each with a prefix before the names of its topics and
//! consumers, which its services never see.

use sillage_core::{
    BoxFuture, Broker, Capabilities, Epoch, Inbound, Message, Partition, Progress, PublishError,
    Reached, Receipt, Receiver, Result, Settled, Settler, Subscribed, Subscription, Text,
    TopicSpec, TopicStatus, TopologyDiff,
};
use std::sync::Arc;

/// A broker of which this system's topics and consumers have names with a prefix.
pub(crate) struct Prefixed {
    broker: Arc<dyn Broker>,
    names: Names,
}

impl Prefixed {
    pub(crate) fn new(broker: Arc<dyn Broker>, prefix: &str) -> Self {
        Prefixed { broker, names: Names(prefix.into()) }
    }
}

/// From names inside to names at the broker and back.
#[derive(Clone)]
struct Names(Text);

impl Names {
    fn out(&self, name: &str) -> Text {
        [&*self.0, name].concat().into()
    }

    fn all_out(&self, names: &[Text]) -> Vec<Text> {
        names.iter().map(|name| self.out(name)).collect()
    }

    /// `None`: it is another system's.
    fn back(&self, name: &str) -> Option<Text> {
        name.strip_prefix(&*self.0).map(Text::from)
    }

    fn partition_out(&self, partition: &Partition) -> Partition {
        Partition { topic: self.out(&partition.topic), number: partition.number }
    }

    fn partitions_out(&self, partitions: &[Partition]) -> Vec<Partition> {
        partitions.iter().map(|partition| self.partition_out(partition)).collect()
    }

    fn reached_out(&self, reached: &[Reached]) -> Vec<Reached> {
        let out = |reached: &Reached| Reached {
            partition: self.partition_out(&reached.partition),
            ..reached.clone()
        };
        reached.iter().map(out).collect()
    }

    fn partition_back(&self, partition: Partition) -> Partition {
        match self.back(&partition.topic) {
            Some(topic) => Partition { topic, number: partition.number },
            None => partition,
        }
    }

    fn partitions_back(&self, partitions: Vec<Partition>) -> Vec<Partition> {
        partitions.into_iter().map(|partition| self.partition_back(partition)).collect()
    }

    fn message_out(&self, message: Arc<Message>) -> Arc<Message> {
        let topic = message.topic.as_ref().map(|topic| self.out(topic));
        Arc::new(Message { topic, ..Arc::unwrap_or_clone(message) })
    }

    fn inbound(&self, inbound: Inbound) -> Inbound {
        match inbound {
            Inbound::Batch(partition, deliveries) => {
                let partition = self.partition_back(partition);
                let deliveries = deliveries.renamed(partition.topic.clone());
                Inbound::Batch(partition, deliveries)
            }
            Inbound::Passed(partition, offset) => {
                Inbound::Passed(self.partition_back(partition), offset)
            }
            Inbound::Assigned(partitions) => Inbound::Assigned(self.partitions_back(partitions)),
            Inbound::Revoked(partitions) => Inbound::Revoked(self.partitions_back(partitions)),
            Inbound::Lost(partitions) => Inbound::Lost(self.partitions_back(partitions)),
        }
    }
}

impl Broker for Prefixed {
    /// With another prefix it has other partitions, and offsets.
    fn capabilities(&self) -> Capabilities {
        let of = self.broker.capabilities();
        let cluster = of.cluster.as_ref().map(|cluster| self.names.out(cluster));
        Capabilities { cluster, ..of }
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        let out = |topic: &TopicSpec| TopicSpec {
            name: self.names.out(&topic.name),
            partitions: topic.partitions,
        };
        let topics: Vec<_> = topics.iter().map(out).collect();
        Box::pin(async move {
            let diff = self.broker.ensure(&topics).await?;
            let created = diff.created.iter().filter_map(|name| self.names.back(name)).collect();
            Ok(TopologyDiff { created, differs: diff.differs })
        })
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        let batch = batch.into_iter().map(|message| self.names.message_out(message)).collect();
        let (published, names) = (self.broker.publish(batch), self.names.clone());
        let back = move |receipt: Receipt| Receipt {
            partition: receipt.partition.map(|partition| names.partition_back(partition)),
            offset: receipt.offset,
        };
        Box::pin(
            async move { published.await.into_iter().map(|result| result.map(&back)).collect() },
        )
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        let subscription = Subscription {
            consumer: self.names.out(&subscription.consumer),
            topics: self.names.all_out(&subscription.topics),
            reached: self.names.reached_out(&subscription.reached),
            ..subscription
        };
        Box::pin(async move {
            let (receiver, settler) = self.broker.subscribe(subscription).await?;
            let names = self.names.clone();
            let receiver = PrefixedReceiver { receiver, names: names.clone() };
            Ok((
                Box::new(receiver) as Box<dyn Receiver>,
                Arc::new(PrefixedSettler { settler, names }) as Arc<dyn Settler>,
            ))
        })
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        let names = self.names.all_out(names);
        Box::pin(async move {
            let topics = self.broker.topics(&names).await?.into_iter();
            let own = |topic: TopicStatus| {
                self.names.back(&topic.name).map(|name| TopicStatus { name, ..topic })
            };
            Ok(topics.filter_map(own).collect())
        })
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        let (consumer, topics) = (self.names.out(consumer), self.names.all_out(topics));
        Box::pin(async move {
            let progress = self.broker.progress(&consumer, &topics).await?.into_iter();
            let back = |progress: Progress| Progress {
                partition: self.names.partition_back(progress.partition),
                ..progress
            };
            Ok(progress.map(back).collect())
        })
    }
}

struct PrefixedReceiver {
    receiver: Box<dyn Receiver>,
    names: Names,
}

impl Receiver for PrefixedReceiver {
    fn next(&mut self) -> BoxFuture<'_, Result<Inbound>> {
        Box::pin(async move { Ok(self.names.inbound(self.receiver.next().await?)) })
    }
}

struct PrefixedSettler {
    settler: Arc<dyn Settler>,
    names: Names,
}

impl Settler for PrefixedSettler {
    fn settle<'a>(&'a self, settled: &'a [Settled]) -> BoxFuture<'a, Result<()>> {
        let out = |settled: &Settled| Settled {
            partition: self.names.partition_out(&settled.partition),
            ..settled.clone()
        };
        let settled: Vec<_> = settled.iter().map(out).collect();
        Box::pin(async move { self.settler.settle(&settled).await })
    }

    fn open<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        let partitions = self.names.partitions_out(partitions);
        Box::pin(async move { self.settler.open(&partitions).await })
    }

    fn release<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        let partitions = self.names.partitions_out(partitions);
        Box::pin(async move { self.settler.release(&partitions).await })
    }

    fn pause(&self, partitions: &[Partition]) -> Result<()> {
        self.settler.pause(&self.names.partitions_out(partitions))
    }

    fn resume(&self, partitions: &[Partition]) -> Result<()> {
        self.settler.resume(&self.names.partitions_out(partitions))
    }

    fn fence(&self, partition: &Partition) -> Option<(Text, Epoch)> {
        self.settler.fence(&self.names.partition_out(partition))
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.settler.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sillage_core::{Delivery, MessageId, Offset, Timestamp};

    #[test]
    fn what_comes_is_of_topics_without_the_prefix() {
        let message = Arc::new(Message {
            id: MessageId::new("1"),
            source: "test".into(),
            name: "test.happened".into(),
            version: 1,
            topic: Some("blue-orders".into()),
            key: None,
            time: Timestamp::from_micros(0),
            correlation_id: "1".into(),
            causation_id: None,
            operation_id: None,
            traceparent: None,
            headers: vec![],
            payload: "{}".into(),
        });
        let deliveries =
            [3, 4].map(|offset| Delivery { offset: Offset(offset), message: message.clone() });
        let partition = Partition { topic: "blue-orders".into(), number: 7 };
        let names = Names("blue-".into());
        let inbound = names.inbound(Inbound::Batch(partition, deliveries.to_vec().into()));
        let Inbound::Batch(partition, deliveries) = inbound else { panic!("{inbound:?}") };
        assert_eq!(partition.to_string(), "orders/7");
        let all: Vec<_> = deliveries.map(|d| (d.offset.0, d.message.topic.clone())).collect();
        assert_eq!(all, [(3, Some("orders".into())), (4, Some("orders".into()))]);
        assert_eq!(message.topic.as_deref(), Some("blue-orders"), "another one's stays");
    }
}
