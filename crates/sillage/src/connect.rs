//! From URLs to a database and a broker.

use crate::prefix::Prefixed;
use sillage_core::{Broker, Database, Error, Result};
use std::sync::Arc;

/// What names a database, for people.
const DATABASES: &str = "`sqlite:FILE` or `postgres://user:password@host/database`";

/// Opens the database of a URL: `sqlite:shop.db` (made when it is not there), or
/// `postgres://user:password@host/database`, whose schema is made when it is not there: `sillage`, or
/// the one that `?schema=…` names.
///
/// A URL of a backend that is not compiled in is an error that names the feature to add.
pub async fn connect(url: &str) -> Result<Arc<dyn Database>> {
    let (scheme, rest) = url.split_once(':').ok_or_else(|| {
        Error::invalid(format!("`{url}` is no database URL: expected {DATABASES}"))
    })?;
    match scheme {
        "sqlite" => sqlite(rest.trim_start_matches("//")).await,
        "postgres" | "postgresql" => postgres(url).await,
        other => Err(Error::invalid(format!(
            "`{other}:` is no database that Sillage knows: expected {DATABASES}"
        ))),
    }
}

/// Connects to the broker of a URL: `kafka://host:port[,host:port]`, `amqp://user:password@host` or
/// `amqps://…`. `embedded` is the database's own log: `None`, as [`App::broker`](crate::App::broker)
/// takes it.
///
/// With `prefix=…` among its parameters, the names of topics and consumers have that prefix at the
/// broker, so that several systems can share it. A URL of a backend that is not compiled in is an
/// error that names the feature to add.
pub async fn connect_broker(url: &str) -> Result<Option<Arc<dyn Broker>>> {
    let (url, prefix) = without_prefix(url);
    let broker = connect_to(&url).await?;
    Ok(match prefix {
        Some(prefix) => {
            broker.map(|broker| -> Arc<dyn Broker> { Arc::new(Prefixed::new(broker, &prefix)) })
        }
        None => broker,
    })
}

/// A URL without the parameter `prefix`, and its value.
fn without_prefix(url: &str) -> (String, Option<String>) {
    let Some((start, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let is_it = |parameter: &&str| parameter.starts_with("prefix=");
    let (prefix, others): (Vec<_>, Vec<_>) = query.split('&').partition(is_it);
    let prefix = prefix.last().and_then(|parameter| parameter.strip_prefix("prefix="));
    let mark = if others.is_empty() { "" } else { "?" };
    (format!("{start}{mark}{}", others.join("&")), prefix.map(str::to_owned))
}

async fn connect_to(url: &str) -> Result<Option<Arc<dyn Broker>>> {
    match url.split_once(':').map_or(url, |(scheme, _)| scheme) {
        "embedded" => Ok(None),
        "kafka" => kafka(url).await.map(Some),
        "amqp" | "amqps" => rabbitmq(url).await.map(Some),
        other => Err(Error::invalid(format!(
            "`{other}` is no broker that Sillage knows: expected `embedded`, `kafka://…`, \
             `amqp://…` or `amqps://…`"
        ))),
    }
}

#[cfg(feature = "kafka")]
async fn kafka(url: &str) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(sillage_kafka::Kafka::connect(url).await?))
}

#[cfg(not(feature = "kafka"))]
fn kafka(_url: &str) -> std::future::Ready<Result<Arc<dyn Broker>>> {
    std::future::ready(Err(missing("kafka", "kafka")))
}

#[cfg(feature = "rabbitmq")]
async fn rabbitmq(url: &str) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(sillage_rabbitmq::RabbitMq::connect(url).await?))
}

#[cfg(not(feature = "rabbitmq"))]
fn rabbitmq(_url: &str) -> std::future::Ready<Result<Arc<dyn Broker>>> {
    std::future::ready(Err(missing("amqp", "rabbitmq")))
}

#[cfg(not(all(
    feature = "kafka",
    feature = "rabbitmq",
    feature = "postgres",
    feature = "sqlite"
)))]
fn missing(scheme: &str, feature: &str) -> Error {
    Error::new(
        sillage_core::ErrorKind::Unsupported,
        format!("`{scheme}:` needs the feature `{feature}` of `sillage`, which is not compiled in"),
    )
}

#[cfg(feature = "sqlite")]
async fn sqlite(path: &str) -> Result<Arc<dyn Database>> {
    let path = path.to_owned();
    let open = move || sillage_sqlite::Sqlite::open(path, Arc::new(crate::SystemClock));
    let opened = tokio::task::spawn_blocking(open).await;
    let opened =
        opened.map_err(|error| Error::unavailable("opening was cut off").because(error))?;
    Ok(Arc::new(opened?))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_path: &str) -> std::future::Ready<Result<Arc<dyn Database>>> {
    std::future::ready(Err(missing("sqlite", "sqlite")))
}

#[cfg(feature = "postgres")]
async fn postgres(url: &str) -> Result<Arc<dyn Database>> {
    let clock = Arc::new(crate::SystemClock);
    Ok(Arc::new(sillage_postgres::Postgres::connect(url, clock).await?))
}

#[cfg(not(feature = "postgres"))]
fn postgres(_url: &str) -> std::future::Ready<Result<Arc<dyn Database>>> {
    std::future::ready(Err(missing("postgres", "postgres")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_taken_out_of_a_url() {
        for (url, left, prefix) in [
            ("kafka://h:1", "kafka://h:1", None),
            ("kafka://h:1?prefix=a.", "kafka://h:1", Some("a.")),
            ("kafka://h:1?partitions=3&prefix=a.&x=1", "kafka://h:1?partitions=3&x=1", Some("a.")),
        ] {
            assert_eq!(without_prefix(url), (left.to_owned(), prefix.map(str::to_owned)));
        }
    }
}
