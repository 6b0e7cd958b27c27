//! Event-driven systems that never lose, skip or double a fact.
#![doc = include_str!("../docs/tour.md")]

mod app;
mod archive;
mod clock;
mod connect;
mod consumer;
mod decider;
mod handler;
mod log_broker;
mod names;
mod observe;
#[cfg(feature = "postgres")]
mod outbox;
mod panics;
mod prefix;
mod process;
mod projection;
mod replay;
mod retention;
mod runtime;
mod service;
mod tx;

pub mod admin;
pub mod saga;

pub use app::{App, Health, Running, StartError, shutdown_signal};
pub use archive::{Archive, Archived};
pub use clock::SystemClock;
pub use connect::{connect, connect_broker};
pub use consumer::Consumer;
pub use decider::{
    Aggregate, Aggregates, Decider, ExecuteError, Executed, Refused, Snapshots, Together,
};
pub use handler::{
    Context, Documents, Extract, Handler, Input, Load, Meta, Needs, Raw, State, States,
};
pub use log_broker::{LogBroker, SLOTS};
pub use process::{Memory, Process, Route};
pub use projection::{Digest, Get, Hash, Projection, ReadError, SqlProjection, View};
pub use replay::{Change, Example, Replay, Replayed};
pub use retention::{LogReader, SHORTEST as SHORTEST_RETENTION};
pub use runtime::{
    breaker::Breaker, parking::ParkedKey, rate::Rate, retry::Retry, watermark::Tally,
};
pub use saga::{Saga, no_undo};
pub use service::{Service, ServiceHandle};
pub use sillage_core::*;
pub use sillage_macros::{Command, Document, Event, Events};
pub use tx::Tx;

/// The embedded database: what a service writes in SQL of its own.
#[cfg(feature = "sqlite")]
pub mod sqlite {
    pub use sillage_sqlite::{Sqlite, rusqlite, sql};
}

/// PostgreSQL: what a service writes in SQL of its own.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use crate::outbox::Outbox;
    pub use sillage_postgres::{PgTransaction as Pg, Postgres, sql, sqlx};
}

/// What most files that use Sillage need.
pub mod prelude {
    pub use crate::{
        Aggregate, Aggregates, Answered, App, Breaker, Command, Consumer, Decider, Document,
        Documents, Effects, Event, Events, Failure, Key, Load, Meta, OrFail, Position, Process,
        Projection, Rate, Raw, Recorded, Retry, Running, Saga, Service, ServiceHandle, Snapshots,
        SqlProjection, State, Timestamp, Tx, View, after, append, at, cancel, delete, end, hours,
        mins, ms, no_undo, publish, put, put_blind, schedule, secs, send,
    };
}

use std::time::Duration;

/// That many milliseconds.
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// That many seconds.
pub const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// That many minutes.
pub const fn mins(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// That many hours.
pub const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// What the test kit and the benchmarks need of the inside; no promise is made for it.
#[doc(hidden)]
pub mod __private {
    pub use crate::handler::run;
    pub use sillage_core::__private::*;

    /// A context as the runtime makes it, for calling a handler in a test.
    pub fn context(
        message: std::sync::Arc<crate::Message>,
        attempt: u32,
        states: crate::States,
        database: Option<std::sync::Arc<dyn crate::Database>>,
    ) -> crate::Context {
        let clock = std::sync::Arc::new(crate::SystemClock);
        let shared = crate::handler::Shared::of("test", "test", states.into(), database, clock);
        crate::Context::new(message, attempt, shared)
    }
}

/// Keeps the README's program compiling.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
