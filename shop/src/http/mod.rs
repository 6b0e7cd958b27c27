//! The shop's HTTP API: what a process serves of it follows from the services that run in it.
//!
//! *Guarantees.* An order that was answered 202 is durable. With an `Idempotency-Key` a request may
//! be sent again whatever became of the first: it is done once, and answered alike. Every answer
//! has an `x-request-id`; every error is an RFC 9457 problem that names it.

mod customers;
mod orders;
mod problem;
mod reports;

pub use customers::NewCustomer;
pub use orders::{NewOrder, Placed};
pub use problem::Problem;

use crate::parts::Part;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE, request},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use sillage::{Health, Running};

/// The header that says which request is meant when it is sent again.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header that says where in the log a write is: what to wait for before reading it.
pub const POSITION: &str = "sillage-position";

/// The largest body that is read, in bytes.
const BODY_LIMIT: usize = 64 * 1024;
/// The longest idempotency key, in bytes.
const KEY_LIMIT: usize = 255;
/// The description of this API; a test holds it against the routes.
const OPENAPI: &str = include_str!("openapi.json");

/// The routes of the services that run here.
pub fn routes(running: &Running, parts: &[Part]) -> Router {
    let mut routes = always(running);
    let customers = parts.contains(&Part::Customer).then(|| running.service("customer"));
    if let Some(customers) = customers.clone() {
        routes = routes.merge(customers::routes(customers));
    }
    if parts.contains(&Part::Order) {
        routes = routes.merge(orders::routes(running, customers));
    }
    if parts.contains(&Part::Inventory) {
        routes = routes.merge(reports::inventory(running));
    }
    if parts.contains(&Part::Analytics) {
        routes = routes.merge(reports::analytics(running));
    }
    routes
        .fallback(nowhere)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(problem::dress))
}

fn always(running: &Running) -> Router {
    Router::new()
        .route("/products", get(reports::products))
        .route("/openapi.json", get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI)))
        .route("/livez", get(async || Json(json!({ "status": "alive" }))))
        .route("/readyz", get(ready))
        .with_state(running.clone())
}

async fn ready(State(running): State<Running>) -> Response {
    let Health { ready, problems, .. } = running.health();
    if ready {
        return Json(json!({ "status": "ready" })).into_response();
    }
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not ready", problems.join("; "))
        .retry_after(5)
        .into_response()
}

async fn nowhere() -> Problem {
    let detail = "no service that runs in this process has such a route; see /openapi.json";
    Problem::new(StatusCode::NOT_FOUND, "no such route", detail)
}

/// A JSON body; what cannot be read is a problem that says where.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Body(body)),
            Err(no) => Err(Problem::new(no.status(), "unreadable body", no.body_text())),
        }
    }
}

/// The query string; what cannot be read is a problem that says where.
struct Params<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Params(query)),
            Err(no) => Err(Problem::new(no.status(), "unreadable query", no.body_text())),
        }
    }
}

/// The request's idempotency key, if it has one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=KEY_LIMIT).contains(&key.len()));
    key.map(Some).ok_or_else(|| {
        let detail = format!("an Idempotency-Key is 1 to {KEY_LIMIT} visible characters");
        Problem::new(StatusCode::BAD_REQUEST, "bad idempotency key", detail)
    })
}

/// The key was used before, for something else.
fn key_reused() -> Problem {
    let detail = "this Idempotency-Key was used for another request; say a new one";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency key reused", detail)
}

/// The database cannot be reached or cannot save; the same request may succeed later.
fn unavailable(error: &impl std::fmt::Display) -> Problem {
    tracing::warn!(%error, "a request was answered 503");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string()).retry_after(1)
}
