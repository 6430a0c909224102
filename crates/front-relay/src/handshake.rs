//! From an HTTP request to a WebSocket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::TokioIo;
use quorate_types::ClientAddress;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::connection;
use crate::relay::{ConnectionGuard, Shared};

/// Answers a handshake and serves the connection behind it.
pub(crate) fn upgrade(relay: &Arc<Shared>, mut request: Request) -> Response {
    if relay.is_closed() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the relay stops").into_response();
    }
    let Some(accept) = accept_key(&request) else {
        return (StatusCode::BAD_REQUEST, "this path is a WebSocket, version 13").into_response();
    };
    let address = request.extensions().get::<ClientAddress>().copied().unwrap_or_default();
    let upgraded = hyper::upgrade::on(&mut request);
    let shared = relay.clone();
    relay.tasks().spawn(async move {
        match upgraded.await {
            Ok(io) => {
                connection::serve(TokioIo::new(io), ConnectionGuard::take(&shared, address)).await
            }
            Err(error) => tracing::debug!(%error, "the upgrade failed"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// The answer to the client's key, if this is a handshake at all.
fn accept_key(request: &Request) -> Option<HeaderValue> {
    let says = |name: HeaderName, word: &str| {
        let values = request.headers().get_all(name).into_iter();
        let mut words = values.filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
        words.any(|said| said.trim().eq_ignore_ascii_case(word))
    };
    let asked = says(CONNECTION, "upgrade")
        && says(UPGRADE, "websocket")
        && says(SEC_WEBSOCKET_VERSION, "13");
    let key = request.headers().get(SEC_WEBSOCKET_KEY).filter(|_| asked)?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}
