//! The way out to a broker: makes a topic before the first message of it is published.

use sillage_core::{
    Broker, Error, ErrorKind, Message, PublishError, Receipt, Result, Text, TopicSpec,
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(crate) struct Outlet {
    broker: Arc<dyn Broker>,
    /// Those that are there.
    topics: Mutex<HashSet<Text>>,
    /// One asks for a topic, and all others that want it wait for that.
    asking: tokio::sync::Mutex<()>,
}

impl Outlet {
    pub(crate) fn new(broker: Arc<dyn Broker>) -> Self {
        Outlet { broker, topics: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// Publishes, and waits until the broker has confirmed each. What a topic cannot be made for is
    /// not published at all.
    pub(crate) async fn publish(
        &self,
        messages: Vec<Arc<Message>>,
    ) -> Vec<Result<Receipt, PublishError>> {
        let topics: HashSet<_> = messages.iter().filter_map(|m| m.topic.clone()).collect();
        for topic in &topics {
            if let Err(error) = self.ensure(topic).await {
                let failed = |_: &Arc<Message>| {
                    let why = format!("topic `{topic}` is not there: {error}");
                    Err(PublishError::Unknown(Error::new(error.kind(), why)))
                };
                return messages.iter().map(failed).collect();
            }
        }
        let published = self.broker.publish(messages).await;
        let gone = |result: &Result<Receipt, PublishError>| matches!(result, Err(PublishError::Refused(error)) if error.kind() == ErrorKind::NotFound);
        if published.iter().any(gone) {
            self.topics().retain(|topic| !topics.contains(topic));
        }
        published
    }

    async fn ensure(&self, topic: &Text) -> Result<()> {
        if self.topics().contains(topic) {
            return Ok(());
        }
        let _asking = self.asking.lock().await;
        if self.topics().contains(topic) {
            return Ok(());
        }
        let spec = TopicSpec { name: topic.clone(), partitions: None };
        self.broker.ensure(&[spec]).await?;
        self.topics().insert(topic.clone());
        Ok(())
    }

    fn topics(&self) -> MutexGuard<'_, HashSet<Text>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
