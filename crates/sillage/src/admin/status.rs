//! How things stand: consumers, projections, timers.

use super::Admin;
use crate::{
    log_broker::{EMBEDDED, passed, waiting},
    names,
    runtime::{Mark, assemble::Timer, dependency::Opened, watermark::Tally},
};
use serde::Serialize;
use serde_json::Value;
use sillage_core::{Broker, Error, Position, Range, Result, Stored, Text, Timestamp, from_json};

/// How a consumer stands.
#[derive(Clone, Debug, Serialize)]
pub struct ConsumerStatus {
    /// `service/name`.
    pub name: Text,
    /// Its topics; none: whatever has one.
    pub topics: Vec<String>,
    /// The broker it reads from.
    pub broker: String,
    /// Everything up to there is finished in all its partitions; `None`: it does not read the log.
    pub position: Option<Position>,
    /// Messages of its topics that it has not finished; counted up to a bound. `None`: they are in
    /// a broker that was not named.
    pub lag: Option<u64>,
    /// When the oldest message it has not passed was produced; `None`: nothing waits.
    pub waiting_since: Option<Timestamp>,
    /// What its watermarks have passed.
    pub tally: Tally,
    /// Keys that are parked, and of them those that are dead.
    pub parked_keys: u64,
    /// Keys whose head is a dead letter.
    pub dead_letters: u64,
    /// Deliveries in parked keys.
    pub parked_deliveries: u64,
    /// Processes that share it.
    pub members: u64,
    /// Why it is paused.
    pub paused: Option<String>,
}

/// A breaker that is open.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerStatus {
    /// `service/dependency`.
    pub name: Text,
    /// Since when.
    pub since: Timestamp,
    /// When a delivery tries it.
    pub probe_at: Timestamp,
    /// What the last call met.
    pub why: String,
    /// Who waits for it.
    pub consumers: Vec<Text>,
}

/// A timer that waits.
#[derive(Clone, Debug, Serialize)]
pub struct TimerStatus {
    /// Names it.
    pub id: Text,
    /// When it is due.
    pub due: Option<Timestamp>,
    /// What is published then.
    pub name: Text,
}

impl Admin {
    /// What the apps on this database declared when they started.
    pub async fn manifests(&self) -> Result<Vec<Value>> {
        let stored = self.all(names::MANIFESTS, "").await?;
        stored.iter().map(|stored| Ok(serde_json::from_slice(&stored.body)?)).collect()
    }

    /// How all consumers stand.
    pub async fn consumers(&self) -> Result<Vec<ConsumerStatus>> {
        let mut found = vec![];
        for manifest in self.manifests().await? {
            let broker = manifest["broker"].as_str().unwrap_or(EMBEDDED);
            for consumer in manifest["consumers"].as_array().into_iter().flatten() {
                let name = Text::from(consumer["name"].as_str().unwrap_or_default());
                let topics = consumer["topics"].as_array().into_iter().flatten();
                let topics = topics.filter_map(|topic| Some(topic.as_str()?.to_owned())).collect();
                found.push(self.consumer(name, topics, broker).await?);
            }
        }
        Ok(found)
    }

    async fn consumer(
        &self,
        name: Text,
        topics: Vec<String>,
        broker: &str,
    ) -> Result<ConsumerStatus> {
        let prefix = names::watermarks(&name);
        let mut tally = Tally::default();
        for stored in self.all(names::WATERMARKS, &prefix).await? {
            tally = tally + serde_json::from_slice::<Mark>(&stored.body)?.tally;
        }
        let of: Vec<_> = topics.iter().map(|topic| Text::from(topic.as_str())).collect();
        let (mut position, mut lag, mut waiting_since) = (None, None, None);
        if broker == EMBEDDED {
            let passed = passed(&*self.database, &name).await?;
            let (of_slots, since) = waiting(&*self.database, &of, &passed).await?;
            let lowest = passed.iter().map(|passed| passed.unwrap_or_default()).min();
            position = Some(Position(lowest.unwrap_or_default()));
            (lag, waiting_since) = (Some(of_slots.iter().sum()), since);
        } else if let Some(outside) = self.reads_from(broker) {
            let progress = outside.progress(&name, &of).await?;
            // Of topics that are not there nothing is known: it may be another system's broker.
            let known = !progress.is_empty();
            lag = known.then(|| progress.iter().map(|progress| progress.lag).sum());
        }
        let keys = self.dead_letters(Some(&name), true).await?;
        let stored = self.database.get(names::CONSUMERS, &[&name]).await?.pop().flatten();
        let settings: Option<Value> =
            stored.map(|stored| serde_json::from_slice(&stored.body)).transpose()?;
        Ok(ConsumerStatus {
            topics,
            broker: broker.to_owned(),
            position,
            lag,
            waiting_since,
            tally,
            parked_keys: keys.len() as u64,
            dead_letters: keys.iter().filter(|key| key.key.dead).count() as u64,
            parked_deliveries: keys.iter().map(|key| key.deliveries).sum(),
            members: self.all(names::MEMBERS, &prefix).await?.len() as u64,
            paused: settings.and_then(|s| s["paused"].as_str().map(ToOwned::to_owned)),
            name,
        })
    }

    /// The broker that was named, if it is of that kind: another one knows nothing of its readers.
    fn reads_from(&self, name: &str) -> Option<&dyn Broker> {
        self.broker.as_deref().filter(|broker| broker.capabilities().name == name)
    }

    /// Timers that wait, the next one first.
    pub async fn timers(&self, max: usize) -> Result<Vec<TimerStatus>> {
        let range = Range::Sort { from: "", until: "~" };
        let timers = self.database.list(names::TIMERS, range, max).await?;
        let status = |stored: &Stored| {
            let timer: Timer = serde_json::from_slice(&stored.body)?;
            let message = from_json(timer.message.get().as_bytes())?;
            let due = stored.sort.as_ref().and_then(|sort| sort.parse().ok());
            Ok(TimerStatus { id: stored.id.clone(), due, name: message.name })
        };
        timers.iter().map(status).collect()
    }

    /// Breakers that are open, or being tried.
    pub async fn breakers(&self) -> Result<Vec<BreakerStatus>> {
        let mut open = vec![];
        for stored in self.all(names::BREAKERS, "").await? {
            let Opened { since, probe_at, why, consumers, .. } =
                serde_json::from_slice(&stored.body)?;
            let consumers = consumers.into_iter().collect();
            open.push(BreakerStatus { name: stored.id, since, probe_at, why, consumers });
        }
        Ok(open)
    }

    /// All documents of a collection whose ids start so.
    pub(super) async fn all(&self, collection: &str, prefix: &str) -> Result<Vec<Stored>, Error> {
        names::all(&*self.database, collection, prefix).await
    }
}
