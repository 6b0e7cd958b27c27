//! With a broker outside the database: on real servers, where there are some.

use crate::fixture::{Fixture, Ran, created, shop, until};
use serde_json::Value;
use sillage::prelude::*;
use sillage_testkit::servers;
use std::sync::Arc;

/// A broker of its own for each test, on a server that others use too.
struct Outside {
    fixture: Fixture,
    url: String,
    name: &'static str,
    offsets: bool,
}

impl Outside {
    async fn on(variable: &str) -> Option<Self> {
        let server = servers::url(variable)?;
        let is_kafka = variable == "SILLAGE_TEST_KAFKA";
        let mark = if server.contains('?') { '&' } else { '?' };
        let fixture = Fixture::empty().await;
        let prefix = format!("cli-{}.", uuid::Uuid::new_v4());
        Some(Outside {
            fixture,
            url: format!("{server}{mark}prefix={prefix}&partitions=3"),
            name: if is_kafka { "Apache Kafka" } else { "RabbitMQ" },
            offsets: is_kafka,
        })
    }

    /// With the broker only.
    async fn run(&self, args: &[&str]) -> Ran {
        self.ran(self.fixture.bare(args), "").await
    }

    /// With both URLs.
    async fn both(&self, args: &[&str]) -> Ran {
        self.ran(self.fixture.command(args), "").await
    }

    async fn ran(&self, mut command: std::process::Command, input: &str) -> Ran {
        command.env("SILLAGE_BROKER", &self.url).env("SILLAGE_TIMEOUT", "60s");
        Ran::fed(command, input).await
    }

    async fn lines(&self, args: &[&str]) -> Vec<String> {
        let args = [&["tail", "order", "--until-end"][..], args].concat();
        let ran = self.run(&args).await.exits(0);
        ran.lines().into_iter().map(ToOwned::to_owned).collect()
    }

    async fn publish(&self, key: &str, number: u32) -> Value {
        let data = format!("{{\"order_id\":\"{key}\",\"note\":\"{number}\"}}");
        let args = ["publish", "order", "--name", "order.created", "--key", key, "--data", &data];
        self.run(&[&args[..], &["-o", "json"]].concat()).await.exits(0).json()
    }

    async fn consumers(&self) -> Vec<Value> {
        let listed = self.both(&["consumers", "lag", "-o", "json"]).await.exits(0).json();
        listed.as_array().unwrap().clone()
    }
}

async fn topics_are_made_and_shown(outside: &Outside) {
    let empty = outside.run(&["topics", "list", "-o", "json"]).await.exits(0);
    assert_eq!(empty.json(), serde_json::json!([]));
    let create = ["topics", "create", "order", "--partitions", "4", "-o", "json"];
    for made in [true, false] {
        let answer = outside.run(&create).await.exits(0).json();
        assert_eq!((&answer["created"], &answer["partitions"]), (&made.into(), &4.into()));
    }
    let other = ["topics", "create", "order", "--partitions", "5"];
    outside.run(&other).await.fails(5, "4 partitions");
    let shown = outside.run(&["topics", "show", "order", "-o", "json"]).await.exits(0).json();
    assert_eq!(shown["partitions"].as_array().unwrap().len(), 4);
    assert!(outside.run(&["topics", "show", "order"]).await.exits(0).out.contains("PARTITION"));
    outside.run(&["topics", "show", "nothing"]).await.fails(3, "no topic");
    outside.run(&["doctor"]).await.exits(0);
}

async fn what_is_published_straight_is_followed(outside: &Outside) {
    let publish = ["publish", "order", "--name", "order.created", "--data", "{}"];
    outside.run(&publish).await.fails(3, "has no topic `order`");
    outside.run(&["tail", "order"]).await.fails(3, "has no topic `order`");
    outside.run(&["topics", "create", "order"]).await.exits(0);
    assert_eq!(outside.lines(&["--fmt", "{data.note}"]).await, [""; 0]);
    for number in 0..6 {
        let published = outside.publish(&format!("o-{}", number % 2), number).await;
        assert_eq!(published["position"], Value::Null);
        assert_eq!(published["offset"].is_u64(), outside.offsets, "{published}");
    }
    let mut all = outside.lines(&["--fmt", "{data.note}"]).await;
    all.sort();
    assert_eq!(all, ["0", "1", "2", "3", "4", "5"]);
    let notes = ["--fmt", "{data.note}"];
    let from = |from| [&["--from", from][..], &notes].concat();
    assert_eq!(outside.lines(&from("-2")).await, ["4", "5"]);
    assert_eq!(outside.lines(&from("end")).await, [""; 0]);
    assert_eq!(outside.lines(&from("@-1h")).await.len(), 6);
    assert_eq!(outside.lines(&from("@-2h:-1h")).await, [""; 0]);
    assert_eq!(outside.lines(&[&["--key", "o-1"][..], &notes].concat()).await, ["1", "3", "5"]);
    let some = ["--where", "data.note=4", "--fmt", "{topic} {partition} {key}"];
    let some = outside.lines(&some).await;
    assert!(some.len() == 1 && some[0].starts_with("order ") && some[0].ends_with(" o-0"));
    let position = ["tail", "order", "--from", "3"];
    outside.run(&position).await.fails(2, "position of the log");

    // What tail writes, publish takes.
    let kept = outside.run(&["tail", "order", "--until-end", "-o", "jsonl"]).await.exits(0);
    let copy = outside.fixture.bare(&["publish", "-", "-o", "json"]);
    let copied = outside.ran(copy, &kept.out).await.exits(0).json();
    assert_eq!((&copied["published"], &copied["position"]), (&6.into(), &Value::Null));
    assert_eq!(outside.lines(&notes).await.len(), 12);
}

