//! Services: consumers, projections and state under one name, and the way in from outside.

use crate::{
    consumer::Consumer,
    decider::{Decider, ExecuteError, Executed, Executor, Together},
    handler::States,
    names,
    process::{AnyProcess, Memory, Process},
    projection::{AnyProjection, Progress, Projection, ReadError, SqlProjection, read},
    runtime::{
        assemble::Origin, breaker::Breaker, committer::Committer, dependency::Dependency,
        rate::Rate,
    },
    saga::{
        Saga, SagaShape,
        compile::{Compiled, compile},
    },
};
use sillage_core::{
    Clock, Commit, CommitError, Committed, Condition, Database, Document, Effects, Error, Position,
    Range, Result, Stored, Text, Write,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
    time::Duration,
};

/// Consumers, projections and state under one name.
///
/// The name is the `source` of all it publishes, and the prefix of all it stores.
#[must_use = "a service does nothing until it is given to an app"]
pub struct Service {
    pub(crate) name: &'static str,
    pub(crate) states: States,
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) projections: Vec<Arc<dyn AnyProjection>>,
    pub(crate) follows: Vec<Text>,
    pub(crate) breakers: BTreeMap<Text, Breaker>,
    pub(crate) rates: BTreeMap<Text, Rate>,
    pub(crate) sagas: Vec<SagaShape>,
    /// What the sagas' events and commands were called before, and are called now.
    pub(crate) renamed: BTreeMap<&'static str, &'static str>,
}

impl Service {
    /// A service of that name: lower-case letters, digits, `-` and `_`.
    pub fn new(name: &'static str) -> Self {
        let (consumers, projections, follows) = (vec![], vec![], vec![]);
        let (breakers, rates, renamed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let states = States::default();
        let sagas = vec![];
        Service { name, states, consumers, projections, follows, breakers, rates, sagas, renamed }
    }

    /// Stops calls to a dependency that is not there: by the name that handlers say with
    /// [`or_unavailable`](crate::OrFail::or_unavailable).
    ///
    /// While it is open, consumers whose handlers failed by it start nothing and fetch nothing; no
    /// attempt is spent and nothing is parked. Then one delivery probes, and more and more follow
    /// while they succeed. A consumer stops as a whole: what must go on meanwhile belongs in
    /// another. Each process has its own; one that starts while it was open begins with a probe.
    pub fn breaker(mut self, dependency: impl Into<Text>, breaker: Breaker) -> Self {
        self.breakers.insert(dependency.into(), breaker);
        self
    }

    /// How often handlers of all consumers that [depend on](Consumer::depends_on) it may start, in
    /// this process.
    pub fn rate_limit(mut self, dependency: impl Into<Text>, rate: Rate) -> Self {
        self.rates.insert(dependency.into(), rate);
        self
    }

    /// What its handlers depend on, as far as it was said.
    pub(crate) fn dependencies(&self) -> impl Iterator<Item = Dependency> {
        let names: BTreeSet<&Text> = self.breakers.keys().chain(self.rates.keys()).collect();
        names.into_iter().map(|name| {
            let (breaker, rate) = (self.breakers.get(name), self.rates.get(name));
            Dependency::new(name.clone(), breaker.copied(), rate.copied())
        })
    }

    /// What handlers take as `State<T>`; one value a type.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, state: T) -> Self {
        self.states.insert(state);
        self
    }

    /// A consumer.
    pub fn consumer(mut self, consumer: Consumer) -> Self {
        self.consumers.push(consumer);
        self
    }

    /// A process manager: it runs as a consumer of its name.
    pub fn process<S: Memory>(self, process: Process<S>) -> Self {
        let process: Arc<dyn AnyProcess> = Arc::new(process);
        let consumer = Consumer::of_process(self.name, &process);
        self.consumer(consumer)
    }

    /// A saga: it runs as a consumer of its name.
    pub fn saga<S: Memory>(mut self, saga: Saga<S>) -> Self {
        let Compiled { process, shapes, renamed } = compile(saga);
        self.sagas.extend(shapes);
        self.renamed.extend(renamed.into_iter().map(|(alias, name, _)| (alias, name)));
        self.process(process)
    }

    /// A projection of the service's own entries and of the topics it follows.
    pub fn projection<D: Document + Default>(mut self, projection: Projection<D>) -> Self {
        self.projections.push(Arc::new(projection));
        self
    }

    /// A projection into tables of the user's own, of the same events as other projections.
    pub fn sql_projection(mut self, projection: SqlProjection) -> Self {
        self.projections.push(Arc::new(projection));
        self
    }

    /// Topics of other services whose events this service's projections see as well.
    pub fn follow(mut self, topics: impl IntoIterator<Item = impl Into<Text>>) -> Self {
        self.follows.extend(topics.into_iter().map(Into::into));
        self
    }
}

/// A service's own way in: what HTTP handlers and jobs use. Cheap to clone.
#[derive(Clone)]
pub struct ServiceHandle(Arc<Inner>);

struct Inner {
    service: Text,
    database: Arc<dyn Database>,
    committer: Committer,
    clock: Arc<dyn Clock>,
    executor: Executor,
    progress: Vec<Arc<Progress>>,
}

impl ServiceHandle {
    pub(crate) fn new(
        service: &str,
        database: Arc<dyn Database>,
        committer: Committer,
        clock: Arc<dyn Clock>,
        progress: Vec<Arc<Progress>>,
    ) -> Self {
        let executor =
            Executor::new(service.into(), database.clone(), committer.clone(), clock.clone());
        let service = service.into();
        ServiceHandle(Arc::new(Inner { service, database, committer, clock, executor, progress }))
    }

