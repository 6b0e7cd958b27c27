//! Sagas: an ordered process with an undo for each step, as data.
//!
//! ```
//! # use sillage::prelude::*;
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Event, Serialize, Deserialize, Clone)] #[event(name = "order.created")]
//! # struct OrderCreated { #[event(key)] order_id: String }
//! # #[derive(Command, Serialize, Deserialize)]
//! # #[command(name = "stock.reserve", done = StockReserved, failed = StockShort)]
//! # struct ReserveStock { #[command(key)] order_id: String }
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "stock.reserved")]
//! # struct StockReserved { #[event(key)] order_id: String }
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "stock.short")]
//! # struct StockShort { #[event(key)] order_id: String }
//! # #[derive(Command, Serialize, Deserialize)]
//! # #[command(name = "stock.release", done = StockReleased)]
//! # struct ReleaseStock { #[command(key)] order_id: String }
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "stock.released")]
//! # struct StockReleased { #[event(key)] order_id: String }
//! # #[derive(Command, Serialize, Deserialize)]
//! # #[command(name = "shipping.ship", done = OrderShipped)]
//! # struct ShipOrder { #[command(key)] order_id: String }
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "shipping.shipped")]
//! # struct OrderShipped { #[event(key)] order_id: String }
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "order.completed")]
//! # struct OrderCompleted { #[event(key)] order_id: String }
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "order.cancelled")]
//! # struct OrderCancelled { #[event(key)] order_id: String }
//! #[derive(Serialize, Deserialize)]
//! struct Checkout { order_id: String }
//!
//! impl Checkout {
//!     fn start(order: &OrderCreated) -> Self { Checkout { order_id: order.order_id.clone() } }
//!     fn reserve(&self) -> ReserveStock { ReserveStock { order_id: self.order_id.clone() } }
//!     fn release(&self) -> ReleaseStock { ReleaseStock { order_id: self.order_id.clone() } }
//!     fn ship(&self) -> ShipOrder { ShipOrder { order_id: self.order_id.clone() } }
//!     fn complete(&self) -> Effects {
//!         publish(OrderCompleted { order_id: self.order_id.clone() })
//!     }
//!     fn cancel(&self) -> Effects {
//!         publish(OrderCancelled { order_id: self.order_id.clone() })
//!     }
//! }
//!
//! let checkout = Saga::<Checkout>::new("checkout", 1)
//!     .start_on::<OrderCreated>(Checkout::start)
//!     .step("reserve", Checkout::reserve, Checkout::release)
//!     .within(mins(15))
//!     .pivot("ship", Checkout::ship)
//!     .finish(Checkout::complete, Checkout::cancel);
//! let service = Service::new("order").saga(checkout);
//! ```
//!
//! *Guarantees.* Every instance ends completed or compensated, or is stuck with the reason. A step
//! that was refused was not done; one that was not answered in time may have been, and is undone.
//! Undos go in reverse, each when the one behind it was answered. All attempts of a step and its
//! undo share an operation id: a command that comes after its undo is dropped by the service that
//! has handled the undo. Answers that come late, twice or in another order change nothing.

pub(crate) mod check;
pub(crate) mod compile;
pub(crate) mod definition;
mod diagram;
pub(crate) mod machine;
pub(crate) mod run;
mod shape;

pub use machine::{Kind, Progress, Status};
pub use run::Moment;
pub use shape::{Asks, SagaShape, StepShape};

