//! Errors as RFC 9457 problems, each with the id of its request.

use axum::{
    Json,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;
use uuid::Uuid;

/// The header that names a request, taken over from the caller or made here.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An error as its caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    title: String,
    detail: String,
    retry_after: Option<u32>,
}

impl Problem {
    /// A problem of this kind; the title is the same for all of its kind, the detail is about this
    /// one.
    pub fn new(status: StatusCode, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Problem { status, title: title.into(), detail: detail.into(), retry_after: None }
    }

    /// The same request may succeed after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    fn of(status: StatusCode) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_lowercase();
        Problem::new(status, title, "")
    }

    /// The problem as a body; headers that the response had stay.
    fn render(&self, response: Response, instance: &str, request_id: &str) -> Response {
        let mut body = json!({
            "type": format!("urn:shop:problem:{}", self.title.replace(' ', "-")),
            "title": self.title,
            "status": self.status.as_u16(),
            "instance": instance,
            "request_id": request_id,
        });
        if !self.detail.is_empty() {
            body["detail"] = json!(self.detail);
        }
        let mut parts = response.into_parts().0;
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.remove(header::CONTENT_TYPE);
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status, parts.headers, kind, Json(body)).into_response()
    }
}

impl IntoResponse for Problem {
    /// Not yet readable: `dress` knows the request, and writes it.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every response its request's id, and every error its body.
pub(super) async fn dress(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let instance = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let status = response.status();
    let problem = response.extensions_mut().remove::<Problem>();
    let is_error = status.is_client_error() || status.is_server_error();
    if let Some(problem) = problem.or_else(|| is_error.then(|| Problem::of(status))) {
        response = problem.render(response, &instance, &id);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The caller's own id, if it is short and plain.
fn request_id(headers: &HeaderMap) -> String {
    let plain =
        |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let said = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(plain);
    said.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}
