//! The handler of a process manager: loads the instance, reacts, and keeps what it is now.

use super::{
    About, AnyProcess, Instance, Missing, Orphan, Reacted, Route,
    instance::Early,
    tokens::{self, Fired},
};
use crate::{
    handler::{AnyHandler, Context, Handled},
    names,
    panics::panicked,
    runtime::{assemble::raw, operation},
};
use futures_util::FutureExt as _;
use sillage_core::{
    Commit, Condition, Draft, Due, Effect, Effects, Failure, Key, Message, Sort, Text, Timestamp,
    Version, Write, from_json, to_json,
};
use std::{borrow::Cow, collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio_util::sync::ReusableBoxFuture;

/// What an instance that has not begun is at.
const EXPECTED: &str = "expected";
/// What an instance tells itself when early events have waited long enough.
pub(crate) const CONTROL_EXPIRED: &str = "process.expired";
/// The token of the timer for that.
const EXPIRES: &str = "sillage.expires";

/// Where an instance's own messages go: deadlines, and what operators ask of it.
pub(crate) fn control_topic(service: &str, process: &str) -> Text {
    format!("{service}.{process}.control").into()
}

/// A message of an instance to itself.
pub(crate) fn control(about: &About<'_>, process: &str, name: &'static str) -> Draft {
    Draft {
        name: name.into(),
        version: 1,
        topic: Some(control_topic(about.service, process)),
        key: Some(about.key.clone()),
        operation_id: None,
        headers: vec![],
        payload: Ok("{}".into()),
    }
}

pub(crate) struct Reactor {
    process: Arc<dyn AnyProcess>,
}

/// What one message leads to.
#[derive(Default)]
struct Outcome {
    effects: Effects,
    writes: Vec<Write>,
    /// The message waits: it is not handled yet.
    waits: bool,
}

impl Reactor {
    pub(crate) fn new(process: Arc<dyn AnyProcess>) -> Self {
        Reactor { process }
    }

    async fn handle(self, context: &Context) -> Result<Outcome, Failure> {
        let message = &*known(&*self.process, context.message());
        let key = match (self.process.route(message)?, &message.key) {
            (Route::Start(key) | Route::Continue(key) | Route::Stop(key), _) => key,
            (Route::Ignore, Some(key)) if *message.name == *CONTROL_EXPIRED => key.clone(),
            (Route::Ignore, _) => return Ok(Outcome::default()),
        };
        if context.message().operation_id.is_some() && operation::is_undone(context).await? {
            return Ok(Outcome::default());
        }
        let process = names::part(context.service(), self.process.name());
        let place = Place::of(&process, &key, self.process.is_saga());
        let stored = context.database()?.get(place.collection, &[&place.id]).await?.pop().flatten();
        let found = stored.as_ref().map(Instance::read).transpose()?;
        let version = stored.as_ref().map(|stored| stored.version);
        context.beside().require(place.unchanged(version));
        let (service, now) = (context.service(), context.now());
        let turn = Turn { process: &*self.process, service, message, key, place, now };
        turn.take(&process, found)
    }
}

/// A message under the name that it has now, where it was renamed.
fn known<'a>(process: &dyn AnyProcess, message: &'a Message) -> Cow<'a, Message> {
    match process.aliases().iter().find(|(alias, ..)| *alias == &*message.name) {
        Some((_, name, _)) => Cow::Owned(Message { name: (*name).into(), ..message.clone() }),
        None => Cow::Borrowed(message),
    }
}

/// Where an instance is stored.
struct Place {
    collection: &'static str,
    id: Text,
}

impl Place {
    fn of(process: &str, key: &Key, is_saga: bool) -> Self {
        let collection = if is_saga { names::SAGAS } else { names::PROCESSES };
        Place { collection, id: names::instance(process, &key.label()) }
    }

    /// It is as it was read.
    fn unchanged(&self, version: Option<Version>) -> Condition {
        let (collection, id) = (self.collection.into(), self.id.clone());
        Condition::Document { collection, id, expected: version }
    }
}

/// A message and the instance it is for. Pure: nothing here does I/O.
struct Turn<'a> {
    process: &'a dyn AnyProcess,
    service: &'a str,
    message: &'a Message,
    key: Key,
    place: Place,
    /// When it is handled.
    now: Timestamp,
}

