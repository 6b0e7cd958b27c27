//! A table of the user's beside Sillage's, on each database that there is.
#![allow(dead_code, unreachable_pub, missing_docs)]

use sillage::{Clock as _, Database, Filter, prelude::*, sqlite};
use sillage_testkit::SystemClock;
use std::sync::Arc;
use tempfile::TempDir;

/// A new database with the table `orders (id)`, where each id may be once.
#[derive(Clone)]
pub enum Tables {
    Sqlite(Arc<TempDir>, Arc<sqlite::Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(Arc<on_postgres::Schema>),
}

/// Runs a test on each database.
pub fn everywhere(test: impl AsyncFn(Tables)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let database = sqlite::Sqlite::open(folder.path().join("shop.db"), Arc::new(SystemClock));
        let tables = Tables::Sqlite(Arc::new(folder), Arc::new(database.unwrap()));
        let shell = tables.shell();
        shell.execute_batch("CREATE TABLE orders (id TEXT PRIMARY KEY)").unwrap();
        test(tables).await;
    });
    #[cfg(feature = "postgres")]
    if let Some(url) = sillage_testkit::servers::url("SILLAGE_TEST_POSTGRES") {
        runtime.block_on(async {
            let schema = Arc::new(on_postgres::Schema::new(&url).await);
            schema.run("CREATE TABLE @@.orders (id text PRIMARY KEY)").await;
            test(Tables::Postgres(schema.clone())).await;
            schema.run("DROP SCHEMA @@ CASCADE").await;
        });
    }
}

impl Tables {
    pub fn database(&self) -> Arc<dyn Database> {
        match self {
            Tables::Sqlite(_, database) => database.clone(),
            #[cfg(feature = "postgres")]
            Tables::Postgres(schema) => schema.database.clone(),
        }
    }

    /// As somebody with a shell would see the file.
    fn shell(&self) -> sqlite::rusqlite::Connection {
        match self {
            Tables::Sqlite(folder, _) => {
                sqlite::rusqlite::Connection::open(folder.path().join("shop.db")).unwrap()
            }
            #[cfg(feature = "postgres")]
            Tables::Postgres(_) => unreachable!(),
        }
    }

    pub fn insert(&self, id: &str) -> Effects {
        self.insert_into("orders", id)
    }

    pub fn insert_into(&self, table: &str, id: &str) -> Effects {
        match self {
            Tables::Sqlite(..) => {
                let (insert, id) = (format!("INSERT INTO {table} VALUES (?1)"), id.to_owned());
                sqlite::sql(move |tx| {
                    tx.execute(&insert, [&id])?;
                    Ok(())
                })
            }
            #[cfg(feature = "postgres")]
            Tables::Postgres(schema) => schema.insert(table, id),
        }
    }

    /// One more table like the first.
    pub async fn create(&self, table: &str) {
        match self {
            Tables::Sqlite(..) => {
                let create = format!("CREATE TABLE {table} (id TEXT PRIMARY KEY)");
                let made = sqlite::sql(move |tx| {
                    tx.execute_batch(&create)?;
                    Ok(())
                });
                let app = App::new(self.database()).service(Service::new("tables"));
                let app = app.start().await.unwrap();
                app.service("tables").commit(made).await.unwrap();
                app.drain().await;
            }
            #[cfg(feature = "postgres")]
            Tables::Postgres(schema) => {
                schema.run(&format!("CREATE TABLE @@.{table} (id text PRIMARY KEY)")).await;
            }
        }
    }

    /// An SQL effect that fails for now.
    pub fn fails(&self) -> Effects {
        match self {
            Tables::Sqlite(..) => sqlite::sql(|_| Err(Failure::transient("not yet"))),
            #[cfg(feature = "postgres")]
            Tables::Postgres(_) => {
                sillage::postgres::sql(|_| Box::pin(async { Err(Failure::transient("not yet")) }))
            }
        }
    }

    /// What is in the table, in order.
    pub async fn rows(&self) -> Vec<String> {
        self.rows_of("orders").await
    }

    #[cfg_attr(not(feature = "postgres"), allow(clippy::unused_async))]
    pub async fn rows_of(&self, table: &str) -> Vec<String> {
        match self {
            Tables::Sqlite(..) => {
                let shell = self.shell();
                let select = format!("SELECT id FROM {table} ORDER BY id");
                let mut rows = shell.prepare(&select).unwrap();
                let rows = rows.query_map([], |row| row.get(0)).unwrap();
                rows.map(Result::unwrap).collect()
            }
            #[cfg(feature = "postgres")]
            Tables::Postgres(schema) => schema.rows(table).await,
        }
    }

    /// How many entries of that name there are in the log.
    pub async fn log(&self, name: &str) -> usize {
        let filter = Filter { names: vec![name.into()], ..Filter::default() };
        self.database().log(Position(0), &filter, 10_000).await.unwrap().entries.len()
    }

    /// Waits until it holds.
    pub async fn until(&self, condition: impl AsyncFn(&Tables) -> bool) {
        for _ in 0..6_000 {
            if condition(self).await {
                return;
            }
            SystemClock.sleep(ms(10)).await;
        }
        panic!("it did not happen within a minute");
    }
}

#[cfg(feature = "postgres")]
pub mod on_postgres {
    use sillage::{
        Effects,
        postgres::{
            Postgres, sql,
            sqlx::{self, AssertSqlSafe, PgPool},
        },
    };
    use sillage_testkit::SystemClock;
    use std::sync::Arc;

    pub struct Schema {
        pub database: Arc<Postgres>,
        pub pool: PgPool,
        pub name: String,
        pub url: String,
    }

    impl Schema {
        pub async fn new(url: &str) -> Schema {
            let name = format!("test_{}", uuid::Uuid::new_v4().simple());
            let url_of_it = format!("{url}?schema={name}");
            let database = Postgres::connect(&url_of_it, Arc::new(SystemClock)).await.unwrap();
            let pool = PgPool::connect(url).await.unwrap();
            Schema { database: Arc::new(database), pool, name, url: url_of_it }
        }

        /// Statements in which `@@` is the schema.
        pub async fn run(&self, statements: &str) {
            let statements = AssertSqlSafe(statements.replace("@@", &self.name));
            sqlx::raw_sql(statements).execute(&self.pool).await.unwrap();
        }

        pub fn insert(&self, table: &str, id: &str) -> Effects {
            let insert = format!("INSERT INTO {}.{table} VALUES ('{id}')", self.name);
            sql(move |tx| {
                let insert = AssertSqlSafe(insert.clone());
                Box::pin(async move {
                    sqlx::raw_sql(insert).execute(tx).await?;
                    Ok(())
                })
            })
        }

        pub async fn rows(&self, table: &str) -> Vec<String> {
            let select = format!("SELECT id FROM {}.{table} ORDER BY id", self.name);
            sqlx::query_scalar(AssertSqlSafe(select)).fetch_all(&self.pool).await.unwrap()
        }
    }
}
