//! The gateway's HTTP side, with the faults it can be told to have.

use super::{ChargeRequest, Faults, IDEMPOTENCY_KEY, Ledger, RefundRequest, Reply};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::TcpListener;
use uuid::Uuid;

/// What a running gateway holds. Cheap to clone.
#[derive(Clone)]
pub struct GatewayState {
    ledger: Ledger,
    faults: Arc<Mutex<Faults>>,
}

impl GatewayState {
    /// A gateway in good health on this ledger.
    pub fn new(ledger: Ledger) -> Self {
        GatewayState { ledger, faults: Arc::default() }
    }

    fn faults(&self) -> Faults {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves until the future completes.
pub async fn serve(
    listener: TcpListener,
    state: GatewayState,
    until: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(state)).with_graceful_shutdown(until).await
}

/// The gateway's routes.
pub fn router(state: GatewayState) -> Router {
    Router::new()
        .route("/charges", post(charge))
        .route("/refunds", post(refund))
        .route("/ledger", get(ledger))
        .route("/faults", get(show_faults).post(set_faults))
        .with_state(state)
}

async fn charge(
    State(state): State<GatewayState>,
    headers: HeaderMap,
    Json(request): Json<ChargeRequest>,
) -> Response {
    let faults = state.faults();
    let asked = faults.clone();
    answer(&faults, &headers, |key| state.ledger.charge(key, request, asked)).await
}

async fn refund(
    State(state): State<GatewayState>,
    headers: HeaderMap,
    Json(request): Json<RefundRequest>,
) -> Response {
    answer(&state.faults(), &headers, |key| state.ledger.refund(key, request)).await
}

/// Answers, unless a fault is in the way: before the money moves, or, worse, after.
async fn answer<F: Future<Output = Option<Reply>>>(
    faults: &Faults,
    headers: &HeaderMap,
    movement: impl FnOnce(Uuid) -> F,
) -> Response {
    if faults.down {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the gateway is down");
    }
    let Some(key) = key(headers) else {
        return problem(StatusCode::BAD_REQUEST, "say an Idempotency-Key, a UUID");
    };
    let lot: f64 = rand::random();
    if lot < faults.error_share / 2.0 {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong");
    }
    let reply = movement(key).await;
    tokio::time::sleep(Duration::from_millis(faults.delay_ms)).await;
    if lot < faults.error_share {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong, or not");
    }
    reply.map_or_else(
        || problem(StatusCode::SERVICE_UNAVAILABLE, "the ledger cannot be written"),
        |reply| (status(&reply), Json(reply)).into_response(),
    )
}

fn status(reply: &Reply) -> StatusCode {
    match reply {
        Reply::Accepted { .. } | Reply::Refunded => StatusCode::OK,
        Reply::Declined { .. } => StatusCode::PAYMENT_REQUIRED,
        Reply::Refused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

fn key(headers: &HeaderMap) -> Option<Uuid> {
    headers.get(IDEMPOTENCY_KEY)?.to_str().ok()?.parse().ok()
}

fn problem(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "detail": detail }))).into_response()
}

async fn ledger(State(state): State<GatewayState>) -> Response {
    match state.ledger.entries().await {
        Some(entries) => Json(entries).into_response(),
        None => problem(StatusCode::SERVICE_UNAVAILABLE, "the ledger cannot be written"),
    }
}

async fn show_faults(State(state): State<GatewayState>) -> Json<Faults> {
    Json(state.faults())
}

async fn set_faults(State(state): State<GatewayState>, Json(faults): Json<Faults>) -> Json<Faults> {
    *state.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults.clone();
    Json(faults)
}
