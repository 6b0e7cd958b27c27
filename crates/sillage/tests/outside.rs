//! Brokers outside the database: the relay, leases around a broker's assignments, copies of what
//! is followed, and the move away from the embedded broker.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Invoiced, Probe, created, foreign_order};
use sillage::{Broker, Clock as _, Filter, Message, prelude::*};
use sillage_testkit::{Held, MemoryBroker, TokioClock};
use std::{collections::HashMap, sync::Arc, time::Duration};

const BILLING: &str = "shop/billing";

async fn start(harness: &Harness, broker: &MemoryBroker, consumer: Consumer) -> Running {
    on(harness, broker, Service::new("shop").consumer(consumer)).await
}

async fn on(harness: &Harness, broker: &MemoryBroker, service: Service) -> Running {
    let broker: Arc<dyn Broker> = Arc::new(broker.clone());
    let app = App::new(harness.database()).broker(broker).clock(harness.clock.clone());
    app.service(service).start().await.unwrap()
}

/// Takes a while for each order, and invoices it.
fn billing(log: &Probe, who: &'static str) -> Consumer {
    slow_billing(log, who, ms(50))
}

fn slow_billing(log: &Probe, who: &'static str, takes: Duration) -> Consumer {
    let log = log.clone();
    Consumer::new("billing").on(move |order: Created| {
        let log = log.clone();
        async move {
            log.note(&format!("{who} has {}", order.order_id));
            TokioClock::default().sleep(takes).await;
            log.note(&format!("{who} {} {}", order.order_id, order.note));
            publish(Invoiced { order_id: format!("{} {}", order.order_id, order.note) })
        }
    })
}

async fn place(app: &Running, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let order = |key| Created { note: format!("{n:03}"), ..created(&format!("k{key}")) };
        let all: Effects = (0..20).map(|key| publish(order(key))).collect();
        app.service("shop").commit(all).await.unwrap();
    }
}

/// Somebody else publishes so many orders, each of a key of its own.
async fn deliver(broker: &MemoryBroker, prefix: &str, count: u32) {
    let orders = (0..count).map(|n| foreign_order(&format!("{prefix}{n}"))).collect();
    assert!(broker.publish(orders).await.iter().all(Result::is_ok));
}

async fn handled(harness: &Harness, deliveries: usize) {
    let invoices = || async { invoices(harness).await.len() >= deliveries };
    harness.until(invoices).await;
}

/// The notes of each order's key, as they were invoiced.
async fn invoices(harness: &Harness) -> Vec<(String, String)> {
    let filter = Filter { names: vec!["invoice.sent".into()], ..Filter::default() };
    let page = harness.database().log(Position(0), &filter, 100_000).await.unwrap();
    let parts = |entry: &Recorded| {
        let key = entry.key.as_ref().unwrap().to_string();
        let (key, note) = key.split_once(' ').unwrap();
        (key.to_owned(), note.to_owned())
    };
    page.entries.iter().map(parts).collect()
}

/// Each effect once, and per key in the order in which the orders were placed.
async fn assert_once_and_in_order(harness: &Harness, count: usize) {
    let invoices = invoices(harness).await;
    assert_eq!(invoices.len(), count);
    let mut keys: HashMap<String, Vec<String>> = HashMap::new();
    for (key, note) in invoices {
        keys.entry(key).or_default().push(note);
    }
    for (key, notes) in keys {
        assert!(notes.is_sorted_by(|one, next| one < next), "{key}: {notes:?}");
    }
}

