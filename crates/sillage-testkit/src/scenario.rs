//! Scenarios: a handler, a decider or a projection by itself, without an app, a broker or mocks.
//!
//! *Guarantees.* Nothing here depends on the time of day or on chance; what a handler returns is
//! not committed. A scenario that does not come out as expected panics at the line that says it.

// A test's way to fail is to panic, and these are tests' parts that live in a library.
#![allow(clippy::panic)]

use crate::{ManualClock, Memory, clock::START_MICROS};
use sillage::{
    __private::{context, run},
    Commit, Contract, Database, Decider, Document, Draft, Effects, Event, Events as _, Extract,
    Failure, Handler, Input, Key, Message, MessageId, Outcome, Position, Projection, Recorded,
    States, Text, Timestamp, Write,
};
use std::{collections::HashMap, fmt::Debug, sync::Arc, time::Duration};

/// Delivers an event or a command to a handler, as a consumer would.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Clone)] #[event(name = "order.created")]
/// # struct OrderCreated { #[event(key)] order_id: String, total: i64 }
/// # #[derive(Event, Serialize, Deserialize)] #[event(name = "payment.completed")]
/// # struct PaymentCompleted { #[event(key)] order_id: String }
/// # #[derive(Event, Serialize, Deserialize)] #[event(name = "payment.failed")]
/// # struct PaymentFailed { #[event(key)] order_id: String }
/// use sillage::prelude::*;
/// use sillage_testkit::deliver;
///
/// #[derive(Clone)]
/// struct Gateway { limit: i64 }
///
/// async fn take_payment(order: OrderCreated, State(gateway): State<Gateway>) -> Effects {
///     let OrderCreated { order_id, total } = order;
///     if total > gateway.limit {
///         return publish(PaymentFailed { order_id });
///     }
///     publish(PaymentCompleted { order_id })
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let order = OrderCreated { order_id: "o-1".into(), total: 50 };
/// let effects = deliver(order).state(Gateway { limit: 20 }).to(take_payment).await.unwrap();
/// assert_eq!(effects, publish(PaymentFailed { order_id: "o-1".into() }));
/// # });
/// ```
///
/// # Panics
/// Where the message cannot be written as JSON.
#[track_caller]
#[allow(clippy::needless_pass_by_value)] // a message is made of it
pub fn deliver<C: Contract>(message: C) -> Deliver {
    let message = written("delivered", Draft::of(&message));
    let database = Arc::new(Memory::new(Arc::new(ManualClock::default())));
    Deliver { message, attempt: 1, states: States::default(), database, before: vec![] }
}

/// A delivery on its way to a handler; see [`deliver`]. Service and consumer are called `test`.
#[must_use = "nothing is handled until `.to(handler)` is awaited"]
pub struct Deliver {
    message: Message,
    attempt: u32,
    states: States,
    database: Arc<dyn Database>,
    before: Vec<Write>,
}

impl Deliver {
    /// What the service was given with `.state(…)`; one a type.
    pub fn state<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    /// Which try this is; 1 unless said.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// The correlation id; `test` unless said.
    pub fn correlation(mut self, id: impl Into<Text>) -> Self {
        self.message.correlation_id = id.into();
        self
    }

    /// The database that the handler reads; an empty one in memory unless said.
    pub fn database(mut self, database: Arc<dyn Database>) -> Self {
        self.database = database;
        self
    }

    /// Puts a document of the service into the database first, for `Load` and `Documents`.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)] #[event(name = "payment.completed")]
    /// # struct PaymentCompleted { #[event(key)] order_id: String }
    /// # #[derive(Event, Serialize, Deserialize)] #[event(name = "order.shipped")]
    /// # struct Shipped { #[event(key)] order_id: String }
    /// use sillage::prelude::*;
    /// use sillage_testkit::deliver;
    ///
    /// #[derive(Document, Serialize, Deserialize)]
    /// #[document(collection = "packed")]
    /// struct Packed { #[document(id)] order_id: String }
    ///
    /// async fn ship(paid: PaymentCompleted, Load(packed): Load<Packed>) -> Option<Effects> {
    ///     packed.map(|packed| publish(Shipped { order_id: packed.order_id }))
    /// }
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let paid = || deliver(PaymentCompleted { order_id: "o-1".into() });
    /// assert!(paid().to(ship).await.unwrap().is_empty());
    ///
    /// let packed = Packed { order_id: "o-1".into() };
    /// let effects = paid().document(&packed).to(ship).await.unwrap();
    /// assert_eq!(effects, publish(Shipped { order_id: "o-1".into() }));
    /// # });
    /// ```
    ///
    /// # Panics
    /// Where the document cannot be written as JSON.
    #[track_caller]
    pub fn document<D: Document>(mut self, document: &D) -> Self {
        let (collection, id) = (format!("test/{}", D::COLLECTION).into(), document.id().into());
        let sort = document.sort().map(|sort| sillage::Sort::Text(sort.into()));
        match serde_json::to_vec(document) {
            Ok(body) => self.before.push(Write::Put { collection, id, sort, body: body.into() }),
            Err(error) => panic!("document `{id}` cannot be written as JSON: {error}"),
        }
        self
    }

