//! From a URL to the settings of clients; what would break a promise is refused by name.

mod url;

use crate::{error, figures};
use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use sillage_core::{Error, Result};
use std::{env, fmt, time::Duration};
use url::Url;
use uuid::Uuid;

/// What a URL said.
#[derive(Clone)]
pub(crate) struct Config {
    /// `host:port`, separated by commas.
    pub(crate) servers: String,
    pub(crate) topics: Topics,
    /// What every client is told.
    shared: Vec<(String, String)>,
    /// What the URL passes through; the last word.
    passed: Vec<(String, String)>,
}

/// How topics are made.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    pub(crate) create: bool,
    /// What the URL asks for.
    pub(crate) partitions: Option<u32>,
    /// Copies of each partition; −1: as many as the cluster makes by itself.
    pub(crate) replication: i32,
    /// For `retention.ms`; `None`: the cluster's.
    pub(crate) retention: Option<i64>,
}

/// Partitions of a topic when nobody says.
pub(crate) const PARTITIONS: u32 = 12;

/// `session.timeout.ms` when nobody says.
const SESSION: &str = "10000";

/// What a URL may say, for people.
const KNOWN: &str = "partitions, replication, retention, create_topics, security, mechanism, user, \
                     password_env, ca, rdkafka.<property>";

impl Config {
    /// Reads a URL.
    ///
    /// # Errors
    /// `Invalid`: with what is wrong and what is known.
    pub(crate) fn parse(text: &str) -> Result<Config> {
        let url = Url::parse(text)?;
        let mut config = Config {
            servers: url.servers,
            topics: Topics { create: true, partitions: None, replication: -1, retention: None },
            shared: vec![],
            passed: vec![],
        };
        let mut access = Access { user: url.user, password: url.password, ..Access::default() };
        for (name, value) in url.parameters {
            config.parameter(&mut access, &name, value)?;
        }
        config.shared = access.properties()?;
        config.shared.push(("bootstrap.servers".into(), config.servers.clone()));
        Ok(config)
    }

    fn parameter(&mut self, access: &mut Access, name: &str, value: String) -> Result<()> {
        if let Some(property) = name.strip_prefix("rdkafka.") {
            refuse(property)?;
            self.passed.push((property.to_owned(), value));
            return Ok(());
        }
        match name {
            "partitions" => self.topics.partitions = Some(count(name, &value)?),
            "replication" => self.topics.replication = count(name, &value)?.cast_signed(),
            "retention" => self.topics.retention = Some(retention(&value)?),
            "create_topics" => self.topics.create = flag(name, &value)?,
            "security" => access.security = Some(Security::parse(&value)?),
            "mechanism" => access.mechanism = Some(value),
            "user" => access.user = Some(value),
            "password_env" => access.password = Some(variable(&value)?),
            "ca" => access.ca = Some(value),
            _ => return Err(invalid(format!("`{name}` is unknown: known are {KNOWN}"))),
        }
        Ok(())
    }

    /// For a client that only asks.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        let debugs = self.passed.iter().any(|(name, _)| name == "debug");
        client.set_log_level(if debugs { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
        client.set("client.id", "sillage").set("socket.keepalive.enable", "true");
        // Only in this way is a topic that does not exist told from one that was just made.
        client.set("allow.auto.create.topics", "false");
        for (name, value) in self.shared.iter().chain(&self.passed) {
            client.set(name, value);
        }
        client
    }

    /// How long a group waits for a sign of life of a member.
    pub(crate) fn session(&self) -> Duration {
        let passed = self.passed.iter().find(|(name, _)| name == "session.timeout.ms");
        let millis = passed.map_or(SESSION, |(_, value)| value);
        Duration::from_millis(millis.parse().unwrap_or(10_000))
    }

    /// For a client that reads a group's offsets and never joins it.
    pub(crate) fn observer(&self, group: &str) -> ClientConfig {
        let mut client = self.client();
        client.set("group.id", group).set("enable.auto.commit", "false");
        client
    }

    /// For a client that publishes, in batches of at most `batch` bytes, messages of at most
    /// `message` bytes.
    pub(crate) fn producer(&self, message: usize, batch: usize) -> ClientConfig {
        let mut client = self.client();
        for (name, value) in [
            ("enable.idempotence", "true"),
            ("enable.gapless.guarantee", "true"),
            ("acks", "all"),
            // Until it is confirmed: a message that is given up leaves a gap.
            ("message.timeout.ms", "0"),
            ("partitioner", "murmur2_random"),
            ("compression.type", "lz4"),
            ("linger.ms", "2"),
            ("statistics.interval.ms", figures::EVERY),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "262144"),
        ] {
            default(&mut client, &self.passed, name, value);
        }
        default(&mut client, &self.passed, "message.max.bytes", &message.to_string());
        default(&mut client, &self.passed, "batch.size", &batch.min(message).to_string());
        client
    }

