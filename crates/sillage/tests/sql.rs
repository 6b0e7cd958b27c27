//! SQL of users in handlers: it happens once, with the inbox and the other effects, or not at all.
//! On the embedded database, and with the feature `postgres` on PostgreSQL.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;
#[path = "common/tables.rs"]
mod tables;

use common::{Created, Invoiced, created, foreign_order};
use sillage::{Broker, Class, CommitError, admin::Admin, prelude::*};
use sillage_testkit::MemoryBroker;
use std::sync::Arc;
use tables::{Tables, everywhere};

fn billing(tables: &Tables) -> Consumer {
    let tables = tables.clone();
    Consumer::new("billing").on(move |order: Created| {
        let insert = tables.insert(&order.order_id);
        async move { publish(Invoiced { order_id: order.order_id }).and(insert) }
    })
}

/// A broker brings every message three times.
#[test]
fn redeliveries_run_no_sql_again() {
    everywhere(async |tables| {
        let broker = Arc::new(MemoryBroker::new(4, true));
        let service = Service::new("shop").consumer(billing(&tables));
        let of_it: Arc<dyn Broker> = broker.clone();
        let app = App::new(tables.database()).broker(of_it).service(service).start().await.unwrap();
        let ids: Vec<String> = (0..50).map(|n| format!("o-{n:02}")).collect();
        let messages: Vec<_> = ids.iter().map(|id| foreign_order(id)).collect();
        for _ in 0..3 {
            let receipts = broker.publish(messages.clone()).await;
            assert!(receipts.iter().all(Result::is_ok));
        }
        let admin = Admin::new(tables.database(), "test");
        let received = async || {
            let consumers = admin.consumers().await.unwrap();
            let it = consumers.into_iter().find(|consumer| &*consumer.name == "shop/billing");
            it.map_or(0, |consumer| consumer.tally.received)
        };
        tables.until(async |_| received().await == 150).await;
        assert_eq!(tables.rows().await, ids);
        assert_eq!(tables.log("invoice.sent").await, 50);
        assert!(admin.dead_letters(None, false).await.unwrap().is_empty());
        app.drain().await;
    });
}

/// A violated constraint is a dead letter at once, nothing of its handling is left, and others go on.
#[test]
fn a_violated_constraint_is_a_dead_letter() {
    everywhere(async |tables| {
        let service = Service::new("shop").consumer(billing(&tables));
        let app = App::new(tables.database()).service(service).start().await.unwrap();
        let shop = app.service("shop");
        for id in ["a", "b", "c", "b", "d"] {
            shop.commit(publish(created(id))).await.unwrap();
        }
        let admin = Admin::new(tables.database(), "test");
        tables.until(async |_| admin.dead_letters(None, false).await.unwrap().len() == 1).await;
        tables.until(async |tables| tables.log("invoice.sent").await == 4).await;
        let dead = admin.dead_letters(None, false).await.unwrap().remove(0);
        assert_eq!((&*dead.key.class, dead.key.attempts), ("permanent", 1), "{dead:?}");
        assert_eq!(tables.rows().await, ["a", "b", "c", "d"]);
        app.drain().await;
    });
}

/// A transient failure climbs the ladder, and leaves nothing behind on the way.
#[test]
fn a_transient_failure_is_tried_again() {
    everywhere(async |tables| {
        let consumer = Consumer::new("billing").on({
            let tables = tables.clone();
            move |order: Created, meta: Meta| {
                let insert = tables.insert(&order.order_id);
                let fails = (meta.attempt < 3).then(|| tables.fails());
                async move { insert.and(publish(Invoiced { order_id: order.order_id })).and(fails) }
            }
        });
        let service = Service::new("shop").consumer(consumer.retry(Retry::in_lane([ms(1), ms(1)])));
        let app = App::new(tables.database()).service(service).start().await.unwrap();
        app.service("shop").commit(publish(created("a"))).await.unwrap();
        tables.until(async |tables| tables.log("invoice.sent").await == 1).await;
        assert_eq!(tables.rows().await, ["a"]);
        app.drain().await;
    });
}

/// From outside of consumers the failure is the answer.
#[test]
fn a_service_commits_sql_as_well() {
    everywhere(async |tables| {
        let app = App::new(tables.database()).service(Service::new("shop")).start().await.unwrap();
        let shop = app.service("shop");
        let both = || tables.insert("a").and(publish(created("a")));
        shop.commit(both()).await.unwrap();
        let refused = shop.commit(both()).await.unwrap_err();
        let CommitError::Sql(failure) = refused else { panic!("{refused:?}") };
        assert_eq!(failure.class, Class::Permanent);
        assert_eq!((tables.rows().await.len(), tables.log("order.created").await), (1, 1));
        app.drain().await;
    });
}
