//! What is promised, against a real cluster.
// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admin;
mod conformance;
mod consume;
mod figures;
mod foreign;
mod forgotten;
mod group;
mod hung;
mod leaderless;
mod proxy;
mod publish;
#[cfg(feature = "ssl")]
mod secure;
mod support;
