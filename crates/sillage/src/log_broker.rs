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

use crate::{
    names,
    runtime::{
        committer::Committer,
        shares::{Policy, Shares},
    },
};
use receiver::LogReceiver;
pub(crate) use receiver::{slot_for, slot_of_message};
use sillage_core::{
    BoxFuture, Broker, Capabilities, Clock, Commit, CommitError, Committed, Condition, Database,
    Epoch, Error, Filter, Limits, Message, Offset, Partition, PartitionStatus, Position, Progress,
    PublishError, Receipt, Recorded, Result, Settled, Settler, Sort, Start, Subscribed,
    Subscription, Text, Timestamp, TopicSpec, TopicStatus, TopologyDiff, Write,
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, OnceLock},
};

/// What it is called.
pub(crate) const EMBEDDED: &str = "embedded log";
/// Slots of one consumer: the most processes that can share it.
pub const SLOTS: u32 = 16;

/// The partition of a slot.
pub(crate) fn partition(slot: u32) -> Partition {
    Partition { topic: "log".into(), number: slot }
}

/// The broker that is the log of `database`.
#[derive(Clone)]
pub struct LogBroker {
    database: Arc<dyn Database>,
    clock: Arc<dyn Clock>,
    /// Begun by the first that publishes: not every broker is made where tasks can run.
    committer: Arc<OnceLock<Committer>>,
}

impl LogBroker {
    /// A broker on this database's log.
    pub fn new(database: Arc<dyn Database>, clock: Arc<dyn Clock>) -> Self {
        LogBroker { database, clock, committer: Arc::default() }
    }
}

impl Broker for LogBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: EMBEDDED,
            ordered_by_key: true,
            replay: true,
            is_log: true,
            shared: true,
            assigns: true,
            offsets: true,
            cluster: None,
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
        let committer = self.committer.get_or_init(|| Committer::start(self.database.clone()));
        let append = |message| Commit {
            conditions: vec![],
            writes: vec![Write::Append { stream: None, message }],
        };
        let begun: Vec<_> =
            batch.into_iter().map(|message| committer.begin(append(message))).collect();
        Box::pin(async move {
            let mut receipts = Vec::with_capacity(begun.len());
            for answer in begun {
                receipts.push(receipt(answer.await));
            }
            receipts
        })
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        Box::pin(async move {
            if !subscription.broadcast {
                begin(&*self.database, &subscription).await?;
            }
            let policy = if subscription.broadcast { Policy::All } else { Policy::Fair };
            let slots = Arc::new(Shares::new(
                self.database.clone(),
                self.clock.clone(),
                subscription.consumer.clone(),
                policy,
                (0..SLOTS).map(partition).collect(),
            ));
            slots.keep();
            let receiver =
                LogReceiver::new(self.database.clone(), subscription, slots.clone()).await?;
            Ok((Box::new(receiver) as Box<_>, Arc::new(LogSettler(slots)) as Arc<_>))
        })
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        Box::pin(async move {
            let mut found = BTreeSet::new();
            let filter = Filter { topics: names.to_vec(), ..Filter::default() };
            each(&*self.database, Position::default(), &filter, |entry| {
                found.extend(entry.topic.clone());
                true
            })
            .await?;
            let slot = |number| PartitionStatus { number, first: None, next: None };
            let topic = |name| TopicStatus { name, partitions: (0..SLOTS).map(slot).collect() };
            Ok(found.into_iter().map(topic).collect())
        })
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        Box::pin(async move {
            let settled = passed(&*self.database, consumer).await?;
            let (lag, _) = waiting(&*self.database, topics, &settled).await?;
            let progress = |(slot, (settled, lag)): (u32, (Option<u64>, u64))| Progress {
                partition: partition(slot),
                settled: settled.map(Offset),
                lag,
            };
            Ok((0..SLOTS).zip(settled.into_iter().zip(lag)).map(progress).collect())
        })
    }
}

fn receipt(answer: Result<Committed, CommitError>) -> Result<Receipt, PublishError> {
    match answer {
        Ok(_) | Err(CommitError::AlreadyHandled) => Ok(Receipt { partition: None, offset: None }),
        Err(CommitError::Rejected(error)) => Err(PublishError::Refused(error)),
        Err(CommitError::Failed(error)) => Err(PublishError::Unknown(error)),
        Err(error) => Err(PublishError::Unknown(Error::unavailable(error.to_string()))),
    }
}

/// The settling side: slots are leases, and their place is what the runtime stores.
struct LogSettler(Arc<Shares>);

