//! Tickets for WebSocket handshakes, where a browser can send no `Authorization`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Extension, Json, Router};
use quorate_types::{Caller, Secret};
use quorate_wire::{ErrorJson, TicketJson};

use crate::answer::ApiResult;
use crate::common::{SMALL_BODY, finish};
use crate::extract::Who;
use crate::lapse::Lapse;

/// A ticket for one handshake.
pub struct Ticket {
    /// What the handshake shows.
    pub ticket: Secret<String>,
    /// Seconds until it lapses.
    pub seconds: u64,
}

/// Makes tickets. The layer that authenticates redeems them.
pub trait Tickets: Send + Sync + 'static {
    /// A ticket that lets one handshake speak for this caller, for as long as its credential is
    /// good; `rate_limited` where too many are unused.
    fn issue(&self, caller: &Caller, lapse: Lapse) -> quorate_types::Result<Ticket>;
}

/// The route of a service that has WebSockets.
pub fn ticket_routes(tickets: Arc<dyn Tickets>) -> Router {
    let routes = Router::new().route("/api/v1/tickets", post(issue)).with_state(tickets);
    finish(routes, SMALL_BODY)
}

/// Get a ticket for one WebSocket handshake.
///
/// A browser cannot send `Authorization` with a handshake: get a ticket by this call and open the
/// socket with `?ticket=` within 30 seconds. A ticket is valid once.
#[utoipa::path(post, path = "/api/v1/tickets", operation_id = "createTicket", tag = "tickets",
    responses((status = 201, description = "The ticket.", body = TicketJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn issue(
    State(tickets): State<Arc<dyn Tickets>>,
    Who(caller): Who,
    lapse: Option<Extension<Lapse>>,
) -> ApiResult<(StatusCode, Json<TicketJson>)> {
    let lapse = lapse.map(|Extension(lapse)| lapse).unwrap_or_default();
    let Ticket { ticket, seconds } = tickets.issue(&caller, lapse)?;
    let ticket = TicketJson { ticket: ticket.expose().clone(), expires_in: seconds };
    Ok((StatusCode::CREATED, Json(ticket)))
}
