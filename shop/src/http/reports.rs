//! `GET /products`, `GET /inventory`, `GET /analytics`.

use super::{Problem, unavailable};
use crate::{
    analytics::{DEMAND, Demand, Outcome, Revenue},
    catalog::PRODUCTS,
    inventory::Stock,
};
use axum::{Json, Router, extract::State, routing::get};
use serde_json::{Value, json};
use sillage::{Running, prelude::*};
use std::sync::Arc;

/// How many days, outcomes and products a report has at most.
const DAYS: usize = 366;
const OUTCOMES: usize = 100;
const TOP: usize = 10;
/// Sorts after every text of ASCII: no product, day or outcome is left out.
const END: &str = "\u{7f}";

pub(super) async fn products() -> Json<Value> {
    let products = PRODUCTS.iter().map(
        |product| json!({ "product_id": product.id, "name": product.name, "price": product.price }),
    );
    Json(json!({ "products": products.collect::<Vec<_>>() }))
}

pub(super) fn inventory(running: &Running) -> Router {
    Router::new().route("/inventory", get(stock)).with_state(running.service("inventory"))
}

async fn stock(State(inventory): State<ServiceHandle>) -> Result<Json<Value>, Problem> {
    let stock = inventory.list::<Stock>("", END, PRODUCTS.len()).await;
    Ok(Json(json!({ "stock": stock.map_err(|error| unavailable(&error))? })))
}

#[derive(Clone)]
struct Views {
    revenue: Arc<View<Revenue>>,
    outcomes: Arc<View<Outcome>>,
    demand: Arc<View<Demand>>,
}

pub(super) fn analytics(running: &Running) -> Router {
    let views = Views {
        revenue: Arc::new(running.view("analytics")),
        outcomes: Arc::new(running.view("analytics")),
        demand: Arc::new(running.view("analytics")),
    };
    Router::new().route("/analytics", get(report)).with_state(views)
}

async fn report(State(views): State<Views>) -> Result<Json<Value>, Problem> {
    let revenue = views.revenue.list("", END, DAYS).await.map_err(|error| unavailable(&error))?;
    let outcomes =
        views.outcomes.list("", END, OUTCOMES).await.map_err(|error| unavailable(&error))?;
    let demand = views.demand.get(DEMAND).await.map_err(|error| unavailable(&error))?;
    let demand = demand.unwrap_or_default();
    let top = demand.top(TOP).into_iter();
    let top = top.map(|(id, ordered)| json!({ "product_id": id, "ordered": ordered }));
    Ok(Json(json!({
        "revenue": revenue,
        "outcomes": outcomes,
        "top_products": top.collect::<Vec<_>>(),
    })))
}
