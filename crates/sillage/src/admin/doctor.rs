//! What a doctor would say.

use super::{Admin, ConsumerStatus, ProjectionStatus};
use crate::{log_broker::EMBEDDED, names};
use serde::Serialize;
use serde_json::Value;
use sillage_core::{Broker, Result, Text, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A message that has waited so long for the broker is a finding.
const RELAYED_WITHIN: Duration = Duration::from_secs(30);

/// Something a doctor says.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Nothing is wrong with it.
    pub ok: bool,
    /// What was looked at.
    pub what: String,
    /// What was found, and how to mend it.
    pub finding: String,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn say(&mut self, ok: bool, what: impl Into<String>, finding: impl Into<String>) {
        self.0.push(Finding { ok, what: what.into(), finding: finding.into() });
    }
}

impl Admin {
    /// What a doctor would look at, in the database and at the broker; each finding names its fix.
    pub async fn doctor(&self) -> Result<Vec<Finding>> {
        let mut findings = Findings::default();
        let now = self.examine_database(&mut findings).await?;
        let manifests = self.manifests().await?;
        match manifests.iter().filter(|manifest| manifest["service"] != "broker").count() {
            0 => findings.say(
                false,
                "apps",
                "no app has ever started on this database: start one, then look again",
            ),
            count => findings.say(true, "apps", format!("{count} services have signed in")),
        }
        let answers = self.examine_broker(&manifests, &mut findings).await;
        // Of a broker that does not answer nothing more is asked.
        let asked = Admin { broker: self.broker.clone().filter(|_| answers), ..self.clone() };
        let is_relayed = manifests.iter().any(|manifest| broker_of(manifest) != EMBEDDED);
        for consumer in asked.consumers().await? {
            let (ok, finding) = match &*consumer.name {
                names::RELAY => relay(&consumer, is_relayed, now),
                _ => of_consumer(&consumer),
            };
            findings.say(ok, format!("consumer {}", consumer.name), finding);
        }
        for projection in self.projections().await? {
            let (ok, finding) = of_projection(&projection);
            findings.say(ok, format!("projection {}", projection.name), finding);
        }
        Ok(findings.0)
    }

    /// Returns the database's time.
    async fn examine_database(&self, findings: &mut Findings) -> Result<Timestamp> {
        let asked = self.clock.elapsed();
        let head = self.database.head().await?;
        let took = self.clock.elapsed().saturating_sub(asked).as_millis();
        let last = head.last;
        let answers = format!("answers in {took} ms; the log ends at position {last}");
        findings.say(true, "database", answers);
        let (ours, theirs) = (self.clock.now(), self.database.now().await?);
        let skew = ours.since(theirs).max(theirs.since(ours));
        let within = skew < Duration::from_secs(5);
        let apart = format!("{} ms from the database's clock", skew.as_millis());
        findings.say(within, "clock", if within { apart } else { format!("{apart}: set it") });
        Ok(theirs)
    }

    /// Returns whether there is one that answers.
    async fn examine_broker(&self, manifests: &[Value], findings: &mut Findings) -> bool {
        let name = self.broker.as_ref().map_or(EMBEDDED, |broker| broker.capabilities().name);
        for (others, services) in other_brokers(manifests, name) {
            let services = services.into_iter().collect::<Vec<_>>().join(", ");
            let reads = format!("{others} is read by {services}, and ");
            let finding = match &self.broker {
                None => format!("{reads}no broker is named: look again with `--broker URL`"),
                Some(_) => format!(
                    "{reads}the one that is named is {name}: name the app's, or start the app \
                     with this one"
                ),
            };
            findings.say(false, "broker", finding);
        }
        match &self.broker {
            Some(broker) => self.examine_topics(&**broker, manifests, findings).await,
            None => false,
        }
    }