impl Settler for LogSettler {
    fn settle<'a>(&'a self, _settled: &'a [Settled]) -> BoxFuture<'a, Result<()>> {
        // The watermark in the database, which the runtime has written, is the place.
        Box::pin(async { Ok(()) })
    }

    fn open<'a>(&'a self, _partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn release<'a>(&'a self, partitions: &'a [Partition]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.release(partitions))
    }

    fn pause(&self, partitions: &[Partition]) -> Result<()> {
        self.0.pause(partitions);
        Ok(())
    }

    fn resume(&self, partitions: &[Partition]) -> Result<()> {
        self.0.resume(partitions);
        Ok(())
    }

    fn fence(&self, partition: &Partition) -> Option<(Text, Epoch)> {
        self.0.fence(partition)
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.close())
    }
}

/// Entries that wait are counted up to this many.
const COUNTED: usize = 10_000;

/// How far each slot of a consumer is.
pub(crate) async fn passed(database: &dyn Database, consumer: &str) -> Result<Vec<Option<u64>>> {
    let mut passed = vec![];
    for slot in 0..SLOTS {
        let place = receiver::stored(database, consumer, slot).await?;
        passed.push((place > Position::default()).then_some(place.0));
    }
    Ok(passed)
}

/// How many entries of these topics each slot has not passed, counted up to a bound, and when the
/// first of them was produced.
pub(crate) async fn waiting(
    database: &dyn Database,
    topics: &[Text],
    passed: &[Option<u64>],
) -> Result<(Vec<u64>, Option<Timestamp>)> {
    let filter = Filter { topics: topics.to_vec(), ..Filter::default() };
    let from = passed.iter().map(|passed| passed.unwrap_or_default()).min();
    let (mut lag, mut since, mut seen) = (vec![0; passed.len()], None, 0);
    each(database, Position(from.unwrap_or_default()), &filter, |entry| {
        if entry.topic.is_none() {
            return true;
        }
        let slot = usize::try_from(slot_for(entry)).unwrap_or(0);
        if passed[slot].is_none_or(|passed| entry.position.0 > passed) {
            lag[slot] += 1;
            since = since.or(Some(entry.time));
        }
        seen += 1;
        seen < COUNTED
    })
    .await?;
    Ok((lag, since))
}

/// Where a consumer that starts there has read everything up to. The log has no index of times:
/// all but the ends are found by reading it.
async fn place_of(database: &dyn Database, subscription: &Subscription) -> Result<Position> {
    let filter = Filter { topics: subscription.topics.clone(), ..Filter::default() };
    match subscription.start {
        Start::Earliest => Ok(Position::default()),
        Start::Latest => Ok(database.head().await?.last),
        Start::Last(count) => {
            let mut last = VecDeque::new();
            each(database, Position::default(), &filter, |entry| {
                last.push_back(Position(entry.position.0 - 1));
                if last.len() as u64 > count {
                    last.pop_front();
                }
                true
            })
            .await?;
            let end = database.head().await?.last;
            Ok(if count == 0 { end } else { last.front().copied().unwrap_or_default() })
        }
        Start::Since(time) => {
            let mut place = database.head().await?.last;
            each(database, Position::default(), &filter, |entry| {
                let found = entry.time >= time;
                if found {
                    place = Position(entry.position.0 - 1);
                }
                !found
            })
            .await?;
            Ok(place)
        }
    }
}

/// Shows entries of the log, until `go_on` says no.
async fn each(
    database: &dyn Database,
    mut after: Position,
    filter: &Filter,
    mut go_on: impl FnMut(&Recorded) -> bool,
) -> Result<()> {
    loop {
        let page = database.log(after, filter, 1000).await?;
        if page.through <= after || !page.entries.iter().all(&mut go_on) {
            return Ok(());
        }
        after = page.through;
    }
}

/// Stores where a consumer starts, the first time it is seen: a later start finds it there.
async fn begin(database: &dyn Database, subscription: &Subscription) -> Result<()> {
    let first = partition(0);
    let id = names::watermark(&subscription.consumer, &first);
    let known = database.get(names::WATERMARKS, &[&id]).await?.pop().flatten().is_some();
    if known || subscription.start == Start::Earliest {
        return Ok(());
    }
    let offset = Offset(place_of(database, subscription).await?.0);
    let writes = (0..SLOTS).map(|slot| {
        let id = names::watermark(&subscription.consumer, &partition(slot));
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
