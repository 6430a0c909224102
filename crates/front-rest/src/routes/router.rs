//! Messages and registered parties: the router's routes.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router as Routes};
use quorate_ports::Router;
use quorate_types::{MessageId, PartyId, PartyRole, Registration, SessionId, Timestamp};
use quorate_wire::*;

use super::coordinator::same_party;
use crate::answer::ApiResult;
use crate::common::{MESSAGE_BODY, SMALL_BODY, finish};
use crate::extract::{Body, OptionalBody, Path, Who};
use crate::params::Params;
use crate::sockets::{events, messages};

type RouterState = State<Arc<dyn Router>>;

/// The message router's routes.
pub fn router_routes(router: Arc<dyn Router>) -> Routes {
    let payloads = Routes::new()
        .route("/api/v1/sessions/{session_id}/messages", post(route).get(pending))
        .with_state(router.clone());
    let rest = Routes::new()
        .route("/api/v1/sessions/{session_id}/messages/{message_id}/ack", post(acknowledge))
        .route("/api/v1/sessions/{session_id}/messages/{message_id}", get(message_status))
        .route("/api/v1/messages/subscribe", get(messages::subscribe))
        .route("/api/v1/events/subscribe", get(events::subscribe))
        .route("/api/v1/parties", get(parties).post(register))
        .route("/api/v1/parties/{party_id}/heartbeat", post(heartbeat))
        .with_state(router);
    finish(payloads, MESSAGE_BODY).merge(finish(rest, SMALL_BODY))
}

/// Route a message.
///
/// Success means that the message is durable, or that every recipient has acknowledged it.
#[utoipa::path(post, path = "/api/v1/sessions/{session_id}/messages", operation_id = "routeMessage", tag = "messages",
    params(("session_id" = Uuid, Path)),
    request_body = RouteJson,
    responses((status = 200, description = "Accepted.", body = RouteAnswerJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn route(
    State(router): RouterState,
    Who(caller): Who,
    Path(session): Path<SessionId>,
    Body(body): Body<RouteJson>,
) -> ApiResult<Json<RouteAnswerJson>> {
    let message_id = router.route(&caller, body.into_request(Some(session))?).await?;
    Ok(Json(RouteAnswerJson { success: true, message_id }))
}

/// Read a party's unacknowledged messages, oldest first, up to 3 MiB but at least one message.
/// Reading does not remove them: acknowledge them, or continue with `after`, until none is left.
#[utoipa::path(get, path = "/api/v1/sessions/{session_id}/messages", operation_id = "getPendingMessages", tag = "messages",
    params(("session_id" = Uuid, Path),
        ("party_id" = String, Query, description = "the recipient"),
        ("after" = Option<i64>, Query, description = "only messages accepted after this time, ms since 1970")),
    responses((status = 200, description = "The messages.", body = MessagesJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn pending(
    State(router): RouterState,
    Who(caller): Who,
    Path(session): Path<SessionId>,
    mut params: Params,
) -> ApiResult<Json<MessagesJson>> {
    let party: PartyId = params.required("party_id")?;
    let after = Timestamp(params.either("after", "after_timestamp")?.unwrap_or(0));
    params.done()?;
    let messages = router.pending(&caller, session, &party, after).await?;
    Ok(Json(MessagesJson { messages: messages.into_iter().map(Into::into).collect() }))
}

/// Acknowledge a message, so that it is not delivered to that party again. Idempotent.
#[utoipa::path(post, path = "/api/v1/sessions/{session_id}/messages/{message_id}/ack", operation_id = "acknowledgeMessage", tag = "messages",
    params(("session_id" = Uuid, Path), ("message_id" = Uuid, Path)),
    request_body = AckJson,
    responses((status = 200, description = "Acknowledged.", body = AckAnswerJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn acknowledge(
    State(router): RouterState,
    Who(caller): Who,
    Path((session, message)): Path<(SessionId, MessageId)>,
    Body(body): Body<AckJson>,
) -> ApiResult<Json<AckAnswerJson>> {
    router.acknowledge(&caller, body.into_ack(session, message)?).await?;
    Ok(Json(AckAnswerJson { success: true, message: "acknowledged".into() }))
}

/// Read the delivery status of a message for each recipient.
#[utoipa::path(get, path = "/api/v1/sessions/{session_id}/messages/{message_id}", operation_id = "getMessageStatus", tag = "messages",
    params(("session_id" = Uuid, Path), ("message_id" = Uuid, Path)),
    responses((status = 200, description = "The delivery status.", body = MessageStatusJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn message_status(
    State(router): RouterState,
    Who(caller): Who,
    Path((session, message)): Path<(SessionId, MessageId)>,
) -> ApiResult<Json<MessageStatusJson>> {
    let deliveries = router.message_status(&caller, session, message).await?;
    Ok(Json(MessageStatusJson::new(session, message, deliveries)))
}

/// List registered parties.
#[utoipa::path(get, path = "/api/v1/parties", operation_id = "listParties", tag = "parties",
    params(("role" = Option<String>, Query, description = "only parties with this role: persistent, delegate or temporary"),
        ("online" = Option<bool>, Query, description = "`true`: only parties that are online"),
        ("after" = Option<String>, Query, description = "`next` of the previous page")),
    responses((status = 200, description = "The parties.", body = PartiesJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn parties(
    State(router): RouterState,
    Who(caller): Who,
    mut params: Params,
) -> ApiResult<Json<PartiesJson>> {
    let role: Option<PartyRole> = params.either("role", "role_filter")?;
    let only_online = params.either("online", "only_online")?.unwrap_or(false);
    let after: Option<PartyId> = params.optional("after")?;
    params.done()?;
    let parties = router.parties(&caller, role, only_online).await?;
    Ok(Json(PartiesJson::page(parties, after.as_ref())))
}

/// Register a party, or renew its registration.
#[utoipa::path(post, path = "/api/v1/parties", operation_id = "registerParty", tag = "parties",
    request_body = RegisterJson,
    responses((status = 200, description = "Registered.", body = RegisteredJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn register(
    State(router): RouterState,
    Who(caller): Who,
    Body(body): Body<RegisterJson>,
) -> ApiResult<Json<RegisteredJson>> {
    let registered_at = router.register(&caller, Registration::from(body)).await?;
    Ok(Json(RegisteredJson { success: true, message: "registered".into(), registered_at }))
}

/// Send a heartbeat.
#[utoipa::path(post, path = "/api/v1/parties/{party_id}/heartbeat", operation_id = "heartbeat", tag = "parties",
    params(("party_id" = String, Path)),
    request_body(content = Option<HeartbeatJson>),
    responses((status = 200, description = "Seen.", body = HeartbeatAnswerJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn heartbeat(
    State(router): RouterState,
    Who(caller): Who,
    Path(party): Path<PartyId>,
    OptionalBody(body): OptionalBody<HeartbeatJson>,
) -> ApiResult<Json<HeartbeatAnswerJson>> {
    same_party(&party, body.and_then(|body| body.party_id).as_ref())?;
    Ok(Json(router.heartbeat(&caller, &party).await?.into()))
}
