//! The client's own figures as metrics, for whatever recorder the process has installed.
//!
//! | metric | says | labels |
//! |---|---|---|
//! | `sillage_kafka_messages_sent_total`, `…_received_total` | messages of this client | `client` |
//! | `sillage_kafka_bytes_sent_total`, `…_received_total` | on the network, with requests | `client` |
//! | `sillage_kafka_queued_messages`, `…_queued_bytes` | handed over and not yet confirmed | `client` |
//! | `sillage_kafka_rebalances_total` | of the group | `client` |
//! | `sillage_kafka_brokers_up` | connections that work | `client` |
//! | `sillage_kafka_round_trip_seconds` | of requests, the last period | `client`, `broker`, `quantile` |
//! | `sillage_kafka_lag` | messages behind what is settled | `client`, `topic`, `partition` |
//!
//! `client` is a consumer's name, or `publisher`.

use metrics::{counter, gauge};
use rdkafka::Statistics;
use sillage_core::Text;

/// How often the client tells them, in milliseconds, unless the URL says another time.
pub(crate) const EVERY: &str = "15000";

/// Tells the recorder what the client told.
pub(crate) fn tell(client: &Text, json: &[u8]) {
    let said: Statistics = match serde_json::from_slice(json) {
        Ok(said) => said,
        Err(error) => {
            return tracing::debug!(target: "sillage_kafka", %error, "figures cannot be read");
        }
    };
    tracing::debug!(target: "sillage_kafka::statistics", "{}", String::from_utf8_lossy(json));
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    let client = || client.to_string();
    counter!("sillage_kafka_messages_sent_total", "client" => client())
        .absolute(count(said.txmsgs));
    counter!("sillage_kafka_messages_received_total", "client" => client())
        .absolute(count(said.rxmsgs));
    counter!("sillage_kafka_bytes_sent_total", "client" => client()).absolute(count(said.tx_bytes));
    counter!("sillage_kafka_bytes_received_total", "client" => client())
        .absolute(count(said.rx_bytes));
    gauge!("sillage_kafka_queued_messages", "client" => client()).set(float(said.msg_cnt));
    gauge!("sillage_kafka_queued_bytes", "client" => client()).set(float(said.msg_size));
    if let Some(group) = &said.cgrp {
        counter!("sillage_kafka_rebalances_total", "client" => client())
            .absolute(count(group.rebalance_cnt));
    }
    let up = said.brokers.values().filter(|broker| broker.state == "UP").count();
    gauge!("sillage_kafka_brokers_up", "client" => client()).set(float(up as u64));
    round_trips(&said, &client);
    lag(&said, &client);
}

fn round_trips(said: &Statistics, client: &impl Fn() -> String) {
    // What is not in the cluster's list of brokers is known by its address only, and is there twice.
    for broker in said.brokers.values().filter(|broker| broker.nodeid >= 0) {
        let Some(trip) = &broker.rtt else { continue };
        for (quantile, micros) in [("0.5", trip.p50), ("0.99", trip.p99)] {
            let name = broker.nodename.clone();
            let micros = u64::try_from(micros).unwrap_or(0);
            gauge!(
                "sillage_kafka_round_trip_seconds",
                "client" => client(), "broker" => name, "quantile" => quantile
            )
            .set(float(micros) / 1e6);
        }
    }
}

fn lag(said: &Statistics, client: &impl Fn() -> String) {
    for topic in said.topics.values() {
        // Below zero: not assigned to this member, or not known yet.
        for partition in topic.partitions.values() {
            if let Ok(behind) = u64::try_from(partition.consumer_lag_stored) {
                let (topic, number) = (topic.topic.clone(), partition.partition.to_string());
                gauge!(
                    "sillage_kafka_lag",
                    "client" => client(), "topic" => topic, "partition" => number
                )
                .set(float(behind));
            }
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn float(count: u64) -> f64 {
    count as f64
}
