//! What a service tells Prometheus: its requests by how they were answered, the process, and what
//! its own parts have registered.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use quorate_app::metrics::{Number, Numbers};
use quorate_core::policy;
use quorate_front_rest::{METRICS_KIND, metrics_route};
use quorate_ports::Store as _;
use quorate_store::SqliteStore;
use quorate_types::{Caller, ErrorCode};

/// How requests were answered: `ok`, or the code of the error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    protocol: &'static str,
    code: &'static str,
}

type Requests = Family<Answered, Counter>;

/// The metrics of one service, before it is served.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Requests,
}

impl Metrics {
    /// Those that every service has.
    pub(crate) fn new(service: &'static str) -> Self {
        let mut registry = Registry::with_prefix("quorate");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("service", service)]);
        registry.register("build", "What runs", build);
        let requests = Requests::default();
        registry.register("requests", "Requests by how they were answered", requests.clone());
        Self { registry, requests }
    }

    /// Of the service's own parts.
    pub(crate) fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Of the database.
    pub(crate) fn store(mut self, store: &Arc<SqliteStore>) -> Self {
        type Open = Option<Arc<SqliteStore>>;
        const COMMITS: &[Number<Open>] = &[("store_commits", "Commits to the disk", |store| {
            store.as_ref().map_or(0, |store| store.commits())
        })];
        const HEALTH: &[Number<Open>] = &[("store_healthy", "1 until the disk fails", |store| {
            u64::from(store.as_ref().is_some_and(|store| store.health().is_ok()))
        })];
        let (one, other) = (Arc::downgrade(store), Arc::downgrade(store));
        self.registry.register_collector(Numbers::counters(COMMITS, move || one.upgrade()));
        self.registry.register_collector(Numbers::gauges(HEALTH, move || other.upgrade()));
        self
    }

    /// `/metrics` of a service that knows no callers.
    pub(crate) fn into_public_route(self) -> Router {
        let registry = Arc::new(self.registry);
        let kind = [(header::CONTENT_TYPE, METRICS_KIND)];
        Router::new().route("/metrics", get(move || async move { (kind, written(&registry)) }))
    }

    /// Counts the requests that a router answers and adds `/metrics`.
    pub(crate) fn serve(self, rest: Router) -> (Router, Layer) {
        let Self { registry, requests } = self;
        let registry = Arc::new(registry);
        let read = move |caller: &Caller| policy::operate(caller).map(|()| written(&registry));
        (rest.merge(metrics_route(Arc::new(read))), Layer(requests))
    }
}

fn written(registry: &Registry) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut out, registry);
    out
}

/// Counts requests around a router.
pub(crate) struct Layer(Requests);

impl Layer {
    pub(crate) fn around(self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.0, count))
    }
}

async fn count(State(requests): State<Requests>, request: Request, next: Next) -> Response {
    let protocol = protocol(request.headers());
    let response = next.run(request).await;
    requests.get_or_create(&Answered { protocol, code: code(&response) }).inc();
    response
}

fn protocol(headers: &HeaderMap) -> &'static str {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    match headers.contains_key(header::UPGRADE) {
        _ if kind.starts_with(b"application/grpc") => "grpc",
        true => "websocket",
        false => "rest",
    }
}

fn code(response: &Response) -> &'static str {
    match response.extensions().get::<ErrorCode>() {
        Some(code) => code.name(),
        None => match quorate_rpc::status::code_in(response.headers()) {
            Some(code) => code.name(),
            None if response.status().is_success() || response.status().is_redirection() => "ok",
            None if response.status().is_informational() => "ok",
            None => "other",
        },
    }
}
