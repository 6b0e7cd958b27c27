//! Commands on one stream, queued in this process: each is decided on the state that those before
//! it will leave, so that a hundred calls at once share a few commits instead of racing.

use super::{
    Decider, ExecuteError, Executed, TRIES, expected, fold, local_stream, snapshots, unfolded,
};
use crate::{
    names,
    runtime::{assemble::Origin, committer::Committer},
    service::retried,
};
use sillage_core::{
    Clock, Commit, CommitError, Database, Effects, Error, Failure, Position, Text, Version, append,
};
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Mutex as AsyncMutex;

/// The state that the commits in line will leave.
struct Speculative<D> {
    known: Option<(D, Version)>,
    /// Grows when a commit in line was refused: what was decided after it must be decided again.
    generation: u64,
}

type Line<D> = Arc<AsyncMutex<Speculative<D>>>;
type Lines = HashMap<(TypeId, Text), (usize, Arc<dyn Any + Send + Sync>)>;

pub(crate) struct Executor {
    service: Text,
    database: Arc<dyn Database>,
    committer: Committer,
    clock: Arc<dyn Clock>,
    lines: Mutex<Lines>,
}

impl Executor {
    pub(crate) fn new(
        service: Text,
        database: Arc<dyn Database>,
        committer: Committer,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Executor { service, database, committer, clock, lines: Mutex::default() }
    }

    pub(crate) async fn execute<D: Decider>(
        &self,
        id: &str,
        command: D::Command,
    ) -> Result<Executed<D>, ExecuteError<D::Refusal>> {
        let stream = names::stream(&self.service, &local_stream::<D>(id));
        let place = Place { executor: self, key: (TypeId::of::<D>(), stream.clone()) };
        let line = place.enter::<D>();
        for _ in 0..TRIES {
            match self.once(&line, id, command.clone()).await {
                Err(ExecuteError::Conflict) => {}
                answer => return answer,
            }
        }
        Err(ExecuteError::Conflict)
    }

    async fn once<D: Decider>(
        &self,
        line: &Line<D>,
        id: &str,
        command: D::Command,
    ) -> Result<Executed<D>, ExecuteError<D::Refusal>> {
        let mut speculative = line.lock().await;
        if speculative.known.is_none() {
            let folded = fold::<D>(&*self.database, &self.service, id).await;
            speculative.known = Some(folded.map_err(|f| ExecuteError::Database(unfolded(f)))?);
        }
        let generation = speculative.generation;
        let Some((state, version)) = speculative.known.clone() else {
            return Err(ExecuteError::Conflict);
        };
        let events = state.decide(command).map_err(ExecuteError::Refused)?;
        if events.is_empty() {
            drop(speculative);
            let head = self.database.head().await.map_err(ExecuteError::Database)?;
            return Ok(Executed { events, position: head.last, version });
        }
        let next = Version(version.0 + events.len() as u64);
        let state = events.iter().fold(state, Decider::evolve);
        let kept = snapshots::keep(id, version, &state, next);
        let commit = self.appending::<D>(id, version, &events, kept)?;
        speculative.known = Some((state, next));
        let committing = self.committer.begin(commit.clone());
        drop(speculative);
        match self.outcome(committing.await, commit).await {
            Ok(position) => Ok(Executed { events, position, version: next }),
            Err(error) => {
                let mut speculative = line.lock().await;
                if speculative.generation == generation {
                    speculative.generation += 1;
                    speculative.known = None;
                }
                Err(error.into())
            }
        }
    }

    async fn outcome(
        &self,
        answer: Result<sillage_core::Committed, CommitError>,
        commit: Commit,
    ) -> Result<Position, CommitError> {
        match answer {
            Ok(committed) => Ok(committed.position),
            Err(CommitError::Failed(error)) => {
                tracing::warn!(%error, "a commit's outcome is unknown; it is tried again");
                let (answer, _) = retried(&self.committer, &*self.clock, &commit).await;
                match answer {
                    // The first try had been applied after all.
                    Err(CommitError::AlreadyHandled) => {
                        self.committer.commit(Commit::default()).await.map(|c| c.position)
                    }
                    other => other.map(|committed| committed.position),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn appending<D: Decider>(
        &self,
        id: &str,
        version: Version,
        events: &[D::Event],
        kept: Effects,
    ) -> Result<Commit, ExecuteError<D::Refusal>> {
        let effects = append(local_stream::<D>(id), expected(version), events).and(kept);
        let origin = Origin { service: &self.service, now: self.clock.now(), cause: None };
        let unwritable = |failure: Failure| {
            ExecuteError::Database(
                Error::invalid("the events cannot be stored").because(failure.source),
            )
        };
        origin.commit(effects, vec![]).map_err(unwritable)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller's place in the line of a stream; the last to leave forgets the line.
struct Place<'a> {
    executor: &'a Executor,
    key: (TypeId, Text),
}

impl Place<'_> {
    fn enter<D: Decider>(&self) -> Line<D> {
        let fresh =
            || -> Line<D> { Arc::new(AsyncMutex::new(Speculative { known: None, generation: 0 })) };
        let mut lines = self.executor.lines();
        let entry = lines.entry(self.key.clone()).or_insert_with(|| (0, fresh()));
        entry.0 += 1;
        entry.1.clone().downcast().unwrap_or_else(|_| fresh())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = self.executor.lines();
        if let Some(entry) = lines.get_mut(&self.key) {
            entry.0 -= 1;
            if entry.0 == 0 {
                lines.remove(&self.key);
            }
        }
    }
}
