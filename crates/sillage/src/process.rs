//! Process managers: state machines with memory that react to events, with effects and timers.
//!
//! ```
//! # use sillage::prelude::*;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Event, Serialize, Deserialize, Clone)] #[event(name = "order.created")]
//! # struct OrderCreated { #[event(key)] order_id: String }
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "payment.completed")]
//! # struct PaymentCompleted { #[event(key)] order_id: String }
//! # #[derive(Event, Serialize, Deserialize, Clone)] #[event(name = "order.payment-due")]
//! # struct PaymentDue { #[event(key)] order_id: String }
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "order.reminded")]
//! # struct Reminded { #[event(key)] order_id: String }
//! #[derive(Serialize, Deserialize)]
//! struct Dunning { reminders: u32 }
//!
//! let dunning = Process::<Dunning>::new("dunning", 1)
//!     .start_on::<OrderCreated>(|order| {
//!         let due = PaymentDue { order_id: order.order_id.clone() };
//!         (Dunning { reminders: 0 }, schedule(after(hours(72)), "due", due))
//!     })
//!     .on::<PaymentDue>(|dunning, due| {
//!         dunning.reminders += 1;
//!         publish(Reminded { order_id: due.order_id.clone() })
//!     })
//!     .stop_on::<PaymentCompleted>(|_, _| Effects::none()) // its timer goes with it
//!     .wait(mins(5)); // the payment may be heard of before the order
//! let service = Service::new("order").process(dunning);
//! ```
//!
//! *Guarantees.* One commit a reaction: inbox, memory, effects and timers. Two events of an instance
//! that come at once are handled one after the other: the second finds the memory changed and runs
//! again. A timer that was cancelled, replaced or left behind by an instance that ended is ignored,
//! also when it had fired already. After an outage overdue timers wait until what came meanwhile has
//! been read, at most for ten minutes.

mod instance;
mod reactor;
pub(crate) mod tokens;

pub(crate) use instance::{Instance, Orphan};
pub(crate) use reactor::{CONTROL_EXPIRED, Reactor, control, control_topic};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sillage_core::{Contract, Effects, Failure, Key, Message};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What an instance of a process manager or a saga remembers.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the memory of a process manager or a saga",
    note = "derive `Serialize` and `Deserialize` for it"
)]
pub trait Memory: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Memory for T {}

/// Which instance a message is for, and what it does to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// It begins an instance; one that is there already goes on with it, where it reacts to it.
    Start(Key),
    /// The instance goes on with it.
    Continue(Key),
    /// The instance reacts, and is at its end.
    Stop(Key),
    /// The process manager does not know it.
    Ignore,
}

/// What becomes of a message whose instance is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Nothing: it was declared so.
    Ignore,
    /// It waits so long for its instance to begin.
    Wait(Duration),
    /// It is recorded with the reason.
    Record,
}

/// What a reaction knows beside memory and message.
pub(crate) struct About<'a> {
    pub(crate) service: &'a str,
    /// `service/process/key`.
    pub(crate) instance: &'a str,
    pub(crate) key: &'a Key,
    /// The token of the timer that is due.
    pub(crate) timer: Option<&'a str>,
}

