//! The shop: an order system of seven services on Sillage.

pub mod analytics;
pub mod audit;
pub mod catalog;
pub mod commands;
pub mod customer;
pub mod email;
pub mod events;
pub mod gateway;
pub mod http;
pub mod ids;
pub mod inventory;
pub mod money;
pub mod order;
pub mod parts;
pub mod payment;
pub mod sample;
pub mod shipping;

#[cfg(test)]
mod interleavings;
