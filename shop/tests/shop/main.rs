//! The shop as a whole: every path of an order, the HTTP API, mail by SMTP, stored samples.

mod flows;
mod world;
