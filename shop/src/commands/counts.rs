//! What became of every delivery.

use crate::audit::Invariant;
use serde::Serialize;
use sillage::{Filter, Position, admin::Admin};
use std::collections::HashMap;

/// How much of the log is read at once.
const PAGE: usize = 1_000;

/// What became of all deliveries to all consumers.
#[derive(Serialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    received: u64,
    done: u64,
    /// Wait behind a failed one of their key for a later try.
    parked: u64,
    /// Wait for an operator.
    dead: u64,
    skipped: u64,
    ignored: u64,
    duplicates: u64,
}

impl Counts {
    /// Asks the consumers' watermarks, the parked keys and what operators did.
    pub(super) async fn of(admin: &Admin) -> sillage::Result<Self> {
        let mut counts = Counts { skipped: skips(admin).await?, ..Counts::default() };
        let mut was_parked = 0;
        for consumer in admin.consumers().await? {
            let tally = consumer.tally;
            counts.received += tally.received;
            counts.done += tally.done;
            counts.ignored += tally.ignored;
            counts.duplicates += tally.duplicates;
            was_parked += tally.parked;
        }
        for key in admin.dead_letters(None, true).await? {
            let waiting = if key.key.dead { &mut counts.dead } else { &mut counts.parked };
            *waiting += key.deliveries;
        }
        // What was parked once and is not any more was done after all, or skipped.
        counts.done += was_parked.saturating_sub(counts.dead + counts.parked + counts.skipped);
        Ok(counts)
    }

    /// Every message of a consumer's topics reached it, and is accounted for.
    pub(super) async fn accounted(&self, admin: &Admin) -> sillage::Result<Invariant> {
        let expected = deliveries(admin).await?;
        let Counts { received, done, parked, dead, skipped, ignored, duplicates } = *self;
        let sum = done + parked + dead + skipped + ignored + duplicates;
        Ok(Invariant {
            name: "received = done + parked + dead + skipped + ignored + duplicates",
            // A broker may bring a message again.
            holds: received == sum && received >= expected && received - duplicates <= expected,
            detail: format!("{received} received, {sum} accounted for, {expected} in the log"),
        })
    }
}

/// Whether every consumer has seen everything.
pub(super) async fn is_quiet(admin: &Admin) -> sillage::Result<bool> {
    Ok(admin.consumers().await?.iter().all(|consumer| consumer.lag == Some(0)))
}

/// How many deliveries the log makes: an entry for each consumer that listens to its topic.
async fn deliveries(admin: &Admin) -> sillage::Result<u64> {
    let (mut topics, mut of_all) = (HashMap::<String, u64>::new(), 0);
    for consumer in admin.consumers().await? {
        of_all += u64::from(consumer.topics.is_empty());
        for topic in consumer.topics {
            *topics.entry(topic).or_default() += 1;
        }
    }
    let (mut at, mut deliveries) = (Position(0), 0);
    loop {
        let page = admin.database().log(at, &Filter::default(), PAGE).await?;
        for entry in &page.entries {
            let Some(topic) = entry.topic.as_deref() else { continue };
            deliveries += of_all + topics.get(topic).copied().unwrap_or(0);
        }
        if page.through <= at {
            return Ok(deliveries);
        }
        at = page.through;
    }
}

async fn skips(admin: &Admin) -> sillage::Result<u64> {
    let filter = Filter { names: vec!["operator.skip".into()], ..Filter::default() };
    let page = admin.database().log(Position(0), &filter, PAGE).await?;
    Ok(page.entries.len() as u64)
}
