//! Offsets that are asked for: a partition's ends, what a group has committed, where a time is.

use crate::{admin::list, error};
use rdkafka::{
    Offset as Place, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::KafkaError,
    types::RDKafkaErrorCode as Code,
};
use sillage_core::{Error, Partition, Result, Start, Timestamp};
use std::{
    collections::{HashMap, HashSet},
    thread,
    time::Duration,
};

/// How often, and after which pauses, a partition without a leader is asked for.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// The offsets that a partition has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// Of its oldest message.
    pub(crate) low: u64,
    /// What the next one gets.
    pub(crate) high: u64,
}

/// The ends of these partitions, in two requests for each broker, whatever their number.
pub(crate) fn ends<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[Partition],
    limit: Duration,
) -> Result<Vec<Ends>> {
    if partitions.is_empty() {
        return Ok(vec![]);
    }
    // As "times", these two have a meaning of their own in Kafka's protocol.
    let low = at(client, partitions, Place::Beginning, limit)?;
    let high = at(client, partitions, Place::End, limit)?;
    let ends = |(low, high): (Option<u64>, Option<u64>)| {
        let low = low.unwrap_or_default();
        Ends { low, high: high.unwrap_or(low) }
    };
    Ok(low.into_iter().zip(high).map(ends).collect())
}

/// The ends of those of these partitions that have a leader, where it is known that others have none.
///
/// # Errors
/// As of [`ends`], where nothing is known of leaders, or all have one.
pub(crate) fn known_ends<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[Partition],
    limit: Duration,
) -> Result<Vec<Option<Ends>>> {
    let error = match ends(client, partitions, limit) {
        Ok(ends) => return Ok(ends.into_iter().map(Some).collect()),
        Err(error) => error,
    };
    let led = led(client, partitions, limit).filter(|led| led.len() < partitions.len());
    let Some(led) = led else { return Err(error) };
    let mut ends: HashMap<_, _> = led.iter().zip(ends(client, &led, limit)?).collect();
    Ok(partitions.iter().map(|partition| ends.remove(partition)).collect())
}

/// Those that have a leader; `None`: that is not known of each.
fn led<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[Partition],
    limit: Duration,
) -> Option<Vec<Partition>> {
    let mut led = vec![];
    for topic in partitions.iter().map(|partition| &partition.topic).collect::<HashSet<_>>() {
        let metadata = client.fetch_metadata(Some(topic), limit).ok()?;
        let known = metadata.topics().iter().find(|known| known.name() == &**topic)?;
        for partition in partitions.iter().filter(|partition| partition.topic == *topic) {
            let number = partition.number.cast_signed();
            let known = known.partitions().iter().find(|known| known.id() == number)?;
            if known.leader() >= 0 {
                led.push(partition.clone());
            }
        }
    }
    Some(led)
}

/// The first offset of each partition at this "time"; `None`: there is nothing so late.
fn at<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[Partition],
    time: Place,
    limit: Duration,
) -> Result<Vec<Option<u64>>> {
    let times = list(partitions.iter().map(|partition| (partition, time)))?;
    let mut tries = 0;
    let found = loop {
        match client.offsets_for_times(times.clone(), limit) {
            // As for a moment after a topic was made.
            Err(error) if has_no_leader(&error) && tries < TRIES => {
                tries += 1;
                thread::park_timeout(PAUSE);
            }
            found => break found,
        }
    };
    let found = found.map_err(|error| error::describe("offsets cannot be looked up", error))?;
    read(&found, partitions)
}

fn has_no_leader(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable))
}

/// What a group has committed: the offset that comes next.
pub(crate) fn committed<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[Partition],
    limit: Duration,
) -> Result<Vec<Option<u64>>> {
    let asked = list(partitions.iter().map(|partition| (partition, Place::Invalid)))?;
    let found = client.committed_offsets(asked, limit);
    let found =
        found.map_err(|error| error::describe("offsets of a group are not known", error))?;
    read(&found, partitions)
}

/// Where a consumer starts that has stored nothing.
pub(crate) fn start<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[Partition],
    (start, ends): (Start, &[Ends]),
    limit: Duration,
) -> Result<Vec<u64>> {
    let since = match start {
        Start::Since(time) if !partitions.is_empty() => {
            at(client, partitions, Place::Offset(millis(time)), limit)?
        }
        _ => vec![None; ends.len()],
    };
    let place = |(ends, since): (&Ends, Option<u64>)| match start {
        Start::Earliest => ends.low,
        Start::Latest => ends.high,
        Start::Last(count) => ends.high.saturating_sub(count).max(ends.low),
        Start::Since(_) => since.unwrap_or(ends.high),
    };
    Ok(ends.iter().zip(since).map(place).collect())
}

/// Kafka's times have milliseconds: the first that is not before this one.
fn millis(time: Timestamp) -> i64 {
    time.as_micros().max(0).unsigned_abs().div_ceil(1_000).cast_signed()
}

/// The offsets of a list, in the order of these partitions.
fn read(found: &TopicPartitionList, partitions: &[Partition]) -> Result<Vec<Option<u64>>> {
    let offset = |partition: &Partition| {
        let number = partition.number.cast_signed();
        let found = found.find_partition(&partition.topic, number);
        let Some(found) = found else {
            return Err(Error::unavailable(format!("Kafka told nothing of {partition}")));
        };
        let what = || format!("offsets of {partition} are not known");
        found.error().map_err(|error: KafkaError| error::describe(what(), error))?;
        match found.offset() {
            Place::Offset(offset) => Ok(u64::try_from(offset).ok()),
            _ => Ok(None),
        }
    };
    partitions.iter().map(offset).collect()
}
