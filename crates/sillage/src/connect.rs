//! From URLs to a database and a broker.

use sillage_core::{Broker, Database, Error, ErrorKind, Result};
use std::sync::Arc;

/// Opens the database of a URL: `sqlite:shop.db` (made when it is not there).
///
/// A URL of a backend that is not compiled in is an error that names the feature to add.
pub async fn connect(url: &str) -> Result<Arc<dyn Database>> {
    let (scheme, rest) = url.split_once(':').ok_or_else(|| {
        Error::invalid(format!("`{url}` is no database URL: expected `sqlite:FILE`"))
    })?;
    match scheme {
        "sqlite" => sqlite(rest.trim_start_matches("//")).await,
        "postgres" | "postgresql" => Err(missing(scheme, "postgres")),
        other => Err(Error::invalid(format!(
            "`{other}:` is no database that Sillage knows: expected `sqlite:FILE`"
        ))),
    }
}

/// Connects to the broker of a URL: `kafka://host:port[,host:port]`, `amqp://user:password@host` or
/// `amqps://…`. `embedded` is the database's own log: `None`, as [`App::broker`](crate::App::broker)
/// takes it.
///
/// A URL of a backend that is not compiled in is an error that names the feature to add.
pub async fn connect_broker(url: &str) -> Result<Option<Arc<dyn Broker>>> {
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

fn missing(scheme: &str, feature: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
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
