//! What every [`Database`](sillage_core::Database) promises, one test each; run them all by
//! [`database_conformance!`](crate::database_conformance).

mod commits;
mod concurrency;
mod documents;
mod equivalence;
mod inbox;
mod leases;
mod limits;
mod log;
mod ranges;
mod readers;
mod trimming;

pub use commits::*;
pub use concurrency::*;
pub use documents::*;
pub use equivalence::*;
pub use inbox::*;
pub use leases::*;
pub use limits::*;
pub use log::*;
pub use ranges::*;
pub use readers::*;
pub use trimming::*;