fn of_all(partitions: Vec<Vec<Arc<Message>>>) -> Vec<Arc<Message>> {
    partitions.into_iter().flatten().collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_is_published_once_in_the_order_of_its_key() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(3, true), Probe::default());
    let app = start(&harness, &broker, billing(&log, "one")).await;
    place(&app, 0..30).await;
    handled(&harness, 600).await;
    for partition in broker.published("order") {
        let mut keys: HashMap<String, Vec<u64>> = HashMap::new();
        for message in &partition {
            let sequence = message.header("ce_sequence").unwrap();
            let sequence = std::str::from_utf8(sequence).unwrap().parse().unwrap();
            keys.entry(message.key.as_ref().unwrap().to_string()).or_default().push(sequence);
        }
        assert!(keys.values().all(|sequences| sequences.is_sorted()));
    }
    assert_eq!(of_all(broker.published("order")).len(), 600);
    assert_once_and_in_order(&harness, 600).await;
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_message_of_a_partition_is_settled() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(4, true), Probe::default());
    let app = start(&harness, &broker, billing(&log, "one")).await;
    app.service("shop").commit(publish(created("k1"))).await.unwrap();
    handled(&harness, 1).await;
    harness.settle().await;
    let settled = broker.progress(BILLING, &["order".into()]).await.unwrap();
    assert!(settled.iter().all(|progress| progress.lag == 0), "{settled:?}");
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn members_come_and_go_with_and_without_a_broker_that_assigns() {
    for assigns in [true, false] {
        let (harness, log) = (Harness::new(), Probe::default());
        let broker = MemoryBroker::new(8, assigns);
        let first = start(&harness, &broker, billing(&log, "first")).await;
        place(&first, 0..10).await;
        let second = start(&harness, &broker, billing(&log, "second")).await;
        place(&first, 10..200).await;
        handled(&harness, 4000).await;
        for who in ["first", "second"] {
            let had = log.notes().iter().any(|note| note.starts_with(who));
            assert!(had, "{who} had nothing, assigns: {assigns}");
        }
        second.drain().await;
        place(&first, 200..210).await;
        handled(&harness, 4200).await;
        first.drain().await;
        assert_once_and_in_order(&harness, 4200).await;
    }
}

/// Fails for good on one key, once it is told to.
fn failing_on_k7(log: &Probe) -> Consumer {
    let log = log.clone();
    Consumer::new("billing").retry(Retry::never()).on(move |order: Created| {
        let log = log.clone();
        async move {
            if order.order_id == "k7" {
                log.note("zombie has k7");
                log.reached("zombie fails").await;
                return Err(Failure::permanent("k7"));
            }
            Ok(publish(Invoiced { order_id: format!("{} {}", order.order_id, order.note) }))
        }
    })
}

/// Without the lease as a condition the zombie would set k7 aside while the heir handles it, and
/// the heir, to which it is done then, would go on with what comes behind.
#[tokio::test(start_paused = true)]
async fn a_zombie_commits_nothing() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(4, true), Probe::default());
    let way = Held::new(harness.database());
    let outside: Arc<dyn Broker> = Arc::new(broker.clone());
    let app = App::new(Arc::new(way.clone())).broker(outside).clock(harness.clock.clone());
    let service = Service::new("shop").consumer(failing_on_k7(&log));
    let zombie = app.service(service).start().await.unwrap();
    place(&zombie, 0..1).await;
    log.reached("zombie has k7").await;
    handled(&harness, 19).await;
    way.hold(true);
    log.note("zombie fails");
    let heir = start(&harness, &broker, billing(&log, "heir")).await;
    broker.give_up(BILLING);
    place(&heir, 1..10).await;
    log.reached_start("heir has k7").await;
    way.hold(false);
    handled(&harness, 200).await;
    harness.settle().await;
    heir.drain().await;
    zombie.drain().await;
    assert_once_and_in_order(&harness, 200).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_process_had_goes_on_with_another() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(4, true), Probe::default());
    let mut numbers = 0..10;
    for who in ["first", "second", "third"] {
        let app = start(&harness, &broker, billing(&log, who)).await;
        place(&app, numbers.clone()).await;
        log.reached_start(who).await;
        numbers = numbers.end..numbers.end + 10;
        // Nothing is drained, nothing released: the leases have to run out.
        drop(app);
    }
    let last = start(&harness, &broker, billing(&log, "last")).await;
    handled(&harness, 600).await;
    last.drain().await;
    assert_once_and_in_order(&harness, 600).await;
}

/// Nobody died of what was in hand each time.
#[tokio::test(start_paused = true)]
async fn who_loses_its_partitions_again_and_again_goes_on_with_them() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(4, true), Probe::default());
    let app = start(&harness, &broker, slow_billing(&log, "one", ms(500))).await;
    place(&app, 0..10).await;
    log.reached_start("one has").await;
    for _ in 0..20 {
        TokioClock::default().sleep(ms(400)).await;
        broker.lose(BILLING);
    }
    handled(&harness, 200).await;
    app.drain().await;
    assert_once_and_in_order(&harness, 200).await;
}

