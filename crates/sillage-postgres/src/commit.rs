//! A batch of commits as one SQL transaction; a batch that PostgreSQL refuses is retried by halves,
//! so that only the guilty commit fails.

use crate::{
    common::Common,
    error::{Cause, cause, describe, refuse},
    link::{Link, end},
    log::Log,
    phases::{self, Done, Locking, Outcome},
    run,
    state::{Key, keys},
};
use sillage_core::{Commit, CommitError, Committed, Error, ErrorKind, Failure, Recorded};
use std::{collections::HashSet, ops::Range};

/// How often the same commits are tried when somebody was quicker or in the way.
const RACES: usize = 3;

/// Applies the batch: one outcome a commit, in order, and what is in the log since.
pub(crate) async fn apply(
    log: &Log,
    link: &mut Link,
    commits: &[&Commit],
    locking: Locking,
) -> (Vec<Outcome>, Vec<Recorded>) {
    let mut outcomes: Vec<Outcome> = commits.iter().map(|_| None).collect();
    let mut appended = vec![];
    let mut held: HashSet<Key> = HashSet::new();
    // What is still to be done, the first at the end, with how often it was tried.
    let mut parts = vec![(0..commits.len(), 0)];
    while let Some((part, tried)) = parts.pop() {
        // Behind what is held in a row, nothing overtakes.
        let is_free = |number: &usize| !keys(commits[*number]).any(|key| held.contains(&key));
        let numbers: Vec<usize> = part.clone().filter(is_free).collect();
        let chosen: Vec<&Commit> = numbers.iter().map(|number| commits[*number]).collect();
        if chosen.is_empty() {
            continue;
        }
        match attempt(log, link, &chosen, (locking, tried)).await {
            Ok(done) => {
                appended.extend(done.appended);
                for (number, outcome) in numbers.into_iter().zip(done.outcomes) {
                    if outcome.is_none() {
                        held.extend(keys(commits[number]).filter(Key::is_exclusive));
                    }
                    outcomes[number] = outcome;
                }
            }
            Err(error) => match verdict(&error, chosen.len(), tried) {
                Verdict::Again => parts.push((part, tried + 1)),
                Verdict::Halves => parts.extend(halves(&part)),
                Verdict::Held => {
                    held.extend(chosen.iter().flat_map(|c| keys(c)).filter(Key::is_exclusive));
                }
                Verdict::Final => fail(log, (&mut outcomes, commits), (numbers, error)),
            },
        }
    }
    (outcomes, appended)
}

/// What to do about a batch that was refused.
enum Verdict {
    Again,
    Halves,
    Held,
    Final,
}

fn verdict(error: &sqlx::Error, commits: usize, tried: usize) -> Verdict {
    match cause(error) {
        Cause::Server => Verdict::Final,
        Cause::Race if tried < RACES => Verdict::Again,
        Cause::Held if commits == 1 => Verdict::Held,
        _ if commits > 1 => Verdict::Halves,
        _ => Verdict::Final,
    }
}

/// The first half last: it is done next.
fn halves(part: &Range<usize>) -> [(Range<usize>, usize); 2] {
    let middle = part.start + part.len() / 2;
    tracing::debug!(commits = part.len(), "a batch is retried by halves");
    [(middle..part.end, 1), (part.start..middle, 1)]
}

fn fail(
    log: &Log,
    (outcomes, commits): (&mut [Outcome], &[&Commit]),
    (numbers, error): (Vec<usize>, sqlx::Error),
) {
    tracing::warn!(commits = numbers.len(), %error, "commits were not saved");
    if let [number] = numbers[..] {
        let refused = if run::is_cause(commits[number], &error) {
            CommitError::Sql(Failure::permanent(error))
        } else {
            refuse(&log.place, error)
        };
        outcomes[number] = Some(Err(refused));
        return;
    }
    let said = describe(&log.place, error);
    for number in numbers {
        let error = Error::new(said.kind(), said.to_string());
        outcomes[number] = Some(Err(CommitError::Failed(error)));
    }
}

/// Tries all of them in one transaction.
async fn attempt(
    log: &Log,
    link: &mut Link,
    commits: &[&Commit],
    (locking, tried): (Locking, usize),
) -> sqlx::Result<Done> {
    let mut open = link.open().await?;
    let way = link.way.clone();
    let done = way.limited(async {
        if tried == 0
            && locking == Locking::PassOver
            && let Some(common) = Common::of(commits)
        {
            match at_once(log, &way, &mut open, common).await {
                Ok((committed, appended)) => {
                    let outcomes = committed.into_iter().map(|done| Some(Ok(done))).collect();
                    return Ok(Done { outcomes, writes: true, appended });
                }
                Err(error) if cause(&error) == Cause::Server => return Err(error),
                // The phases tell which commit it is about.
                Err(_) => {}
            }
        }
        way.begin(&mut open).await?;
        let done = phases::run(log, &mut open, commits, locking).await;
        match done {
            Ok(done) if !done.writes => {
                crate::link::rollback(&mut open).await?;
                Ok(done)
            }
            done => end(&mut open, done).await,
        }
    });
    let done = done.await;
    link.keep(open, &done);
    done
}

async fn at_once(
    log: &Log,
    way: &crate::link::Way,
    open: &mut sqlx::PgConnection,
    common: Common<'_>,
) -> sqlx::Result<(Vec<Committed>, Vec<Recorded>)> {
    if way.commits_alone() {
        return common.commit(log, open).await;
    }
    way.begin(open).await?;
    let done = common.commit(log, open).await;
    end(open, done).await
}

/// What a commit is told whose rows others held for all this time.
pub(crate) fn held_too_long(log: &Log, seconds: u64) -> CommitError {
    CommitError::Failed(Error::new(
        ErrorKind::Unavailable,
        format!(
            "a row of this commit at {} was held by another transaction for {seconds} s: end that \
             transaction, nothing is lost",
            log.place
        ),
    ))
}
