//! `/openapi.json` tells the truth: every example in it is sent to the running API, and every
//! answer is what it says.

use crate::{
    http::{Answer, ask},
    world::World,
};
use axum::{Router, http::Method};
use serde_json::{Value, json};
use shop::{http::routes, parts::Part};
use std::collections::BTreeSet;

/// Whether a value is as its schema says; references go into the whole description.
fn check(description: &Value, schema: &Value, value: &Value, what: &str) {
    let mut schema = schema.clone();
    schema["components"] = description["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{what}: {errors:?} in {value}");
}

/// The response itself, where it is a reference.
fn resolved<'d>(description: &'d Value, response: &'d Value) -> &'d Value {
    match response["$ref"].as_str() {
        Some(reference) => description.pointer(reference.trim_start_matches('#')).unwrap(),
        None => response,
    }
}

struct Operation<'d> {
    description: &'d Value,
    method: Method,
    path: &'d str,
    what: &'d Value,
}

impl Operation<'_> {
    /// Sends the example.
    async fn send(&self, api: &Router) -> Answer {
        let (mut uri, mut query, mut key) = (self.path.to_owned(), vec![], None);
        for parameter in self.what["parameters"].as_array().into_iter().flatten() {
            let (name, example) = (parameter["name"].as_str().unwrap(), &parameter["example"]);
            check(self.description, &parameter["schema"], example, name);
            let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            match parameter["in"].as_str().unwrap() {
                "path" => uri = uri.replace(&format!("{{{name}}}"), &text),
                "query" => query.push(format!("{name}={text}")),
                _ => key = Some(text),
            }
        }
        if !query.is_empty() {
            uri = format!("{uri}?{}", query.join("&"));
        }
        let body = &self.what["requestBody"]["content"]["application/json"];
        if !body.is_null() {
            check(self.description, &body["schema"], &body["example"], &uri);
        }
        ask(api, self.method.clone(), &uri, key.as_deref(), &body["example"]).await
    }

    /// The answer is one that is described, and as it is described.
    fn check(&self, answer: &Answer) {
        let what = format!("{} {}: {}", self.method, self.path, answer.status);
        let response = &self.what["responses"][answer.status.as_str()];
        assert!(!response.is_null(), "{what} is not described: {}", answer.body);
        assert!(answer.status.is_success(), "{what}: {}", answer.body);
        let kind = answer.headers["content-type"].to_str().unwrap();
        let content = &resolved(self.description, response)["content"][kind];
        check(self.description, &content["schema"], &answer.body, &what);
        for header in response["headers"].as_object().into_iter().flatten() {
            assert!(answer.headers.contains_key(header.0), "{what}: no {}", header.0);
        }
    }

    /// Every example of an answer is as its schema says.
    fn check_examples(&self) {
        for (status, response) in self.what["responses"].as_object().unwrap() {
            let contents = &resolved(self.description, response)["content"];
            for content in contents.as_object().unwrap().values() {
                if let Some(example) = content.get("example") {
                    check(self.description, &content["schema"], example, status);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_route_is_described_and_every_example_is_true() {
    let world = World::open().await;
    let api = routes(&world.running, &Part::all());
    let description = ask(&api, Method::GET, "/openapi.json", None, &Value::Null).await.body;
    assert_eq!(description["openapi"], "3.1.0");
    // What must be there before it can be asked for comes first.
    let order = ["/customers", "/orders", "/orders/{order_id}"];
    let paths = description["paths"].as_object().unwrap();
    let first = order.iter().map(|path| (*path, &paths[*path]));
    let rest = paths.iter().map(|(path, item)| (path.as_str(), item));
    let rest = rest.filter(|(path, _)| !order.contains(path));
    let mut asked = BTreeSet::new();
    for (path, item) in first.chain(rest) {
        for method in [Method::POST, Method::GET] {
            let operation = &item[method.as_str().to_lowercase()];
            if operation.is_null() {
                continue;
            }
            let operation = Operation { description: &description, method, path, what: operation };
            operation.check_examples();
            operation.check(&operation.send(&api).await);
            asked.insert(format!("{} {path}", operation.method));
        }
        world.settled().await;
    }
    let described: usize = paths.values().map(|item| item.as_object().unwrap().len()).sum();
    assert_eq!(asked.len(), described, "{asked:?}");
    let offered = [
        "GET /analytics",
        "GET /inventory",
        "GET /livez",
        "GET /openapi.json",
        "GET /orders",
        "GET /orders/{order_id}",
        "GET /products",
        "GET /readyz",
        "POST /customers",
        "POST /orders",
    ];
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), offered);
}

#[tokio::test(start_paused = true)]
async fn problems_are_as_described() {
    let world = World::open().await;
    let api = routes(&world.running, &Part::all());
    let description = ask(&api, Method::GET, "/openapi.json", None, &Value::Null).await.body;
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    for uri in ["/nowhere", "/orders/1", "/orders"] {
        let answer = ask(&api, Method::GET, uri, None, &Value::Null).await;
        check(&description, &schema, &answer.body, uri);
    }
}