/// What it was about to hand over is handed over, although it was lost and came back.
#[tokio::test(start_paused = true)]
async fn who_joins_gets_its_share_of_what_is_lost_on_its_way() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(4, false), Probe::default());
    let one = start(&harness, &broker, slow_billing(&log, "one", secs(3))).await;
    place(&one, 0..10).await;
    log.reached_start("one has").await;
    let two = start(&harness, &broker, slow_billing(&log, "two", ms(1))).await;
    for _ in 0..20 {
        TokioClock::default().sleep(secs(1)).await;
        broker.lose(BILLING);
    }
    log.reached_start("two has").await;
    handled(&harness, 200).await;
    one.drain().await;
    two.drain().await;
    assert_once_and_in_order(&harness, 200).await;
}

/// The lease of what is lost is ended when the database answers again: not if it is wanted again by then.
#[tokio::test(start_paused = true)]
async fn what_is_lost_and_comes_back_while_the_database_is_away_goes_on() {
    for pause in [30, 3_000, 20_000] {
        let (harness, broker, log) = (Harness::new(), MemoryBroker::new(4, true), Probe::default());
        let way = Held::new(harness.database());
        let outside: Arc<dyn Broker> = Arc::new(broker.clone());
        let app = App::new(Arc::new(way.clone())).broker(outside).clock(harness.clock.clone());
        let service = Service::new("shop").consumer(billing(&log, "one"));
        let app = app.service(service).start().await.unwrap();
        place(&app, 0..10).await;
        log.reached_start("one has").await;
        for _ in 0..5 {
            way.hold(true);
            broker.lose(BILLING);
            TokioClock::default().sleep(ms(pause)).await;
            way.hold(false);
            TokioClock::default().sleep(ms(pause)).await;
        }
        handled(&harness, 200).await;
        app.drain().await;
        assert_once_and_in_order(&harness, 200).await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_broker_is_away_everything_waits_and_no_attempt_is_spent() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(4, true), Probe::default());
    let app = start(&harness, &broker, billing(&log, "one")).await;
    broker.set_down(true);
    place(&app, 0..10).await;
    harness.clock.sleep(mins(10)).await;
    assert!(broker.published("order").iter().all(Vec::is_empty));
    let relay = harness.consumer("broker/relay").await;
    assert_eq!((relay.lag, relay.parked_keys), (Some(200), 0));
    let health = app.health();
    assert!(health.problems.iter().any(|p| p.contains("broker/relay")), "{health:?}");
    broker.set_down(false);
    handled(&harness, 200).await;
    assert_once_and_in_order(&harness, 200).await;
    assert!(harness.admin().dead_letters(None, true).await.unwrap().is_empty());
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_refuses_is_parked_and_holds_up_nobody_else() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(4, true), Probe::default());
    let app = start(&harness, &broker, billing(&log, "one")).await;
    broker.set_refused("k7", true);
    place(&app, 0..10).await;
    handled(&harness, 190).await;
    let dead = harness.dead_letters_until(1).await.remove(0);
    assert_eq!((&*dead.key.consumer, dead.deliveries), ("broker/relay", 10));
    assert!(dead.key.failure.contains("does not take this key"), "{}", dead.key.failure);
    broker.set_refused("k7", false);
    harness.admin().redrive(&dead.id, false, false).await.unwrap();
    handled(&harness, 200).await;
    assert_once_and_in_order(&harness, 200).await;
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn leaving_the_embedded_broker_neither_loses_nor_doubles() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(4, true), Probe::default());
    let embedded = harness.start(billing(&log, "embedded")).await;
    place(&embedded, 0..10).await;
    embedded.drain().await;
    let outside: Arc<dyn Broker> = Arc::new(broker.clone());
    let app = App::new(harness.database()).broker(outside).clock(harness.clock.clone());
    let service = Service::new("shop").consumer(billing(&log, "early"));
    let Err(refused) = app.service(service).start().await else { panic!("it was not drained") };
    assert!(refused.to_string().contains("of the embedded broker to handle"), "{refused}");

    let embedded = harness.start(billing(&log, "embedded")).await;
    handled(&harness, 200).await;
    harness.passed(BILLING, 200).await;
    harness.settle().await;
    embedded.drain().await;
    let app = start(&harness, &broker, billing(&log, "outside")).await;
    place(&app, 10..20).await;
    handled(&harness, 400).await;
    app.drain().await;
    assert_once_and_in_order(&harness, 400).await;
    assert_eq!(of_all(broker.published("order")).len(), 200, "what was handled is not relayed");

    let embedded = harness.start(billing(&log, "embedded")).await;
    harness.settle().await;
    place(&embedded, 20..30).await;
    handled(&harness, 600).await;
    harness.settle().await;
    embedded.drain().await;
    let app = start(&harness, &broker, billing(&log, "outside")).await;
    place(&app, 30..40).await;
    handled(&harness, 800).await;
    harness.settle().await;
    app.drain().await;
    assert_once_and_in_order(&harness, 800).await;
}

