//! What is promised, against a real server; each test in a schema of its own.

// Helpers of tests may panic and say what they found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod absent;
mod conformance;
mod far;
mod poison;
mod reading;
mod silent;
mod sql;
mod stable;
mod start;
mod support;
mod transaction;
