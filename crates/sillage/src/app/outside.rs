//! A broker outside the database: the relay that feeds it, copies of what is followed, and the
//! change from the embedded broker to another one.

use super::start::Building;
use crate::{
    consumer::Consumer,
    handler::{Raw, Shared, States},
    log_broker::{LogBroker, SLOTS, partition},
    names,
    runtime::{Mark, leased, member::Spec, relay},
    service::Service,
};
use serde_json::json;
use sillage_core::{
    Broker, Clock, Commit, CommitError, Condition, Database, Effect, Effects, Error, Header,
    Message, Offset, Range, Result, Sort, Start, Subscribed, Subscription, Text, Write,
};
use std::{collections::HashSet, sync::Arc};

/// The broker that is the database's log.
pub(super) fn log_of(database: &Arc<dyn Database>, clock: &Arc<dyn Clock>) -> Arc<dyn Broker> {
    Arc::new(LogBroker::new(database.clone(), clock.clone()))
}

/// The consumer that keeps others' messages in the own log, with the ids and sources they have.
///
/// What services of this app publish is there already.
pub(super) fn follower(follows: &[Text], sources: Arc<HashSet<Text>>) -> Consumer {
    Consumer::new("follow").on_any(follows.to_vec(), move |Raw(message): Raw| {
        let own = sources.contains(&message.source);
        async move { if own { Effects::none() } else { copied(&message) } }
    })
}

fn copied(message: &Message) -> Effects {
    let mut copy = message.clone();
    copy.headers.push(Header { name: Message::COPY.into(), value: "1".into() });
    Effects::one(Effect::Record(Arc::new(copy)))
}

impl Building {
    /// Joins a consumer: with its partitions leased in the database, where there is one and the
    /// broker is not its log, which leases them itself.
    pub(super) async fn subscribe(&self, spec: &Spec, broker: &dyn Broker) -> Result<Subscribed> {
        let subscription = Subscription {
            consumer: spec.name.clone(),
            topics: spec.topics.clone(),
            start: if spec.broadcast { Start::Latest } else { spec.start },
            broadcast: spec.broadcast,
            reached: vec![],
        };
        let capabilities = broker.capabilities();
        match &self.database {
            Some((database, _)) if !capabilities.is_log && !spec.broadcast => {
                let (database, clock) = (database.clone(), self.clock.clone());
                leased::subscribe(broker, database, clock, subscription).await
            }
            None if !capabilities.assigns && !spec.broadcast => {
                let all = leased::partitions(broker, &spec.topics).await?;
                let (receiver, settler) = broker.subscribe(subscription).await?;
                settler.open(&all).await?;
                Ok((receiver, settler))
            }
            _ => broker.subscribe(subscription).await,
        }
    }

    /// Starts the relay, where there is a log and a broker that is not the log.
    pub(super) async fn relay(&mut self, services: &[Service]) -> Result<()> {
        let Some((database, _)) = self.database.clone() else { return Ok(()) };
        if self.broker.capabilities().is_log {
            return Ok(());
        }
        self.leave_the_log(&database, services).await?;
        let spec =
            relay::spec(self.broker.clone(), database.clone(), database.head().await?.incarnation);
        let manifest = json!({
            "service": "broker",
            "consumers": [{
                "name": names::RELAY,
                "topics": [],
                "events": [],
                "attempts": spec.retry.attempts(),
            }],
            "projections": [],
            "follows": [],
            "broker": log_of(&database, &self.clock).capabilities().name,
            "started": self.clock.now(),
        });
        let (collection, id) = (names::MANIFESTS.into(), "broker".into());
        let body = serde_json::to_vec(&manifest)?.into();
        self.manifests.push(Write::Put { collection, id, sort: None, body });
        let states = Arc::new(States::default());
        let shared =
            Shared::of("broker", "relay", states, Some(database.clone()), self.clock.clone());
        let log = log_of(&database, &self.clock);
        self.consumer(spec, shared, log, Arc::default()).await
    }

    /// Where consumers have read the log itself since the relay ran last: they must have handled
    /// all of it, and the relay begins behind that. Else it would be handled twice, or never.
    async fn leave_the_log(
        &self,
        database: &Arc<dyn Database>,
        services: &[Service],
    ) -> Result<()> {
        let log = log_of(database, &self.clock);
        let head = database.head().await?.stable;
        let relayed = log.progress(names::RELAY, &[]).await?;
        let relayed = relayed.iter().filter_map(|progress| progress.settled).min();
        let mut has_read = false;
        for (service, consumer) in
            services.iter().flat_map(|service| service.consumers.iter().map(move |c| (service, c)))
        {
            let name = names::part(service.name, consumer.name);
            let progress = log.progress(&name, &consumer.topics).await?;
            if progress.iter().filter_map(|progress| progress.settled).max() <= relayed {
                continue;
            }
            has_read = true;
            let lag: u64 = progress.iter().map(|progress| progress.lag).sum();
            if lag > 0 {
                return Err(Error::invalid(format!(
                    "consumer `{name}` has {lag} messages of the embedded broker to handle before \
                     it can read from {}: start the app once more without a broker, and with it \
                     when `sillage consumers list` shows no lag",
                    self.broker.capabilities().name
                )));
            }
            let range = Range::Ids { prefix: &format!("{name}/"), after: "" };
            if let Some(key) = database.list(names::PARKED_KEYS, range, 1).await?.first() {
                return Err(Error::invalid(format!(
                    "consumer `{name}` has set aside what came of the embedded broker, `{}` and \
                     perhaps more: nobody would try it again. Redrive or skip it (`sillage dlq \
                     list`) while the app runs without a broker, and start it with {} then",
                    key.id,
                    self.broker.capabilities().name
                )));
            }
        }
        if has_read { relay_from(&**database, Offset(head.0)).await } else { Ok(()) }
    }
}

/// Stores that the relay has carried everything up to there.
async fn relay_from(database: &dyn Database, offset: Offset) -> Result<()> {
    let mut commit = Commit::default();
    for slot in 0..SLOTS {
        let id = names::watermark(names::RELAY, &partition(slot));
        let (collection, sort) = (Text::from(names::WATERMARKS), names::offset(offset));
        let (known, at) = (collection.clone(), id.clone());
        commit.conditions.push(Condition::Below { collection: known, id: at, sort: sort.clone() });
        let body = serde_json::to_vec(&Mark { offset, ..Mark::default() })?.into();
        commit.writes.push(Write::Put { collection, id, sort: Some(Sort::Text(sort)), body });
    }
    match database.commit(vec![commit]).await.pop() {
        // Another process was quicker.
        Some(Ok(_) | Err(CommitError::Fenced)) => Ok(()),
        Some(Err(error)) => {
            Err(Error::unavailable("the relay's start was not stored").because(error))
        }
        None => Err(Error::unavailable("the database gave no answer")),
    }
}
