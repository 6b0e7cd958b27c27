//! The broker on a real RabbitMQ: `SILLAGE_TEST_RABBITMQ` says where one is.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

mod broadcasts;
mod faults;
mod foreign;
mod hand_over;
mod proxy;
mod publishing;
mod settling;
mod support;
mod tls;
