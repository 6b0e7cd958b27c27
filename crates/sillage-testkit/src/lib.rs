//! What tests of Sillage systems need: clocks, an in-memory database that breaks on request, and
//! the suites that every backend passes.
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
//! *Guarantees.* Nothing here reads the machine's time of day, and apart from the suites nothing
//! waits for real time.

mod clock;
pub mod conformance;
mod memory;

pub use clock::{ManualClock, TokioClock};
pub use memory::Memory;