    /// Appends these events first, for `Aggregate`: to the stream of the aggregate that the
    /// message's key names.
    ///
    /// # Panics
    /// Where an event cannot be written as JSON.
    #[track_caller]
    pub fn history<D: Decider>(mut self, events: impl IntoIterator<Item = D::Event>) -> Self {
        let key = self.message.key.as_ref().map(Key::label).unwrap_or_default();
        let stream: Text = format!("test/{}-{key}", D::STREAM).into();
        for event in events {
            let message = written(&format!("before-{}", self.before.len()), event.draft());
            let (stream, message) = (Some(stream.clone()), Arc::new(message));
            self.before.push(Write::Append { stream, message });
        }
        self
    }

    /// Calls the handler: its effects, which are not committed, or why it failed.
    ///
    /// # Errors
    /// The handler's failure; what a consumer reports where a `State` is missing, a document
    /// cannot be read or the database does not answer.
    pub async fn to<H, Args>(self, handler: H) -> Result<Effects, Failure>
    where
        H: Handler<Args, Message: Input, Rest: Extract, Output: Outcome, Future: Send>,
    {
        if !self.before.is_empty() {
            let before = Commit { conditions: vec![], writes: self.before };
            for answer in self.database.commit(vec![before]).await {
                answer?;
            }
        }
        let message = Arc::new(self.message);
        run(&handler, &context(message, self.attempt, self.states, Some(self.database))).await
    }
}

/// What happened to an aggregate before; then `.when(command)`, then what follows from it.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
/// # #[event(name = "order.created")]
/// # struct OrderCreated { #[event(key)] order_id: String }
/// # #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
/// # #[event(name = "order.shipped")]
/// # struct OrderShipped { #[event(key)] order_id: String }
/// # #[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
/// # #[event(name = "order.cancelled")]
/// # struct OrderCancelled { #[event(key)] order_id: String }
/// # #[derive(Events, Clone, Debug, PartialEq)]
/// # enum OrderEvent {
/// #     Created(OrderCreated),
/// #     Shipped(OrderShipped),
/// #     Cancelled(OrderCancelled),
/// # }
/// # #[derive(Clone)]
/// # enum Order { None, Open, Shipped, Cancelled }
/// # #[derive(Clone)]
/// # struct Cancel;
/// # #[derive(Debug, PartialEq)]
/// # enum Refusal { Unknown, Shipped }
/// # impl Decider for Order {
/// #     const STREAM: &'static str = "order";
/// #     type Command = Cancel;
/// #     type Event = OrderEvent;
/// #     type Refusal = Refusal;
/// #     fn initial() -> Self { Order::None }
/// #     fn decide(&self, _: Cancel) -> Result<Vec<OrderEvent>, Refusal> {
/// #         match self {
/// #             Order::None => Err(Refusal::Unknown),
/// #             Order::Open => Ok(vec![cancelled()]),
/// #             Order::Shipped => Err(Refusal::Shipped),
/// #             Order::Cancelled => Ok(vec![]),
/// #         }
/// #     }
/// #     fn evolve(self, event: &OrderEvent) -> Self {
/// #         match event {
/// #             OrderEvent::Created(_) => Order::Open,
/// #             OrderEvent::Shipped(_) => Order::Shipped,
/// #             OrderEvent::Cancelled(_) => Order::Cancelled,
/// #         }
/// #     }
/// # }
/// # fn created() -> OrderEvent { OrderCreated { order_id: "o-1".into() }.into() }
/// # fn shipped() -> OrderEvent { OrderShipped { order_id: "o-1".into() }.into() }
/// # fn cancelled() -> OrderEvent { OrderCancelled { order_id: "o-1".into() }.into() }
/// use sillage::prelude::*;
/// use sillage_testkit::given;
///
/// given::<Order>([]).when(Cancel).refused(Refusal::Unknown);
/// given::<Order>([created()]).when(Cancel).then([cancelled()]);
/// given::<Order>([created(), cancelled()]).when(Cancel).nothing();
/// given::<Order>([created(), shipped()]).when(Cancel).refused(Refusal::Shipped);
/// ```
pub fn given<D: Decider>(events: impl IntoIterator<Item = D::Event>) -> Given<D> {
    Given(events.into_iter().fold(D::initial(), |state, event| state.evolve(&event)))
}

/// An aggregate with a history; see [`given`].
#[must_use = "nothing is decided until `.when(command)`"]
pub struct Given<D>(D);

impl<D: Decider> Given<D> {
    /// Decides.
    pub fn when(self, command: D::Command) -> When<D> {
        When(self.0.decide(command))
    }
}

