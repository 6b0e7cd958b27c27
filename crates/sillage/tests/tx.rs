//! Handlers with a transaction of their own: it is committed with what they return, or rolled back.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers outside of test functions panic too

mod common;

use common::{Created, Harness};
use sillage::prelude::*;

/// The embedded database as a handler's transaction would have it.
struct Other;

impl sillage::Transaction for Other {
    fn commit(
        self: Box<Self>,
        _: sillage::Commit,
    ) -> sillage::BoxFuture<'static, Result<sillage::Committed, sillage::CommitError>> {
        unreachable!()
    }

    fn as_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

async fn takes_one(_: Created, _tx: Tx<Other>) {}

#[tokio::test(start_paused = true)]
async fn a_database_without_transactions_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", folder.path().join("shop.db").display());
    let in_memory = Harness::new().database();
    for (database, says) in [
        (sillage::connect(&file).await.unwrap(), "return the effect `sql(|tx| …)`"),
        (in_memory, "the in-memory database has no SQL"),
    ] {
        let service = Service::new("shop").consumer(Consumer::new("billing").on(takes_one));
        let refused = App::new(database).service(service).start().await.map(drop).unwrap_err();
        let sentence = refused.to_string();
        let whose = "service `shop`: consumer `billing` takes a transaction of its own, `Tx`: ";
        assert!(sentence.starts_with(whose) && sentence.contains(says), "{sentence}");
    }
}

#[cfg(feature = "postgres")]
#[path = "common/tables.rs"]
mod tables;

#[cfg(feature = "postgres")]
mod on_postgres {
    use super::{
        common::{Created, Invoiced, created},
        tables::{Tables, on_postgres::Schema},
    };
    use sillage::{
        admin::Admin,
        postgres::{
            Pg,
            sqlx::{self, AssertSqlSafe},
        },
        prelude::*,
    };
    use std::sync::{Arc, Mutex};
    use tokio::sync::Notify;

    /// On PostgreSQL, if there is one.
    fn on_postgres(test: impl AsyncFn(Tables, Arc<Schema>)) {
        super::tables::everywhere(async |tables| {
            if let Tables::Postgres(schema) = &tables {
                test(tables.clone(), schema.clone()).await;
            }
        });
    }

    #[derive(Clone)]
    struct Orders(Arc<Schema>);