    /// Commits effects from outside any consumer. Durable when it returns; whoever listens gets
    /// them from the log.
    ///
    /// A commit whose outcome is unknown is tried again with the same ids, so it never doubles.
    pub async fn commit(&self, effects: impl Into<Effects>) -> Result<Committed, CommitError> {
        let commit = self.assemble(effects.into(), vec![])?;
        retried(&self.0.committer, &*self.0.clock, &commit).await.0
    }

    fn assemble(
        &self,
        effects: Effects,
        conditions: Vec<Condition>,
    ) -> Result<Commit, CommitError> {
        let now = self.0.clock.now();
        let origin = Origin { service: &self.0.service, now, cause: None };
        origin
            .commit(effects, conditions)
            .map_err(|failure| CommitError::Rejected(Error::invalid(failure.source.to_string())))
    }

    /// Decides on the aggregate's present state and appends what was decided.
    ///
    /// Calls for one stream are queued in this process and share commits; a conflict with another
    /// process is decided again.
    pub async fn execute<D: Decider>(
        &self,
        id: impl Display,
        command: D::Command,
    ) -> Result<Executed<D>, ExecuteError<D::Refusal>> {
        self.0.executor.execute::<D>(&id.to_string(), command).await
    }

    /// Decisions over several aggregates, in one commit. Their refusals become `R`.
    pub fn together<R: Send + 'static>(&self) -> Together<'_, R> {
        Together::new(self)
    }

    pub(crate) fn place(&self) -> (&dyn Database, &Text, &dyn Clock) {
        (&*self.0.database, &self.0.service, &*self.0.clock)
    }

    /// Commits effects where these conditions hold.
    pub(crate) async fn commit_if(
        &self,
        effects: Effects,
        conditions: Vec<Condition>,
    ) -> Result<Committed, CommitError> {
        let commit = self.assemble(effects, conditions)?;
        retried(&self.0.committer, &*self.0.clock, &commit).await.0
    }

    /// A document of the service.
    pub async fn load<D: Document>(&self, id: impl Display) -> Result<Option<D>> {
        Ok(self.stored::<D>(&id.to_string()).await?.map(|(_, document)| document))
    }

    /// Changes a document: `change` gets it as it is and returns effects that may put it. Runs
    /// again where somebody else changed it meanwhile.
    pub async fn update<D: Document, E: Into<Effects>>(
        &self,
        id: impl Display,
        change: impl Fn(Option<D>) -> E + Send + Sync,
    ) -> Result<Committed, CommitError> {
        let id = id.to_string();
        loop {
            let found = self.stored::<D>(&id).await.map_err(CommitError::Failed)?;
            let (expected, document) =
                found.map_or((None, None), |(s, d)| (Some(s.version), Some(d)));
            let collection = names::collection(&self.0.service, D::COLLECTION);
            let read = Condition::Document { collection, id: id.as_str().into(), expected };
            let commit = self.assemble(change(document).into(), vec![read])?;
            let (answer, doubted) = retried(&self.0.committer, &*self.0.clock, &commit).await;
            match answer {
                // A try whose outcome was unknown had been applied after all.
                Err(CommitError::Conflict { .. }) if doubted && self.is_put(&commit).await? => {
                    return self.0.committer.commit(Commit::default()).await;
                }
                Err(CommitError::Conflict { .. }) => {}
                answer => return answer,
            }
        }
    }

    /// Whether all documents that a commit puts are as it puts them.
    async fn is_put(&self, commit: &Commit) -> Result<bool, CommitError> {
        for write in &commit.writes {
            if let Write::Put { collection, id, body, .. } = write {
                let found = self.0.database.get(collection, &[id]).await;
                let found = found.map_err(CommitError::Failed)?.pop().flatten();
                if found.is_none_or(|stored| stored.body != *body) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Documents of the service with sort keys from `from` up to, not including, `until`.
    pub async fn list<D: Document>(&self, from: &str, until: &str, max: usize) -> Result<Vec<D>> {
        let collection = names::collection(&self.0.service, D::COLLECTION);
        let range = Range::Sort { from, until };
        let page = self.0.database.list(&collection, range, max).await?;
        page.iter().map(|stored| read(&collection, stored)).collect()
    }

    /// Waits until all projections of the service have seen the log up to `position`.
    pub async fn wait_for(&self, position: Position, within: Duration) -> Result<(), ReadError> {
        for progress in &self.0.progress {
            progress.wait_for(position, within).await?;
        }
        Ok(())
    }

    async fn stored<D: Document>(&self, id: &str) -> Result<Option<(Stored, D)>> {
        let collection = names::collection(&self.0.service, D::COLLECTION);
        let stored = self.0.database.get(&collection, &[id]).await?.pop().flatten();
        stored.map(|stored| Ok((stored.clone(), read(&collection, &stored)?))).transpose()
    }
}

/// Commits, and while the outcome is unknown tries again with the same ids. Says whether a try
/// had an unknown outcome.
pub(crate) async fn retried(
    committer: &Committer,
    clock: &dyn Clock,
    commit: &Commit,
) -> (Result<Committed, CommitError>, bool) {
    let (nothing, mut is_applied) = (Commit::default(), false);
    let mut answer = committer.commit(commit.clone()).await;
    for tries in 0..3u32 {
        if !matches!(answer, Err(CommitError::Failed(_))) {
            return (answer, tries > 0);
        }
        clock.sleep(Duration::from_millis(50 << (2 * tries))).await;
        answer = committer.commit(if is_applied { &nothing } else { commit }.clone()).await;
        // An earlier try had been applied after all: its position is at or before the head.
        if let Err(CommitError::AlreadyHandled) = answer {
            is_applied = true;
            answer = committer.commit(nothing.clone()).await;
        }
    }
    (answer, true)
}