    async fn examine_topics(
        &self,
        broker: &dyn Broker,
        manifests: &[Value],
        findings: &mut Findings,
    ) -> bool {
        let name = broker.capabilities().name;
        let read = read_topics(manifests, name);
        let mut topics: Vec<_> = read.keys().cloned().collect();
        if topics.is_empty() {
            // Not every broker is asked where none is named; whether this one is there is no matter.
            topics.push("sillage".into());
        }
        let asked = self.clock.elapsed();
        let found = match broker.topics(&topics).await {
            Ok(found) => found,
            Err(error) => {
                let mend = "see that it runs, and that its URL is right";
                findings.say(false, "broker", format!("{name} does not answer: {error}; {mend}"));
                return false;
            }
        };
        let took = self.clock.elapsed().saturating_sub(asked).as_millis();
        findings.say(true, "broker", format!("{name} answers in {took} ms"));
        for (topic, consumers) in read {
            if found.iter().any(|found| found.name == topic) {
                continue;
            }
            let consumers = consumers.into_iter().collect::<Vec<_>>().join(", ");
            let finding = format!(
                "{name} has none, and {consumers} would read it: start the app, which makes it, \
                 or `sillage topics create {topic}`"
            );
            findings.say(false, format!("topic {topic}"), finding);
        }
        true
    }
}

fn broker_of(manifest: &Value) -> &str {
    manifest["broker"].as_str().unwrap_or(EMBEDDED)
}

/// Brokers other than `name` and the log, and the services that read from them.
fn other_brokers<'m>(manifests: &'m [Value], name: &str) -> BTreeMap<&'m str, BTreeSet<&'m str>> {
    let mut others = BTreeMap::<_, BTreeSet<_>>::new();
    for manifest in manifests {
        let broker = broker_of(manifest);
        if broker != name && broker != EMBEDDED {
            let service = manifest["service"].as_str().unwrap_or_default();
            others.entry(broker).or_default().insert(service);
        }
    }
    others
}

/// The topics that apps read from this broker, and who does.
fn read_topics(manifests: &[Value], broker: &str) -> BTreeMap<Text, BTreeSet<String>> {
    let mut topics = BTreeMap::<Text, BTreeSet<String>>::new();
    for manifest in manifests.iter().filter(|manifest| broker_of(manifest) == broker) {
        for consumer in manifest["consumers"].as_array().into_iter().flatten() {
            let name = consumer["name"].as_str().unwrap_or_default();
            for topic in consumer["topics"].as_array().into_iter().flatten() {
                let topic = topic.as_str().unwrap_or_default().into();
                topics.entry(topic).or_default().insert(name.to_owned());
            }
        }
    }
    topics
}

fn of_consumer(consumer: &ConsumerStatus) -> (bool, String) {
    let ConsumerStatus { name, dead_letters, members, .. } = consumer;
    if let Some(why) = &consumer.paused {
        return (false, format!("paused: {why}; `sillage consumers resume {name}`"));
    }
    if *dead_letters > 0 {
        return (false, format!("{dead_letters} dead letters; `sillage dlq list`"));
    }
    match consumer.lag {
        Some(lag) if lag > 0 && *members == 0 => {
            (false, format!("{lag} messages wait and no process runs it: start one"))
        }
        Some(lag) => (true, format!("lag {lag}, members {members}")),
        None => (true, format!("lag not known here, members {members}")),
    }
}

/// What waits for it has been committed, and nobody else has it.
fn relay(relay: &ConsumerStatus, is_needed: bool, now: Timestamp) -> (bool, String) {
    let ConsumerStatus { name, parked_keys, members, .. } = relay;
    if *parked_keys > 0 {
        let see = format!("`sillage dlq list --all --parked --consumer {name}`");
        return (
            false,
            format!("{parked_keys} keys that the broker did not take are parked; {see}"),
        );
    }
    if !is_needed {
        return (true, "not needed: every app reads the log".to_owned());
    }
    let waited = relay.waiting_since.map_or(Duration::ZERO, |since| now.since(since));
    match relay.lag {
        Some(lag) if lag > 0 && *members > 0 && waited > RELAYED_WITHIN => {
            let seconds = waited.as_secs();
            let finding = format!(
                "{lag} messages wait for the broker, the oldest for {seconds} s: see that the app \
                 reaches it"
            );
            (false, finding)
        }
        _ => of_consumer(relay),
    }
}

fn of_projection(projection: &ProjectionStatus) -> (bool, String) {
    let name = &projection.name;
    let beside = [&projection.shadow, &projection.former];
    let paused = beside.into_iter().flatten().find_map(|beside| beside.paused.as_ref());
    if let Some(why) = projection.paused.as_ref().or(paused) {
        let mend = "deploy a reader for it, then";
        return (false, format!("paused: {why}; {mend} `sillage projection resume {name}`"));
    }
    if let Some(why) = &projection.held {
        return (
            false,
            format!("the rebuild is not read: {why}; `sillage projection compare {name}`"),
        );
    }
    (true, format!("{} positions behind", projection.lag))
}
