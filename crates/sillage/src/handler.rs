//! Handlers: async functions from a message and what they ask for to effects.
//!
//! A handler's first argument is the message; after it come up to six extractors. It returns
//! effects as a value, so that it can be called in a test without a broker or a database:
//!
//! ```
//! # use sillage::prelude::*;
//! # use serde::{Serialize, Deserialize};
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "order.created")]
//! # struct OrderCreated { #[event(key)] order_id: String }
//! # #[derive(Event, Serialize, Deserialize)] #[event(name = "invoice.sent")]
//! # struct InvoiceSent { #[event(key)] order_id: String }
//! async fn invoice(order: OrderCreated, meta: Meta) -> Effects {
//!     println!("attempt {}", meta.attempt);
//!     publish(InvoiceSent { order_id: order.order_id })
//! }
//! let consumer = Consumer::new("billing").on(invoice);
//! ```
//!
//! *Guarantees.* The effects of one delivery are committed once, whatever crashes; the handler
//! itself may run again. Whatever a handler read with [`Load`], [`Documents`] or `Aggregate` must
//! be unchanged when its effects are committed, else it runs again on what is there then. The same
//! holds where it fails for good: it is a dead letter only if what it read is still so.

use crate::{
    names,
    panics::panicked,
    runtime::operation,
    tx::{Lent, Wanted, taken_back},
};
use futures_util::FutureExt as _;
use serde::de::DeserializeOwned;
use sillage_core::{
    Clock, Commit, Condition, Contract, Database, DecodeError, Document, Effects, Failure, Message,
    MessageId, Offset, Outcome, Stored, Text, Timestamp, Transaction, Write,
};
use std::{
    any::{Any, TypeId, type_name},
    collections::HashMap,
    fmt::Display,
    marker::PhantomData,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
use tokio_util::sync::ReusableBoxFuture;
use uuid::Uuid;

/// What a service was given with `.state(…)`, by type.
#[derive(Default)]
pub struct States(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl States {
    /// Keeps a value; one a type.
    pub fn insert<T: Clone + Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }

    fn get<T: Clone + 'static>(&self) -> Option<T> {
        self.0.get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref::<T>()).cloned()
    }

    pub(crate) fn has(&self, id: TypeId) -> bool {
        self.0.contains_key(&id)
    }
}

/// What a handler needs, known when the app is built.
#[derive(Default)]
pub struct Needs {
    pub(crate) states: Vec<(TypeId, &'static str)>,
    pub(crate) database: bool,
    pub(crate) transactions: Vec<Wanted>,
}

/// What all deliveries of one consumer share.
pub(crate) struct Shared {
    pub(crate) service: Text,
    pub(crate) consumer: Text,
    pub(crate) states: Arc<States>,
    pub(crate) database: Option<Arc<dyn Database>>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What a delivery brings with it; extractors read it.
pub struct Context {
    pub(crate) message: Arc<Message>,
    pub(crate) attempt: u32,
    pub(crate) redrives: u32,
    /// Where in its partition, or in the log where it was parked there.
    pub(crate) offset: Option<Offset>,
    /// When it was handled, in a replay.
    pub(crate) then: Option<Timestamp>,
    pub(crate) shared: Arc<Shared>,
    beside: OnceLock<Arc<Beside>>,
    /// The handler's own, if it takes one.
    pub(crate) transaction: OnceLock<Box<dyn Lent>>,
}

impl Context {
    pub(crate) fn new(message: Arc<Message>, attempt: u32, shared: Arc<Shared>) -> Self {
        let (beside, transaction) = (OnceLock::new(), OnceLock::new());
        let (redrives, offset, then) = (0, None, None);
        Context { message, attempt, redrives, offset, then, shared, beside, transaction }
    }

    /// The message in hand.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The database of the service.
    pub fn database(&self) -> Result<&Arc<dyn Database>, Failure> {
        self.shared
            .database
            .as_ref()
            .ok_or_else(|| Failure::permanent("this app has no database, so nothing can be loaded"))
    }

    /// The name of the service.
    pub fn service(&self) -> &str {
        &self.shared.service
    }

    /// When it is handled.
    pub(crate) fn now(&self) -> Timestamp {
        self.then.unwrap_or_else(|| self.shared.clock.now())
    }

    /// What is committed beside the handler's effects.
    pub(crate) fn beside(&self) -> &Arc<Beside> {
        self.beside.get_or_init(Arc::default)
    }

