//! RabbitMQ as a broker: partitions as quorum queues, and order kept through every hand-over.
//!
//! ```no_run
//! # use sillage_core::{Broker, Message, PublishError, Start, Subscription, TopicSpec};
//! # use sillage_rabbitmq::RabbitMq;
//! # use std::sync::Arc;
//! # async fn example(message: Arc<Message>) -> Result<(), Box<dyn std::error::Error>> {
//! let broker = RabbitMq::connect("amqp://shop:secret@localhost:5672?partitions=12").await?;
//! let subscription = Subscription {
//!     consumer: "payment/charge".into(),
//!     topics: vec!["order".into()],
//!     start: Start::Latest,
//!     broadcast: false,
//!     reached: vec![],
//! };
//! broker.ensure(&[TopicSpec { name: "order".into(), partitions: None }]).await?;
//! let (mut receiver, settler) = broker.subscribe(subscription).await?;
//! let receipts = broker.publish(vec![message]).await;
//! # Ok(())
//! # }
//! ```
//!
//! # The URL
//!
//! `amqp://user:password@host:port/vhost?…`, or `amqps://…` for TLS. An empty virtual host is `/`.
//!
//! | parameter | default | |
//! |---|---|---|
//! | `partitions` | 12 | of topics that are made without saying how many, 1 to 256 |
//! | `stream` | `true` | whether topics of events have a stream, which broadcasts read |
//! | `retention` | `7d` | how long streams keep messages: `90s`, `30m`, `12h`, `7d` |
//! | `delivery_limit` | none | deliveries of a message after which it goes to `<consumer>/dead` |
//! | `heartbeat` | 10 | seconds of silence after which a connection counts as lost, at most twice |
//! | `ca` | the system's | a file of certificates (PEM) that are trusted besides |
//!
//! # On the server
//!
//! A topic is a durable topic exchange. A message is published to it with the routing key
//! `<partition>.<name>`; its partition is the hash of its key (murmur2, as on Kafka), or of its id
//! where it has none. A consumer has one quorum queue per partition, `<consumer>/<topic>/<n>`.
//! Services that do not use Sillage bind queues of their own with `#` or `*.order.created`, and
//! publish with such a routing key: one without a number before the name reaches no consumer.
//! How many partitions a topic has is fixed by who makes it first: it is the `x-max-length` of the
//! empty queue `<topic>.partitions`.
//!
//! # Guarantees
//!
//! *Order.* Messages of a key arrive in the order of publishing. (The server takes each by itself:
//! who publishes the second of a key before the first is confirmed must publish both again, in
//! order, where the first fails.) What was delivered and not settled comes again in order: a partition that is
//! released, or whose connection was lost, has its channel closed, and no consumer is ever
//! cancelled, nor a delivery rejected.
//!
//! *Loss.* A message is published when a majority of each queue's nodes has it. One whose
//! confirmation does not come is [`PublishError::Unknown`]. A command that no queue takes is
//! refused; an event is published also where nobody is there to receive it. What a delivery limit
//! puts aside is kept in `<consumer>/dead`.
//!
//! *Duplicates.* Publishing again may double a message, and what is delivered and not settled when
//! a process or a connection dies comes again: consumers with a database recognise both by the
//! message's id. A foreign message without an id gets one of its own at each delivery, so it is
//! not recognised.
//!
//! *Crash.* A process that dies loses its connection, a hung one within two heartbeats; the
//! server then gives its partitions to whoever has opened them. One active consumer per queue is
//! the net below: two members that both think a partition theirs never receive it at once.
//!
//! *Faults.* A lost connection is told as [`Inbound::Lost`] at once, and made again with growing
//! pauses up to 10 s; partitions that were open are [`Inbound::Assigned`] again. A queue that is
//! broken or deleted is named in an error, and the other partitions flow.
//!
//! # Limits
//!
//! - **A consumer begins with what is published after its queues were made**, at its first
//!   [`subscribe`](Broker::subscribe), whatever its [`Start`]. History is read by broadcasts.
//! - An attempt to connect to something that takes the connection and never answers, as a load balancer
//!   without a server behind it may do, leaves a thread of the client until that ends the connection: some
//!   four a minute for each consumer, and for publishing.
//! - Partitions are not shared out: whoever opens them receives them, so members need leases in a
//!   database, or one member opens all.
//! - A broadcast is one stream per topic: while one of its partitions is paused, the topic stands.
//!   [`Start::Last`] counts over all partitions of a topic, and [`Start::Since`] begins up to one
//!   chunk earlier. Topics of commands (`….commands`) have no stream: it would take a command that
//!   nobody else does.
//! - Up to 1,024 deliveries of a partition are under way at once, and kept in memory.
//! - [`Broker::progress`] counts what waits in queues, without what members hold. `topics` finds
//!   topics by name; without names, those this handle has seen: AMQP lists none.
//! - Headers arrive sorted by name, those of one name in their order. `CC` and `BCC` are refused,
//!   as RabbitMQ acts upon them; all headers of a message have at most 96 KiB.
//! - A delivery that stays unfinished for longer than the server's `consumer_timeout` (30 min)
//!   comes again, with all behind it. RabbitMQ 3.10 loses a quorum queue whose only node is killed
//!   within about five seconds after the queue was made.
//!
//! [`Inbound::Lost`]: sillage_core::Inbound::Lost
//! [`Inbound::Assigned`]: sillage_core::Inbound::Assigned
//! [`Start`]: sillage_core::Start
//! [`Start::Last`]: sillage_core::Start::Last
//! [`Start::Since`]: sillage_core::Start::Since

