//! A broker in memory, apart from any database, whose assignments and faults a test decides.

mod member;

use member::{Handle, Reader};
use sillage_core::{
    BoxFuture, Broker, Capabilities, Delivery, Error, ErrorKind, Inbound, Limits, Message, Offset,
    Partition, PartitionStatus, Progress, PublishError, Reached, Receipt, Result, Start,
    Subscribed, Subscription, Text, TopicSpec, TopicStatus, TopologyDiff, partition_of,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// A broker in memory. Clones are handles on the same one.
///
/// It shares partitions out among the members of a consumer as Kafka does, or leaves that to
/// whoever opens them, as RabbitMQ.
#[derive(Clone)]
pub struct MemoryBroker(Arc<Shared>);

struct Shared {
    assigns: bool,
    offsets: bool,
    partitions: u32,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<Text, Vec<Vec<Arc<Message>>>>,
    settled: HashMap<(Text, Partition), u64>,
    members: BTreeMap<u64, Member>,
    joined: u64,
    is_down: bool,
    is_silent: bool,
    refused: HashSet<Text>,
    cluster: Option<Text>,
    /// What the members of a consumer had reached, as the last one said that joined.
    reached: HashMap<Text, Vec<Reached>>,
}

struct Member {
    subscription: Subscription,
    told: VecDeque<Inbound>,
    /// Where it reads on, of what it may read.
    places: BTreeMap<Partition, u64>,
    /// It was told that others want them, or it is to get them when they are free.
    leaving: HashSet<Partition>,
    paused: HashSet<Partition>,
    /// It gets nothing more.
    is_given_up: bool,
}

/// Deliveries handed over at once.
const BATCH: usize = 100;

impl MemoryBroker {
    /// A broker with so many partitions a topic, which it assigns itself or not.
    pub fn new(partitions: u32, assigns: bool) -> Self {
        MemoryBroker::with(partitions, assigns, true)
    }

    /// One that assigns, and whose offsets mean nothing from one process to the next.
    pub fn without_offsets(partitions: u32) -> Self {
        MemoryBroker::with(partitions, true, false)
    }

    fn with(partitions: u32, assigns: bool, offsets: bool) -> Self {
        let (state, changed) = (Mutex::default(), Notify::new());
        MemoryBroker(Arc::new(Shared { assigns, offsets, partitions, state, changed }))
    }

    /// From now on it is this cluster.
    pub fn is_cluster(&self, cluster: &str) {
        self.0.state().cluster = Some(cluster.into());
    }

    /// How far the consumer said that it is in this cluster, when a member of it joined last.
    pub fn reached(&self, consumer: &str) -> Vec<Reached> {
        self.0.state().reached.get(consumer).cloned().unwrap_or_default()
    }

    /// Takes a message as it is, as a producer leaves it there that knows no limits.
    pub fn put(&self, message: Message) {
        let topic = message.topic.clone().unwrap_or_default();
        let mut state = self.0.state();
        if let Some(first) = state.topics.get_mut(&topic).and_then(|topic| topic.first_mut()) {
            first.push(Arc::new(message));
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// How many messages the consumer's members have been handed since their partitions were settled last.
    pub fn unsettled(&self, consumer: &str) -> u64 {
        let state = self.0.state();
        let members = state.members.values();
        let members = members.filter(|member| &*member.subscription.consumer == consumer);
        let settled = |partition: &Partition| {
            state.settled.get(&(consumer.into(), partition.clone())).copied().unwrap_or(0)
        };
        let places = members.flat_map(|member| &member.places);
        places.map(|(partition, place)| place - settled(partition)).sum()
    }

    /// Takes nothing more, or takes again.
    pub fn set_down(&self, is_down: bool) {
        self.0.state().is_down = is_down;
    }

    /// Whether it keeps to itself how far its consumers are.
    pub fn set_silent(&self, is_silent: bool) {
        self.0.state().is_silent = is_silent;
    }

    /// Refuses all messages of this key for good, or takes them again.
    pub fn set_refused(&self, key: &str, refused: bool) {
        let mut state = self.0.state();
        if refused {
            state.refused.insert(key.into());
        } else {
            state.refused.remove(key);
        }
    }

    /// Everything that was published to a topic, by partition.
    pub fn published(&self, topic: &str) -> Vec<Vec<Arc<Message>>> {
        self.0.state().topics.get(topic).cloned().unwrap_or_default()
    }

    /// Takes all partitions from the consumer's members, as when connections are cut, tells them, and
    /// shares them out again; where it does not assign them, each member has its own again.
    pub fn lose(&self, consumer: &str) {
        let mut state = self.0.state();
        let mut again = vec![];
        for (id, member) in &mut state.members {
            if &*member.subscription.consumer == consumer && !member.places.is_empty() {
                let lost: Vec<_> = std::mem::take(&mut member.places).into_keys().collect();
                member.leaving.clear();
                again.extend(lost.iter().map(|partition| (*id, partition.clone())));
                member.told.push_back(Inbound::Lost(lost));
            }
        }
        if self.0.assigns {
            state.rebalance(consumer);
        } else {
            for (id, partition) in again {
                state.assign(id, partition);
            }
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Takes all partitions from the consumer's members, and shares none out again.
    pub fn cut_off(&self, consumer: &str) {
        let mut state = self.0.state();
        let of_it = |member: &&mut Member| &*member.subscription.consumer == consumer;
        for member in state.members.values_mut().filter(of_it) {
            let lost = std::mem::take(&mut member.places).into_keys().collect();
            member.told.push_back(Inbound::Lost(lost));
        }
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// How many partitions of the consumer are being read, by how many members ever.
    pub fn readings(&self, consumer: &str) -> usize {
        let state = self.0.state();
        let of_it = |member: &&Member| &*member.subscription.consumer == consumer;
        state.members.values().filter(of_it).map(|member| member.places.len()).sum()
    }

    /// Gives all partitions of the consumer's first member to the others, as when its session has
    /// run out, without telling it: it is a zombie, and goes on with what it has.
    pub fn give_up(&self, consumer: &str) {
        let mut state = self.0.state();
        let mut of_it = state.members.values_mut();
        let first = of_it.find(|member| &*member.subscription.consumer == consumer);
        let Some(first) = first else { return };
        first.is_given_up = true;
        first.places.clear();
        state.rebalance(consumer);
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn partitions(&self, topics: &[Text]) -> Vec<Partition> {
        let of = |topic: &Text| {
            let count = self.topics.get(topic).map_or(0, Vec::len);
            let topic = topic.clone();
            (0..count).map(move |number| Partition {
                topic: topic.clone(),
                number: u32::try_from(number).unwrap_or(0),
            })
        };
        topics.iter().flat_map(of).collect()
    }

    fn length(&self, partition: &Partition) -> u64 {
        let topic = self.topics.get(&partition.topic);
        topic
            .and_then(|topic| topic.get(partition.number as usize))
            .map_or(0, |all| all.len() as u64)
    }

    fn assign(&mut self, member: u64, partition: Partition) {
        let length = self.length(&partition);
        let all = self.topics.get(&partition.topic);
        let all = all.and_then(|all| all.get(partition.number as usize));
        let taken_since = |time| {
            let later = all?.iter().position(|message| message.time >= time)?;
            Some(later as u64)
        };
        let Some(found) = self.members.get_mut(&member) else { return };
        let consumer = found.subscription.consumer.clone();
        let start = match found.subscription.start {
            Start::Latest => length,
            Start::Last(count) => length.saturating_sub(count),
            Start::Earliest => 0,
            Start::Since(time) => taken_since(time).unwrap_or(length),
        };
        let place = if found.subscription.broadcast {
            start
        } else {
            *self.settled.entry((consumer, partition.clone())).or_insert(start)
        };
        found.leaving.remove(&partition);
        found.paused.remove(&partition);
        found.places.insert(partition.clone(), place);
        found.told.push_back(Inbound::Assigned(vec![partition]));
    }

    /// Shares the partitions of a consumer out among its members.
    fn rebalance(&mut self, consumer: &str) {
        let of_it = |(_, m): &(&u64, &Member)| {
            let takes_part = !m.subscription.broadcast && !m.is_given_up;
            &*m.subscription.consumer == consumer && takes_part
        };
        let members: Vec<u64> = self.members.iter().filter(of_it).map(|(id, _)| *id).collect();
        let Some(first) = members.first() else { return };
        let topics = self.members[first].subscription.topics.clone();
        for (index, partition) in self.partitions(&topics).into_iter().enumerate() {
            let wanted = members[index % members.len()];
            let owner = members.iter().find(|id| self.members[id].places.contains_key(&partition));
            match owner.copied() {
                Some(owner) if owner == wanted => {}
                Some(owner) => {
                    let Some(owner) = self.members.get_mut(&owner) else { continue };
                    if owner.leaving.insert(partition.clone()) {
                        owner.told.push_back(Inbound::Revoked(vec![partition]));
                    }
                }
                None => self.assign(wanted, partition),
            }
        }
    }

    /// What the member is told, or gets, next.
    fn next(&mut self, member: u64) -> Option<Inbound> {
        let topics = &self.topics;
        let member = self.members.get_mut(&member)?;
        if let Some(told) = member.told.pop_front() {
            return Some(told);
        }
        for (partition, place) in &mut member.places {
            if member.leaving.contains(partition) || member.paused.contains(partition) {
                continue;
            }
            let all = topics.get(&partition.topic)?.get(partition.number as usize)?;
            let from = usize::try_from(*place).unwrap_or(usize::MAX);
            let batch = all.iter().enumerate().skip(from).take(BATCH);
            let batch: Vec<_> = batch
                .map(|(n, message)| Delivery { offset: Offset(n as u64), message: message.clone() })
                .collect();
            if !batch.is_empty() {
                *place += batch.len() as u64;
                return Some(Inbound::Batch(partition.clone(), batch.into()));
            }
        }
        None
    }
}

impl Broker for MemoryBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "memory broker",
            ordered_by_key: true,
            replay: true,
            is_log: false,
            shared: true,
            assigns: self.0.assigns,
            offsets: self.0.offsets,
            cluster: self.0.state().cluster.clone(),
            max_message_bytes: Limits::default().message,
        }
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        let mut state = self.0.state();
        let mut diff = TopologyDiff::default();
        for topic in topics {
            let partitions = topic.partitions.unwrap_or(self.0.partitions) as usize;
            let Some(known) = state.topics.get(&topic.name) else {
                state.topics.insert(topic.name.clone(), vec![vec![]; partitions]);
                diff.created.push(topic.name.clone());
                continue;
            };
            if topic.partitions.is_some() && known.len() != partitions {
                let (name, has) = (&topic.name, known.len());
                diff.differs.push(format!("topic `{name}` has {has} partitions, not {partitions}"));
            }
        }
        Box::pin(async { Ok(diff) })
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        let receipts = batch.into_iter().map(|message| self.take(message)).collect();
        self.0.changed.notify_waiters();
        Box::pin(async { receipts })
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        let mut state = self.0.state();
        state.joined += 1;
        let id = state.joined;
        let (consumer, broadcast) = (subscription.consumer.clone(), subscription.broadcast);
        let partitions = state.partitions(&subscription.topics);
        state.reached.insert(consumer.clone(), subscription.reached.clone());
        state.members.insert(
            id,
            Member {
                subscription,
                told: VecDeque::new(),
                places: BTreeMap::new(),
                leaving: HashSet::new(),
                paused: HashSet::new(),
                is_given_up: false,
            },
        );
        if broadcast {
            for partition in partitions {
                state.assign(id, partition);
            }
        } else if self.0.assigns {
            state.rebalance(&consumer);
        }
        drop(state);
        self.0.changed.notify_waiters();
        let handle = Arc::new(Handle { shared: self.0.clone(), id, consumer });
        Box::pin(async move { Ok((Box::new(Reader(handle.clone())) as Box<_>, handle as Arc<_>)) })
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        let state = self.0.state();
        let wanted = |name: &&Text| names.is_empty() || names.contains(name);
        let status = |name: &Text| TopicStatus {
            name: name.clone(),
            partitions: state
                .partitions(std::slice::from_ref(name))
                .iter()
                .map(|partition| PartitionStatus {
                    number: partition.number,
                    first: Some(Offset(0)),
                    next: Some(Offset(state.length(partition))),
                })
                .collect(),
        };
        let topics = state.topics.keys().filter(wanted).map(status).collect();
        Box::pin(async { Ok(topics) })
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        let state = self.0.state();
        if state.is_silent {
            return Box::pin(async { Err(Error::unavailable("the broker does not answer")) });
        }
        let progress = |partition: Partition| {
            let settled = state.settled.get(&(consumer.into(), partition.clone())).copied();
            Progress {
                lag: state.length(&partition) - settled.unwrap_or(0),
                settled: settled.and_then(|next| next.checked_sub(1)).map(Offset),
                partition,
            }
        };
        let progress = state.partitions(topics).into_iter().map(progress).collect();
        Box::pin(async { Ok(progress) })
    }
}

impl MemoryBroker {
    fn take(&self, message: Arc<Message>) -> Result<Receipt, PublishError> {
        let mut state = self.0.state();
        if state.is_down {
            return Err(PublishError::Unknown(Error::unavailable("the broker is down")));
        }
        Limits::default().message(&message).map_err(PublishError::Refused)?;
        let key = message.key.as_ref();
        if key.is_some_and(|key| state.refused.contains(&*key.label())) {
            return Err(PublishError::Refused(Error::invalid("the broker does not take this key")));
        }
        let topic = message.topic.clone().unwrap_or_default();
        let Some(partitions) = state.topics.get_mut(&topic) else {
            let missing = Error::new(ErrorKind::NotFound, format!("no topic `{topic}`"));
            return Err(PublishError::Refused(missing));
        };
        let hashed = key.map_or(message.id.as_str().as_bytes(), |key| key.as_bytes());
        let count = u32::try_from(partitions.len()).unwrap_or(1);
        let number = partition_of(hashed, count);
        let partition = &mut partitions[number as usize];
        partition.push(message);
        let offset = Some(Offset(partition.len() as u64 - 1));
        Ok(Receipt { partition: Some(Partition { topic, number }), offset })
    }
}
