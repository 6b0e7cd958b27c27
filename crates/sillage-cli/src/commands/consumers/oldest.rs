//! Since when the oldest message waits that a consumer has not settled at a broker.

use anyhow::Result;
use sillage::{
    Broker, Capabilities, Clock as _, Inbound, Offset, Partition, Progress, Receiver, Start,
    Subscription, SystemClock, Text, Timestamp, admin::ConsumerStatus,
};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};
use uuid::Uuid;

/// More in one partition are not read through.
const MOST: u64 = 100_000;
/// Who does not bring it within this is not waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// Reads the first message behind the settled offset of each partition, where the broker can.
///
/// The lag is asked once more: since it was, the consumer may have caught up.
pub(super) async fn look(broker: &dyn Broker, status: &mut ConsumerStatus) -> Result<()> {
    let Capabilities { offsets, replay, assigns, .. } = broker.capabilities();
    if !offsets || !replay || !assigns {
        return Ok(());
    }
    let topics: Vec<_> = status.topics.iter().map(|topic| Text::from(topic.as_str())).collect();
    let progress = broker.progress(&status.name, &topics).await?;
    let waiting = progress.into_iter().filter(|progress| progress.lag > 0);
    let waiting: Vec<_> = waiting.collect();
    status.lag = Some(waiting.iter().map(|progress| progress.lag).sum());
    let most = waiting.iter().map(|progress| progress.lag).max().unwrap_or_default();
    if most > 0 && most <= MOST {
        status.waiting_since = waiting_since(broker, waiting, most).await?;
    }
    Ok(())
}

/// `None`: it did not come.
async fn waiting_since(
    broker: &dyn Broker,
    waiting: Vec<Progress>,
    most: u64,
) -> Result<Option<Timestamp>> {
    let topics: BTreeSet<_> = waiting.iter().map(|one| one.partition.topic.clone()).collect();
    let subscription = Subscription {
        consumer: format!("operator/lag-{}", Uuid::new_v4()).into(),
        topics: topics.into_iter().collect(),
        start: Start::Last(most),
        broadcast: true,
        reached: vec![],
    };
    let settled = waiting.into_iter().map(|one| (one.partition, one.settled)).collect();
    let (mut receiver, settler) = broker.subscribe(subscription).await?;
    let found = tokio::select! {
        found = oldest(&mut *receiver, settled) => found?,
        () = SystemClock.sleep(LIMIT) => None,
    };
    settler.close().await?;
    Ok(found)
}

async fn oldest(
    receiver: &mut dyn Receiver,
    mut settled: HashMap<Partition, Option<Offset>>,
) -> Result<Option<Timestamp>> {
    let mut oldest: Option<Timestamp> = None;
    while !settled.is_empty() {
        let Inbound::Batch(partition, mut deliveries) = receiver.next().await? else { continue };
        let Some(settled_to) = settled.get(&partition).copied() else { continue };
        if let Some(first) = deliveries.find(|delivery| Some(delivery.offset) > settled_to) {
            let time = first.message.time;
            oldest = Some(oldest.map_or(time, |oldest| oldest.min(time)));
            settled.remove(&partition);
        }
    }
    Ok(oldest)
}
