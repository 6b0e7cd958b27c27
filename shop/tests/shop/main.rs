//! The shop as a whole: every path of an order, the HTTP API, mail by SMTP, stored samples.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail as tests do

mod binary;
mod flows;
mod gateway;
mod http;
mod openapi;
mod orchestration;
mod samples;
mod smtp;
mod world;
