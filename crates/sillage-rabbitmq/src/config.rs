//! The URL: where the server is, and what topics and consumers are made with.

use lapin::{tcp::OwnedTLSConfig, uri::AMQPUri};
use sillage_core::{Error, ErrorKind, Result};
use std::{fmt, time::Duration};

/// Partitions of a topic that is made without saying how many.
const PARTITIONS: u32 = 12;
/// More are refused: each is a queue of each consumer.
const MOST_PARTITIONS: u32 = 256;
const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Seconds without a word after which the other side counts as gone.
const HEARTBEAT: u16 = 10;

/// A URL's meaning.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) uri: AMQPUri,
    pub(crate) tls: OwnedTLSConfig,
    /// Partitions of new topics.
    pub(crate) partitions: u32,
    /// How long streams keep messages.
    pub(crate) retention: Duration,
    /// Whether topics have a stream.
    pub(crate) stream: bool,
    /// Deliveries after which a message is set aside; `None`: never.
    pub(crate) delivery_limit: Option<u32>,
}

impl Config {
    /// Reads `amqp://user:password@host:port/vhost?…`.
    pub(crate) fn parse(url: &str) -> Result<Config> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        if address.contains("//[") || address.contains("@[") {
            return Err(invalid("its host is an IPv6 address; use a host name"));
        }
        let mut uri: AMQPUri = address.parse().map_err(|why: String| {
            invalid(&format!("expected amqp://user:password@host:port/vhost ({why})"))
        })?;
        if uri.vhost.is_empty() {
            uri.vhost.push('/');
        }
        uri.query.heartbeat = Some(HEARTBEAT);
        let mut config = Config {
            uri,
            tls: OwnedTLSConfig::default(),
            partitions: PARTITIONS,
            retention: RETENTION,
            stream: true,
            delivery_limit: None,
        };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            config.set(name, &decoded(value))?;
        }
        Ok(config)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let wrong = |expected: &str| invalid(&format!("`{name}={value}`: expected {expected}"));
        match name {
            "partitions" => {
                let count =
                    value.parse().ok().filter(|count| (1..=MOST_PARTITIONS).contains(count));
                self.partitions = count.ok_or_else(|| wrong("a number from 1 to 256"))?;
            }
            "retention" => {
                self.retention =
                    duration(value).ok_or_else(|| wrong("a time such as 7d, 12h, 30m or 90s"))?;
            }
            "stream" => {
                self.stream = value.parse().map_err(|_| wrong("true or false"))?;
            }
            "delivery_limit" => {
                let limit = value.parse().ok().filter(|limit| *limit > 0);
                self.delivery_limit = Some(limit.ok_or_else(|| wrong("a number from 1 on"))?);
            }
            "heartbeat" => {
                let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                let seconds = seconds.ok_or_else(|| wrong("seconds, from 1 on"))?;
                self.uri.query.heartbeat = Some(seconds);
            }
            "ca" => {
                let read = std::fs::read_to_string(value);
                self.tls.cert_chain = Some(read.map_err(|error| {
                    Error::new(ErrorKind::NotFound, format!("the RabbitMQ URL's `ca={value}`"))
                        .because(error)
                })?);
            }
            other => {
                return Err(invalid(&format!(
                    "unknown parameter `{other}`; there are partitions, retention, stream, \
                     delivery_limit, heartbeat and ca"
                )));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Config {
    /// Where the server is, without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri { scheme, authority, vhost, .. } = &self.uri;
        write!(f, "{scheme}://{}:{}/{}", authority.host, authority.port, vhost.trim_matches('/'))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Config({self})")
    }
}

/// The URL itself is not shown: it has the password in it.
fn invalid(why: &str) -> Error {
    Error::invalid(format!("the RabbitMQ URL is not usable: {why}"))
}

fn duration(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return None,
    };
    let count: u64 = text[..text.len() - 1].parse().ok().filter(|count| *count > 0)?;
    count.checked_mul(unit).map(Duration::from_secs)
}

/// Without the URL's `%XX`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let coded = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        let coded = coded.and_then(|code| u8::from_str_radix(code, 16).ok());
        let coded = coded.filter(|_| *first == b'%');
        bytes.push(coded.unwrap_or(*first));
        rest = if coded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::Config;
    use std::time::Duration;

    #[test]
    fn what_a_url_leaves_out_has_a_default() {
        let config = Config::parse("amqp://shop:s%40crt@mq").unwrap();
        assert_eq!(config.uri.authority.userinfo.password, "s@crt");
        assert_eq!((config.uri.authority.port, &*config.uri.vhost), (5672, "/"));
        assert_eq!((config.partitions, config.stream, config.delivery_limit), (12, true, None));
        assert_eq!(config.uri.query.heartbeat, Some(10));
        assert_eq!(config.to_string(), "amqp://mq:5672/");
        assert_eq!(Config::parse("amqps://mq/shop").unwrap().uri.authority.port, 5671);
    }

    #[test]
    fn parameters_are_read() {
        let url =
            "amqp://mq:1/?partitions=3&retention=12h&stream=false&delivery_limit=9&heartbeat=2";
        let config = Config::parse(url).unwrap();
        assert_eq!(config.uri.vhost, "/");
        assert_eq!((config.partitions, config.stream), (3, false));
        assert_eq!(config.retention, Duration::from_secs(12 * 60 * 60));
        assert_eq!((config.delivery_limit, config.uri.query.heartbeat), (Some(9), Some(2)));
    }

    #[test]
    fn a_mistake_is_named_and_the_password_is_not() {
        for (url, named) in [
            ("http://u:secret@mq", "http"),
            ("amqp://u:secret@[::1]", "IPv6"),
            ("amqp://u:secret@mq?partitons=3", "`partitons`"),
            ("amqp://u:secret@mq?partitions=0", "`partitions=0`"),
            ("amqp://u:secret@mq?partitions=257", "`partitions=257`"),
            ("amqp://u:secret@mq?retention=7w", "`retention=7w`"),
            ("amqp://u:secret@mq?stream=yes", "`stream=yes`"),
            ("amqp://u:secret@mq?delivery_limit=-1", "`delivery_limit=-1`"),
            ("amqp://u:secret@mq?heartbeat=0", "`heartbeat=0`"),
            ("amqps://u:secret@mq?ca=/no/such/file", "/no/such/file"),
        ] {
            let said = Config::parse(url).unwrap_err().to_string();
            assert!(said.contains(named) && !said.contains("secret"), "{url}: {said}");
        }
    }
}