/// Nobody would try it again there.
#[tokio::test(start_paused = true)]
async fn who_leaves_the_embedded_broker_leaves_nothing_set_aside() {
    let (harness, broker) = (Harness::new(), MemoryBroker::new(4, true));
    let billing =
        || Consumer::new("billing").on(async |_: Created| Err::<(), _>(Failure::permanent("no")));
    let embedded = harness.start(billing()).await;
    embedded.service("shop").commit(publish(created("a"))).await.unwrap();
    let dead = harness.dead_letters_until(1).await;
    harness.settle().await;
    embedded.drain().await;
    let outside: Arc<dyn Broker> = Arc::new(broker.clone());
    let app = App::new(harness.database()).broker(outside).clock(harness.clock.clone());
    let app = app.service(Service::new("shop").consumer(billing()));
    let Err(refused) = app.start().await else { panic!("a dead letter was left behind") };
    assert!(refused.to_string().contains("has set aside"), "{refused}");
    harness.admin().skip(&dead[0].id, "a test").await.unwrap();
    start(&harness, &broker, billing()).await.drain().await;
}

/// Kafka forgets a deleted topic's offsets, and the database's watermark is of other messages.
#[tokio::test(start_paused = true)]
async fn what_is_unfinished_of_a_topic_that_was_made_anew_comes_again() {
    let (harness, log) = (Harness::new(), Probe::default());
    let app = start(&harness, &MemoryBroker::new(1, true), slow_billing(&log, "one", ms(1))).await;
    place(&app, 0..20).await;
    handled(&harness, 400).await;
    harness.settle().await;
    app.drain().await;

    let broker = MemoryBroker::new(1, true);
    let (failing, done) = (common::Switch::on(), Probe::default());
    let audit = || {
        let (failing, done) = (failing.clone(), done.clone());
        let handler = move |order: Created| {
            let fails = order.order_id == "o-0" && failing.is_on();
            done.note(&format!("{} {fails}", order.order_id));
            async move { if fails { Err(Failure::transient("not now")) } else { Ok(()) } }
        };
        Consumer::new("billing").retry(Retry::in_lane([hours(1)])).on(handler)
    };
    let app = start(&harness, &broker, audit()).await;
    deliver(&broker, "o-", 500).await;
    done.reached("o-499 false").await;
    app.drain().await;
    failing.off();
    let app = start(&harness, &broker, audit()).await;
    done.reached("o-0 false").await;
    app.drain().await;
}

/// After a crash deliveries run one by one: what comes meanwhile does not gather in memory.
#[tokio::test(start_paused = true)]
async fn what_waits_to_be_taken_in_counts_for_the_window() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(1, true), Probe::default());
    let app = start(&harness, &broker, slow_billing(&log, "one", ms(10))).await;
    place(&app, 0..1).await;
    log.reached_start("one has").await;
    drop(app);
    deliver(&broker, "o-", 20_000).await;
    let careful = slow_billing(&log, "two", secs(1)).window(500);
    let app = start(&harness, &broker, careful).await;
    log.reached_start("two has").await;
    harness.clock.sleep(secs(60)).await;
    let ahead = broker.unsettled(BILLING);
    assert!(ahead < 1_000, "{ahead} messages were taken in");
    app.drain().await;
}

