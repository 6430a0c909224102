//! What every service has.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use quorate_types::{Caller, Result};
use quorate_wire::{ErrorJson, HealthJson, ReadinessJson, uptime};
use tower_http::catch_panic::CatchPanicLayer;

use crate::answer::{ApiResult, panicked, unknown_path, wrong_method};
use crate::extract::Who;
use crate::openapi::{Service, service_document};
use crate::pages;
use crate::readiness::Readiness;

/// Largest body of a path that takes no payload: a message of 64 KiB in base64 and what is around it.
pub(crate) const SMALL_BODY: usize = 96 << 10;

/// Largest body that carries a payload: 1 MiB in base64 with room for its envelope.
pub(crate) const MESSAGE_BODY: usize = 2 << 20;

pub(crate) struct About {
    name: String,
    started: Instant,
    readiness: Readiness,
    openapi: Bytes,
    page: Bytes,
}

/// `GET /health`, `/ready`, `/openapi.json` and `/docs`, to which `/` leads, and the answer to
/// unknown paths.
///
/// `name` is what `/health` says; `services` are those on this address, for the document. It holds
/// the only fallback: merge it with the routes of the services, once per address.
pub fn common(name: &str, services: &[Service], started: Instant, readiness: Readiness) -> Router {
    let document = service_document(services);
    let value = serde_json::to_value(&document).expect("a generated document serializes");
    let about = About {
        name: name.to_owned(),
        started,
        readiness,
        openapi: serde_json::to_vec(&value).expect("a JSON value serializes").into(),
        page: pages::render(&value).into(),
    };
    let routes = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/openapi.json", get(openapi))
        .route("/docs", get(docs))
        // Relative: a proxy may serve this under a path of its own.
        .route("/", get(|| async { (StatusCode::SEE_OTHER, [(header::LOCATION, "docs")]) }))
        .with_state(Arc::new(about));
    finish(routes, SMALL_BODY).fallback(unknown_path)
}

/// `GET /health` and `/ready` alone, for a service without a document.
pub fn probes(name: &str, readiness: Readiness) -> Router {
    let about = About {
        name: name.to_owned(),
        started: Instant::now(),
        readiness,
        openapi: Bytes::new(),
        page: Bytes::new(),
    };
    let routes = Router::new().route("/health", get(health)).route("/ready", get(ready));
    routes.with_state(Arc::new(about))
}

/// The content type of metrics.
pub const METRICS_KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Gives what Prometheus reads, or refuses the caller.
pub type ReadMetrics = Arc<dyn Fn(&Caller) -> Result<String> + Send + Sync>;

/// The route `GET /metrics`, which refuses those whom `read` refuses.
pub fn metrics_route(read: ReadMetrics) -> Router {
    finish(Router::new().route("/metrics", get(metrics)).with_state(read), SMALL_BODY)
}

/// Metrics for Prometheus, in the OpenMetrics text format. Under `--auth required` the scope
/// `system` is needed.
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "service", responses(
    (status = 200, body = String, content_type = "application/openmetrics-text"),
    (status = "default", description = "Error.", body = ErrorJson),
))]
pub(crate) async fn metrics(
    State(read): State<ReadMetrics>,
    Who(caller): Who,
) -> ApiResult<Response> {
    Ok(([(header::CONTENT_TYPE, METRICS_KIND)], read(&caller)?).into_response())
}

/// What every set of routes ends with: its body limit, and refusals in the one shape.
pub(crate) fn finish(routes: Router, body_limit: usize) -> Router {
    routes
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(body_limit))
        .layer(CatchPanicLayer::custom(panicked))
}

/// Liveness: the process is running.
#[utoipa::path(get, path = "/health", operation_id = "getHealth", tag = "service", responses((status = 200, body = HealthJson)))]
pub(crate) async fn health(State(about): State<Arc<About>>) -> Json<HealthJson> {
    Json(HealthJson {
        status: "healthy".into(),
        service: about.name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        uptime: uptime(about.started.elapsed()),
    })
}

/// Readiness: whether the service can work now, and if not, why.
#[utoipa::path(get, path = "/ready", operation_id = "getReadiness", tag = "service", responses(
    (status = 200, body = ReadinessJson),
    (status = 503, description = "Not ready; see `reasons`.", body = ReadinessJson),
))]
pub(crate) async fn ready(State(about): State<Arc<About>>) -> Response {
    let service = about.name.clone();
    let reasons = about.readiness.reasons().await;
    if reasons.is_empty() {
        return Json(ReadinessJson { status: "ready".into(), service, reasons }).into_response();
    }
    let body = ReadinessJson { status: "not_ready".into(), service, reasons };
    let retry = [(header::RETRY_AFTER, "1")];
    (StatusCode::SERVICE_UNAVAILABLE, retry, Json(body)).into_response()
}

async fn openapi(State(about): State<Arc<About>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], about.openapi.clone())
}

/// Everything the page needs is in it, and nothing else may be loaded or run.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
     script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn docs(State(about): State<Arc<About>>) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, about.page.clone())
}
