//! Asking and making: is there a broker, topics as they are, how far a consumer is.

use crate::{
    config::{Config, PARTITIONS},
    error,
    offsets::{self, Ends},
    watch::Watch,
};
use rdkafka::{
    Offset as Place, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    config::FromClientConfigAndContext as _,
    consumer::{BaseConsumer, Consumer as _},
    groups::GroupInfo,
    metadata::Metadata,
    types::RDKafkaErrorCode as Code,
};
use sillage_core::{
    Error, ErrorKind, Offset, Partition, PartitionStatus, Progress, Result, Text, TopicSpec,
    TopicStatus, TopologyDiff,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::runtime::Handle;

/// A broker answers within this, or the call fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// Between looks at something that is about to change.
const LOOK: Duration = Duration::from_millis(50);
/// Looks until [`LIMIT`].
const LOOKS: u32 = 200;

/// More than a client writes into its log in a second, unless it was told to tell everything.
const LINES: usize = 1_000;

/// Runs what blocks beside the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::unavailable("Kafka was not asked").because(error)))
}

/// Asks one cluster; made for one call, and dropped after it. Blocks.
pub(crate) struct Admin {
    config: Arc<Config>,
    client: BaseConsumer<Watch>,
}

impl Admin {
    pub(crate) fn new(config: &Arc<Config>) -> Result<Admin> {
        Self::with(config, &config.client())
    }

    fn with(config: &Arc<Config>, client: &rdkafka::ClientConfig) -> Result<Admin> {
        let made = BaseConsumer::from_config_and_context(client, Watch::default());
        let what = || format!("no client for Kafka at {} can be made", config.servers);
        let client = made.map_err(|error| error::describe(what(), error))?;
        Ok(Admin { config: config.clone(), client })
    }

    /// Whether there is a broker that lets us in: which cluster it is of, and the largest message
    /// that it takes.
    ///
    /// # Errors
    /// `Denied`, `Invalid` (TLS) or `Unavailable`, with what the client knows about it.
    pub(crate) fn check(&self) -> Result<(Option<Text>, usize)> {
        let metadata = self.wait_for_broker()?;
        let Some(broker) = metadata.brokers().first() else {
            return Err(self.failed("to name its brokers", None));
        };
        let limit = self.config_of(&[ResourceSpecifier::Broker(broker.id())], "message.max.bytes");
        // Who may publish may still be forbidden to read settings: then what Kafka has by default.
        let limit = limit.ok().and_then(|found| found.into_values().next());
        let cluster = self.client.client().fetch_cluster_id(LIMIT).map(Text::from);
        Ok((cluster, limit.unwrap_or(1_048_588)))
    }

