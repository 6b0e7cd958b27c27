//! Replay into a topic, and the journal's check for what is missing.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness, Invoiced, Probe, created};
use sillage::{
    Broker, Clock as _, Commit, Filter, Message, Write,
    admin::{Replaying, Search},
    prelude::*,
};
use sillage_testkit::MemoryBroker;
use std::{sync::Arc, time::Duration};

/// Notes each order with its operation, and invoices it.
fn billing(log: &Probe) -> Consumer {
    let log = log.clone();
    Consumer::new("billing").on_any(["order", "again"], move |Raw(message): Raw| {
        log.note(&format!("{} {}", message.key.as_ref().unwrap(), message.operation()));
        let order_id = message.key.as_ref().unwrap().to_string();
        async move { publish(Invoiced { order_id }) }
    })
}

fn orders(topic: &str, as_new: Option<&str>) -> Replaying {
    let names = vec!["order.created".into()];
    let search = Search { names, ..Search::default() };
    Replaying { search, topic: topic.into(), as_new: as_new.map(Into::into) }
}

async fn of_name(harness: &Harness, name: &str) -> Vec<Recorded> {
    let filter = Filter { names: vec![name.into()], ..Filter::default() };
    harness.database().log(Position(0), &filter, 1_000).await.unwrap().entries
}

#[tokio::test(start_paused = true)]
async fn in_the_log_what_is_replayed_is_new_once_for_each_name() {
    let (harness, log) = (Harness::new(), Probe::default());
    let app = harness.start(billing(&log)).await;
    for n in 0..5 {
        app.service("shop").commit(publish(created(&format!("o-{n}")))).await.unwrap();
    }
    harness.passed("shop/billing", 5).await;
    let admin = harness.admin();
    let refused = admin.replay(&orders("again", None)).await.unwrap_err().to_string();
    assert!(refused.contains("--as-new"), "{refused}");
    let mut what = orders("again", Some("mended"));
    what.search.key = Some(Key::of("o-3"));
    assert_eq!(admin.count_replay(&what).await.unwrap().messages, 1);
    what.search.key = None;
    let planned = admin.count_replay(&what).await.unwrap();
    assert_eq!((planned.messages, planned.known), (5, 0));
    assert_eq!(of_name(&harness, "order.created").await.len(), 5, "it was only counted");
    let mut first = log.notes();
    first.sort();

    assert_eq!(admin.replay(&what).await.unwrap().known, 0);
    harness.passed("shop/billing", 10).await;
    let mut again = log.notes()[5..].to_vec();
    again.sort();
    assert_eq!(again, first, "the same operations, so calls outside stay idempotent");
    let copies = of_name(&harness, "order.created").await;
    assert_eq!(copies.len(), 10);
    assert_eq!(copies[5].topic.as_deref(), Some("again"));
    assert_eq!(copies[5].header(Message::REPLAY_OF).unwrap(), copies[0].id.as_str().as_bytes());
    assert_eq!(of_name(&harness, "invoice.sent").await.len(), 10);

    what.search.topics = vec!["order".into()];
    let twice = admin.replay(&what).await.unwrap();
    assert_eq!((twice.messages, twice.known), (5, 5));
    harness.settle().await;
    assert_eq!(log.notes().len(), 10);
    app.drain().await;
}

#[tokio::test(start_paused = true)]
async fn at_a_broker_what_was_handled_is_dropped_and_others_handle_it() {
    let (harness, broker, log) = (Harness::new(), MemoryBroker::new(3, true), Probe::default());
    let port: Arc<dyn Broker> = Arc::new(broker.clone());
    for topic in ["order", "again"] {
        let topic = sillage::TopicSpec { name: topic.into(), partitions: None };
        port.ensure(&[topic]).await.unwrap();
    }
    let app = App::new(harness.database()).broker(port.clone()).clock(harness.clock.clone());
    let app = app.service(Service::new("shop").consumer(billing(&log))).start().await.unwrap();
    for n in 0..5 {
        app.service("shop").commit(publish(created(&format!("o-{n}")))).await.unwrap();
    }
    harness.until(|| async { log.notes().len() >= 5 }).await;
    harness.settle().await;
    let admin = harness.admin().broker(port);
    let since = harness.clock.now();
    let late = Replaying {
        search: Search { since: Some(since), ..orders("again", None).search },
        ..orders("again", None)
    };
    assert_eq!(admin.replay(&late).await.unwrap().messages, 0);
    assert_eq!(admin.replay(&orders("again", None)).await.unwrap().messages, 5);
    harness.settle().await;
    let again: Vec<_> = broker.published("again").into_iter().flatten().collect();
    assert_eq!(again.len(), 5);
    for message in &again {
        assert!(
            message.header(Message::REPLAY).is_some() && message.header("ce_sequence").is_none()
        );
    }
    assert_eq!(log.notes().len(), 5, "it has handled them, by id");
    assert_eq!(of_name(&harness, "invoice.sent").await.len(), 5);
    assert_eq!(admin.replay(&orders("again", Some("more"))).await.unwrap().messages, 5);
    harness.until(|| async { log.notes().len() >= 10 }).await;
    app.drain().await;
}