type KeyOf = Box<dyn Fn(&Message) -> Result<Key, Failure> + Send + Sync>;
type Begin<S> = Box<dyn Fn(&Message, &About<'_>) -> Result<(S, Effects), Failure> + Send + Sync>;
type React<S> = Box<dyn Fn(&mut S, &Message, &About<'_>) -> Result<Effects, Failure> + Send + Sync>;

/// What a process manager does with messages of one name.
pub(crate) struct Reaction<S> {
    pub(crate) topic: Option<&'static str>,
    pub(crate) key: Option<KeyOf>,
    pub(crate) begin: Option<Begin<S>>,
    pub(crate) react: Option<React<S>>,
    pub(crate) stops: bool,
    pub(crate) missing: Missing,
}

impl<S> Reaction<S> {
    pub(crate) fn of(topic: Option<&'static str>) -> Self {
        let missing = Missing::Ignore;
        Reaction { topic, key: None, begin: None, react: None, stops: false, missing }
    }
}

/// A name that a contract had before: the alias, the name, and the topic it came on.
pub(crate) type Alias = (&'static str, &'static str, Option<&'static str>);

/// The names that a contract had before.
pub(crate) fn aliases<C: Contract>() -> impl Iterator<Item = Alias> {
    C::ALIASES.iter().map(|(alias, topic)| (*alias, C::NAME, *topic))
}

/// What an instance is at, as a word, and its version.
pub(crate) type StatusOf<S> = fn(&S) -> (&'static str, u32);

/// A process manager: events in, effects and timers out, with memory. An instance is named by the
/// key of its events.
#[must_use = "a process manager does nothing until it is given to a service"]
pub struct Process<S> {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) reactions: BTreeMap<&'static str, Reaction<S>>,
    pub(crate) aliases: BTreeSet<Alias>,
    pub(crate) errors: Vec<String>,
    /// Keeps instances that have ended, with this word for what they are at: a saga.
    pub(crate) saga: Option<StatusOf<S>>,
    last: Option<&'static str>,
}

impl<S: Memory> Process<S> {
    /// A process manager of that name; the version is stored with each instance.
    pub fn new(name: &'static str, version: u32) -> Self {
        let (reactions, aliases) = (BTreeMap::new(), BTreeSet::new());
        Process { name, version, reactions, aliases, errors: vec![], saga: None, last: None }
    }

    /// Begins an instance: its memory, and effects. The same event again changes nothing.
    pub fn start_on<E: Contract>(
        mut self,
        begin: impl Fn(&E) -> (S, Effects) + Send + Sync + 'static,
    ) -> Self {
        let reaction = self.reaction::<E>();
        reaction.begin = Some(Box::new(move |message, _| Ok(begin(&read::<E>(message)?))));
        self
    }

    /// An instance goes on: it may change its memory, and says what should happen. An event whose
    /// instance is not there is ignored, unless [`Process::wait`] says otherwise.
    pub fn on<E: Contract>(
        mut self,
        react: impl Fn(&mut S, &E) -> Effects + Send + Sync + 'static,
    ) -> Self {
        let name = self.name;
        let reaction = self.reaction::<E>();
        let earlier = reaction
            .react
            .replace(Box::new(move |memory, message, _| Ok(react(memory, &read::<E>(message)?))));
        if earlier.is_some() {
            self.errors.push(format!("process `{name}` reacts to `{}` twice: keep one", E::NAME));
        }
        self
    }

    /// An instance reacts for the last time: then its memory and its timers go.
    pub fn stop_on<E: Contract>(
        self,
        react: impl Fn(&mut S, &E) -> Effects + Send + Sync + 'static,
    ) -> Self {
        let mut process = self.on(react);
        process.reaction::<E>().stops = true;
        process
    }

    /// The last event waits so long for its instance to begin, instead of being ignored: facts of
    /// different topics come in any order.
    pub fn wait(mut self, limit: Duration) -> Self {
        match self.last.and_then(|name| self.reactions.get_mut(name)) {
            Some(reaction) => reaction.missing = Missing::Wait(limit),
            None => self.errors.push(format!(
                "process `{}`: `.wait(…)` comes behind the event that waits",
                self.name
            )),
        }
        self
    }

    /// The instance that an event is for, where its key does not name it.
    pub fn by<E: Contract>(mut self, key: impl Fn(&E) -> Key + Send + Sync + 'static) -> Self {
        self.reaction::<E>().key = Some(Box::new(move |message| Ok(key(&read::<E>(message)?))));
        self
    }

    /// Where a message goes: pure, by its name and its key.
    ///
    /// # Errors
    /// A permanent failure where it names no instance, or cannot be read.
    pub fn route(&self, message: &Message) -> Result<Route, Failure> {
        let Some(reaction) = self.reactions.get(&*message.name) else { return Ok(Route::Ignore) };
        let key = match (&reaction.key, &message.key) {
            (Some(by), _) => by(message)?,
            (None, Some(key)) => key.clone(),
            (None, None) => {
                return Err(Failure::permanent(format!(
                    "`{}` has no key, so it names no instance of `{}`",
                    message.name, self.name
                )));
            }
        };
        Ok(match reaction {
            Reaction { begin: Some(_), .. } => Route::Start(key),
            Reaction { stops: true, .. } => Route::Stop(key),
            _ => Route::Continue(key),
        })
    }

    fn reaction<E: Contract>(&mut self) -> &mut Reaction<S> {
        self.last = Some(E::NAME);
        self.aliases.extend(aliases::<E>());
        if E::TOPIC.is_none() {
            self.errors.push(format!(
                "process `{}` reacts to `{}`, which has no topic: nothing would ever come",
                self.name,
                E::NAME
            ));
        }
        self.reactions.entry(E::NAME).or_insert_with(|| Reaction::of(E::TOPIC))
    }
}

pub(crate) fn read<C: Contract>(message: &Message) -> Result<C, Failure> {
    C::read(message.version, &message.payload).map_err(Failure::decode)
}

/// A process manager whose types are forgotten.
pub(crate) trait AnyProcess: Send + Sync {
    fn name(&self) -> &'static str;
    /// The version of instances that begin now.
    fn version(&self) -> u32;
    fn is_saga(&self) -> bool;
    fn errors(&self) -> &[String];
    /// What it reacts to, with the topics.
    fn inputs(&self) -> Vec<(&'static str, Option<&'static str>)>;
    /// What of that had other names before.
    fn aliases(&self) -> &BTreeSet<Alias>;
    fn route(&self, message: &Message) -> Result<Route, Failure>;
    fn missing(&self, name: &str) -> Missing;
    fn begin(&self, message: &Message, about: &About<'_>) -> Result<Reacted, Failure>;
    /// `None`: an instance does not react to it.
    fn react(
        &self,
        memory: &RawValue,
        message: &Message,
        about: &About<'_>,
    ) -> Result<Option<Reacted>, Failure>;
}

/// A reaction: the memory now, and what should happen.
pub(crate) struct Reacted {
    pub(crate) memory: Box<RawValue>,
    pub(crate) status: &'static str,
    pub(crate) version: u32,
    pub(crate) effects: Effects,
}

impl<S: Memory> Process<S> {
    fn reacted(&self, memory: &S, effects: Effects) -> Result<Reacted, Failure> {
        let running = ("running", self.version);
        let (status, version) = self.saga.map_or(running, |status| status(memory));
        let written = serde_json::value::to_raw_value(memory).map_err(|error| {
            Failure::permanent(format!(
                "the memory of `{}` cannot be written as JSON: {error}",
                self.name
            ))
        })?;
        Ok(Reacted { memory: written, status, version, effects })
    }
}

impl<S: Memory> AnyProcess for Process<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn is_saga(&self) -> bool {
        self.saga.is_some()
    }

    fn errors(&self) -> &[String] {
        &self.errors
    }

    fn inputs(&self) -> Vec<(&'static str, Option<&'static str>)> {
        self.reactions.iter().map(|(name, reaction)| (*name, reaction.topic)).collect()
    }

    fn aliases(&self) -> &BTreeSet<Alias> {
        &self.aliases
    }

    fn route(&self, message: &Message) -> Result<Route, Failure> {
        Process::route(self, message)
    }

    fn missing(&self, name: &str) -> Missing {
        self.reactions.get(name).map_or(Missing::Ignore, |reaction| reaction.missing)
    }

    fn begin(&self, message: &Message, about: &About<'_>) -> Result<Reacted, Failure> {
        let begin = self.reactions.get(&*message.name).and_then(|r| r.begin.as_ref());
        let begin = begin.ok_or_else(|| Failure::permanent("it begins no instance"))?;
        let (memory, effects) = begin(message, about)?;
        self.reacted(&memory, effects)
    }

    fn react(
        &self,
        memory: &RawValue,
        message: &Message,
        about: &About<'_>,
    ) -> Result<Option<Reacted>, Failure> {
        let reaction = self.reactions.get(&*message.name);
        let Some((react, stops)) = reaction.and_then(|r| Some((r.react.as_ref()?, r.stops))) else {
            return Ok(None);
        };
        let mut memory: S = serde_json::from_str(memory.get()).map_err(|error| {
            Failure::permanent(format!("the memory of `{}`: {error}", about.instance))
        })?;
        let mut effects = react(&mut memory, message, about)?;
        if stops {
            effects = effects.and(sillage_core::end());
        }
        self.reacted(&memory, effects).map(Some)
    }
}
