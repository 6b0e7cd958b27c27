//! Group commit: one task a database writes what gathered while the last batch was written.
//!
//! There is no timer and nothing to tune: under load batches grow by themselves, without load a
//! commit is written at once.

use crate::names;
use sillage_core::{Commit, CommitError, Committed, Database, Error, Write};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot};

/// The most commits in one batch.
const BATCH: usize = 1024;

/// The answer to a commit.
pub(crate) type Answer = Result<Committed, CommitError>;

/// Answers to one sender, with the tickets of their commits.
pub(crate) type Answers = mpsc::UnboundedReceiver<(u64, Answer)>;

enum Reply {
    Once(oneshot::Sender<Answer>),
    Ticket(mpsc::UnboundedSender<(u64, Answer)>, u64),
}

/// Hands commits to the database's committing task. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Committer {
    pending: mpsc::UnboundedSender<(Commit, Reply)>,
    timers: Arc<Notify>,
}

impl Committer {
    /// Starts the task. It ends when the last handle is gone and everything is written.
    pub(crate) fn start(database: Arc<dyn Database>) -> Self {
        let (pending, receiver) = mpsc::unbounded_channel();
        let timers = Arc::<Notify>::default();
        tokio::spawn(write(database, receiver, timers.clone()));
        Committer { pending, timers }
    }

    /// Completes when this process has set a timer since the last call.
    pub(crate) async fn timer_set(&self) {
        self.timers.notified().await;
    }

    /// Commits, and waits until it is durable.
    pub(crate) async fn commit(&self, commit: Commit) -> Answer {
        self.begin(commit).await
    }

    /// Puts a commit in line, in this call; the future waits until it is durable.
    pub(crate) fn begin(&self, commit: Commit) -> impl Future<Output = Answer> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let _ = self.pending.send((commit, Reply::Once(reply)));
        async { answer.await.unwrap_or_else(|_| Err(stopped())) }
    }

    /// Commits; the answer comes with this ticket to `to`.
    pub(crate) fn submit(
        &self,
        commit: Commit,
        ticket: u64,
        to: &mpsc::UnboundedSender<(u64, Answer)>,
    ) {
        if self.pending.send((commit, Reply::Ticket(to.clone(), ticket))).is_err() {
            let _ = to.send((ticket, Err(stopped())));
        }
    }
}

fn sets_timer(write: &Write) -> bool {
    matches!(write, Write::Put { collection, .. } if **collection == *names::TIMERS)
}

fn stopped() -> CommitError {
    CommitError::Failed(Error::unavailable("the app has stopped, nothing is committed any more"))
}

async fn write(
    database: Arc<dyn Database>,
    mut pending: mpsc::UnboundedReceiver<(Commit, Reply)>,
    timers: Arc<Notify>,
) {
    let mut batch = Vec::new();
    while pending.recv_many(&mut batch, BATCH).await > 0 {
        let (commits, replies): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let timer_set = commits.iter().flat_map(|commit| &commit.writes).any(sets_timer);
        let answers = database.commit(commits).await;
        if timer_set {
            timers.notify_one();
        }
        for (reply, answer) in replies.into_iter().zip(answers) {
            match reply {
                Reply::Once(to) => drop(to.send(answer)),
                Reply::Ticket(to, ticket) => drop(to.send((ticket, answer))),
            }
        }
    }
}