use crate::process::{Alias, Memory, aliases, read};
use definition::{Asked, Begin, Definition, Fold, Heard, KeyOf, Make, Migrate, Only, Step};
use sillage_core::{Answered, Contract, Effects, Event, Key, send};
use std::{
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

/// How long an answer is waited for, unless said.
const WITHIN: Duration = Duration::from_secs(15 * 60);

/// A saga, while it is being written down; the phase says what may come next. Before the pivot a
/// step without an undo does not compile:
///
/// ```compile_fail,E0061
/// # use sillage::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)] #[event(name = "order.created")]
/// # struct OrderCreated { #[event(key)] id: String }
/// # #[derive(Command, Serialize, Deserialize)] #[command(name = "stock.reserve", done = Reserved)]
/// # struct Reserve { #[command(key)] id: String }
/// # #[derive(Event, Serialize, Deserialize)] #[event(name = "stock.reserved")]
/// # struct Reserved { #[event(key)] id: String }
/// Saga::<String>::new("checkout", 1)
///     .start_on::<OrderCreated>(|order| order.id.clone())
///     .step("reserve", |id| Reserve { id: id.clone() });
/// ```
#[must_use = "a saga does nothing until it is given to a service"]
pub struct Saga<S, Phase = Finished> {
    name: &'static str,
    version: u32,
    start: Option<(Heard, Begin<S>)>,
    steps: Vec<Step<S>>,
    folds: BTreeMap<&'static str, Fold<S>>,
    keys: BTreeMap<&'static str, KeyOf>,
    ends: Option<(Make<S>, Make<S>)>,
    older: Vec<(Arc<dyn definition::AnyDefinition>, Option<Migrate>)>,
    aliases: BTreeSet<Alias>,
    errors: Vec<String>,
    phase: PhantomData<fn(Phase)>,
}

/// A saga that nothing begins yet.
pub struct Unstarted;
/// Before the pivot: a step needs an undo.
pub struct Undoable;
/// From the pivot on: there is no undo, only forward.
pub struct Forward;
/// A saga that is complete.
pub struct Finished;

/// A saga that takes more steps.
pub trait Open {}
impl Open for Undoable {}
impl Open for Forward {}

/// What undoes a step: a command with an answer, or [`no_undo`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not undo a step",
    note = "a function of the saga's memory that returns a command with `done = …`, or `no_undo` for a step that changes nothing"
)]
pub trait Undo {
    #[doc(hidden)]
    fn asked() -> Option<Asked>;
    #[doc(hidden)]
    fn aliases() -> Vec<Alias>;
    #[doc(hidden)]
    fn effects(self) -> Effects;
}

impl<C: Answered> Undo for C {
    fn asked() -> Option<Asked> {
        Some(asked::<C>())
    }

    fn aliases() -> Vec<Alias> {
        renamed::<C>()
    }

    fn effects(self) -> Effects {
        send(self)
    }
}

/// There is nothing to undo.
pub struct NoUndo;

impl Undo for NoUndo {
    fn asked() -> Option<Asked> {
        None
    }

    fn aliases() -> Vec<Alias> {
        vec![]
    }

    fn effects(self) -> Effects {
        Effects::none()
    }
}

/// In place of an undo, for a step that changes nothing: it asks, or checks.
pub fn no_undo<S>(_: &S) -> NoUndo {
    NoUndo
}

fn asked<C: Answered>() -> Asked {
    Asked {
        command: C::NAME,
        done: (C::Done::NAME, C::Done::TOPIC),
        failed: (C::Failed::NAME, C::Failed::TOPIC),
    }
}

/// The names that a command and its answers had before.
fn renamed<C: Answered>() -> Vec<Alias> {
    aliases::<C>().chain(aliases::<C::Done>()).chain(aliases::<C::Failed>()).collect()
}

impl<S: Memory> Saga<S> {
    /// A saga of that name. The version is pinned to each instance; a change of the steps takes a
    /// new one.
    #[allow(clippy::new_ret_no_self)] // it is not finished yet
    pub fn new(name: &'static str, version: u32) -> Saga<S, Unstarted> {
        Saga {
            name,
            version,
            start: None,
            steps: vec![],
            folds: BTreeMap::new(),
            keys: BTreeMap::new(),
            ends: None,
            older: vec![],
            aliases: BTreeSet::new(),
            errors: vec![],
            phase: PhantomData,
        }
    }

    /// Instances of an older version end as they began.
    pub fn keep<T: Memory>(mut self, older: Saga<T>) -> Self {
        self.older.push((Arc::new(older.define()), None));
        self
    }