/// Each time it fails at once, as where nobody listens.
#[tokio::test(start_paused = true)]
async fn a_database_that_is_away_is_not_asked_without_a_pause() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(1, true), Probe::default());
    let app = start(&harness, &broker, slow_billing(&log, "one", ms(1))).await;
    harness.settle().await;
    harness.memory.fail_next(5_000);
    let before = harness.memory.batches();
    broker.put(Message { name: "not.known".into(), ..(*foreign_order("o")).clone() });
    harness.clock.sleep(secs(60)).await;
    let batches = harness.memory.batches() - before;
    assert!(batches < 300, "{batches} commits in a minute");
    harness.memory.fail_next(0);
    harness.passed(BILLING, 1).await;
    app.drain().await;
}

#[derive(Document, Clone, Default, serde::Serialize, serde::Deserialize)]
#[document(collection = "counts")]
struct Count {
    #[document(id)]
    order_id: String,
    orders: u32,
}

#[tokio::test(start_paused = true)]
async fn what_is_followed_is_copied_and_not_published_again() {
    let (here, there) = (Harness::new(), Harness::new());
    let (broker, log) = (MemoryBroker::new(4, true), Probe::default());
    let app = start(&here, &broker, billing(&log, "one")).await;
    let counts = Projection::<Count>::new("counts", 1).on::<Created>(|count, order| {
        count.order_id.clone_from(&order.order_id);
        count.orders += 1;
    });
    let reports = Service::new("reports").follow(["order"]).projection(counts);
    let follower = on(&there, &broker, reports).await;
    place(&app, 0..10).await;
    let view = follower.view::<Count>("reports");
    there.until(|| async { view.get("k3").await.unwrap().is_some_and(|c| c.orders == 10) }).await;
    there.settle().await;
    let copies = there.database().log(Position(0), &Filter::default(), 1000).await.unwrap().entries;
    let copies: Vec<_> = copies.iter().filter(|entry| &*entry.name == "order.created").collect();
    assert_eq!(copies.len(), 200);
    assert!(copies.iter().all(|copy| &*copy.source == "shop" && copy.is_copy()));
    assert_eq!(of_all(broker.published("order")).len(), 200);
    app.drain().await;
    follower.drain().await;
}

#[tokio::test(start_paused = true)]
async fn names_of_parts_that_run_by_themselves_are_taken() {
    let harness = Harness::new();
    let service =
        Service::new("broker").consumer(Consumer::new("follow").on(async |_: Created| {}));
    let refused = App::new(harness.database()).service(service).check().unwrap_err();
    assert_eq!(refused.0.len(), 2, "{refused}");
    assert!(refused.0.iter().all(|sentence| sentence.contains("is taken")), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn without_a_database_effects_and_dead_letters_go_to_the_broker() {
    let (harness, log) = (Harness::new(), Probe::default());
    for assigns in [true, false] {
        let broker = MemoryBroker::new(4, assigns);
        let producer = start(&harness, &broker, billing(&log, "unused")).await;
        producer.drain().await;
        let failing =
            Consumer::new("audit").retry(Retry::never()).on(|order: Created| async move {
                let id = order.order_id;
                if id == "k7" || id.starts_with("bad") {
                    return Err(Failure::permanent(format!("no audit of {id}")));
                }
                Ok(publish(Invoiced { order_id: id }))
            });
        let outside: Arc<dyn Broker> = Arc::new(broker.clone());
        let app = App::stateless(outside).clock(harness.clock.clone());
        let app = app.service(Service::new("audit").consumer(failing)).start().await.unwrap();
        deliver(&broker, "k", 20).await;
        harness.until(|| async { of_all(broker.published("invoice")).len() == 19 }).await;
        let dead = of_all(broker.published("audit.audit.dead-letters"));
        assert_eq!(dead.len(), 1);
        assert_eq!(&dead[0].header("dlq-error-message").unwrap()[..], b"no audit of k7");

        deliver(&broker, "bad", 50).await;
        harness.until(|| async { !app.health().ready }).await;
        harness.settle().await;
        assert!(app.health().problems[0].contains("start the app again"));
        assert_eq!(of_all(broker.published("audit.audit.dead-letters")).len(), 20);
        app.drain().await;
    }
}
