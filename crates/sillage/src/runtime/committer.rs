//! Group commit: one task a database writes what gathered while the last batch was written.
//!
//! There is no timer and nothing to tune: under load batches grow by themselves, without load a
//! commit is written at once.

use sillage_core::{Commit, CommitError, Committed, Database, Error};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

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
pub(crate) struct Committer(mpsc::UnboundedSender<(Commit, Reply)>);

impl Committer {
    /// Starts the task. It ends when the last handle is gone and everything is written.
    pub(crate) fn start(database: Arc<dyn Database>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(write(database, receiver));
        Committer(sender)
    }

    /// Commits, and waits until it is durable.
    pub(crate) async fn commit(&self, commit: Commit) -> Answer {
        self.begin(commit).await
    }

    /// Puts a commit in line, in this call; the future waits until it is durable.
    pub(crate) fn begin(&self, commit: Commit) -> impl Future<Output = Answer> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.send((commit, Reply::Once(reply)));
        async { answer.await.unwrap_or_else(|_| Err(stopped())) }
    }

    /// Commits; the answer comes with this ticket to `to`.
    pub(crate) fn submit(
        &self,
        commit: Commit,
        ticket: u64,
        to: &mpsc::UnboundedSender<(u64, Answer)>,
    ) {
        if self.0.send((commit, Reply::Ticket(to.clone(), ticket))).is_err() {
            let _ = to.send((ticket, Err(stopped())));
        }
    }
}

fn stopped() -> CommitError {
    CommitError::Failed(Error::unavailable("the app has stopped, nothing is committed any more"))
}

async fn write(database: Arc<dyn Database>, mut pending: mpsc::UnboundedReceiver<(Commit, Reply)>) {
    let mut batch = Vec::new();
    while pending.recv_many(&mut batch, BATCH).await > 0 {
        let (commits, replies): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let answers = database.commit(commits).await;
        for (reply, answer) in replies.into_iter().zip(answers) {
            match reply {
                Reply::Once(to) => drop(to.send(answer)),
                Reply::Ticket(to, ticket) => drop(to.send((ticket, answer))),
            }
        }
    }
}