    /// What became of a handler that returned so. Its own transaction is lost where it failed.
    #[inline]
    pub(crate) fn end(&mut self, result: Result<Effects, Failure>) -> Handled {
        if self.beside.get().is_none() && self.transaction.get().is_none() {
            return Handled::plain(result);
        }
        let mut commit = self.beside.take().map(|beside| beside.take()).unwrap_or_default();
        let lent = self.transaction.take();
        match result.and_then(|effects| Ok((effects, taken_back(lent)?))) {
            Ok((effects, transaction)) => Handled::with(Ok(effects), Also { commit, transaction }),
            Err(failure) => {
                commit.writes.clear();
                Handled::with(Err(failure), Also { commit, transaction: None })
            }
        }
    }
}

/// What is committed beside a handler's effects: what it read must be unchanged then, and what the
/// runtime writes itself.
#[derive(Default)]
pub(crate) struct Beside(Mutex<Commit>);

impl Beside {
    pub(crate) fn require(&self, condition: Condition) {
        let mut commit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !commit.conditions.contains(&condition) {
            commit.conditions.push(condition);
        }
    }

    pub(crate) fn write(&self, write: Write) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).writes.push(write);
    }

    fn take(&self) -> Commit {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// First argument of a handler: an event, a command, or any message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message, so it cannot be the first argument of a handler",
    note = "the first argument is a type with `#[derive(Event)]` or `#[derive(Command)]`, or `Raw` for any message; extractors such as `State<T>` and `Meta` come after it"
)]
pub trait Input: Sized + Send + 'static {
    /// The name it takes; `None` takes any.
    const ACCEPTS: Option<&'static str>;
    /// The topic it comes from.
    const FROM: Option<&'static str>;
    /// Other names it takes, with the topics they come from.
    const ALIASES: &'static [(&'static str, Option<&'static str>)] = &[];
    /// Reads it from the message.
    fn read(message: &Arc<Message>) -> Result<Self, DecodeError>;
}

#[diagnostic::do_not_recommend] // what is missing is said of the argument, not of a bound behind it
impl<C: Contract> Input for C {
    const ACCEPTS: Option<&'static str> = Some(C::NAME);
    const FROM: Option<&'static str> = C::TOPIC;
    const ALIASES: &'static [(&'static str, Option<&'static str>)] = C::ALIASES;
    fn read(message: &Arc<Message>) -> Result<Self, DecodeError> {
        <C as Contract>::read(message.version, &message.payload)
    }
}

/// Any message, not decoded.
#[derive(Clone, Debug)]
pub struct Raw(pub Arc<Message>);

impl Input for Raw {
    const ACCEPTS: Option<&'static str> = None;
    const FROM: Option<&'static str> = None;
    fn read(message: &Arc<Message>) -> Result<Self, DecodeError> {
        Ok(Raw(message.clone()))
    }
}

/// What a handler may ask for after its message.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken from a delivery",
    note = "the message is the first argument; after it a handler may take `State<T>`, `Meta`, `Load<T>`, `Documents`, `Aggregate<D>`, `Tx<Pg>` or a type that implements `Extract`"
)]
pub trait Extract: Sized + Send {
    /// Says what it needs, when the app is built.
    fn needs(_needs: &mut Needs) {}
    /// Takes it from the delivery.
    fn extract(context: &Context) -> impl Future<Output = Result<Self, Failure>> + Send;
}

/// Something the service was given with `.state(…)`.
#[derive(Clone, Debug)]
pub struct State<T>(pub T);

impl<T: Clone + Send + Sync + 'static> Extract for State<T> {
    fn needs(needs: &mut Needs) {
        needs.states.push((TypeId::of::<T>(), type_name::<T>()));
    }

    async fn extract(context: &Context) -> Result<Self, Failure> {
        let missing = || Failure::permanent(format!("no `.state({})`", type_name::<T>()));
        context.shared.states.get().map(State).ok_or_else(missing)
    }
}

/// What is known about the delivery in hand.
#[derive(Clone, Debug)]
pub struct Meta {
    /// The message's id, unique per source.
    pub id: MessageId,
    /// Who produced it.
    pub source: Text,
    /// Shared by all that follows from one first message.
    pub correlation_id: Text,
    /// The message that caused it.
    pub causation_id: Option<MessageId>,
    /// When it was produced, by its producer's clock.
    pub time: Timestamp,
    /// Which try this is, from 1. Conflicts and unavailable dependencies spend none.
    pub attempt: u32,
    /// How often an operator sent it back.
    pub redrives: u32,
    /// What external calls are idempotent by.
    pub operation_id: Text,
    consumer: Text,
}

