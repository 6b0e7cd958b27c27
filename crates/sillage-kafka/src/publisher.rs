//! Publishing: one idempotent producer without gaps, and a thread that hears what was confirmed.
//!
//! The client's promise is kept by the client: with `enable.gapless.guarantee` a message that
//! cannot be written ends it (a *fatal error*), as what was sent behind it must not overtake it.
//! Then everything unconfirmed is answered `Unknown`, and a fresh client begins.

mod limits;
mod pending;

use crate::{
    config::Config,
    error, figures,
    watch::{Watch, lock},
};
pub(crate) use limits::Limits;
use pending::{Pending, Ticket};
use rdkafka::{
    ClientContext, Message as _,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
    types::RDKafkaErrorCode as Code,
};
use sillage_core::{
    Binding, BoxFuture, Error, Key, Message, Offset, Partition, PublishError, Receipt, Result, Text,
};
use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::runtime::Handle;

/// Headers of a message that has none of its own.
const ATTRIBUTES: usize = 13;
/// How long the thread listens before it looks at anything else. The client hears confirmations as
/// they come, and waits in whole milliseconds: the rest of the last one it spins through.
const LISTEN: Duration = Duration::from_micros(100_100);
/// And while messages wait for room in its queue.
const LISTEN_BRIEFLY: Duration = Duration::from_millis(1);
/// With more messages unconfirmed than this, whoever publishes hears what was confirmed meanwhile: to give
/// back what another thread allocated costs much once it is in no cache any more.
const DEEP: i32 = 4_096;
/// How often it still listens for confirmations once nobody publishes any more: 5 s.
const FAREWELL: u32 = 50;

/// Publishes; clones are not needed, as it is shared by reference.
pub(crate) struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    limits: Arc<Limits>,
    pending: Arc<Pending>,
    /// Whoever holds it hands messages to the client: so they keep their order.
    outlet: Mutex<Outlet>,
    /// Batches so far.
    published: AtomicU64,
    stop: AtomicBool,
}

/// The way to the client.
struct Outlet {
    /// `None`: the last one broke, and no other could be made yet.
    producer: Option<Arc<BaseProducer<Context>>>,
    /// What waits because the client's queue is full, in order.
    waiting: VecDeque<Ticket>,
}

/// Hears from one producer.
struct Context {
    /// What its figures are called.
    name: Text,
    pending: Arc<Pending>,
    limits: Arc<Limits>,
    /// A message could not be written: the client takes no more.
    broken: AtomicBool,
    /// Replaced: its tickets may be another's by now.
    replaced: AtomicBool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        Watch::say(level, facility, line);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        figures::tell(&self.name, statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "sillage_kafka", %error, reason, "the producer reports an error");
        if error.rdkafka_error_code() == Some(Code::Fatal) {
            self.broken.store(true, Ordering::Release);
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, ticket: usize) {
        if self.replaced.load(Ordering::Acquire) {
            return;
        }
        let ticket = Ticket::from_opaque(ticket);
        match delivery {
            Ok(message) => {
                let number = message.partition().unsigned_abs();
                let offset = u64::try_from(message.offset()).ok();
                self.pending.confirmed(ticket, number, offset);
            }
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                if matches!(code, Code::GaplessGuarantee | Code::Fatal) {
                    self.broken.store(true, Ordering::Release);
                }
                if matches!(code, Code::MessageSizeTooLarge | Code::MessageBatchTooLarge) {
                    self.limits.doubt(&self.pending.topic(ticket));
                }
                let topic = self.pending.topic(ticket);
                if code == Code::TopicAuthorizationFailed {
                    self.limits.deny(&topic);
                }
                self.pending.failed(ticket, unpublished(code, &topic));
            }
        }
    }
}

/// Why a message was not published, in words and with what to make of it.
fn unpublished(code: Code, topic: &str) -> PublishError {
    let kind = error::kind(code);
    let error =
        |sentence: String| Error::new(kind, sentence).because(KafkaError::MessageProduction(code));
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            PublishError::Refused(error(format!(
                "there is no topic `{topic}` to publish to: `ensure` makes it"
            )))
        }
        Code::InvalidTopic => {
            PublishError::Refused(error(format!("`{topic}` is no name for a topic")))
        }
        Code::InvalidRecord | Code::InvalidTimestamp => PublishError::Refused(error(format!(
            "topic `{topic}` does not take this message: see its settings"
        ))),
        Code::TopicAuthorizationFailed => PublishError::Refused(limits::denied(topic)),
        // Of a batch that is too large, this one need not be guilty: what is too large by itself
        // is refused before it is handed over, once the topic's limit is known.
        _ => PublishError::Unknown(error(format!(
            "whether a message for topic `{topic}` was published is not known"
        ))),
    }
}

