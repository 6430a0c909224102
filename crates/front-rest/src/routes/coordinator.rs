//! Sessions and keys: the coordinator's routes.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use quorate_ports::Coordinator;
use quorate_types::{Error, KeyId, Page, PartyId, PartyOutcome, SessionId};
use quorate_wire::*;

use crate::answer::ApiResult;
use crate::common::{MESSAGE_BODY, SMALL_BODY, finish};
use crate::extract::{Body, IdempotencyKey, OptionalBody, Path, Who};
use crate::params::Params;

/// Most sessions of one page: the answer stays below about half a megabyte.
const MAX_SESSIONS: u32 = 200;

/// Most notifications of one page.
const MAX_NOTIFICATIONS: u32 = 200;

/// Most keys of one answer.
const MAX_KEYS: u32 = 1000;

type CoordinatorState = State<Arc<dyn Coordinator>>;

/// The session coordinator's routes.
pub fn coordinator_routes(coordinator: Arc<dyn Coordinator>) -> Router {
    // A request may carry a share that its user lends a delegate.
    let create = post(create).layer(DefaultBodyLimit::max(MESSAGE_BODY));
    let routes = Router::new()
        .route("/api/v1/sessions", create.get(list))
        .route("/api/v1/sessions/join", post(join))
        .route("/api/v1/sessions/{session_id}", get(status).delete(close))
        .route("/api/v1/sessions/{session_id}/parties/{party_id}/ready", put(ready))
        .route("/api/v1/sessions/{session_id}/start", post(start))
        .route("/api/v1/sessions/{session_id}/complete", post(complete))
        .route("/api/v1/sessions/{session_id}/approvals", post(approve))
        .route("/api/v1/sessions/{session_id}/timeline", get(timeline))
        .route("/api/v1/notifications", get(notifications))
        .route("/api/v1/keys", get(keys))
        .route("/api/v1/keys/{key_id}", get(key))
        .route("/api/v1/keys/{key_id}/freeze", post(freeze))
        .route("/api/v1/keys/{key_id}/unfreeze", post(unfreeze))
        .with_state(coordinator.clone());
    finish(routes, SMALL_BODY).merge(super::delegates::routes(coordinator))
}