/// The same entries in another log, but for one: a journal that missed it.
async fn without(harness: &Harness, lost: usize) -> Harness {
    let rest = Harness::new();
    let all = harness.database().log(Position(0), &Filter::default(), 10_000).await.unwrap();
    for (_, entry) in all.entries.iter().enumerate().filter(|(n, _)| *n != lost) {
        let write = Write::Append { stream: None, message: entry.body.clone() };
        let commit = Commit { conditions: vec![], writes: vec![write] };
        rest.database().commit(vec![commit]).await.pop().unwrap().unwrap();
    }
    rest
}

/// Invoices a service's own orders.
fn billing_of(name: &'static str) -> Consumer {
    Consumer::new("billing").on(move |order: Created| async move {
        let is_own = order.order_id.starts_with(name);
        let invoice = Invoiced { order_id: order.order_id };
        if is_own { publish(invoice) } else { Effects::none() }
    })
}

/// A journal of a broker that two logs are published to, much of which is not for others.
#[tokio::test(start_paused = true)]
async fn what_a_journal_misses_is_a_gap_and_what_was_never_published_is_none() {
    let (shop, annex, kept) = (Harness::new(), Harness::new(), Harness::new());
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(3, true));
    for topic in ["order", "invoice"] {
        let topic = sillage::TopicSpec { name: topic.into(), partitions: None };
        broker.ensure(&[topic]).await.unwrap();
    }
    for (harness, name) in [(&shop, "shop"), (&annex, "annex")] {
        let billing = format!("{name}/billing");
        // Restarted in the middle, as what was before is known from the log.
        for half in 0..2 {
            let service = Service::new(name).consumer(billing_of(name));
            let app = App::new(harness.database()).broker(broker.clone());
            let app = app.clock(harness.clock.clone()).service(service).start().await.unwrap();
            for n in 0..100 {
                let order = created(&format!("{name}-{half}-{n}"));
                app.service(name).commit(publish(order)).await.unwrap();
                harness.admin().resume(&billing).await.unwrap();
            }
            let billed = 100 * (half + 1);
            harness
                .until(|| async { of_name(harness, "invoice.sent").await.len() >= billed })
                .await;
            harness.settle().await;
            app.drain().await;
        }
    }
    let journal = Service::new("journal").follow(["order", "invoice"]);
    let app = App::new(kept.database()).broker(broker.clone()).clock(kept.clock.clone());
    let app = app.service(journal).start().await.unwrap();
    let entries = || async { kept.database().head().await.unwrap().last.0 };
    kept.until(|| async { entries().await >= 800 }).await;
    kept.settle().await;
    app.drain().await;
    let gaps = async |harness: &Harness| {
        let admin = harness.admin().clock(kept.clock.clone());
        admin.gaps(Duration::ZERO).await.unwrap()
    };
    let young = kept.admin().gaps(Duration::from_secs(3600)).await.unwrap();
    assert_eq!((young.gaps.len(), young.checked.len(), young.young), (0, 0, 800));
    let whole = gaps(&kept).await;
    assert_eq!(
        (whole.gaps.len(), whole.unknown.len(), whole.foreign.len()),
        (0, 0, 0),
        "{whole:?}"
    );
    assert_eq!((whole.checked["shop"], whole.checked["annex"]), (400, 400));

    let all = kept.database().log(Position(0), &Filter::default(), 10_000).await.unwrap();
    let sequence = |n: usize| {
        let text = all.entries[n].header("ce_sequence").unwrap();
        std::str::from_utf8(text).unwrap().parse::<u64>().unwrap()
    };
    let (mut told, mut last) = (0, 0);
    for lost in (0..800).step_by(23) {
        let found = gaps(&without(&kept, lost).await).await.gaps;
        match &found[..] {
            [gap] => {
                assert_eq!(gap.missing, sequence(lost));
                assert!(gap.told_by > gap.missing && *gap.source == *all.entries[lost].source);
                told += 1;
            }
            [] => last += 1,
            more => panic!("one was lost: {more:?}"),
        }
    }
    assert!(told >= 32 && last <= 2, "only the last of a slot is not missed: {told} and {last}");
}
