//! From a broker into PostgreSQL: an inbox row and an entry a message, beside pgbench writing the
//! same rows into the same tables as bare arrays.

use crate::{
    brokers::{Placed, left, messages, ours},
    postgres::{psql, transactions},
};
use serde::{Deserialize, Serialize};
use sillage::{
    App, Broker, Consumer, Database, Effects, Event, Service, TopicSpec, connect, connect_broker,
    publish,
};
use std::{path::Path, sync::Arc, time::Duration, time::Instant};
use uuid::Uuid;

/// Rows of one statement of pgbench: as many as are handled at once here.
const ROWS: u32 = 256;
const PARTITIONS: u32 = 12;
/// Messages that are not confirmed.
const IN_FLIGHT: usize = 8_000;

#[derive(clap::Args)]
pub(crate) struct Inbox {
    /// `kafka://…` or `amqp://…`
    #[arg(long)]
    broker: String,
    /// `postgres://…`; the schema `sillage_inbox` in it is made anew.
    #[arg(long)]
    database: String,
    /// How many messages a round and side.
    #[arg(long, default_value_t = 50_000)]
    messages: u64,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

/// What is told of each message, to nobody.
#[derive(Event, Serialize, Deserialize)]
#[event(name = "bench.noted", internal)]
struct Noted {
    #[event(key)]
    order_id: String,
    total: u64,
}

async fn note(placed: Placed) -> Effects {
    publish(Noted { order_id: placed.order_id, total: placed.total })
}

pub(crate) async fn run(what: Inbox) {
    psql(&what.database, "DROP SCHEMA IF EXISTS sillage_inbox CASCADE");
    let mark = |url: &str| if url.contains('?') { '&' } else { '?' };
    let url = format!("{}{}schema=sillage_inbox", what.database, mark(&what.database));
    let database = connect(&url).await.expect("connects");
    let prefix = format!("bench-{}-", Uuid::new_v4().simple());
    left::removed(&what.broker, &prefix, "inbox", measure(&what, &database, &prefix)).await;
    psql(&what.database, "DROP SCHEMA IF EXISTS sillage_inbox CASCADE");
}

async fn measure(what: &Inbox, database: &Arc<dyn Database>, prefix: &str) {
    let mark = |url: &str| if url.contains('?') { '&' } else { '?' };
    let url =
        format!("{}{}partitions={PARTITIONS}&prefix={prefix}", what.broker, mark(&what.broker));
    let broker = connect_broker(&url).await.expect("connects").expect("a broker");
    let spec = TopicSpec { name: "bench".into(), partitions: Some(PARTITIONS) };
    broker.ensure(&[spec]).await.expect("a topic");
    let script = std::env::temp_dir().join(format!("{prefix}inbox.sql"));
    std::fs::write(&script, raw()).expect("a script");
    // The consumer's place, before anything is published.
    start(database, &broker).await.drain().await;
    let mut ratios = vec![];
    for round in 0..what.rounds {
        ours::publish(&*broker, &[messages("bench", what.messages)], IN_FLIGHT).await;
        let ours = consume(database, &broker, what.messages).await;
        let raw = bare(what, &script);
        println!("round {round}: ours {ours:.0}/s, bare arrays of {ROWS} {raw:.0}/s");
        ratios.push(ours / raw);
    }
    ratios.sort_by(f64::total_cmp);
    println!("inbox: to bare arrays {:.2}", ratios[ratios.len() / 2]);
    let _ = std::fs::remove_file(script);
}

async fn start(database: &Arc<dyn Database>, broker: &Arc<dyn Broker>) -> sillage::Running {
    let consumer = Consumer::new("count").on(note);
    let app = App::new(database.clone()).broker(broker.clone());
    app.service(Service::new("inbox").consumer(consumer)).start().await.expect("the bench starts")
}

/// Messages a second from the first entry to the last.
#[allow(clippy::cast_precision_loss)]
async fn consume(database: &Arc<dyn Database>, broker: &Arc<dyn Broker>, count: u64) -> f64 {
    let end = || async { database.head().await.expect("answers").last.0 };
    let before = end().await;
    let app = start(database, broker).await;
    let mut begun = None;
    loop {
        let done = end().await.saturating_sub(before);
        if done > 0 && begun.is_none() {
            begun = Some((Instant::now(), done));
        }
        if let Some((since, first)) = begun.filter(|_| done >= count) {
            let rate = (done - first) as f64 / since.elapsed().as_secs_f64();
            app.drain().await;
            return rate;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One transaction: as many inbox rows as entries.
fn raw() -> String {
    let payload = r#"{"order_id":"order-00000001","total":7996}"#;
    let source = format!("FROM generate_series(1, {ROWS})");
    format!(
        "BEGIN;\nINSERT INTO sillage_inbox.inbox (consumer, source, id, decision, partition, \
         \"offset\", at) SELECT * FROM unnest(array(SELECT 'inbox/raw' {source}), array(SELECT \
         'bench' {source}), array(SELECT gen_random_uuid()::text {source}), array(SELECT 'done' \
         {source}), array(SELECT 'age' {source}), array(SELECT 1800000000::bigint {source}), \
         array(SELECT 1800000000000000 {source}));\nINSERT INTO sillage_inbox.log (source, id, \
         name, version, key, time, correlation_id, causation_id, traceparent, payload) SELECT \
         'raw', gen_random_uuid()::text, 'bench.noted', 1, 'order-00000001'::bytea, \
         1800000000000000, gen_random_uuid()::text, gen_random_uuid()::text, \
         '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', payload FROM \
         unnest(array(SELECT '{payload}'::bytea {source})) AS p (payload);\nCOMMIT;\n"
    )
}

/// Messages a second that pgbench writes.
fn bare(what: &Inbox, script: &Path) -> f64 {
    let times = (what.messages / u64::from(ROWS)).max(1).to_string();
    transactions(&what.database, script, 1, ["-t", &times]) * f64::from(ROWS)
}
