//! Apache Kafka as the broker of Sillage.
//!
//! ```no_run
//! # use sillage_core::{Broker, Message, Result};
//! # use std::sync::Arc;
//! # async fn example(message: Arc<Message>) -> Result<()> {
//! let kafka = sillage_kafka::Kafka::connect("kafka://localhost:9092?partitions=12").await?;
//! let receipts = kafka.publish(vec![message]).await;
//! # Ok(())
//! # }
//! ```
mod admin;
mod config;
mod error;
mod offsets;
mod publisher;
mod receiver;
mod settler;
mod watch;

use admin::{Admin, blocking};
use config::Config;
use publisher::Publisher;
use sillage_core::{
    BoxFuture, Broker, Capabilities, Message, Progress, PublishError, Receipt, Result, Subscribed,
    Subscription, Text, TopicSpec, TopicStatus, TopologyDiff,
};
use std::{fmt, sync::Arc};

/// A Kafka cluster.
///
/// Dropping it does not block: what was handed over goes on being published for up to 5 s.
pub struct Kafka {
    config: Arc<Config>,
    publisher: Publisher,
}

impl Kafka {
    /// Connects to the cluster of a URL, within 10 s or so; within a tokio runtime.
    ///
    /// # Errors
    /// `Invalid`: the URL, or TLS does not work. `Denied`: the user is not let in. `Unavailable`:
    /// no broker answers.
    pub async fn connect(url: &str) -> Result<Kafka> {
        let config = Arc::new(Config::parse(url)?);
        let asking = config.clone();
        let largest = blocking(move || Admin::new(&asking)?.check()).await?;
        let publisher = Publisher::start(config.clone(), largest)?;
        Ok(Kafka { config, publisher })
    }

    async fn ensure_all(&self, topics: Vec<TopicSpec>) -> Result<TopologyDiff> {
        let config = self.config.clone();
        let names: Vec<Text> = topics.iter().map(|topic| topic.name.clone()).collect();
        let (diff, limits) = blocking(move || {
            let admin = Admin::new(&config)?;
            Ok((admin.ensure(&topics)?, admin.limits(&names)))
        })
        .await?;
        match limits {
            Ok(limits) => self.publisher.limits().learn(limits),
            // Reading settings may be forbidden: then the broker's limit counts.
            Err(error) => tracing::info!(target: "sillage_kafka", %error, "limits of topics"),
        }
        Ok(diff)
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Broker for Kafka {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "Apache Kafka",
            ordered_by_key: true,
            replay: true,
            is_log: false,
            shared: true,
            assigns: true,
            offsets: true,
            max_message_bytes: self.publisher.limits().largest(),
        }
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        Box::pin(self.ensure_all(topics.to_vec()))
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        self.publisher.publish(batch)
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        Box::pin(receiver::subscribe(&self.config, subscription))
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        let (config, names) = (self.config.clone(), names.to_vec());
        Box::pin(blocking(move || Admin::new(&config)?.topics(&names)))
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        let (config, group, topics) = (self.config.clone(), consumer.to_owned(), topics.to_vec());
        Box::pin(blocking(move || Admin::progress(&config, &group, &topics)))
    }
}