impl Turn<'_> {
    fn take(&self, process: &Text, found: Option<Instance>) -> Result<Outcome, Failure> {
        let outcome = match found {
            Some(instance) if instance.memory.is_some() => self.go_on(instance)?,
            early if self.is_begun() => self.begin(process, early)?,
            early if *self.message.name == *CONTROL_EXPIRED => self.expire(early)?,
            early => self.missing(process, early)?,
        };
        Ok(outcome.unwrap_or_default())
    }

    fn is_begun(&self) -> bool {
        matches!(self.process.route(self.message), Ok(Route::Start(_)))
    }

    /// An instance that is there.
    fn go_on(&self, mut instance: Instance) -> Result<Option<Outcome>, Failure> {
        let fired = tokens::fired(self.message).filter(|f| *f.process == *instance.process);
        if let Some(fired) = &fired
            && !instance.accept(fired)
        {
            // Cancelled or replaced when it had fired already.
            return Ok(None);
        }
        let token = fired.map(|Fired { token, .. }| token.to_owned());
        let mut outcome = Outcome::default();
        if !self.react(&mut instance, self.message, token.as_deref(), &mut outcome)? {
            return Ok(None);
        }
        Ok(Some(outcome))
    }

    /// The first event of an instance, and then those that came before it.
    fn begin(&self, process: &Text, early: Option<Instance>) -> Result<Option<Outcome>, Failure> {
        let mut instance = early.unwrap_or_else(|| self.expected(process));
        instance.started = self.message.time;
        instance.correlation_id = self.message.correlation_id.clone();
        let waiting = std::mem::take(&mut instance.early);
        let about = self.about(None);
        let reacted = self.process.begin(self.message, &about)?;
        let mut outcome = Outcome::default();
        if !waiting.is_empty() {
            let cancel = Effect::Cancel { token: EXPIRES.to_owned(), key: None };
            outcome.effects = instance.take_timers(Effects::one(cancel)).0;
        }
        self.keep(&mut instance, reacted, &mut outcome)?;
        let mut undone = vec![];
        for early in waiting {
            let message = from_json(early.message.get().as_bytes())?;
            let message = known(self.process, &message);
            self.react(&mut instance, &message, None, &mut outcome)?;
            undone.extend(operation::tombstone(self.service, &message)?);
        }
        outcome.writes.extend(undone);
        Ok(Some(outcome))
    }

    /// Whether the instance reacts to it.
    fn react(
        &self,
        instance: &mut Instance,
        message: &Message,
        timer: Option<&str>,
        outcome: &mut Outcome,
    ) -> Result<bool, Failure> {
        let Some(memory) = &instance.memory else { return Ok(false) };
        let about = self.about(timer);
        let Some(reacted) = self.process.react(memory, message, &about)? else { return Ok(false) };
        self.keep(instance, reacted, outcome)?;
        Ok(true)
    }

    /// Takes a reaction into the instance. One that has ended has no memory any more.
    fn keep(
        &self,
        instance: &mut Instance,
        reacted: Reacted,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let (effects, ends) = instance.take_timers(reacted.effects);
        outcome.effects = std::mem::take(&mut outcome.effects).and(effects);
        // What an earlier reaction of this commit has kept is not what it is now.
        outcome.writes.clear();
        instance.memory = Some(reacted.memory);
        (instance.status, instance.version) = (reacted.status.into(), reacted.version);
        // What it ends by may have been sent long ago: it is kept from now on.
        instance.updated = self.message.time.max(self.now);
        if ends && !self.process.is_saga() {
            instance.memory = None;
            let (collection, id) = (self.place.collection.into(), self.place.id.clone());
            outcome.writes.push(Write::Delete { collection, id });
            return Ok(());
        }
        self.put(instance, outcome)
    }

    fn put(&self, instance: &Instance, outcome: &mut Outcome) -> Result<(), Failure> {
        let (collection, id) = (self.place.collection.into(), self.place.id.clone());
        let body = serde_json::to_vec(instance)?.into();
        let sort = Some(Sort::Text(instance.sort().into()));
        outcome.writes.push(Write::Put { collection, id, sort, body });
        Ok(())
    }

    /// A message whose instance is not there.
    fn missing(&self, process: &Text, early: Option<Instance>) -> Result<Option<Outcome>, Failure> {
        if tokens::fired(self.message).is_some_and(|fired| *fired.process == **process) {
            // Of an instance that has ended.
            return Ok(None);
        }
        match self.process.missing(&self.message.name) {
            Missing::Ignore => Ok(None),
            Missing::Record => {
                let why = format!("`{process}` has no instance `{}`", self.key.label());
                let orphan = self.orphan(process, self.message, why);
                let writes = vec![recorded(&orphan)?];
                Ok(Some(Outcome { writes, ..Outcome::default() }))
            }
            Missing::Wait(limit) => self.wait(process, early, limit).map(Some),
        }
    }

    /// Keeps an event until its instance begins.
    fn wait(
        &self,
        process: &Text,
        early: Option<Instance>,
        limit: Duration,
    ) -> Result<Outcome, Failure> {
        let mut instance = early.unwrap_or_else(|| self.expected(process));
        let message = to_json(self.message).and_then(raw).map_err(Failure::permanent)?;
        let until = self.now + limit;
        let is_next = instance.early.iter().all(|other| until < other.until);
        instance.early.push(Early { until, message });
        instance.updated = self.message.time;
        let mut outcome = Outcome { waits: true, ..Outcome::default() };
        // Else the timer that is set comes sooner; setting it anew each time would put it off.
        if is_next {
            outcome.effects = self.expires(&mut instance, self.now);
        }
        self.put(&instance, &mut outcome)?;
        Ok(outcome)
    }

    /// Sets the timer for the early event that gives up first.
    fn expires(&self, instance: &mut Instance, now: Timestamp) -> Effects {
        let Some(until) = instance.early.iter().map(|early| early.until).min() else {
            return Effects::none();
        };
        let message = control(&self.about(None), self.process.name(), CONTROL_EXPIRED);
        let (due, token) = (Due::After(until.since(now)), EXPIRES.to_owned());
        instance.take_timers(Effects::one(Effect::Schedule { due, token, message })).0
    }

    /// Early events have waited long enough: they are recorded, and nothing comes of them. It counts
    /// when the timer fired: what came meanwhile had been read by then.
    fn expire(&self, early: Option<Instance>) -> Result<Option<Outcome>, Failure> {
        let Some(mut instance) = early else { return Ok(None) };
        let fired = tokens::fired(self.message);
        if !fired.is_some_and(|fired| instance.accept(&fired)) {
            return Ok(None);
        }
        let (mut outcome, now) = (Outcome::default(), self.message.time);
        let over = |early: &Early| early.until <= now;
        let (over, early): (Vec<_>, Vec<_>) = instance.early.drain(..).partition(over);
        instance.early = early;
        for early in over {
            let message = from_json(early.message.get().as_bytes())?;
            // Whoever asked to undo has waited: what comes now must not be done.
            outcome.writes.extend(operation::tombstone(self.service, &message)?);
            let why = format!("it waited, but `{}` never began", self.key.label());
            outcome.writes.push(recorded(&self.orphan(&instance.process, &message, why))?);
        }
        if instance.early.is_empty() {
            let (collection, id) = (self.place.collection.into(), self.place.id.clone());
            outcome.writes.push(Write::Delete { collection, id });
        } else {
            outcome.effects = self.expires(&mut instance, now);
            self.put(&instance, &mut outcome)?;
        }
        Ok(Some(outcome))
    }

    fn orphan(&self, process: &Text, message: &Message, why: String) -> Orphan {
        tracing::warn!(%process, key = %self.key, name = %message.name, why, "no instance");
        Orphan {
            process: process.clone(),
            key: self.key.label().into(),
            name: message.name.clone(),
            source: message.source.clone(),
            message: message.id.text(),
            at: message.time,
            why,
        }
    }

    fn about<'a>(&'a self, timer: Option<&'a str>) -> About<'a> {
        About { service: self.service, instance: &self.place.id, key: &self.key, timer }
    }

    fn expected(&self, process: &Text) -> Instance {
        Instance {
            process: process.clone(),
            version: self.process.version(),
            key: self.key.label().into(),
            status: EXPECTED.into(),
            correlation_id: self.message.correlation_id.clone(),
            started: Timestamp::default(),
            updated: self.message.time,
            memory: None,
            timers: BTreeMap::new(),
            generation: tokens::first(self.message),
            early: vec![],
        }
    }
}

