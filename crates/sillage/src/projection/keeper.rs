//! Keeps a projection's generations in one process: runs those that its code is for, begins one
//! for a newer version, switches to it once it has caught up, removes what was discarded.

use super::{
    AnyProjection, Checkpoint, Choice, Generations, Progress, Refused, checkpoint, choose,
    collection, runner::Runner, stored, view::saw,
};
use crate::{
    names, retention,
    runtime::{committer::Committer, health::Vital},
};
use sillage_core::{
    Clock, Commit, CommitError, Database, Error, Range, Result, Text, Timestamp, Write,
};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The longest time until a change of the generations is seen.
const POLL: Duration = Duration::from_secs(1);
/// Documents removed at once.
const PAGE: usize = 500;

/// What the readers of a projection share.
pub(crate) struct Means {
    pub(crate) projection: Arc<dyn AnyProjection>,
    pub(crate) service: Text,
    pub(crate) follows: Vec<Text>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) committer: Committer,
    pub(crate) vital: Arc<Vital>,
    pub(crate) stop: CancellationToken,
}

impl Means {
    pub(super) fn database(&self) -> &dyn Database {
        &*self.progress.database
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.progress.clock
    }
}

pub(crate) struct Keeper(pub(crate) Arc<Means>);

impl Keeper {
    /// The generations as they are; the first is made where there is none, and one for the
    /// version of this code is begun where that is the newest.
    pub(crate) async fn sign_in(
        database: &dyn Database,
        id: &Text,
        projection: &dyn AnyProjection,
        now: Timestamp,
    ) -> Result<Generations> {
        let version = projection.version();
        loop {
            let (generations, since) = match stored(database, id).await? {
                None => {
                    let first = Generations::first(projection.collection(), version, now);
                    (Generations { tables: projection.writes_tables(), ..first }, None)
                }
                Some((mut generations, since)) if generations.is_outdated_by(version) => {
                    generations.discard();
                    generations.begin(version, true, now);
                    (generations, Some(since))
                }
                Some((generations, _)) => return Ok(generations),
            };
            let (condition, write) = generations.replace(id, since)?;
            let writes = vec![write, retention::joins()];
            if committed(database, Commit { conditions: vec![condition], writes }).await? {
                return Ok(generations);
            }
        }
    }

