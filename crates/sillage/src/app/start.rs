//! Starting: what was checked is built, subscribed and run.

use super::{
    App, Inner, Running, StartError,
    control::{Watcher, paused},
    outside::{self, log_of},
};
use crate::{
    consumer::Consumer,
    handler::Shared,
    names,
    observe::Census,
    projection::{self, AnyProjection, Keeper, Progress, identity},
    retention::{self, Trimmer},
    runtime::{
        committer::Committer,
        dependency::Dependencies,
        health::Vital,
        member::{Control, Means, Member, Spec},
        outlet::Outlet,
        pruning::Pruner,
        timers::{Gate, GateState, Pump},
    },
    service::{Service, ServiceHandle},
};
use serde_json::json;
use sillage_core::{
    Broker, Clock, Commit, Database, Error, Position, Result, Text, TopicSpec, Write,
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// What the parts of an app share while it is built.
pub(super) struct Building {
    pub(super) database: Option<(Arc<dyn Database>, Committer)>,
    pub(super) broker: Arc<dyn Broker>,
    /// All services of the app.
    sources: Arc<HashSet<Text>>,
    pub(super) clock: Arc<dyn Clock>,
    stop: CancellationToken,
    drain_limit: Duration,
    keep_ended: Duration,
    failing: Option<f64>,
    /// Services that have parts here: what they keep is pruned.
    keepers: Vec<Text>,
    /// `service/saga`: they are counted.
    sagas: Vec<Text>,
    tasks: JoinSet<()>,
    handles: HashMap<&'static str, ServiceHandle>,
    views: Vec<(&'static str, Arc<Progress>)>,
    vitals: Vec<(String, Arc<Vital>)>,
    controls: Vec<(Text, watch::Sender<Control>)>,
    gates: Vec<Gate>,
    pub(super) manifests: Vec<Write>,
    /// What operators did after this is to be obeyed; what they did before holds already.
    seen: Position,
}

impl App {
    /// Checks, then starts everything. Nothing runs where an error comes back.
    pub async fn start(self) -> Result<Running, StartError> {
        self.check()?;
        self.check_transactions().await?;
        self.build().await.map_err(|error| StartError(vec![error.to_string()]))
    }

    async fn build(self) -> Result<Running> {
        let database = self.database.map(|database| {
            let committer = Committer::start(database.clone());
            (database, committer)
        });
        let log = database.as_ref().map(|(database, _)| log_of(database, &self.clock));
        let broker = self.broker.or(log).ok_or_else(|| Error::invalid("no broker"))?;
        let seen = match &database {
            Some((database, _)) => database.head().await?.stable,
            None => Position::default(),
        };
        let sources = self.services.iter().map(|service| Text::from(service.name)).collect();
        let mut building = Building {
            seen,
            database,
            broker,
            sources: Arc::new(sources),
            clock: self.clock,
            stop: CancellationToken::new(),
            drain_limit: self.drain_limit,
            keep_ended: self.keep_ended,
            failing: self.failing,
            keepers: vec![],
            sagas: vec![],
            tasks: JoinSet::new(),
            handles: HashMap::new(),
            views: vec![],
            vitals: vec![],
            controls: vec![],
            gates: vec![],
            manifests: vec![],
        };
        building.topics(&self.services).await?;
        building.manifests(&self.services).await?;
        building.relay(&self.services).await?;
        for service in self.services {
            let stop = building.stop.clone().drop_guard();
            building.service(service).await?;
            stop.disarm();
        }
        building.finish(self.retention).await
    }
}

impl Building {
    async fn topics(&self, services: &[Service]) -> Result<()> {
        let consumers = services.iter().flat_map(|service| &service.consumers);
        let names = consumers.flat_map(|consumer| consumer.topics.clone());
        let names: BTreeSet<_> = names.chain(self.followed(services)).collect();
        let topics = names.into_iter().map(|name| TopicSpec { name, partitions: None });
        let diff = self.broker.ensure(&topics.collect::<Vec<_>>()).await?;
        for sentence in diff.differs {
            tracing::warn!("{sentence}");
        }
        Ok(())
    }

    fn followed(&self, services: &[Service]) -> Vec<Text> {
        let of = |service: &Service| self.follower(&service.follows).map(|copies| copies.topics);
        services.iter().filter_map(of).flatten().collect()
    }

    async fn service(&mut self, service: Service) -> Result<()> {
        let name = service.name;
        self.definitions(&service).await?;
        self.keepers.extend((!service.consumers.is_empty()).then(|| name.into()));
        let sagas: BTreeSet<_> = service.sagas.iter().map(|saga| saga.name.clone()).collect();
        self.sagas.extend(sagas.iter().map(|saga| names::part(name, saga)));
        let mut progress = vec![];
        for projection in &service.projections {
            progress.extend(self.projection(&service, projection.clone()).await?);
        }
        if let Some((database, committer)) = self.database.clone() {
            let clock = self.clock.clone();
            let handle = ServiceHandle::new(name, database, committer, clock, progress);
            self.handles.insert(name, handle);
        }
        let dependencies = Arc::new(self.dependencies(&service).await?);
        let states = Arc::new(service.states);
        let copies = self.follower(&service.follows);
        for consumer in service.consumers.into_iter().chain(copies) {
            let database = self.database.as_ref().map(|(database, _)| database.clone());
            let clock = self.clock.clone();
            let shared = Shared::of(name, consumer.name, states.clone(), database, clock);
            let broker = self.broker.clone();
            let dependencies = dependencies.clone();
            let instances = consumer.instances;
            let spec = Spec { failing: self.failing, ..consumer.build(name) };
            let topics = spec.topics.clone();
            self.consumer(spec, shared, broker, dependencies).await?;
            if instances {
                self.gate(topics);
            }
        }
        Ok(())
    }

    /// What the service's handlers depend on; a breaker that was left open begins with a probe.
    async fn dependencies(&self, service: &Service) -> Result<Dependencies> {
        let all = Dependencies::new(service.dependencies());
        let Some((database, _)) = &self.database else { return Ok(all) };
        for (name, breaker) in &service.breakers {
            let id = names::part(service.name, name);
            let left = database.get(names::BREAKERS, &[&id]).await?.pop().flatten();
            if let (Some(left), Some(dependency)) = (left, all.get(name)) {
                dependency.reopen(*breaker, &serde_json::from_slice(&left.body)?);
            }
        }
        Ok(all)
    }

    /// The timers of the consumer that was started last wait for its backlog.
    fn gate(&mut self, topics: Vec<Text>) {
        let Some((database, _)) = &self.database else { return };
        let Some((consumer, control)) = self.controls.last() else { return };
        self.gates.push(Gate {
            consumer: consumer.clone(),
            topics,
            broker: self.broker.clone(),
            log: log_of(database, &self.clock),
            control: control.subscribe(),
            state: GateState::default(),
        });
    }

    /// A consumer that keeps a copy of what is followed, where the broker is not the log itself.
    fn follower(&self, follows: &[Text]) -> Option<Consumer> {
        let outside = self.database.is_some() && !self.broker.capabilities().is_log;
        (outside && !follows.is_empty()).then(|| outside::follower(follows, self.sources.clone()))
    }

    pub(super) async fn consumer(
        &mut self,
        spec: Spec,
        shared: Arc<Shared>,
        broker: Arc<dyn Broker>,
        dependencies: Arc<Dependencies>,
    ) -> Result<()> {
        let (receiver, settler) = self.subscribe(&spec, &*broker).await?;
        let vital = self.vital(&format!("consumer `{}`", spec.name));
        let paused = match &self.database {
            Some((database, _)) => paused(&**database, &spec.name).await?,
            None => None,
        };
        let (control, _) = watch::channel(Control { paused, changes: 0 });
        self.controls.push((spec.name.clone(), control.clone()));
        let capabilities = broker.capabilities();
        let means = Means {
            spec: Arc::new(spec),
            shared,
            clock: self.clock.clone(),
            committer: self.database.as_ref().map(|(_, committer)| committer.clone()),
            is_log: capabilities.is_log,
            offsets: capabilities.offsets,
            cluster: capabilities.cluster,
            outlet: Arc::new(Outlet::new(broker)),
            control,
            vital,
            dependencies,
            stop: self.stop.clone(),
            drain_limit: self.drain_limit,
        };
        let member = Member::new(means, receiver, settler);
        self.tasks.spawn(async move {
            if let Err(error) = member.run().await {
                tracing::warn!(%error, "a consumer did not leave cleanly; its leases run out");
            }
        });
        Ok(())
    }

    async fn projection(
        &mut self,
        service: &Service,
        projection: Arc<dyn AnyProjection>,
    ) -> Result<Option<Arc<Progress>>> {
        let Some((database, committer)) = self.database.clone() else { return Ok(None) };
        let id = identity(service.name, &*projection);
        let now = self.clock.now();
        let generations = Keeper::sign_in(&*database, &id, &*projection, now).await?;
        let vital = self.vital(&format!("projection `{id}`"));
        vital.partitions(1);
        let (named, kept) = ((id, projection.version()), (database, self.clock.clone()));
        let progress = Progress::new(named, projection.collection(), kept, &generations);
        let progress = Arc::new(progress);
        self.views.push((service.name, progress.clone()));
        let means = projection::Means {
            projection,
            service: service.name.into(),
            follows: service.follows.clone(),
            progress: progress.clone(),
            committer,
            vital,
            stop: self.stop.clone(),
        };
        self.tasks.spawn(Keeper(Arc::new(means)).run());
        Ok(Some(progress))
    }

    fn vital(&mut self, name: &str) -> Arc<Vital> {
        let vital = Arc::new(Vital::default());
        self.vitals.push((name.to_owned(), vital.clone()));
        vital
    }

    /// What the app is, as a document: operators' tools read it, and never the app's code.
    ///
    /// A service that is there only as a way in says nothing: another process runs its parts.
    fn manifest(&mut self, service: &Service) -> Result<()> {
        if service.consumers.is_empty() && service.projections.is_empty() {
            return Ok(());
        }
        let consumers = service.consumers.iter().map(|consumer| {
            json!({
                "name": names::part(service.name, consumer.name),
                "topics": consumer.topics,
                "events": consumer.events(),
                "attempts": consumer.retry_policy().attempts(),
                "broadcast": consumer.broadcast,
            })
        });
        let projections = service.projections.iter().map(|projection| {
            let mut events = projection.events();
            events.sort_unstable();
            json!({
                "name": identity(service.name, &**projection),
                "version": projection.version(),
                "collection": projection.collection(),
                "events": events,
            })
        });
        let manifest = json!({
            "service": service.name,
            "consumers": consumers.collect::<Vec<_>>(),
            "projections": projections.collect::<Vec<_>>(),
            "breakers": service.breakers.keys().collect::<Vec<_>>(),
            "sagas": service.sagas,
            "follows": service.follows,
            "broker": self.broker.capabilities().name,
            "started": self.clock.now(),
        });
        let (collection, id) = (names::MANIFESTS.into(), service.name.into());
        let body = serde_json::to_vec(&manifest)?.into();
        self.manifests.push(Write::Put { collection, id, sort: None, body });
        Ok(())
    }

    /// Before anything of them reads: what retention spares is known by these.
    async fn manifests(&mut self, services: &[Service]) -> Result<()> {
        for service in services {
            self.manifest(service)?;
        }
        self.sign_in().await
    }

    async fn sign_in(&mut self) -> Result<()> {
        let Some((_, committer)) = &self.database else { return Ok(()) };
        let mut writes = std::mem::take(&mut self.manifests);
        if writes.is_empty() {
            return Ok(());
        }
        writes.push(retention::joins());
        let put = committer.commit(Commit { conditions: vec![], writes }).await;
        put.map_err(|error| Error::unavailable("the app could not sign in").because(error))?;
        Ok(())
    }

    fn trimmer(&mut self, keep: Option<Duration>) {
        let (Some((database, _)), Some(keep)) = (self.database.clone(), keep) else { return };
        let vital = self.vital("retention");
        vital.partitions(1);
        let (clock, stop) = (self.clock.clone(), self.stop.clone());
        self.tasks.spawn(Trimmer { database, clock, vital, stop, keep }.run());
    }

    async fn finish(mut self, keep: Option<Duration>) -> Result<Running> {
        self.sign_in().await?;
        self.trimmer(keep);
        if let Some((database, committer)) = self.database.clone() {
            let watcher = Watcher {
                database: database.clone(),
                clock: self.clock.clone(),
                controls: self.controls,
                stop: self.stop.clone(),
            };
            self.tasks.spawn(watcher.run(self.seen));
            let pruner = Pruner {
                database: database.clone(),
                committer: committer.clone(),
                clock: self.clock.clone(),
                stop: self.stop.clone(),
                services: self.keepers,
                kept: self.keep_ended,
            };
            self.tasks.spawn(pruner.run());
            let (clock, stop) = (self.clock.clone(), self.stop.clone());
            let census = Census { database: database.clone(), clock, stop, sagas: self.sagas };
            if !census.sagas.is_empty() {
                self.tasks.spawn(census.run());
            }
            let vital = Arc::new(Vital::default());
            vital.partitions(1);
            self.vitals.push(("timers".into(), vital.clone()));
            let (clock, stop) = (self.clock.clone(), self.stop.clone());
            let gates = self.gates;
            self.tasks.spawn(Pump { database, committer, clock, vital, stop, gates }.run());
        }
        Ok(Running(Arc::new(Inner {
            handles: self.handles,
            views: self.views,
            vitals: self.vitals,
            clock: self.clock,
            stop: self.stop,
            tasks: Mutex::new(self.tasks),
            drain_limit: self.drain_limit,
        })))
    }
}
