//! What the author of a Sillage backend reads: messages, contracts, effects and the two ports.
//!
//! There is no driver, no HTTP and no runtime here. A [`Database`] keeps one log of facts and the
//! documents of current state; a [`Broker`] carries messages between services. Everything that
//! crosses either port is a plain value.
//!
//! *Guarantees.* Types here do no I/O and never read a clock, but for [`Clock`] implementations.

mod binary;
mod broker;
mod check;
mod clock;
mod database;
mod effects;
mod error;
mod event;
mod failure;
mod growth;
mod message;
mod murmur;
mod statement;
mod waiters;
mod wire;

pub use binary::{Binding, Field, Found, HeaderLayout, HeaderReader};
pub use broker::{
    Broker, Capabilities, Deliver, Deliveries, Delivery, Inbound, Offset, Partition,
    PartitionStatus, Progress, PublishError, Reached, Receipt, Receiver, Settled, Settler, Start,
    Subscribed, Subscription, TopicSpec, TopicStatus, TopologyDiff,
};
pub use check::Limits;
pub use clock::{Clock, Timestamp};
pub use database::{
    Commit, CommitError, Committed, Condition, Database, Decision, Delivered, Epoch, Expected,
    Filter, Head, Page, Range, Sort, Stored, Transaction, Write,
};
pub use effects::{
    Document, Draft, Due, Effect, Effects, Outcome, after, append, at, cancel, delete, end,
    publish, put, put_blind, schedule, send,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{Answered, Command, Contract, DecodeError, Event, Events, Never};
pub use failure::{Class, Failure, OrFail, Source};
pub use message::{Header, Headers, Key, Message, MessageId, Position, Recorded, Text, Version};
pub use murmur::{partition_of, slot_of};
pub use statement::Statement;
pub use waiters::{Wait, Waiters};
pub use wire::{from_json, to_json};

/// A boxed future: what the ports return, so that they can be trait objects.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[doc(hidden)]
pub mod __private {
    pub use serde_json;
}
