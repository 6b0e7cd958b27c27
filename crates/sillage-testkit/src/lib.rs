//! What tests of Sillage systems need: scenarios of single parts, clocks, an in-memory database
//! that breaks on request, and the suites that every backend passes.
//!
//! - [`deliver`]`(event).to(handler)`: the effects that a handler returns.
//! - [`given`]`(events).when(command).then(events)`: what an aggregate decides.
//! - [`fold`]`(&projection, [`[`recorded`]`(1, &event)])`: the documents of a projection.
//!
//! A whole app runs on [`Memory`], and its faults are asked for:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use sillage_core::{Commit, Database, Write};
//! use sillage_testkit::{ManualClock, Memory};
//! use std::sync::Arc;
//!
//! let memory = Memory::new(Arc::new(ManualClock::default()));
//! let put = Write::Put {
//!     collection: "shop/orders".into(),
//!     id: "o-1".into(),
//!     sort: None,
//!     body: "{}".into(),
//! };
//! memory.fail_next(1);
//! let commit = Commit { conditions: vec![], writes: vec![put] };
//! let answers = memory.commit(vec![commit.clone(), commit]).await;
//! assert!(answers[0].is_err() && answers[1].is_ok());
//! # });
//! ```
//!
//! *Guarantees.* Apart from the suites, nothing here reads the machine's time of day or waits for
//! real time.

mod apart;
mod broker;
mod clock;
pub mod conformance;
mod held;
mod memory;
mod scenario;
pub mod servers;
mod unruly;

pub use apart::Apart;
pub use broker::MemoryBroker;
pub use clock::{ManualClock, TokioClock};
pub use held::Held;
pub use memory::Memory;
pub use scenario::{Deliver, Given, When, deliver, fold, given, recorded};
/// The machine's clock, for the fixtures of suites that run on real time.
pub use sillage::SystemClock;
pub use unruly::{Disorder, Unruly};