async fn an_app_is_looked_at_with_both_urls(outside: &Outside) {
    let broker = sillage::connect_broker(&outside.url).await.unwrap().unwrap();
    let app = App::new(outside.fixture.database().await).broker(broker);
    let app = app.service(shop(&Arc::default())).start().await.unwrap();
    app.service("shop").commit(publish(created("o-1"))).await.unwrap();
    let settled = || async {
        let consumers = outside.consumers().await;
        let done = |name: &str| {
            let one = consumers.iter().find(|one| one["name"] == name);
            one.is_some_and(|one| one["lag"] == 0 && one["tally"]["done"] != 0)
        };
        done("shop/billing") && done("shop/orders") && done("broker/relay")
    };
    until(settled).await;
    outside.both(&["doctor"]).await.exits(0);
    let topics = outside.both(&["topics", "list"]).await.exits(0);
    assert!(topics.out.contains("shop/billing"), "{}", topics.out);
    app.drain().await;

    // One waits at the broker, and one in the log, for the relay.
    outside.publish("o-2", 2).await;
    let data = ["--name", "order.created", "--key", "o-3", "--data", "{}"];
    outside.both(&[&["publish", "order"][..], &data].concat()).await.exits(0);
    let waiting = || async {
        let consumers = outside.consumers().await;
        let lag = |name: &str| {
            consumers.iter().find(|one| one["name"] == name).map(|one| one["lag"].clone())
        };
        lag("shop/billing") == Some(1.into()) && lag("broker/relay") == Some(1.into())
    };
    until(waiting).await;
    let limit = |name| ["consumers", "lag", name, "--max-messages", "0"];
    outside.both(&limit("billing")).await.fails(8, "wait for shop/billing");
    outside.both(&limit("relay")).await.fails(8, "wait for broker/relay");
    let watch =
        ["consumers", "lag", "billing", "--watch", "--every", "100ms", "--max-seconds", "0"];
    let watch = outside.both(&watch).await;
    if outside.offsets {
        watch.fails(8, "a message has waited");
    } else {
        let watch = watch.fails(2, "the oldest message of shop/billing is not known");
        assert!(watch.lines()[1].contains('?'), "{}", watch.out);
    }

    // Without the broker, nobody knows.
    let reads = format!("reads from {}", outside.name);
    outside.fixture.run(&limit("billing")).await.fails(2, &reads);
    let listed = outside.fixture.run(&["consumers", "list"]).await.exits(0);
    assert!(listed.out.contains('?') && listed.err.contains("--broker URL"), "{}", listed.err);
    let doctor = outside.fixture.run(&["doctor"]).await.exits(8);
    assert!(doctor.out.contains("no broker is named"), "{}", doctor.out);
    let log = ["tail", "--broker", "embedded", "--until-end", "--fmt", "{position}"];
    assert!(outside.both(&log).await.exits(0).lines().len() >= 3);
}

macro_rules! on {
    ($server:ident, $variable:literal, $($test:ident),*) => {
        mod $server {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    let Some(outside) = super::Outside::on($variable).await else { return };
                    super::$test(&outside).await;
                }
            )*
        }
    };
}

#[cfg(feature = "kafka")]
on!(
    kafka,
    "SILLAGE_TEST_KAFKA",
    topics_are_made_and_shown,
    what_is_published_straight_is_followed,
    an_app_is_looked_at_with_both_urls
);

#[cfg(feature = "rabbitmq")]
on!(
    rabbitmq,
    "SILLAGE_TEST_RABBITMQ",
    topics_are_made_and_shown,
    what_is_published_straight_is_followed,
    an_app_is_looked_at_with_both_urls
);