    /// For a member of a group; one that is alone (`broadcast`) stores nothing.
    pub(crate) fn consumer(&self, group: &str, broadcast: bool) -> ClientConfig {
        let mut client = self.client();
        client.set("group.id", group);
        // The group's list of members has no other name of a client that this one knows of itself.
        let name = format!("sillage-{:08x}", Uuid::new_v4().as_fields().0);
        default(&mut client, &self.passed, "client.id", &name);
        client.set("enable.auto.commit", if broadcast { "false" } else { "true" });
        for (name, value) in [
            ("partition.assignment.strategy", "cooperative-sticky"),
            // What is finished is stored by us, and committed by the client: on this timer, when
            // a partition is given back, and at the end. Committing by hand during a rebalance
            // makes the group rebalance again.
            ("enable.auto.offset.store", "false"),
            ("auto.commit.interval.ms", "500"),
            // The default skips what was lost without a word.
            ("auto.offset.reset", "error"),
            ("session.timeout.ms", SESSION),
            ("heartbeat.interval.ms", "1000"),
            // The default, a second, stalls a consumer whenever its queue was full.
            ("fetch.queue.backoff.ms", "10"),
            ("queued.min.messages", "20000"),
            ("queued.max.messages.kbytes", "16384"),
            ("fetch.wait.max.ms", "250"),
            ("statistics.interval.ms", figures::EVERY),
        ] {
            default(&mut client, &self.passed, name, value);
        }
        client
    }
}

/// What is passed through comes before what is set by default.
fn default(client: &mut ClientConfig, passed: &[(String, String)], name: &str, value: &str) {
    if !passed.iter().any(|(said, _)| said == name) {
        client.set(name, value);
    }
}

