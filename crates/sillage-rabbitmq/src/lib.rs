//! RabbitMQ as a broker.

mod acks;
mod config;
mod connection;
mod error;
mod publisher;
mod reading;
mod receiver;
mod settler;
mod topology;
mod wire;

use config::Config;
use connection::Link;
use publisher::Publisher;
use receiver::{Incoming, Member};
use settler::Outgoing;
use sillage_core::{
    BoxFuture, Broker, Capabilities, Error, ErrorKind, Limits, Message, Progress, PublishError,
    Receipt, Result, Subscribed, Subscription, Text, TopicSpec, TopicStatus, TopologyDiff,
};
use std::{fmt, sync::Arc};
use topology::Topology;

/// RabbitMQ as a broker.
pub struct RabbitMq {
    config: Arc<Config>,
    topology: Arc<Topology>,
    publisher: Publisher,
}

impl RabbitMq {
    /// Connects to the server of a URL.
    ///
    /// # Errors
    /// `Invalid`: not a URL as described above. `NotFound`: there is no such virtual host, or no
    /// file `ca`. `Denied`: a wrong name or password, or no right to the virtual host.
    /// `Unavailable`: there is no answer within about 10 s.
    pub async fn connect(url: &str) -> Result<RabbitMq> {
        let config = Arc::new(Config::parse(url)?);
        let topology = Arc::new(Topology::new(Link::new(config.clone(), "topology")));
        topology.connect().await?;
        let publishing = Link::new(config.clone(), "publishing");
        let publisher = Publisher::start(publishing, &topology);
        Ok(RabbitMq { config, topology, publisher })
    }

    async fn join(&self, subscription: Subscription) -> Result<Subscribed> {
        let Subscription { consumer, topics, broadcast, .. } = subscription;
        if broadcast {
            return Err(Error::new(ErrorKind::Unsupported, "broadcasts"));
        }
        let partitions = self.topology.join(&consumer, &topics).await?;
        let link = Link::new(self.config.clone(), format!("consumer {consumer}"));
        let member = Arc::new(Member::new(link, consumer, partitions));
        Ok((Box::new(Incoming(member.clone())), Arc::new(Outgoing(member))))
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RabbitMq").field(&self.config).finish()
    }
}

impl Broker for RabbitMq {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "RabbitMQ",
            ordered_by_key: true,
            replay: self.config.stream,
            is_log: false,
            shared: true,
            assigns: false,
            offsets: false,
            max_message_bytes: Limits::default().message,
        }
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        Box::pin(self.topology.ensure(topics))
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        Box::pin(self.publisher.publish(batch))
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        Box::pin(self.join(subscription))
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        Box::pin(self.topology.topics(names))
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        Box::pin(self.topology.progress(consumer, topics))
    }
}
