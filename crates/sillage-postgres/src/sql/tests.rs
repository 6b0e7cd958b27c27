//! How the server runs the statements, on plans that were made for empty tables.

use super::Sql;
use crate::{
    Postgres,
    config::{Config, Purpose},
};
use sillage_testkit::{SystemClock, servers};
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use std::sync::Arc;
use uuid::Uuid;

/// These ask the server about itself, and join its own tables.
const OF_THE_SERVER: [&str; 3] = ["holding", "rights", "server"];

const TABLES: [&str; 6] = ["meta", "streams", "log", "inbox", "documents", "leases"];

/// A plan is made once a connection, maybe for tables that are empty by then and known to be: what it
/// does must not become slow as they grow.
#[tokio::test]
async fn a_plan_for_empty_tables_looks_up_what_it_is_asked_for() {
    let Some(server) = servers::url("SILLAGE_TEST_POSTGRES") else { return };
    let schema = format!("test_{}", Uuid::new_v4().simple());
    let mark = if server.contains('?') { '&' } else { '?' };
    let url = format!("{server}{mark}schema={schema}");
    drop(Postgres::connect(&url, Arc::new(SystemClock)).await.unwrap());
    let config = Config::parse(&url).unwrap();
    let options = config.options(Purpose::Commits, "on");
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    let mut slow = vec![];
    for is_known in [false, true] {
        if is_known {
            for table in TABLES {
                run(&mut connection, format!("VACUUM ANALYZE {schema}.{table}")).await;
            }
        }
        for (name, statement) in Sql::new(&schema).all() {
            if OF_THE_SERVER.contains(&name) {
                continue;
            }
            let name = format!("{name}, known to be empty: {is_known}");
            let plan = plan(&mut connection, &name, statement.as_str()).await;
            slow.extend(reads_all(&plan).map(|step| format!("{name}: {step}")));
        }
    }
    run(&mut connection, format!("DROP SCHEMA {schema} CASCADE")).await;
    assert!(slow.is_empty(), "{slow:#?}");
}

async fn run(connection: &mut PgConnection, statement: String) {
    raw_sql(AssertSqlSafe(statement)).execute(connection).await.unwrap();
}

/// The steps of its plan for any arguments, a line each.
async fn plan(connection: &mut PgConnection, name: &str, statement: &str) -> Vec<String> {
    run(connection, format!("PREPARE \"{name}\" AS {statement}")).await;
    let arguments = (1..100).filter(|number| statement.contains(&format!("${number}"))).count();
    let arguments = vec!["NULL"; arguments].join(", ");
    let arguments = if arguments.is_empty() { arguments } else { format!("({arguments})") };
    let explain = format!("EXPLAIN EXECUTE \"{name}\"{arguments}");
    sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(connection).await.unwrap()
}

/// Steps that read a whole table, or go through one side of a join for each row of the other.
fn reads_all(plan: &[String]) -> impl Iterator<Item = &str> {
    let next = plan.iter().skip(1).map(String::as_str).chain([""]);
    plan.iter().zip(next).filter_map(|(step, next)| {
        let whole = step.contains("Seq Scan on")
            || step.contains("Index Scan using") && !next.contains("Index Cond:")
            || step.contains("Index Only Scan using") && !next.contains("Index Cond:")
            || step.contains("Join Filter:");
        whole.then_some(step.trim())
    })
}
