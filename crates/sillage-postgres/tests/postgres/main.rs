//! What is promised, against a real server; each test in a schema of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests may panic.

mod conformance;
mod poison;
mod stable;
mod start;
mod support;