    impl Orders {
        async fn insert(&self, tx: &mut Tx<Pg>, id: &str) -> sqlx::Result<()> {
            let insert = format!("INSERT INTO {}.orders VALUES ('{id}')", self.0.name);
            sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut **tx).await.map(drop)
        }
    }

    async fn start(schema: &Arc<Schema>, consumer: Consumer) -> Running {
        let service = Service::new("shop").state(Orders(schema.clone())).consumer(consumer);
        App::new(schema.database.clone()).service(service).start().await.unwrap()
    }

    async fn invoice(
        order: Created,
        State(orders): State<Orders>,
        mut tx: Tx<Pg>,
    ) -> Result<Effects, Failure> {
        orders.insert(&mut tx, &order.order_id).await?;
        Ok(publish(Invoiced { order_id: order.order_id }))
    }

    /// More orders than there are transactions; each has its row, its event and its inbox row.
    #[test]
    fn rows_are_committed_with_effects() {
        on_postgres(async |tables, schema| {
            let app = start(&schema, Consumer::new("billing").on(invoice)).await;
            let ids: Vec<String> = (0..100).map(|n| format!("o-{n:03}")).collect();
            let all: Effects = ids.iter().map(|id| publish(created(id))).collect();
            app.service("shop").commit(all).await.unwrap();
            tables.until(async |tables| tables.log("invoice.sent").await == 100).await;
            assert_eq!(tables.rows().await, ids);
            app.drain().await;
            let consumers = Admin::new(tables.database(), "test").consumers().await.unwrap();
            let billing = consumers.into_iter().find(|one| &*one.name == "shop/billing").unwrap();
            assert_eq!((billing.tally.done, billing.tally.duplicates), (100, 0));
        });
    }

    /// A handler that fails, one that panics, and one whose commit is refused leave nothing.
    #[test]
    fn what_fails_is_rolled_back() {
        async fn fails(
            order: Created,
            meta: Meta,
            State(orders): State<Orders>,
            mut tx: Tx<Pg>,
        ) -> Result<Effects, Failure> {
            orders.insert(&mut tx, &order.order_id).await?;
            match (&*order.order_id, meta.attempt) {
                ("again", 1 | 2) => Err(Failure::transient("not yet")),
                ("panics", _) => panic!("a bug"),
                ("refused", _) => Ok(publish(Created { note: "x".repeat(1 << 20), ..order })),
                _ => Ok(publish(Invoiced { order_id: order.order_id })),
            }
        }
        on_postgres(async |tables, schema| {
            let retry = Retry::in_lane([ms(1), ms(1)]);
            let app = start(&schema, Consumer::new("billing").on(fails).retry(retry)).await;
            for id in ["again", "panics", "refused", "good"] {
                app.service("shop").commit(publish(created(id))).await.unwrap();
            }
            let admin = Admin::new(tables.database(), "test");
            tables.until(async |tables| tables.log("invoice.sent").await == 2).await;
            tables.until(async |_| admin.dead_letters(None, false).await.unwrap().len() == 2).await;
            assert_eq!(tables.rows().await, ["again", "good"]);
            app.drain().await;
        });
    }

    /// While a handler holds a row, other commits go on.
    #[test]
    fn a_handler_that_holds_a_row_delays_nobody_else() {
        on_postgres(async |tables, schema| {
            let (holds, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let held = {
                let (holds, go_on) = (holds.clone(), go_on.clone());
                move |order: Created, State(orders): State<Orders>, mut tx: Tx<Pg>| {
                    let (holds, go_on) = (holds.clone(), go_on.clone());
                    async move {
                        orders.insert(&mut tx, &order.order_id).await?;
                        holds.notify_one();
                        go_on.notified().await;
                        Ok::<_, Failure>(publish(Invoiced { order_id: order.order_id }))
                    }
                }
            };
            let app = start(&schema, Consumer::new("billing").on(held)).await;
            let shop = app.service("shop");
            shop.commit(publish(created("held"))).await.unwrap();
            holds.notified().await;
            for number in 0..100 {
                let id = format!("free {number}");
                shop.commit(publish(Invoiced { order_id: id })).await.unwrap();
            }
            assert!(tables.rows().await.is_empty(), "it is not committed");
            go_on.notify_one();
            tables.until(async |tables| tables.log("invoice.sent").await == 101).await;
            assert_eq!(tables.rows().await, ["held"]);
            app.drain().await;
        });
    }

    /// A transaction that outlives its handler is no transaction of it: all is rolled back.
    #[test]
    fn one_that_is_kept_is_refused() {
        on_postgres(async |tables, schema| {
            let kept = Arc::new(Mutex::new(vec![]));
            let keeps = {
                let kept = kept.clone();
                move |order: Created, State(orders): State<Orders>, mut tx: Tx<Pg>| {
                    let kept = kept.clone();
                    async move {
                        orders.insert(&mut tx, &order.order_id).await?;
                        kept.lock().unwrap().push(tx);
                        Ok::<_, Failure>(())
                    }
                }
            };
            let app = start(&schema, Consumer::new("billing").on(keeps)).await;
            app.service("shop").commit(publish(created("a"))).await.unwrap();
            let admin = Admin::new(tables.database(), "test");
            tables.until(async |_| admin.dead_letters(None, false).await.unwrap().len() == 1).await;
            let dead = admin.dead_letters(None, false).await.unwrap().remove(0);
            assert!(dead.key.failure.contains("its `Tx` is still held"), "{dead:?}");
            kept.lock().unwrap().clear();
            assert!(tables.rows().await.is_empty());
            app.drain().await;
        });
    }
}