    fn wait_for_broker(&self) -> Result<Metadata> {
        let mut last = None;
        for _ in 0..LIMIT.as_secs() {
            match self.client.fetch_metadata(None, Duration::from_secs(1)) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => last = Some(error),
            }
            self.listen();
            let reason = self.client.context().last();
            if reason.is_some_and(|(code, _)| is_final(code)) {
                break;
            }
        }
        Err(self.failed("for its topics", last))
    }

    /// Takes in what waits in the client's queue: errors with their reasons, behind lines of its log.
    /// Of such a line a poll says no more than of an empty queue.
    fn listen(&self) {
        for _ in 0..LINES {
            let _ = self.client.poll(Duration::ZERO);
        }
    }

    /// An error that says what the client knows.
    fn failed(&self, what: &str, error: Option<rdkafka::error::KafkaError>) -> Error {
        self.listen();
        let servers = &self.config.servers;
        let failed = match self.client.context().last() {
            Some((code, reason)) => {
                let advice = advice(code);
                let sentence = format!(
                    "Kafka at {servers} was asked {what}, without success: {reason}; {advice}"
                );
                Error::new(error::kind(code), sentence)
            }
            None => Error::unavailable(format!(
                "Kafka at {servers} was asked {what} and did not answer within {} s: check the \
                 address, and whether it expects TLS or a user (`security=…`)",
                LIMIT.as_secs()
            )),
        };
        match error {
            Some(error) => failed.because(error),
            None => failed,
        }
    }

    fn metadata(&self) -> Result<Metadata> {
        let metadata = self.client.fetch_metadata(None, LIMIT);
        metadata.map_err(|error| self.failed("for its topics", Some(error)))
    }

    /// A setting in bytes of some resources, by name.
    fn config_of(
        &self,
        resources: &[ResourceSpecifier<'_>],
        setting: &str,
    ) -> Result<HashMap<String, usize>> {
        // It hears the answer: without it nobody would ever be told.
        let admin = self.admin()?;
        let found = Handle::current().block_on(admin.describe_configs(resources, &options()));
        let found =
            found.map_err(|error| error::describe(format!("`{setting}` is not known"), error))?;
        let known = found.into_iter().flatten().filter_map(|resource| {
            let value = resource.get(setting)?.value.as_deref()?.parse().ok()?;
            let name = match resource.specifier {
                rdkafka::admin::OwnedResourceSpecifier::Topic(name) => name,
                _ => String::new(),
            };
            Some((name, value))
        });
        Ok(known.collect())
    }

    /// A client that makes and describes things. Its calls end only while it is there.
    fn admin(&self) -> Result<AdminClient<Watch>> {
        let made = AdminClient::from_config_and_context(&self.config.client(), Watch::default());
        let what = || format!("no client for Kafka at {} can be made", self.config.servers);
        made.map_err(|error| error::describe(what(), error))
    }

    /// The largest message of each of these topics.
    pub(crate) fn limits(&self, topics: &[Text]) -> Result<HashMap<String, usize>> {
        if topics.is_empty() {
            return Ok(HashMap::new());
        }
        let topics: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        self.config_of(&topics, "max.message.bytes")
    }

    /// Makes the topics that are missing, and waits until they can be written to.
    pub(crate) fn ensure(&self, topics: &[TopicSpec]) -> Result<TopologyDiff> {
        let before = partitions(&self.metadata()?);
        let missing = |topic: &&TopicSpec| !before.contains_key(&*topic.name);
        let missing: Vec<&TopicSpec> = topics.iter().filter(missing).collect();
        let mut diff = TopologyDiff::default();
        if !missing.is_empty() {
            diff.created = self.create(&missing)?;
            self.wait_for_leaders(&missing)?;
        }
        let after = partitions(&self.metadata()?);
        for topic in topics {
            let wanted = topic.partitions.or(self.config.topics.partitions);
            let actual = after.get(&*topic.name).copied();
            if let (Some(wanted), Some(actual)) = (wanted, actual)
                && wanted != actual
            {
                diff.differs.push(format!(
                    "topic `{}` has {actual} partitions, not {wanted}: left as it is, as keys \
                     would move",
                    topic.name
                ));
            }
        }
        Ok(diff)
    }

    fn create(&self, missing: &[&TopicSpec]) -> Result<Vec<Text>> {
        if !self.config.topics.create {
            return Err(self.not_there(missing));
        }
        let settings = &self.config.topics;
        let retention = settings.retention.map(|millis| millis.to_string());
        let new: Vec<NewTopic<'_>> = missing
            .iter()
            .map(|topic| {
                let count = topic.partitions.or(settings.partitions).unwrap_or(PARTITIONS);
                let replication = TopicReplication::Fixed(settings.replication);
                // When the broker took a message is what retention and `Start::Since` count by.
                let new = NewTopic::new(&topic.name, count.cast_signed(), replication)
                    .set("message.timestamp.type", "LogAppendTime");
                match &retention {
                    Some(millis) => new.set("retention.ms", millis),
                    None => new,
                }
            })
            .collect();
        let what = |name: &str| format!("topic `{name}` cannot be made");
        let all = || missing.iter().map(|topic| &*topic.name).collect::<Vec<_>>().join("`, `");
        let options = options().operation_timeout(Some(LIMIT));
        // It hears the answer: without it nobody would ever be told.
        let admin = self.admin()?;
        let made = Handle::current().block_on(admin.create_topics(&new, &options));
        let made = made.map_err(|error| error::describe(what(&all()), error))?;
        let mut created = vec![];
        for topic in made {
            match topic {
                Ok(name) => created.push(name.into()),
                // Somebody else was quicker.
                Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    let cause = rdkafka::error::KafkaError::AdminOp(code);
                    return Err(Error::new(error::kind(code), what(&name)).because(cause));
                }
            }
        }
        Ok(created)
    }

    fn not_there(&self, missing: &[&TopicSpec]) -> Error {
        let name = &missing[0].name;
        let count = missing[0].partitions.or(self.config.topics.partitions).unwrap_or(PARTITIONS);
        let (first, _) = self.config.servers.split_once(',').unwrap_or((&self.config.servers, ""));
        let others = match missing.len() {
            1 => String::new(),
            more => format!(" (and {} more)", more - 1),
        };
        Error::new(
            ErrorKind::NotFound,
            format!(
                "topic `{name}`{others} is not there, and create_topics=false: make it with \
                 `kafka-topics.sh --bootstrap-server {first} --create --topic {name} \
                 --partitions {count}`"
            ),
        )
    }

    fn wait_for_leaders(&self, topics: &[&TopicSpec]) -> Result<()> {
        for _ in 0..LOOKS {
            let metadata = self.metadata()?;
            let has_leaders = |topic: &&TopicSpec| {
                metadata.topics().iter().any(|found| {
                    let partitions = found.partitions();
                    found.name() == &*topic.name
                        && !partitions.is_empty()
                        && partitions.iter().all(|partition| partition.leader() >= 0)
                })
            };
            if topics.iter().all(has_leaders) {
                return Ok(());
            }
            Handle::current().block_on(tokio::time::sleep(LOOK));
        }
        let names = topics.iter().map(|topic| &*topic.name).collect::<Vec<_>>().join("`, `");
        Err(Error::unavailable(format!(
            "topic `{names}` was made at {} but has no leader yet: try again later",
            self.config.servers
        )))
    }

    /// How many partitions each of these topics has.
    ///
    /// # Errors
    /// `NotFound`: one is not there.
    pub(crate) fn partitions(&self, topics: &[Text]) -> Result<Vec<Partition>> {
        let known = partitions(&self.metadata()?);
        let mut all = vec![];
        for topic in topics {
            let count = known.get(&**topic).copied().ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("there is no topic `{topic}` at {}", self.config.servers),
                )
            })?;
            let partition = |number| Partition { topic: topic.clone(), number };
            all.extend((0..count).map(partition));
        }
        Ok(all)
    }

    /// Topics as they are.
    pub(crate) fn topics(&self, names: &[Text]) -> Result<Vec<TopicStatus>> {
        let known = partitions(&self.metadata()?);
        let names: Vec<Text> = if names.is_empty() {
            let mut all: Vec<Text> = known.keys().map(|name| name.as_str().into()).collect();
            all.retain(|name| !name.starts_with("__"));
            all.sort();
            all
        } else {
            names.iter().filter(|name| known.contains_key(&***name)).cloned().collect()
        };
        let ends = self.ends(&self.partitions(&names)?)?;
        let mut topics: Vec<TopicStatus> =
            names.into_iter().map(|name| TopicStatus { name, partitions: vec![] }).collect();
        for (partition, ends) in ends {
            let status = PartitionStatus {
                number: partition.number,
                first: Some(Offset(ends.low)),
                next: Some(Offset(ends.high)),
            };
            let topic = topics.iter_mut().find(|topic| topic.name == partition.topic);
            if let Some(topic) = topic {
                topic.partitions.push(status);
            }
        }
        Ok(topics)
    }

    fn ends(&self, partitions: &[Partition]) -> Result<Vec<(Partition, Ends)>> {
        let ends = offsets::ends(&self.client, partitions, LIMIT)?;
        Ok(partitions.iter().cloned().zip(ends).collect())
    }

    /// Whether a client of this name is a member of the group that reads these topics.
    ///
    /// # Errors
    /// Also where it may well be none: no such topic is there, or the group's coordinator is not ready.
    pub(crate) fn has_member(
        config: &Arc<Config>,
        (group, client): (&str, &str),
        topics: &[Text],
    ) -> Result<bool> {
        let admin = Self::with(config, &config.observer(group))?;
        let known = partitions(&admin.metadata()?);
        let Some(topic) = topics.iter().find(|topic| known.contains_key(&***topic)) else {
            return Err(Error::new(ErrorKind::NotFound, "none of its topics is there"));
        };
        let any = Partition { topic: topic.clone(), number: 0 };
        offsets::committed(&admin.client, &[any], LIMIT)?;
        let groups = admin.client.fetch_group_list(Some(group), LIMIT);
        let groups = groups.map_err(|error| admin.failed("who is in a group", Some(error)))?;
        let mut members = groups.groups().iter().flat_map(GroupInfo::members);
        Ok(members.any(|member| member.client_id() == client))
    }

    /// How far a group is.
    pub(crate) fn progress(
        config: &Arc<Config>,
        group: &str,
        topics: &[Text],
    ) -> Result<Vec<Progress>> {
        let admin = Self::with(config, &config.observer(group))?;
        let known = partitions(&admin.metadata()?);
        let topics: Vec<Text> =
            topics.iter().filter(|topic| known.contains_key(&***topic)).cloned().collect();
        let partitions = admin.partitions(&topics)?;
        if partitions.is_empty() {
            return Ok(vec![]);
        }
        let committed = offsets::committed(&admin.client, &partitions, LIMIT)?;
        let ends = admin.ends(&partitions)?;
        let progress = |((partition, ends), committed): ((Partition, Ends), Option<u64>)| {
            let next = committed.unwrap_or(ends.low).max(ends.low);
            Progress {
                partition,
                settled: committed.and_then(|next| next.checked_sub(1)).map(Offset),
                lag: ends.high.saturating_sub(next),
            }
        };
        Ok(ends.into_iter().zip(committed).map(progress).collect())
    }
}

