//! Only the outbox, in a service of axum and sqlx: an event is published if and only if the row is
//! committed, from within the service's own transaction.
#![allow(clippy::print_stdout)]

use axum::{Router, extract, http::StatusCode, routing::post};
use serde::{Deserialize, Serialize};
use sillage::postgres::{Outbox, Postgres, sqlx};
use sillage::{SystemClock, prelude::*};
use sqlx::{PgPool, postgres::PgConnectOptions, query};
use std::{env, error::Error, net::SocketAddr, process, sync::Arc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Sender, channel};

#[derive(Event, Serialize, Deserialize)]
#[event(name = "customer.created")]
struct CustomerCreated {
    #[event(key)]
    name: String,
}
#[derive(Clone)]
struct Crm {
    pool: PgPool,
    outbox: Outbox,
}

impl Crm {
    async fn create(&self, name: String) -> Result<(), Box<dyn Error>> {
        let mut tx = self.pool.begin().await?;
        self.outbox.write(&mut tx, publish(CustomerCreated { name: name.clone() })).await?;
        query("INSERT INTO customers VALUES ($1)").bind(name).execute(&mut *tx).await?;
        tx.commit().await?;
        self.outbox.committed();
        Ok(())
    }
}

async fn create(crm: extract::State<Crm>, name: extract::Path<String>) -> StatusCode {
    crm.create(name.0).await.map_or(StatusCode::CONFLICT, |()| StatusCode::CREATED)
}

async fn welcome(customer: CustomerCreated, State(out): State<Sender<String>>) {
    let _ = out.send(customer.name).await;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (url, schema) = (env::var("DATABASE_URL")?, format!("example_{}", process::id()));
    let options = url.parse::<PgConnectOptions>()?.options([("search_path", &schema)]);
    let pool = PgPool::connect_with(options).await?;
    let of_it = format!("{url}?schema={schema}");
    let database = Arc::new(Postgres::connect(&of_it, Arc::new(SystemClock)).await?);
    query("CREATE TABLE customers (name text PRIMARY KEY)").execute(&pool).await?;
    let outbox = Outbox::new(database.clone(), "crm");
    let router = Router::new().route("/customers/{name}", post(create));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = router.with_state(Crm { pool: pool.clone(), outbox });
    tokio::spawn(axum::serve(listener, router).into_future());
    let (out, mut welcomed) = channel::<String>(9);
    let mail = Service::new("mail").state(out).consumer(Consumer::new("welcome").on(welcome));
    let app = App::new(database).service(Service::new("crm")).service(mail).start().await?;
    for name in ["ada", "ada", "bob"] {
        println!("{name}: {}", request(address, name).await?);
    }
    let mut names = [welcomed.recv().await, welcomed.recv().await].map(Option::unwrap_or_default);
    names.sort(); // of two keys it is not promised which is handled first
    println!("welcome, {}", names.join(" and "));
    app.drain().await;
    query(sqlx::AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).execute(&pool).await?;
    Ok(())
}

async fn request(address: SocketAddr, name: &str) -> std::io::Result<String> {
    let (mut http, mut answer) = (TcpStream::connect(address).await?, String::new());
    let head = "HTTP/1.1\r\nHost: crm\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    http.write_all(format!("POST /customers/{name} {head}").as_bytes()).await?;
    http.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
