//! Writers of every manner, and who kills them.

use super::Stage;
use crate::support::{append, commit};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use sillage_core::{Clock, Commit, Database, Write};
use sillage_postgres::Postgres;
use sillage_testkit::SystemClock;
use sqlx::{Connection, PgConnection};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Writes in one manner after the other until it is enough; whatever fails, it goes on.
pub(super) async fn write(stage: Arc<Stage>, database: Arc<Postgres>, own: u64) {
    let random = SmallRng::seed_from_u64(own);
    let mut writer = Writer { stage, database, own, random, number: 0 };
    while !writer.stage.is_enough() {
        let manner = writer.random.random_range(0..10);
        if manner < 5 {
            writer.by_the_port().await;
        } else {
            // Its own transaction; where it is killed, the next one is another.
            let _ = writer.by_a_transaction(manner).await;
        }
    }
}

struct Writer {
    stage: Arc<Stage>,
    database: Arc<Postgres>,
    own: u64,
    random: SmallRng,
    number: u64,
}

impl Writer {
    /// Some entries, half of them of the writer's stream.
    fn batch(&mut self) -> Commit {
        let count = self.random.random_range(1..=self.stage.batch);
        self.stage.tried.fetch_add(count, Ordering::Relaxed);
        let stream = format!("s-{}", self.own);
        let all: Vec<Write> = (0..count)
            .map(|entry| {
                self.number += 1;
                let id = format!("{} {}", self.own, self.number);
                append((entry % 2 == 0).then_some(&stream), &id)
            })
            .collect();
        commit(all)
    }

    async fn by_the_port(&mut self) {
        let commits: Vec<Commit> =
            (0..self.random.random_range(1..3)).map(|_| self.batch()).collect();
        let answers = self.database.commit(commits).await;
        let positions = answers.iter().flatten().map(|committed| committed.position.0);
        self.stage.acknowledged.lock().unwrap().extend(positions);
    }

    async fn by_a_transaction(&mut self, manner: u32) -> sqlx::Result<()> {
        let mut connection = PgConnection::connect(&self.plain_url()).await?;
        let level = ["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
            [self.random.random_range(0..4)];
        let begin = format!("BEGIN ISOLATION LEVEL {level}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).execute(&mut connection).await?;
        if manner == 5 {
            // A first try that is taken back, and its lock with it.
            sqlx::raw_sql("SAVEPOINT s").execute(&mut connection).await?;
            self.append(&mut connection).await?;
            sqlx::raw_sql("ROLLBACK TO SAVEPOINT s").execute(&mut connection).await?;
            self.pause().await;
        }
        let last = self.append(&mut connection).await?;
        self.pause().await;
        if manner == 6 {
            self.append(&mut connection).await?;
            self.pause().await;
        }
        let end = if manner == 7 { "ROLLBACK" } else { "COMMIT" };
        sqlx::raw_sql(end).execute(&mut connection).await?;
        if manner > 7 {
            self.stage.acknowledged.lock().unwrap().push(last);
        }
        connection.close().await
    }

    async fn append(&mut self, connection: &mut PgConnection) -> sqlx::Result<u64> {
        let batch = self.batch();
        let written = self.database.write(connection, &batch).await;
        written.map(|committed| committed.position.0).map_err(|_| sqlx::Error::WorkerCrashed)
    }

    async fn pause(&mut self) {
        SystemClock.sleep(Duration::from_millis(self.random.random_range(0..4))).await;
    }

    /// For clients that know nothing of schemas.
    fn plain_url(&self) -> String {
        let url = self.stage.url();
        let (base, _) = url.split_once('?').unwrap();
        format!("{base}?application_name={}", self.stage.schema.name)
    }
}

/// Kills a backend of this run that is doing something, again and again.
pub(super) async fn kill(stage: Arc<Stage>) {
    let mut shell = stage.schema.shell().await;
    let kill = format!(
        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity \
         WHERE application_name = '{}' AND state <> 'idle' ORDER BY random() LIMIT 1) AS one",
        stage.schema.name
    );
    let mut next = 0;
    while !stage.done.load(Ordering::Relaxed) {
        // A share of the entries each, so that the run goes on.
        let share = (stage.wanted / 1_500).max(100);
        if stage.tried.load(Ordering::Relaxed) >= next {
            let killed: Option<bool> = sqlx::query_scalar(sqlx::AssertSqlSafe(kill.clone()))
                .fetch_optional(&mut shell)
                .await
                .unwrap();
            if killed == Some(true) {
                stage.killed.fetch_add(1, Ordering::Relaxed);
                next += share;
            }
        }
        SystemClock.sleep(Duration::from_millis(2)).await;
    }
}
