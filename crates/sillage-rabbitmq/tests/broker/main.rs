//! The broker on a real RabbitMQ: `SILLAGE_TEST_RABBITMQ` says where one is.

// Helpers of tests are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::panic)]

mod hand_over;
mod publishing;
mod support;
