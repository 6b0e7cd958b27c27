//! The shop: an order system of seven services on Sillage. In choreography, the default, nobody is in
//! charge and each service reacts to what the others publish; in orchestration a saga, the
//! [`checkout`], asks one after the other. The totals are the same.
//!
//! ```text
//!  order.created ──▶ payment ──▶ payment.completed ──▶ order ──▶ order.paid ─────┐
//!       │               │               │                                        ▼
//!       └───────────────│───────────────┴────────────▶ inventory ─▶ stock.reserved ─▶ shipping
//!                       │                                  │                             │
//!                       ▼                                  ▼                      shipping.shipped
//!                payment.failed ──▶ order.cancelled   stock.short                        │
//!                                          ▲               ▼                             ▼
//!                                          └── payment.refunded ◀── payment      order.completed
//! ```
//!
//! A gateway that is down, a service that was killed, a card that is declined: everything resumes,
//! or is undone, by itself. Each service says in its own module how; the [`order`] alone decides
//! how an order ends, and [`email`] writes one mail for it.
//!
//! # Late, twice, in any order
//!
//! Facts of one order and topic come in order; across topics there is none, and a payment may come
//! after the order was given up as unpaid. These rules make the shop add up in every interleaving,
//! which a test searches through to the end (`interleavings`):
//!
//! - An order that is given up is given up for good: [`order`] answers every later fact with
//!   nothing. Dunning asks for that when the time to pay is over, and the order alone decides.
//! - `order.paid` is the order's own word that the payment came in time. A parcel waits for it, as
//!   well as for its items; `payment.completed` would not do.
//! - After `order.paid` only a shortage gives the order up, and what is short was never set aside,
//!   so a parcel that leaves is never cancelled.
//! - [`payment`] hears `order.created` and `order.cancelled` on one topic: when it hears that an
//!   order was given up, its charge was answered before, and whatever was taken goes back.
//! - [`inventory`] closes what it hears is cancelled: what was set aside goes back on the shelf, and
//!   nothing is set aside any more.
//!
//! So, always: charged − refunded = completed orders; on hand + reserved + shipped is constant;
//! every order ends completed or cancelled, once; one mail for each end. The [`audit`] checks it.

pub mod analytics;
pub mod audit;
pub mod catalog;
pub mod checkout;
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