    /// Instances of an older version are brought over at their next event, if what they have begun
    /// is the beginning of this version; else they end as they began.
    pub fn migrate<T: Memory>(
        mut self,
        older: Saga<T>,
        migrate: impl Fn(T) -> S + Send + Sync + 'static,
    ) -> Self {
        let migrate: Migrate = Box::new(move |old| {
            let moved = serde_json::from_str(old.get()).map(&migrate);
            let moved = moved.and_then(|new| serde_json::value::to_raw_value(&new));
            moved.map_err(sillage_core::Failure::permanent)
        });
        self.older.push((Arc::new(older.define()), Some(migrate)));
        self
    }

    /// The definition, as it is stored and shown.
    pub fn shape(&self) -> SagaShape {
        let steps = self.steps.iter().map(Step::shape).collect();
        let start = self.start.as_ref().map_or("", |((name, _), _)| name).into();
        SagaShape { name: self.name.into(), version: self.version, start, steps }
    }

    pub(crate) fn define(self) -> Definition<S> {
        let never: (_, Begin<S>) = (
            ("", None),
            Box::new(|_| Err(sillage_core::Failure::permanent("nothing begins this saga"))),
        );
        let (start, begin) = self.start.unwrap_or(never);
        let nothing = || -> Make<S> { Box::new(|_| Effects::none()) };
        let (completed, compensated) = self.ends.unwrap_or_else(|| (nothing(), nothing()));
        Definition {
            name: self.name,
            version: self.version,
            start,
            begin,
            steps: self.steps,
            folds: self.folds,
            keys: self.keys,
            completed,
            compensated,
            older: self.older,
            aliases: self.aliases,
            errors: self.errors,
        }
    }
}

impl<S: Memory> Saga<S, Unstarted> {
    /// An event begins an instance, which its key names.
    pub fn start_on<E: Event>(
        mut self,
        start: impl Fn(&E) -> S + Send + Sync + 'static,
    ) -> Saga<S, Undoable> {
        let begin: Begin<S> = Box::new(move |message| Ok(start(&read::<E>(message)?)));
        self.start = Some(((E::NAME, E::TOPIC), begin));
        self.aliases.extend(aliases::<E>());
        self.into_phase()
    }
}

impl<S: Memory> Saga<S, Undoable> {
    /// A step, and what undoes it. It begins when the one before it was answered.
    pub fn step<C: Answered, U: Undo>(
        self,
        name: &'static str,
        run: impl Fn(&S) -> C + Send + Sync + 'static,
        undo: impl Fn(&S) -> U + Send + Sync + 'static,
    ) -> Self {
        let stage = self.next_stage();
        self.undoable(name, stage, run, undo)
    }

    /// A step beside the one before it: both begin at once, and the next one when both were done.
    pub fn beside<C: Answered, U: Undo>(
        self,
        name: &'static str,
        run: impl Fn(&S) -> C + Send + Sync + 'static,
        undo: impl Fn(&S) -> U + Send + Sync + 'static,
    ) -> Self {
        let stage = self.next_stage().saturating_sub(1);
        self.undoable(name, stage, run, undo)
    }

    /// The point of no return: what comes behind it takes no undo. If it is refused, everything
    /// before it is undone; if it is not answered, it is asked again.
    pub fn pivot<C: Answered>(
        self,
        name: &'static str,
        run: impl Fn(&S) -> C + Send + Sync + 'static,
    ) -> Saga<S, Forward> {
        self.forward(name, Kind::Pivot, run).into_phase()
    }

    fn undoable<C: Answered, U: Undo>(
        mut self,
        name: &'static str,
        stage: usize,
        run: impl Fn(&S) -> C + Send + Sync + 'static,
        undo: impl Fn(&S) -> U + Send + Sync + 'static,
    ) -> Self {
        let step = Step {
            name,
            stage,
            kind: if U::asked().is_some() { Kind::Undoable } else { Kind::Harmless },
            asks: asked::<C>(),
            undo: U::asked(),
            within: WITHIN,
            retry: None,
            run: Box::new(move |memory| send(run(memory))),
            revert: Box::new(move |memory| undo(memory).effects()),
            only: BTreeMap::new(),
        };
        self.steps.push(step);
        self.aliases.extend(renamed::<C>().into_iter().chain(U::aliases()));
        self
    }
}

