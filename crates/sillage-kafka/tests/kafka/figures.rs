//! The client's figures reach whatever recorder the process has installed.

use crate::support::{Member, PATIENCE, make, numbers, publish, unique, url_with};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString,
    Unit,
};
use sillage_kafka::Kafka;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};
use tokio::sync::watch;

/// The last value of each metric, by its name and labels.
#[derive(Clone, Debug, Default)]
struct Values(Arc<watch::Sender<BTreeMap<String, f64>>>);

#[derive(Debug)]
struct Value(Values, String);

impl Value {
    fn set(&self, value: f64) {
        self.0.0.send_modify(|values| {
            values.insert(self.1.clone(), value);
        });
    }
}

impl CounterFn for Value {
    fn increment(&self, _: u64) {}
    #[allow(clippy::cast_precision_loss)]
    fn absolute(&self, value: u64) {
        self.set(value as f64);
    }
}

impl GaugeFn for Value {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, value: f64) {
        Value::set(self, value);
    }
}

impl Values {
    /// What all tests of this process record in.
    fn installed() -> Values {
        static ALL: OnceLock<Values> = OnceLock::new();
        let install = || {
            let values = Values::default();
            metrics::set_global_recorder(values.clone()).unwrap();
            values
        };
        ALL.get_or_init(install).clone()
    }

    fn of(&self, key: &Key) -> Arc<Value> {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        Arc::new(Value(self.clone(), key.name().to_owned() + &labels.collect::<String>()))
    }

    async fn until(&self, name: &str, is_it: impl Fn(f64) -> bool) {
        let mut values = self.0.subscribe();
        let reached = values.wait_for(|values| values.get(name).copied().is_some_and(&is_it));
        let reached = tokio::time::timeout(PATIENCE, reached).await.is_ok();
        assert!(reached, "{name}: {:?}", self.0.borrow());
    }
}

impl Recorder for Values {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_queues_and_lag_are_metrics() {
    let Some(url) = url_with("rdkafka.statistics.interval.ms=50") else { return };
    let values = Values::installed();
    let kafka = Kafka::connect(&url).await.unwrap();
    let (topic, consumer) = (unique("topic"), unique("consumer"));
    make(&kafka, &topic, 1).await;
    publish(&kafka, &topic, "a", numbers(0..10)).await;
    // Other tests publish in this process, too, but none reads this topic.
    values.until("sillage_kafka_brokers_up client=publisher", |up| up >= 1.0).await;
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    member.take(10).await;
    let received = format!("sillage_kafka_messages_received_total client={consumer}");
    values.until(&received, |count| count >= 10.0).await;
    let lag = format!("sillage_kafka_lag client={consumer} topic={topic} partition=0");
    member.settle_all().await;
    values.until(&lag, |lag| lag < 0.5).await;
    publish(&kafka, &topic, "a", numbers(10..15)).await;
    values.until(&lag, |lag| (4.5..5.5).contains(&lag)).await;
    member.close().await;
}

/// A member that takes less than there is makes the client wait, and fetch nothing a second time.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_slow_member_is_fetched_once() {
    const ALL: u64 = 60_000;
    let Some(url) = url_with("rdkafka.statistics.interval.ms=50") else { return };
    let values = Values::installed();
    let kafka = Kafka::connect(&url).await.unwrap();
    let (topic, consumer) = (unique("topic"), unique("consumer"));
    make(&kafka, &topic, 1).await;
    publish(&kafka, &topic, "a", numbers(0..1)).await;
    // It has begun before: to begin takes finding one's place, and fetching from there again.
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    member.take(1).await;
    member.settle_all().await;
    member.close().await;
    publish(&kafka, &topic, "a", numbers(1..ALL + 1)).await;
    let mut member = Member::join(&kafka, &consumer, &topic).await;
    member.take(1).await;
    let received = format!("sillage_kafka_messages_received_total client={consumer}");
    values.until(&received, |count| count >= 10_000.0).await;
    assert_eq!(member.take(60_000).await, numbers(1..ALL + 1).collect::<Vec<_>>());
    values.until(&received, |count| count >= 60_000.0).await;
    values.until(&received, |count| count < 60_001.0).await;
    member.close().await;
}
