//! Replay: history read again through a consumer's handlers, and compared with what was recorded.
//!
//! ```no_run
//! # use sillage::prelude::*;
//! # async fn doc(database: std::sync::Arc<dyn sillage::Database>, stand_in: u8)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! # let payment = || Service::new("payment").state(stand_in);
//! let replayed = App::new(database)
//!     .service(payment())
//!     .replay("payment/payment")?
//!     .names(["order.created"])
//!     .run()
//!     .await?;
//! for (name, change) in &replayed.effects {
//!     println!("{name}: {} as recorded, {} changed", change.same, change.changed);
//! }
//! # Ok(()) }
//! ```
//!
//! *Guarantees.* Effects are captured and never committed: the database is not written. Documents
//! that handlers load are those that the replay itself has put, so they are as they were then where
//! it begins at the start of the log; streams are read as they were recorded, up to what the
//! handling recorded then.
//!
//! What a handler calls through its `State` is called: give the service stand-ins. A timer is in
//! the log only once it has fired, so what is scheduled is counted and not compared.

mod diff;
mod overlay;

use crate::{
    app::{App, StartError},
    handler::{Also, AnyHandler, Context, Handled, Shared},
    retention,
    runtime::{
        assemble::{Cause, Origin},
        member::Spec,
    },
};
use diff::{Caused, Diff};
pub use diff::{Change, Example};
use overlay::Overlay;
use serde::Serialize;
use sillage_core::{
    Clock, Database, Effects, Failure, Filter, Key, Position, Recorded, Result, Text, Timestamp,
    Write,
};
use std::{collections::BTreeMap, sync::Arc};
use tokio_util::sync::ReusableBoxFuture;

/// Entries read at once.
const PAGE: usize = 1000;

/// A replay of a consumer, to be run.
#[must_use = "nothing is replayed until it is run"]
pub struct Replay {
    database: Arc<dyn Database>,
    clock: Arc<dyn Clock>,
    service: Text,
    spec: Spec,
    states: Arc<crate::States>,
    after: Position,
    through: Option<Position>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    filter: Filter,
    key: Option<Key>,
    examples: usize,
}

/// What came of a replay.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Replayed {
    /// Messages that the consumer handled again.
    pub handled: u64,
    /// Of them, those whose handler failed.
    pub failed: u64,
    /// Why, with how often; the first of each.
    pub failures: BTreeMap<String, u64>,
    /// Of them, those whose effects are not as recorded.
    pub different: u64,
    /// Timers that would be set.
    pub scheduled: u64,
    /// Effects in the log, by their name.
    pub effects: BTreeMap<String, Change>,
    /// The last entry that was looked at.
    pub through: Position,
}

impl App {
    /// The consumers of its services, as `service/name`.
    pub fn consumers(&self) -> Vec<String> {
        let of = |service: &crate::Service| {
            let name = service.name;
            let names = service.consumers.iter().map(|one| format!("{name}/{}", one.name));
            names.collect::<Vec<_>>()
        };
        self.services().iter().flat_map(of).collect()
    }

    /// History again through the handlers of a consumer, `service/name`, with effects captured.
    /// The app is not started.
    pub fn replay(self, consumer: &str) -> Result<Replay, StartError> {
        self.check()?;
        let refused = |why: String| StartError(vec![why]);
        let (database, clock, services) = self.into_parts();
        let database = database.ok_or_else(|| refused("a replay reads a database's log".into()))?;
        let mut known = vec![];
        for service in services {
            let states = Arc::new(service.states);
            for one in service.consumers {
                let spec = one.build(service.name);
                if *spec.name == *consumer {
                    let service = service.name.into();
                    return Ok(Replay::new((database, clock), service, spec, states));
                }
                known.push(spec.name);
            }
        }
        Err(refused(format!("no consumer `{consumer}`; there are: {}", known.join(", "))))
    }
}

impl Replay {
    fn new(
        (database, clock): (Arc<dyn Database>, Arc<dyn Clock>),
        service: Text,
        spec: Spec,
        states: Arc<crate::States>,
    ) -> Self {
        Replay {
            database,
            clock,
            service,
            spec,
            states,
            after: Position(0),
            through: None,
            since: None,
            until: None,
            filter: Filter::default(),
            key: None,
            examples: 3,
        }
    }

    /// Only messages after this position.
    pub fn after(mut self, position: Position) -> Self {
        self.after = position;
        self
    }

    /// Only messages up to this position.
    pub fn through(mut self, position: Position) -> Self {
        self.through = Some(position);
        self
    }

    /// Only messages that were produced at this time or later.
    pub fn since(mut self, time: Timestamp) -> Self {
        self.since = Some(time);
        self
    }

