//! The binary, as an operator meets it: on a small database that an app has filled.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers fail tests by panicking

mod config;
mod dlq;
mod exits;
mod fixture;
mod journal;
mod json;
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
mod lost;
#[cfg(any(feature = "kafka", feature = "rabbitmq"))]
mod outside;
mod publish;
mod saga;
mod streams;
mod tail;
mod trace;
