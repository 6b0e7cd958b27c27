//! An app: services on a database and a broker, started together and drained together.
//!
//! ```no_run
//! # use sillage::prelude::*;
//! # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
//! let app = App::new(sillage::connect("sqlite:shop.db").await?)
//!     .service(Service::new("order"))
//!     .start()
//!     .await?;
//! app.until(sillage::shutdown_signal()).await;
//! # Ok(()) }
//! ```

mod check;
mod control;
mod outside;
mod sagas;
mod start;

use crate::{
    clock::SystemClock,
    projection::{Progress, View},
    runtime::{health::Vital, pruning::KEPT},
    service::{Service, ServiceHandle},
};
use sillage_core::{Broker, Clock, Database, Document};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long an app drains when it is told to stop.
const DRAIN: Duration = Duration::from_secs(25);

/// Services on a database and a broker.
#[must_use = "an app does nothing until it is started"]
pub struct App {
    database: Option<Arc<dyn Database>>,
    broker: Option<Arc<dyn Broker>>,
    clock: Arc<dyn Clock>,
    services: Vec<Service>,
    drain_limit: Duration,
    keep_ended: Duration,
    retention: Option<Duration>,
    failing: Option<f64>,
}

/// What an app was given.
pub(crate) type Parts = (Option<Arc<dyn Database>>, Arc<dyn Clock>, Vec<Service>);

impl App {
    /// On this database; its log is also the broker, until another is named.
    pub fn new(database: Arc<dyn Database>) -> Self {
        App { database: Some(database), ..App::bare() }
    }

    /// Without a database: effects are published at least once, nothing can be loaded or parked,
    /// and dead letters go to the topic `<service>.<consumer>.dead-letters`.
    pub fn stateless(broker: Arc<dyn Broker>) -> Self {
        App { broker: Some(broker), ..App::bare() }
    }

    fn bare() -> Self {
        App {
            database: None,
            broker: None,
            clock: Arc::new(SystemClock),
            services: vec![],
            drain_limit: DRAIN,
            keep_ended: KEPT,
            retention: None,
            failing: None,
        }
    }

    /// A broker other than the database's log; `None` leaves it at the log. See
    /// [`connect_broker`](crate::connect_broker).
    ///
    /// What services publish is committed to the database first, and carried to the broker from
    /// there: in the order of each key, once it is known to be durable.
    pub fn broker(mut self, broker: impl Into<Option<Arc<dyn Broker>>>) -> Self {
        self.broker = broker.into();
        self
    }

    /// Another clock, for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// One more service.
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// How long handlers may go on when the app is told to stop; 25 s unless said.
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.drain_limit = limit;
        self
    }

    /// How long what has ended is kept: instances of sagas, and records of answers to nobody; 30
    /// days unless said. Tombstones, which drop a command that comes after its undo, stay as long,
    /// which is why less than 14 days are refused: so long a broker may bring a message again.
    pub fn keep_ended(mut self, kept: Duration) -> Self {
        self.keep_ended = kept;
        self
    }

    /// Removes entries that belong to no stream from the database's log, once every reader has passed
    /// them and they have been there this long; at least [14 days](crate::SHORTEST_RETENTION). All
    /// stays unless this is said.
    pub fn retention(mut self, keep: Duration) -> Self {
        self.retention = Some(keep);
        self
    }

    /// Lets this share of all handlings fail, from 0 to below 1, to see what comes of it: after the handler
    /// has returned, what it returned is dropped, and the delivery is tried again as after any other
    /// transient failure. Not for production.
    pub fn fail_handlers(mut self, share: f64) -> Self {
        self.failing = Some(share);
        self
    }

    pub(crate) fn services(&self) -> &[Service] {
        &self.services
    }

    pub(crate) fn into_parts(self) -> Parts {
        (self.database, self.clock, self.services)
    }

    /// Starts, runs until `shutdown` completes, and drains.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
        self.start().await?.until(shutdown).await;
        Ok(())
    }
}

/// Everything that keeps an app from starting, a sentence each.
#[derive(Debug, PartialEq, Eq)]
pub struct StartError(pub Vec<String>);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for StartError {}

/// Whether an app is ready to serve, and what is wrong where it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Nothing is wrong.
    pub ready: bool,
    /// What is wrong, as sentences that name consumer and key.
    pub problems: Vec<String>,
    /// What is worth knowing and not wrong: a consumer without a slot waits for one.
    pub notes: Vec<String>,
}

/// A running app. Cheap to clone; it runs until it is drained.
#[derive(Clone)]
pub struct Running(Arc<Inner>);

struct Inner {
    handles: HashMap<&'static str, ServiceHandle>,
    views: Vec<(&'static str, Arc<Progress>)>,
    vitals: Vec<(String, Arc<Vital>)>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
    drain_limit: Duration,
}

impl Running {
    /// The way into a service.
    ///
    /// # Panics
    ///
    /// Where the app has no service of that name, or no database: a mistake in the program.
    #[allow(clippy::panic)]
    pub fn service(&self, service: &str) -> ServiceHandle {
        match self.0.handles.get(service) {
            Some(handle) => handle.clone(),
            None => panic!("this app has no service `{service}` with a database"),
        }
    }

    /// The documents of a projection of a service.
    ///
    /// # Panics
    ///
    /// Where the service has no projection into such documents: a mistake in the program.
    #[allow(clippy::panic)]
    pub fn view<D: Document>(&self, service: &str) -> View<D> {
        let of_it = |(name, progress): &&(&str, Arc<Progress>)| {
            *name == service && progress.document == D::COLLECTION
        };
        match self.0.views.iter().find(of_it) {
            Some((_, progress)) => View::new(progress.clone()),
            None => panic!("service `{service}` has no projection into `{}`", D::COLLECTION),
        }
    }

    /// Whether all is well, and what is not.
    pub fn health(&self) -> Health {
        let now = self.0.clock.elapsed();
        let vitals = self.0.vitals.iter();
        let problems: Vec<_> = vitals.flat_map(|(name, vital)| vital.problems(name, now)).collect();
        let waiting = self.0.vitals.iter().filter(|(_, vital)| vital.is_waiting());
        let note = |(name, _): &(String, Arc<Vital>)| {
            format!("{name}: no slot yet; other processes have them all, this one waits")
        };
        let notes = waiting.map(note).collect();
        Health { ready: problems.is_empty(), problems, notes }
    }

    /// Runs until `shutdown` completes, then drains.
    pub async fn until(self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        self.drain().await;
    }

    /// Stops taking in deliveries, ends and commits those under way, gives back what it owns.
    pub async fn drain(&self) {
        self.0.stop.cancel();
        let mut tasks = {
            let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        let all = async { while tasks.join_next().await.is_some() {} };
        tokio::select! {
            biased;
            () = all => {}
            () = self.0.clock.sleep(self.0.drain_limit + Duration::from_secs(5)) => {
                tracing::warn!("draining took too long; what was under way will be delivered again");
            }
        }
    }
}

/// Completes when the process is asked to stop: SIGTERM, or Ctrl-C.
pub async fn shutdown_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