mod acks;
mod broadcast;
mod config;
mod connection;
mod error;
mod mailbox;
mod member;
mod publisher;
mod reading;
mod settler;
mod topology;
mod wire;

use broadcast::{Follower, Following};
use config::Config;
use connection::Link;
use mailbox::Incoming;
use member::Member;
use publisher::Publisher;
use settler::Outgoing;
use sillage_core::{
    BoxFuture, Broker, Capabilities, Limits, Message, Progress, PublishError, Receipt, Result,
    Subscribed, Subscription, Text, TopicSpec, TopicStatus, TopologyDiff,
};
use std::{fmt, sync::Arc};
use topology::Topology;

/// A RabbitMQ server as a broker.
///
/// Its methods must be awaited within a tokio runtime, on which its tasks run: a few for
/// publishing, one for each consumer, and a thread of the client's for each connection. It
/// has one connection for questions and one for publishing, and each subscription has one, so that
/// acknowledgements go on while the server is short of memory and reads no messages. Dropping it
/// ends publishing; subscriptions go on.
pub struct RabbitMq {
    config: Arc<Config>,
    topology: Arc<Topology>,
    publisher: Publisher,
}

impl RabbitMq {
    /// Connects to the server of a [URL](crate#the-url).
    ///
    /// # Errors
    /// `Invalid`: the URL has a mistake. `NotFound`: there is no such virtual host, or no
    /// file `ca`. `Denied`: a wrong name or password, or no right to the virtual host.
    /// `Unavailable`: there is no answer within about 10 s.
    pub async fn connect(url: &str) -> Result<RabbitMq> {
        let config = Arc::new(Config::parse(url)?);
        let topology = Arc::new(Topology::new(Link::new(config.clone(), "topology")));
        topology.connect().await?;
        let publishing = Link::new(config.clone(), "publishing");
        let publisher = Publisher::start(publishing, &topology);
        Ok(RabbitMq { config, topology, publisher })
    }

    async fn join(&self, subscription: Subscription) -> Result<Subscribed> {
        let Subscription { consumer, topics, start, broadcast, .. } = subscription;
        if broadcast {
            let topics = self.topology.with_partitions(&topics).await?;
            let link = Link::new(self.config.clone(), format!("broadcast {consumer}"));
            let incoming = Follower::join(link, consumer, topics, start).await?;
            let settler = Arc::new(Following(incoming.0.clone()));
            return Ok((Box::new(incoming), settler));
        }
        let partitions = self.topology.join(&consumer, &topics).await?;
        let link = Link::new(self.config.clone(), format!("consumer {consumer}"));
        let member = Arc::new(Member::new(link, consumer, partitions));
        Ok((Box::new(Incoming(member.clone())), Arc::new(Outgoing(member))))
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RabbitMq").field(&self.config).finish()
    }
}

impl Broker for RabbitMq {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "RabbitMQ",
            ordered_by_key: true,
            replay: self.config.stream,
            is_log: false,
            shared: true,
            assigns: false,
            offsets: false,
            cluster: None,
            max_message_bytes: Limits::default().message,
        }
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        Box::pin(self.topology.ensure(topics))
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        Box::pin(self.publisher.publish(batch))
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        Box::pin(self.join(subscription))
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        Box::pin(self.topology.topics(names))
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        Box::pin(self.topology.progress(consumer, topics))
    }
}