/// One a process, key and name: a flood of the same is one document.
fn recorded(orphan: &Orphan) -> Result<Write, Failure> {
    Ok(Write::Put {
        collection: names::ORPHANS.into(),
        id: names::orphan(&orphan.process, &orphan.name, &orphan.key),
        sort: Some(Sort::Text(orphan.at.to_string().into())),
        body: serde_json::to_vec(orphan)?.into(),
    })
}

impl AnyHandler for Reactor {
    fn start(&self, mut context: Context, slot: &mut ReusableBoxFuture<'static, Handled>) {
        let reactor = Reactor { process: self.process.clone() };
        slot.set(async move {
            let call = AssertUnwindSafe(reactor.handle(&context)).catch_unwind();
            let outcome = call.await.unwrap_or_else(|panic| Err(panicked(&*panic)));
            match outcome {
                Ok(Outcome { effects, writes, waits }) => {
                    let (result, mut also) = context.end(Ok(effects)).into_parts();
                    let Commit { conditions, writes: beside } = &mut also.commit;
                    if waits {
                        beside.clear();
                    }
                    beside.extend(writes);
                    if beside.is_empty() {
                        // It changes nothing, whatever it has read.
                        conditions.clear();
                    }
                    Handled::with(result, also)
                }
                Err(failure) => context.end(Err(failure)),
            }
        });
    }
}
