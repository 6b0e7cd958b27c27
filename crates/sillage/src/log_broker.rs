//! The embedded broker: the log of a database, read by consumers.
//!
//! A consumer's topics are spread over sixteen slots by the hash of topic and key. Each slot is
//! owned by a lease in the database, and processes take their fair share, so that several of them
//! share a consumer. Every commit for a slot is conditional on its lease's epoch, so a process
//! that lost a slot without knowing it can commit nothing.
//!
//! *Guarantees.* Order of commit per key; nothing skipped, as readers never pass the stable
//! position; a slot's deliveries start behind its stored watermark.

mod receiver;
mod slots;

use crate::names;
use receiver::LogReceiver;
pub(crate) use receiver::slot_for;
use sillage_core::{
    BoxFuture, Broker, Capabilities, Clock, Commit, CommitError, Condition, Database, Error,
    Limits, Message, PublishError, Receipt, Result, Sort, Start, Subscribed, Subscription,
    TopicSpec, TopologyDiff, Write,
};
use slots::Slots;
use std::sync::Arc;

/// Slots of one consumer: the most processes that can share it.
pub const SLOTS: u32 = 16;

/// The broker that is the log of `database`.
#[derive(Clone)]
pub struct LogBroker {
    database: Arc<dyn Database>,
    clock: Arc<dyn Clock>,
}

impl LogBroker {
    /// A broker on this database's log.
    pub fn new(database: Arc<dyn Database>, clock: Arc<dyn Clock>) -> Self {
        LogBroker { database, clock }
    }
}

impl Broker for LogBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "embedded log",
            ordered_by_key: true,
            replay: true,
            is_log: true,
            shared: true,
            offsets: true,
            max_message_bytes: Limits::default().message,
        }
    }

    fn ensure<'a>(&'a self, _topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        // A topic is a column of the log: there is nothing to make.
        Box::pin(async { Ok(TopologyDiff::default()) })
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        let database = self.database.clone();
        let append = |message| Commit {
            conditions: vec![],
            writes: vec![Write::Append { stream: None, message }],
        };
        let commits = batch.into_iter().map(append).collect();
        Box::pin(async move {
            let nowhere = || Receipt { partition: None, offset: None };
            let receipt = |answer| match answer {
                Ok(_) | Err(CommitError::AlreadyHandled) => Ok(nowhere()),
                Err(CommitError::Rejected(error)) => Err(PublishError::Refused(error)),
                Err(CommitError::Failed(error)) => Err(PublishError::Unknown(error)),
                Err(error) => Err(PublishError::Unknown(Error::unavailable(error.to_string()))),
            };
            database.commit(commits).await.into_iter().map(receipt).collect()
        })
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        Box::pin(async move {
            if !subscription.broadcast {
                begin(&*self.database, &subscription).await?;
            }
            let slots = Arc::new(Slots::new(
                self.database.clone(),
                self.clock.clone(),
                subscription.clone(),
            ));
            if !subscription.broadcast {
                slots.keep();
            }
            let receiver =
                LogReceiver::new(self.database.clone(), subscription, slots.clone()).await?;
            Ok((Box::new(receiver) as Box<_>, slots as Arc<_>))
        })
    }
}

/// Stores where a consumer starts, the first time it is seen: a later start finds it there.
async fn begin(database: &dyn Database, subscription: &Subscription) -> Result<()> {
    let first = slots::partition(0);
    let id = names::watermark(&subscription.consumer, &first);
    let known = database.get(names::WATERMARKS, &[&id]).await?.pop().flatten().is_some();
    if known || subscription.start == Start::Earliest {
        return Ok(());
    }
    let offset = sillage_core::Offset(database.head().await?.last.0);
    let writes = (0..SLOTS).map(|slot| {
        let id = names::watermark(&subscription.consumer, &slots::partition(slot));
        let body = serde_json::to_vec(&crate::runtime::Mark { offset, ..Default::default() })?;
        let (collection, sort) =
            (names::WATERMARKS.into(), Some(Sort::Text(names::offset(offset))));
        Ok(Write::Put { collection, id, sort, body: body.into() })
    });
    let absent = Condition::Document { collection: names::WATERMARKS.into(), id, expected: None };
    let commit = Commit { conditions: vec![absent], writes: writes.collect::<Result<_>>()? };
    match database.commit(vec![commit]).await.pop() {
        // Another process was quicker: its start counts.
        Some(Ok(_) | Err(CommitError::Conflict { .. })) => Ok(()),
        Some(Err(error)) => {
            Err(Error::unavailable("a consumer's start was not stored").because(error))
        }
        None => Err(Error::unavailable("the database gave no answer")),
    }
}
