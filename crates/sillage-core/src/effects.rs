//! What should happen, as a value: a handler returns effects, the runtime commits them.
//!
//! *Guarantees.* Nothing has happened until effects are committed; all of them happen in one
//! atomic commit, in their order, or none does.

use crate::{
    Command, Contract, Event, Events, Expected, Failure, Headers, Key, Message, Statement, Text,
    Timestamp,
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, sync::Arc, time::Duration};

/// Bytes, or why they could not be written; kept, so that building effects never fails.
type Encoded = Result<Bytes, String>;

fn encode(value: &impl Serialize) -> Encoded {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| error.to_string())
}

/// A message that has no id, source or causation yet: the commit gives them.
#[derive(Clone, PartialEq)]
pub struct Draft {
    /// What it is.
    pub name: Text,
    /// The version of its payload.
    pub version: u32,
    /// Where it goes; `None` stays in the log.
    pub topic: Option<Text>,
    /// What orders it.
    pub key: Option<Key>,
    /// What external calls are idempotent by; the message's own identity where `None`.
    pub operation_id: Option<Text>,
    /// Headers beside its attributes.
    pub headers: Headers,
    /// Its body, or why the value could not be written as JSON.
    pub payload: Result<Bytes, String>,
}

impl Draft {
    /// The draft of a typed message.
    pub fn of<C: Contract>(body: &C) -> Draft {
        Draft {
            name: C::NAME.into(),
            version: C::VERSION,
            topic: C::TOPIC.map(Text::from),
            key: body.key(),
            operation_id: None,
            headers: vec![],
            payload: encode(body),
        }
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = self.payload.as_ref().map(|bytes| String::from_utf8_lossy(bytes));
        write!(f, "{} v{} {:?} ", self.name, self.version, self.key)?;
        match payload {
            Ok(text) => f.write_str(&text),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

/// When a timer is due, on the database's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At this time.
    At(Timestamp),
    /// This long after the commit.
    After(Duration),
}

/// One thing that should happen.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// An event, to whoever listens.
    Publish(Draft),
    /// A command, to its owner.
    Send(Draft),
    /// Events to a stream; those with a topic are published as well.
    Append {
        /// The stream, within the service.
        stream: String,
        /// The version the stream must have.
        expected: Expected,
        /// The events, in order.
        events: Vec<Draft>,
    },
    /// A timer: the message is published when it is due. Replaces one of the same token.
    Schedule {
        /// When.
        due: Due,
        /// Names the timer under the key of its message.
        token: String,
        /// What is published.
        message: Draft,
    },
    /// Takes back the timer of that token.
    Cancel {
        /// The timer's name.
        token: String,
        /// The key it was set under; `None`: the key of the message in hand.
        key: Option<Key>,
    },
    /// Current state under an id.
    Put {
        /// The collection, within the service.
        collection: &'static str,
        /// The document's id.
        id: String,
        /// The ordered, indexed value.
        sort: Option<String>,
        /// The document, or why it could not be written as JSON.
        body: Result<Bytes, String>,
        /// Overwrites whatever is there; else it must be as it was loaded, or absent.
        blind: bool,
    },
    /// A message of another service, kept in the own log with the id and source it has.
    Record(Arc<Message>),
    /// Removes a document.
    Delete {
        /// The collection, within the service.
        collection: &'static str,
        /// The document's id.
        id: String,
    },
    /// SQL of the user's own, run inside the commit.
    Sql(Statement),
    /// The instance of the process manager is at its end: its memory and its timers go.
    End,
}

/// What should happen, as a value. Nothing has happened until it is committed.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "effects do nothing until they are returned from a handler or committed"]
pub struct Effects(Vec<Effect>);

impl Effects {
    /// Nothing should happen.
    pub const fn none() -> Self {
        Effects(Vec::new())
    }

    /// This one thing.
    pub fn one(effect: Effect) -> Self {
        Effects(vec![effect])
    }

    /// Both, in this order, in one commit.
    pub fn and(mut self, other: impl Into<Effects>) -> Self {
        self.0.extend(other.into().0);
        self
    }

    /// Whether nothing should happen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The effects in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Effect> {
        self.0.iter()
    }

    /// The events of this type that would be published, for tests.
    pub fn published<E: Event>(&self) -> Vec<E> {
        self.bodies(|effect| match effect {
            Effect::Publish(draft) => vec![draft],
            Effect::Append { events, .. } => events.iter().collect(),
            _ => vec![],
        })
    }

    /// The commands of this type that would be sent, for tests.
    pub fn sent<C: Command>(&self) -> Vec<C> {
        self.bodies(|effect| match effect {
            Effect::Send(draft) => vec![draft],
            _ => vec![],
        })
    }

