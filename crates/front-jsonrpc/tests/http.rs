//! What is around the socket: other requests, files, counters.
#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use common::{Client, Server};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use quorate_front_jsonrpc::{Config, GroupLimits, NotKept, Relay, RelayLimits};
use serde_json::json;
use tokio_tungstenite::tungstenite::Error;
use tower::ServiceExt as _;

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_plain_get_of_the_socket_is_400_and_other_paths_are_404() {
    let relay = Relay::open(Config::default(), Arc::new(NotKept)).await.unwrap();
    let status = |path: &'static str| {
        let router = relay.router();
        async move { router.oneshot(get(path)).await.unwrap().status() }
    };
    assert_eq!(status("/mpc").await, StatusCode::BAD_REQUEST);
    assert_eq!(status("/").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn files_come_with_the_headers_that_threads_in_browsers_need() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "hello").unwrap();
    let static_dir = Some(folder.path().to_owned());
    let config = Config { static_dir, ..Config::default() };
    let relay = Relay::open(config, Arc::new(NotKept)).await.unwrap();
    let response = relay.router().oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["cross-origin-embedder-policy"], "require-corp");
    assert_eq!(response.headers()["cross-origin-opener-policy"], "same-origin");
    let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
    assert_eq!(&body[..], b"hello");
    let response = relay.router().oneshot(get("/../secret")).await.unwrap();
    assert_ne!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn counters_tell_what_happened() {
    let server = Server::strict().await;
    let (mut clients, group) = server.group(2, 1).await;
    clients[0].ask("Session.create", json!([group, "keygen", null])).await;
    clients[1].event("sessionCreate").await;
    clients[1].refused("Nope", json!([])).await;
    let metrics = server.relay.metrics();
    assert_eq!((metrics.connections, metrics.groups, metrics.sessions), (2, 1, 1));
    assert_eq!((metrics.calls, metrics.events), (4, 1));
    assert!(metrics.errors.contains(&(-32601, 1)));
    let mut registry = Registry::with_prefix("quorate");
    server.relay.register_metrics(&mut registry);
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    assert!(page.contains("\nquorate_jsonrpc_calls_total 4\n"), "{page}");
    clients.remove(1).leave().await;
    assert_eq!(server.relay.metrics().connections, 1);
}

#[tokio::test]
async fn a_connection_too_many_is_turned_away() {
    let limits = RelayLimits { connections: 1, ..RelayLimits::default() };
    let server = Server::open(Config { limits, ..Config::default() }, Arc::new(NotKept)).await;
    let first = server.client().await;
    let url = format!("ws://{}/mpc", server.address);
    let error = tokio_tungstenite::connect_async(url).await.unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    first.leave().await;
    server.client().await.settle().await;
}

#[tokio::test]
async fn one_address_takes_half_of_everything_and_the_others_go_on() {
    let groups = GroupLimits { groups: 6, ..GroupLimits::default() };
    let limits = RelayLimits { connections: 8, groups, ..RelayLimits::default() };
    let server = Server::open(Config { limits, ..Config::default() }, Arc::new(NotKept)).await;
    let params = json!(["g", {"parties": 2, "threshold": 1}]);
    let mut taken = Vec::new();
    for _ in 0..4 {
        let mut client = server.client_from("127.0.0.2").await;
        if taken.len() < 3 {
            client.ask("Group.create", params.clone()).await;
        } else {
            let (code, why) = client.refused("Group.create", params.clone()).await;
            assert!(code == -32002 && why.contains("this address has its share"), "{why}");
        }
        taken.push(client);
    }
    let refused = Client::connect_from(server.address, "127.0.0.2").await.err().unwrap();
    let Error::Http(answer) = refused else { panic!("{refused}") };
    assert_eq!(answer.status().as_u16(), 429);
    assert_eq!(answer.headers()["retry-after"], "5");
    let mut other = server.client().await;
    other.ask("Group.create", params.clone()).await;
    taken.remove(0).leave().await;
    let mut again = server.client_from("127.0.0.2").await;
    again.ask("Group.create", params).await;
}
