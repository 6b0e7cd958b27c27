//! `POST /customers`.

use super::{Body, Problem, idempotency_key, key_reused, unavailable};
use crate::{
    customer::{Customer, register},
    ids::CustomerId,
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde::{Deserialize, Serialize};
use sillage::{CommitError, ServiceHandle};

/// The longest name or address, in bytes.
const TEXT_LIMIT: usize = 200;

/// What is said about a new customer.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewCustomer {
    /// What to call them.
    pub name: String,
    /// Where to write to.
    pub email: String,
}

pub(super) fn routes(customers: ServiceHandle) -> Router {
    Router::new().route("/customers", post(create)).with_state(customers)
}

async fn create(
    State(customers): State<ServiceHandle>,
    headers: HeaderMap,
    Body(new): Body<NewCustomer>,
) -> Result<(StatusCode, Json<Customer>), Problem> {
    check(&new)?;
    let key = idempotency_key(&headers)?;
    let customer_id = key.map_or_else(CustomerId::fresh, CustomerId::of_key);
    let customer = Customer { customer_id, name: new.name, email: new.email };
    match customers.commit(register(customer.clone())).await {
        Ok(_) => Ok((StatusCode::CREATED, Json(customer))),
        Err(CommitError::Conflict { .. }) => again(&customers, customer).await,
        Err(error) => Err(unavailable(&error)),
    }
}

async fn again(
    customers: &ServiceHandle,
    customer: Customer,
) -> Result<(StatusCode, Json<Customer>), Problem> {
    let known = customers.load::<Customer>(&customer.customer_id).await;
    match known.map_err(|error| unavailable(&error))? {
        Some(known) if known == customer => Ok((StatusCode::CREATED, Json(customer))),
        _ => Err(key_reused()),
    }
}

fn check(new: &NewCustomer) -> Result<(), Problem> {
    let bad = |detail: String| {
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad customer", detail))
    };
    for (field, text) in [("name", &new.name), ("email", &new.email)] {
        let visible = !text.chars().any(char::is_control);
        if !(1..=TEXT_LIMIT).contains(&text.len()) || !visible {
            return bad(format!("`{field}` is 1 to {TEXT_LIMIT} bytes without control characters"));
        }
    }
    match new.email.parse::<lettre::Address>() {
        Ok(_) => Ok(()),
        Err(error) => bad(format!("`email` is no address: {error}")),
    }
}