/// Topics with the number of their partitions.
fn partitions(metadata: &Metadata) -> HashMap<String, u32> {
    let is_there = |topic: &&rdkafka::metadata::MetadataTopic| !topic.partitions().is_empty();
    let topics = metadata.topics().iter().filter(is_there);
    let count = |partitions: usize| u32::try_from(partitions).unwrap_or(u32::MAX);
    topics.map(|topic| (topic.name().to_owned(), count(topic.partitions().len()))).collect()
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(LIMIT))
}

/// Waiting does not help.
fn is_final(code: Code) -> bool {
    matches!(error::kind(code), ErrorKind::Denied | ErrorKind::Invalid)
}

fn advice(code: Code) -> &'static str {
    match code {
        Code::SSL => "check `ca=…`, and that the name in the URL is the certificate's",
        Code::Resolve => "check the name",
        _ if error::kind(code) == ErrorKind::Denied => "check the user, its password and mechanism",
        _ => "check the address, and whether it expects TLS or a user (`security=…`)",
    }
}

/// The list of these partitions, each with what `place` says.
pub(crate) fn list<'a>(
    partitions: impl Iterator<Item = (&'a Partition, Place)>,
) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, place) in partitions {
        let number = partition.number.cast_signed();
        list.add_partition_offset(&partition.topic, number, place)
            .map_err(|error| error::describe(format!("{partition} has no such offset"), error))?;
    }
    Ok(list)
}