    fn bodies<'a, C: Contract>(&'a self, drafts: impl Fn(&'a Effect) -> Vec<&'a Draft>) -> Vec<C> {
        let read = |draft: &Draft| C::read(draft.version, draft.payload.as_ref().ok()?).ok();
        self.0.iter().flat_map(drafts).filter(|d| &*d.name == C::NAME).filter_map(read).collect()
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::vec::IntoIter<Effect>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Effects {
    type Item = &'a Effect;
    type IntoIter = std::slice::Iter<'a, Effect>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl From<()> for Effects {
    fn from((): ()) -> Self {
        Effects::none()
    }
}

impl<T: Into<Effects>> From<Option<T>> for Effects {
    fn from(option: Option<T>) -> Self {
        option.map(Into::into).unwrap_or_default()
    }
}

impl<T: Into<Effects>> From<Vec<T>> for Effects {
    fn from(all: Vec<T>) -> Self {
        all.into_iter().collect()
    }
}

impl<T: Into<Effects>> FromIterator<T> for Effects {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        all.into_iter().fold(Effects::none(), Effects::and)
    }
}

macro_rules! tuple {
    ($($part:ident),+) => {
        impl<$($part: Into<Effects>),+> From<($($part,)+)> for Effects {
            #[allow(non_snake_case)]
            fn from(($($part,)+): ($($part,)+)) -> Self {
                Effects::none()$(.and($part))+
            }
        }
    };
}
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);

/// Publishes an event.
#[allow(clippy::needless_pass_by_value)] // an effect is made of it
pub fn publish<E: Event>(event: E) -> Effects {
    Effects::one(Effect::Publish(Draft::of(&event)))
}

/// Sends a command to its owner.
#[allow(clippy::needless_pass_by_value)] // an effect is made of it
pub fn send<C: Command>(command: C) -> Effects {
    Effects::one(Effect::Send(Draft::of(&command)))
}

/// Appends events to a stream of the service.
pub fn append<E: Events>(stream: impl Into<String>, expected: Expected, events: &[E]) -> Effects {
    let events = events.iter().map(Events::draft).collect();
    Effects::one(Effect::Append { stream: stream.into(), expected, events })
}

/// Publishes a message when it is due: `schedule(after(mins(15)), "deadline", PaymentDue { .. })`.
///
/// The timer is named by its token under the message's key; scheduling it again replaces it.
#[allow(clippy::needless_pass_by_value)] // an effect is made of it
pub fn schedule<C: Contract>(due: Due, token: impl Into<String>, message: C) -> Effects {
    Effects::one(Effect::Schedule { due, token: token.into(), message: Draft::of(&message) })
}

/// Takes back the timer of that token under the key of the message in hand.
pub fn cancel(token: impl Into<String>) -> Effects {
    Effects::one(Effect::Cancel { token: token.into(), key: None })
}

/// The instance of a process manager is at its end: its memory and its timers go, in the same
/// commit. A permanent failure anywhere else.
pub fn end() -> Effects {
    Effects::one(Effect::End)
}

/// This long after the commit.
pub fn after(delay: Duration) -> Due {
    Due::After(delay)
}

/// At this time.
pub fn at(time: Timestamp) -> Due {
    Due::At(time)
}

/// Current state under an id. Derive it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a document",
    note = "derive it: #[derive(Document)] with #[document(collection = \"orders\")] and #[document(id)] on a field"
)]
pub trait Document: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The collection, within the service.
    const COLLECTION: &'static str;
    /// The id within the collection.
    fn id(&self) -> String;
    /// One ordered, indexed value.
    fn sort(&self) -> Option<String> {
        None
    }
}

/// Puts a document. If the handler loaded it, it must be unchanged since; else it must be absent.
#[allow(clippy::needless_pass_by_value)] // an effect is made of it
pub fn put<D: Document>(document: D) -> Effects {
    put_as(&document, false)
}

/// Puts a document over whatever is there.
#[allow(clippy::needless_pass_by_value)] // an effect is made of it
pub fn put_blind<D: Document>(document: D) -> Effects {
    put_as(&document, true)
}

fn put_as<D: Document>(document: &D, blind: bool) -> Effects {
    Effects::one(Effect::Put {
        collection: D::COLLECTION,
        id: document.id(),
        sort: document.sort(),
        body: encode(document),
        blind,
    })
}

/// Removes a document; if the handler loaded it, it must be unchanged since.
pub fn delete<D: Document>(id: impl fmt::Display) -> Effects {
    Effects::one(Effect::Delete { collection: D::COLLECTION, id: id.to_string() })
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "return `Effects`, a tuple, Vec or Option of them, `()`, or a `Result` of one of these and `Failure` or any type that implements `std::error::Error`"
)]
pub trait Outcome {
    /// The effects, or why there are none.
    fn outcome(self) -> Result<Effects, Failure>;
}

#[diagnostic::do_not_recommend] // else the compiler names `From`, and not what a handler may return
impl<T: Into<Effects>> Outcome for T {
    fn outcome(self) -> Result<Effects, Failure> {
        Ok(self.into())
    }
}

impl<T: Into<Effects>, E: Into<Failure>> Outcome for Result<T, E> {
    fn outcome(self) -> Result<Effects, Failure> {
        self.map(Into::into).map_err(Into::into)
    }
}
