//! What a server mounts: the socket's path and, if wanted, a folder beside it.

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use axum::{Extension, Router};
use quorate_core::budget::Over;
use quorate_types::ClientAddress;
use tower_http::services::ServeDir;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::relay::{NoPlace, Relay};
use crate::socket;

/// Read and write buffer of a connection: most frames are small, and thousands of sockets are idle.
const BUFFER: usize = 4 << 10;

/// When a connection that found no place may try again.
const RETRY_SECONDS: &str = "5";

impl Relay {
    /// The relay's routes: `/mpc`, and the static folder for all other paths when there is one.
    ///
    /// A request's [`ClientAddress`] is its extension; those without one count as one address.
    pub fn router(&self) -> Router {
        let router = Router::new().route("/mpc", any(upgrade)).with_state(self.clone());
        let Some(folder) = &self.0.config.static_dir else {
            return router;
        };
        // Browsers give WebAssembly threads shared memory only to pages with these two headers.
        let header = |name, value| {
            SetResponseHeaderLayer::overriding(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        let files = Router::new()
            .fallback_service(ServeDir::new(folder))
            .layer(header("cross-origin-embedder-policy", "require-corp"))
            .layer(header("cross-origin-opener-policy", "same-origin"));
        router.fallback_service(files)
    }
}

async fn upgrade(
    State(relay): State<Relay>,
    address: Option<Extension<ClientAddress>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            let text = format!("this path is a WebSocket: {}\n", rejection.body_text());
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    let guard = match socket::ConnectionGuard::take(
        &relay,
        address.map(|known| known.0).unwrap_or_default(),
    ) {
        Ok(guard) => guard,
        Err(why) => {
            let (status, text) = match why {
                NoPlace::Taken(Over::Share) => (
                    StatusCode::TOO_MANY_REQUESTS,
                    "this address has as many connections as it may; close some of them\n",
                ),
                NoPlace::Taken(Over::Whole) => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the relay has no room for another connection; try again later\n",
                ),
                NoPlace::Stopping => {
                    (StatusCode::SERVICE_UNAVAILABLE, "the relay stops; connect again\n")
                }
            };
            return (status, [(RETRY_AFTER, RETRY_SECONDS)], text).into_response();
        }
    };
    let largest = relay.0.config.limits.frame_bytes;
    let task = relay.0.tasks.token();
    upgrade
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(2 * largest + BUFFER)
        .max_message_size(largest)
        .max_frame_size(largest)
        .on_upgrade(move |socket| async move {
            socket::run(guard, socket).await;
            drop(task);
        })
}