impl Publisher {
    /// Starts the thread. Within a tokio runtime.
    pub(crate) fn start(config: Arc<Config>, largest: usize) -> Result<Publisher> {
        let limits = Arc::new(Limits::new(config.clone(), largest, Handle::current()));
        let shared = Arc::new(Shared {
            config,
            limits,
            pending: Arc::default(),
            outlet: Mutex::new(Outlet { producer: None, waiting: VecDeque::new() }),
            published: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        lock(&shared.outlet).producer = Some(shared.producer()?);
        let listener = shared.clone();
        thread::Builder::new()
            .name("kafka-publisher".into())
            .spawn(move || listener.run())
            .map_err(|error| Error::unavailable("no thread for publishing").because(error))?;
        Ok(Publisher { shared })
    }

    /// The limits of topics, which others may find out.
    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Hands all over, in order, in this call.
    pub(crate) fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        let count = batch.len();
        if count == 0 {
            return Box::pin(std::future::ready(vec![]));
        }
        let answers = self.shared.publish(batch);
        Box::pin(async move {
            answers.await.unwrap_or_else(|_| (0..count).map(|_| Err(cut_off())).collect())
        })
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

fn cut_off() -> PublishError {
    PublishError::Unknown(Error::unavailable("the connection to Kafka was closed"))
}

impl Shared {
    fn producer(&self) -> Result<Arc<BaseProducer<Context>>> {
        let context = Context {
            name: "publisher".into(),
            pending: self.pending.clone(),
            limits: self.limits.clone(),
            broken: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
        };
        let client = self.config.producer(self.limits.largest(), self.limits.smallest());
        let made = BaseProducer::from_config_and_context(&client, context);
        let what = || format!("no producer for Kafka at {} can be made", self.config.servers);
        made.map(Arc::new).map_err(|error| error::describe(what(), error))
    }

    fn publish(&self, batch: Vec<Arc<Message>>) -> pending::Answers {
        let batch: Arc<[Arc<Message>]> = batch.into();
        let mut outlet = lock(&self.outlet);
        let (slot, answers) = self.pending.begin(batch.clone());
        let mut last = None;
        for (index, message) in batch.iter().enumerate() {
            let ticket = Ticket::new(slot, index);
            if let Err(refused) = self.limits.check(message, &mut last) {
                self.pending.failed(ticket, PublishError::Refused(refused));
            } else if !outlet.waiting.is_empty() || !self.send(&outlet, message, ticket) {
                outlet.waiting.push_back(ticket);
            }
        }
        self.published.fetch_add(1, Ordering::Relaxed);
        if let Some(producer) = &outlet.producer {
            hear(producer, batch.len());
        }
        answers
    }

    /// Hands one message to the client; `false`: its queue is full.
    fn send(&self, outlet: &Outlet, message: &Message, ticket: Ticket) -> bool {
        let Some(producer) = &outlet.producer else {
            self.pending.failed(ticket, unpublished(Code::Fatal, ""));
            return true;
        };
        let topic = message.topic.as_deref().unwrap_or_default();
        let record = BaseRecord {
            topic,
            partition: None,
            // Nothing is null, as compacted topics have it: a deletion.
            payload: (!message.payload.is_empty()).then_some(&*message.payload),
            key: message.key.as_ref().map(Key::as_bytes),
            // When it is published, not when it happened: retention counts from there, and would
            // delete what is published late.
            timestamp: None,
            headers: Some(headers(message)),
            delivery_opaque: ticket.opaque(),
        };
        let Err((error, _)) = producer.send(record) else { return true };
        let code = error.rdkafka_error_code().unwrap_or(Code::InvalidArgument);
        match code {
            Code::QueueFull => return false,
            Code::MessageSizeTooLarge => {
                self.pending.failed(ticket, PublishError::Refused(self.limits.too_large(message)));
            }
            Code::Fatal => {
                producer.context().broken.store(true, Ordering::Release);
                self.pending.failed(ticket, unpublished(code, topic));
            }
            _ => self.pending.failed(ticket, unpublished(code, topic)),
        }
        true
    }

    /// Listens until nobody publishes any more and everything is answered.
    fn run(self: Arc<Self>) {
        let (mut farewell, mut seen) = (FAREWELL, 0);
        loop {
            let (producer, is_waiting) = {
                let outlet = lock(&self.outlet);
                (outlet.producer.clone(), !outlet.waiting.is_empty())
            };
            let before = mem::replace(&mut seen, self.published.load(Ordering::Relaxed));
            match producer {
                Some(producer) if before != seen && is_deep(&producer) => {
                    thread::park_timeout(LISTEN_BRIEFLY);
                }
                Some(producer) if is_waiting => producer.poll(LISTEN_BRIEFLY),
                Some(producer) => producer.poll(LISTEN),
                None => thread::park_timeout(LISTEN),
            }
            self.drain();
            self.replace_if_broken();
            if self.stop.load(Ordering::Acquire) {
                if self.pending.is_empty() || farewell == 0 {
                    break;
                }
                farewell -= 1;
            }
        }
        self.end();
    }

    /// Hands over what waits, as far as there is room.
    fn drain(&self) {
        let mut outlet = lock(&self.outlet);
        while let Some(ticket) = outlet.waiting.front().copied() {
            let sent = match self.pending.message(ticket) {
                Some(message) => self.send(&outlet, &message, ticket),
                None => true,
            };
            if !sent {
                return;
            }
            outlet.waiting.pop_front();
        }
    }

    fn replace_if_broken(&self) {
        let mut outlet = lock(&self.outlet);
        if let Some(producer) = &outlet.producer {
            if !producer.context().broken.load(Ordering::Acquire) {
                return;
            }
            let why = producer.client().fatal_error();
            let (code, why) = why.unwrap_or((Code::Fatal, "no reason was given".into()));
            tracing::warn!(target: "sillage_kafka", %code, why, "the producer is replaced");
        }
        self.give_up(&mut outlet);
        match self.producer() {
            Ok(producer) => outlet.producer = Some(producer),
            Err(error) => tracing::error!(target: "sillage_kafka", %error, "no producer"),
        }
    }

    /// Lets the producer go: nothing of it is heard any more, all that waits is answered.
    fn give_up(&self, outlet: &mut Outlet) {
        if let Some(producer) = outlet.producer.take() {
            producer.context().replaced.store(true, Ordering::Release);
            // Purges what was not sent, then blocks for up to half a second.
            let dropped =
                thread::Builder::new().name("kafka-replaced".into()).spawn(|| drop(producer));
            if let Err(error) = dropped {
                tracing::warn!(target: "sillage_kafka", %error, "a producer was dropped in place");
            }
        }
        outlet.waiting.clear();
        self.pending.fail_all(|topic| unpublished(Code::Fatal, topic));
    }

    fn end(&self) {
        self.give_up(&mut lock(&self.outlet));
    }
}

/// Hears what was confirmed while so many were handed over, and about as many more, so that it keeps pace.
fn hear(producer: &BaseProducer<Context>, count: usize) {
    let mut left = producer.in_flight_count();
    let enough = left.saturating_sub_unsigned(u32::try_from(2 * count).unwrap_or(u32::MAX));
    while left > DEEP.max(enough) {
        producer.poll(Duration::ZERO);
        let before = mem::replace(&mut left, producer.in_flight_count());
        if left >= before {
            return;
        }
    }
}

/// Of what was handed over much is not confirmed.
fn is_deep(producer: &BaseProducer<Context>) -> bool {
    producer.in_flight_count() > DEEP
}

fn headers(message: &Message) -> OwnedHeaders {
    let mut headers = Some(OwnedHeaders::new_with_capacity(ATTRIBUTES + message.headers.len()));
    Binding::KAFKA.write(message, |key, value| {
        let header = Header { key, value: Some(value) };
        headers = headers.take().map(|headers| headers.insert(header));
    });
    headers.unwrap_or_default()
}

/// The receipt of a message that Kafka has taken.
fn receipt(message: &Message, number: u32, offset: Option<u64>) -> Receipt {
    let partition = message.topic.clone().map(|topic| Partition { topic, number });
    Receipt { partition, offset: offset.map(Offset) }
}