impl Meta {
    /// The same for every attempt, edit and redrive of this operation at this consumer, and for
    /// nothing else: what to send as idempotency key of an external call.
    pub fn idempotency_key(&self, purpose: &str) -> Uuid {
        let name = format!("{}\0{}\0{purpose}", self.operation_id, self.consumer);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }
}

impl Extract for Meta {
    async fn extract(context: &Context) -> Result<Self, Failure> {
        let message = &context.message;
        Ok(Meta {
            id: message.id.clone(),
            source: message.source.clone(),
            correlation_id: message.correlation_id.clone(),
            causation_id: message.causation_id.clone(),
            time: message.time,
            attempt: context.attempt,
            redrives: context.redrives,
            operation_id: message.operation(),
            consumer: context.shared.consumer.clone(),
        })
    }
}

/// The document that the message's key names; `None` where there is none yet.
///
/// It must be unchanged when the effects are committed.
#[derive(Clone, Debug)]
pub struct Load<D>(pub Option<D>);

impl<D: Document> Extract for Load<D> {
    fn needs(needs: &mut Needs) {
        needs.database = true;
    }

    async fn extract(context: &Context) -> Result<Self, Failure> {
        let key = context.message.key.as_ref();
        let key =
            key.ok_or_else(|| Failure::permanent("a message without key names no document"))?;
        Documents::of(context)?.load(key.label()).await
    }
}

/// Reads any documents of the service; what was read must be unchanged when the effects are
/// committed.
#[derive(Clone)]
pub struct Documents {
    shared: Arc<Shared>,
    database: Arc<dyn Database>,
    beside: Arc<Beside>,
}

impl Documents {
    fn of(context: &Context) -> Result<Self, Failure> {
        let database = context.database()?.clone();
        Ok(Documents { shared: context.shared.clone(), database, beside: context.beside().clone() })
    }

    /// The document of that id, which must be unchanged at the commit.
    pub async fn load<D: Document>(&self, id: impl Display) -> Result<Load<D>, Failure> {
        let (collection, id, stored) = self.stored::<D>(&id.to_string()).await?;
        let expected = stored.as_ref().map(|stored| stored.version);
        self.beside.require(Condition::Document { collection, id, expected });
        stored.as_ref().map(body).transpose().map(Load)
    }

    /// The document of that id; it may change before the commit.
    pub async fn peek<D: Document>(&self, id: impl Display) -> Result<Option<D>, Failure> {
        let (_, _, stored) = self.stored::<D>(&id.to_string()).await?;
        stored.as_ref().map(body).transpose()
    }

    async fn stored<D: Document>(&self, id: &str) -> Result<(Text, Text, Option<Stored>), Failure> {
        let collection = names::collection(&self.shared.service, D::COLLECTION);
        let stored = self.database.get(&collection, &[id]).await?.pop().flatten();
        Ok((collection, id.into(), stored))
    }
}

fn body<D: DeserializeOwned>(stored: &Stored) -> Result<D, Failure> {
    serde_json::from_slice(&stored.body)
        .map_err(|error| Failure::permanent(format!("document `{}`: {error}", stored.id)))
}

impl Extract for Documents {
    fn needs(needs: &mut Needs) {
        needs.database = true;
    }

    async fn extract(context: &Context) -> Result<Self, Failure> {
        Documents::of(context)
    }
}

/// An async function of a message and up to six extractors.
///
/// What its parts must be is asked in `Consumer::on`, part by part, so that the compiler names
/// the part that is wrong.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "expected an async function of a message and up to six extractors",
    note = "`async fn(order: OrderCreated, State(gateway): State<Gateway>) -> Result<Effects, Failure>`"
)]
pub trait Handler<Args>: Clone + Send + Sync + 'static {
    /// Its first argument.
    type Message;
    /// Its other arguments.
    type Rest;
    /// What it returns.
    type Output;
    /// The future of it.
    type Future: Future<Output = Self::Output>;
    /// Calls it.
    fn invoke(&self, message: Self::Message, rest: Self::Rest) -> Self::Future;
}