impl<S: Memory> Saga<S, Forward> {
    /// A step behind the pivot: asked again until it is done.
    pub fn step<C: Answered>(
        self,
        name: &'static str,
        run: impl Fn(&S) -> C + Send + Sync + 'static,
    ) -> Self {
        self.forward(name, Kind::Forward, run)
    }
}

impl<S: Memory, P> Saga<S, P> {
    fn into_phase<Q>(self) -> Saga<S, Q> {
        let Saga { name, version, start, steps, folds, keys, ends, older, aliases, errors, .. } =
            self;
        let phase = PhantomData;
        Saga { name, version, start, steps, folds, keys, ends, older, aliases, errors, phase }
    }

    fn next_stage(&self) -> usize {
        self.steps.last().map_or(0, |last| last.stage + 1)
    }

    fn forward<C: Answered>(
        mut self,
        name: &'static str,
        kind: Kind,
        run: impl Fn(&S) -> C + Send + Sync + 'static,
    ) -> Self {
        let step = Step {
            name,
            stage: self.next_stage(),
            kind,
            asks: asked::<C>(),
            undo: None,
            within: WITHIN,
            retry: None,
            run: Box::new(move |memory| send(run(memory))),
            revert: Box::new(|_| Effects::none()),
            only: BTreeMap::new(),
        };
        self.steps.push(step);
        self.aliases.extend(renamed::<C>());
        self
    }
}

impl<S: Memory, P: Open> Saga<S, P> {
    /// How long the last step's answers are waited for, and its undo's; 15 min unless said. Then a
    /// step before the pivot counts as unknown, and is undone.
    pub fn within(self, limit: Duration) -> Self {
        self.last("within", |step| step.within = limit)
    }

    /// The pauses before the last step is asked again, all attempts with one operation id. Before
    /// the pivot a step is asked once unless said; its undo, and what has no undo, after 10 s, 1 min
    /// and 10 min, and then it is stuck.
    pub fn retry(self, pauses: impl IntoIterator<Item = Duration>) -> Self {
        let pauses = pauses.into_iter().collect();
        self.last("retry", |step| step.retry = Some(pauses))
    }

    /// Which events of this type answer the last step, where another step awaits them as well.
    pub fn only<E: Event>(self, is_it: impl Fn(&S, &E) -> bool + Send + Sync + 'static) -> Self {
        let only: Only<S> =
            Box::new(move |memory, message| Ok(is_it(memory, &read::<E>(message)?)));
        self.last("only", |step| drop(step.only.insert(E::NAME, only)))
    }

    /// What the saga remembers of an answer, once: before the next step is asked.
    pub fn remember<E: Event>(mut self, fold: impl Fn(&mut S, &E) + Send + Sync + 'static) -> Self {
        let fold: Fold<S> = Box::new(move |memory, message| {
            fold(memory, &read::<E>(message)?);
            Ok(())
        });
        self.folds.insert(E::NAME, fold);
        self
    }

    /// The instance that an answer is for, where its key does not name it.
    pub fn by<E: Event>(mut self, key: impl Fn(&E) -> Key + Send + Sync + 'static) -> Self {
        self.keys.insert(E::NAME, Box::new(move |message| Ok(key(&read::<E>(message)?))));
        self
    }

    /// What happens at the end: when all steps were done, and when what was done was undone.
    pub fn finish<A: Into<Effects>, B: Into<Effects>>(
        mut self,
        completed: impl Fn(&S) -> A + Send + Sync + 'static,
        compensated: impl Fn(&S) -> B + Send + Sync + 'static,
    ) -> Saga<S> {
        let completed: Make<S> = Box::new(move |memory| completed(memory).into());
        self.ends = Some((completed, Box::new(move |memory| compensated(memory).into())));
        if self.steps.is_empty() {
            self.errors.push(format!("saga `{}` has no step", self.name));
        }
        self.into_phase()
    }

    fn last(mut self, what: &str, change: impl FnOnce(&mut Step<S>)) -> Self {
        match self.steps.last_mut() {
            Some(step) => change(step),
            None => {
                self.errors.push(format!("saga `{}`: `.{what}(…)` comes behind a step", self.name));
            }
        }
        self
    }
}
