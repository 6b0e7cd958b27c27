//! What a run makes at a broker is removed at its end, also where the run fails.

use futures_util::FutureExt as _;
use std::panic::{AssertUnwindSafe, resume_unwind};

/// Runs it, then removes the topics with this prefix, and what the consumer `count` of this service
/// had there.
pub(crate) async fn removed<T>(
    broker: &str,
    prefix: &str,
    service: &str,
    run: impl Future<Output = T>,
) -> T {
    let ended = AssertUnwindSafe(run).catch_unwind().await;
    match broker.split(':').next() {
        #[cfg(feature = "kafka")]
        Some("kafka") => kafka(broker, prefix).await,
        #[cfg(feature = "rabbitmq")]
        Some("amqp") => rabbitmq(broker, prefix, service).await,
        _ => println!("what `{prefix}{service}` made stays"),
    }
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(feature = "kafka")]
async fn kafka(broker: &str, prefix: &str) {
    use rdkafka::{
        ClientConfig,
        admin::{AdminClient, AdminOptions},
        client::DefaultClientContext,
    };
    let servers = broker.trim_start_matches("kafka://").split('?').next().unwrap_or_default();
    let admin = ClientConfig::new().set("bootstrap.servers", servers).create();
    let admin: AdminClient<DefaultClientContext> = admin.expect("a client");
    let topics = ["bench", "bare"].map(|name| format!("{prefix}{name}"));
    let topics = topics.each_ref().map(|name| &**name);
    // One that was never made is as good as gone.
    admin.delete_topics(&topics, &AdminOptions::new()).await.expect("an answer");
}

#[cfg(feature = "rabbitmq")]
async fn rabbitmq(broker: &str, prefix: &str, service: &str) {
    use lapin::{
        Connection, ConnectionProperties,
        options::{ExchangeDeleteOptions, QueueDeleteOptions},
    };
    let connection = Connection::connect(broker, ConnectionProperties::default());
    let connection = connection.await.expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    let (topic, raw) = (format!("{prefix}bench"), format!("{prefix}raw"));
    let consumer = format!("{prefix}{service}/count");
    let mut queues = ["partitions", "stream"].map(|name| format!("{topic}.{name}")).to_vec();
    queues.push(format!("{consumer}/dead"));
    for number in 0..super::PARTITIONS {
        queues.extend([format!("{consumer}/{topic}/{number}"), format!("{raw}/{number}")]);
    }
    // One that was never made is as good as gone.
    for queue in queues {
        let gone = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
        gone.await.expect("no queue");
    }
    for exchange in [topic, raw] {
        let gone = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
        gone.await.expect("no exchange");
    }
}
