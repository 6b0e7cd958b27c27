//! The one task that commits: it takes what waits and saves it with one durable write. A commit whose
//! rows others hold goes to a second task, on a connection of its own; one that was handed over with
//! others goes back to its caller, so that they have their answers.
//!
//! *Guarantees.* What was handed over is tried, also when its caller goes away. Commits that share a
//! row are tried in the order in which they were handed over, but for those that go back.

use crate::{
    commit::{apply, held_too_long},
    link::{Link, Way},
    log::Log,
    phases::Locking,
    state::{Key, keys},
    tail::Tail,
};
use sillage_core::{Clock, Commit, CommitError, Committed, Error, Recorded, Write};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Commits of several callers are put together up to this many, and about this many bytes.
const GATHERED: usize = 1024;
const BYTES: usize = 16 << 20;

/// For how long a commit may find its rows held.
const PATIENCE: Duration = Duration::from_secs(30);

type Answer = Result<Committed, CommitError>;

/// The way to the committing task.
pub(crate) struct Writer {
    jobs: mpsc::UnboundedSender<Job>,
    writes: Arc<AtomicU64>,
}

/// A commit, and where its answer goes.
struct Job {
    commit: Commit,
    place: usize,
    /// Nothing else was handed over with it.
    alone: bool,
    caller: Arc<Caller>,
}

/// Who handed over some commits, and waits for all answers.
struct Caller {
    answers: Mutex<Answers>,
}

struct Answers {
    each: Vec<Option<Answer>>,
    missing: usize,
    reply: Option<oneshot::Sender<Vec<Option<Answer>>>>,
}

impl Job {
    fn answer(self, answer: Answer) {
        self.end(|_| answer);
    }

    /// Gives it back.
    fn give_back(self) {
        self.end(|commit| Err(CommitError::Held(commit)));
    }

    fn end(self, answer: impl FnOnce(Commit) -> Answer) {
        let mut answers = lock(&self.caller.answers);
        answers.each[self.place] = Some(answer(self.commit));
        answers.missing -= 1;
        if answers.missing == 0
            && let Some(reply) = answers.reply.take()
        {
            // A caller that went away is told nothing; its commits stand.
            let _ = reply.send(std::mem::take(&mut answers.each));
        }
    }
}

/// What both tasks work with.
struct Context {
    log: Arc<Log>,
    tail: Arc<Tail>,
    clock: Arc<dyn Clock>,
    /// Rows of commits that wait for others, and how many wait for each.
    waited_for: Mutex<HashMap<Key, usize>>,
    /// How many batches wrote something.
    writes: Arc<AtomicU64>,
}

impl Writer {
    /// Starts both tasks. They end when this is gone and everything is tried.
    pub(crate) fn start(log: Arc<Log>, tail: Arc<Tail>, commits: Way, held: Way) -> Writer {
        let (jobs, waiting) = mpsc::unbounded_channel();
        let (later, held_back) = mpsc::unbounded_channel();
        let (clock, waited_for) = (commits.clock.clone(), Mutex::default());
        let writes = Arc::<AtomicU64>::default();
        let context = Arc::new(Context { log, tail, clock, waited_for, writes: writes.clone() });
        tokio::spawn(write(context.clone(), Link::new(commits), waiting, later));
        tokio::spawn(wait(context, Link::new(held), held_back));
        Writer { jobs, writes }
    }

    /// How many durable writes there were.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// One answer a commit, in order, once all that were accepted are durable.
    pub(crate) async fn commit(&self, commits: Vec<Commit>) -> Vec<Answer> {
        let count = commits.len();
        let (reply, answers) = oneshot::channel();
        let each = commits.iter().map(|_| None).collect();
        let waiting = Answers { each, missing: count, reply: Some(reply) };
        let caller = Arc::new(Caller { answers: Mutex::new(waiting) });
        for (place, commit) in commits.into_iter().enumerate() {
            // Where the task is gone, so is the caller's reply.
            let _ =
                self.jobs.send(Job { commit, place, alone: count == 1, caller: caller.clone() });
        }
        drop(caller);
        let lost = || Err(CommitError::Failed(stopped()));
        let answers = answers.await.unwrap_or_default().into_iter();
        let mut answers: Vec<_> = answers.map(|answer| answer.unwrap_or_else(lost)).collect();
        answers.resize_with(count, lost);
        answers
    }
}