    /// Only messages that were produced before this time.
    pub fn until(mut self, time: Timestamp) -> Self {
        self.until = Some(time);
        self
    }

    /// Only messages with these names.
    pub fn names(mut self, names: impl IntoIterator<Item = impl Into<Text>>) -> Self {
        self.filter.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// Only messages of these topics.
    pub fn topics(mut self, topics: impl IntoIterator<Item = impl Into<Text>>) -> Self {
        self.filter.topics = topics.into_iter().map(Into::into).collect();
        self
    }

    /// Only messages of this key.
    pub fn key(mut self, key: impl Into<Key>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// How many examples of each difference are kept; three unless said.
    pub fn examples(mut self, count: usize) -> Self {
        self.examples = count;
        self
    }

    /// Handles the messages again, in the order of the log, one after the other.
    pub async fn run(self) -> Result<Replayed> {
        retention::all_from(&*self.database, self.after).await?;
        let end = self.database.head().await?.stable;
        let caused = self.caused(end).await?;
        let overlay = Arc::new(Overlay::new(self.database.clone()));
        let shared = Arc::new(Shared {
            service: self.service.clone(),
            consumer: self.spec.name.clone(),
            states: self.states.clone(),
            database: Some(overlay.clone()),
            clock: self.clock.clone(),
        });
        let mut diff = Diff::new(self.examples);
        let mut slot = ReusableBoxFuture::new(async { Handled::plain(Ok(Effects::none())) });
        let (mut at, last) = (self.after, self.through.unwrap_or(end).min(end));
        while at < last {
            let page = self.database.log(at, &self.filter, PAGE).await?;
            for entry in page.entries.iter().filter(|entry| entry.position <= last) {
                let Some(handler) = self.wanted(entry) else { continue };
                let recorded = caused.of(&entry.id).unwrap_or_default();
                let then = recorded.iter().map(|entry| entry.position).min();
                overlay.at(then.unwrap_or(entry.position));
                let mut context = Context::new(entry.body.clone(), 1, shared.clone());
                context.then = Some(entry.time);
                let outcome = self.handle(handler, context, &mut slot).await;
                self.take(outcome, (entry, recorded), &overlay, &mut diff);
            }
            at = page.through.max(Position(at.0 + 1));
        }
        Ok(Replayed { through: at.min(last), ..diff.end() })
    }

    /// What this service recorded because of what.
    async fn caused(&self, end: Position) -> Result<Caused> {
        let (mut caused, mut at) = (Caused::default(), self.after);
        while at < end {
            let page = self.database.log(at, &Filter::default(), PAGE).await?;
            for entry in page.entries.iter().filter(|entry| entry.source == self.service) {
                caused.note(entry);
            }
            at = page.through.max(Position(at.0 + 1));
        }
        Ok(caused)
    }

    fn wanted(&self, entry: &Recorded) -> Option<&Arc<dyn AnyHandler>> {
        let topic = entry.topic.as_ref()?;
        let here = self.spec.topics.is_empty() || self.spec.topics.contains(topic);
        let late = self.since.is_none_or(|since| entry.time >= since);
        let early = self.until.is_none_or(|until| entry.time < until);
        let ours = self.key.is_none() || entry.key == self.key;
        if !(here && late && early && ours) {
            return None;
        }
        self.spec.handlers.get(&*entry.name).or(self.spec.any.as_ref())
    }

    async fn handle(
        &self,
        handler: &Arc<dyn AnyHandler>,
        context: Context,
        slot: &mut ReusableBoxFuture<'static, Handled>,
    ) -> Handled {
        handler.start(context, slot);
        let limit = self.spec.time_limit;
        tokio::select! {
            biased;
            outcome = &mut *slot => outcome,
            () = self.clock.sleep(limit) => {
                let why = format!("the handler took more than {} s", limit.as_secs());
                Handled::plain(Err(Failure::transient(why)))
            }
        }
    }

    fn take(
        &self,
        handled: Handled,
        (entry, recorded): (&Recorded, &[Recorded]),
        overlay: &Overlay,
        diff: &mut Diff,
    ) {
        let cause = Cause { message: &entry.body, consumer: &self.spec.name };
        let origin = Origin { service: &self.service, now: entry.time, cause: Some(cause) };
        let (result, Also { commit: also, .. }) = handled.into_parts();
        let writes = result.and_then(|effects| origin.commit(effects, also.conditions));
        let writes = writes.map(|commit| commit.writes.into_iter().chain(also.writes));
        let recorded = diff::of_consumer(recorded, entry, &self.spec.name);
        match writes {
            Ok(writes) => {
                let writes: Vec<Write> = writes.collect();
                diff.compare(entry, &recorded, &writes);
                overlay.apply(writes);
            }
            Err(failure) => diff.failed(entry, &recorded, &failure),
        }
    }
}
