//! The customer service: its state and the event about it in one commit, the plain outbox.

use crate::{events::CustomerCreated, ids::CustomerId};
use serde::{Deserialize, Serialize};
use sillage::prelude::*;

/// A customer.
#[derive(Document, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[document(collection = "customers")]
pub struct Customer {
    /// Who.
    #[document(id)]
    pub customer_id: CustomerId,
    /// What to call them.
    pub name: String,
    /// Where to write to.
    pub email: String,
}

/// Keeps a customer that is not there yet, and tells everybody; a conflict if it is.
pub fn register(customer: Customer) -> Effects {
    let Customer { customer_id, name, email } = customer.clone();
    put(customer).and(publish(CustomerCreated { customer_id, name, email }))
}

/// The service.
pub fn service() -> Service {
    Service::new("customer")
}
