//! A server that vanishes without a word: nothing waits for it longer than a limit.

use crate::support::{DIRECT, Schema, append, begun, commit, run};
use sillage_core::{Clock, CommitError, Database, ErrorKind, Transaction};
use sillage_postgres::Postgres;
use sillage_testkit::{ManualClock, SystemClock};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use uuid::Uuid;

const TTL: Duration = Duration::from_secs(60);

/// A way to the server on which everything that is open can fall silent, for good.
struct Silent {
    database: Arc<Postgres>,
    clock: Arc<ManualClock>,
    silence: watch::Sender<()>,
}

impl Silent {
    async fn open(schema: &Schema) -> Silent {
        let (before, after) = schema.url.split_once('@').unwrap();
        let (server, after) = after.split_once('/').unwrap();
        let (server, listener) = (server.to_owned(), TcpListener::bind("127.0.0.1:0").await);
        let listener = listener.unwrap();
        let url = format!("{before}@{}/{after}", listener.local_addr().unwrap());
        let silence = watch::Sender::new(());
        let silent = silence.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = TcpStream::connect(&server).await.unwrap();
                let mut silent = silent.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = silent.changed() => std::future::pending().await,
                    }
                });
            }
        });
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let database = Postgres::connect(&url, clock.clone()).await.unwrap();
        Silent { database: Arc::new(database), clock, silence }
    }

    /// Whether a transaction begins.
    fn begin(&self) -> JoinHandle<bool> {
        let database = self.database.clone();
        tokio::spawn(async move { database.begin().await.is_ok() })
    }

    /// Whether a lease is taken.
    fn lease(&self, number: u32) -> JoinHandle<Result<bool, ErrorKind>> {
        let database = self.database.clone();
        tokio::spawn(async move {
            let taken = database.lease(&format!("l{number}"), Uuid::nil(), TTL).await;
            taken.map(|epoch| epoch.is_some()).map_err(|error| error.kind())
        })
    }

    /// What is answered once time has passed.
    async fn late<T>(&self, waiting: JoinHandle<T>) -> T {
        while !waiting.is_finished() {
            self.clock.advance(Duration::from_secs(23));
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
        waiting.await.unwrap()
    }
}

#[test]
fn transactions_of_the_users_are_answered() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let silent = Silent::open(&schema).await;
        for id in ["1", "2"] {
            let transaction = begun(&silent.database).await;
            silent.silence.send_replace(());
            let committing = Transaction::commit(transaction, commit([append(None, id)]));
            let answer = silent.late(tokio::spawn(committing)).await;
            assert!(matches!(answer, Err(CommitError::Failed(_))), "{answer:?}");
        }
        // One that rests, which is not asked first.
        Transaction::commit(begun(&silent.database).await, commit([])).await.unwrap();
        SystemClock.sleep(Duration::from_millis(20)).await;
        silent.silence.send_replace(());
        silent.late(silent.begin()).await;
    });
}

/// Those that are given back, and never answer again, hold no places.
#[test]
fn transactions_that_are_dropped_leave_room() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let silent = Silent::open(&schema).await;
        let mut all = vec![];
        for _ in 0..32 {
            all.push(begun(&silent.database).await);
        }
        silent.silence.send_replace(());
        drop(all);
        // One that has just begun may be late as well.
        while !silent.late(silent.begin()).await {}
    });
}

#[test]
fn leases_are_answered() {
    let Some(schema) = Schema::new(DIRECT) else { return };
    run(async {
        let silent = Silent::open(&schema).await;
        for round in 0..3 {
            let all: Vec<_> = (0..3).map(|number| silent.lease(round * 3 + number)).collect();
            for taken in all {
                assert_eq!(taken.await.unwrap(), Ok(true), "others have their places");
            }
            silent.silence.send_replace(());
            let all: Vec<_> = (0..3).map(|number| silent.lease(round * 3 + number)).collect();
            let mut unanswered = 0;
            for taken in all {
                match silent.late(taken).await {
                    Ok(is_taken) => assert!(is_taken, "on a connection that was made since"),
                    Err(kind) => {
                        assert_eq!(kind, ErrorKind::Unavailable);
                        unanswered += 1;
                    }
                }
            }
            assert!(unanswered > 0);
        }
    });
}
