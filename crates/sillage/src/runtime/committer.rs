//! Group commit: one task a database hands over what gathered while it was not looking, and waits
//! for no answer before the next batch.
//!
//! There is no timer and nothing to tune: under load batches grow by themselves, as who was
//! answered together commits again together; without load a commit is written at once. The database
//! puts together what waits there. A commit with a row that somebody holds is handed over again by
//! itself, and delays no other.

use crate::names;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use sillage_core::{
    BoxFuture, Commit, CommitError, Committed, Database, Error, Sort, Timestamp, Transaction, Write,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
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

/// Hands commits to the database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Committer {
    pending: mpsc::UnboundedSender<(Commit, Reply)>,
    timers: Arc<Timers>,
}

/// The earliest timers that were set since somebody looked.
#[derive(Default)]
struct Timers {
    set: Mutex<TimerSet>,
    notify: Notify,
}

/// When the earliest of some timers is due.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TimerSet {
    after: Option<Duration>,
    at: Option<Timestamp>,
}

impl TimerSet {
    /// When it is due, at the latest, where they were set before `now`.
    pub(crate) fn due(self, now: Timestamp) -> Timestamp {
        let after = self.after.map_or(now, |after| now + after);
        match (self.after, self.at) {
            (None, Some(at)) => at,
            (_, at) => at.map_or(after, |at| at.min(after)),
        }
    }

    fn add(&mut self, other: TimerSet) {
        self.after = self.after.into_iter().chain(other.after).min();
        self.at = self.at.into_iter().chain(other.at).min();
    }
}

impl Timers {
    fn add(&self, set: TimerSet) {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).add(set);
        self.notify.notify_one();
    }

    fn take(&self) -> TimerSet {
        std::mem::take(&mut *self.set.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Committer {
    /// Starts the task. It ends when the last handle is gone and everything is written.
    pub(crate) fn start(database: Arc<dyn Database>) -> Self {
        let (pending, receiver) = mpsc::unbounded_channel();
        let timers = Arc::<Timers>::default();
        tokio::spawn(write(database, receiver, timers.clone()));
        Committer { pending, timers }
    }

    /// Completes when this process has set timers since the last call: says when the earliest of
    /// them is due.
    pub(crate) async fn timer_set(&self) -> TimerSet {
        self.timers.notify.notified().await;
        self.timers.take()
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

impl Committer {
    /// Commits in a handler's own transaction, beside the batches; the answer comes as for
    /// `submit`, also if nobody waits for it any more.
    pub(crate) fn submit_in(
        &self,
        transaction: Box<dyn Transaction>,
        commit: Commit,
        ticket: u64,
        to: &mpsc::UnboundedSender<(u64, Answer)>,
    ) {
        let (timers, to) = (self.timers.clone(), to.clone());
        let set = set_by(std::slice::from_ref(&commit));
        tokio::spawn(async move {
            let answer = transaction.commit(commit).await;
            if let Some(set) = set {
                timers.add(set);
            }
            let _ = to.send((ticket, answer));
        });
    }
}

/// When the earliest timer is due that these commits set.
fn set_by(commits: &[Commit]) -> Option<TimerSet> {
    let mut set: Option<TimerSet> = None;
    for write in commits.iter().flat_map(|commit| &commit.writes) {
        if let Write::Put { collection, sort, .. } = write
            && **collection == *names::TIMERS
        {
            let (after, at) = match sort {
                Some(Sort::After(delay)) => (Some(*delay), None),
                Some(Sort::Text(time)) => (None, time.parse().ok()),
                None => (None, None),
            };
            set.get_or_insert_default().add(TimerSet { after, at });
        }
    }
    set
}

fn stopped() -> CommitError {
    CommitError::Failed(Error::unavailable("the app has stopped, nothing is committed any more"))
}

type UnderWay<'d> = FuturesUnordered<BoxFuture<'d, Vec<(Commit, Reply)>>>;

async fn write(
    database: Arc<dyn Database>,
    mut pending: mpsc::UnboundedReceiver<(Commit, Reply)>,
    timers: Arc<Timers>,
) {
    // They are begun in the order in which they are put here.
    let mut under_way = UnderWay::new();
    let mut batch = Vec::new();
    let mut is_open = true;
    while is_open || !under_way.is_empty() {
        tokio::select! {
            biased;
            count = pending.recv_many(&mut batch, BATCH), if is_open => {
                is_open = count > 0;
                let batch = std::mem::take(&mut batch);
                if is_open {
                    under_way.push(Box::pin(save(&*database, &timers, batch)) as BoxFuture<'_, _>);
                }
            }
            Some(held) = under_way.next() => for alone in held {
                under_way.push(Box::pin(save(&*database, &timers, vec![alone])));
            }
        }
    }
}

/// Commits a batch and answers; what is to be handed over by itself.
async fn save(
    database: &dyn Database,
    timers: &Timers,
    batch: Vec<(Commit, Reply)>,
) -> Vec<(Commit, Reply)> {
    let (commits, replies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    let set = set_by(&commits);
    let answers = database.commit(commits).await;
    if let Some(set) = set {
        timers.add(set);
    }
    let mut held = vec![];
    for (reply, answer) in replies.into_iter().zip(answers) {
        match (reply, answer) {
            (reply, Err(CommitError::Held(commit))) => held.push((commit, reply)),
            (Reply::Once(to), answer) => drop(to.send(answer)),
            (Reply::Ticket(to, ticket), answer) => drop(to.send((ticket, answer))),
        }
    }
    held
}
