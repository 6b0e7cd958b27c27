//! Projections into tables of the user's own: on the embedded database, and with the feature
//! `postgres` on PostgreSQL.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;
#[path = "common/tables.rs"]
mod tables;

use common::{Created, created};
use sillage::{admin::Admin, prelude::*};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tables::{Tables, everywhere};

fn into(table: &'static str, version: u32, tables: &Tables) -> SqlProjection {
    let tables = tables.clone();
    SqlProjection::new("orders", version)
        .on::<Created>(move |order| tables.insert_into(table, &order.order_id))
}

async fn start(tables: &Tables, projection: SqlProjection) -> Running {
    let service = Service::new("shop").sql_projection(projection);
    App::new(tables.database()).service(service).start().await.unwrap()
}

async fn publish_all(app: &Running, ids: &[&str]) {
    for id in ids {
        app.service("shop").commit(publish(created(id))).await.unwrap();
    }
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("o-{n:03}")).collect()
}

/// Wherever the SQL of a batch fails, what was run before it is taken back with the checkpoint, and run
/// again; each event is in the table once, in its order.
#[test]
fn tables_and_checkpoint_are_one_commit() {
    everywhere(async |tables| {
        let runs = Arc::new(AtomicUsize::new(0));
        let flaky = {
            let (tables, runs) = (tables.clone(), runs.clone());
            SqlProjection::new("orders", 1).on::<Created>(move |order| {
                let insert = tables.insert(&order.order_id);
                // The 30th, 101st, … time that an event is folded, its SQL fails behind the insert.
                let run = runs.fetch_add(1, Ordering::Relaxed);
                let fails = [30, 101, 102, 180].contains(&run).then(|| tables.fails());
                insert.and(fails)
            })
        };
        let ids = numbered(200);
        let app = App::new(tables.database()).service(Service::new("shop")).start().await.unwrap();
        app.service("shop")
            .commit(ids.iter().map(|id| publish(created(id))).collect::<Effects>())
            .await
            .unwrap();
        app.drain().await;
        let app = start(&tables, flaky).await;
        tables.until(async |tables| tables.rows().await.len() == 200).await;
        assert!(runs.load(Ordering::Relaxed) > 200, "this is about what runs again");
        assert_eq!(tables.rows().await, ids);
        app.drain().await;
        // Another process goes on where this one was.
        let app = start(&tables, into("orders", 1, &tables)).await;
        publish_all(&app, &["p"]).await;
        tables.until(async |tables| tables.rows().await.len() == 201).await;
        assert!(app.health().ready, "{:?}", app.health());
        app.drain().await;
    });
}

/// An event whose SQL fails for good pauses the projection at its position with the reason; an operator
/// passes over it.
#[test]
fn a_violated_constraint_pauses_it() {
    everywhere(async |tables| {
        let app = start(&tables, into("orders", 1, &tables)).await;
        publish_all(&app, &["a", "b", "a", "c"]).await;
        let admin = Admin::new(tables.database(), "test");
        let status = async || admin.projection("shop/orders").await.unwrap();
        tables.until(async |_| status().await.paused.is_some()).await;
        let why = status().await.paused.unwrap().to_lowercase();
        assert!(why.starts_with("position ") && why.contains("unique"), "{why}");
        tables.until(async |_| !app.health().ready).await;
        assert!(app.health().problems[0].contains(": paused at position "), "{:?}", app.health());
        assert_eq!(tables.rows().await, ["a", "b"], "nothing behind it");
        admin.resume_projection("shop/orders", true).await.unwrap();
        tables.until(async |tables| tables.rows().await == ["a", "b", "c"]).await;
        tables.until(async |_| app.health().ready).await;
        app.drain().await;
    });
}

#[test]
fn a_missing_table_is_named_and_waited_for() {
    everywhere(async |tables| {
        let app = start(&tables, into("later", 1, &tables)).await;
        publish_all(&app, &["a"]).await;
        tables.until(async |_| !app.health().ready).await;
        let problem = app.health().problems.remove(0);
        let says = ["projection `shop/orders`", "`sql` needs a table that is not there", "later"];
        assert!(says.iter().all(|part| problem.contains(part)), "{problem}");
        tables.create("later").await;
        tables.until(async |tables| tables.rows_of("later").await == ["a"]).await;
        tables.until(async |_| app.health().ready).await;
        app.drain().await;
    });
}

/// A rebuild would write the tables twice; a higher version with tables of its own is folded beside.
#[test]
fn a_rebuild_is_a_higher_version() {
    everywhere(async |tables| {
        let app = start(&tables, into("orders", 1, &tables)).await;
        publish_all(&app, &["a", "b"]).await;
        tables.until(async |tables| tables.rows().await == ["a", "b"]).await;
        let admin = Admin::new(tables.database(), "test");
        let refused = admin.rebuild("shop/orders", true, false).await.unwrap_err().to_string();
        assert!(refused.contains("deploy version 2 of it"), "{refused}");
        tables.create("orders_2").await;
        let newer = start(&tables, into("orders_2", 2, &tables)).await;
        tables.until(async |tables| tables.rows_of("orders_2").await == ["a", "b"]).await;
        publish_all(&app, &["c"]).await;
        let all = ["a", "b", "c"];
        let have_all = async |tables: &Tables| {
            tables.rows().await == all && tables.rows_of("orders_2").await == all
        };
        tables.until(async |tables| have_all(tables).await).await;
        newer.drain().await;
        app.drain().await;
    });
}
