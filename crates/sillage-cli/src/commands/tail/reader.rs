//! Reading topics of a broker: what was there when it began, then what comes.

#[cfg(test)]
mod tests;

use sillage::{
    Broker, Clock as _, Delivery, Inbound, Offset, Partition, Receiver, Result, Settler, Start,
    Subscription, SystemClock, Text, Timestamp, TopicStatus,
};
use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

/// Where a broker tells no ends, the end is there when so long nothing old has come.
const QUIET: Duration = Duration::from_secs(1);
/// The same before anything has come, and where a partition's last offsets hold no message: a
/// client may need that long.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a reader brings.
pub(super) enum Step {
    Message(Partition, Delivery, Age),
    /// Once: what was there when it began has come. Of these partitions something came, and then
    /// no more, though their ends are further on.
    CaughtUp(Vec<Partition>),
}

/// Whether a message was there when the reader began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Old,
    New,
    /// The broker tells no ends, and the message is younger than the reader.
    Unknown,
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) struct Reader {
    receiver: Box<dyn Receiver>,
    settler: Arc<dyn Settler>,
    backlog: Backlog,
    quiet: Sleep,
    ready: VecDeque<Step>,
}

/// What was there when the reader began.
struct Backlog {
    began: Timestamp,
    /// The last offset of each partition that is not empty; `None`: the broker does not tell.
    ends: Option<BTreeMap<Partition, Offset>>,
    /// Those of them that are not reached, and whether something came of them.
    left: BTreeMap<Partition, bool>,
    something_came: bool,
    over: bool,
}

impl Reader {
    pub(super) async fn start(
        broker: &dyn Broker,
        topics: &[TopicStatus],
        start: Start,
    ) -> Result<Self> {
        let subscription = Subscription {
            consumer: format!("operator/tail-{}", Uuid::new_v4()).into(),
            topics: topics.iter().map(|topic| topic.name.clone()).collect(),
            start,
            broadcast: true,
            reached: vec![],
        };
        let mut backlog = Backlog::of(topics, SystemClock.now());
        if matches!(start, Start::Latest | Start::Last(0)) {
            backlog.left.clear();
            backlog.ends.get_or_insert_default();
        }
        let (receiver, settler) = broker.subscribe(subscription).await?;
        if !broker.capabilities().assigns {
            let all: Vec<_> = topics.iter().flat_map(partitions).collect();
            settler.open(&all).await?;
        }
        let quiet = backlog.patience();
        let mut reader = Reader { receiver, settler, backlog, quiet, ready: VecDeque::new() };
        reader.look();
        Ok(reader)
    }

    /// What has come already.
    pub(super) fn ready(&mut self) -> Option<Step> {
        self.ready.pop_front()
    }

    /// What comes next.
    pub(super) async fn next(&mut self) -> Result<Step> {
        loop {
            if let Some(step) = self.ready.pop_front() {
                return Ok(step);
            }
            tokio::select! {
                biased;
                inbound = self.receiver.next() => self.take(inbound?).await?,
                () = &mut self.quiet, if !self.backlog.over => return Ok(self.caught_up()),
            }
        }
    }

    async fn take(&mut self, inbound: Inbound) -> Result<()> {
        match inbound {
            Inbound::Batch(partition, deliveries) => {
                for delivery in deliveries {
                    let age = self.backlog.age(&partition, &delivery);
                    if age == Age::Old {
                        self.backlog.reached(&partition, delivery.offset, true);
                        self.quiet = self.backlog.patience();
                    }
                    self.ready.push_back(Step::Message(partition.clone(), delivery, age));
                    self.look();
                }
            }
            Inbound::Passed(partition, offset) => {
                self.backlog.reached(&partition, offset, false);
                self.look();
            }
            Inbound::Revoked(partitions) => self.settler.release(&partitions).await?,
            Inbound::Assigned(_) | Inbound::Lost(_) => {}
        }
        Ok(())
    }

    fn look(&mut self) {
        let Backlog { over, ends, left, .. } = &self.backlog;
        if !over && ends.is_some() && left.is_empty() {
            let caught_up = self.caught_up();
            self.ready.push_back(caught_up);
        }
    }

    fn caught_up(&mut self) -> Step {
        self.backlog.over = true;
        let left = std::mem::take(&mut self.backlog.left).into_iter();
        Step::CaughtUp(left.filter(|(_, came)| *came).map(|(partition, _)| partition).collect())
    }

    /// Leaves the broker; one that does not answer finds out by itself.
    pub(super) async fn close(self) {
        tokio::select! {
            _ = self.settler.close() => {}
            () = SystemClock.sleep(QUIET) => {}
        }
    }
}

impl Backlog {
    fn of(topics: &[TopicStatus], began: Timestamp) -> Self {
        let mut ends = Some(BTreeMap::new());
        for topic in topics {
            for (partition, status) in partitions(topic).zip(&topic.partitions) {
                match (&mut ends, status.next) {
                    (Some(ends), Some(next)) => {
                        if next > status.first.unwrap_or_default() {
                            ends.insert(partition, Offset(next.0 - 1));
                        }
                    }
                    _ => ends = None,
                }
            }
        }
        let left = ends.iter().flatten().map(|(partition, _)| (partition.clone(), false)).collect();
        Backlog { began, ends, left, something_came: false, over: false }
    }

    /// How long to wait for what comes next of it.
    fn patience(&self) -> Sleep {
        let short = self.ends.is_none() && self.something_came;
        Box::pin(SystemClock.sleep(if short { QUIET } else { PATIENCE }))
    }

    fn age(&self, partition: &Partition, delivery: &Delivery) -> Age {
        match &self.ends {
            Some(ends) if ends.get(partition).is_some_and(|end| delivery.offset <= *end) => {
                Age::Old
            }
            Some(_) => Age::New,
            None if delivery.message.time < self.began => Age::Old,
            None => Age::Unknown,
        }
    }

    fn reached(&mut self, partition: &Partition, offset: Offset, came: bool) {
        self.something_came |= came;
        let end = self.ends.as_ref().and_then(|ends| ends.get(partition));
        if end.is_some_and(|end| offset >= *end) {
            self.left.remove(partition);
        } else if let Some(something) = self.left.get_mut(partition) {
            *something |= came;
        }
    }
}

fn partitions(topic: &TopicStatus) -> impl Iterator<Item = Partition> {
    let name: &Text = &topic.name;
    topic.partitions.iter().map(|status| Partition { topic: name.clone(), number: status.number })
}