    pub(crate) async fn run(self) {
        let (mut running, mut tasks) = (HashSet::new(), JoinSet::new());
        let mut sweeping = JoinSet::new();
        while !self.0.stop.is_cancelled() {
            match self.look(&mut running, &mut tasks).await {
                // Beside it: there may be much to remove.
                Ok(true) if sweeping.is_empty() => drop(sweeping.spawn(self.sweep())),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(projection = %self.0.progress.id, %error, "looking again");
                }
            }
            while sweeping.try_join_next().is_some() {}
            tokio::select! {
                biased;
                () = self.0.stop.cancelled() => {}
                () = self.0.clock().sleep(POLL) => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Removes what was dropped, unless it is stopped.
    fn sweep(&self) -> impl Future<Output = ()> + Send + 'static {
        let means = self.0.clone();
        async move {
            let (database, id) = (means.database(), &means.progress.id);
            let swept = means.stop.run_until_cancelled(sweep(database, id)).await;
            if let Some(Err(error)) = swept {
                tracing::warn!(projection = %id, %error, "sweeping again");
            }
        }
    }

    /// Starts and switches what is to be; whether there is something to sweep.
    async fn look(&self, running: &mut HashSet<Text>, tasks: &mut JoinSet<()>) -> Result<bool> {
        let (database, progress) = (self.0.database(), &self.0.progress);
        let Some((generations, _)) = stored(database, &progress.id).await? else {
            return Ok(false);
        };
        progress.obey(&generations);
        running.retain(|tag| generations.has(tag));
        for generation in generations.all().filter(|of| of.version == progress.version) {
            if running.insert(generation.tag.clone()) {
                let (id, tag) = (progress.id.clone(), generation.tag.clone());
                let seen = progress.seen(&tag);
                tasks.spawn(Runner { means: self.0.clone(), id, tag, seen }.run());
            }
        }
        let reading = progress.reading().tag;
        if !running.contains(&reading) {
            // Other processes have the code for it.
            let name = checkpoint(&progress.id, &reading);
            if let Some(stored) = database.get(names::CHECKPOINTS, &[&name]).await?.pop().flatten()
            {
                let checkpoint: Checkpoint = serde_json::from_slice(&stored.body)?;
                saw(&progress.seen(&reading), checkpoint.position);
            }
        }
        self.switch(&generations).await?;
        while tasks.try_join_next().is_some() {}
        Ok(!generations.dropped.is_empty())
    }

    /// Switches to a shadow that is to be switched to by itself.
    async fn switch(&self, generations: &Generations) -> Result<()> {
        let (database, progress) = (self.0.database(), &self.0.progress);
        let ours =
            |shadow: &super::Generation| shadow.switches && shadow.version == progress.version;
        if !generations.shadow.as_ref().is_some_and(ours) || generations.paused.is_some() {
            return Ok(());
        }
        match choose(database, &progress.id, Choice::Switch, false).await? {
            Ok(commit) => {
                if committed(database, commit).await? {
                    tracing::info!(projection = %progress.id, "the rebuilt documents are read now");
                    if let Some((generations, _)) = stored(database, &progress.id).await? {
                        progress.obey(&generations);
                    }
                }
            }
            Err(refused @ Refused::Differs { .. }) if generations.held.is_none() => {
                let why = refused.to_string();
                tracing::error!(projection = %progress.id, why, "the rebuild is not switched to");
                let Some((mut generations, since)) = stored(database, &progress.id).await? else {
                    return Ok(());
                };
                generations.held = Some(why);
                let (condition, write) = generations.replace(&progress.id, Some(since))?;
                let commit = Commit { conditions: vec![condition], writes: vec![write] };
                committed(database, commit).await?;
            }
            Err(_) => {}
        }
        Ok(())
    }
}

/// Whether it was accepted; false where somebody else was first.
async fn committed(database: &dyn Database, commit: Commit) -> Result<bool> {
    match database.commit(vec![commit]).await.pop() {
        Some(Ok(_)) => Ok(true),
        Some(Err(CommitError::Rejected(error) | CommitError::Failed(error))) => Err(error),
        Some(Err(_)) => Ok(false),
        None => Err(Error::unavailable("the database gave no answer")),
    }
}

/// Removes the documents and checkpoints of dropped generations. Nobody writes them any more, as
/// whoever did has to know of this.
pub(crate) async fn sweep(database: &dyn Database, id: &Text) -> Result<()> {
    let Some((mut generations, since)) = stored(database, id).await? else { return Ok(()) };
    let mut writes = vec![];
    for dropped in std::mem::take(&mut generations.dropped) {
        let collection = collection(id, &generations.collection, &dropped.tag);
        remove(database, &collection).await?;
        let (checkpoints, id) = (names::CHECKPOINTS.into(), checkpoint(id, &dropped.tag));
        writes.push(Write::Delete { collection: checkpoints, id });
    }
    let (condition, write) = generations.replace(id, Some(since))?;
    writes.push(write);
    committed(database, Commit { conditions: vec![condition], writes }).await.map(drop)
}

async fn remove(database: &dyn Database, collection: &Text) -> Result<()> {
    loop {
        let range = Range::Ids { prefix: "", after: "" };
        let page = database.list(collection, range, PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        let delete = |stored: sillage_core::Stored| Write::Delete {
            collection: collection.clone(),
            id: stored.id,
        };
        let writes = page.into_iter().map(delete).collect();
        committed(database, Commit { conditions: vec![], writes }).await?;
    }
}
