//! How large a message may be: the broker's limit, and that of topics which have their own.

use crate::{
    admin::{Admin, blocking},
    config::Config,
    error,
    watch::lock,
};
use sillage_core::{Error, ErrorKind, Header, Message, Result, Text};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{runtime::Handle, time::Instant};

/// What the client puts into one request at most, where no topic allows less.
const BATCH: usize = 1_000_000;
/// Around a record of its own: the batch's header and the record's numbers.
const AROUND: usize = 128;
/// Around a header: the lengths of its name and value.
const AROUND_HEADER: usize = 10;
/// How long a topic that may not be published to is not tried again.
const DENIED: Duration = Duration::from_secs(30);

/// The limits that are known.
pub(crate) struct Limits {
    config: Arc<Config>,
    runtime: Handle,
    largest: usize,
    topics: Mutex<HashMap<Text, usize>>,
    /// Topics whose limits are being asked for.
    asked: Arc<Mutex<HashSet<Text>>>,
    /// Topics that may not be published to, and until when that is taken for granted.
    denied: Mutex<HashMap<Text, Instant>>,
}

impl Limits {
    pub(super) fn new(config: Arc<Config>, largest: usize, runtime: Handle) -> Limits {
        let (topics, asked, denied) = (Mutex::default(), Arc::default(), Mutex::default());
        Limits { config, runtime, largest, topics, asked, denied }
    }

    /// Of a message on a topic without a limit of its own.
    pub(crate) fn largest(&self) -> usize {
        // What the client itself allows.
        self.largest.clamp(1_000, 1_000_000_000)
    }

    /// Of a batch, so that every topic takes it.
    pub(super) fn smallest(&self) -> usize {
        lock(&self.topics).values().copied().min().unwrap_or(BATCH).clamp(1_000, BATCH)
    }

    /// Takes limits of topics in.
    pub(crate) fn learn(&self, limits: HashMap<String, usize>) {
        let limits = limits.into_iter().map(|(topic, limit)| (topic.into(), limit));
        lock(&self.topics).extend(limits);
    }

    /// A topic did not take what we thought it would: asks for its limit in the background.
    pub(super) fn doubt(self: &Arc<Self>, topic: &Text) {
        if !lock(&self.asked).insert(topic.clone()) {
            return;
        }
        let (limits, topic) = (self.clone(), topic.clone());
        self.runtime.spawn(async move {
            let (config, topics) = (limits.config.clone(), vec![topic.clone()]);
            let found = blocking(move || Admin::new(&config)?.limits(&topics)).await;
            match found {
                Ok(found) => limits.learn(found),
                Err(error) => tracing::warn!(target: "sillage_kafka", %error, "limits not known"),
            }
            lock(&limits.asked).remove(&topic);
        });
    }

    /// This topic may not be published to: to be told so ends the producer, so it is not asked again at
    /// once.
    pub(super) fn deny(&self, topic: &Text) {
        lock(&self.denied).insert(topic.clone(), Instant::now() + DENIED);
    }

    fn is_denied(&self, topic: &Text) -> bool {
        let mut denied = lock(&self.denied);
        if denied.get(topic).is_some_and(|until| *until <= Instant::now()) {
            denied.remove(topic);
        }
        denied.contains_key(topic)
    }

    /// Refuses what Kafka would refuse: there it would end the producer. `last` is the topic of
    /// the message before, and its limit: mostly it is the same.
    pub(super) fn check<'a>(
        &self,
        message: &'a Message,
        last: &mut Option<(&'a str, usize)>,
    ) -> Result<()> {
        let Some(topic) = &message.topic else {
            return Err(error::invalid(format!("message {} has no topic", message.id)));
        };
        let limit = match last {
            Some((known, limit)) if *known == &**topic => *limit,
            _ if !is_topic(topic) => {
                return Err(error::invalid(format!(
                    "`{topic}` is no name for a topic: letters, digits, `.`, `_` and `-`, at most \
                     249"
                )));
            }
            _ if self.is_denied(topic) => {
                return Err(denied(topic));
            }
            _ => last.insert((topic, self.limit(topic))).1,
        };
        if size(message) > limit {
            return Err(self.too_large(message));
        }
        Ok(())
    }

    fn limit(&self, topic: &Text) -> usize {
        let own = lock(&self.topics).get(topic).copied();
        own.unwrap_or_else(|| self.largest()).min(self.largest())
    }

    pub(super) fn too_large(&self, message: &Message) -> Error {
        let topic: Text = message.topic.clone().unwrap_or_else(|| "".into());
        let sentence = format!(
            "message {} has {} bytes, topic `{topic}` takes {}: raise its max.message.bytes, or \
             send less",
            message.id,
            size(message),
            self.limit(&topic)
        );
        Error::new(ErrorKind::Invalid, sentence)
    }
}

/// Why nothing is published to a topic that its access control keeps from this user.
pub(super) fn denied(topic: &str) -> Error {
    let sentence = format!("Kafka does not let this user publish to topic `{topic}`: see its ACLs");
    Error::new(ErrorKind::Denied, sentence)
}

/// An upper bound of what Kafka counts.
fn size(message: &Message) -> usize {
    let texts = [
        message.id.as_str().len(),
        message.source.len(),
        message.name.len(),
        message.correlation_id.len(),
        message.causation_id.as_ref().map_or(0, |id| id.as_str().len()),
        message.operation_id.as_ref().map_or(0, |id| id.len()),
        message.traceparent.as_ref().map_or(0, |parent| parent.len()),
    ];
    // Names and fixed values of the attributes, and the lengths of each header.
    let attributes = 13 * (24 + AROUND_HEADER);
    let key = message.key.as_ref().map_or(0, |key| key.as_bytes().len());
    let header = |header: &Header| header.name.len() + header.value.len() + AROUND_HEADER;
    let headers: usize = message.headers.iter().map(header).sum();
    // As the record's key, and as two attributes.
    let keys = 3 * key;
    AROUND + attributes + texts.iter().sum::<usize>() + keys + headers + message.payload.len()
}

/// Kafka's rule for names.
fn is_topic(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(legal) && name != "." && name != ".."
}
