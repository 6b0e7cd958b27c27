//! The HTTP API, without a network: what it promises, and how it refuses.

use crate::world::World;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
};
use serde_json::{Value, json};
use shop::{gateway::Faults, http::routes, parts::Part};
use sillage::{Clock as _, secs};
use tower::ServiceExt as _;

/// An answer, all of it.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// Asks, with a JSON body unless it is null.
pub(crate) async fn ask(
    api: &Router,
    method: Method,
    uri: &str,
    key: Option<&str>,
    body: &Value,
) -> Answer {
    let mut request = Request::builder().method(method).uri(uri);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    if !body.is_null() {
        request = request.header("content-type", "application/json");
    }
    let text = if body.is_null() { String::new() } else { body.to_string() };
    send(api, request.body(Body::from(text)).unwrap()).await
}

async fn send(api: &Router, request: Request<Body>) -> Answer {
    let (head, body) = api.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let answer = Answer { status: head.status, headers: head.headers, body };
    assert!(answer.headers.contains_key("x-request-id"));
    if answer.status.is_client_error() || answer.status.is_server_error() {
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.body["status"], answer.status.as_u16());
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert_eq!(answer.body["request_id"], id);
    }
    answer
}

async fn get(api: &Router, uri: &str) -> Answer {
    ask(api, Method::GET, uri, None, &Value::Null).await
}

async fn post(api: &Router, uri: &str, key: Option<&str>, body: &Value) -> Answer {
    ask(api, Method::POST, uri, key, body).await
}

async fn open() -> (World, Router) {
    let world = World::open().await;
    world.register().await;
    let api = routes(&world.running, &Part::all());
    (world, api)
}

fn bells(quantity: u32) -> Value {
    json!({
        "customer_id": "ann",
        "items": [{ "product_id": "bell", "quantity": quantity }],
        "card": "4242 4242 4242 4242",
    })
}

#[tokio::test(start_paused = true)]
async fn an_order_can_be_read_as_soon_as_it_is_placed() {
    let (_world, api) = open().await;
    let placed = post(&api, "/orders", None, &bells(2)).await;
    assert_eq!(placed.status, StatusCode::ACCEPTED);
    let location = placed.headers["location"].to_str().unwrap();
    let position = placed.headers["sillage-position"].to_str().unwrap();
    assert_eq!(placed.body["position"].to_string(), position);
    let order = get(&api, &format!("{location}?at_least={position}")).await;
    assert_eq!(order.status, StatusCode::OK);
    assert_eq!(order.body["total"], json!({ "minor": 9100, "currency": "EUR" }));
    assert_eq!(order.body["timeline"][0]["event"], "order.created");
}