/// What was decided; see [`given`].
#[must_use = "nothing is checked until `.then(events)`, `.refused(why)` or `.nothing()`"]
pub struct When<D: Decider>(Result<Vec<D::Event>, D::Refusal>);

impl<D: Decider<Event: Debug>> When<D> {
    /// Exactly these events follow, in this order.
    ///
    /// # Panics
    /// Where anything else was decided.
    #[track_caller]
    pub fn then(self, events: impl IntoIterator<Item = D::Event>)
    where
        D::Event: PartialEq,
    {
        let expected: Vec<_> = events.into_iter().collect();
        let same = self.0.as_ref().is_ok_and(|decided| *decided == expected);
        self.check(same, &Ok(expected));
    }

    /// The command is refused, for this reason.
    ///
    /// # Panics
    /// Where it was accepted, or refused for another reason.
    #[track_caller]
    pub fn refused(self, why: D::Refusal)
    where
        D::Refusal: PartialEq,
    {
        let same = self.0.as_ref().is_err_and(|refusal| *refusal == why);
        self.check(same, &Err(why));
    }

    /// The command is accepted, and no event follows: it was done before.
    ///
    /// # Panics
    /// Where it was refused, or an event follows.
    #[track_caller]
    pub fn nothing(self) {
        let same = self.0.as_ref().is_ok_and(Vec::is_empty);
        self.check(same, &Ok(vec![]));
    }

    #[track_caller]
    fn check(&self, same: bool, expected: &Result<Vec<D::Event>, D::Refusal>) {
        let (expected, decided) = (told(expected), told(&self.0));
        assert!(same, "it was decided otherwise\n expected: {expected}\n  decided: {decided}");
    }
}

/// A decision, an event a line.
fn told<E: Debug, R: Debug>(decision: &Result<Vec<E>, R>) -> String {
    match decision {
        Ok(events) if events.is_empty() => "nothing".to_owned(),
        Ok(events) => {
            let lines: Vec<_> = events.iter().map(|event| format!("{event:?}")).collect();
            lines.join("\n           ")
        }
        Err(refusal) => format!("refused: {refusal:?}"),
    }
}

/// Folds entries of the log through a projection: its documents by id.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)] #[event(name = "order.created")]
/// # struct OrderCreated { #[event(key)] order_id: String, total: i64 }
/// # #[derive(Event, Serialize, Deserialize)] #[event(name = "payment.completed")]
/// # struct PaymentCompleted { #[event(key)] order_id: String }
/// use sillage::prelude::*;
/// use sillage_testkit::{fold, recorded};
///
/// #[derive(Document, Serialize, Deserialize, Default, Debug, PartialEq)]
/// #[document(collection = "orders")]
/// struct OrderView { #[document(id)] order_id: String, total: i64, paid: bool }
///
/// let orders = Projection::<OrderView>::new("orders", 1)
///     .on::<OrderCreated>(|view, order| {
///         view.order_id.clone_from(&order.order_id);
///         view.total = order.total;
///     })
///     .on::<PaymentCompleted>(|view, _| view.paid = true);
///
/// let order_id = || "o-1".to_owned();
/// let views = fold(&orders, [
///     recorded(1, &OrderCreated { order_id: order_id(), total: 50 }),
///     recorded(2, &PaymentCompleted { order_id: order_id() }),
/// ]);
/// assert_eq!(views["o-1"], OrderView { order_id: order_id(), total: 50, paid: true });
/// ```
///
/// # Panics
/// Where an entry cannot be read as the event that its name says.
#[track_caller]
pub fn fold<D: Document + Default>(
    projection: &Projection<D>,
    entries: impl IntoIterator<Item = Recorded>,
) -> HashMap<String, D> {
    let entries: Vec<_> = entries.into_iter().collect();
    match projection.fold_all(&entries) {
        Ok(documents) => documents,
        Err(error) => panic!("{error}"),
    }
}

/// An event as an entry of the log at this position, that many seconds after
/// 2026-01-01T00:00:00Z; it belongs to no stream.
///
/// # Panics
/// Where the event cannot be written as JSON.
#[track_caller]
pub fn recorded<E: Event>(position: u64, event: &E) -> Recorded {
    let mut message = written(&position.to_string(), Draft::of(event));
    message.time = message.time + Duration::from_secs(position);
    Recorded::new(Position(position), None, Arc::new(message))
}

/// The draft as a message that the source `test` has produced.
#[track_caller]
fn written(id: &str, draft: Draft) -> Message {
    let payload = match draft.payload {
        Ok(payload) => payload,
        Err(error) => panic!("`{}` cannot be written as JSON: {error}", draft.name),
    };
    Message {
        id: MessageId::new(id),
        source: "test".into(),
        name: draft.name,
        version: draft.version,
        topic: draft.topic,
        key: draft.key,
        time: Timestamp::from_micros(START_MICROS),
        correlation_id: "test".into(),
        causation_id: None,
        operation_id: None,
        traceparent: None,
        headers: vec![],
        payload,
    }
}

#[cfg(test)]
mod tests;