/// Create a session.
///
/// The answer has one join token per participant. Repeating a request with the same
/// `Idempotency-Key` returns the same session.
#[utoipa::path(post, path = "/api/v1/sessions", operation_id = "createSession", tag = "sessions",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters")),
    request_body = CreateSessionJson,
    responses((status = 201, description = "Created.", body = CreatedSessionJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn create(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    IdempotencyKey(key): IdempotencyKey,
    Body(body): Body<CreateSessionJson>,
) -> ApiResult<(StatusCode, Json<CreatedSessionJson>)> {
    let created = coordinator.create(&caller, body.into_request(key)?).await?;
    Ok((StatusCode::CREATED, Json(created.into())))
}

/// List sessions, newest first.
#[utoipa::path(get, path = "/api/v1/sessions", operation_id = "listSessions", tag = "sessions",
    params(("limit" = Option<u32>, Query, description = "1 to 200, default 50"),
        ("before" = Option<String>, Query,
            description = "`next` of the previous page, or ms since 1970")),
    responses((status = 200, description = "One page.", body = SessionsJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn list(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    mut params: Params,
) -> ApiResult<Json<SessionsJson>> {
    let limit = params.limit(MAX_SESSIONS)?;
    let before = params.optional("before")?;
    params.done()?;
    let Page { items, next } = coordinator.list(&caller, before, limit).await?;
    Ok(Json(SessionsJson { sessions: items.into_iter().map(Into::into).collect(), next }))
}

/// Join a session with a token.
///
/// The token determines the session. Repeating the call returns the same seat.
#[utoipa::path(post, path = "/api/v1/sessions/join", operation_id = "joinSession", tag = "sessions",
    request_body = JoinSessionJson,
    responses((status = 200, description = "Joined.", body = JoinedSessionJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn join(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    Body(body): Body<JoinSessionJson>,
) -> ApiResult<Json<JoinedSessionJson>> {
    Ok(Json(coordinator.join(&caller, body.into_request()?).await?.into()))
}

/// Read a session, optionally waiting until it starts or ends.
#[utoipa::path(get, path = "/api/v1/sessions/{session_id}", operation_id = "getSession", tag = "sessions",
    params(("session_id" = Uuid, Path),
        ("wait" = Option<String>, Query, description = "`start`: until it has started or ended; `end`: until it has ended"),
        ("wait_seconds" = Option<u32>, Query, description = "longest wait; at most 60, default 30")),
    responses((status = 200, description = "The session.", body = SessionJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn status(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    Path(session): Path<SessionId>,
    mut params: Params,
) -> ApiResult<Json<SessionJson>> {
    let wait = params.wait()?;
    params.done()?;
    Ok(Json(coordinator.status(&caller, session, wait).await?.into()))
}

/// Close a session that has not ended. Idempotent.
#[utoipa::path(delete, path = "/api/v1/sessions/{session_id}", operation_id = "closeSession", tag = "sessions",
    params(("session_id" = Uuid, Path)),
    responses((status = 200, description = "Closed.", body = SessionStepJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn close(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    Path(session): Path<SessionId>,
) -> ApiResult<Json<SessionStepJson>> {
    Ok(Json((&coordinator.close(&caller, session).await?).into()))
}

/// Mark a joined party ready; the last one starts the session.
#[utoipa::path(put, path = "/api/v1/sessions/{session_id}/parties/{party_id}/ready", operation_id = "markPartyReady", tag = "sessions",
    params(("session_id" = Uuid, Path), ("party_id" = String, Path)),
    request_body(content = Option<ReadyJson>),
    responses((status = 200, description = "Ready.", body = ReadyAnswerJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn ready(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    Path((session, party)): Path<(SessionId, PartyId)>,
    OptionalBody(body): OptionalBody<ReadyJson>,
) -> ApiResult<Json<ReadyAnswerJson>> {
    same_party(&party, body.and_then(|body| body.party_id).as_ref())?;
    Ok(Json(coordinator.ready(&caller, session, &party).await?.into()))
}

/// Refuses a body that names another party than the path.
pub(crate) fn same_party(path: &PartyId, body: Option<&PartyId>) -> Result<(), Error> {
    match body {
        Some(named) if named != path => Err(Error::invalid_field(
            "party_id",
            format!("party_id is {named} but the path says {path}; give the same or none"),
        )),
        _ => Ok(()),
    }
}

/// Confirm that a session has started; refused while parties are not ready.
#[utoipa::path(post, path = "/api/v1/sessions/{session_id}/start", operation_id = "startSession", tag = "sessions",
    params(("session_id" = Uuid, Path)),
    responses((status = 200, description = "Started.", body = SessionStepJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn start(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    Path(session): Path<SessionId>,
) -> ApiResult<Json<SessionStepJson>> {
    Ok(Json((&coordinator.start(&caller, session).await?).into()))
}

/// Report a party's result or failure.
///
/// A signature is verified under the key; the results of all parties are compared.
#[utoipa::path(post, path = "/api/v1/sessions/{session_id}/complete", operation_id = "reportCompletion", tag = "sessions",
    params(("session_id" = Uuid, Path)),
    request_body = ReportJson,
    responses((status = 200, description = "Accepted.", body = CompletedJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn complete(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    Path(session): Path<SessionId>,
    Body(body): Body<ReportJson>,
) -> ApiResult<Json<CompletedJson>> {
    let report = body.into_report(session)?;
    let was_failure = matches!(report.outcome, PartyOutcome::Failure(_));
    let session = coordinator.complete(&caller, report).await?;
    Ok(Json(CompletedJson::new(&session, was_failure)))
}

/// Add an approval of a session's signed request.
///
/// The signature is verified here and again by each party whose policy requires it. Repeating an
/// approval changes nothing.
#[utoipa::path(post, path = "/api/v1/sessions/{session_id}/approvals", operation_id = "approveSession", tag = "sessions",
    params(("session_id" = Uuid, Path)),
    request_body = ApprovalJson,
    responses((status = 200, description = "Accepted.", body = SessionJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn approve(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    Path(session): Path<SessionId>,
    Body(body): Body<ApprovalJson>,
) -> ApiResult<Json<SessionJson>> {
    Ok(Json(coordinator.approve(&caller, session, body.try_into()?).await?.into()))
}

/// Read a session's timeline.
#[utoipa::path(get, path = "/api/v1/sessions/{session_id}/timeline", operation_id = "getTimeline", tag = "sessions",
    params(("session_id" = Uuid, Path)),
    responses((status = 200, description = "The timeline.", body = TimelineJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn timeline(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    Path(session): Path<SessionId>,
) -> ApiResult<Json<TimelineJson>> {
    Ok(Json(coordinator.timeline(&caller, session).await?.into()))
}

/// Read a key, with its epochs and the bans between its holders.
#[utoipa::path(get, path = "/api/v1/keys/{key_id}", operation_id = "getKey", tag = "keys",
    params(("key_id" = Uuid, Path)),
    responses((status = 200, description = "The key.", body = KeyDetailJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn key(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    Path(key): Path<KeyId>,
) -> ApiResult<Json<KeyDetailJson>> {
    Ok(Json(coordinator.key(&caller, key).await?.into()))
}

/// Freeze a key: refuse signatures and refreshes.
///
/// The key's open sessions end with `key_frozen`; once this call is answered, none of them
/// completes. Signatures and refreshes are refused with `key_frozen` until the key is unfrozen.
/// Idempotent: a second freeze does not replace the first.
#[utoipa::path(post, path = "/api/v1/keys/{key_id}/freeze", operation_id = "freezeKey", tag = "keys",
    params(("key_id" = Uuid, Path)),
    request_body(content = Option<FreezeKeyJson>),
    responses((status = 200, description = "Frozen.", body = KeyDetailJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn freeze(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    Path(key): Path<KeyId>,
    OptionalBody(body): OptionalBody<FreezeKeyJson>,
) -> ApiResult<Json<KeyDetailJson>> {
    let reason = body.unwrap_or_default().reason;
    Ok(Json(coordinator.freeze(&caller, key, reason).await?.into()))
}

/// Unfreeze a key. Idempotent.
#[utoipa::path(post, path = "/api/v1/keys/{key_id}/unfreeze", operation_id = "unfreezeKey", tag = "keys",
    params(("key_id" = Uuid, Path)),
    responses((status = 200, description = "Unfrozen.", body = KeyDetailJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn unfreeze(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    Path(key): Path<KeyId>,
) -> ApiResult<Json<KeyDetailJson>> {
    Ok(Json(coordinator.unfreeze(&caller, key).await?.into()))
}

/// List keys, newest first.
#[utoipa::path(get, path = "/api/v1/keys", operation_id = "listKeys", tag = "keys",
    params(("limit" = Option<u32>, Query, description = "1 to 1000, default 50"),
        ("before" = Option<String>, Query, description = "`next` of the previous page")),
    responses((status = 200, description = "One page.", body = KeysJson),
        (status = "default", description = "Error.", body = ErrorJson)))]
pub(crate) async fn keys(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    mut params: Params,
) -> ApiResult<Json<KeysJson>> {
    let limit = params.limit(MAX_KEYS)?;
    let before = params.optional("before")?;
    params.done()?;
    let Page { items, next } = coordinator.keys(&caller, before, limit).await?;
    Ok(Json(KeysJson { keys: items.into_iter().map(Into::into).collect(), next }))
}

/// List notifications of all tenants, newest first.
///
/// What was sent to parties in offline mode and to webhooks, what waits, and what was given up, with
/// the last error. Addresses are shown to nobody.
#[utoipa::path(get, path = "/api/v1/notifications", operation_id = "listNotifications", tag = "notifications",
    params(("limit" = Option<u32>, Query, description = "1 to 200; 50 when absent"),
        ("before" = Option<String>, Query, description = "the `next` of the page before"),
        ("state" = Option<String>, Query, description = "`waiting`, `sent` or `dead`; all when absent")),
    responses((status = 200, description = "A page.", body = NotificationsJson),
        (status = "default", description = "Refused.", body = ErrorJson)))]
pub(crate) async fn notifications(
    State(coordinator): CoordinatorState,
    Who(caller): Who,
    mut params: Params,
) -> ApiResult<Json<NotificationsJson>> {
    let limit = params.limit(MAX_NOTIFICATIONS)?;
    let before = params.optional("before")?;
    let state = params.optional("state")?;
    params.done()?;
    let Page { items, next } = coordinator.notifications(&caller, state, before, limit).await?;
    let notifications = items.into_iter().map(Into::into).collect();
    Ok(Json(NotificationsJson { notifications, next }))
}
