//! `POST /orders`, `GET /orders/{order_id}`, `GET /orders?customer=`.

use super::{Body, POSITION, Params, Problem, idempotency_key, key_reused, unavailable};
use crate::{
    customer::Customer,
    events::{CreateOrder, Item},
    ids::{CustomerId, OrderId},
    money::Card,
    order::{Order, OrderCommand, OrderRefusal, OrderView, sort_key},
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use sillage::{ExecuteError, ReadError, Running, prelude::*};
use std::{sync::Arc, time::Duration};

/// How long a read waits for the write it asks for.
const PATIENCE: Duration = secs(2);
/// How many orders a page has unless said, and at most.
const PAGE: (usize, usize) = (20, 100);

/// What is said about a new order.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct NewOrder {
    /// Who orders.
    pub customer_id: CustomerId,
    /// What.
    pub items: Vec<Item>,
    /// What pays for it: 4242 4242 4242 4242 is accepted, 4000 0000 0000 0002 declined.
    pub card: Card,
}

/// The answer to a new order.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The order's id.
    pub order_id: OrderId,
    /// Where in the log it is: say it as `at_least` to read it.
    pub position: Position,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    customer: CustomerId,
    limit: Option<usize>,
    after: Option<Position>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    at_least: Option<Position>,
}

#[derive(Serialize)]
struct Page {
    orders: Vec<OrderView>,
    /// Say it as `after` for the next page.
    next: Option<Position>,
}

#[derive(Clone)]
struct Orders {
    service: ServiceHandle,
    view: Arc<View<OrderView>>,
    customers: Option<ServiceHandle>,
}

pub(super) fn routes(running: &Running, customers: Option<ServiceHandle>) -> Router {
    let view = Arc::new(running.view::<OrderView>("order"));
    let orders = Orders { service: running.service("order"), view, customers };
    Router::new()
        .route("/orders", post(place).get(list))
        .route("/orders/{order_id}", get(show))
        .with_state(orders)
}

async fn place(
    State(orders): State<Orders>,
    headers: HeaderMap,
    Body(new): Body<NewOrder>,
) -> Result<Response, Problem> {
    let order_id = idempotency_key(&headers)?.map_or_else(OrderId::fresh, OrderId::of_key);
    orders.check_customer(&new.customer_id).await?;
    let NewOrder { customer_id, items, card } = new;
    let command = CreateOrder { order_id, customer_id, items, card };
    let done = orders.service.execute::<Order>(order_id, OrderCommand::Create(command)).await;
    let done = done.map_err(refused)?;
    if done.events.is_empty() {
        return Ok(accepted(order_id, orders.first_position(order_id, done.position).await));
    }
    Ok(accepted(order_id, done.position))
}

impl Orders {
    /// Where customers live in another process, theirs is the word: the e-mail waits for them.
    async fn check_customer(&self, customer_id: &CustomerId) -> Result<(), Problem> {
        let Some(customers) = &self.customers else { return Ok(()) };
        match customers.load::<Customer>(customer_id).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                let detail = format!("there is no customer `{customer_id}`");
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown customer", detail))
            }
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Where an order was placed that is placed again; the view knows, unless it is far behind.
    async fn first_position(&self, order_id: OrderId, at_least: Position) -> Position {
        let view = self.view.get(order_id).at_least(at_least).within(PATIENCE).await;
        view.ok().flatten().map_or(at_least, |order| order.position)
    }
}

fn accepted(order_id: OrderId, position: Position) -> Response {
    let headers =
        [(LOCATION.as_str(), format!("/orders/{order_id}")), (POSITION, position.to_string())];
    (StatusCode::ACCEPTED, headers, Json(Placed { order_id, position })).into_response()
}

fn refused(error: ExecuteError<OrderRefusal>) -> Problem {
    match error {
        ExecuteError::Refused(OrderRefusal::AlreadyCreated) => key_reused(),
        ExecuteError::Refused(refusal) => {
            let title = match refusal {
                OrderRefusal::UnknownProduct(_) => "unknown product",
                _ => "bad order",
            };
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, title, refusal.to_string())
        }
        ExecuteError::Conflict => unavailable(&"too many writers at this order"),
        ExecuteError::Database(error) => unavailable(&error),
    }
}

async fn show(
    State(orders): State<Orders>,
    Path(order_id): Path<String>,
    Params(when): Params<When>,
) -> Result<Json<OrderView>, Problem> {
    let nowhere = || {
        let detail = format!("there is no order `{}`", order_id.escape_debug());
        Problem::new(StatusCode::NOT_FOUND, "no such order", detail)
    };
    let id: OrderId = order_id.parse().map_err(|_| nowhere())?;
    let mut get = orders.view.get(id).within(PATIENCE);
    if let Some(position) = when.at_least {
        get = get.at_least(position);
    }
    get.await.map_err(|error| unread(&error))?.map(Json).ok_or_else(nowhere)
}

async fn list(
    State(orders): State<Orders>,
    Params(which): Params<Which>,
) -> Result<Json<Page>, Problem> {
    let limit = which.limit.unwrap_or(PAGE.0);
    if !(1..=PAGE.1).contains(&limit) {
        let detail = format!("`limit` is 1 to {}", PAGE.1);
        return Err(Problem::new(StatusCode::BAD_REQUEST, "unreadable query", detail));
    }
    let after = which.after.map_or(0, |position| position.0.saturating_add(1));
    let from = sort_key(which.customer.as_str(), Position(after));
    // `0` is what comes right after `/`.
    let until = format!("{}0", which.customer);
    let page = orders.view.list(&from, &until, limit).await.map_err(|error| unread(&error))?;
    let next = page.last().filter(|_| page.len() == limit).map(|order| order.position);
    Ok(Json(Page { orders: page, next }))
}

fn unread(error: &ReadError) -> Problem {
    match error {
        ReadError::Stale { behind } => {
            let detail = format!("the view is {behind} entries behind what you ask for");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not there yet", detail).retry_after(1)
        }
        ReadError::Unknown => {
            let detail = "no log of this shop has such a position";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown position", detail)
        }
        ReadError::Database(error) => unavailable(error),
    }
}
