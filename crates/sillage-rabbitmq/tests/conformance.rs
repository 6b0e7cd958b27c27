//! The promises of every broker, on a real RabbitMQ: `SILLAGE_TEST_RABBITMQ` says where one is.
//!
//! A consumer of RabbitMQ begins when its queues are first made. So most promises are tried with
//! consumers that were there before; where one begins, with new ones.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used)]

use futures_util::FutureExt as _;
use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};
use sillage_core::{
    BoxFuture, Broker, Capabilities, Message, Progress, PublishError, Receipt, Result, Start,
    Subscribed, Subscription, Text, TopicSpec, TopicStatus, TopologyDiff,
};
use sillage_rabbitmq::RabbitMq;
use sillage_testkit::{
    conformance::{self, BrokerFixture},
    servers,
};
use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{Arc, Mutex},
};

/// Each of these, with a fixture of its own.
macro_rules! promises {
    ($are_known:literal; $($test:ident,)+) => {$(
        #[test]
        fn $test() {
            let Some(url) = servers::url("SILLAGE_TEST_RABBITMQ") else { return };
            conformance::run(async {
                let fixture = Server { url, are_known: $are_known, made: Made::default() };
                let test = AssertUnwindSafe(conformance::broker::$test(&fixture));
                let ended = test.catch_unwind().await;
                fixture.clean().await;
                ended.unwrap_or_else(|panic| resume_unwind(panic));
            });
        }
    )+};
}

promises! { true;
    a_message_arrives_whole,
    a_large_message_arrives_whole,
    receipts_come_in_the_order_of_the_batch,
    a_message_over_the_limit_is_refused_alone,
    hostile_names_and_headers_are_harmless,
    a_key_arrives_in_the_order_of_publishing,
    batches_in_flight_keep_their_order,
    what_is_published_first_comes_first_whoever_waits_for_it,
    messages_without_a_key_arrive_once_each,
    a_key_is_in_one_partition,
    a_call_that_is_dropped_at_any_moment_loses_and_doubles_nothing,
    a_paused_partition_waits_and_the_others_go_on,
    pauses_at_any_moment_lose_and_double_nothing,
    what_was_settled_does_not_come_again,
    what_was_not_settled_comes_again,
    the_settled_place_never_passes_what_is_unfinished,
    a_member_that_is_gone_without_a_word_loses_nothing,
    what_is_given_up_comes_again_from_the_settled_place,
    no_old_batch_comes_behind_a_new_assignment,
    nothing_settled_is_harmless,
    consumers_each_get_everything,
    members_share_the_work,
    a_joining_member_gets_a_share,
    a_leaving_members_share_goes_on,
    members_that_come_and_go_keep_the_order,
    // Not `progress_tells_what_is_settled`, nor `progress_is_each_consumers_own`: the server
    // counts what waits in a queue, without what a member holds.
}

promises! { false;
    a_consumer_starts_at_the_latest_message,
    where_a_consumer_starts_is_stored_once,
    a_broadcast_reaches_every_member,
    a_broadcast_stores_nothing,
    topics_are_made_once,
    topics_are_made_once_by_many,
    other_partitions_are_told_and_left_alone,
    topics_tell_what_there_is,
}

/// What a test made on the server: queues and exchanges.
type Made = Arc<Mutex<(BTreeSet<String>, BTreeSet<String>)>>;

struct Server {
    url: String,
    are_known: bool,
    made: Made,
}

impl Server {
    async fn clean(&self) {
        let raw = Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap();
        let channel = raw.create_channel().await.unwrap();
        let (queues, exchanges) = self.made.lock().unwrap().clone();
        for queue in queues {
            let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
            deleted.await.unwrap();
        }
        for exchange in exchanges {
            let deleted =
                channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
            deleted.await.unwrap();
        }
    }
}

impl BrokerFixture for Server {
    async fn open(&self) -> Arc<dyn Broker> {
        let broker = RabbitMq::connect(&self.url).await.unwrap();
        Arc::new(Watched { broker, are_known: self.are_known, made: self.made.clone() })
    }
}

/// Notes what is made, and makes the suite's consumers with their topics where they are known.
struct Watched {
    broker: RabbitMq,
    are_known: bool,
    made: Made,
}

impl Watched {
    fn note(&self, topic: &str, consumers: &[Text]) {
        let (queues, exchanges) = &mut *self.made.lock().unwrap();
        exchanges.insert(topic.to_owned());
        queues.extend([format!("{topic}.partitions"), format!("{topic}.stream")]);
        for consumer in consumers {
            queues.insert(format!("{consumer}/dead"));
            queues.extend((0..12).map(|number| format!("{consumer}/{topic}/{number}")));
        }
    }
}

impl Broker for Watched {
    fn capabilities(&self) -> Capabilities {
        // A new consumer cannot read what was there before: only a broadcast can.
        Capabilities { replay: false, ..self.broker.capabilities() }
    }

    fn ensure<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<TopologyDiff>> {
        Box::pin(async move {
            let diff = self.broker.ensure(topics).await?;
            for TopicSpec { name, .. } in topics {
                let consumers =
                    ["billing", "email"].map(|consumer| format!("{name}/{consumer}").into());
                self.note(name, &consumers);
                for consumer in consumers.into_iter().filter(|_| self.are_known) {
                    let (topics, start) = (vec![name.clone()], Start::Earliest);
                    let known = Subscription { consumer, topics, start, broadcast: false };
                    self.broker.subscribe(known).await?;
                }
            }
            Ok(diff)
        })
    }

    fn publish(
        &self,
        batch: Vec<Arc<Message>>,
    ) -> BoxFuture<'static, Vec<Result<Receipt, PublishError>>> {
        self.broker.publish(batch)
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<Subscribed>> {
        self.broker.subscribe(subscription)
    }

    fn topics<'a>(&'a self, names: &'a [Text]) -> BoxFuture<'a, Result<Vec<TopicStatus>>> {
        self.broker.topics(names)
    }

    fn progress<'a>(
        &'a self,
        consumer: &'a str,
        topics: &'a [Text],
    ) -> BoxFuture<'a, Result<Vec<Progress>>> {
        self.broker.progress(consumer, topics)
    }
}