async fn write(
    context: Arc<Context>,
    mut link: Link,
    mut waiting: mpsc::UnboundedReceiver<Job>,
    later: mpsc::UnboundedSender<Job>,
) {
    let mut left: Option<Job> = None;
    loop {
        let first = match left.take() {
            Some(job) => job,
            None => match waiting.recv().await {
                Some(job) => job,
                None => return,
            },
        };
        let (mut batch, mut bytes) = (vec![], 0);
        let mut next = Some(first);
        while let Some(job) = next {
            bytes += size(&job.commit);
            if !batch.is_empty() && bytes > BYTES {
                left = Some(job);
                break;
            }
            // Nothing overtakes a commit that waits for the same row.
            if context.is_waited_for(&job.commit) {
                context.hold(job, &later);
            } else {
                batch.push(job);
            }
            next = if batch.len() < GATHERED { waiting.try_recv().ok() } else { None };
        }
        let commits: Vec<&Commit> = batch.iter().map(|job| &job.commit).collect();
        let (outcomes, appended) =
            apply(&context.log, &mut link, &commits, Locking::PassOver).await;
        context.tell(&commits, &outcomes, appended);
        for (job, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Some(answer) => job.answer(answer),
                None => context.hold(job, &later),
            }
        }
    }
}

/// Tries commits whose rows others hold, each by itself, until it has an answer.
async fn wait(context: Arc<Context>, mut link: Link, mut arriving: mpsc::UnboundedReceiver<Job>) {
    // In order of arrival, each with the time at which patience ends.
    let mut waiting: Vec<(Duration, Job)> = vec![];
    loop {
        if waiting.is_empty() {
            let Some(job) = arriving.recv().await else { return };
            waiting.push((context.clock.elapsed() + PATIENCE, job));
        }
        while let Ok(job) = arriving.try_recv() {
            waiting.push((context.clock.elapsed() + PATIENCE, job));
        }
        let mut passed: HashSet<Key> = HashSet::new();
        for (end, job) in std::mem::take(&mut waiting) {
            let keys: Vec<Key> = keys(&job.commit).filter(Key::is_exclusive).collect();
            let is_late = context.clock.elapsed() >= end;
            let answer = if keys.iter().any(|key| passed.contains(key)) {
                None
            } else {
                let commits = [&job.commit];
                let (mut outcomes, appended) =
                    apply(&context.log, &mut link, &commits, Locking::Wait).await;
                context.tell(&commits, &outcomes, appended);
                outcomes.pop().flatten()
            };
            let late = || Err(held_too_long(&context.log, PATIENCE.as_secs()));
            if let Some(answer) = answer.or_else(|| is_late.then(late)) {
                context.let_go(&keys);
                job.answer(answer);
            } else {
                passed.extend(keys);
                waiting.push((end, job));
            }
        }
    }
}

impl Context {
    fn is_waited_for(&self, commit: &Commit) -> bool {
        let waited_for = lock(&self.waited_for);
        !waited_for.is_empty() && keys(commit).any(|key| waited_for.contains_key(&key))
    }

    fn hold(&self, job: Job, later: &mpsc::UnboundedSender<Job>) {
        if !job.alone {
            return job.give_back();
        }
        let mut waited_for = lock(&self.waited_for);
        for key in keys(&job.commit).filter(Key::is_exclusive) {
            *waited_for.entry(key).or_default() += 1;
        }
        drop(waited_for);
        // The task that waits ends after this one.
        let _ = later.send(job);
    }

    fn let_go(&self, keys: &[Key]) {
        let mut waited_for = lock(&self.waited_for);
        for key in keys {
            if let Some(count) = waited_for.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    waited_for.remove(key);
                }
            }
        }
    }

    /// Wakes those whom accepted commits concern.
    fn tell(&self, commits: &[&Commit], outcomes: &[Option<Answer>], appended: Vec<Recorded>) {
        let accepted = commits.iter().zip(outcomes);
        let accepted = accepted.filter(|(_, outcome)| matches!(outcome, Some(Ok(_))));
        if accepted.flat_map(|(commit, _)| &commit.writes).next().is_some() {
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        if !appended.is_empty() {
            self.tail.committed(appended);
        }
    }
}

/// About how many bytes it is on its way to the server.
fn size(commit: &Commit) -> usize {
    let size = |write: &Write| match write {
        Write::Append { message, .. } => message.size(),
        Write::Put { body, .. } => body.len(),
        _ => 0,
    };
    commit.writes.iter().map(size).sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stopped() -> Error {
    Error::unavailable("the task that commits has stopped: connect to the database again")
}