macro_rules! handler {
    ($($extractor:ident),*) => {
        impl<F, Fut, M, $($extractor),*> Handler<(M, $($extractor,)*)> for F
        where
            F: Fn(M, $($extractor),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future,
        {
            type Message = M;
            type Rest = ($($extractor,)*);
            type Output = Fut::Output;
            type Future = Fut;
            #[allow(non_snake_case)]
            fn invoke(&self, message: M, ($($extractor,)*): ($($extractor,)*)) -> Fut {
                self(message, $($extractor),*)
            }
        }

        /// Extractors together are an extractor.
        impl<$($extractor: Extract),*> Extract for ($($extractor,)*) {
            fn needs(_needs: &mut Needs) {
                $($extractor::needs(_needs);)*
            }
            #[allow(unused_variables, clippy::unused_unit)]
            async fn extract(context: &Context) -> Result<Self, Failure> {
                Ok(($($extractor::extract(context).await?,)*))
            }
        }
    };
}
handler!();
handler!(A);
handler!(A, B);
handler!(A, B, C);
handler!(A, B, C, D);
handler!(A, B, C, D, E);
handler!(A, B, C, D, E, G);

/// Runs a handler on a delivery, as the runtime does: decode, extract, call.
#[doc(hidden)]
pub async fn run<H, Args>(handler: &H, context: &Context) -> Result<Effects, Failure>
where
    H: Handler<Args, Message: Input, Rest: Extract, Output: Outcome, Future: Send>,
{
    let message = H::Message::read(&context.message).map_err(Failure::decode)?;
    let rest = H::Rest::extract(context).await?;
    handler.invoke(message, rest).await.outcome()
}

/// What became of one call of a handler.
pub(crate) struct Handled {
    pub(crate) result: Result<Effects, Failure>,
    /// Most have none, and a message passes through many hands: it is one word in each.
    also: Option<Box<Also>>,
}

/// What the commit of a handling takes beside its effects; of a failed one only what it read.
#[derive(Default)]
pub(crate) struct Also {
    pub(crate) commit: Commit,
    /// What it is committed in; else together with others.
    pub(crate) transaction: Option<Box<dyn Transaction>>,
}

impl Handled {
    /// What a handler returned that reads and writes nothing but by its effects.
    pub(crate) fn plain(result: Result<Effects, Failure>) -> Self {
        Handled { result, also: None }
    }

    /// What a handler returned, and what is committed beside it.
    pub(crate) fn with(result: Result<Effects, Failure>, also: Also) -> Self {
        let Commit { conditions, writes } = &also.commit;
        let none = conditions.is_empty() && writes.is_empty() && also.transaction.is_none();
        Handled { result, also: (!none).then(|| Box::new(also)) }
    }

    /// Handled, and nothing is to be committed.
    pub(crate) fn is_nothing(&self) -> bool {
        self.also.is_none() && self.result.as_ref().is_ok_and(Effects::is_empty)
    }

    /// What the handler returned, and what is committed beside it.
    pub(crate) fn into_parts(self) -> (Result<Effects, Failure>, Also) {
        (self.result, self.also.map(|also| *also).unwrap_or_default())
    }
}

/// A handler whose types are forgotten. Its future is made in a slot, whose memory is used again.
pub(crate) trait AnyHandler: Send + Sync {
    fn start(&self, context: Context, slot: &mut ReusableBoxFuture<'static, Handled>);
}

pub(crate) struct Erased<H, Args>(H, PhantomData<fn(Args)>);

impl<H, Args> Erased<H, Args> {
    pub(crate) fn new(handler: H) -> Self {
        Erased(handler, PhantomData)
    }
}

impl<H, Args: 'static> AnyHandler for Erased<H, Args>
where
    H: Handler<Args, Message: Input, Rest: Extract, Output: Outcome, Future: Send>,
{
    fn start(&self, mut context: Context, slot: &mut ReusableBoxFuture<'static, Handled>) {
        let handler = self.0.clone();
        slot.set(async move {
            if context.message.operation_id.is_some() {
                match operation::is_undone(&context).await {
                    Ok(false) => {}
                    Ok(true) => return Handled::plain(Ok(Effects::none())),
                    Err(failure) => return Handled::plain(Err(failure)),
                }
            }
            let call = AssertUnwindSafe(run(&handler, &context)).catch_unwind();
            let result = call.await.unwrap_or_else(|panic| Err(panicked(&*panic)));
            context.end(result)
        });
    }
}