impl fmt::Debug for Config {
    /// Without properties: passwords are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("servers", &self.servers)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

/// Properties that are not for URLs, and why.
const REFUSED: [(&str, &[&str]); 6] = [
    (
        "nothing may be lost or doubled on the way out",
        &[
            "acks",
            "delivery.timeout.ms",
            "enable.gapless.guarantee",
            "enable.idempotence",
            "message.send.max.retries",
            "message.timeout.ms",
            "queuing.strategy",
            "request.required.acks",
            "retries",
            "transactional.id",
        ],
    ),
    (
        "a key has the same partition whoever publishes it",
        &["partitioner", "partitioner_cb", "msg_order_cmp"],
    ),
    (
        "only what is finished is settled, and nothing is skipped",
        &[
            "auto.commit.enable",
            "auto.offset.reset",
            "enable.auto.commit",
            "enable.auto.offset.store",
            "enable.partition.eof",
            "isolation.level",
            "offset.store.method",
        ],
    ),
    (
        "the consumer's name is its group, and its members share the partitions",
        &[
            "group.id",
            "group.instance.id",
            "group.protocol",
            "group.remote.assignor",
            "partition.assignment.strategy",
        ],
    ),
    ("the broker's and the topics' limits are used", &["message.max.bytes"]),
    (
        "the URL has its own word for it",
        &[
            "allow.auto.create.topics",
            "bootstrap.servers",
            "metadata.broker.list",
            "sasl.mechanism",
            "sasl.mechanisms",
            "sasl.password",
            "sasl.username",
            "security.protocol",
            "ssl.ca.location",
        ],
    ),
];

fn refuse(property: &str) -> Result<()> {
    let refused = REFUSED.iter().find(|(_, properties)| properties.contains(&property));
    match refused {
        Some((why, _)) => Err(invalid(format!("`rdkafka.{property}` cannot be set: {why}"))),
        None => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Security {
    Plaintext,
    Tls,
    SaslPlaintext,
    SaslTls,
}

impl Security {
    fn parse(text: &str) -> Result<Security> {
        match text {
            "plaintext" => Ok(Security::Plaintext),
            "tls" => Ok(Security::Tls),
            "sasl_plaintext" => Ok(Security::SaslPlaintext),
            "sasl_tls" => Ok(Security::SaslTls),
            _ => Err(invalid(format!(
                "security is `{text}`: expected plaintext, tls, sasl_plaintext or sasl_tls"
            ))),
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Security::Plaintext => "plaintext",
            Security::Tls => "ssl",
            Security::SaslPlaintext => "sasl_plaintext",
            Security::SaslTls => "sasl_ssl",
        }
    }

    fn has_tls(self) -> bool {
        matches!(self, Security::Tls | Security::SaslTls)
    }

    fn has_user(self) -> bool {
        matches!(self, Security::SaslPlaintext | Security::SaslTls)
    }
}

/// How a client proves who it is.
#[derive(Default)]
struct Access {
    security: Option<Security>,
    mechanism: Option<String>,
    user: Option<String>,
    password: Option<String>,
    ca: Option<String>,
}

const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

impl Access {
    fn properties(self) -> Result<Vec<(String, String)>> {
        let security = self.security.unwrap_or(Security::Plaintext);
        if security.has_tls() && !cfg!(feature = "ssl") {
            return Err(without_ssl("TLS"));
        }
        let mut properties = vec![("security.protocol", security.protocol().to_owned())];
        if let Some(ca) = self.ca {
            if !security.has_tls() {
                return Err(invalid("`ca` is for TLS: add security=tls or security=sasl_tls"));
            }
            properties.push(("ssl.ca.location", ca));
        }
        let named = self.user.is_some() || self.password.is_some() || self.mechanism.is_some();
        if named && !security.has_user() {
            return Err(invalid(
                "a user is for SASL: add security=sasl_tls (or security=sasl_plaintext, where \
                 nobody else can read the network)",
            ));
        }
        if security.has_user() {
            let (Some(user), Some(password)) = (self.user, self.password) else {
                return Err(invalid("SASL needs `user` and `password_env` (or user:password@)"));
            };
            let mechanism = self.mechanism.unwrap_or_else(|| MECHANISMS[0].into());
            if !MECHANISMS.contains(&mechanism.as_str()) {
                let known = MECHANISMS.join(", ");
                return Err(invalid(format!("mechanism is `{mechanism}`: expected {known}")));
            }
            if mechanism != MECHANISMS[0] && !cfg!(feature = "ssl") {
                return Err(without_ssl(&mechanism));
            }
            properties.push(("sasl.mechanism", mechanism));
            properties.push(("sasl.username", user));
            properties.push(("sasl.password", password));
        }
        Ok(properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

fn without_ssl(what: &str) -> Error {
    invalid(format!(
        "{what} is not built in: add the feature `ssl` of sillage-kafka (or `ssl-vendored`, which \
         builds OpenSSL along)"
    ))
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|error| {
        invalid(format!("password_env names `{name}`, which is not in the environment"))
            .because(error)
    })
}

fn count(name: &str, value: &str) -> Result<u32> {
    let number = value.parse().ok().filter(|number| (1..=100_000).contains(number));
    number.ok_or_else(|| invalid(format!("{name} is `{value}`: expected 1 to 100000")))
}

fn flag(name: &str, value: &str) -> Result<bool> {
    let flag = value.parse().ok();
    flag.ok_or_else(|| invalid(format!("{name} is `{value}`: expected true or false")))
}

/// In milliseconds, as Kafka has it.
fn retention(value: &str) -> Result<i64> {
    if value == "forever" {
        return Ok(-1);
    }
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    let unit = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let millis = number.parse().ok().and_then(|number: i64| number.checked_mul(unit));
    millis.filter(|millis| *millis > 0).ok_or_else(|| {
        invalid(format!("retention is `{value}`: expected 7d, 12h, 30m, 90s or forever"))
    })
}

fn invalid(what: impl fmt::Display) -> Error {
    error::invalid(format!("Kafka's URL: {what}"))
}

#[cfg(test)]
mod tests;
