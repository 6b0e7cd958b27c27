//! The one thread that writes: it takes the batches that wait and saves them with one durable
//! write.

use crate::{
    changed::Changes,
    commit::{Outcome, apply},
    error::describe,
    statements::Statements,
};
use rusqlite::Connection;
use sillage_core::{Clock, Commit, CommitError, Error, Result};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};
use tokio::sync::oneshot;

/// Batches of several callers are put together up to about this many commits, so that none of
/// them waits for long.
const GATHERED: usize = 512;

/// The way to the writer's thread. Dropping it waits until what the thread was given is saved and
/// its connection is closed.
pub(crate) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    writes: Arc<AtomicU64>,
}

/// What the writer's thread works with.
pub(crate) struct Context {
    pub(crate) path: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) changes: Arc<Changes>,
}

struct Job {
    batch: Vec<Commit>,
    reply: oneshot::Sender<Vec<Outcome>>,
}

impl Writer {
    /// Starts the thread; an error if it cannot work on this connection.
    pub(crate) fn start(connection: Connection, context: Context) -> Result<Writer> {
        let (jobs, waiting) = mpsc::channel();
        let (ready, started) = mpsc::sync_channel(1);
        let writes = Arc::<AtomicU64>::default();
        let counted = writes.clone();
        let thread = thread::Builder::new().name("sillage-sqlite".to_owned());
        let spawned = thread.spawn(move || {
            // Taken in here, so that it is dropped, with its connection, before the writer's.
            let context = context;
            match Statements::prepare(&connection) {
                Ok(mut statements) => {
                    let _ = ready.send(Ok(()));
                    context.work(&mut statements, &waiting, &counted);
                }
                Err(error) => {
                    let _ = ready.send(Err(describe(&context.path, &error)));
                }
            }
        });
        let thread = spawned
            .map_err(|error| Error::unavailable("no thread can be started").because(error))?;
        started.recv().unwrap_or_else(|_| Err(stopped()))?;
        Ok(Writer { jobs: Some(jobs), thread: Some(thread), writes })
    }

    /// How many durable writes there were.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// One outcome a commit, in order, once all that were accepted are durable.
    pub(crate) async fn commit(&self, batch: Vec<Commit>) -> Vec<Outcome> {
        let commits = batch.len();
        let (reply, outcomes) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            // Where the thread is gone, so is `reply`.
            let _ = jobs.send(Job { batch, reply });
        }
        let lost = || (0..commits).map(|_| Err(CommitError::Failed(stopped()))).collect();
        outcomes.await.unwrap_or_else(|_| lost())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Context {
    fn save(&self, statements: &mut Statements<'_>, commits: &[Commit]) -> Vec<Outcome> {
        self.changes.of(|| apply(statements, &self.path, &*self.clock, commits))
    }

    fn work(
        &self,
        statements: &mut Statements<'_>,
        waiting: &mpsc::Receiver<Job>,
        writes: &AtomicU64,
    ) {
        let mut gathered = Vec::new();
        let mut replies = Vec::new();
        while let Ok(first) = waiting.recv() {
            let mut next = Some(first);
            while let Some(job) = next {
                replies.push((job.batch.len(), job.reply));
                gathered.extend(job.batch);
                next = if gathered.len() < GATHERED { waiting.try_recv().ok() } else { None };
            }
            // What panics is somebody else's, as who takes the log and has no room for it.
            let save = AssertUnwindSafe(|| self.save(statements, &gathered));
            let panicked =
                |_| gathered.iter().map(|_| Err(CommitError::Failed(panicked()))).collect();
            let outcomes: Vec<Outcome> = catch_unwind(save).unwrap_or_else(panicked);
            writes.fetch_add(1, Ordering::Relaxed);
            let mut outcomes = outcomes.into_iter();
            for (commits, reply) in replies.drain(..) {
                // A caller that went away is told nothing; its commits stand.
                let _ = reply.send(outcomes.by_ref().take(commits).collect());
            }
            gathered.clear();
        }
    }
}

fn panicked() -> Error {
    Error::unavailable("a panic broke off the commit: nobody knows whether it is saved, try again")
}

fn stopped() -> Error {
    Error::unavailable("the thread that writes has stopped: open the database again")
}