#[tokio::test(start_paused = true)]
async fn a_request_sent_again_is_answered_alike_and_done_once() {
    let (world, api) = open().await;
    let first = post(&api, "/orders", Some("k"), &bells(2)).await;
    world.settled().await;
    let again = post(&api, "/orders", Some("k"), &bells(2)).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.headers["location"], first.headers["location"]);
    let other = post(&api, "/orders", Some("k"), &bells(3)).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.body["title"], "idempotency key reused");
    assert_eq!(world.settled().await.orders, 1);
    let ann = json!({ "name": "Ann", "email": "ann@example.com" });
    let first = post(&api, "/customers", Some("c"), &ann).await;
    assert_eq!(first.status, StatusCode::CREATED);
    assert_eq!(post(&api, "/customers", Some("c"), &ann).await.body, first.body);
    let bob = json!({ "name": "Bob", "email": "bob@example.com" });
    let other = post(&api, "/customers", Some("c"), &bob).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_what_is_not_there_yet_says_when_to_come_back() {
    let (world, api) = open().await;
    world.running.drain().await;
    let placed = post(&api, "/orders", None, &bells(1)).await;
    assert_eq!(placed.status, StatusCode::ACCEPTED, "{}", placed.body);
    let location = placed.headers["location"].to_str().unwrap();
    let before = world.clock.elapsed();
    let late = get(&api, &format!("{location}?at_least={}", placed.body["position"])).await;
    assert_eq!(late.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(late.headers["retry-after"], "1");
    assert!(world.clock.elapsed().saturating_sub(before) < secs(3));
    let never = get(&api, &format!("{location}?at_least=1000000")).await;
    assert_eq!(never.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(never.body["title"], "unknown position");
}

#[tokio::test(start_paused = true)]
async fn a_customers_orders_come_in_pages() {
    let (world, api) = open().await;
    for n in 1..=5 {
        post(&api, "/orders", Some(&format!("{n}")), &bells(n)).await;
    }
    world.settled().await;
    let quantities = |page: &Value| -> Vec<u64> {
        let orders = page["orders"].as_array().unwrap().iter();
        orders.map(|order| order["items"][0]["quantity"].as_u64().unwrap()).collect()
    };
    let first = get(&api, "/orders?customer=ann&limit=3").await.body;
    assert_eq!(quantities(&first), [1, 2, 3]);
    let rest = get(&api, &format!("/orders?customer=ann&limit=3&after={}", first["next"])).await;
    assert_eq!((quantities(&rest.body), &rest.body["next"]), (vec![4, 5], &Value::Null));
    let nobody = get(&api, "/orders?customer=an").await.body;
    assert_eq!(nobody, json!({ "orders": [], "next": null }));
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused_with_a_reason() {
    let (_world, api) = open().await;
    let with = |field: &str, value: Value| {
        let mut order = bells(1);
        order[field] = value;
        order
    };
    let items = |id: &str, quantity: u32| json!([{ "product_id": id, "quantity": quantity }]);
    for (body, title) in [
        (with("items", items("moon", 1)), "unknown product"),
        (with("items", items("bell", 0)), "bad order"),
        (with("items", items("bell", 1_001)), "bad order"),
        (with("items", json!([])), "bad order"),
        (with("customer_id", json!("nobody")), "unknown customer"),
        (with("customer_id", json!("a/b")), "unreadable body"),
        (with("card", json!("1234")), "unreadable body"),
        (with("discount", json!(100)), "unreadable body"),
        (json!({ "items": [] }), "unreadable body"),
    ] {
        let answer = post(&api, "/orders", None, &body).await;
        let found = (answer.status, answer.body["title"].as_str().unwrap());
        assert_eq!(found, (StatusCode::UNPROCESSABLE_ENTITY, title), "{body}");
        assert!(answer.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    let mail = json!({ "name": "Ann", "email": "ann" });
    let answer = post(&api, "/customers", None, &mail).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused_with_a_reason() {
    let (_world, api) = open().await;
    let raw = |content_type: &str, body: &str| {
        let request = Request::post("/orders").header("content-type", content_type);
        request.body(Body::from(body.to_owned())).unwrap()
    };
    let deep = "[".repeat(20_000);
    for (request, status) in [
        (raw("application/json", "{"), StatusCode::BAD_REQUEST),
        (raw("application/json", &deep), StatusCode::UNPROCESSABLE_ENTITY),
        (raw("text/plain", "{}"), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (raw("application/json", &" ".repeat(70_000)), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(send(&api, request).await.status, status);
    }
    for (uri, status) in [
        ("/orders?customer=ann&limit=101", StatusCode::BAD_REQUEST),
        ("/orders?customer=ann&limit=x", StatusCode::BAD_REQUEST),
        ("/orders", StatusCode::BAD_REQUEST),
        ("/orders/1", StatusCode::NOT_FOUND),
        ("/orders/3b241101-e2bb-4255-8caf-4136c566a962", StatusCode::NOT_FOUND),
        ("/nowhere", StatusCode::NOT_FOUND),
        ("/customers", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        assert_eq!(get(&api, uri).await.status, status, "{uri}");
    }
    let long = "k".repeat(256);
    let answer = post(&api, "/orders", Some(&long), &bells(1)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_request_id_is_kept_if_it_is_plain() {
    let (_world, api) = open().await;
    let said = |id: &str| Request::get("/livez").header("x-request-id", id).body(Body::empty());
    assert_eq!(send(&api, said("r-1").unwrap()).await.headers["x-request-id"], "r-1");
    let long = "x".repeat(65);
    assert_ne!(send(&api, said(&long).unwrap()).await.headers["x-request-id"], *long);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_stands_still_makes_the_process_unready_by_name() {
    let (world, api) = open().await;
    assert_eq!(get(&api, "/readyz").await.status, StatusCode::OK);
    world.gateway.misbehave(&Faults { down: true, ..Faults::default() }).await.unwrap();
    let placed = post(&api, "/orders", None, &bells(1)).await;
    let end = world.clock.elapsed() + secs(90);
    let unready = loop {
        let ready = get(&api, "/readyz").await;
        if ready.status == StatusCode::SERVICE_UNAVAILABLE {
            break ready;
        }
        assert!(world.clock.elapsed() < end, "still ready");
        world.clock.sleep(secs(1)).await;
    };
    let detail = unready.body["detail"].as_str().unwrap();
    assert!(detail.contains("payment/payment"), "{detail}");
    assert!(detail.contains(placed.body["order_id"].as_str().unwrap()), "{detail}");
    assert_eq!(get(&api, "/livez").await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_process_serves_what_its_services_offer() {
    let world = World::open().await;
    let api = routes(&world.running, &[Part::Payment]);
    assert_eq!(get(&api, "/livez").await.status, StatusCode::OK);
    assert_eq!(get(&api, "/orders?customer=ann").await.status, StatusCode::NOT_FOUND);
}
