//! Apache Kafka as the broker of Sillage.
//!
//! ```no_run
//! # use sillage_core::{Broker, Message, Result};
//! # use std::sync::Arc;
//! # async fn example(message: Arc<Message>) -> Result<()> {
//! let kafka = sillage_kafka::Kafka::connect("kafka://localhost:9092?partitions=12").await?;
//! let receipts = kafka.publish(vec![message]).await;
//! # Ok(())
//! # }
//! ```
//!
//! The URL is `kafka://host:port[,host:port]?…`, with these parameters:
//!
//! | parameter | says |
//! |---|---|
//! | `partitions`, `replication`, `retention` | how missing topics are made: 12, as the cluster does, as the cluster does unless said; `retention=7d`, `12h`, `30m`, `90s`, `forever` |
//! | `create_topics=false` | missing topics are an error |
//! | `security` | `plaintext` (unless said), `tls`, `sasl_plaintext`, `sasl_tls` |
//! | `mechanism` | `PLAIN` (unless said), `SCRAM-SHA-256`, `SCRAM-SHA-512` |
//! | `user`, `password_env` | who comes in, and which variable of the environment has the password; or `user:password@` before the host |
//! | `ca` | a file of certificates to trust instead of the system's |
//! | `rdkafka.<property>` | any property of librdkafka's but those that would break a promise |
//!
//! The client's figures are told every 15 s (`rdkafka.statistics.interval.ms=0`: never) to the
//! recorder of the crate `metrics` that the process has installed: messages and bytes, what is
//! queued, round trips, rebalances and lag, as `sillage_kafka_…`.
//!
//! TLS and SCRAM need the feature `ssl` (the system's OpenSSL) or `ssl-vendored`.
//!
//! *Guarantees.* **Order**: messages of one key are in the order in which they were published, also
//! over retries: one idempotent producer without gaps, keys placed as Kafka's Java client does.
//! What Kafka would not take is refused in the call and touches nothing else; if a producer breaks
//! all the same, everything unconfirmed is answered [`Unknown`](sillage_core::PublishError), and a
//! fresh one begins. **Duplicates**: publishing again after `Unknown` may double; (source, id)
//! tells. A record without an id gets one of its topic, partition, offset and time. **Crash**: only
//! what was settled is committed, on a timer of half a second, when a partition is given back, and
//! at the end; the rest comes again. Where a consumer starts is committed before the first delivery.
//! **Nothing is skipped**: where retention passed a consumer, its partition stops, and `next` says
//! so again and again, with the offsets and the command that accepts the loss; the others go on.
//! Likewise where Kafka has forgotten how far a consumer is that its own database knows of, unless it
//! would start there anyway: from its start on it would handle again what its inbox does not remember any
//! more. A topic that is shorter than
//! that, or has nothing from before, was made anew and is read from its start.
//! No record stops a partition: one without readable headers comes with what it says. An empty
//! payload is a deletion (a null value) on compacted topics, and the other way round. **A client
//! that hangs is replaced**: one that has nothing for three session time-outs, or cannot commit, while
//! Kafka answers and its group does not know it, is given up for a fresh one, and that is told. The
//! group knows it by `client.id`, which is `sillage-` and a random number; where the URL sets another,
//! as quotas need, let it differ from member to member. **Without a leader** nothing of a partition
//! comes, and `next` says so again and again; the others go on once Kafka knows that it has none.
//!
//! *Limits.* Kafka forgets the offsets of a group that has no member for `offsets.retention.minutes`, 7
//! days unless set. Without a database nobody else knows them: the consumer begins where it would if it
//! were new. Where a topic has transactions of others, and retention has removed all of it behind the
//! last message, the mark behind that looks like a lost message. While one partition is drained for
//! another member, the client holds back the others of this member too, for as long as that takes. A broadcast does not see partitions that are made
//! later. New partitions move keys: [`ensure`](sillage_core::Broker::ensure) tells of another number
//! and leaves it. After a lost range is accepted the consumer has to be started again. A topic that
//! is smaller in `max.message.bytes` than the cluster should be known to `ensure`: else the first
//! message that is too large for it breaks the producer once. A process that aborts at a panic also
//! does at a header whose name is not UTF-8.

mod admin;
mod config;
mod error;
mod figures;
mod offsets;
mod publisher;
mod receiver;
mod settler;
mod watch;

use admin::{Admin, blocking};
use config::Config;
use publisher::Publisher;
use sillage_core::{
    BoxFuture, Broker, Capabilities, Message, Progress, PublishError, Receipt, Result, Subscribed,
    Subscription, Text, TopicSpec, TopicStatus, TopologyDiff,
};
use std::{fmt, sync::Arc};

/// A Kafka cluster.
///
/// Dropping it does not block: what was handed over goes on being published for up to 5 s.
pub struct Kafka {
    config: Arc<Config>,
    publisher: Publisher,
    /// Kafka's id of it, where it has one.
    cluster: Option<Text>,
}

impl Kafka {
    /// Connects to the cluster of a URL, within 10 s or so; within a tokio runtime.
    ///
    /// # Errors
    /// `Invalid`: the URL, or TLS does not work. `Denied`: the user is not let in. `Unavailable`:
    /// no broker answers.
    pub async fn connect(url: &str) -> Result<Kafka> {
        let config = Arc::new(Config::parse(url)?);
        let asking = config.clone();
        let (cluster, largest) = blocking(move || Admin::new(&asking)?.check()).await?;
        let publisher = Publisher::start(config.clone(), largest)?;
        Ok(Kafka { config, publisher, cluster })
    }

    async fn ensure_all(&self, topics: Vec<TopicSpec>) -> Result<TopologyDiff> {
        let config = self.config.clone();
        let names: Vec<Text> = topics.iter().map(|topic| topic.name.clone()).collect();
        let (diff, limits) = blocking(move || {
            let admin = Admin::new(&config)?;
            Ok((admin.ensure(&topics)?, admin.limits(&names)))
        })
        .await?;
        match limits {
            Ok(limits) => self.publisher.limits().learn(limits),
            // Reading settings may be forbidden: then the broker's limit counts.
            Err(error) => tracing::info!(target: "sillage_kafka", %error, "limits of topics"),
        }
        Ok(diff)
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Broker for Kafka {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "Apache Kafka",
            ordered_by_key: true,
            replay: true,
            is_log: false,
            shared: true,
            assigns: true,
            offsets: true,
            cluster: self.cluster.clone(),
            max_message_bytes: self.publisher.limits().largest(),
        }
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        Box::pin(self.ensure_all(topics.to_vec()))
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        self.publisher.publish(batch)
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        Box::pin(receiver::subscribe(&self.config, subscription))
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        let (config, names) = (self.config.clone(), names.to_vec());
        Box::pin(blocking(move || Admin::new(&config)?.topics(&names)))
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        let (config, group, topics) = (self.config.clone(), consumer.to_owned(), topics.to_vec());
        Box::pin(blocking(move || Admin::progress(&config, &group, &topics)))
    }
}
