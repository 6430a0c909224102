//! REST, WebSocket, OpenAPI and documentation pages.
//!
//! One function per service returns its routes as an [`axum::Router`] over the service's trait;
//! [`common`] adds what every service has: health, readiness, the OpenAPI document, a page to read
//! it and the answer to unknown paths. An outer layer authenticates and puts the
//! [`quorate_types::Caller`] into the request's extensions; without it every call is unauthorized. With a
//! [`Lapse`] beside it, what the caller follows ends with the caller's credential.
//! Unknown query parameters are refused, so a layer that takes a credential from the query must
//! remove it there.
//!
//! Every answer that is not a success is the one error body, whoever refused: axum, a codec, the
//! service or a panic.

mod answer;
mod common;
mod extract;
mod lapse;
mod openapi;
mod pages;
mod params;
mod readiness;
mod routes;
mod sockets;

pub use answer::ApiError;
pub use common::{METRICS_KIND, ReadMetrics, common, metrics_route, probes};
pub use lapse::Lapse;
pub use openapi::{Service, openapi_document, service_document};
pub use readiness::{Readiness, Reasons};
pub use routes::accounts::accounts_routes;
pub use routes::api_keys::api_key_routes;
pub use routes::coordinator::coordinator_routes;
pub use routes::party::{PartyInfo, party_routes};
pub use routes::router::router_routes;
pub use routes::tickets::{Ticket, Tickets, ticket_routes};
